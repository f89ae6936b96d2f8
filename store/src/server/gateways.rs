//! Which gateways there are, as they say themselves: for whoever looks at the cluster, and for nothing
//! else. It is in memory only, and a gateway that says nothing for a while is forgotten.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use tidemark_proto::Failure;
use tidemark_types::ErrorCode;
use tokio::time::Instant;

/// Gateways that are known at once.
const GATEWAYS_MAX: usize = 1_024;

/// The longest name of a host, and a port.
const ADDRESS_BYTES_MAX: usize = 253 + ":65535".len();

/// Gateways announce themselves every 5 s: two may be lost.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(15);

/// The gateways that announced themselves, by where their HTTP ports are.
#[derive(Default)]
pub(super) struct Gateways {
    heard: Mutex<BTreeMap<String, Instant>>,
}

impl Gateways {
    /// A gateway announces itself.
    pub(super) fn hear(&self, http: String, now: Instant) -> Result<(), Failure> {
        if http.is_empty() || http.len() > ADDRESS_BYTES_MAX {
            let text =
                format!("http: {} bytes, and a host:port has 1 to {ADDRESS_BYTES_MAX}", http.len());
            return Err(Failure::new(ErrorCode::Invalid).message(text));
        }
        let mut heard = self.heard.lock();
        forget(&mut heard, now);
        if heard.len() >= GATEWAYS_MAX && !heard.contains_key(&http) {
            let text = format!("{GATEWAYS_MAX} gateways are known already");
            return Err(Failure::new(ErrorCode::Overloaded).message(text));
        }
        heard.insert(http, now);
        Ok(())
    }

    /// Who announced itself within the last seconds.
    pub(super) fn known(&self, now: Instant) -> Vec<String> {
        let mut heard = self.heard.lock();
        forget(&mut heard, now);
        heard.keys().cloned().collect()
    }
}

fn forget(heard: &mut BTreeMap<String, Instant>, now: Instant) {
    heard.retain(|_, at| now.saturating_duration_since(*at) < FORGOTTEN_AFTER);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_is_known_until_it_is_silent_for_too_long() {
        let (gateways, start) = (Gateways::default(), Instant::now());
        gateways.hear("one:1".to_owned(), start).expect("legal");
        gateways.hear("two:2".to_owned(), start + Duration::from_secs(10)).expect("legal");
        assert_eq!(gateways.known(start + Duration::from_secs(14)), ["one:1", "two:2"]);
        assert_eq!(gateways.known(start + FORGOTTEN_AFTER), ["two:2"]);
        assert!(gateways.known(start + Duration::from_secs(25)).is_empty());
    }

    #[test]
    fn what_is_no_address_and_one_gateway_too_many_are_refused() {
        let (gateways, now) = (Gateways::default(), Instant::now());
        for http in [String::new(), "x".repeat(ADDRESS_BYTES_MAX + 1)] {
            let refused = gateways.hear(http, now).expect_err("no address");
            assert_eq!(refused.code, ErrorCode::Invalid);
        }
        for number in 0..GATEWAYS_MAX {
            gateways.hear(format!("gateway-{number}:1"), now).expect("there is room");
        }
        let refused = gateways.hear("late:1".to_owned(), now).expect_err("there is no room");
        assert_eq!(refused.code, ErrorCode::Overloaded);
        gateways.hear("gateway-7:1".to_owned(), now).expect("it is known");
        gateways.hear("late:1".to_owned(), now + FORGOTTEN_AFTER).expect("the others are silent");
    }
}
