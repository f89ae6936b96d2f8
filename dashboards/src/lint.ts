// What nothing else would notice: lint.js FOLDER METRICS.
//
//   an alert without a test that it fires and one that it stays silent, both of its own metrics
//   an alert that the operators' manual does not explain
//   a panel or rule that names a metric which no server has
//   a metric that is on no panel
//
// METRICS is docs/metrics.md, which the servers' own tables are compared with by their tests.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { alerts, panels, recordings, type RuleTest, tests } from './files.js';
import { base, named, type Recorded, words } from './names.js';

const [folder, metrics] = process.argv.slice(2);
if (folder === undefined || metrics === undefined) {
  throw new Error('usage: lint.js FOLDER METRICS');
}

const recorded = recordings(folder);
const known = new Set(
  [...readFileSync(metrics, 'utf8').matchAll(/^\| `([a-z_]+)` \|/gm)].map(([, name]) => name ?? ''),
);
const manual = readFileSync(join(folder, '../docs/operations.md'), 'utf8');
const problems: string[] = [];

/** Does this test show that the alert fires, or that it does not, though its metrics are there? */
function shows(test: RuleTest, alert: string, expr: string, fires: boolean): boolean {
  const asked = test.alert_rule_test.filter((asked) => asked.alertname === alert);
  const needed = named([expr], recorded);
  const given = test.input_series.some(({ series }) => needed.has(series.replace(/\{.*$/s, '')));
  return given && asked.length > 0 && asked.every((asked) => asked.exp_alerts.length > 0 === fires);
}

function check_alerts(): number {
  const all = alerts(folder as string);
  const tested = tests(folder as string);
  for (const [alert, expr] of all) {
    for (const [title, fires] of [[`${alert} fires`, true], [`${alert} is silent`, false]] as const) {
      if (!tested.some((test) => test.name === title && shows(test, alert, expr, fires))) {
        problems.push(`tests.yml: no test "${title}" that shows it by the alert's own metrics`);
      }
    }
    if (!manual.includes(`\`${alert}\``)) {
      problems.push(`docs/operations.md: nothing about the alert ${alert}`);
    }
  }
  return all.size;
}

/** Prometheus's own, which every server has. */
const OWN = new Set(['up', 'ALERTS']);

function check_names(expr: string, where: string, recorded: Recorded): void {
  for (const word of words(expr)) {
    // Every name of ours has the server's in front; labels have not.
    const ours = /^(store|gateway|process)_/.test(word) && !known.has(base(word));
    const unrecorded = word.includes(':') && !recorded.has(word);
    if ((ours && !OWN.has(word)) || unrecorded) {
      problems.push(`${where}: there is no ${word}`);
    }
  }
}

const shown = panels(folder);
const exprs = shown.flatMap((panel) => panel.exprs);
const count = check_alerts();
for (const { dashboard, panel, exprs } of shown) {
  if (exprs.length === 0) {
    problems.push(`${dashboard}, ${panel}: it asks for nothing`);
  }
  exprs.forEach((expr) => check_names(expr, `${dashboard}, ${panel}`, recorded));
}
for (const [name, expr] of [...recorded, ...alerts(folder)]) {
  check_names(expr, name, recorded);
}
const plotted = new Set([...named(exprs, recorded)].map(base));
for (const name of known) {
  if (!plotted.has(name)) {
    problems.push(`${name} is on no panel`);
  }
}
problems.forEach((problem) => console.error(problem));
console.log(
  `dashboards: panels=${shown.length} queries=${exprs.length} metrics=${known.size} alerts=${count} problems=${problems.length}`,
);
process.exitCode = problems.length === 0 ? 0 : 1;
