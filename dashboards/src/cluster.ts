// The first look: is anything lost, does it work, how fast, and is every server well?
import { dashboard, of, quantiles, rate, series, signed, stat, sum } from './panels.js';

export function cluster() {
  return dashboard(
    'cluster',
    'Tidemark / Cluster',
    'Is anything lost, does it work, how fast, and is every server well?',
    'up',
    [
      {
        title: 'Is anything lost?',
        panels: [
          stat('Alarms', 'What must never happen, since the servers started. Not 0: a client, a peer or a disk is broken, and a person must look; the log of the server says more.', 'none', { expr: sum(of('store_alarms_total')), legend: 'alarms' }, 1),
          stat('Groups without a leader', 'Their users are not served.', 'none', { expr: 'count(group:store_leaders:count == 0) or vector(0)', legend: 'groups' }, 1),
          stat('Log failures', 'Failed commits of a raft log. One ends its node.', 'none', { expr: sum(of('store_log_failures_total')), legend: 'failures' }, 1),
          stat('Servers down', 'Servers that do not answer Prometheus.', 'none', { expr: 'count(up == 0) or vector(0)', legend: 'down' }, 1),
          stat('Clocks not trusted', 'Nodes whose wall clock jumped, until an operator trusts it again.', 'none', { expr: `sum(1 - ${of('store_clock_trusted')})`, legend: 'nodes' }, 1),
          stat('Alerts', 'Alerts that fire now.', 'none', { expr: 'count(ALERTS{alertstate="firing"}) or vector(0)', legend: 'alerts' }, 1),
        ],
      },
      {
        title: 'Does it work?',
        panels: [
          series('Sends', 'Answers to sends a second, by outcome. OK is accepted for good; the others are refusals, or ask the device to try again.', 'ops', [{ expr: 'cluster:gateway_sends:rate', legend: '{{code}}' }]),
          series('Deliveries', 'Entries that went to devices unasked, each device counted, and notices of those that devices have to ask for.', 'ops', [
            { expr: rate('gateway_delivered_entries_total'), legend: 'delivered' },
            { expr: rate('gateway_notices_total'), legend: 'notices' },
          ]),
          series('Devices', 'Connections, and mailboxes that gateways watch for them.', 'short', [
            { expr: sum(of('gateway_connections'), 'carrier'), legend: '{{carrier}}' },
            { expr: sum(of('gateway_mailboxes_watched')), legend: 'mailboxes' },
          ]),
          series('Send to acknowledgement', 'From the arrival of a send at its gateway to its acknowledgement. Ten seconds is where a gateway gives up.', 's', quantiles('gateway_send_seconds')),
          series('Acceptance to delivery', 'From the acceptance of a message, by cluster time, to its delivery, by the gateway\'s clock: two clocks are compared.', 's', quantiles('gateway_delivery_seconds')),
          series('Proposal to reply', 'In the stores: from a place in the queue to the reply, committed by a majority and applied.', 's', quantiles('store_proposal_seconds')),
        ],
      },
      {
        title: 'Is every server well?',
        panels: [
          series('Up', '1 while a server answers Prometheus.', 'none', [{ expr: of('up'), legend: '{{instance}}' }]),
          series('Free disk space', 'On the disk of each data directory. Below disk.free_bytes_min new messages are refused.', 'bytes', [
            { expr: of('store_disk_free_bytes'), legend: '{{instance}}' },
            { expr: `max(${of('store_disk_free_bytes_min')})`, legend: 'refused below' },
          ]),
          series('Processor', 'Of each server, in cores.', 'short', [{ expr: rate('process_cpu_seconds_total', 'instance'), legend: '{{instance}}' }]),
          series('Memory', 'Of each server, in RAM.', 'bytes', [{ expr: of('process_resident_memory_bytes'), legend: '{{instance}}' }]),
          series('Files and sockets', 'That are open, of those that may be.', 'percentunit', [{ expr: `${of('process_open_fds')} / ${of('process_max_fds')}`, legend: '{{instance}}' }]),
          series('Threads', 'Of each server.', 'short', [{ expr: of('process_threads'), legend: '{{instance}}' }]),
          series('Age', 'How long each server has run; it falls where one was started again.', 's', [{ expr: `time() - ${of('process_start_time_seconds')}`, legend: '{{instance}}' }]),
          signed('Clocks', 'Wall clocks against cluster time. Past a minute of difference ids and tokens are misjudged.', 's', [{ expr: of('store_clock_offset_seconds'), legend: '{{instance}}' }]),
          series('Connections between nodes', '1 while a node has its connection to another one.', 'none', [{ expr: of('store_peer_connected'), legend: '{{instance}} to {{peer}}' }]),
          series('Reconnects between nodes', 'Attempts to connect to another node again: more than a few, and it is down or cut off.', 'ops', [{ expr: rate('store_peer_reconnects_total', 'instance, peer'), legend: '{{instance}} to {{peer}}' }]),
          series('Traffic between nodes', 'What groups say to each other, and the messages that it takes: under load many frames share one.', 'ops', [
            { expr: rate('store_peer_frames_sent_total'), legend: 'frames' },
            { expr: rate('store_peer_batches_sent_total'), legend: 'messages' },
          ]),
        ],
      },
    ],
  );
}
