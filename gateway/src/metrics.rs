//! The gateway's metrics: every name, help text, label and bucket is here and nowhere else.
//!
//! Code elsewhere calls these functions; the raw macros are banned there. Labels are bounded: no
//! user, no device, no address.
#![expect(clippy::disallowed_macros, reason = "this is the one place where metrics have names")]

use std::cell::RefCell;
use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};
use serde::Serialize;
use tidemark_proto::convert;
use tidemark_proto::v1::{self, client_frame, send_ack, server_frame};
use tidemark_types::ErrorCode;

use crate::connect::Carrier;

const CONNECTIONS: &str = "gateway_connections";
const CONNECTIONS_MAX: &str = "gateway_connections_max";
const CONNECTIONS_REFUSED_TOTAL: &str = "gateway_connections_refused_total";
const CUTS_TOTAL: &str = "gateway_connections_ended_total";
const FRAMES_RECEIVED_TOTAL: &str = "gateway_frames_received_total";
const FRAMES_SENT_TOTAL: &str = "gateway_frames_sent_total";
const ERRORS_TOTAL: &str = "gateway_errors_total";
const FRAMES_WAITING: &str = "gateway_frames_waiting";
const READS_PAUSED_TOTAL: &str = "gateway_reads_paused_total";
const TYPING_DROPPED_TOTAL: &str = "gateway_typing_dropped_total";
const DELIVERY_SECONDS: &str = "gateway_delivery_seconds";
const SENDS_TOTAL: &str = "gateway_sends_total";
const MAILBOXES_WATCHED: &str = "gateway_mailboxes_watched";
const TAILS_BYTES: &str = "gateway_tails_bytes";
const TAILS_BYTES_MAX: &str = "gateway_tails_bytes_max";
const TAILS_GIVEN_UP_TOTAL: &str = "gateway_tails_given_up_total";
const WATCHES_TOTAL: &str = "gateway_watches_total";
const DELIVERED_ENTRIES_TOTAL: &str = "gateway_delivered_entries_total";
const NOTICES_TOTAL: &str = "gateway_notices_total";
const PAGES_TOTAL: &str = "gateway_pages_total";
const RESETS_TOTAL: &str = "gateway_resets_total";
const SEND_SECONDS: &str = "gateway_send_seconds";
const SENDS_REPEATED_TOTAL: &str = "gateway_send_repetitions_total";
const SENDS_GIVEN_BACK_TOTAL: &str = "gateway_sends_given_back_total";
const CALLS_TOTAL: &str = "gateway_calls_total";
const CALL_SECONDS: &str = "gateway_call_seconds";
const ALLOCATIONS_TOTAL: &str = "gateway_allocations_total";
const ALLOCATION_SECONDS: &str = "gateway_allocation_seconds";
const ALLOCATIONS_PER_COMMAND: &str = "gateway_allocations_per_command";
const KEY_RELOADS_TOTAL: &str = "gateway_key_reloads_total";
const PUSHES_TOTAL: &str = "gateway_pushes_total";
const PUSH_SECONDS: &str = "gateway_push_seconds";
const HINTS_IN_HAND: &str = "gateway_hints_in_hand";
const HINTS_IN_HAND_MAX: &str = "gateway_hints_in_hand_max";
const PUSH_EVENTS_TOTAL: &str = "gateway_push_events_total";
const CHECKS_TOTAL: &str = "gateway_checks_total";
const SENDS_SLOWED_TOTAL: &str = "gateway_sends_slowed_total";
const RATES_FORGOTTEN_TOTAL: &str = "gateway_rates_forgotten_total";
const WORDS: &str = "gateway_filter_words";
const WORD_RELOADS_TOTAL: &str = "gateway_filter_reloads_total";
const HOOK_CALLS_TOTAL: &str = "gateway_hook_calls_total";
const HOOK_SECONDS: &str = "gateway_hook_seconds";
const HOOK_LEFT_ALONE: &str = "gateway_hook_left_alone";

/// The outcome that is no code.
const ACCEPTED: &str = "OK";

/// What sends wait for: the store's answer, or somebody who judges them.
pub(crate) const STORE: &str = "store";
pub(crate) const CHECKS: &str = "checks";

