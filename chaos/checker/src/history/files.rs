//! All events of a history in order of time, whatever files they are in.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::path::PathBuf;

use super::event::{Event, Nanos};
use super::file::{ReadError, Reader};

/// Events that can be read again and again, each time in order of time, ground truth last.
///
/// Events that one writer wrote keep their order.
pub trait History {
    /// All events. After an error there are no more.
    fn events(&self) -> Result<impl Iterator<Item = Result<Event, ReadError>>, ReadError>;
}

/// The files of a history, one for each writer.
#[derive(Clone, Debug, Default)]
pub struct Files {
    paths: Vec<(PathBuf, Tail)>,
}

/// What the end of a file may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tail {
    Whole,
    MaybeTorn,
}

impl Files {
    /// Adds the file of a writer that ended by itself: it must be whole.
    pub fn whole(mut self, path: impl Into<PathBuf>) -> Self {
        self.paths.push((path.into(), Tail::Whole));
        self
    }

    /// Adds the file of a writer that was killed: an incomplete last frame ends it.
    pub fn of_killed(mut self, path: impl Into<PathBuf>) -> Self {
        self.paths.push((path.into(), Tail::MaybeTorn));
        self
    }
}

impl History for Files {
    fn events(&self) -> Result<impl Iterator<Item = Result<Event, ReadError>>, ReadError> {
        let mut sources = Vec::with_capacity(self.paths.len());
        for (path, tail) in &self.paths {
            let accepts = *tail == Tail::MaybeTorn;
            let reader = match Reader::open(path) {
                Err(ReadError::Torn { .. }) if accepts => continue,
                reader => reader?,
            };
            let torn = move |event: &Result<Event, ReadError>| {
                accepts && matches!(event, Err(ReadError::Torn { .. }))
            };
            sources.push(reader.take_while(move |event| !torn(event)));
        }
        Ok(Merged::new(sources))
    }
}

impl History for Vec<Event> {
    fn events(&self) -> Result<impl Iterator<Item = Result<Event, ReadError>>, ReadError> {
        let mut events: Vec<&Event> = self.iter().collect();
        events.sort_by_key(|event| event.rank());
        Ok(events.into_iter().cloned().map(Ok))
    }
}

/// Several sources, each in order of time, as one. Holds one event of each.
#[derive(Debug)]
pub struct Merged<I> {
    sources: Vec<Source<I>>,
    /// The rank of each source's next event, lowest first; of equals the first source's.
    order: BinaryHeap<Reverse<(Nanos, usize)>>,
}

#[derive(Debug)]
struct Source<I> {
    events: I,
    next: Option<Result<Event, ReadError>>,
    rank: Nanos,
}

impl<I: Iterator<Item = Result<Event, ReadError>>> Merged<I> {
    /// Merges these.
    pub fn new(sources: impl IntoIterator<Item = I>) -> Self {
        let source = |events| Source { events, next: None, rank: Nanos::default() };
        let sources: Vec<_> = sources.into_iter().map(source).collect();
        let mut merged = Merged { order: BinaryHeap::with_capacity(sources.len()), sources };
        (0..merged.sources.len()).for_each(|at| merged.advance(at));
        merged
    }

    /// Reads a source's next event. It never stands before the one that its writer wrote before
    /// it; an error stands where the source had come to.
    fn advance(&mut self, at: usize) {
        let source = &mut self.sources[at];
        source.next = source.events.next();
        if let Some(Ok(event)) = &source.next {
            source.rank = source.rank.max(event.rank());
        }
        if source.next.is_some() {
            self.order.push(Reverse((source.rank, at)));
        }
    }
}

impl<I: Iterator<Item = Result<Event, ReadError>>> Iterator for Merged<I> {
    type Item = Result<Event, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let Reverse((_, at)) = self.order.pop()?;
        let event = self.sources[at].next.take();
        match &event {
            Some(Err(_)) => self.order.clear(),
            Some(Ok(_)) | None => self.advance(at),
        }
        event
    }
}
