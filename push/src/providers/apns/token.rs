//! The token by which Apple knows us: signed by our key, good for an hour, and not to be made more
//! often than every 20 minutes. Apple counts those of a key, whoever makes them, so all gateways have
//! the same one, also a gateway that has just started: it is made as of a time that all of them know,
//! and the same text has the same signature (RFC 6979).
//!
//! ```text
//!   minutes                 0          20         40         60         80
//!   a gateway's token       ├── as of 0 ──────────┼── as of 40 ─────────┼── as of 80 …
//!   … if called expired               └─ as of 20 ┘          └─ as of 60 ┘
//! ```

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

/// The last time that is a multiple of this.
fn last(now_s: u64, step_s: u64) -> u64 {
    now_s - now_s % step_s
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
        let due = last(now_s, SERVES_S);
        let mut made = self.made.lock();
        match made.as_ref().filter(|made| (due..=now_s).contains(&made.at_s)) {
            Some(made) => made.value.clone(),
            None if is(Mutant::OwnPushTokens) => self.make(&mut made, now_s),
            None => self.make(&mut made, due),
        }
    }

    /// Another token than one that Apple calls expired, unless there is none yet.
    pub(super) fn refresh(&self, refused: &str, clock: &dyn Clock) -> Option<String> {
        let newest = last(seconds(clock), STEP_S);
        let mut made = self.made.lock();
        match made.as_ref() {
            Some(made) if made.value != refused => Some(made.value.clone()),
            Some(made) if made.at_s >= newest => None,
            _ => Some(self.make(&mut made, newest)),
        }
    }

    fn make(&self, made: &mut Option<Made>, at_s: u64) -> String {
        let header = Header { kid: Some(self.key_id.clone()), ..Header::new(Algorithm::ES256) };
        let claims = json!({ "iss": self.team_id, "iat": at_s });
        let value = encode(&header, &claims, &self.key).expect("the key has signed before");
        *made = Some(Made { value: value.clone(), at_s });
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
}
