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
