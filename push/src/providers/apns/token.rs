//! The token by which Apple knows us: signed by our key, good for an hour, and not to be made more
//! often than every 20 minutes. Apple counts those of a key, whoever makes them, so all gateways have
//! the same one, also a gateway that has just started: it is made as of a time that all of them know,
//! and the same text has the same signature (RFC 6979).
//!
//! ```text
//!   minutes                   0          20         40         60         80
//!   a gateway's token         ├── as of 0 ──────────┼── as of 40 ─────────┼── as of 80 …
//!   … if called expired                 └─ as of 20 ┘          └─ as of 60 ┘
//!   … if called one too many  ├as of -40 ┤          ├ as of 0 ─┤
//! ```
//!
//! The last line: Apple does not say whether it counts by when tokens were made or by when they came, and
//! the one before may have come shortly before the mark, from the first gateway that started. It is good for
//! 20 minutes after the mark, when the next one is none too many by either. Until then that one is tried
//! every 5 minutes, by all gateways at the same times.

use std::collections::BTreeMap;
use std::sync::Arc;

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use parking_lot::Mutex;
use serde_json::json;
use tidemark_env::Clock;
use tidemark_mutants::{Mutant, is};

use super::super::seconds;
use crate::build::{BuildError, read};
use crate::config::ApnsConfig;

/// Seconds between two tokens: what Apple calls too many is one more within this time.
const STEP_S: u64 = 20 * 60;

/// Seconds that a token serves: Apple takes them for 60 minutes, and clocks differ.
const SERVES_S: u64 = 2 * STEP_S;

/// Seconds after which one that Apple called one too many is tried again, at multiples of this.
const TRIED_S: u64 = STEP_S / 4;

/// Seconds that Apple takes a token for.
const GOOD_S: u64 = 3 * STEP_S;

/// The last time that is a multiple of this.
fn last(now_s: u64, step_s: u64) -> u64 {
    now_s - now_s % step_s
}

/// The next one.
fn next(now_s: u64, step_s: u64) -> u64 {
    last(now_s, step_s) + step_s
}

/// The tokens of a configuration, by team and key.
#[derive(Default)]
pub(crate) struct ProviderTokens(BTreeMap<(String, String), Arc<ProviderToken>>);

impl ProviderTokens {
    /// That of a provider.
    pub(super) fn of(&mut self, config: &ApnsConfig) -> Result<Arc<ProviderToken>, BuildError> {
        let id = (config.team_id.clone(), config.key_id.clone());
        if let Some(token) = self.0.get(&id) {
            return Ok(token.clone());
        }
        let bad = || BuildError::not_a_key(&config.key, "it is not a P-256 private key in PEM");
        let key = EncodingKey::from_ec_pem(&read(&config.key)?).map_err(|_| bad())?;
        let token = ProviderToken::new(key, &config.team_id, &config.key_id);
        // What cannot sign is noticed here.
        let token = Arc::new(token.ok_or_else(bad)?);
        self.0.insert(id, token.clone());
        Ok(token)
    }
}

/// A token, and the key that makes the next one.
pub(super) struct ProviderToken {
    key: EncodingKey,
    team_id: String,
    key_id: String,
    made: Mutex<Option<Made>>,
}

struct Made {
    value: String,
    /// As of when, in seconds.
    at_s: u64,
    /// When another one is due.
    until_s: u64,
}

impl ProviderToken {
    fn new(key: EncodingKey, team_id: &str, key_id: &str) -> Option<Self> {
        jsonwebtoken::crypto::sign(b"", &key, Algorithm::ES256).ok()?;
        let (team_id, key_id) = (team_id.to_owned(), key_id.to_owned());
        Some(ProviderToken { key, team_id, key_id, made: Mutex::new(None) })
    }

    /// The token that is good now.
    pub(super) fn get(&self, clock: &dyn Clock) -> String {
        let now_s = seconds(clock);
        let mut made = self.made.lock();
        match made.as_ref().filter(|made| (made.at_s..made.until_s).contains(&now_s)) {
            Some(made) => made.value.clone(),
            None => {
                let own = is(Mutant::OwnPushTokens);
                let at_s = if own { now_s } else { last(now_s, SERVES_S) };
                self.make(&mut made, at_s, next(now_s, SERVES_S))
            }
        }
    }

    /// Another token than one that Apple calls expired, unless there is none yet.
    pub(super) fn refresh(&self, refused: &str, clock: &dyn Clock) -> Option<String> {
        let newest = last(seconds(clock), STEP_S);
        let mut made = self.made.lock();
        match made.as_ref() {
            Some(made) if made.value != refused => Some(made.value.clone()),
            Some(made) if made.at_s >= newest => None,
            _ => Some(self.make(&mut made, newest, next(newest, SERVES_S))),
        }
    }

