//! Groups, as devices and back ends know them: roles, policies, changes. Nothing is judged here.

use tidemark_proto::group::{role, who};
use tidemark_proto::{FieldError, v1};
use tidemark_store_core::group::{GroupEvent, Policy, Role, Who};
use tidemark_types::UserId;
use v1::group_change::Change;

/// What an entry of a group says; none of a message, which is no change.
pub(crate) fn change(event: &GroupEvent) -> Option<Change> {
    Some(match event {
        GroupEvent::Message(_) => return None,
        GroupEvent::Created { members } => {
            Change::Created(v1::GroupCreated { members: names(members) })
        }
        GroupEvent::Joined { users } => Change::Joined(v1::GroupJoined { users: names(users) }),
        GroupEvent::Left { users } => Change::Left(v1::GroupLeft { users: names(users) }),
        GroupEvent::RoleSet { user, role } => Change::RoleSet(v1::GroupRoleSet {
            user: user.to_string(),
            role: wire_role(*role).into(),
        }),
        GroupEvent::PolicySet { policy } => Change::PolicySet(wire_policy(*policy)),
        GroupEvent::Deleted => Change::Deleted(v1::GroupDeleted {}),
    })
}

fn names(users: &[UserId]) -> Vec<String> {
    users.iter().map(ToString::to_string).collect()
}

/// A role in a frame.
pub(crate) fn wire_role(role: Role) -> v1::GroupRole {
    match role {
        Role::Member => v1::GroupRole::Member,
        Role::Admin => v1::GroupRole::Admin,
        Role::Owner => v1::GroupRole::Owner,
    }
}

/// A role that a call names.
pub(crate) fn called_role(number: i32) -> Result<Role, FieldError> {
    Ok(match role("role", number)? {
        v1::GroupRole::Admin => Role::Admin,
        v1::GroupRole::Owner => Role::Owner,
        v1::GroupRole::Member | v1::GroupRole::Unspecified => Role::Member,
    })
}

/// A policy in a frame.
pub(crate) fn wire_policy(policy: Policy) -> v1::GroupPolicy {
    let who = |who| match who {
        Who::Everybody => v1::GroupWho::Everybody,
        Who::Admins => v1::GroupWho::Admins,
    };
    let Policy { post, add, open } = policy;
    v1::GroupPolicy { post: who(post).into(), add: who(add).into(), open }
}

/// A policy that a call names.
pub(crate) fn called_policy(policy: &v1::GroupPolicy) -> Result<Policy, FieldError> {
    let who = |field, number| {
        Ok(match who(field, number)? {
            v1::GroupWho::Everybody => Who::Everybody,
            v1::GroupWho::Admins => Who::Admins,
        })
    };
    let (post, add) = (who("policy.post", policy.post)?, who("policy.add", policy.add)?);
    Ok(Policy { post, add, open: policy.open })
}
