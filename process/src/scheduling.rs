//! How the kernel shares processors between a server's threads and everybody else's.

use std::io;

/// Has the kernel take the calling thread, and those that it starts from now on, for one that works in
/// batches (`SCHED_BATCH`, sched(7)): when it is woken it waits for its turn instead of interrupting whoever
/// runs. A server under load is woken for each packet and each fsync, and so is its neighbour; what
/// came meanwhile is done together then (`docs/adr/0021-servers-do-not-interrupt.md`). Needs no
/// privilege. A thread for which an operator has chosen another policy keeps it.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "the policy is set by calls of the C library")]
pub fn work_in_batches() -> io::Result<()> {
    let priority = libc::sched_param { sched_priority: 0 };
    // SAFETY: 0 is the calling thread; `priority` is only read, and lives until the call is over.
    let set = unsafe {
        match libc::sched_getscheduler(0) {
            libc::SCHED_OTHER => {
                libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const priority)
            }
            other => other.min(0),
        }
    };
    if set < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
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

    #[expect(unsafe_code, reason = "the policy is asked for by a call of the C library")]
    fn policy() -> i32 {
        // SAFETY: 0 is the calling thread, and nothing is written.
        unsafe { libc::sched_getscheduler(0) }
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
