//! How fast work goes on that nobody waits for: writing layers out, and merging what was written.
//!
//! All replicas of a group have applied the same, and so have the same to do at about the same time. Done
//! at once it takes a processor of each for up to a second, in which messages wait. So it is done in
//! pieces with rests between them, the longer the more room there is; where there is none it does not rest.

use std::ops::Range;
use std::time::Duration;

/// How many times as long as a piece took is rested while there is all the room.
const RESTS: f64 = 15.0;

/// The longest rest: what a piece took may be what it waited for a processor.
const REST_MAX: Duration = Duration::from_millis(20);

/// Bytes of a piece: less than a millisecond's work.
pub(super) const PIECE_BYTES: usize = 64 << 10;

/// How long to rest after a piece that took `worked`, where `used` of the room is taken: up to its start
/// there is all of it, from its end on there is none.
pub(super) fn rest(worked: Duration, used: usize, room: Range<usize>) -> Duration {
    let left = room.end.saturating_sub(used) as f64 / room.len() as f64;
    worked.mul_f64(RESTS * left.min(1.0)).min(REST_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn less_room_means_shorter_rests() {
        let piece = Duration::from_micros(100);
        let rests = [0, 8, 12, 16, 99].map(|used| rest(piece, used, 8..16).as_micros());
        assert_eq!(rests, [1_500, 1_500, 750, 0, 0]);
        assert_eq!(rest(Duration::from_secs(3), 0, 8..16), REST_MAX);
    }
}
