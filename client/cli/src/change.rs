//! What happened to a group, in words and in JSON.

use std::fmt;

use serde::Serialize;
use tidemark_proto::v1::group_change::Change as Wire;
use tidemark_proto::v1::{GroupPolicy, GroupRole, GroupWho};

use crate::output::plain;

/// A change of a group.
#[derive(Serialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub(crate) enum Change {
    /// It was made.
    Created { members: Vec<String> },
    /// It has more members.
    Joined { users: Vec<String> },
    /// It has fewer members.
    Left { users: Vec<String> },
    /// A member has another role.
    Role { user: String, role: &'static str },
    /// Others may do what they may.
    Policy(Policy),
    /// It is gone.
    Deleted,
}

/// What a group lets its members do, and strangers.
#[derive(Serialize)]
pub(crate) struct Policy {
    post: &'static str,
    add: &'static str,
    open: bool,
}

impl From<&Wire> for Change {
    fn from(change: &Wire) -> Self {
        match change.clone() {
            Wire::Created(created) => Change::Created { members: created.members },
            Wire::Joined(joined) => Change::Joined { users: joined.users },
            Wire::Left(left) => Change::Left { users: left.users },
            Wire::RoleSet(set) => Change::Role { role: role(set.role()), user: set.user },
            Wire::PolicySet(policy) => Change::Policy(Policy::from(&policy)),
            Wire::Deleted(_) => Change::Deleted,
        }
    }
}

impl From<&GroupPolicy> for Policy {
    fn from(policy: &GroupPolicy) -> Self {
        Policy { post: who(policy.post()), add: who(policy.add()), open: policy.open }
    }
}

/// A role in words.
pub(crate) fn role(role: GroupRole) -> &'static str {
    match role {
        GroupRole::Unspecified => "unknown",
        GroupRole::Member => "member",
        GroupRole::Admin => "admin",
        GroupRole::Owner => "owner",
    }
}

fn who(who: GroupWho) -> &'static str {
    match who {
        GroupWho::Everybody => "everybody",
        GroupWho::Admins => "admins",
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |users: &[String]| plain(&users.join(", "));
        match self {
            Change::Created { members } if members.is_empty() => f.write_str("(created)"),
            Change::Created { members } => write!(f, "(created with {})", names(members)),
            Change::Joined { users } => write!(f, "(joined: {})", names(users)),
            Change::Left { users } => write!(f, "(left: {})", names(users)),
            Change::Role { user, role } => write!(f, "({} is {role} now)", plain(user)),
            Change::Policy(policy) => write!(f, "({policy})"),
            Change::Deleted => f.write_str("(deleted)"),
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joins = if self.open { "anybody joins" } else { "nobody joins unasked" };
        write!(f, "{} may post, {} may add, {joins}", self.post, self.add)
    }
}

#[cfg(test)]
mod tests {
    use tidemark_proto::v1::{
        GroupCreated, GroupDeleted, GroupJoined, GroupLeft, GroupPolicy, GroupRoleSet,
    };

    use super::*;

    #[test]
    fn a_change_is_a_line_and_an_object() {
        let users = || vec!["bob".to_owned(), "carol".to_owned()];
        let (user, role) = ("bob\u{1b}".to_owned(), GroupRole::Owner.into());
        let policy = GroupPolicy { open: true, post: GroupWho::Admins.into(), add: 0 };
        for (change, line, object) in [
            (
                Wire::Created(GroupCreated { members: users() }),
                "(created with bob, carol)",
                r#"{"change":"created","members":["bob","carol"]}"#,
            ),
            (
                Wire::Created(GroupCreated { members: Vec::new() }),
                "(created)",
                r#"{"change":"created","members":[]}"#,
            ),
            (
                Wire::Joined(GroupJoined { users: users() }),
                "(joined: bob, carol)",
                r#"{"change":"joined","users":["bob","carol"]}"#,
            ),
            (
                Wire::Left(GroupLeft { users: users() }),
                "(left: bob, carol)",
                r#"{"change":"left","users":["bob","carol"]}"#,
            ),
            (
                Wire::RoleSet(GroupRoleSet { user, role }),
                "(bob\\u{1b} is owner now)",
                r#"{"change":"role","user":"bob\u001b","role":"owner"}"#,
            ),
            (
                Wire::PolicySet(policy),
                "(admins may post, everybody may add, anybody joins)",
                r#"{"change":"policy","post":"admins","add":"everybody","open":true}"#,
            ),
            (Wire::Deleted(GroupDeleted {}), "(deleted)", r#"{"change":"deleted"}"#),
        ] {
            let change = Change::from(&change);
            assert_eq!(change.to_string(), line);
            assert_eq!(serde_json::to_string(&change).expect("an object"), object);
        }
    }
}
