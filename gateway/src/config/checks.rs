//! What an operator lets a gateway check of each send. Nothing is checked by default.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidemark_types::limits::BODY_BYTES_MAX;

use crate::limits::HOOK_DEADLINE_MAX;

/// The checks of sends, in the order in which they are made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChecksConfig {
    /// Bytes of a body at most; a larger one is refused with `BODY_TOO_LARGE`.
    pub body_bytes_max: usize,
    /// The kinds that are taken, as `"7"` or `"100-199"`; none for all. Others are refused with
    /// `KIND_NOT_ALLOWED`.
    pub kinds: Kinds,
    /// How many sends may come.
    pub rates: RatesConfig,
    /// Words that bodies must not have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<FilterConfig>,
    /// Whom to ask about each send.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hook: Option<HookConfig>,
}

impl Default for ChecksConfig {
    fn default() -> Self {
        ChecksConfig {
            body_bytes_max: BODY_BYTES_MAX,
            kinds: Kinds::default(),
            rates: RatesConfig::default(),
            filter: None,
            hook: None,
        }
    }
}

/// How many sends may come: flow control, which refuses nothing for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RatesConfig {
    /// Of one user, from all devices and back ends of this gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<Rate>,
    /// Of one device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<Rate>,
    /// Of one user to one recipient.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pair: Option<Rate>,
    /// Users, devices and pairs that are remembered, 16 bytes each; with more, those that have
    /// been quiet longest are forgotten, and may send as if they were new.
    pub tracked_max: usize,
}

impl Default for RatesConfig {
    fn default() -> Self {
        RatesConfig { user: None, device: None, pair: None, tracked_max: 1 << 18 }
    }
}

/// A rate, and how much may come at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// So many sends …
    pub sends: u32,
    /// … in so many milliseconds: all at once after as long without any, else evenly.
    pub within_ms: u64,
}

impl Rate {
    /// How long it takes until one more may come.
    pub(crate) fn interval(self) -> Duration {
        self.window() / self.sends
    }

    /// How long it takes until all may come at once again.
    pub(crate) fn window(self) -> Duration {
        Duration::from_millis(self.within_ms)
    }
}

/// Words that bodies must not have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FilterConfig {
    /// The list, which docs/operations.md describes.
    pub file: PathBuf,
    /// How often to look whether it has changed, in milliseconds.
    pub reload_ms: u64,
    /// Kinds whose bodies are text; none for all.
    pub kinds: Kinds,
}

impl Default for FilterConfig {
    fn default() -> Self {
        FilterConfig { file: PathBuf::new(), reload_ms: 5_000, kinds: Kinds::default() }
    }
}

/// Whom to ask about each send before it is taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HookConfig {
    /// `grpcs://HOST:PORT`, a service `tidemark.v1.Hooks`, or `https://HOST:PORT/PATH`; without TLS
    /// `grpc://…` or `http://…`.
    pub url: String,
    /// With `http` and `https`: the file with the secrets by which calls are signed, one a line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<PathBuf>,
    /// With `grpcs` and `https`: certificates of authorities in PEM, which are trusted beside the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// How long it may take to judge, waiting for its turn included, in milliseconds.
    pub deadline_ms: u64,
    /// What becomes of a send that it did not judge.
    pub on_failure: OnFailure,
    /// Calls at once; others wait, within their deadline.
    pub calls_max: usize,
    /// After so many failures in a row it is left alone …
    pub failures_max: u32,
    /// … for so many milliseconds; then one send asks, and the answer decides.
    pub pause_ms: u64,
    /// Kinds that it judges; none for all.
    pub kinds: Kinds,
}

impl Default for HookConfig {
    fn default() -> Self {
        HookConfig {
            url: String::new(),
            secret_file: None,
            ca_file: None,
            deadline_ms: 200,
            on_failure: OnFailure::Allow,
            calls_max: 64,
            failures_max: 5,
            pause_ms: 1_000,
            kinds: Kinds::default(),
        }
    }
}

