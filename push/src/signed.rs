//! Calls to a server of the operator's own, signed after Standard Webhooks 1.0: HMAC-SHA256 over id,
//! time and body, so that the server knows who calls, and that nobody repeats an old call.

use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use reqwest::{Client, RequestBuilder};
use sha2::Sha256;
use tidemark_env::Clock;
use url::Url;

use crate::build::{BuildError, read};
use crate::config::TlsConfig;
use crate::wire::{Protocol, client_for, fetch};

/// Secrets at once: the old one, the new one, and one for a mistake.
const SECRETS_MAX: usize = 4;

/// Bytes of a secret, as Standard Webhooks says.
const SECRET_BYTES: RangeInclusive<usize> = 24..=64;

/// Bytes of a call's name that stand in its header.
const NAME_BYTES: usize = 16;

/// A server that is called over a few connections, which are kept. It follows no redirect and uses no
/// proxy.
pub struct SignedEndpoint {
    client: Client,
    url: Url,
    secrets: Vec<Vec<u8>>,
    clock: Arc<dyn Clock>,
}

impl SignedEndpoint {
    /// At an `http` or `https` URL, with the secrets in this file: `whsec_…`, one a line. Each signs, so
    /// that they can be replaced one after the other.
    pub fn new(
        url: &str,
        secrets: &Path,
        tls: &TlsConfig,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, BuildError> {
        let not_a_url = || BuildError::Url(url.to_owned());
        let url = Url::parse(url).ok().filter(Url::has_host).ok_or_else(not_a_url)?;
        let bad = |reason| BuildError::not_a_key(secrets, reason);
        let text = String::from_utf8(read(secrets)?).map_err(|_| bad("it is not text"))?;
        let secrets = parse(&text).map_err(bad)?;
        let client = client_for(&url, Protocol::Any, tls)?;
        Ok(SignedEndpoint { client, url, secrets, clock })
    }

    /// Posts JSON; the status and the body of the answer, of which more than `answer_bytes_max` is a
    /// failure. The error is for a log: it names no URL, which may hold a secret.
    pub async fn post(
        &self,
        id: &str,
        body: Vec<u8>,
        answer_bytes_max: usize,
    ) -> Result<(u16, Vec<u8>), String> {
        // One byte more tells that there is more.
        let answer = fetch(self.request(id, body), answer_bytes_max + 1).await?;
        match answer.body.len() <= answer_bytes_max {
            true => Ok((answer.status.as_u16(), answer.body)),
            false => Err(format!("its answer has more than {answer_bytes_max} bytes")),
        }
    }

    /// A POST that is signed now.
    pub(crate) fn request(&self, id: &str, body: Vec<u8>) -> RequestBuilder {
        let timestamp = (self.clock.wall().get() / 1_000).to_string();
        let signatures = sign(&self.secrets, id, &timestamp, &body);
        self.client
            .post(self.url.clone())
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signatures)
            .header("content-type", "application/json")
            .body(body)
    }

    /// A name for what a call is about: always the same for the same parts, and another one for all
    /// others, whatever somebody makes up who does not know the first secret.
    pub fn name(&self, parts: &[&[u8]]) -> String {
        name(&self.secrets[0], parts)
    }
}

/// One secret a line, `whsec_` and base64; there is at least one.
fn parse(text: &str) -> Result<Vec<Vec<u8>>, &'static str> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut secrets = Vec::new();
    for line in lines {
        let secret = line.strip_prefix("whsec_").ok_or("a secret does not begin with whsec_")?;
        let secret = STANDARD.decode(secret).map_err(|_| "a secret is not base64")?;
        if !SECRET_BYTES.contains(&secret.len()) {
            return Err("a secret has not 24 to 64 bytes");
        }
        secrets.push(secret);
    }
    match secrets.len() {
        1..=SECRETS_MAX => Ok(secrets),
        0 => Err("there is no secret"),
        _ => Err("there are more than 4 secrets"),
    }
}

/// A signature per secret.
fn sign(secrets: &[Vec<u8>], id: &str, timestamp: &str, body: &[u8]) -> String {
    let parts = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body];
    let signature = |secret: &Vec<u8>| format!("v1,{}", STANDARD.encode(mac(secret, &parts)));
    secrets.iter().map(signature).collect::<Vec<_>>().join(" ")
}

fn name(secret: &[u8], parts: &[&[u8]]) -> String {
    let mac = mac(secret, parts);
    let hex: String = mac[..NAME_BYTES].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("msg_{hex}")
}

fn mac(secret: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("it takes any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_secret_signs_as_the_standard_says() {
        // The example of the Standard Webhooks specification's reference libraries.
        let text =
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n\nwhsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n";
        let secrets = parse(text).expect("two secrets");
        let (id, body) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", br#"{"test": 2432232314}"#);
        let signed = sign(&secrets, id, "1614265330", body);
        let (first, second) = signed.split_once(' ').expect("two signatures");
        assert_eq!(first, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert!(second.starts_with("v1,") && second != first);
    }

    #[test]
    fn a_file_without_good_secrets_is_refused() {
        let long = format!("whsec_{}", STANDARD.encode([1; 65]));
        for (text, why) in [
            ("", "there is no secret"),
            ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "a secret does not begin with whsec_"),
            ("whsec_$", "a secret is not base64"),
            ("whsec_MfKQ9r8GKYqr", "a secret has not 24 to 64 bytes"),
            (&long, "a secret has not 24 to 64 bytes"),
        ] {
            assert_eq!(parse(text), Err(why));
        }
        let many = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n".repeat(5);
        assert_eq!(parse(&many), Err("there are more than 4 secrets"));
    }

    #[test]
    fn what_a_call_is_about_has_one_name_and_shares_it_with_nothing() {
        let secret = [1; 24];
        let id = name(&secret, &[&[7; 16], b"alice"]);
        assert_eq!(id, name(&secret, &[&[7; 16], b"alice"]));
        assert_eq!(id.len(), "msg_".len() + 2 * NAME_BYTES);
        assert_ne!(id, name(&secret, &[&[7; 16], b"bob"]));
        assert_ne!(id, name(&secret, &[&[8; 16], b"alice"]));
    }
}
