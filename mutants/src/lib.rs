//! Deliberately broken variants of single rules, to prove that the checks can fail.
//!
//! A mutant is a few lines at the place of the real decision, behind `if mutants::is(..)`. One build
//! holds all of them; which one is on is said once, when the process starts ([`choose`]), so that
//! what is pure stays pure afterwards. Without the feature `mutants` no one can be on:
//! [`is`] is a constant, and the compiler removes whatever depends on it.
//!
//! Refuses to be part of a release: no default feature asks for it, and a test looks for
//! [`MARKER`] in the binaries.

macro_rules! mutants {
    ($($(#[doc = $doc:literal])* $mutant:ident = $number:literal,)*) => {
        /// Which rule (`docs/invariants.md`) is broken, and how. The numbers are those of the
        /// table in `docs/testing.md`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Mutant {
            $($(#[doc = $doc])* $mutant = $number,)*
        }

        impl Mutant {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [Mutant] = &[$(Mutant::$mutant,)*];

            /// Its name: `M7`.
            pub fn name(self) -> &'static str {
                match self {
                    $(Mutant::$mutant => concat!("M", $number),)*
                }
            }

            /// What is broken, in one sentence.
            pub fn what(self) -> &'static str {
                match self {
                    $(Mutant::$mutant => concat!($($doc),*).trim_ascii(),)*
                }
            }
        }
    };
}

mutants! {
    /// The leader answers a batch once it is in its own log, before a majority has it.
    AckBeforeCommit = 1,
    /// The log is written without an fsync.
    NoFsync = 2,
    /// A vote is given before it is on disk.
    VoteNotSynced = 3,
    /// A snapshot leaves out which ids back ends have used.
    SnapshotWithoutIds = 4,
    /// A session remembers only its newest acknowledgement; what is older is taken for new.
    ForgetfulSession = 5,
    /// What entries changed and how far the log is applied are written one after the other.
    ApplyInTwoWrites = 6,
    /// A leader answers reads without asking a majority whether it still leads.
    ReadWithoutQuorum = 7,
    /// The log is purged up to what is applied, though the state is not flushed.
    PurgeUnflushed = 8,
    /// A snapshot is written over the live state.
    InstallInPlace = 9,
    /// A follower keeps entries that contradict the leader's, and says that it has the leader's.
    KeepConflicts = 10,
    /// Who watches a mailbox is told of an entry before it is committed.
    PushBeforeCommit = 11,
    /// A gateway takes a lost answer for a refusal.
    UnknownIsRefused = 12,
    /// A gateway confirms what it has sent to a device, whether the device took it or not.
    ConfirmWhenSent = 13,
    /// A watch registers after it has read where a mailbox stands, and loses the mailboxes that
    /// grew meanwhile.
    RegisterAfterRead = 14,
    /// A leader keeps the numbers of sends that were lost with its leadership.
    KeepLostNumbers = 15,
    /// A failed write of the log counts as done.
    SwallowWriteErrors = 17,
    /// A damaged log is opened up to the damage, and the rest is forgotten.
    ForgetDamagedLog = 18,
    /// A node whose disk is empty starts anew under its old id.
    StartOnEmptyDisk = 19,
    /// An entry's time differs from replica to replica.
    ClockInApply = 20,
    /// A node that led before it stopped leads again without an election.
    LeadWithoutElection = 21,
    /// What a device does not read piles up at its gateway.
    UnboundedQueue = 22,
    /// A device that was logged out comes back with the token that it had.
    ForgetLogOut = 23,
    /// A hint that is one gateway's is handed out again.
    LeaseTwice = 24,
    /// A mark that says nothing new is told again.
    RepeatMarks = 25,
    /// A message is recalled or edited though its time is over.
    ChangeTooLate = 26,
    /// Whoever received a message may recall and edit it.
    AnybodyChanges = 27,
    /// A recall or an edit goes to the first only of those whom its message went to.
    ChangeForOne = 28,
    /// What was recalled counts as unread.
    CountRecalled = 29,
    /// A record of the feed tells only the first thing that a command changed.
    FeedTellsOne = 30,
    /// A node takes its own clock for cluster time.
    OwnClock = 31,
    /// What the hook could not judge goes, though it must be judged.
    UnjudgedGoes = 32,
    /// What an operator's check has dropped is delivered.
    DeliverDropped = 33,
    /// Each gateway makes tokens of its own for Apple, which takes one in 20 minutes.
    OwnPushTokens = 34,
}

impl Mutant {
    /// The one of this name.
    pub fn named(name: &str) -> Option<Mutant> {
        Mutant::ALL.iter().copied().find(|mutant| mutant.name() == name)
    }
}

/// What every program says somewhere that could have a mutant on, and no other.
pub const MARKER: &str = "tidemark: broken on purpose, not for release";

/// Is this one on?
#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub const fn is(_: Mutant) -> bool {
    false
}

