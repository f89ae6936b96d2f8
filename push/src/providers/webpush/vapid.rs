//! Who we are, to push services (RFC 8292): a token per service, signed by one key. Browsers are
//! given its public half when they subscribe.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use p256::SecretKey;
use p256::elliptic_curve::sec1::ToEncodedPoint;
use p256::pkcs8::{DecodePrivateKey, EncodePrivateKey};
use parking_lot::Mutex;
use serde_json::json;
use tidemark_env::Clock;
use url::Url;

use super::super::seconds;
use super::BASE64URL;
use crate::build::{BuildError, read_line};

/// How long a token is good; services take up to 24 hours.
const LIFE_S: u64 = 12 * 3_600;

/// A token is replaced when it is this old.
const REFRESH_AT: Duration = Duration::from_secs(LIFE_S / 2);

/// Services of which the token is kept. There are four or so, and whatever clients name beside.
const KEPT_MAX: usize = 256;

/// Our key, and the tokens it has made.
pub(super) struct Vapid {
    key: EncodingKey,
    /// The public half, as it stands in headers.
    public: String,
    subject: String,
    made: Mutex<BTreeMap<String, (String, Duration)>>,
}

impl Vapid {
    /// Reads the key: a PEM, or its 32 bytes in base64url.
    pub(super) fn read(path: &Path, subject: &str) -> Result<Self, BuildError> {
        let bad = || BuildError::not_a_key(path, "it is no P-256 private key in PEM or base64url");
        let content = crate::build::read(path)?;
        let secret = match content.starts_with(b"-----") {
            true => SecretKey::from_pkcs8_pem(&String::from_utf8_lossy(&content)).ok(),
            false => {
                let bytes = BASE64URL.decode(read_line(path)?).map_err(|_| bad())?;
                SecretKey::from_slice(&bytes).ok()
            }
        };
        Self::new(&secret.ok_or_else(bad)?, subject).ok_or_else(bad)
    }

    fn new(secret: &SecretKey, subject: &str) -> Option<Self> {
        let der = secret.to_pkcs8_der().ok()?;
        let public = BASE64URL.encode(secret.public_key().to_encoded_point(false).as_bytes());
        let (key, made) = (EncodingKey::from_ec_der(der.as_bytes()), Mutex::default());
        Some(Vapid { key, public, subject: subject.to_owned(), made })
    }

    /// The header for a service. Its origin is all that the token is good for.
    pub(super) fn authorization(&self, endpoint: &Url, clock: &dyn Clock) -> String {
        let origin = endpoint.origin().ascii_serialization();
        let now = clock.monotonic();
        let mut made = self.made.lock();
        let young = |at: Duration| now.saturating_sub(at) < REFRESH_AT;
        if let Some((header, _)) = made.get(&origin).filter(|(_, at)| young(*at)) {
            return header.clone();
        }
        if made.len() >= KEPT_MAX {
            // Clients name services: a client that names many costs all of us a signature each.
            made.clear();
        }
        let claims = json!({
            "aud": origin,
            "exp": seconds(clock) + LIFE_S,
            "sub": self.subject,
        });
        let token = encode(&Header::new(Algorithm::ES256), &claims, &self.key);
        let token = token.expect("a P-256 key signs");
        let header = format!("vapid t={token},k={}", self.public);
        made.insert(origin, (header.clone(), now));
        header
    }
}

#[cfg(test)]
mod tests {
    use tidemark_env::ManualClock;
    use tidemark_types::UnixMs;

    use super::*;

    fn vapid() -> Vapid {
        let secret = SecretKey::from_slice(&[7; 32]).expect("below the order");
        Vapid::new(&secret, "mailto:a@example.org").expect("it is encoded")
    }

    #[test]
    fn a_service_has_a_token_of_its_own_for_a_while() {
        let clock = ManualClock::at(UnixMs::new(1_700_000_000_000));
        let vapid = vapid();
        let of = |url: &str| vapid.authorization(&Url::parse(url).expect("a URL"), &clock);
        let one = of("https://one.example/a");
        assert_eq!(of("https://one.example/b?c"), one);
        assert_ne!(of("https://one.example:8443/a"), one);
        clock.advance(REFRESH_AT);
        assert_ne!(of("https://one.example/a"), one);
        for n in 0..2 * KEPT_MAX {
            of(&format!("https://{n}.example/"));
        }
        assert!(vapid.made.lock().len() <= KEPT_MAX);
    }

    #[test]
    fn a_key_is_read_in_both_forms() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("vapid");
        let secret = SecretKey::from_slice(&[7; 32]).expect("below the order");
        let pem = secret.to_pkcs8_pem(Default::default()).expect("it is encoded");
        for text in [pem.to_string(), format!("{}\n", BASE64URL.encode([7; 32]))] {
            std::fs::write(&path, text).expect("written");
            let read = Vapid::read(&path, "mailto:a@example.org").expect("a key");
            assert_eq!(read.public, vapid().public);
        }
        for text in ["", "-----BEGIN PRIVATE KEY-----\n", "AAAA"] {
            std::fs::write(&path, text).expect("written");
            assert!(Vapid::read(&path, "mailto:a@example.org").is_err(), "{text}");
        }
    }
}
