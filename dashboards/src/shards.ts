// The stores: proposals, the log, what is applied, relayed and watched, the state.
import { dashboard, heatmap, mean, of, quantiles, rate, series, sum } from './panels.js';

export function shards() {
  return dashboard(
    'shards',
    'Tidemark / Shards',
    'The stores from a proposal to its effects, and what they keep.',
    'up{job="store"}',
    [
      {
        title: 'Groups',
        panels: [
          series('Who leads', 'Groups that each node leads.', 'short', [{ expr: sum(of('store_group_leads'), 'instance'), legend: '{{instance}}' }]),
          series('Leaders of each group', 'One; none, and its users are not served. Two may be seen while leadership moves.', 'none', [{ expr: 'group:store_leaders:count', legend: '{{group}}' }]),
          series('Elections', 'Each new term is one: without a reason there is none.', 'none', [{ expr: `max by (group) (delta(${of('store_group_term')}[5m]))`, legend: '{{group}} in 5 min' }]),
          series('Replication lag', 'Entries that a node lacks, as the leader knows. A node that is down falls behind; one that is slow stays behind.', 'short', [{ expr: 'group:store_replication_lag_entries:max', legend: '{{group}} node {{peer}}' }]),
          series('Apply lag', 'Entries that are in the log and not applied yet.', 'short', [{ expr: `max by (instance) (${of('store_group_last_entry')} - ${of('store_group_applied_entry')})`, legend: '{{instance}}' }]),
          series('Log kept', 'Entries between what is purged and the last one, in the group that has most, and how many of them a restart has to apply again.', 'short', [
            { expr: `max by (instance) (${of('store_group_last_entry')} - ${of('store_group_purged_entry')})`, legend: 'kept {{instance}}' },
            { expr: `max by (instance) (${of('store_group_applied_entry')} - ${of('store_group_snapshot_entry')})`, legend: 'not in the state on disk {{instance}}' },
          ]),
        ],
      },
      {
        title: 'Proposals',
        panels: [
          series('Proposal to reply', 'From a place in the queue to the reply: committed by a majority and applied.', 's', quantiles('store_proposal_seconds')),
          series('Log entry to replies', 'Of whole batches, from handing them to Raft: what a majority and apply take, without the queue.', 's', quantiles('store_commit_seconds')),
          series('Commands', 'Commands answered a second, by node: leaders have them.', 'ops', [{ expr: rate('store_proposal_seconds_count', 'instance'), legend: '{{instance}}' }]),
          series('Commands in an entry', 'They grow with the load: commands that wait share a commit.', 'short', [
            ...quantiles('store_proposal_batch_commands'),
            { expr: mean('store_proposal_batch_commands'), legend: 'mean' },
          ]),
          series('Waiting', 'Bytes of commands that wait or are under way, in the fullest group, and what they may be; the cluster\'s own have a share that no client can take.', 'bytes', [
            { expr: `max by (class) (${of('store_proposals_bytes')})`, legend: '{{class}}' },
            { expr: `min by (class) (${of('store_proposals_bytes_max')})`, legend: '{{class}} may be' },
          ]),
          series('Refused', 'Clients\' commands that found no room in a shard, an outbox or on the disk. They come again.', 'ops', [{ expr: rate('store_proposals_refused_total', 'instance'), legend: '{{instance}}' }]),
        ],
      },
      {
        title: 'The log',
        panels: [
          heatmap('Fsync', 'Durable commits of the raft log, by how long they take. Over 100 ms the disk is ill.', 's', 'store_log_fsync_seconds'),
          series('Fsync', 'The same by node: the slower of two decides how fast a majority is.', 's', [{ expr: 'instance:store_log_fsync_seconds:p99', legend: 'p99 {{instance}}' }]),
          series('Entries in a commit', 'Of all groups together.', 'short', [
            ...quantiles('store_log_batch_entries'),
            { expr: mean('store_log_batch_entries'), legend: 'mean' },
          ]),
          series('Queue', 'Bytes on their way to the log, the batch being written included, and what they may be.', 'bytes', [
            { expr: of('store_log_queue_bytes'), legend: '{{instance}}' },
            { expr: `min(${of('store_log_queue_bytes_max')})`, legend: 'may be' },
          ]),
          series('Commits', 'Durable ones, and lazy ones without an fsync: purges, truncations and commit marks.', 'ops', [
            { expr: rate('store_log_fsync_seconds_count', 'instance'), legend: 'durable {{instance}}' },
            { expr: rate('store_log_lazy_writes_total', 'instance'), legend: 'lazy {{instance}}' },
          ]),
          series('Cold reads', 'Entries that were read from the disk, since memory no longer had them: a follower or an apply lags.', 'ops', [{ expr: rate('store_log_cold_reads_total', 'instance'), legend: '{{instance}}' }]),
        ],
      },
      {
        title: 'Effects',
        panels: [
          series('Apply', 'One round of entries applied and written to the state.', 's', quantiles('store_apply_seconds')),
          series('Relay', 'From handing a batch to another shard to its answer: committed and applied there.', 's', quantiles('store_relay_seconds')),
          series('Outboxes', 'What waits for the shard that most waits for, and what may. Beyond it sends to users there are refused.', 'bytes', [
            { expr: `max by (group) (${of('store_outbox_bytes')})`, legend: '{{group}}' },
            { expr: `min(${of('store_outbox_bytes_max')})`, legend: 'may' },
          ]),
          series('Outboxes, filled', 'The same, of what may wait.', 'percentunit', [{ expr: 'group:store_outbox_bytes:ratio', legend: '{{group}}' }]),
          series('Records in a relay batch', 'Messages for other shards share a commit there.', 'short', [
            ...quantiles('store_relay_batch_records'),
            { expr: rate('store_relay_batch_records_count'), legend: 'batches/s' },
          ]),
          series('Relay failures', 'Batches that another shard did not take: its leader moved, or it has no room. They go again.', 'ops', [{ expr: rate('store_relay_failures_total', 'instance'), legend: '{{instance}}' }]),
          series('Apply to gateway', 'How long the oldest of what a gateway is told at once has waited since it was applied.', 's', quantiles('store_watch_seconds')),
          series('Watched', 'Mailboxes that gateways hear of, and their streams.', 'short', [
            { expr: of('store_mailboxes_watched'), legend: '{{instance}} mailboxes' },
            { expr: of('store_watch_streams'), legend: '{{instance}} streams' },
          ]),
          series('Typing not told', 'That somebody types, to gateways for whom too much waits. Nothing is lost by it but a hint of a moment.', 'ops', [{ expr: rate('store_typing_dropped_total', 'instance'), legend: '{{instance}}' }]),
          series('Watches degraded', 'Entries that gateways are told the head of, and no more: they are large, or the gateway is slow.', 'ops', [{ expr: rate('store_watch_degraded_total', 'instance'), legend: '{{instance}}' }]),
        ],
      },
      {
        title: 'The state',
        panels: [
          series('States received', 'Of groups whose log no longer reached back to this node, since it started. They come one after the other when it does.', 'none', [{ expr: of('store_snapshot_seconds_count'), legend: '{{instance}}' }]),
          series('Time of a state', 'How long these took, in the mean: received, verified and on disk.', 's', [{ expr: `${of('store_snapshot_seconds_sum')} / ${of('store_snapshot_seconds_count')}`, legend: '{{instance}}' }]),
          series('Bytes of states received', 'The same in bytes a second.', 'Bps', [{ expr: rate('store_snapshot_received_bytes_total', 'instance'), legend: '{{instance}}' }]),
          series('Database', 'Files of the state\'s database.', 'bytes', [{ expr: of('store_state_bytes'), legend: '{{instance}}' }]),
          series('Not written out', 'State in memory; the log has it. At its bound appliers wait for the disk.', 'bytes', [
            { expr: of('store_state_pending_bytes'), legend: '{{instance}}' },
            { expr: `min(${of('store_state_pending_bytes_max')})`, legend: 'may be' },
          ]),
          series('Compaction', 'What is to be rewritten, as the database estimates.', 'bytes', [{ expr: of('store_state_compaction_pending_bytes'), legend: '{{instance}}' }]),
          series('Compactions', 'That run.', 'none', [{ expr: of('store_state_compactions_running'), legend: '{{instance}}' }]),
          series('Mailboxes', 'Of all groups, when their leaders last looked through them.', 'short', [{ expr: `sum(max by (group) (${of('store_mailboxes')}))`, legend: 'mailboxes' }]),
          series('Entries', 'That mailboxes keep, and that they no longer keep, up to their floors, at the same time.', 'short', [
            { expr: `sum(max by (group) (${of('store_mailbox_entries')}))`, legend: 'kept' },
            { expr: `sum(max by (group) (${of('store_mailbox_floors')}))`, legend: 'below the floors' },
          ]),
          series('Seq space', 'Used by the mailbox that got the highest seq since its node started; 1 is full for good.', 'percentunit', [{ expr: of('store_mailbox_seqs_used_ratio'), legend: '{{instance}}' }]),
          series('Retention', 'Commands that removed from a mailbox what it need not keep.', 'ops', [{ expr: rate('store_retention_commands_total', 'instance'), legend: '{{instance}}' }]),
          series('Seqs nearly used up', 'Entries of mailboxes that have used nine tenths of their seqs.', 'ops', [{ expr: rate('store_nearly_full_appends_total', 'instance'), legend: '{{instance}}' }]),
          series('Alarms', 'What must never happen, by kind.', 'none', [{ expr: `sum by (instance, kind) (${of('store_alarms_total')})`, legend: '{{instance}} {{kind}}' }]),
        ],
      },
    ],
  );
}
