//! Where a client may send this server to. A target that is a URL is the client's word: without a
//! rule it would reach whatever this machine reaches.
//!
//! A URL must be https and lead to a public address. Its host's name is resolved again for every
//! connection, and only public addresses of it are used: what was public when it was registered may
//! not be later. Redirects are followed nowhere. Exceptions are whole origins that the operator lists.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Origin, Url};

use crate::provider::{TargetError, length};

/// An endpoint that the operator names: https, or http that does not leave the machine.
pub(crate) fn endpoint(url: &str) -> Option<Url> {
    let url = Url::parse(url).ok()?;
    let bare = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    let safe = match url.scheme() {
        "https" => url.host().is_some(),
        "http" => url.host().is_some_and(|host| is_loopback(&host)),
        _ => false,
    };
    (bare && safe).then_some(url)
}

/// An endpoint without a path.
pub(crate) fn origin(url: &str) -> Option<Url> {
    endpoint(url).filter(|url| url.path() == "/" && url.query().is_none())
}

fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => *name == "localhost",
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    }
}

/// Which URLs clients may name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Guard {
    /// Origins that need not be public.
    origins: Vec<Url>,
    /// Hosts that all others must be on, or below; `None` for any.
    hosts: Option<Vec<String>>,
}

impl Guard {
    /// Of a configuration that was validated.
    pub(crate) fn new(origins: &[String], hosts: Option<&[String]>) -> Self {
        let origins = origins.iter().filter_map(|url| origin(url)).collect();
        Guard { origins, hosts: hosts.map(<[String]>::to_vec) }
    }

    /// The hosts whose addresses may be any.
    pub(crate) fn trusted(&self) -> impl Iterator<Item = &str> {
        self.origins.iter().filter_map(Url::host_str)
    }

    /// The URL, if it may be called.
    pub(crate) fn check(&self, target: &str) -> Result<Url, TargetError> {
        length(target)?;
        let url = Url::parse(target).map_err(|_| TargetError::Form("a URL"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(TargetError::Address("it has a user in it"));
        }
        let origin: Origin = url.origin();
        if self.origins.iter().any(|trusted| trusted.origin() == origin) {
            return Ok(url);
        }
        if url.scheme() != "https" {
            return Err(TargetError::Address("it is not https"));
        }
        // Its name is resolved without a check, so that no other port may be named.
        if self.trusted().any(|host| url.host_str() == Some(host)) {
            return Err(TargetError::Address("of this host only the listed origin is allowed"));
        }
        let public = match url.host() {
            Some(Host::Ipv4(address)) => is_public_v4(address),
            Some(Host::Ipv6(address)) => is_public_v6(address),
            Some(Host::Domain(name)) => is_public_name(name),
            None => false,
        };
        if !public {
            return Err(TargetError::Address("it does not lead to a public address"));
        }
        let host = url.host_str().unwrap_or_default();
        let on = |name: &String| {
            host.strip_suffix(name).is_some_and(|s| s.is_empty() || s.ends_with('.'))
        };
        match &self.hosts {
            Some(hosts) if !hosts.iter().any(on) => {
                Err(TargetError::Address("it is not on a host of this service"))
            }
            _ => Ok(url),
        }
    }
}

/// Could a name be in the public DNS? What it resolves to is looked at when a connection is made.
fn is_public_name(name: &str) -> bool {
    let name = name.trim_end_matches('.');
    let local = [".localhost", ".local", ".internal", ".lan", ".home.arpa"];
    name.contains('.') && !local.iter().any(|ending| name.ends_with(ending))
}

/// Is it an address of the internet at large?
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// The special-purpose addresses of RFC 6890 and its registry, turned around.
fn is_public_v4(address: Ipv4Addr) -> bool {
    let special = match address.octets() {
        [0 | 10 | 127, ..] => true,
        [100, second, ..] => (64..128).contains(&second),
        [169, 254, ..] | [192, 168, ..] => true,
        [172, second, ..] => (16..32).contains(&second),
        [192, 0, 0 | 2, _] | [192, 88, 99, _] => true,
        [198, 18 | 19, ..] | [198, 51, 100, _] | [203, 0, 113, _] => true,
        // Multicast, reserved, broadcast.
        [first, ..] => first >= 224,
    };
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let embedded = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        // Behind NAT64 the public internet has these.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        [0, 0, 0, 0, 0, 0xffff, high, low] => embedded(high, low),
        // Teredo, ORCHID and others; documentation; 6to4, which leads to any IPv4 address.
        [0x2001, second, ..] if second < 0x200 => false,
        [0x2001, 0xdb8, ..] | [0x2002, ..] => false,
        [0x3fff, second, ..] if second < 0x1000 => false,
        // The only part of the space that is given out.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_internet_are_public() {
        let public = |text: &str| is_public(text.parse().expect("a test's own constant"));
        for text in ["1.1.1.1", "100.63.0.1", "172.32.0.1", "192.0.1.1", "2606:4700::1111"] {
            assert!(public(text), "{text}");
        }
        assert!(public("64:ff9b::101:101") && public("::ffff:1.1.1.1"));
        for text in [
            "0.0.0.0",
            "10.1.2.3",
            "127.0.0.1",
            "100.64.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "192.168.1.1",
            "192.0.2.1",
            "198.18.0.1",
            "203.0.113.9",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "2001:db8::1",
            "2001::1",
            "2002:7f00:1::",
            "3fff::1",
        ] {
            assert!(!public(text), "{text}");
        }
    }

