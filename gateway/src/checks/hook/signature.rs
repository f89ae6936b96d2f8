//! Signatures after Standard Webhooks 1.0: HMAC-SHA256 over id, time and body, so that the hook
//! knows who asks, and that nobody repeats an old question.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use thiserror::Error;

/// Before the base64 of a secret.
const PREFIX: &str = "whsec_";

/// Bytes of a secret, as the standard wants.
const SECRET_BYTES_MIN: usize = 24;
const SECRET_BYTES_MAX: usize = 64;

/// Bytes of a message's id that stand in its header.
const ID_BYTES: usize = 16;

/// Why a secret cannot be used. It is never shown.
#[derive(Debug, Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("the hook's secret {path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is none.
    #[error(
        "the hook's secret {0}: it is `{PREFIX}` and base64 of {SECRET_BYTES_MIN} to \
         {SECRET_BYTES_MAX} bytes"
    )]
    Illegal(PathBuf),
}

/// A secret that gateway and hook share.
pub(super) struct Secret(Vec<u8>);

impl Secret {
    /// The one in this file.
    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        let text = fs::read_to_string(path)
            .map_err(|source| Error::Read { path: path.to_owned(), source })?;
        Secret::parse(&text).ok_or_else(|| Error::Illegal(path.to_owned()))
    }

    fn parse(text: &str) -> Option<Self> {
        let secret = STANDARD.decode(text.trim().strip_prefix(PREFIX)?).ok()?;
        (SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&secret.len()).then_some(Secret(secret))
    }

    /// The value of the header `webhook-signature`.
    pub(super) fn sign(&self, id: &str, timestamp: &str, body: &[u8]) -> String {
        let parts = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body];
        format!("v1,{}", STANDARD.encode(self.mac(&parts)))
    }

    /// The name of a message in the header `webhook-id`: the same for each retry, and another one
    /// for every other message, whatever ids somebody makes up.
    pub(super) fn message_id(&self, sender: &str, client_msg_id: &[u8]) -> String {
        let mac = self.mac(&[client_msg_id, sender.as_bytes()]);
        let hex: String = mac[..ID_BYTES].iter().map(|byte| format!("{byte:02x}")).collect();
        format!("msg_{hex}")
    }

    fn mac(&self, parts: &[&[u8]]) -> Vec<u8> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("a key may have any length");
        for part in parts {
            mac.update(part);
        }
        mac.finalize().into_bytes().to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the standard's reference libraries.
    #[test]
    fn a_vector_of_the_standard_holds_it_still() {
        let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").expect("legal");
        let body = b"{\"test\": 2432232314}";
        let signature = secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", body);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_message_has_one_id_and_shares_it_with_none() {
        let secret = Secret(vec![1; 24]);
        let id = secret.message_id("alice", &[7; 16]);
        assert_eq!(id, secret.message_id("alice", &[7; 16]));
        assert_eq!(id.len(), "msg_".len() + 2 * ID_BYTES);
        assert_ne!(id, secret.message_id("bob", &[7; 16]));
        assert_ne!(id, secret.message_id("alice", &[8; 16]));
    }

    #[test]
    fn what_is_no_secret_is_refused() {
        for text in ["", "whsec_", "whsec_MfKQ", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_?"] {
            assert!(Secret::parse(text).is_none(), "{text}");
        }
        let long = format!("whsec_{}", STANDARD.encode([1; SECRET_BYTES_MAX + 1]));
        assert!(Secret::parse(&long).is_none());
    }
}
