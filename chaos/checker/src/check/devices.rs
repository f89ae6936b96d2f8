//! C9: what devices take. C10: where the server thinks that they are.

use std::collections::BTreeMap;
use std::fmt;

use tidemark_types::Seq;

use super::book::Book;
use super::findings::{Clue, Findings};
use super::reads::{differs, not_before_sent};
use super::timeline::{By, Timeline};
use crate::history::{Copy, Device, Event, Nanos, User};
use crate::report::Code;

/// A device.
#[derive(Debug, Default)]
struct Seat {
    /// Is its application running?
    runs: bool,
    started: bool,
    /// What it took or skipped last in this life.
    last: Seq,
    /// The highest of all its lives.
    high: Seq,
    /// When it did something last.
    at: Nanos,
    /// Where it was when all was quiet, and when it had come there; none if it did not run.
    quiet: Option<(Seq, Nanos)>,
    /// What the server said of its cursor.
    cursor: Timeline,
}

/// All devices.
#[derive(Debug, Default)]
pub(super) struct Devices {
    seats: BTreeMap<(User, Device), Seat>,
    quiet: Option<Nanos>,
}

/// A device does something.
struct Act<'a> {
    user: User,
    device: Device,
    at: Nanos,
    seat: &'a mut Seat,
    findings: &'a mut Findings,
}

impl Devices {
    pub(super) fn take(&mut self, event: &Event, book: &mut Book, findings: &mut Findings) {
        match event {
            Event::Start { at, user, device, cursor } => {
                self.act(*user, *device, *at, findings).start(*cursor, book);
            }
            Event::Stop { at, user, device } => {
                self.act(*user, *device, *at, findings).seat.runs = false;
            }
            Event::Taken { at, user, device, seq, copy } => {
                self.act(*user, *device, *at, findings).taken(*seq, copy, book);
            }
            Event::Gap { at, user, device, to } => {
                self.act(*user, *device, *at, findings).gap(*to, book);
            }
            Event::CursorIs { asked, at, user, device, seq } => {
                self.act(*user, *device, *at, findings).cursor_is(*asked, *seq, book);
            }
            Event::Quiet { at } => {
                self.quiet = Some(*at);
                for seat in self.seats.values_mut() {
                    seat.quiet = seat.runs.then_some((seat.last, seat.at));
                }
            }
            _ => {}
        }
    }

    fn act<'a>(
        &'a mut self,
        user: User,
        device: Device,
        at: Nanos,
        findings: &'a mut Findings,
    ) -> Act<'a> {
        let seat = self.seats.entry((user, device)).or_default();
        Act { user, device, at, seat, findings }
    }

    /// C9d: whoever ran when all was quiet had everything.
    pub(super) fn finish(self, book: &Book, findings: &mut Findings) {
        for ((user, device), seat) in self.seats {
            let cursor = seat.cursor.last().filter(|cursor| cursor.seq > Seq::NONE);
            if let Some(cursor) = cursor.filter(|_| !seat.started) {
                let reason = format_args!("{user}'s {device} has a cursor, and never started");
                findings.flaw(&[cursor.clue(user)], reason);
            }
            let Some(mailbox) = book.mailboxes.get(&user).filter(|mailbox| mailbox.is_read())
            else {
                continue;
            };
            let Some((last, at)) = seat.quiet.filter(|(last, _)| *last != mailbox.head()) else {
                continue;
            };
            let head = mailbox.head();
            let mut clues = vec![Clue::Device(user, device, at), Clue::Mailbox(user)];
            clues.extend(self.quiet.map(Clue::Run));
            let reason =
                format_args!("{user}'s {device} is at {last} in the end, the head is {head}");
            findings.add(Code::C9d, Some(user), &clues, reason);
        }
    }
}