#[cfg(not(feature = "mutants"))]
pub use off::{keep_number, kept_numbers, noise};
#[cfg(feature = "mutants")]
pub use on::{VARIABLE, choose, is, keep_number, kept_numbers, noise};

/// Nothing: these are asked for only where [`is`] said yes.
#[cfg(not(feature = "mutants"))]
mod off {
    /// See the other half.
    #[inline(always)]
    pub const fn keep_number(_: &str) {}

    /// See the other half.
    #[inline(always)]
    pub const fn kept_numbers(_: &str) -> u32 {
        0
    }

    /// See the other half.
    #[inline(always)]
    pub const fn noise() -> u64 {
        0
    }
}

#[cfg(feature = "mutants")]
mod on {
    use std::collections::BTreeMap;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::{MARKER, Mutant};

    /// The environment variable that says which mutant is on.
    pub const VARIABLE: &str = "TIDEMARK_MUTANT";

    /// The number of the one that is on, 0 for none. Beside it the marker, so that it is wherever one
    /// is asked for: the compiler may take neither apart, and the linker keeps what is asked for.
    #[used]
    static CHOSEN: (AtomicU8, &str) = (AtomicU8::new(0), MARKER);

    /// What [`Mutant::KeepLostNumbers`] keeps: numbers by mailbox.
    static KEPT: Mutex<BTreeMap<String, u32>> = Mutex::new(BTreeMap::new());

    /// Turns the mutant on that the environment names, once, when the process starts.
    ///
    /// # Panics
    /// If it names none: a run of another build than was meant would prove nothing.
    pub fn choose() {
        let Ok(name) = std::env::var(VARIABLE) else { return };
        let mutant = Mutant::named(&name).unwrap_or_else(|| panic!("{name} is no mutant"));
        CHOSEN.0.store(mutant as u8, Ordering::Relaxed);
        eprintln!("{VARIABLE}={name}, broken on purpose: {}", mutant.what());
    }

    /// Is this one on?
    pub fn is(mutant: Mutant) -> bool {
        CHOSEN.0.load(Ordering::Relaxed) == mutant as u8
    }

    /// A number of this mailbox was given out and not used.
    pub fn keep_number(mailbox: &str) {
        let mut kept = KEPT.lock().expect("nobody panics with it");
        *kept.entry(mailbox.to_owned()).or_default() += 1;
    }

    /// How many such numbers there are; they count once.
    pub fn kept_numbers(mailbox: &str) -> u32 {
        KEPT.lock().expect("nobody panics with it").remove(mailbox).unwrap_or_default()
    }

    /// What is the same as long as a process runs, and another in each.
    pub fn noise() -> u64 {
        u64::from(std::process::id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_name_by_which_it_is_found_and_says_what_it_breaks() {
        assert_eq!(Mutant::ALL.len(), 33);
        for mutant in Mutant::ALL {
            assert_eq!(Mutant::named(mutant.name()), Some(*mutant));
            assert!(mutant.what().ends_with('.'), "{mutant:?}");
        }
        assert_eq!(Mutant::named("M16"), None);
    }

    #[test]
    #[cfg(not(feature = "mutants"))]
    fn none_is_on_without_the_feature() {
        const { assert!(!is(Mutant::NoFsync)) };
    }
}
