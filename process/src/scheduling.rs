//! How the kernel shares processors between a server's threads and everybody else's.

use std::io;
use std::time::Duration;

/// How long a thread may work when others wait for its processor, where the system lets a thread say so (Linux
/// 6.12 and later): a turn begins with cold caches, and its end falls into the middle of something.
const TURN: Duration = Duration::from_millis(20);

/// Has the kernel take the calling thread, and those that it starts from now on, for one that works in
/// batches (`SCHED_BATCH`, sched(7)): when it is woken it waits for its turn instead of interrupting whoever
/// runs, and turns are long. A server under load is woken for each packet and each fsync, and so is its neighbour;
/// what came meanwhile is done together then (`docs/adr/0021-servers-do-not-interrupt.md`). Needs no
/// privilege. A thread for which an operator has chosen another policy keeps it.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "the policy is set by calls of the system")]
pub fn work_in_batches() -> io::Result<()> {
    let mut now = attributes()?;
    if now.sched_policy != libc::SCHED_OTHER as u32 {
        return Ok(());
    }
    now.sched_policy = libc::SCHED_BATCH as u32;
    now.sched_runtime = TURN.as_nanos() as u64;
    // SAFETY: 0 is the calling thread; the attributes are only read, and live until the call is over.
    match unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const now, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// How the kernel takes the calling thread.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "it is asked for by a call of the system")]
fn attributes() -> io::Result<libc::sched_attr> {
    const SIZE: u32 = size_of::<libc::sched_attr>() as u32;
    let mut now = libc::sched_attr {
        size: SIZE,
        sched_policy: 0,
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: 0 is the calling thread; what is written is `now`, of the size that is said.
    match unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut now, SIZE, 0) } {
        0 => Ok(now),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Elsewhere there is no such policy.
#[cfg(not(target_os = "linux"))]
pub fn work_in_batches() -> io::Result<()> {
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::thread;

    use super::*;

    fn policy() -> i32 {
        attributes().expect("it may be asked").sched_policy as i32
    }

    #[test]
    fn a_thread_and_those_it_starts_work_in_batches() {
        let other = policy();
        let started = thread::spawn(|| {
            work_in_batches().expect("it needs no privilege");
            // Once more is no other request.
            work_in_batches().expect("it is one already");
            (policy(), thread::spawn(policy).join().expect("it only asks"))
        });
        let batch = libc::SCHED_BATCH;
        assert_eq!(started.join().expect("nothing panics"), (batch, batch));
        assert_eq!(policy(), other, "another thread stays as it was");
    }
}
