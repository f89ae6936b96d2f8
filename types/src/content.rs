//! What a sender asked for, in one number, so that a retry with other content is noticed.

use std::fmt;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use crate::ids::Recipient;

/// A hash of a send's original `to`, `kind` and `body`.
///
/// It is compared only with hashes of the same sender's own sends, so a collision could deceive
/// nobody but the one who made it, and a fast hash of 128 bits will do. It is taken from what the
/// client sent, before any filter rewrites the body (R1, R2).
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ContentHash(u128);

impl ContentHash {
    /// The hash of this content.
    pub fn of(to: &[Recipient], kind: u32, body: &[u8]) -> ContentHash {
        let ids: Vec<_> = to.iter().map(Recipient::id).collect();
        let parts = ids.iter().map(|id| (id.kind() as i32, id.name()));
        Self::of_parts(parts, kind, body)
    }

    /// The hash of a content whose recipients, as (kind, name), may be none: a send that is
    /// refused for its recipients still has a hash (R2).
    ///
    /// Every part is framed by its length, so that no two different contents feed the same bytes.
    pub fn of_parts<'a>(
        to: impl ExactSizeIterator<Item = (i32, &'a str)>,
        kind: u32,
        body: &[u8],
    ) -> ContentHash {
        let mut hasher = Xxh3::new();
        hasher.update(&kind.to_le_bytes());
        hasher.update(&length(to.len()));
        for (kind, name) in to {
            match u8::try_from(kind) {
                Ok(byte) if byte != ESCAPE => hasher.update(&[byte]),
                _ => {
                    hasher.update(&[ESCAPE]);
                    hasher.update(&kind.to_le_bytes());
                }
            }
            hasher.update(&length(name.len()));
            hasher.update(name.as_bytes());
        }
        hasher.update(&length(body.len()));
        hasher.update(body);
        ContentHash(hasher.digest128())
    }

    /// The hash of the same content when it is an act: `what` is done, and about which message.
    #[must_use]
    pub fn about(self, what: &[u8]) -> ContentHash {
        let mut hasher = Xxh3::new();
        hasher.update(&self.0.to_le_bytes());
        hasher.update(&length(what.len()));
        hasher.update(what);
        ContentHash(hasher.digest128())
    }

    /// The hash with this value.
    pub const fn new(value: u128) -> Self {
        ContentHash(value)
    }
}

/// Goes before a kind that does not fit into one byte; no legal kind does.
const ESCAPE: u8 = 0xff;

fn length(bytes: usize) -> [u8; 8] {
    (bytes as u64).to_le_bytes()
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{GroupId, UserId};

    fn user(name: &str) -> Recipient {
        Recipient::User(UserId::new(name).expect("a test's own constant"))
    }

    #[test]
    fn every_part_of_the_content_counts() {
        let group = Recipient::Group(GroupId::new("a").expect("legal"));
        let contents = [
            ContentHash::of(&[user("a")], 1, b"x"),
            ContentHash::of(&[user("a")], 2, b"x"),
            ContentHash::of(&[user("a")], 1, b"y"),
            ContentHash::of(&[user("b")], 1, b"x"),
            ContentHash::of(&[group], 1, b"x"),
            ContentHash::of(&[user("a"), user("b")], 1, b"x"),
            ContentHash::of(&[user("b"), user("a")], 1, b"x"),
            ContentHash::of(&[user("ab")], 1, b"x"),
            ContentHash::of(&[], 1, b"x"),
            ContentHash::of_parts([(0, "a")].into_iter(), 1, b"x"),
            ContentHash::of_parts([(255, "a")].into_iter(), 1, b"x"),
            ContentHash::of_parts([(256 + 1, "a")].into_iter(), 1, b"x"),
            ContentHash::of_parts([(-1, "a")].into_iter(), 1, b"x"),
        ];
        for (at, one) in contents.iter().enumerate() {
            assert_eq!(contents.iter().filter(|other| *other == one).count(), 1, "content {at}");
        }
    }

    /// These two would feed the same bytes if kind 255 did not go behind the escape.
    #[test]
    fn a_kind_is_never_taken_for_an_escape() {
        let name = format!("{}\0\u{1}{}", "\0".repeat(4), "\0".repeat(6 + 245));
        let body = [&[0; 245][..], &length(3), b"xyz"].concat();
        let plain = ContentHash::of_parts([(255, name.as_str())].into_iter(), 1, b"xyz");
        let escaped = ContentHash::of_parts([(257, "")].into_iter(), 1, &body);
        assert_ne!(plain, escaped);
    }

    #[test]
    fn a_vector_holds_the_hash_still() {
        let hash = ContentHash::of(&[user("bob")], 1, b"hello");
        assert_eq!(format!("{hash:?}"), VECTOR);
    }

    const VECTOR: &str = "bdb6b4b1a5b3c2cbf35806021e897279";
}