/// A send or call takes a millisecond or two when all is well, and some seconds in a failover; after
/// ten a send is given back.
const LATENCY: [f64; 14] =
    [0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Calls that share a command: up to as many as one may have.
const TOGETHER: [f64; 6] = [1.0, 4.0, 16.0, 64.0, 256.0, 1_024.0];

/// Histograms and their buckets, for whoever builds the exporter.
pub const BUCKETS: &[(&str, &[f64])] = &[
    (SEND_SECONDS, &LATENCY),
    (DELIVERY_SECONDS, &LATENCY),
    (CALL_SECONDS, &LATENCY),
    (ALLOCATION_SECONDS, &LATENCY),
    (ALLOCATIONS_PER_COMMAND, &TOGETHER),
    (HOOK_SECONDS, &LATENCY),
    (PUSH_SECONDS, &LATENCY),
];

/// Tells the exporter what each metric means; once, at start.
pub fn describe() {
    describe_connections();
    describe_devices();
    describe_sends();
    describe_calls();
    describe_checks();
    describe_pushes();
    begin_at_zero();
}

/// What never happened is told as 0, so that its first time is seen to be one.
fn begin_at_zero() {
    for counter in [
        CONNECTIONS_REFUSED_TOTAL,
        READS_PAUSED_TOTAL,
        TYPING_DROPPED_TOTAL,
        DELIVERED_ENTRIES_TOTAL,
        NOTICES_TOTAL,
        PAGES_TOTAL,
        RESETS_TOTAL,
        SENDS_REPEATED_TOTAL,
        RATES_FORGOTTEN_TOTAL,
        WATCHES_TOTAL,
        TAILS_GIVEN_UP_TOTAL,
    ] {
        counter!(counter).increment(0);
    }
    for waited_for in [STORE, CHECKS] {
        counter!(SENDS_GIVEN_BACK_TOTAL, "waited_for" => waited_for).increment(0);
    }
    for read in ["yes", "no"] {
        counter!(KEY_RELOADS_TOTAL, "read" => read).increment(0);
    }
    for gauge in [MAILBOXES_WATCHED, FRAMES_WAITING, TAILS_BYTES] {
        gauge!(gauge).set(0.0);
    }
}

fn describe_pushes() {
    describe_counter!(
        PUSHES_TOTAL,
        Unit::Count,
        "Attempts to hand a hint to a push service, by provider and outcome."
    );
    describe_histogram!(PUSH_SECONDS, Unit::Seconds, "How long such attempts took, by provider.");
    describe_counter!(
        PUSH_EVENTS_TOTAL,
        Unit::Count,
        "What else happened to hints and providers, by provider and event."
    );
    describe_gauge!(
        HINTS_IN_HAND,
        Unit::Count,
        "Hints that were leased and are not done with: waiting, under way or being reported."
    );
    describe_gauge!(HINTS_IN_HAND_MAX, Unit::Count, "How many there may be.");
}

fn describe_connections() {
    describe_gauge!(CONNECTIONS, Unit::Count, "Connections of devices, by carrier.");
    describe_gauge!(CONNECTIONS_MAX, Unit::Count, "Connections that there may be in all.");
    describe_counter!(
        CONNECTIONS_REFUSED_TOTAL,
        Unit::Count,
        "Connections refused because the gateway is full or stops."
    );
    describe_counter!(CUTS_TOTAL, Unit::Count, "Connections that ended, by reason.");
    describe_counter!(FRAMES_RECEIVED_TOTAL, Unit::Count, "Frames of devices, by kind.");
    describe_counter!(FRAMES_SENT_TOTAL, Unit::Count, "Frames to devices, by kind.");
    describe_counter!(
        ERRORS_TOTAL,
        Unit::Count,
        "Errors that devices were told, by code: bad tokens and bad frames among them."
    );
    describe_gauge!(
        FRAMES_WAITING,
        Unit::Count,
        "Frames that wait until their devices take those before them."
    );
    describe_counter!(
        READS_PAUSED_TOTAL,
        Unit::Count,
        "Times a device was not read, since as many of its frames waited as may."
    );
    describe_counter!(
        TYPING_DROPPED_TOTAL,
        Unit::Count,
        "Times that somebody types and was not told: it came too fast, or its device is slow."
    );
}

fn describe_devices() {
    describe_gauge!(
        MAILBOXES_WATCHED,
        Unit::Count,
        "Mailboxes that the gateway watches for its devices."
    );
    describe_counter!(
        WATCHES_TOTAL,
        Unit::Count,
        "Mailboxes that a store node tells of from now on: for the first time, or again after a failover."
    );
    describe_gauge!(
        TAILS_BYTES,
        Unit::Bytes,
        "Bytes that the newest entries of all mailboxes hold here, ready to be sent."
    );
    describe_gauge!(TAILS_BYTES_MAX, Unit::Bytes, "Bytes that they may hold together.");
    describe_counter!(
        TAILS_GIVEN_UP_TOTAL,
        Unit::Count,
        "Times a mailbox gave up its newest entries, since together they held as much as they may."
    );
    describe_counter!(
        DELIVERED_ENTRIES_TOTAL,
        Unit::Count,
        "Entries sent to devices unasked, each device counted."
    );
    describe_histogram!(
        DELIVERY_SECONDS,
        Unit::Seconds,
        "From a message's acceptance, by the cluster's clock, to its Deliver, by this gateway's."
    );
    describe_counter!(
        NOTICES_TOTAL,
        Unit::Count,
        "Notices: entries that a device has to ask for, since they are large, it is slow, or there is no room for them."
    );
    describe_counter!(PAGES_TOTAL, Unit::Count, "Pages read for devices and back ends.");
    describe_counter!(
        RESETS_TOTAL,
        Unit::Count,
        "Resets: devices with a cursor of another epoch or above the head."
    );
}

fn describe_sends() {
    describe_counter!(SENDS_TOTAL, Unit::Count, "Answers to sends, by their outcome.");
    describe_histogram!(
        SEND_SECONDS,
        Unit::Seconds,
        "From a send's arrival to its acknowledgement."
    );
    describe_counter!(
        SENDS_REPEATED_TOTAL,
        Unit::Count,
        "Rounds in which a connection's sends were repeated: the store lost or refused one."
    );
    describe_counter!(
        SENDS_GIVEN_BACK_TOTAL,
        Unit::Count,
        "Sends whose time was up, and that their devices have to repeat, by what they waited for."
    );
}

fn describe_calls() {
    describe_counter!(
        CALLS_TOTAL,
        Unit::Count,
        "Calls of back ends and operators, by their outcome; a stream is one when it begins."
    );
    describe_histogram!(CALL_SECONDS, Unit::Seconds, "The same, from arrival to answer.");
    describe_counter!(
        ALLOCATIONS_TOTAL,
        Unit::Count,
        "Calls for numbers of counters without an id, on streams and by themselves, by their outcome."
    );
    describe_histogram!(ALLOCATION_SECONDS, Unit::Seconds, "The same, from arrival to answer.");
    describe_histogram!(
        ALLOCATIONS_PER_COMMAND,
        Unit::Count,
        "How many of these went to the store together."
    );
    describe_counter!(
        KEY_RELOADS_TOTAL,
        Unit::Count,
        "Reloads of the keys of tokens, by whether the new ones could be read."
    );
}

fn describe_checks() {
    describe_counter!(
        CHECKS_TOTAL,
        Unit::Count,
        "Sends that a check has looked at, by the check and what it found."
    );
    describe_counter!(
        SENDS_SLOWED_TOTAL,
        Unit::Count,
        "Sends above their sender's rate: paused, its device is not read for a while; refused, with RETRY_AFTER."
    );
    describe_counter!(
        RATES_FORGOTTEN_TOTAL,
        Unit::Count,
        "Senders, devices and pairs that were forgotten for others while their rates still counted."
    );
    describe_gauge!(WORDS, Unit::Count, "Words of the filter's list.");
    describe_counter!(
        WORD_RELOADS_TOTAL,
        Unit::Count,
        "Times the list had changed, by whether it could be read."
    );
    describe_counter!(
        HOOK_CALLS_TOTAL,
        Unit::Count,
        "Sends that were the hook's to judge: judged, failed, timeout, or left_alone, not asked at all."
    );
    describe_histogram!(
        HOOK_SECONDS,
        Unit::Seconds,
        "How long those took that were asked, waiting for their turn included."
    );
    describe_gauge!(
        HOOK_LEFT_ALONE,
        Unit::Count,
        "1 while the hook is asked only now and then, since it failed."
    );
}

/// A connection began, or ended.
pub(crate) fn connected(carrier: Carrier, began: bool) {
    gauge!(CONNECTIONS, "carrier" => carrier.name()).increment(if began { 1.0 } else { -1.0 });
}

/// There may be so many connections.
pub(crate) fn connections_max(max: u32) {
    gauge!(CONNECTIONS_MAX).set(max);
}

/// Counters that differ in a label, each found once: the recorder takes as long to find one as to take a frame
/// out of its bytes.
struct Labelled {
    name: &'static str,
    label: &'static str,
    found: RefCell<Vec<(&'static str, Counter)>>,
}

impl Labelled {
    fn new(name: &'static str, label: &'static str) -> Self {
        Labelled { name, label, found: RefCell::default() }
    }

    fn count(&self, value: &'static str) {
        let mut found = self.found.borrow_mut();
        if let Some((_, counter)) = found.iter().find(|(known, _)| *known == value) {
            return counter.increment(1);
        }
        let counter = counter!(self.name, self.label => value);
        counter.increment(1);
        found.push((value, counter));
    }
}

// What every message counts, found once by each thread.
thread_local! {
    static FRAMES_RECEIVED: Labelled = Labelled::new(FRAMES_RECEIVED_TOTAL, "frame");
    static FRAMES_SENT: Labelled = Labelled::new(FRAMES_SENT_TOTAL, "frame");
    static SENDS: Labelled = Labelled::new(SENDS_TOTAL, "code");
    static ALL_WAITING: Gauge = gauge!(FRAMES_WAITING);
    static DELIVERED: Counter = counter!(DELIVERED_ENTRIES_TOTAL);
    static DELIVERIES: Histogram = histogram!(DELIVERY_SECONDS);
    static SEND_ANSWERS: Histogram = histogram!(SEND_SECONDS);
}

/// A frame came, or something that is none.
pub(crate) fn received<E>(frame: &Result<client_frame::Frame, E>) {
    let kind = frame.as_ref().map_or("unreadable", client_frame::Frame::name);
    FRAMES_RECEIVED.with(|received| received.count(kind));
}

/// A frame goes out.
pub(crate) fn sent(frame: &v1::ServerFrame) {
    let Some(frame) = &frame.frame else { return };
    FRAMES_SENT.with(|sent| sent.count(frame.name()));
    match frame {
        server_frame::Frame::SendAck(v1::SendAck { result, .. }) => {
            let outcome = match result {
                Some(send_ack::Result::Failure(failure)) => code(failure),
                Some(send_ack::Result::Accepted(_)) | None => ACCEPTED,
            };
            SENDS.with(|sends| sends.count(outcome));
        }
        server_frame::Frame::Error(v1::Error { failure: Some(failure), .. }) => {
            counter!(ERRORS_TOTAL, "code" => code(failure)).increment(1);
        }
        _ => {}
    }
}

fn code(failure: &v1::Failure) -> &'static str {
    convert::error_code(failure.code).name()
}

/// How many frames of a connection wait, as the gauge of all knows it.
#[derive(Debug, Default)]
pub(crate) struct FramesWaiting(usize);

impl FramesWaiting {
    /// So many wait now.
    pub(crate) fn set(&mut self, waiting: usize) {
        if waiting != self.0 {
            ALL_WAITING.with(|all| all.increment(waiting as f64 - self.0 as f64));
            self.0 = waiting;
        }
    }
}

impl Drop for FramesWaiting {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// That somebody types is not told.
pub(crate) fn typing_dropped() {
    counter!(TYPING_DROPPED_TOTAL).increment(1);
}

/// A device is not read for now.
pub(crate) fn read_paused() {
    counter!(READS_PAUSED_TOTAL).increment(1);
}

/// A connection was refused.
pub(crate) fn connection_refused() {
    counter!(CONNECTIONS_REFUSED_TOTAL).increment(1);
}

/// A connection ended for this reason.
pub(crate) fn connection_ended(reason: &'static str) {
    counter!(CUTS_TOTAL, "reason" => reason).increment(1);
}

/// A mailbox is watched, or no longer.
pub(crate) fn mailbox_watched(watched: bool) {
    gauge!(MAILBOXES_WATCHED).increment(if watched { 1.0 } else { -1.0 });
}

/// The newest entries of all mailboxes hold so many bytes.
pub(crate) fn tails_hold(bytes: usize) {
    gauge!(TAILS_BYTES).set(bytes as f64);
}

/// They may hold so many.
pub(crate) fn tails_may_hold(bytes: usize) {
    gauge!(TAILS_BYTES_MAX).set(bytes as f64);
}

/// A mailbox gave up its newest entries for the bound of all.
pub(crate) fn tail_gave_way() {
    counter!(TAILS_GIVEN_UP_TOTAL).increment(1);
}

/// A store node tells of a mailbox from now on.
pub(crate) fn watch_began() {
    counter!(WATCHES_TOTAL).increment(1);
}

/// A message that was accepted so long ago goes out in a `Deliver`.
pub(crate) fn delivered_after(took: Duration) {
    DELIVERIES.with(|deliveries| deliveries.record(took));
}

/// Entries went out in a `Deliver`.
pub(crate) fn delivered(entries: usize) {
    DELIVERED.with(|delivered| delivered.increment(entries as u64));
}

/// A `Notice` went out.
pub(crate) fn noticed() {
    counter!(NOTICES_TOTAL).increment(1);
}

/// A page was read.
pub(crate) fn paged() {
    counter!(PAGES_TOTAL).increment(1);
}

/// A device has to start anew.
pub(crate) fn reset() {
    counter!(RESETS_TOTAL).increment(1);
}

/// A send was acknowledged after this long.
pub(crate) fn send_answered(took: Duration) {
    SEND_ANSWERS.with(|answers| answers.record(took));
}

/// Sends of a connection are repeated.
pub(crate) fn sends_repeated() {
    counter!(SENDS_REPEATED_TOTAL).increment(1);
}

/// A send was given back to its device without a verdict; it had waited for this.
pub(crate) fn send_given_back(waited_for: &'static str) {
    counter!(SENDS_GIVEN_BACK_TOTAL, "waited_for" => waited_for).increment(1);
}

/// A call was answered, or a stream begun, or refused with this code.
pub(crate) fn called(call: &'static str, refused: Option<ErrorCode>, took: Duration) {
    let code = refused.map_or(ACCEPTED, ErrorCode::name);
    counter!(CALLS_TOTAL, "call" => call, "code" => code).increment(1);
    histogram!(CALL_SECONDS, "call" => call).record(took);
}

/// An attempt at a hint ended.
pub(crate) fn pushed(provider: &str, outcome: &'static str, took: Duration) {
    counter!(PUSHES_TOTAL, "provider" => provider.to_owned(), "outcome" => outcome).increment(1);
    histogram!(PUSH_SECONDS, "provider" => provider.to_owned()).record(took);
}

/// So many hints are in hand.
pub(crate) fn hints_in_hand(hints: usize) {
    gauge!(HINTS_IN_HAND).set(hints as f64);
}

/// So many may be.
pub(crate) fn hints_in_hand_max(max: usize) {
    gauge!(HINTS_IN_HAND_MAX).set(max as f64);
}

/// Something else happened to a hint, or to a provider.
pub(crate) fn push_event(provider: &str, event: &'static str) {
    counter!(PUSH_EVENTS_TOTAL, "provider" => provider.to_owned(), "event" => event).increment(1);
}

/// Calls for numbers go to the store together.
pub(crate) fn allocations(together: usize) {
    histogram!(ALLOCATIONS_PER_COMMAND).record(together as f64);
}

/// Calls for numbers were answered, or refused with these codes, after so long.
pub(crate) fn allocated(answers: impl Iterator<Item = (Option<ErrorCode>, Duration)>) {
    let seconds = histogram!(ALLOCATION_SECONDS);
    let mut given = 0;
    for (refused, took) in answers {
        seconds.record(took);
        match refused {
            None => given += 1,
            Some(code) => counter!(ALLOCATIONS_TOTAL, "code" => code.name()).increment(1),
        }
    }
    counter!(ALLOCATIONS_TOTAL, "code" => ACCEPTED).increment(given);
}

/// The keys of tokens were read anew, or could not be.
pub(crate) fn keys_reloaded(read: bool) {
    counter!(KEY_RELOADS_TOTAL, "read" => if read { "yes" } else { "no" }).increment(1);
}

/// A check looked at a send, and found this.
pub(crate) fn checked(check: &'static str, finding: &'static str) {
    counter!(CHECKS_TOTAL, "check" => check, "finding" => finding).increment(1);
}

/// A send came too fast.
pub(crate) fn send_slowed(refused: bool) {
    let how = if refused { "refused" } else { "paused" };
    counter!(SENDS_SLOWED_TOTAL, "how" => how).increment(1);
}

/// Rates that still counted were forgotten.
pub(crate) fn rates_forgotten(count: usize) {
    if count > 0 {
        counter!(RATES_FORGOTTEN_TOTAL).increment(count as u64);
    }
}

/// The list has so many words.
pub(crate) fn words(count: usize) {
    gauge!(WORDS).set(count as f64);
}

/// The list had changed, and was read or could not be.
pub(crate) fn words_reloaded(read: bool) {
    counter!(WORD_RELOADS_TOTAL, "read" => if read { "yes" } else { "no" }).increment(1);
}

/// A send was the hook's to judge; it took so long, if the hook was asked.
pub(crate) fn hook_called(outcome: &'static str, took: Option<Duration>) {
    counter!(HOOK_CALLS_TOTAL, "outcome" => outcome).increment(1);
    if let Some(took) = took {
        histogram!(HOOK_SECONDS).record(took);
    }
}

/// The hook is left alone, or asked again.
pub(crate) fn hook_open(left_alone: bool) {
    gauge!(HOOK_LEFT_ALONE).set(if left_alone { 1.0 } else { 0.0 });
}

/// What the live page shows of these metrics.
const SHOWN: [&str; 10] = [
    CONNECTIONS,
    RESETS_TOTAL,
    MAILBOXES_WATCHED,
    SENDS_TOTAL,
    SENDS_GIVEN_BACK_TOTAL,
    DELIVERED_ENTRIES_TOTAL,
    NOTICES_TOTAL,
    PUSHES_TOTAL,
    SEND_SECONDS,
    DELIVERY_SECONDS,
];

/// One line of the exporter's text: the metric, its labels as they stand there, its value.
#[derive(Serialize)]
pub(crate) struct Shown(String, String, f64);

/// The lines of the exporter's text that the live page shows; of a histogram its buckets.
pub(crate) fn shown(exported: &str) -> Vec<Shown> {
    let is_shown = |name: &str| {
        let family = name.strip_suffix("_bucket").unwrap_or(name);
        SHOWN.contains(&family)
    };
    let lines = exported.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let labels = labels.trim_end_matches('}').to_owned();
        Some(Shown(is_shown(name).then(|| name.to_owned())?, labels, value.parse().ok()?))
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;
    use tidemark_proto::Failure;
    use tidemark_types::SessionId;

    use super::*;

    #[test]
    fn the_manual_lists_what_is_measured() {
        tidemark_process::hold_metrics_table("gateway", describe);
    }

    #[test]
    fn what_a_device_says_and_is_told_is_counted_by_kind_and_code() {
        let recorder = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            describe();
            received(&Ok::<_, Failure>(client_frame::Frame::Ping(v1::Ping::default())));
            received(&Err(Failure::new(ErrorCode::UnknownFrame)));
            let session = SessionId::new(1).expect("legal");
            let conflict = Failure::new(ErrorCode::Conflict);
            sent(&v1::SendAck::failed(session, 1, conflict).into());
            let failure = Some(Failure::new(ErrorCode::TokenExpired).into());
            sent(&v1::Error { failure, ..v1::Error::default() }.into());
            connected(Carrier::WebSocket, true);
        });
        let told = recorder.handle().render();
        for line in [
            "gateway_frames_received_total{frame=\"ping\"} 1",
            "gateway_frames_received_total{frame=\"unreadable\"} 1",
            "gateway_frames_sent_total{frame=\"send_ack\"} 1",
            "gateway_sends_total{code=\"CONFLICT\"} 1",
            "gateway_errors_total{code=\"TOKEN_EXPIRED\"} 1",
            "gateway_connections{carrier=\"websocket\"} 1",
        ] {
            assert!(told.lines().any(|told| told == line), "{line} in {told}");
        }
    }

    #[test]
    fn what_the_live_page_shows_is_read_from_the_exporters_text() {
        let exported = "# TYPE gateway_sends_total counter\n\
                        gateway_sends_total{outcome=\"OK\"} 7\n\
                        gateway_send_seconds_bucket{le=\"0.005\"} 3\n\
                        gateway_send_seconds_sum 0.25\n\
                        gateway_connections_max 10\n\
                        gateway_mailboxes_watched 2\n";
        let shown: Vec<_> = shown(exported).into_iter().map(|it| (it.0, it.1, it.2)).collect();
        let line = |name: &str, labels: &str, value| (name.to_owned(), labels.to_owned(), value);
        assert_eq!(
            shown,
            [
                line("gateway_sends_total", "outcome=\"OK\"", 7.0),
                line("gateway_send_seconds_bucket", "le=\"0.005\"", 3.0),
                line("gateway_mailboxes_watched", "", 2.0),
            ]
        );
    }
}
