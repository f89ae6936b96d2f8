// What all dashboards are made of: panels with their queries, and the expressions that most of them use.
//
// A panel says in a sentence what it shows, since whoever looks at it at night does not know.
import * as common from '@grafana/grafana-foundation-sdk/common';
import {
  DashboardBuilder,
  DashboardCursorSync,
  DashboardLinkBuilder,
  DashboardLinkType,
  DatasourceVariableBuilder,
  type Panel,
  QueryVariableBuilder,
  RowBuilder,
  ThresholdsConfigBuilder,
  ThresholdsMode,
  VariableRefresh,
  VariableSort,
} from '@grafana/grafana-foundation-sdk/dashboard';
import type { Builder } from '@grafana/grafana-foundation-sdk/cog';
import { PanelBuilder as HeatmapBuilder } from '@grafana/grafana-foundation-sdk/heatmap';
import { DataqueryBuilder, PromQueryFormat } from '@grafana/grafana-foundation-sdk/prometheus';
import { PanelBuilder as StatBuilder } from '@grafana/grafana-foundation-sdk/stat';
import { PanelBuilder as SeriesBuilder } from '@grafana/grafana-foundation-sdk/timeseries';

/** The units that we use, as Grafana calls them. */
export type Unit = 'short' | 's' | 'bytes' | 'Bps' | 'ops' | 'percentunit' | 'none' | 'bool_yes_no';

/** One query of a panel: an expression of PromQL, and what its lines are called. */
export interface Query {
  expr: string;
  legend: string;
}

/** A panel before it has a place. */
export type Placed = Builder<Panel>;

const SOURCE = { type: 'prometheus', uid: '${datasource}' };
const HEIGHT = 8;
const THIRD = 8;

/** The servers that are chosen at the top of the dashboard. */
const CHOSEN = 'instance=~"$instance"';

/** `name{…}`: a metric of the chosen servers, of these labels only. */
export function of(metric: string, labels = ''): string {
  return `${metric}{${[CHOSEN, labels].filter(Boolean).join(', ')}}`;
}

/** How fast a counter grows, in all or by labels. */
export function rate(metric: string, by = '', labels = ''): string {
  return sum(`rate(${of(metric, labels)}[$__rate_interval])`, by);
}

/** Values of several servers together. */
export function sum(expr: string, by = ''): string {
  return by ? `sum by (${by}) (${expr})` : `sum(${expr})`;
}

/** The median and the tail of a histogram, in all or by one label. */
export function quantiles(histogram: string, by = ''): Query[] {
  const labels = by ? `le, ${by}` : 'le';
  const name = by ? ` {{${by}}}` : '';
  return [0.5, 0.99].map((quantile) => ({
    expr: `histogram_quantile(${quantile}, ${rate(`${histogram}_bucket`, labels)})`,
    legend: `p${quantile * 100}${name}`,
  }));
}

/** The mean of a histogram, in all or by one label. */
export function mean(histogram: string, by = ''): string {
  return `${rate(`${histogram}_sum`, by)} / ${rate(`${histogram}_count`, by)}`;
}

/** A panel tells its queries apart by letters. */
function target({ expr, legend }: Query, at = 0): DataqueryBuilder {
  const letter = String.fromCharCode('A'.charCodeAt(0) + at);
  return new DataqueryBuilder()
    .refId(letter)
    .expr(expr)
    .legendFormat(legend)
    .range()
    .datasource(SOURCE);
}

function legend(): common.VizLegendOptionsBuilder {
  return new common.VizLegendOptionsBuilder()
    .displayMode(common.LegendDisplayMode.List)
    .placement(common.LegendPlacement.Bottom)
    .showLegend(true);
}

function lines(title: string, description: string, unit: Unit, queries: Query[]): SeriesBuilder {
  const panel = new SeriesBuilder()
    .title(title)
    .description(description)
    .datasource(SOURCE)
    .unit(unit)
    .height(HEIGHT)
    .span(THIRD)
    .lineWidth(1)
    .fillOpacity(8)
    .showPoints(common.VisibilityMode.Never)
    .legend(legend())
    .tooltip(
      new common.VizTooltipOptionsBuilder()
        .mode(common.TooltipDisplayMode.Multi)
        .sort(common.SortOrder.Descending),
    );
  queries.forEach((query, at) => panel.withTarget(target(query, at)));
  return panel;
}

/** Lines over time. */
export function series(title: string, description: string, unit: Unit, queries: Query[]): Placed {
  return lines(title, description, unit, queries).min(0);
}

/** Lines that may be negative. */
export function signed(title: string, description: string, unit: Unit, queries: Query[]): Placed {
  return lines(title, description, unit, queries).axisCenteredZero(true);
}

/** One number, red from `bad` on; without it, never. */
export function stat(
  title: string,
  description: string,
  unit: Unit,
  query: Query,
  bad?: number,
): Placed {
  const steps = [{ value: null as unknown as number, color: 'green' }];
  if (bad !== undefined) {
    steps.push({ value: bad, color: 'red' });
  }
  return new StatBuilder()
    .title(title)
    .description(description)
    .datasource(SOURCE)
    .unit(unit)
    .height(5)
    .span(4)
    .graphMode(common.BigValueGraphMode.Area)
    .colorMode(common.BigValueColorMode.Background)
    .reduceOptions(new common.ReduceDataOptionsBuilder().calcs(['lastNotNull']).values(false))
    .thresholds(new ThresholdsConfigBuilder().mode(ThresholdsMode.Absolute).steps(steps))
    .withTarget(target(query));
}

/** Where a histogram's samples fall, over time. */
export function heatmap(title: string, description: string, unit: Unit, histogram: string): Placed {
  const expr = rate(`${histogram}_bucket`, 'le');
  return new HeatmapBuilder()
    .title(title)
    .description(description)
    .datasource(SOURCE)
    .unit(unit)
    .height(HEIGHT)
    .span(THIRD)
    .calculate(false)
    .withTarget(target({ expr, legend: '{{le}}' }).format(PromQueryFormat.Heatmap));
}

/** A row of panels under a heading. */
export interface Row {
  title: string;
  panels: Placed[];
}

/** A dashboard; `chosen` is the metric whose `instance` labels can be chosen from. */
export function dashboard(
  uid: string,
  title: string,
  description: string,
  chosen: string,
  rows: Row[],
): DashboardBuilder {
  const builder = new DashboardBuilder(title)
    .uid(`tidemark-${uid}`)
    .description(description)
    .tags(['tidemark'])
    .timezone('browser')
    .refresh('10s')
    .time({ from: 'now-30m', to: 'now' })
    .tooltip(DashboardCursorSync.Crosshair)
    .link(
      new DashboardLinkBuilder('Tidemark')
        .type(DashboardLinkType.Dashboards)
        .tags(['tidemark'])
        .asDropdown(true)
        .includeVars(false)
        .keepTime(true),
    )
    .withVariable(new DatasourceVariableBuilder('datasource').label('Prometheus').type('prometheus'))
    .withVariable(
      new QueryVariableBuilder('instance')
        .label('Server')
        .datasource(SOURCE)
        .query(`label_values(${chosen}, instance)`)
        .refresh(VariableRefresh.OnTimeRangeChanged)
        .sort(VariableSort.AlphabeticalAsc)
        .multi(true)
        .includeAll(true)
        .allValue('.*'),
    );
  let id = 0;
  for (const row of rows) {
    builder.withRow(new RowBuilder(row.title).id((id += 1)));
    for (const panel of row.panels) {
      const built = { ...panel.build(), id: (id += 1) };
      builder.withPanel({ build: () => built });
    }
  }
  return builder;
}
