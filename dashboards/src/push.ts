// Platform push: which devices are due, and what the push services make of it.
import { dashboard, of, quantiles, rate, series, sum } from './panels.js';

export function push() {
  return dashboard(
    'push',
    'Tidemark / Push',
    'Which devices are due to be woken, and what the push services make of it.',
    'up',
    [
      {
        title: 'Push services',
        panels: [
          series('Attempts', 'By provider and outcome: accepted, token_dead, retry, reject, and auth_broken, where the provider refuses us.', 'ops', [{ expr: rate('gateway_pushes_total', 'provider, outcome'), legend: '{{provider}} {{outcome}}' }]),
          series('Failing', 'Attempts that ended neither accepted nor with a dead token, of all, in five minutes.', 'percentunit', [{ expr: 'provider:gateway_pushes_failed:ratio', legend: '{{provider}}' }]),
          series('Time of an attempt', 'By provider.', 's', quantiles('gateway_push_seconds', 'provider')),
          series('Events', 'What else happened: breaker_opened, a provider refuses us or fails again and again; removed, a token is dead; lapsed, a lease ended first; unconfigured, devices name a provider that no gateway here has.', 'ops', [{ expr: rate('gateway_push_events_total', 'provider, event'), legend: '{{provider}} {{event}}' }]),
        ],
      },
      {
        title: 'Hints',
        panels: [
          series('Hints leased', 'Handed out to gateways; one may be handed out again.', 'ops', [{ expr: rate('store_hints_leased_total', 'instance'), legend: '{{instance}}' }]),
          series('Hints in hand', 'Of gateways: leased and not done with, and how many may be.', 'short', [
            { expr: of('gateway_hints_in_hand'), legend: '{{instance}}' },
            { expr: of('gateway_hints_in_hand_max'), legend: '{{instance}} may have' },
          ]),
          series('Hints out', 'That gateways have now.', 'short', [{ expr: sum(of('store_hints_out'), 'instance'), legend: '{{instance}}' }]),
        ],
      },
    ],
  );
}
