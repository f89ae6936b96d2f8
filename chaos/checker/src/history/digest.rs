//! One number over all entries of a mailbox, by which replicas are compared.

use tidemark_types::Seq;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::event::Copy;

/// More than the longest encoding of a seq and a copy: numbers take at most an eighth more than
/// their size.
const ENTRY_BYTES_MAX: usize = 96;

/// A chain of XXH3-64 over the entries of a mailbox, in ascending order of their seqs. An empty
/// mailbox has 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest(u64);

impl Digest {
    /// The digest of these entries; their seqs must ascend.
    pub fn of<'a>(entries: impl IntoIterator<Item = (Seq, &'a Copy)>) -> Digest {
        let mut digest = Digest::default();
        entries.into_iter().for_each(|(seq, copy)| digest.add(seq, copy));
        digest
    }

    /// Takes the next entry.
    pub fn add(&mut self, seq: Seq, copy: &Copy) {
        let mut bytes = [0; ENTRY_BYTES_MAX];
        let bytes = postcard::to_slice(&(seq, copy), &mut bytes).expect("the longest entry fits");
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    /// Its value, for [`Event::Mailbox`](super::Event::Mailbox).
    pub fn value(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use tidemark_types::ErrorCode;

    use super::super::event::{Origin, User};
    use super::*;

    #[test]
    fn the_longest_entries_fit() {
        let user = User(u32::MAX);
        let origin = Origin::Session { session: u64::MAX, n: u64::MAX };
        let message = Copy::Message { sender: user, origin, id: u128::MAX, content: u64::MAX };
        let refusal = Copy::Refusal {
            sender: user,
            origin,
            id: Some(u128::MAX),
            recipient: user,
            code: ErrorCode::NotEmpty,
        };
        let one = Digest::of([(Seq::MAX, &message)]);
        let two = Digest::of([(Seq::MAX, &refusal)]);
        assert_ne!(one, two);
    }

    #[test]
    fn seqs_and_order_count() {
        let copy = |id| Copy::Message { sender: User(1), origin: Origin::Backend, id, content: 7 };
        let seq = Seq::new;
        let digest = Digest::of([(seq(1), &copy(1)), (seq(2), &copy(2))]);
        assert_ne!(digest, Digest::of([(seq(1), &copy(2)), (seq(2), &copy(1))]));
        assert_ne!(digest, Digest::of([(seq(1), &copy(1)), (seq(3), &copy(2))]));
        assert_ne!(digest, Digest::of([(seq(1), &copy(1))]));
        assert_eq!(Digest::default().value(), 0);
    }
}
