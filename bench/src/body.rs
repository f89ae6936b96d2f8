//! What a message of the load says: who sent it, which one it is, when it was due; then bytes that
//! do not compress, known to both ends, so that a recipient can check every one of them.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;
use tidemark_env::{Rng, SeededRng};

/// The shortest body: what every message says.
pub(crate) const BYTES_MIN: usize = 28;

/// Bytes from which fillers are cut: more than a compressor looks back, so that no two messages
/// that lie side by side on a disk have bytes in common.
const POOL_BYTES: usize = 1 << 20;

/// What a message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Which sender, counted from 0.
    pub(crate) sender: u32,
    /// Which message of its session, from 1.
    pub(crate) n: u64,
    /// Which message to this recipient, from 1 without a hole.
    pub(crate) k: u64,
    /// When it was due, by the load's clock.
    pub(crate) due: Duration,
}

/// A body that is none of ours, or was changed on its way.
#[derive(Debug, Error)]
#[error("a body of {bytes} bytes is not what was sent")]
pub(crate) struct Spoilt {
    bytes: usize,
}

/// Writes and checks bodies.
pub(crate) struct Bodies {
    pool: Bytes,
    bytes: usize,
}

impl Bodies {
    /// Bodies of so many bytes, at least [`BYTES_MIN`].
    pub(crate) fn new(bytes: usize) -> Self {
        let mut pool = vec![0; POOL_BYTES + bytes];
        SeededRng::new(0).fill(&mut pool);
        Bodies { pool: pool.into(), bytes: bytes.max(BYTES_MIN) }
    }

    /// How many bytes each has.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The body that says this.
    pub(crate) fn write(&self, stamp: &Stamp) -> Bytes {
        let mut body = BytesMut::with_capacity(self.bytes);
        body.put_u32(stamp.sender);
        body.put_u64(stamp.n);
        body.put_u64(stamp.k);
        body.put_u64(u64::try_from(stamp.due.as_nanos()).unwrap_or(u64::MAX));
        body.put_slice(self.filler(stamp));
        body.freeze()
    }

    /// What a body says, if every byte of it is as it was written.
    pub(crate) fn read(&self, body: &[u8]) -> Result<Stamp, Spoilt> {
        let spoilt = || Spoilt { bytes: body.len() };
        let (stamp, filler) = body.split_at_checked(BYTES_MIN).ok_or_else(spoilt)?;
        let (sender, numbers) = stamp.split_at(4);
        let number = |at: usize| {
            u64::from_be_bytes(numbers[8 * at..8 * at + 8].try_into().expect("8 bytes"))
        };
        let sender = u32::from_be_bytes(sender.try_into().expect("4 bytes"));
        let due = Duration::from_nanos(number(2));
        let stamp = Stamp { sender, n: number(0), k: number(1), due };
        if filler == self.filler(&stamp) { Ok(stamp) } else { Err(spoilt()) }
    }

    fn filler(&self, stamp: &Stamp) -> &[u8] {
        // Odd multipliers spread neighbours over the pool.
        let place = u64::from(stamp.sender)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .wrapping_add(stamp.n.wrapping_mul(0xd1b5_4a32_d192_ed03));
        let from = usize::try_from(place >> 44).expect("20 bits");
        &self.pool[from..from + self.bytes - BYTES_MIN]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp =
        Stamp { sender: 63, n: 1_000_000, k: 7, due: Duration::from_micros(12_345) };

    #[test]
    fn what_is_written_is_read() {
        for bytes in [0, BYTES_MIN, 256, 4_096] {
            let bodies = Bodies::new(bytes);
            let body = bodies.write(&STAMP);
            assert_eq!(body.len(), bytes.max(BYTES_MIN));
            assert_eq!(bodies.read(&body).expect("unchanged"), STAMP);
        }
    }

    #[test]
    fn a_change_anywhere_after_the_stamp_is_seen() {
        let bodies = Bodies::new(256);
        let body = bodies.write(&STAMP);
        for at in BYTES_MIN..256 {
            let mut body = body.to_vec();
            body[at] ^= 1;
            assert!(bodies.read(&body).is_err(), "byte {at}");
        }
        assert!(bodies.read(&body[..255]).is_err());
        assert!(bodies.read(b"hello").is_err());
    }

    #[test]
    fn messages_side_by_side_have_other_bytes() {
        let bodies = Bodies::new(256);
        let next = Stamp { n: STAMP.n + 1, ..STAMP };
        assert_ne!(bodies.filler(&STAMP), bodies.filler(&next));
    }
}