impl Act<'_> {
    fn clue(&self) -> Clue {
        Clue::Device(self.user, self.device, self.at)
    }

    /// What the device did before contradicts what it does now.
    fn add(&mut self, code: Code, what: fmt::Arguments<'_>) {
        let before = Clue::Device(self.user, self.device, self.seat.at);
        let reason = format_args!("{}'s {} {what}", self.user, self.device);
        self.findings.add(code, Some(self.user), &[before, self.clue()], reason);
    }

    /// It does nothing before it starts, and nothing after it stopped.
    fn must_run(&mut self) {
        if !self.seat.runs {
            let reason = format_args!("{}'s {} acts and does not run", self.user, self.device);
            self.findings.flaw(&[self.clue()], reason);
        }
    }

    /// It is now here.
    fn moved(&mut self, to: Seq) {
        self.seat.last = to;
        self.seat.high = self.seat.high.max(to);
        self.seat.at = self.at;
    }

    /// C9a: a device begins again at or below what it took. Where it began first, it was given.
    fn start(mut self, cursor: Seq, book: &mut Book) {
        let mailbox = book.mailbox(self.user);
        let high = self.seat.high;
        if self.seat.started && cursor > high {
            self.add(
                Code::C9a,
                format_args!("starts after {cursor}, and took no more than {high}"),
            );
        } else if mailbox.is_read() && cursor > mailbox.head() {
            let head = mailbox.head();
            self.add(Code::C9a, format_args!("starts after {cursor}, and the head is {head}"));
        }
        // The server may have known of the device before its application began.
        let early = self.seat.cursor.last().filter(|_| !self.seat.started);
        if let Some(early) = early.filter(|early| early.seq > cursor) {
            let clues = [early.clue(self.user), self.clue()];
            let reason = format_args!(
                "{}'s {} starts after {cursor}, and the server's cursor was {}",
                self.user, self.device, early.seq
            );
            self.findings.add(Code::C10, Some(self.user), &clues, reason);
        }
        (self.seat.started, self.seat.runs) = (true, true);
        self.moved(cursor);
    }

    /// C9a, C9b: it takes the next one. C9c: it is what the log holds.
    fn taken(mut self, seq: Seq, copy: &Copy, book: &mut Book) {
        self.must_run();
        let last = self.seat.last;
        if seq <= last {
            self.add(Code::C9a, format_args!("took {seq} after {last}"));
        } else if last.next() != Some(seq) {
            self.add(Code::C9b, format_args!("took {seq} after {last}, and what is between never"));
        }
        self.moved(seq);

        let (user, clue) = (self.user, self.clue());
        let place = book.see(user, seq, copy);
        if differs(book, place, copy) {
            let clues = [clue, book.clue(user, seq), Clue::Mailbox(user)];
            let reason =
                format_args!("{user}'s {} took at {seq} what is not in the final log", self.device);
            self.findings.add(Code::C9c, Some(user), &clues, reason);
        }
        not_before_sent(book, (user, seq), copy, self.at, clue, self.findings);
    }

    /// C9b: what it is told to skip lies before it, and was removed.
    fn gap(mut self, to: Seq, book: &mut Book) {
        self.must_run();
        let (last, mailbox) = (self.seat.last, book.mailbox(self.user));
        if to <= last {
            self.add(Code::C9b, format_args!("is told to skip up to {to}, and has {last}"));
        } else if mailbox.is_read() && to > mailbox.floor() {
            let floor = mailbox.floor();
            let clues = [self.clue(), Clue::Mailbox(self.user)];
            let reason = format_args!(
                "{}'s {} is told to skip up to {to}, and only {floor} are removed",
                self.user, self.device
            );
            self.findings.add(Code::C9b, Some(self.user), &clues, reason);
        }
        self.moved(to);
    }

    /// C10: not below what was read before it was asked for, and not above the device or the log.
    fn cursor_is(self, asked: Nanos, seq: Seq, book: &mut Book) {
        let (user, device) = (self.user, self.device);
        let Seat { started, cursor, high, at: moved, .. } = self.seat;
        let clue = Clue::Device(user, device, self.at);
        let mut add = |other: Clue, what: fmt::Arguments<'_>| {
            let reason = format_args!("{user}'s {device}: the server's cursor is {seq} {what}");
            self.findings.add(Code::C10, Some(user), &[other, clue], reason);
        };
        if let Some(before) = cursor.before(asked).filter(|before| before.seq > seq) {
            add(before.clue(user), format_args!("and was {}", before.seq));
        }
        let mailbox = book.mailbox(user);
        if *started && seq > *high {
            let device = Clue::Device(user, device, *moved);
            add(device, format_args!("and the device took no more than {high}"));
        } else if mailbox.is_read() && seq > mailbox.head() {
            add(Clue::Mailbox(user), format_args!("and the head is {}", mailbox.head()));
        }
        cursor.note(self.at, seq, By::Device(device));
    }
}
