// Asks a live Prometheus for everything that the dashboards show: check.js FOLDER METRICS URL SECONDS.
//
// Each query must have given a number at some time since this began, within SECONDS, and every metric that
// a server exports, or says that it does in docs/metrics.md, must be on a panel. NaN is no number: it is
// what a quantile of nothing is.
import { readFileSync } from 'node:fs';
import { panels, recordings } from './files.js';
import { base, named } from './names.js';

const [folder, metrics, url, seconds] = process.argv.slice(2);
if (folder === undefined || metrics === undefined || url === undefined || seconds === undefined) {
  throw new Error('usage: check.js FOLDER METRICS URL SECONDS');
}

const STEP_S = 5;
/** Four scrapes, as Grafana's $__rate_interval is at its shortest. */
const RATE_INTERVAL = '20s';
const PAUSE_MS = 2_000;

const began = Date.now() / 1000;

async function ask<T>(path: string, parameters: Record<string, string>): Promise<T> {
  const answer = await fetch(`${url}/api/v1/${path}?${new URLSearchParams(parameters)}`);
  const { status, data, error } = (await answer.json()) as { status: string; data: T; error?: string };
  if (status !== 'success') {
    throw new Error(`${path} ${JSON.stringify(parameters)}: ${error ?? status}`);
  }
  return data;
}

/** The expression as Grafana would send it, with everything chosen. */
function plain(expr: string): string {
  return expr.replaceAll('$__rate_interval', RATE_INTERVAL).replace(/"\$[a-z]+"/g, '".*"');
}

async function hasData(expr: string): Promise<boolean> {
  const { result } = await ask<{ result: { values: [number, string][] }[] }>('query_range', {
    query: plain(expr),
    start: String(began),
    end: String(Date.now() / 1000),
    step: String(STEP_S),
  });
  return result.some(({ values }) => values.some(([, value]) => Number.isFinite(Number(value))));
}

/** What the servers export now. */
async function exported(): Promise<Set<string>> {
  const names = await ask<string[]>('label/__name__/values', { 'match[]': '{job=~"store|gateway"}' });
  const ours = names.filter((name) => !/^(up|scrape_.*|ALERTS.*|.*:.*)$/.test(name));
  const known = [...readFileSync(metrics as string, 'utf8').matchAll(/^\| `([a-z_]+)` \|/gm)];
  return new Set([...ours.map(base), ...known.map(([, name]) => name ?? '')]);
}

const shown = panels(folder);
const queries = shown.flatMap(({ dashboard, panel, exprs }) =>
  exprs.map((expr) => ({ where: `${dashboard}, ${panel}`, expr })),
);
let empty = queries;
while (empty.length > 0 && Date.now() / 1000 < began + Number(seconds)) {
  await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  const still = [];
  for (const query of empty) {
    if (!(await hasData(query.expr))) {
      still.push(query);
    }
  }
  empty = still;
}
empty.forEach(({ where, expr }) => console.error(`${where}: no data: ${plain(expr)}`));

const plotted = new Set([...named(queries.map(({ expr }) => expr), recordings(folder))].map(base));
const unplotted = [...(await exported())].filter((name) => !plotted.has(name));
unplotted.forEach((name) => console.error(`${name} is on no panel`));

console.log(
  `panels=${shown.length} queries=${queries.length} empty=${empty.length} unplotted=${unplotted.length}`,
);
process.exitCode = empty.length + unplotted.length === 0 ? 0 : 1;
