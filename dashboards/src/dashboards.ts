// All dashboards, by the names of their files.
import type { DashboardBuilder } from '@grafana/grafana-foundation-sdk/dashboard';
import { cluster } from './cluster.js';
import { gateways } from './gateways.js';
import { push } from './push.js';
import { shards } from './shards.js';

export const DASHBOARDS: Record<string, DashboardBuilder> = {
  cluster: cluster(),
  shards: shards(),
  gateways: gateways(),
  push: push(),
};
