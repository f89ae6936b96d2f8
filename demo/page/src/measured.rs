//! What the servers measured themselves, as counts and sums: the page asks before and after a message,
//! and shows the mean of what came between.

use std::collections::BTreeMap;

use serde::Serialize;

/// Histograms of gateways and stores that say how long a step of a message took.
const HISTOGRAMS: [&str; 5] = [
    "gateway_send_seconds",
    "gateway_delivery_seconds",
    "store_proposal_seconds",
    "store_log_fsync_seconds",
    "store_apply_seconds",
];

/// How often, and how long in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Total {
    count: f64,
    seconds: f64,
}

/// The totals of a server's metrics, in Prometheus' text format.
pub(crate) fn totals(metrics: &str) -> BTreeMap<&'static str, Total> {
    let mut totals: BTreeMap<_, _> = HISTOGRAMS.map(|name| (name, Total::default())).into();
    for line in metrics.lines() {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let name = series.split_once('{').map_or(series, |(name, _)| name);
        let Ok(value) = value.parse::<f64>() else { continue };
        for (histogram, total) in &mut totals {
            match name.strip_prefix(histogram) {
                Some("_sum") => total.seconds += value,
                Some("_count") => total.count += value,
                _ => {}
            }
        }
    }
    totals
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_with_labels_are_added_up() {
        let text = "# HELP x\nstore_apply_seconds_sum 0.5\nstore_apply_seconds_count 2\n\
                    gateway_send_seconds_sum{code=\"OK\"} 1\ngateway_send_seconds_sum{code=\"X\"} 2\n\
                    gateway_send_seconds_bucket{le=\"1\"} 9\nother_store_apply_seconds_count 1";
        let totals = totals(text);
        assert_eq!(totals["store_apply_seconds"], Total { count: 2.0, seconds: 0.5 });
        assert_eq!(totals["gateway_send_seconds"], Total { count: 0.0, seconds: 3.0 });
        assert_eq!(totals["store_log_fsync_seconds"], Total::default());
    }
}
