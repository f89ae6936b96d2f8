//! What each command does, one file per subject.
//!
//! Every function takes a [`Step`], which is one command's view of the state, and either returns
//! a reply or stops: with a [`Reject`], which undoes the step, or with a fatal error.
//!
//! | file | commands |
//! |---|---|
//! | `shard` | init, configure, expire |
//! | `session` | open, send |
//! | `backend` | back end's send, and its refusal |
//! | `act` | the judgement of marks, recalls and edits |
//! | `deliver` | the fan-out that both sends and relay-in use |
//! | `relay` | relay-in, trim outbox |
//! | `device` | register, forget, log out, depart, confirm, confirm many |
//! | `push` | set push, push sent, drop push; when hints are due |
//! | `mailbox` | append, trim, retain, delete, adopt, block, silence |
//! | `contacts` | accept from, allow; whether a sender is welcome |
//! | `counter` | allocate, allocate many |
//! | `cluster` | create cluster, in the control group |
//! | `group` | changes of groups, and the judgement of what is sent to one |
//! | `fanout` | fan out, and what gives a group's log to its members |

mod act;
mod backend;
mod cluster;
mod contacts;
mod counter;
mod deliver;
mod device;
mod fanout;
mod group;
mod mailbox;
mod members;
mod push;
mod relay;
mod session;
mod shard;
mod share;

use tidemark_types::Id;

use crate::apply::deliver::Fate;
use crate::command::Command;
use crate::reply::{Alarm, Effect, Reject, Reply};
use crate::transaction::{Step, Stop};
use crate::value::Shard;

/// Applies one command. `shard` is `None` until `Init`.
pub(crate) fn command(
    step: &mut Step<'_>,
    command: &Command,
    shard: &mut Option<Shard>,
) -> Result<Reply, Stop> {
    if let Command::Init { cluster, shard: number, shards, hash_version, settings } = command {
        let identity = (*cluster, *number, *shards, *hash_version);
        return shard::init(step, shard, identity, settings);
    }
    if let Command::CreateCluster { map } = command {
        return match shard {
            None => cluster::create(step, map),
            Some(_) => Err(Reject::Invalid("this is a shard".to_owned()).into()),
        };
    }
    let Some(shard) = shard else {
        return Err(Reject::Invalid("the shard is not initialised".to_owned()).into());
    };
    if let Some(id) = command.routed_by() {
        check_lives_here(step, shard, id)?;
    }
    match command {
        Command::Init { .. } | Command::CreateCluster { .. } => unreachable!("answered above"),
        Command::Configure { settings } => shard::configure(shard, settings),
        Command::Expire { now } => shard::expire(step, shard, *now),
        Command::RegisterDevice { user, device, start, arrival, label } => {
            device::register(step, shard, (user, device), *start, *arrival, label.as_ref())
        }
        Command::ForgetDevice { user, device } => device::forget(step, shard, user, device),
        Command::LogOut { user, device } => device::log_out(step, shard, user, device),
        Command::Depart { user, device, connection } => {
            device::depart(step, shard, user, device, *connection)
        }
        Command::Confirm { user, device, epoch, seq } => {
            let cursor = device::confirm(step, shard, (user, device), *epoch, *seq)?;
            Ok(Reply::Confirmed { cursor })
        }
        Command::ConfirmMany { confirmations } => device::confirm_many(step, shard, confirmations),
        Command::SetPush { user, device, target } => {
            push::set_push(step, shard, user, device, target.as_ref())
        }
        Command::PushSent { user, device, epoch, upto } => {
            push::sent(step, shard, (user, device), *epoch, *upto)
        }
        Command::DropPush { user, device, version, since } => {
            push::drop_push(step, shard, (user, device), *version, *since)
        }
        Command::Open { user, device, open_id, ends } => {
            session::open(step, shard, user, device, *open_id, *ends)
        }
        Command::Send(send) => session::send(step, shard, send),
        Command::BackendSend(send) => backend::send(step, shard, send, Fate::Delivered),
        Command::DropBackend(send) => backend::send(step, shard, send, Fate::Dropped),
        Command::RefuseBackend { sender, id, content, code } => {
            backend::refuse(step, shard, (sender, *id), *content, *code)
        }
        Command::RelayIn { source, records } => relay::relay_in(step, shard, *source, records),
        Command::TrimOutbox { shard: to, upto, returns } => {
            relay::trim_outbox(step, *to, *upto, *returns)
        }
        Command::TrimMailbox { user, upto } => mailbox::trim(step, user, *upto),
        Command::Retain { mailbox } => mailbox::retain(step, shard, mailbox),
        Command::DeleteMailbox { user } => mailbox::delete(step, user),
        Command::Adopt { user, seq } => mailbox::adopt(step, user, *seq),
        Command::Block { user, sender, blocked } => mailbox::block(step, user, sender, *blocked),
        Command::Silence { user, silent } => mailbox::silence(step, user, *silent),
        Command::AcceptFrom { user, from } => contacts::accept_from(step, user, *from),
        Command::Allow { user, sender, allowed } => contacts::allow(step, user, sender, *allowed),
        Command::Allocate { counter, count, id } => {
            counter::allocate(step, shard, counter, *count, *id)
        }
        Command::AllocateMany { allocations } => counter::allocate_many(step, shard, allocations),
        Command::Group(change) => group::change(step, shard, change),
        Command::FanOut { group } => fanout::go_on(step, shard, group),
    }
}

/// Refuses, with an alarm, what lives on another shard (R8).
fn check_lives_here(step: &mut Step<'_>, shard: &Shard, id: Id) -> Result<(), Stop> {
    if lives_here(shard, &id) {
        return Ok(());
    }
    step.effects.push(Effect::Alarm(Alarm::WrongShard(id.clone())));
    Err(Reject::WrongShard(id).into())
}

fn lives_here(shard: &Shard, id: &Id) -> bool {
    shard.shards.shard_of(id) == shard.shard
}
