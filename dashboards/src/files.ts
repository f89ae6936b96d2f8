// The committed files: dashboards and rules.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';
import type { Recorded } from './names.js';

/** A panel's queries, as they stand in the JSON. */
export interface PanelQueries {
  dashboard: string;
  panel: string;
  exprs: string[];
}

/** Panels that ask for something. */
export function panels(folder: string): PanelQueries[] {
  const files = readdirSync(folder).filter((name) => name.endsWith('.json') && !name.startsWith('package') && name !== 'tsconfig.json');
  return files.sort().flatMap((file) => {
    const { panels } = JSON.parse(readFileSync(join(folder, file), 'utf8')) as {
      panels: { title: string; type: string; targets?: { expr: string }[] }[];
    };
    return panels
      .filter((panel) => panel.type !== 'row')
      .map((panel) => ({
        dashboard: file.replace(/\.json$/, ''),
        panel: panel.title,
        exprs: (panel.targets ?? []).map((target) => target.expr),
      }));
  });
}

interface Rules {
  groups: { rules: { record?: string; alert?: string; expr: string }[] }[];
}

function rules(folder: string, file: string): Rules['groups'][number]['rules'] {
  const text = readFileSync(join(folder, 'prometheus', file), 'utf8');
  return (parse(text) as Rules).groups.flatMap((group) => group.rules);
}

/** Recorded series, and their expressions. */
export function recordings(folder: string): Recorded {
  return new Map(rules(folder, 'recording.yml').map((rule) => [rule.record ?? '', rule.expr]));
}

/** Alerts, and their expressions. */
export function alerts(folder: string): Map<string, string> {
  return new Map(rules(folder, 'alerts.yml').map((rule) => [rule.alert ?? '', rule.expr]));
}

/** A test of rules. */
export interface RuleTest {
  name: string;
  input_series: { series: string }[];
  alert_rule_test: { alertname: string; exp_alerts: unknown[] }[];
}

/** Tests of rules. */
export function tests(folder: string): RuleTest[] {
  const text = readFileSync(join(folder, 'prometheus', 'tests.yml'), 'utf8');
  return (parse(text) as { tests: RuleTest[] }).tests;
}
