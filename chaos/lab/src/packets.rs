//! A network that is weak: packets are lost, late, and overtake each other.
//!
//! ```text
//!   from others ──► host: a rule hands each packet over ──► this thread ──► drop it, or let it
//!                                                                           in when it is due
//! ```
//!
//! The kernel asks a thread inside the host's network about every packet (NFQUEUE), as there is no
//! netem everywhere. Nothing is changed in a packet. The kernel bounds how many wait.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nfq::{Message, Queue, Verdict};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tidemark_env::{Rng, SeededRng};

use crate::lan::{HERE, Host, rule};

/// Its number within each host.
const QUEUE: u16 = 1;

/// Packets that wait at once at a host: more than a second of all that goes there.
const WAIT_MAX: u32 = 32_768;

/// Between two looks at the clock: delays are as exact as this.
const TICK: Duration = Duration::from_millis(1);

/// How weak.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weather {
    /// The share of packets that are lost.
    pub loss: f64,
    /// How late the others are at least.
    pub delay: Duration,
    /// And how much more, at most, by chance: packets overtake each other.
    pub jitter: Duration,
}

/// What became of packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// They never arrived.
    pub lost: u64,
    /// They arrived late.
    pub late: u64,
    /// They arrived before one that was sent earlier.
    pub overtook: u64,
}

#[derive(Default)]
struct Counts {
    lost: AtomicU64,
    late: AtomicU64,
    overtook: AtomicU64,
}

/// A host with weak links, until it is dropped.
pub struct WeakHost {
    host: Host,
    rules: Vec<[String; 4]>,
    stop: Arc<AtomicBool>,
    counts: Arc<Counts>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl WeakHost {
    /// What `host` hears from these others, and what it says to this process if it is among them,
    /// has this weather from now on.
    pub fn start(host: Host, others: &[Host], weather: Weather, seed: u64) -> Result<Self> {
        let (stop, counts) = (Arc::<AtomicBool>::default(), Arc::<Counts>::default());
        let (ready, started) = std::sync::mpsc::sync_channel(1);
        let (stopped, counted) = (stop.clone(), counts.clone());
        let thread = std::thread::Builder::new().name(format!("weather-{}", host.0));
        let thread = thread.spawn(move || {
            let queue = match open(host) {
                Ok(queue) => queue,
                Err(error) => return ready.send(Err(error)).context("nobody waits"),
            };
            ready.send(Ok(())).context("nobody waits")?;
            Keeper::new(queue, weather, seed, counted).keep(&stopped)
        })?;
        started.recv()??;
        let mut weak = WeakHost { host, rules: Vec::new(), stop, counts, thread: Some(thread) };
        for other in others {
            weak.ask("INPUT", "-s", *other)?;
            if *other == HERE {
                weak.ask("OUTPUT", "-d", *other)?;
            }
        }
        Ok(weak)
    }

    /// The sky clears; what became of packets until now.
    pub fn end(mut self) -> Result<Tally> {
        self.clear()?;
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Counts { lost, late, overtook } = &*self.counts;
        Ok(Tally { lost: get(lost), late: get(late), overtook: get(overtook) })
    }

    fn ask(&mut self, chain: &str, which: &str, other: Host) -> Result<()> {
        let address = other.address().to_string();
        let matched = [chain, which, &address, "NFQUEUE"].map(str::to_owned);
        self.change("-A", &matched)?;
        self.rules.push(matched);
        Ok(())
    }

    fn change(&self, how: &str, [chain, which, address, target]: &[String; 4]) -> Result<()> {
        let number = QUEUE.to_string();
        let rest = ["-j", target, "--queue-num", &number];
        rule(self.host, &[&[how, chain, which, address][..], &rest].concat()).map(drop)
    }

    fn clear(&mut self) -> Result<()> {
        // Rules first: what waits is let in, and nothing comes after it.
        let removed: Result<Vec<()>> =
            std::mem::take(&mut self.rules).iter().map(|rule| self.change("-D", rule)).collect();
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(|thread| thread.join().expect("it does not panic"));
        removed.and(ended.unwrap_or(Ok(())))
    }
}

impl Drop for WeakHost {
    fn drop(&mut self) {
        if self.thread.is_some()
            && let Err(error) = self.clear()
        {
            eprintln!("{:?} stays weak: {error:#}", self.host);
        }
    }
}

/// Opens the queue of a host; this thread is in its network from now on.
fn open(host: Host) -> Result<Queue> {
    let network = File::open(format!("/run/netns/{}", host.namespace()))?;
    move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?;
    let mut queue = Queue::open().context("the kernel does not ask about packets")?;
    queue.bind(QUEUE)?;
    // Nobody reads a packet: its number is enough.
    queue.set_copy_range(QUEUE, 0)?;
    queue.set_queue_max_len(QUEUE, WAIT_MAX)?;
    queue.set_nonblocking(true);
    Ok(queue)
}

/// A packet that is not due yet: when it is, its place in the order of arrival.
struct Waiting {
    due: Instant,
    place: u64,
    message: Message,
}

impl Waiting {
    fn key(&self) -> Reverse<(Instant, u64)> {
        Reverse((self.due, self.place))
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

/// Decides about the packets of one host.
struct Keeper {
    queue: Queue,
    weather: Weather,
    rng: SeededRng,
    counts: Arc<Counts>,
    waiting: BinaryHeap<Waiting>,
    /// Packets that were taken, and the place of the last one that was let in.
    taken: u64,
    last_in: u64,
}

impl Keeper {
    fn new(queue: Queue, weather: Weather, seed: u64, counts: Arc<Counts>) -> Self {
        let (rng, waiting) = (SeededRng::new(seed), BinaryHeap::new());
        Keeper { queue, weather, rng, counts, waiting, taken: 0, last_in: 0 }
    }

    fn keep(mut self, stop: &AtomicBool) -> Result<()> {
        while !stop.load(Ordering::Relaxed) {
            self.take()?;
            self.let_in(Some(Instant::now()))?;
            std::thread::sleep(TICK);
        }
        self.take()?;
        self.let_in(None)
    }

    /// Takes what has come.
    fn take(&mut self) -> Result<()> {
        loop {
            let mut message = match self.queue.recv() {
                Ok(message) => message,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("packets"),
            };
            if self.rng.unit() < self.weather.loss {
                message.set_verdict(Verdict::Drop);
                self.queue.verdict(message)?;
                self.counts.lost.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let late = self.weather.delay + self.weather.jitter.mul_f64(self.rng.unit());
            self.taken += 1;
            self.waiting.push(Waiting { due: Instant::now() + late, place: self.taken, message });
        }
    }

    /// Lets in what is due by now, or everything.
    fn let_in(&mut self, now: Option<Instant>) -> Result<()> {
        while self.waiting.peek().is_some_and(|first| now.is_none_or(|now| first.due <= now)) {
            let Waiting { place, mut message, .. } = self.waiting.pop().expect("there is one");
            message.set_verdict(Verdict::Accept);
            self.queue.verdict(message)?;
            self.counts.late.fetch_add(1, Ordering::Relaxed);
            if place < self.last_in {
                self.counts.overtook.fetch_add(1, Ordering::Relaxed);
            }
            self.last_in = self.last_in.max(place);
        }
        Ok(())
    }
}
