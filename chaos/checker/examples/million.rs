//! How long the checker takes for a million sends, and how much memory.
//!
//! The sends go to two recipients each, are acknowledged, and are taken by a device of every
//! mailbox; heads and pages are read now and then. The history is written to three files before
//! the time is taken, and holds.

use std::collections::BTreeMap;
use std::fs;
use std::time::Instant;

use tidemark_checker::history::{
    Copy, Device, Digest, Event, Group, Nanos, Node, Op, Origin, Outcome, User, Way, WriteError,
    Writer,
};
use tidemark_checker::{Demands, Files, check};
use tidemark_types::Seq;

const SENDS: u64 = 1_000_000;
const USERS: u32 = 1_000;
const REPLICAS: u64 = 3;

/// A mailbox, as far as its history needs it.
#[derive(Clone, Copy, Default)]
struct Mailbox {
    head: u32,
    digest: Digest,
    sent: u64,
}

/// The files of a run.
struct Run {
    clients: Writer,
    devices: Writer,
    truth: Writer,
    mailboxes: BTreeMap<User, Mailbox>,
    now: u64,
    op: u64,
    events: u64,
}

impl Run {
    fn tick(&mut self) -> Nanos {
        self.now += 10;
        self.events += 1;
        Nanos(self.now)
    }

    fn next_op(&mut self) -> Op {
        self.op += 1;
        Op(self.op)
    }

    /// One more entry, which the mailbox's device takes at once.
    fn append(&mut self, user: User, copy: Copy) -> Result<Seq, WriteError> {
        let mailbox = self.mailboxes.entry(user).or_default();
        mailbox.head += 1;
        let seq = Seq::new(mailbox.head);
        mailbox.digest.add(seq, &copy);
        let at = self.tick();
        self.devices.write(&Event::Taken { at, user, device: Device(0), seq, copy })?;
        self.truth.write(&Event::Entry { user, seq, copy })?;
        self.events += 1;
        Ok(seq)
    }

    fn send(&mut self, number: u64) -> Result<(), WriteError> {
        let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let user = |bits: u32| User((spread >> bits) as u32 % USERS);
        let (sender, one) = (user(8), user(24));
        let other = if user(40) == one { User((one.0 + 1) % USERS) } else { user(40) };
        let (op, at) = (self.next_op(), self.tick());
        let (id, content) = (u128::from(number) << 64 | u128::from(spread), spread);
        let (device, way, to) = (Device(0), Way::Session, vec![one, other]);
        self.clients.write(&Event::Send { op, at, sender, device, way, id, to, content })?;

        let mailbox = self.mailboxes.entry(sender).or_default();
        mailbox.sent += 1;
        let origin = Origin::Session { session: 1, n: mailbox.sent };
        let copy = Copy::Message { sender, origin, id, content };
        let seq = self.append(sender, copy)?;
        for user in [one, other].into_iter().filter(|user| *user != sender) {
            self.append(user, copy)?;
        }
        let at = self.tick();
        self.clients.write(&Event::Sent {
            op,
            at,
            outcome: Outcome::Accepted { seq, origin: Some(origin) },
        })?;
        if number.is_multiple_of(10) { self.read(sender, seq, copy) } else { Ok(()) }
    }

    fn read(&mut self, user: User, seq: Seq, copy: Copy) -> Result<(), WriteError> {
        let (op, at) = (self.next_op(), self.tick());
        self.clients.write(&Event::Head { op, at, user })?;
        let (at, head) = (self.tick(), Seq::new(self.mailboxes[&user].head));
        self.clients.write(&Event::HeadIs { op, at, seq: head })?;
        let (op, at) = (self.next_op(), self.tick());
        self.clients.write(&Event::Range { op, at, user, after: seq.back(1) })?;
        let (at, floor, entries) = (self.tick(), Seq::NONE, vec![(seq, copy)]);
        self.clients.write(&Event::RangeIs { op, at, floor, entries })
    }

    fn end(&mut self) -> Result<(), WriteError> {
        for group in [Group(0), Group(1)] {
            let at = self.tick();
            self.clients.write(&Event::Probe { at, group })?;
            let at = self.tick();
            self.clients.write(&Event::ProbeAck { at, group })?;
        }
        let at = self.tick();
        self.clients.write(&Event::Quiet { at })?;
        for (user, Mailbox { head, digest, .. }) in self.mailboxes.clone() {
            for node in (1..=REPLICAS).map(Node) {
                let (floor, head) = (Seq::NONE, Seq::new(head));
                let digest = digest.value();
                self.truth.write(&Event::Mailbox { node, user, floor, head, digest })?;
            }
        }
        self.clients.flush()?;
        self.devices.flush()?;
        self.truth.flush()
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let paths = ["clients", "devices", "truth"].map(|name| folder.path().join(name));
    let mut run = Run {
        clients: Writer::create(&paths[0])?,
        devices: Writer::create(&paths[1])?,
        truth: Writer::create(&paths[2])?,
        mailboxes: BTreeMap::new(),
        now: 0,
        op: 0,
        events: 0,
    };
    let begin = Instant::now();
    for user in (0..USERS).map(User) {
        let at = run.tick();
        run.devices.write(&Event::Start { at, user, device: Device(0), cursor: Seq::NONE })?;
    }
    for number in 0..SENDS {
        run.send(number)?;
    }
    run.end()?;
    let bytes =
        paths.iter().map(|path| Ok(fs::metadata(path)?.len())).sum::<std::io::Result<u64>>()?;
    println!("written: {} events, {} MB, {:.1?}", run.events, bytes >> 20, begin.elapsed());
    println!("memory before: {}", peak_memory()?);

    let files = paths.into_iter().fold(Files::default(), Files::whole);
    let begin = Instant::now();
    let report = check(&files, &Demands::default())?;
    println!("checked: {:.2?}, peak memory {}", begin.elapsed(), peak_memory()?);
    println!("{report}");
    Ok(())
}

/// The most memory that this process had, as Linux says.
fn peak_memory() -> std::io::Result<String> {
    let status = fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    Ok(peak.unwrap_or("unknown").trim().to_owned())
}
