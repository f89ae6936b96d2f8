//! Named sources of numbers (R9); they have nothing to do with mailboxes' seqs.

use tidemark_types::limits::{ALLOCATE_CALLS_MAX, ALLOCATE_MAX};
use tidemark_types::{ClientMsgId, CounterId, Id};

use super::check_lives_here;
use crate::key::{AllocatedKey, CounterKey};
use crate::reply::{Reject, Reply};
use crate::transaction::{Step, Stop};
use crate::value::{Allocated, Counter, Shard};

/// `Allocate`.
pub(super) fn allocate(
    step: &mut Step<'_>,
    shard: &Shard,
    counter: &CounterId,
    count: u32,
    id: Option<ClientMsgId>,
) -> Result<Reply, Stop> {
    check_count(count)?;
    let request = id.map(|id| AllocatedKey { id, counter: counter.clone() });
    if let Some(request) = &request {
        if let Some(Allocated { first, count: stored }) = step.get(request)? {
            return match stored == count {
                true => Ok(Reply::Allocated { first, count }),
                false => Err(Reject::Conflict.into()),
            };
        }
        if request.id.created() < shard.allocate_floor {
            return Err(Reject::DedupExpired.into());
        }
    }
    let first = take(step, counter, count)?;
    if let Some(request) = &request {
        step.put(request, &Allocated { first, count });
    }
    Ok(Reply::Allocated { first, count })
}

/// `AllocateMany`: what is refused of it is refused alone.
pub(super) fn allocate_many(
    step: &mut Step<'_>,
    shard: &Shard,
    allocations: &[(CounterId, u32)],
) -> Result<Reply, Stop> {
    let many = allocations.len();
    if many == 0 || many > ALLOCATE_CALLS_MAX {
        let text = format!("{many} allocations: 1 to {ALLOCATE_CALLS_MAX}");
        return Err(Reject::Invalid(text).into());
    }
    let mut outcomes = Vec::with_capacity(many);
    for (counter, count) in allocations {
        outcomes.push(match one_of_many(step, shard, counter, *count) {
            Ok(first) => Ok(first),
            Err(Stop::Reject(reject)) => Err(reject),
            Err(fatal @ Stop::Fatal(_)) => return Err(fatal),
        });
    }
    Ok(Reply::AllocatedMany(outcomes))
}

/// The first number of one of many allocations. One that is refused has changed nothing.
fn one_of_many(
    step: &mut Step<'_>,
    shard: &Shard,
    counter: &CounterId,
    count: u32,
) -> Result<u64, Stop> {
    check_lives_here(step, shard, Id::Counter(counter.clone()))?;
    check_count(count)?;
    take(step, counter, count)
}

fn check_count(count: u32) -> Result<(), Reject> {
    match count {
        1..=ALLOCATE_MAX => Ok(()),
        _ => Err(Reject::Invalid(format!("count {count}: 1 to {ALLOCATE_MAX}"))),
    }
}

/// Takes the counter's next numbers; the first of them.
fn take(step: &mut Step<'_>, counter: &CounterId, count: u32) -> Result<u64, Stop> {
    let key = CounterKey { counter: counter.clone() };
    let last = step.get(&key)?.unwrap_or_default().last;
    let new_last = last.checked_add(u64::from(count)).ok_or(Reject::SeqExhausted)?;
    step.put(&key, &Counter { last: new_last });
    Ok(last + 1)
}