/// What becomes of a send that the hook did not judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// It goes: the hook is a help.
    Allow,
    /// It is given back with `RETRY_AFTER`, for as long as the hook is away: nothing goes unjudged,
    /// and nothing is refused for good because somebody was down.
    Hold,
}

/// A set of kinds of messages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Kinds(Vec<KindRange>);

impl Kinds {
    /// Is it one of them? An empty set has all.
    pub(crate) fn contains(&self, kind: u32) -> bool {
        self.0.is_empty() || self.0.iter().any(|range| range.0.contains(&kind))
    }

    /// Does it have all, having nothing to say?
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// One kind, or a few that follow each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct KindRange(RangeInclusive<u32>);

impl FromStr for KindRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse::<u32>().ok();
        let range = match text.split_once('-') {
            None => number(text).map(|kind| kind..=kind),
            Some((first, last)) => number(first).zip(number(last)).map(|(a, b)| a..=b),
        };
        let range = range.filter(|range| !range.is_empty());
        range
            .map(KindRange)
            .ok_or_else(|| format!("`{text}` is no kind, as 7, nor a range, as 100-199"))
    }
}

impl TryFrom<String> for KindRange {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for KindRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.start(), self.0.end()) {
            (first, last) if first == last => write!(f, "{first}"),
            (first, last) => write!(f, "{first}-{last}"),
        }
    }
}

impl From<KindRange> for String {
    fn from(range: KindRange) -> String {
        range.to_string()
    }
}

