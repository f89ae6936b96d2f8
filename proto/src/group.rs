//! Calls about groups, checked: names, users, roles.

use tidemark_types::UserId;
use tidemark_types::limits::GROUP_CHANGE_USERS_MAX;

use crate::convert::{FieldError, Reason, name};
use crate::v1;

/// The user who asks; none where the field is empty, which a back end alone may leave so.
pub fn by(by: &str) -> Result<Option<UserId>, FieldError> {
    match by.is_empty() {
        true => Ok(None),
        false => name("by", by).map(Some),
    }
}

/// The users of a change.
pub fn users(field: &str, names: &[String]) -> Result<Vec<UserId>, FieldError> {
    let count = names.len();
    if count > GROUP_CHANGE_USERS_MAX {
        let value = u64::try_from(count).unwrap_or(u64::MAX);
        let reason = Reason::OutOfRange { value, wanted: "up to 256 users" };
        return Err(FieldError::new(field, reason));
    }
    let users = names.iter().enumerate().map(|(at, user)| name(&format!("{field}[{at}]"), user));
    users.collect()
}

/// The users of a change that names one at least.
pub fn some_users(field: &str, names: &[String]) -> Result<Vec<UserId>, FieldError> {
    match names.is_empty() {
        true => Err(FieldError::new(field, Reason::Missing)),
        false => users(field, names),
    }
}

/// The number of a role in a frame, if it is one.
pub fn role(field: &str, role: i32) -> Result<v1::GroupRole, FieldError> {
    match v1::GroupRole::try_from(role) {
        Ok(v1::GroupRole::Unspecified) => Err(FieldError::new(field, Reason::Missing)),
        Ok(role) => Ok(role),
        Err(_) => Err(out_of_range(field, role, "a role of a group")),
    }
}

/// The number of a part of a group's members in a frame, if it is one.
pub fn who(field: &str, who: i32) -> Result<v1::GroupWho, FieldError> {
    v1::GroupWho::try_from(who).map_err(|_| out_of_range(field, who, "a part of the members"))
}

fn out_of_range(field: &str, number: i32, wanted: &'static str) -> FieldError {
    // A negative number is as unknown as any other; its bits serve to name it.
    let value = number.cast_unsigned().into();
    FieldError::new(field, Reason::OutOfRange { value, wanted })
}

// The text above names it.
const _: () = assert!(GROUP_CHANGE_USERS_MAX == 256);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_call_is_named() {
        let names = |count| vec!["a".to_owned(); count];
        assert_eq!(by("").expect("nobody"), None);
        assert_eq!(users("members", &names(0)).expect("none"), []);
        assert!(some_users("users", &names(256)).is_ok());
        let error = |result: Result<Vec<UserId>, FieldError>| result.expect_err("bad").to_string();
        assert_eq!(error(some_users("users", &names(0))), "users: is missing");
        let many = error(some_users("users", &names(257)));
        assert_eq!(many, "users: is 257, and must be up to 256 users");
        let empty = error(users("members", &["a".to_owned(), String::new()]));
        assert!(empty.starts_with("members[1]: a user id is empty"), "{empty}");
        assert_eq!(role("role", 2), Ok(v1::GroupRole::Admin));
        assert_eq!(role("role", 0).expect_err("none").to_string(), "role: is missing");
        assert!(role("role", 9).is_err());
        assert!(who("policy.post", -1).is_err());
    }
}
