//! Requests made by hand, so that each can break one rule.

use std::sync::Once;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{Signature, SigningKey};
use p256::pkcs8::DecodePrivateKey;
use reqwest::{Client, Method};
use serde_json::Value;
use tidemark_push_sim::Sim;

/// A request that is good until it is changed.
#[derive(Clone)]
pub(crate) struct Raw {
    pub(crate) method: Method,
    pub(crate) url: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: String,
}

impl Raw {
    pub(crate) fn post(url: String, headers: &[(&str, &str)], body: &str) -> Raw {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let headers = headers.iter().map(own).collect();
        Raw { method: Method::POST, url, headers, body: body.as_bytes().to_vec() }
    }

    pub(crate) fn without(mut self, name: &str) -> Raw {
        let before = self.headers.len();
        self.headers.retain(|(other, _)| other != name);
        assert!(self.headers.len() < before, "there is no {name} to take away");
        self
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Raw {
        self.headers.retain(|(other, _)| other != name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn twice(mut self, name: &str, value: &str) -> Raw {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Raw {
        self.body = body.into();
        self
    }

    pub(crate) fn to(mut self, from: &str, to: &str) -> Raw {
        assert!(self.url.contains(from), "{} has no {from}", self.url);
        self.url = self.url.replace(from, to);
        self
    }

    pub(crate) fn method(mut self, method: Method) -> Raw {
        self.method = method;
        self
    }

    pub(crate) async fn send(self, client: &Client) -> Answer {
        let mut request = client.request(self.method, &self.url).body(self.body);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let response = request.send().await.expect("an answer");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Answer { status, headers, body: response.text().await.expect("text") }
    }
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    pub(crate) fn header(&self, name: &str) -> String {
        let text = self.headers.get(name).map(|value| value.to_str().expect("text").to_owned());
        text.unwrap_or_default()
    }
}

/// A client that trusts the simulator.
pub(crate) fn client(sim: &Sim, http2: bool) -> Client {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        rustls::crypto::ring::default_provider().install_default().expect("the only one");
    });
    let ca = reqwest::Certificate::from_pem(sim.credentials().ca_pem().as_bytes());
    let builder = Client::builder().tls_certs_only([ca.expect("a certificate")]).no_proxy();
    let builder = if http2 { builder.http2_prior_knowledge() } else { builder.http1_only() };
    builder.build().expect("a client")
}

/// What is answered to these bytes, for requests that no client makes.
pub(crate) async fn bytes(sim: &Sim, request: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(sim.http()).await.expect("it listens");
    stream.write_all(request.as_bytes()).await.expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    answer
}

/// A JWT, signed by this key in PEM.
pub(crate) fn es256(pem: &str, header: &Value, claims: &Value) -> String {
    let key = SigningKey::from_pkcs8_pem(pem).expect("a key");
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(header), part(claims));
    let signature: Signature = key.sign(signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.to_bytes()))
}

/// Seconds since the epoch.
pub(crate) fn now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.expect("after 1970").as_secs()
}