    /// The token before one that Apple calls one too many, if it is still good. It serves until the other
    /// is tried again.
    pub(super) fn before(&self, refused: &str, clock: &dyn Clock) -> Option<String> {
        let now_s = seconds(clock);
        let mut made = self.made.lock();
        let at_s = match made.as_ref()? {
            made if made.value != refused => return Some(made.value.clone()),
            made => last(made.at_s.saturating_sub(1), SERVES_S),
        };
        let is_good = (at_s..at_s + GOOD_S).contains(&now_s);
        is_good.then(|| self.make(&mut made, at_s, next(now_s, TRIED_S)))
    }

    fn make(&self, made: &mut Option<Made>, at_s: u64, until_s: u64) -> String {
        let header = Header { kid: Some(self.key_id.clone()), ..Header::new(Algorithm::ES256) };
        let claims = json!({ "iss": self.team_id, "iat": at_s });
        let value = encode(&header, &claims, &self.key).expect("the key has signed before");
        *made = Some(Made { value: value.clone(), at_s, until_s });
        value
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use p256::pkcs8::EncodePrivateKey;
    use tidemark_env::ManualClock;
    use tidemark_types::UnixMs;

    use super::*;

    fn token() -> ProviderToken {
        let key = p256::SecretKey::from_slice(&[7; 32]).expect("below the order");
        let der = key.to_pkcs8_der().expect("it is encoded");
        let key = EncodingKey::from_ec_der(der.as_bytes());
        ProviderToken::new(key, "TEAM", "KEY").expect("it signs")
    }

    /// So many seconds after a time at which a new token is due.
    fn at(after_s: u64) -> UnixMs {
        UnixMs::new((700_000 * SERVES_S + after_s) * 1_000)
    }

    #[test]
    fn a_token_serves_for_40_minutes_and_is_replaced_after_20_at_the_earliest() {
        let clock = ManualClock::at(at(0));
        let token = token();
        let first = token.get(&clock);
        clock.jump(at(SERVES_S - 1));
        assert_eq!(token.get(&clock), first);
        clock.jump(at(SERVES_S));
        let second = token.get(&clock);
        assert_ne!(second, first);
        clock.advance(Duration::from_secs(STEP_S - 1));
        assert_eq!(token.refresh(&second, &clock), None, "Apple would refuse the next one too");
        assert_eq!(token.refresh(&first, &clock).as_ref(), Some(&second), "another was faster");
        clock.advance(Duration::from_secs(1));
        let third = token.refresh(&second, &clock).expect("it is old enough");
        assert_ne!(third, second);
        assert_eq!(token.get(&clock), third);
        clock.jump(at(2 * SERVES_S));
        assert_ne!(token.get(&clock), third);
        clock.jump(at(0));
        assert_eq!(token.get(&clock), first, "a clock that was wrong is put right");
    }

    #[test]
    fn whoever_has_the_key_has_the_same_token() {
        let early = ManualClock::at(at(0));
        let late = ManualClock::at(at(SERVES_S - 1));
        let (first, other) = (token(), token());
        let shared = first.get(&early);
        assert_eq!(other.get(&late), shared);
        let renewed = first.refresh(&shared, &late);
        assert!(renewed.is_some());
        assert_eq!(other.refresh(&shared, &late), renewed);
    }

    #[test]
    fn one_too_many_is_tried_again_while_the_one_before_serves() {
        let clock = ManualClock::at(at(SERVES_S - 60));
        let token = token();
        let old = token.get(&clock);
        for minutes in [0, 5, 10, 15] {
            clock.jump(at(SERVES_S + minutes * 60));
            let new = token.get(&clock);
            assert_ne!(new, old, "it is tried");
            assert_eq!(token.before(&new, &clock).as_ref(), Some(&old));
            assert_eq!(token.before(&new, &clock).as_ref(), Some(&old), "another was faster");
            clock.advance(Duration::from_secs(TRIED_S - 1));
            assert_eq!(token.get(&clock), old);
        }
        clock.advance(Duration::from_secs(1));
        let new = token.get(&clock);
        assert_ne!(new, old);
        assert_eq!(token.before(&new, &clock), None, "Apple takes none for longer than an hour");
        assert_eq!(token.get(&clock), new);
        // A gateway that has just started knows which one was before.
        clock.jump(at(SERVES_S + 60));
        let other = self::token();
        assert_eq!(other.before(&other.get(&clock), &clock), Some(old));
    }

    #[test]
    fn the_one_before_gives_way_when_it_is_called_expired() {
        let clock = ManualClock::at(at(60));
        let token = token();
        let new = token.get(&clock);
        let old = token.before(&new, &clock).expect("it is good");
        assert_eq!(token.refresh(&old, &clock).as_ref(), Some(&new));
        assert_eq!(token.get(&clock), new);
    }
}
