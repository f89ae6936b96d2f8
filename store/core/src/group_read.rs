//! What can be asked of a group (R10): how it stands, its members in pages, and which groups have
//! something left to do.
//!
//! Members only are told, and back ends.

use serde::{Deserialize, Serialize};
use tidemark_types::{ErrorCode, GroupId, Recipient, Seq, UserId};

use crate::group::{Group, Policy, Role};
use crate::key::{GroupKey, Key, MembersKey, WaitingKey};
use crate::read::{self, get};
use crate::storage::{Fatal, Read};

/// How a group stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupInfo {
    /// Its owner.
    pub owner: UserId,
    /// How many members it has.
    pub members: u32,
    /// How many it may have.
    pub members_max: u32,
    /// Who may do what.
    pub policy: Policy,
    /// What the one who asks is in it; none for a back end.
    pub role: Option<Role>,
    /// The last seq of its log.
    pub head: Seq,
    /// Everything up to here was given to the members, or is on its way to them.
    pub given: Seq,
    /// In how many pages its members can be had.
    pub pages: u32,
}

/// Some of a group's members, by name; the pages are in no order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembersPage {
    /// Who, and what they are in the group.
    pub members: Vec<(UserId, Role)>,
    /// How many pages there are.
    pub pages: u32,
}

/// How a group stands, for one who may know.
pub fn group(
    state: &dyn Read,
    id: &GroupId,
    by: Option<&UserId>,
) -> Result<Result<GroupInfo, ErrorCode>, Fatal> {
    let (group, role) = match known(state, id, by)? {
        Ok(known) => known,
        Err(code) => return Ok(Err(code)),
    };
    let head = read::mailbox(state, &Recipient::Group(id.clone()))?.head;
    let given = group.giving().map_or(head, |seq| seq.back(1));
    let pages = group.buckets();
    let Group { owner, members, members_max, policy, .. } = group;
    Ok(Ok(GroupInfo { owner, members, members_max, policy, role, head, given, pages }))
}

/// One page of a group's members, for one who may know them; empty behind the last one.
pub fn members(
    state: &dyn Read,
    id: &GroupId,
    by: Option<&UserId>,
    page: u32,
) -> Result<Result<MembersPage, ErrorCode>, Fatal> {
    let group = match known(state, id, by)? {
        Ok((group, _)) => group,
        Err(code) => return Ok(Err(code)),
    };
    let bucket = get(state, &MembersKey { group: id.clone(), bucket: page })?.unwrap_or_default();
    let members = bucket.members.into_iter();
    let members = members.filter_map(|member| Some((member.user, member.role?))).collect();
    Ok(Ok(MembersPage { members, pages: group.buckets() }))
}

/// A group that is there, and the role of the one who asks.
fn known(
    state: &dyn Read,
    id: &GroupId,
    by: Option<&UserId>,
) -> Result<Result<(Group, Option<Role>), ErrorCode>, Fatal> {
    let group = get(state, &GroupKey { group: id.clone() })?.filter(|group| !group.deleted);
    let Some(group) = group else { return Ok(Err(ErrorCode::GroupGone)) };
    let Some(user) = by else { return Ok(Ok((group, None))) };
    let key = MembersKey { group: id.clone(), bucket: group.bucket_of(user) };
    let bucket = get(state, &key)?.unwrap_or_default();
    let member = bucket.members.into_iter().find(|member| member.user == *user);
    Ok(match member.and_then(|member| member.role) {
        Some(role) => Ok((group, Some(role))),
        None => Err(ErrorCode::NotMember),
    })
}

/// The first groups that have something left to do, behind this one.
pub fn waiting(
    state: &dyn Read,
    behind: Option<&GroupId>,
    limit: usize,
) -> Result<Vec<GroupId>, Fatal> {
    let (first, to) = WaitingKey::KIND.range();
    let from = match behind {
        Some(group) => crate::key::after(&WaitingKey { group: group.clone() }.encode()),
        None => first.to_vec(),
    };
    let mut found = Vec::new();
    state.scan(&from, &to, &mut |key, _| {
        if found.len() == limit {
            return std::ops::ControlFlow::Break(());
        }
        found.push(WaitingKey::decode(key).map(|key| key.group));
        std::ops::ControlFlow::Continue(())
    })?;
    Ok(found.into_iter().collect::<Result<_, _>>()?)
}