    #[test]
    fn a_client_cannot_send_us_into_the_house() {
        let guard = Guard::default();
        assert!(guard.check("https://push.example.com/x?y=1").is_ok());
        assert!(guard.check("https://1.1.1.1:8443/x").is_ok());
        for target in [
            "http://push.example.com/x",
            "ftp://push.example.com/x",
            "https://user@push.example.com/x",
            "https://127.0.0.1/x",
            "https://2130706433/x",
            "https://0x7f.1/x",
            "https://[::1]/x",
            "https://[::ffff:10.0.0.1]/x",
            "https://localhost/x",
            "https://localhost./x",
            "https://db.internal/x",
            "https://metadata/x",
            "https://169.254.169.254/latest",
        ] {
            let refused = guard.check(target).expect_err(target);
            assert!(matches!(refused, TargetError::Address(_)), "{target}: {refused}");
        }
        assert_eq!(
            guard.check("push.example.com").expect_err("no URL"),
            TargetError::Form("a URL")
        );
        assert_eq!(guard.check("").expect_err("empty"), TargetError::Length(0));
    }

    #[test]
    fn an_origin_that_is_listed_is_allowed_and_nothing_beside_it() {
        let origins = ["http://127.0.0.1:7500".to_owned(), "https://ntfy.lan".to_owned()];
        let guard = Guard::new(&origins, None);
        assert!(guard.check("http://127.0.0.1:7500/any/path").is_ok());
        assert!(guard.check("https://ntfy.lan:443/up").is_ok());
        for target in [
            "http://127.0.0.1:7501/",
            "https://127.0.0.1:7500/",
            "https://ntfy.lan:22/",
            "http://ntfy.lan/",
        ] {
            assert!(guard.check(target).is_err(), "{target}");
        }
    }

    #[test]
    fn a_service_has_its_own_hosts() {
        let guard = Guard::new(&[], Some(&["notify.windows.com".to_owned()]));
        assert!(guard.check("https://db5p.notify.windows.com/?token=A").is_ok());
        for target in ["https://evilnotify.windows.com/", "https://notify.windows.com.evil.org/"] {
            assert!(guard.check(target).is_err(), "{target}");
        }
    }

    #[test]
    fn an_operator_may_name_what_does_not_leave_the_machine() {
        for url in ["https://10.0.0.1/pap", "http://localhost:1/x", "http://[::1]:1/x"] {
            assert!(endpoint(url).is_some(), "{url}");
        }
        for url in ["http://10.0.0.1/", "http://example.com/", "https://u:p@example.com/", "x"] {
            assert!(endpoint(url).is_none(), "{url}");
        }
        assert!(origin("https://a.example/").is_some() && origin("https://a.example/x").is_none());
    }
}
