// The gateways: who is connected, what goes through, what is refused, and what checks find.
import { dashboard, mean, of, quantiles, rate, series, sum } from './panels.js';

export function gateways() {
  return dashboard(
    'gateways',
    'Tidemark / Gateways',
    'Who is connected, what goes through, what is refused, and what checks find.',
    'up{job="gateway"}',
    [
      {
        title: 'Devices',
        panels: [
          series('Connections', 'By carrier, and how many there may be.', 'short', [
            { expr: sum(of('gateway_connections'), 'instance, carrier'), legend: '{{instance}} {{carrier}}' },
            { expr: of('gateway_connections_max'), legend: '{{instance}} may have' },
          ]),
          series('Connections that end', 'By reason: slow read nothing, silent said nothing, gone left by themselves.', 'ops', [{ expr: rate('gateway_connections_ended_total', 'reason'), legend: '{{reason}}' }]),
          series('Connections refused', 'Because the gateway is full, or stops.', 'ops', [{ expr: rate('gateway_connections_refused_total', 'instance'), legend: '{{instance}}' }]),
          series('Mailboxes watched', 'Users with a device here: each is watched once, however many devices it has.', 'short', [{ expr: of('gateway_mailboxes_watched'), legend: '{{instance}}' }]),
          series('Watches', 'Mailboxes that a store node tells of from now on: for the first time, or again after a failover.', 'ops', [{ expr: rate('gateway_watches_total', 'instance'), legend: '{{instance}}' }]),
          series('Frames received', 'From devices, by kind.', 'ops', [{ expr: rate('gateway_frames_received_total', 'frame'), legend: '{{frame}}' }]),
          series('Frames sent', 'To devices, by kind.', 'ops', [{ expr: rate('gateway_frames_sent_total', 'frame'), legend: '{{frame}}' }]),
          series('Errors', 'That devices were told, by code: bad tokens and bad frames among them.', 'ops', [{ expr: rate('gateway_errors_total', 'code'), legend: '{{code}}' }]),
          series('Frames waiting', 'Until their devices take those before them.', 'short', [{ expr: of('gateway_frames_waiting'), legend: '{{instance}}' }]),
          series('Typing not told', 'That somebody types, above the device\'s pace, or to a device that does not read. Nothing is lost by it but a hint of a moment.', 'ops', [{ expr: rate('gateway_typing_dropped_total', 'instance'), legend: '{{instance}}' }]),
          series('Reads paused', 'Times a device was not read, since as many of its frames waited as may.', 'ops', [{ expr: rate('gateway_reads_paused_total', 'instance'), legend: '{{instance}}' }]),
        ],
      },
      {
        title: 'Sends',
        panels: [
          series('Sends', 'Answers by outcome; OK is accepted for good.', 'ops', [{ expr: rate('gateway_sends_total', 'code'), legend: '{{code}}' }]),
          series('Send to acknowledgement', 'As the gateway sees it.', 's', quantiles('gateway_send_seconds')),
          series('Repetitions', 'Rounds in which sends were repeated to the store, and sends that were given back without a verdict: both grow in a failover. Sends that waited for the checks are given back when the hook must judge and does not.', 'ops', [
            { expr: rate('gateway_send_repetitions_total'), legend: 'repeated' },
            { expr: rate('gateway_sends_given_back_total', 'waited_for'), legend: 'given back, after waiting for the {{waited_for}}' },
          ]),
        ],
      },
      {
        title: 'Delivery',
        panels: [
          series('Acceptance to delivery', 'By two clocks: the cluster\'s and the gateway\'s.', 's', quantiles('gateway_delivery_seconds')),
          series('Entries', 'Sent unasked, told by notice, and read in pages.', 'ops', [
            { expr: rate('gateway_delivered_entries_total'), legend: 'delivered' },
            { expr: rate('gateway_notices_total'), legend: 'notices' },
            { expr: rate('gateway_pages_total'), legend: 'pages' },
          ]),
          series('Newest entries', 'Bytes of all mailboxes\' newest entries, ready to be sent, and what they may hold together.', 'bytes', [
            { expr: of('gateway_tails_bytes'), legend: '{{instance}}' },
            { expr: of('gateway_tails_bytes_max'), legend: '{{instance}} may hold' },
          ]),
          series('Newest entries given up', 'Times a mailbox gave up its own, since all together held as much as they may: its devices read from the store.', 'ops', [{ expr: rate('gateway_tails_given_up_total', 'instance'), legend: '{{instance}}' }]),
          series('Resets', 'Devices with a cursor of another epoch, or above the head: they start anew.', 'ops', [{ expr: rate('gateway_resets_total', 'instance'), legend: '{{instance}}' }]),
        ],
      },
      {
        title: 'Back ends and operators',
        panels: [
          series('Calls', 'By call and outcome; a stream is one when it begins.', 'ops', [{ expr: rate('gateway_calls_total', 'call, code'), legend: '{{call}} {{code}}' }]),
          series('Arrival to answer', 'By call.', 's', quantiles('gateway_call_seconds', 'call')),
          series('Keys', 'Reloads of the keys of tokens, by whether they could be read.', 'none', [{ expr: `sum by (instance, read) (${of('gateway_key_reloads_total')})`, legend: '{{instance}} read={{read}}' }]),
          series('Allocations', 'Numbers of counters given without an id, by outcome.', 'ops', [{ expr: rate('gateway_allocations_total', 'code'), legend: '{{code}}' }]),
          series('Allocation', 'From arrival to answer.', 's', quantiles('gateway_allocation_seconds')),
          series('Allocations in a command', 'How many went to the store together.', 'short', [
            ...quantiles('gateway_allocations_per_command'),
            { expr: mean('gateway_allocations_per_command'), legend: 'mean' },
          ]),
        ],
      },
      {
        title: 'Checks of sends',
        panels: [
          series('Findings', 'Sends that a check has looked at, by the check and what it found.', 'ops', [{ expr: rate('gateway_checks_total', 'check, finding'), legend: '{{check}} {{finding}}' }]),
          series('Slowed', 'Sends above their sender\'s rate: paused, its device is not read for a while; refused, with RETRY_AFTER.', 'ops', [{ expr: rate('gateway_sends_slowed_total', 'how'), legend: '{{how}}' }]),
          series('Rates forgotten', 'More senders are active than are tracked: some were forgotten while their rates still counted.', 'ops', [{ expr: rate('gateway_rates_forgotten_total', 'instance'), legend: '{{instance}}' }]),
          series('Word list', 'Words of the filter, and reloads by whether the list could be read.', 'short', [
            { expr: of('gateway_filter_words'), legend: '{{instance}} words' },
            { expr: `sum by (instance, read) (${of('gateway_filter_reloads_total')})`, legend: '{{instance}} read={{read}}' },
          ]),
          series('Hook', 'Sends that were the hook\'s to judge, by outcome, and whether it is left alone since it failed.', 'ops', [
            { expr: rate('gateway_hook_calls_total', 'outcome'), legend: '{{outcome}}' },
            { expr: of('gateway_hook_left_alone'), legend: '{{instance}} left alone' },
          ]),
          series('Hook\'s time', 'Of sends that were asked about, waiting for their turn included.', 's', quantiles('gateway_hook_seconds')),
        ],
      },
    ],
  );
}
