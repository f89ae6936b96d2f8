//! The gateway's metrics: every name, help text, label and bucket is here and nowhere else.
//!
//! Code elsewhere calls these functions; the raw macros are banned there. Labels are bounded: no
//! user, no device, no address.
#![expect(clippy::disallowed_macros, reason = "this is the one place where metrics have names")]

use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_histogram, histogram};
use tidemark_types::ErrorCode;

const CALLS_TOTAL: &str = "gateway_calls_total";
const CALL_SECONDS: &str = "gateway_call_seconds";
const KEY_RELOADS_TOTAL: &str = "gateway_key_reloads_total";

/// Histograms and their buckets, for whoever builds the exporter.
///
/// A call takes a millisecond or two when all is well, and some seconds in a failover.
pub const BUCKETS: &[(&str, &[f64])] = &[(
    CALL_SECONDS,
    &[0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0],
)];

/// Tells the exporter what each metric means; once, at start.
pub fn describe() {
    describe_counter!(
        CALLS_TOTAL,
        Unit::Count,
        "Unary calls of back ends and operators, by their outcome."
    );
    describe_histogram!(CALL_SECONDS, Unit::Seconds, "Unary calls, from arrival to answer.");
    describe_counter!(
        KEY_RELOADS_TOTAL,
        Unit::Count,
        "Reloads of the keys of tokens, by whether the new ones could be read."
    );
}

/// A unary call was answered, or refused with this code.
pub(crate) fn called(call: &'static str, refused: Option<ErrorCode>, took: Duration) {
    let code = refused.map_or("OK", ErrorCode::name);
    counter!(CALLS_TOTAL, "call" => call, "code" => code).increment(1);
    histogram!(CALL_SECONDS, "call" => call).record(took);
}

/// The keys of tokens were read anew, or could not be.
pub(crate) fn keys_reloaded(read: bool) {
    counter!(KEY_RELOADS_TOTAL, "read" => if read { "yes" } else { "no" }).increment(1);
}
