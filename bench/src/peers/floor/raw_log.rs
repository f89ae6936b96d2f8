//! Bodies in three files: whatever has come is written and synced together (group commit), and is done
//! when two files have it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

use anyhow::{Context, Result};
use tokio::time::Instant;

use super::{Shape, Tally};

const FILES: usize = 3;

/// Files that have a message before it is done.
const MAJORITY: usize = 2;

/// A file says how many messages it has.
type Synced = Result<(usize, u64)>;

/// Writes until the time is over.
pub(super) fn write(folder: &Path, shape: &Shape, mut tally: Tally) -> Result<Tally> {
    let in_flight = shape.all_in_flight();
    let (synced_tx, synced) = channel();
    let mut queues = Vec::new();
    for number in 0..FILES {
        let path = folder.join(format!("raw-log-{number}"));
        let file = File::create(&path).with_context(|| path.display().to_string())?;
        // The slowest file holds up all when it lags so far.
        let (queue, queued) = sync_channel(4 * in_flight);
        let (body, synced) = (vec![0xa5; shape.body], synced_tx.clone());
        thread::spawn(move || serve(number, file, &body, &queued, &synced));
        queues.push(queue);
    }
    drop(synced_tx);
    drive(&queues, &synced, in_flight, &mut tally)?;
    Ok(tally)
}

fn drive(
    queues: &[SyncSender<()>],
    synced: &Receiver<Synced>,
    in_flight: usize,
    tally: &mut Tally,
) -> Result<()> {
    let mut upto = [0; FILES];
    let mut done = 0;
    let mut due = VecDeque::with_capacity(in_flight);
    while !tally.is_over() {
        let now = Instant::now();
        while due.len() < in_flight {
            due.push_back(now);
            queues.iter().try_for_each(|queue| queue.send(())).context("a file's thread ended")?;
        }
        let (number, has) = synced.recv().context("all files' threads ended")??;
        upto[number] = has;
        let mut sorted = upto;
        sorted.sort_unstable();
        while done < sorted[FILES - MAJORITY] {
            tally.done(due.pop_front().context("no more is done than was due")?);
            done += 1;
        }
    }
    Ok(())
}

/// One file's thread, until nothing comes any more.
fn serve(
    number: usize,
    mut file: File,
    body: &[u8],
    queued: &Receiver<()>,
    synced: &Sender<Synced>,
) {
    let mut has = 0;
    let mut together = Vec::new();
    while queued.recv().is_ok() {
        together.clear();
        together.extend_from_slice(body);
        has += 1;
        for () in queued.try_iter() {
            together.extend_from_slice(body);
            has += 1;
        }
        let written = file.write_all(&together).and_then(|()| file.sync_data());
        let said = written.map(|()| (number, has)).context("a file of the raw log");
        // Whoever has gone has had enough.
        if synced.send(said).is_err() {
            return;
        }
    }
}
