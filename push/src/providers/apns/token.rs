//! The token by which Apple knows us: signed by our key, good for an hour, and not to be renewed
//! more often than every 20 minutes. All providers of a key share one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use parking_lot::Mutex;
use serde_json::json;
use tidemark_env::Clock;
use tidemark_types::UnixMs;

use super::super::seconds;
use crate::build::{BuildError, read};
use crate::config::ApnsConfig;

/// A token is replaced when it is this old: Apple takes them for 60 minutes, and clocks differ.
pub(super) const REFRESH_AT: Duration = Duration::from_secs(45 * 60);

/// A younger one is never replaced, whatever Apple says of it: it would call that too many.
pub(super) const REFRESH_MIN: Duration = Duration::from_secs(20 * 60);

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

#[derive(Clone)]
struct Made {
    value: String,
    monotonic: Duration,
    wall: UnixMs,
}

impl Made {
    /// By the clock that says more: the monotonic one stands still while a machine sleeps.
    fn age(&self, clock: &dyn Clock) -> Duration {
        let wall = clock.wall().get().saturating_sub(self.wall.get());
        clock.monotonic().saturating_sub(self.monotonic).max(Duration::from_millis(wall))
    }
}

impl ProviderToken {
    fn new(key: EncodingKey, team_id: &str, key_id: &str) -> Option<Self> {
        jsonwebtoken::crypto::sign(b"", &key, Algorithm::ES256).ok()?;
        let (team_id, key_id) = (team_id.to_owned(), key_id.to_owned());
        Some(ProviderToken { key, team_id, key_id, made: Mutex::new(None) })
    }

    /// The token that is good now.
    pub(super) fn get(&self, clock: &dyn Clock) -> String {
        let mut made = self.made.lock();
        match made.as_ref().filter(|made| made.age(clock) < REFRESH_AT) {
            Some(made) => made.value.clone(),
            None => self.make(&mut made, clock),
        }
    }

    /// Another token than one that Apple calls expired, unless that one is too young.
    pub(super) fn refresh(&self, refused: &str, clock: &dyn Clock) -> Option<String> {
        let mut made = self.made.lock();
        match made.as_ref() {
            Some(made) if made.value != refused => Some(made.value.clone()),
            Some(made) if made.age(clock) < REFRESH_MIN => None,
            _ => Some(self.make(&mut made, clock)),
        }
    }

    fn make(&self, made: &mut Option<Made>, clock: &dyn Clock) -> String {
        let header = Header { kid: Some(self.key_id.clone()), ..Header::new(Algorithm::ES256) };
        let claims = json!({ "iss": self.team_id, "iat": seconds(clock) });
        let value = encode(&header, &claims, &self.key).expect("the key has signed before");
        let (monotonic, wall) = (clock.monotonic(), clock.wall());
        *made = Some(Made { value: value.clone(), monotonic, wall });
        value
    }
}

#[cfg(test)]
mod tests {
    use p256::pkcs8::EncodePrivateKey;
    use tidemark_env::ManualClock;

    use super::*;

    fn token() -> ProviderToken {
        let key = p256::SecretKey::from_slice(&[7; 32]).expect("below the order");
        let der = key.to_pkcs8_der().expect("it is encoded");
        let key = EncodingKey::from_ec_der(der.as_bytes());
        ProviderToken::new(key, "TEAM", "KEY").expect("it signs")
    }

    #[test]
    fn a_token_is_kept_for_45_minutes_and_replaced_after_20_at_the_earliest() {
        let clock = ManualClock::at(UnixMs::new(1_700_000_000_000));
        let token = token();
        let first = token.get(&clock);
        clock.advance(REFRESH_AT - Duration::from_secs(1));
        assert_eq!(token.get(&clock), first);
        clock.advance(Duration::from_secs(1));
        let second = token.get(&clock);
        assert_ne!(second, first);
        clock.advance(REFRESH_MIN - Duration::from_secs(1));
        assert_eq!(token.refresh(&second, &clock), None, "Apple would refuse the next one too");
        assert_eq!(token.refresh(&first, &clock).as_ref(), Some(&second), "another was faster");
        clock.advance(Duration::from_secs(1));
        let third = token.refresh(&second, &clock).expect("it is old enough");
        assert_ne!(third, second);
        assert_eq!(token.get(&clock), third);
    }

    #[test]
    fn a_machine_that_slept_makes_a_new_one() {
        let clock = ManualClock::at(UnixMs::new(1_700_000_000_000));
        let token = token();
        let first = token.get(&clock);
        clock.jump(UnixMs::new(1_700_000_000_000).plus(REFRESH_AT));
        assert_ne!(token.get(&clock), first);
    }
}
