//! Runs of entries, checked by whoever receives them: what a device applies must be contiguous,
//! whoever sent it, since a hole that it passes over is a loss that nobody would notice (G6).

use tidemark_types::{Seq, SeqRange};

use crate::convert::{FieldError, Reason, required};
use crate::v1;

/// The last seq of these entries, which must be `prev + 1`, `prev + 2` and so on; `prev` when there
/// are none.
pub fn last_of(prev: Seq, entries: &[v1::Entry]) -> Result<Seq, FieldError> {
    let mut last = prev;
    for (at, entry) in entries.iter().enumerate() {
        let seq = Seq::new(entry.seq);
        if last.next() != Some(seq) {
            let reason = Reason::Contradicts("the seq before it");
            return Err(FieldError::new(format!("entries[{at}].seq"), reason));
        }
        last = seq;
    }
    Ok(last)
}

/// A page whose parts agree.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// The seq before its first entry.
    pub prev: Seq,
    /// The seq of its last entry, or `prev`.
    pub last: Seq,
    /// What retention removed before a device that asked for it had it; ends at `prev`.
    pub gap: Option<SeqRange>,
    /// The page.
    pub page: v1::Page,
}

impl TryFrom<v1::Page> for Page {
    type Error = FieldError;
    fn try_from(page: v1::Page) -> Result<Self, FieldError> {
        checked_page(page).map_err(|error| error.within("page"))
    }
}

fn checked_page(page: v1::Page) -> Result<Page, FieldError> {
    let prev = Seq::new(page.prev_seq);
    let last = last_of(prev, &page.entries)?;
    let contradicts = |field, other| FieldError::new(field, Reason::Contradicts(other));
    let gap = page.gap.as_ref().map(|gap| {
        let range = SeqRange::missing(Seq::new(gap.from.wrapping_sub(1)), Seq::new(gap.to));
        range.filter(|range| range.last() == prev).ok_or_else(|| contradicts("gap", "prev_seq"))
    });
    if last > Seq::new(page.head) {
        return Err(contradicts("head", "the entries above it"));
    }
    if prev < Seq::new(page.floor) {
        return Err(contradicts("floor", "prev_seq: entries at or below it are removed"));
    }
    Ok(Page { prev, last, gap: gap.transpose()?, page })
}

impl TryFrom<v1::SyncPage> for Page {
    type Error = FieldError;
    fn try_from(sync: v1::SyncPage) -> Result<Self, FieldError> {
        let page = required("page", sync.page);
        page.and_then(Page::try_from).map_err(|error| error.within("sync_page"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(seqs: &[u32]) -> Vec<v1::Entry> {
        seqs.iter().map(|seq| v1::Entry { seq: *seq, ..Default::default() }).collect()
    }

    fn page(prev_seq: u32, seqs: &[u32]) -> v1::Page {
        v1::Page { epoch: 1, head: 9, prev_seq, entries: entries(seqs), ..Default::default() }
    }

    fn refused(page: v1::Page) -> String {
        Page::try_from(page).expect_err("its parts disagree").field().to_owned()
    }

    #[test]
    fn a_run_has_no_hole() {
        let last = |prev, seqs| last_of(Seq::new(prev), &entries(seqs)).map(Seq::get);
        assert_eq!(last(4, &[]), Ok(4));
        assert_eq!(last(4, &[5, 6, 7]), Ok(7));
        assert_eq!(last(u32::MAX - 1, &[u32::MAX]), Ok(u32::MAX));
        for hole in [&[5, 7][..], &[6], &[5, 5], &[4], &[5, 4]] {
            assert!(last(4, hole).is_err(), "{hole:?}");
        }
        // The space has ended: nothing comes after its last seq, not even 0.
        assert!(last(u32::MAX, &[0]).is_err());
        let error = last(4, &[5, 7]).expect_err("a hole");
        assert_eq!(error.field(), "entries[1].seq");
    }

    #[test]
    fn a_gap_ends_where_the_entries_begin() {
        let with = |from, to, floor| v1::Page {
            floor,
            gap: Some(v1::Gap { from, to }),
            ..page(5, &[6, 7])
        };
        let good = Page::try_from(with(3, 5, 5)).expect("its parts agree");
        assert_eq!(good.gap.expect("a gap").to_string(), "3..=5");
        assert_eq!((good.prev.get(), good.last.get()), (5, 7));
        assert_eq!(refused(with(3, 4, 4)), "page.gap");
        assert_eq!(refused(with(6, 5, 5)), "page.gap");
        assert_eq!(refused(with(0, 5, 5)), "page.gap");
    }

    #[test]
    fn entries_lie_between_floor_and_head() {
        assert!(Page::try_from(page(5, &[6, 7, 8, 9])).is_ok());
        assert_eq!(refused(page(9, &[10])), "page.head");
        assert_eq!(refused(v1::Page { floor: 6, ..page(5, &[6]) }), "page.floor");
        let sync = v1::SyncPage { request_id: 1, page: None };
        assert_eq!(
            Page::try_from(sync).expect_err("empty").to_string(),
            "sync_page.page: is missing"
        );
    }
}
