//! Who makes a call, and what they may.
//!
//! The token says it, and the crate of tokens judges it; here it becomes a refusal.

use tidemark_proto::{Failure, headers};
use tidemark_token::Claims;
use tidemark_types::{DeviceId, ErrorCode, UnixMs, UserId};
use tonic::metadata::MetadataMap;

use super::Backend;
use crate::failure;

/// Whoever made the call.
pub(super) struct Caller(Claims);

impl Backend {
    /// Who calls, by the call's headers.
    pub(super) fn caller(&self, headers: &MetadataMap) -> Result<Caller, Failure> {
        self.check_cluster(text(headers, headers::CLUSTER)?)?;
        let token = text(headers, headers::AUTHORIZATION)?
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(headers::BEARER.trim_end()))
            .map(|(_, token)| token)
            .ok_or_else(|| {
                let text =
                    format!("the header `{}: Bearer TOKEN` is missing", headers::AUTHORIZATION);
                Failure::new(ErrorCode::Unauthenticated).message(text)
            })?;
        self.keys.verify(token).map(Caller).map_err(failure::of_token)
    }
}

impl Caller {
    /// May it act in this user's name?
    pub(super) fn act_for(&self, user: &UserId) -> Result<(), Failure> {
        self.0.may_act_for(user).map_err(failure::of_token)
    }

    /// May it speak about this user's device?
    pub(super) fn use_device(&self, user: &UserId, device: &DeviceId) -> Result<(), Failure> {
        self.0.may_use_device(user, device).map_err(failure::of_token)
    }

    /// May it take numbers of counters?
    pub(super) fn count(&self) -> Result<(), Failure> {
        self.0.may_count().map_err(failure::of_token)
    }

    /// May it change groups with their owners' rights?
    pub(super) fn act_for_groups(&self) -> Result<(), Failure> {
        self.0.may_act_for_groups().map_err(failure::of_token)
    }

    /// May it follow the feed?
    pub(super) fn follow(&self) -> Result<(), Failure> {
        self.0.may_follow().map_err(failure::of_token)
    }

    /// What its token says.
    pub(super) fn claims(&self) -> &Claims {
        &self.0
    }

    /// Until when its token is good.
    pub(super) fn expires(&self) -> UnixMs {
        self.0.expires
    }

    /// May it do what only operators do?
    pub(super) fn administer(&self) -> Result<(), Failure> {
        self.0.may_administer().map_err(failure::of_token)
    }
}

fn text<'a>(headers: &'a MetadataMap, name: &str) -> Result<Option<&'a str>, Failure> {
    let value = headers.get(name).map(|value| value.to_str()).transpose();
    value.map_err(|_| Failure::new(ErrorCode::Invalid).message(format!("{name}: is no text")))
}