/// What must hold of a value, by its key.
pub(super) type Rule = (&'static str, bool, String);

impl ChecksConfig {
    /// What the types cannot check.
    pub(super) fn rules(&self) -> Vec<Rule> {
        const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
        let at_least_1 = || "at least 1".to_owned();
        let RatesConfig { user, device, pair, tracked_max } = &self.rates;
        let mut rules = vec![
            (
                "checks.body_bytes_max",
                (1..=BODY_BYTES_MAX).contains(&self.body_bytes_max),
                format!("1 to {BODY_BYTES_MAX}"),
            ),
            (
                "checks.rates.tracked_max",
                (1..=TRACKED_MAX).contains(tracked_max),
                format!("1 to {TRACKED_MAX}"),
            ),
        ];
        let rates = [
            ("checks.rates.user", user),
            ("checks.rates.device", device),
            ("checks.rates.pair", pair),
        ];
        for (key, rate) in rates {
            let Some(Rate { sends, within_ms }) = *rate else { continue };
            let holds = sends > 0 && (1..=DAY_MS).contains(&within_ms);
            rules.push((key, holds, format!("at least 1 send, within 1 to {DAY_MS} ms")));
        }
        if let Some(FilterConfig { file, reload_ms, .. }) = &self.filter {
            let named = !file.as_os_str().is_empty();
            rules.push(("checks.filter.file", named, "the list's path".to_owned()));
            rules.push(("checks.filter.reload_ms", *reload_ms > 0, at_least_1()));
        }
        rules.extend(self.hook.iter().flat_map(HookConfig::rules));
        rules
    }
}

/// Memory that rates may take: 1 GiB.
const TRACKED_MAX: usize = 1 << 26;

impl HookConfig {
    fn rules(&self) -> Vec<Rule> {
        let at_least_1 = || "at least 1".to_owned();
        let longest = HOOK_DEADLINE_MAX.as_millis();
        let begins = |schemes: &[&str]| schemes.iter().any(|scheme| self.url.starts_with(scheme));
        let (is_http, is_grpc) =
            (begins(&["https://", "http://"]), begins(&["grpcs://", "grpc://"]));
        vec![
            (
                "checks.hook.url",
                is_http || is_grpc,
                "https://HOST:PORT/PATH or grpcs://HOST:PORT, or without TLS http://… or grpc://…"
                    .to_owned(),
            ),
            (
                "checks.hook.secret_file",
                is_http == self.secret_file.is_some(),
                "needed with http and https, which are signed, and only there".to_owned(),
            ),
            (
                "checks.hook.ca_file",
                begins(&["https://", "grpcs://"]) || self.ca_file.is_none(),
                "only with https and grpcs".to_owned(),
            ),
            (
                "checks.hook.deadline_ms",
                self.deadline_ms > 0 && u128::from(self.deadline_ms) <= longest,
                format!("1 to {longest}"),
            ),
            ("checks.hook.calls_max", self.calls_max > 0, at_least_1()),
            ("checks.hook.failures_max", self.failures_max > 0, at_least_1()),
            ("checks.hook.pause_ms", self.pause_ms > 0, at_least_1()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_numbers_and_ranges() {
        let kinds: Kinds =
            toml::from_str::<ChecksConfig>("kinds = [\"7\", \"100-199\"]").expect("legal").kinds;
        for (kind, allowed) in [(6, false), (7, true), (99, false), (100, true), (199, true)] {
            assert_eq!(kinds.contains(kind), allowed, "{kind}");
        }
        assert!(Kinds::default().contains(u32::MAX));
        for text in ["", "-", "7-", "9-7", "x", "1-2-3", "4294967296"] {
            assert!(text.parse::<KindRange>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn everything_that_can_be_set_survives_a_file() {
        let text = "
            body_bytes_max = 1000
            kinds = [\"1-9\"]
            [rates]
            user = { sends = 600, within_ms = 60000 }
            device = { sends = 10, within_ms = 1000 }
            pair = { sends = 1, within_ms = 1 }
            tracked_max = 64
            [filter]
            file = \"words.txt\"
            kinds = [\"1\"]
            [hook]
            url = \"https://127.0.0.1:9000/judge\"
            secret_file = \"secret\"
            ca_file = \"ca.pem\"
            on_failure = \"hold\"
        ";
        let config = toml::from_str::<ChecksConfig>(text).expect("legal");
        assert!(config.rules().iter().all(|(_, holds, _)| *holds), "{:?}", config.rules());
        let written = toml::to_string(&config).expect("it is TOML");
        assert_eq!(toml::from_str::<ChecksConfig>(&written).expect("it parses"), config);
    }

    #[test]
    fn what_cannot_be_is_refused_by_its_key() {
        for (text, key) in [
            ("body_bytes_max = 0", "checks.body_bytes_max"),
            ("body_bytes_max = 196609", "checks.body_bytes_max"),
            ("[rates]\nuser = { sends = 0, within_ms = 1 }", "checks.rates.user"),
            ("[rates]\npair = { sends = 1, within_ms = 0 }", "checks.rates.pair"),
            ("[rates]\ntracked_max = 0", "checks.rates.tracked_max"),
            ("[filter]", "checks.filter.file"),
            ("[hook]\nurl = \"ftp://host/\"", "checks.hook.url"),
            ("[hook]\nurl = \"https://host/\"", "checks.hook.secret_file"),
            (
                "[hook]\nurl = \"http://host/\"\nsecret_file = \"x\"\nca_file = \"x\"",
                "checks.hook.ca_file",
            ),
            ("[hook]\nurl = \"http://host/\"", "checks.hook.secret_file"),
            ("[hook]\nurl = \"grpc://host:1\"\nsecret_file = \"x\"", "checks.hook.secret_file"),
            ("[hook]\nurl = \"grpcs://host:1\"\nsecret_file = \"x\"", "checks.hook.secret_file"),
            ("[hook]\nurl = \"grpc://host:1\"\nca_file = \"x\"", "checks.hook.ca_file"),
            ("[hook]\nurl = \"grpcx://host:1\"", "checks.hook.url"),
            ("[hook]\nurl = \"grpc://host:1\"\ndeadline_ms = 2001", "checks.hook.deadline_ms"),
            ("[hook]\nurl = \"grpc://host:1\"\ncalls_max = 0", "checks.hook.calls_max"),
        ] {
            let config = toml::from_str::<ChecksConfig>(text).expect("it parses");
            let broken = config.rules().into_iter().find(|(_, holds, _)| !holds);
            assert_eq!(broken.map(|(key, ..)| key), Some(key), "{text}");
        }
        assert!(toml::from_str::<ChecksConfig>("kinds = [\"x\"]").is_err());
        assert!(toml::from_str::<ChecksConfig>("[hook]\nurls = \"\"").is_err());
    }
}
