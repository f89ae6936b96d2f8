//! Named sources of numbers (R9); they have nothing to do with mailboxes' seqs.

use tidemark_types::limits::ALLOCATE_MAX;
use tidemark_types::{ClientMsgId, CounterId};

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
    if count == 0 || count > ALLOCATE_MAX {
        return Err(Reject::Invalid(format!("count {count}: 1 to {ALLOCATE_MAX}")).into());
    }
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
    let key = CounterKey { counter: counter.clone() };
    let last = step.get(&key)?.unwrap_or_default().last;
    let new_last = last.checked_add(u64::from(count)).ok_or(Reject::SeqExhausted)?;
    let first = last + 1;
    step.put(&key, &Counter { last: new_last });
    if let Some(request) = &request {
        step.put(request, &Allocated { first, count });
    }
    Ok(Reply::Allocated { first, count })
}
