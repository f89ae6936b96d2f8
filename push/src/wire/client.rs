//! A client of HTTP: what it trusts, which version it speaks, which addresses it connects to. It
//! follows no redirect and uses no proxy: both would undo the check of an address.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Client;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use url::Url;

use super::address::{Guard, is_public};
use crate::build::BuildError;
use crate::config::TlsConfig;

/// Longer than the slowest handshake that is worth waiting for, shorter than an attempt.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// A connection that is quiet for longer may be dead without anybody knowing.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// Which HTTP a service speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// 1.1: services that want it so.
    Http1,
    /// 2, and a failure instead of anything less.
    Http2,
    /// What the server prefers.
    Any,
}

/// A client. With a guard it connects to public addresses only, but for the guard's exceptions.
pub(crate) fn client(
    protocol: Protocol,
    tls: &TlsConfig,
    guard: Option<&Guard>,
) -> Result<Client, BuildError> {
    build(protocol, roots(tls)?, guard)
}

/// A client of one server that the operator names. Without TLS nobody need be trusted.
pub(crate) fn client_for(
    url: &Url,
    protocol: Protocol,
    tls: &TlsConfig,
) -> Result<Client, BuildError> {
    let roots = match url.scheme() {
        "https" => roots(tls)?,
        _ => RootCertStore::empty(),
    };
    build(protocol, roots, None)
}

fn build(
    protocol: Protocol,
    roots: RootCertStore,
    guard: Option<&Guard>,
) -> Result<Client, BuildError> {
    let mut builder = Client::builder()
        .tls_backend_preconfigured(tls_config(protocol, roots)?)
        .redirect(Policy::none())
        .no_proxy()
        .referer(false)
        .user_agent("tidemark-push")
        .connect_timeout(CONNECT_MAX)
        .pool_idle_timeout(IDLE_MAX);
    builder = match protocol {
        Protocol::Http1 => builder.http1_only(),
        // A dead connection is noticed before attempts on it time out.
        Protocol::Http2 => builder
            .http2_prior_knowledge()
            .http2_keep_alive_interval(Duration::from_secs(30))
            .http2_keep_alive_timeout(CONNECT_MAX),
        Protocol::Any => builder,
    };
    if let Some(guard) = guard {
        let trusted = guard.trusted().map(str::to_owned).collect();
        builder = builder.dns_resolver(Arc::new(PublicOnly { trusted }));
    }
    builder.build().map_err(|error| BuildError::Tls(error.to_string()))
}

/// The authorities that are trusted.
fn roots(tls: &TlsConfig) -> Result<RootCertStore, BuildError> {
    let mut roots = RootCertStore::empty();
    // Certificates that cannot be read are as good as not there; without any nothing is trusted.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = &tls.ca {
        for certificate in authorities(path)? {
            let bad = |_| BuildError::not_a_key(path, "it holds what is no certificate");
            roots.add(certificate).map_err(bad)?;
        }
    }
    if roots.is_empty() {
        let reason = "no certificate of an authority was found: install ca-certificates or name a file of your own";
        return Err(BuildError::Tls(reason.to_owned()));
    }
    Ok(roots)
}

/// A client of TLS that trusts the system's authorities and these, for calls that are made without this
/// crate. Which protocol it speaks is for its user to say.
pub fn tls_client(tls: &TlsConfig) -> Result<ClientConfig, BuildError> {
    trusting(roots(tls)?)
}

fn trusting(roots: RootCertStore) -> Result<ClientConfig, BuildError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| BuildError::Tls(error.to_string()))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

fn tls_config(protocol: Protocol, roots: RootCertStore) -> Result<ClientConfig, BuildError> {
    let mut config = trusting(roots)?;
    config.alpn_protocols = match protocol {
        Protocol::Http1 => vec![b"http/1.1".to_vec()],
        Protocol::Http2 => vec![b"h2".to_vec()],
        Protocol::Any => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
    };
    Ok(config)
}

fn authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, BuildError> {
    let content = crate::build::read(path)?;
    let bad = || BuildError::not_a_key(path, "it is not a PEM with certificates");
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&content).collect();
    found.ok().filter(|found| !found.is_empty()).ok_or_else(bad)
}

/// Resolves names to public addresses, but for hosts that the operator listed.
struct PublicOnly {
    trusted: BTreeSet<String>,
}

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        let trusted = self.trusted.contains(name.as_str());
        let name = name.as_str().to_owned();
        Box::pin(async move {
            let all = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let found: Vec<_> = all.filter(|found| trusted || is_public(found.ip())).collect();
            match found.is_empty() {
                true => Err("the name leads to no public address".into()),
                false => Ok(Box::new(found.into_iter()) as Addrs),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn addresses(trusted: &[&str]) -> usize {
        let trusted = trusted.iter().map(|&name| name.to_owned()).collect();
        let resolver = PublicOnly { trusted };
        let found = resolver.resolve("localhost".parse().expect("a name")).await;
        found.map_or(0, Iterator::count)
    }

    #[tokio::test]
    async fn a_name_that_leads_into_the_house_leads_nowhere() {
        assert_eq!(addresses(&[]).await, 0);
        assert!(addresses(&["localhost"]).await > 0);
    }
}
