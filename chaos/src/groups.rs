//! Groups under faults (R10): members who join, leave and send, and in the end the judgement of what a
//! replica's disk, and the members' devices, hold of it.
//!
//! One group is small; the other one is given each entry in portions.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use parking_lot::Mutex;
pub use tidemark_checker::groups::Answer;
use tidemark_checker::groups::{Group, Logged, Said, User, check};
use tidemark_client as client;
use tidemark_proto::v1::group_change::Change;
use tidemark_store::inspect::Inspector;
use tidemark_store::storage;
use tidemark_store_core::command::Draft;
use tidemark_store_core::group::{GroupAction, GroupEvent, NewGroup, Policy};
use tidemark_store_core::value::{Content, Entry, Origin};
use tidemark_types::limits::GROUP_CHANGE_USERS_MAX;
use tidemark_types::{ClientMsgId, GroupId, Recipient, Seq, ShardId, UnixMs, UserId};

/// How many groups there are.
pub const COUNT: usize = 2;

/// Users of each group who do something: the first owns it, the last never joins.
pub const ACTIVE: User = 8;

/// A change that came to nothing is asked for again after this.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// Fewer entries of a group's log than these show too little.
pub const LOG_MIN: usize = 15;

const PREFIX: &str = "member-";

/// The name of a group.
pub fn group(number: usize) -> GroupId {
    GroupId::new(["few", "many"][number]).expect("a legal name")
}

/// The name of a group's user.
pub fn name(number: usize, user: User) -> UserId {
    UserId::new(format!("{PREFIX}{number}-{user}")).expect("a legal name")
}

/// Is it a group's user, and none of the history's?
pub fn is_member(name: &UserId) -> bool {
    name.as_str().starts_with(PREFIX)
}

fn user(name: &UserId) -> Result<(usize, User)> {
    let parts = name.as_str().strip_prefix(PREFIX).and_then(|rest| rest.split_once('-'));
    let (number, user) = parts.with_context(|| format!("{name} is nobody of these groups"))?;
    Ok((number.parse()?, user.parse()?))
}

/// The run in which groups live.
pub trait Place: Clone + Send + Sync + 'static {
    /// Do users still write?
    fn is_writing(&self) -> bool;

    /// A random number.
    fn number(&self) -> u64;

    /// The wall clock of whoever asks.
    fn now(&self) -> UnixMs;

    /// Asks for a change once; whether it is so now, or why it can never be.
    fn change(
        &self,
        group: GroupId,
        action: GroupAction,
    ) -> impl Future<Output = Result<bool, String>> + Send;

    /// Sends a message, and says what became of it.
    fn send(&self, sender: UserId, draft: Draft) -> impl Future<Output = Answer> + Send;

    /// Says of what must not be.
    fn wrong(&self, what: String);
}

/// What is known of the groups; a cheap handle.
#[derive(Clone, Default)]
pub struct Groups(Arc<[Mutex<Group>; COUNT]>);

impl Groups {
    /// Lets them live until nobody writes any more; `crowd` more members of the second one do nothing.
    /// Ends when what was asked for is answered.
    pub async fn live(&self, place: &impl Place, crowd: User) {
        let life = |number| Life { groups: self.clone(), place: place.clone(), number };
        tokio::join!(life(0).run(0), life(1).run(crowd));
    }

    /// A member's device took an entry.
    pub fn took(&self, owner: &UserId, entry: &client::Entry) -> Result<()> {
        let (number, user) = user(owner)?;
        if let Some(logged) = taken(number, entry)? {
            self.0[number].lock().taken.entry(user).or_default().push(logged);
        }
        Ok(())
    }

    /// What is wrong with them, by what the disk of a replica holds in the end.
    pub fn judge(
        &self,
        inspector: &Inspector,
        shards: impl IntoIterator<Item = ShardId>,
    ) -> Result<Judged> {
        let mut found = self.0.each_ref().map(|book| book.lock().clone());
        let mut failed = None;
        for shard in shards {
            inspector.visit(storage::GroupId::shard(shard), None, &mut |mailbox, _, entries| {
                let mut entries = entries.iter();
                let noted =
                    entries.try_for_each(|(seq, entry)| note(&mut found, mailbox, *seq, entry));
                if let Err(error) = noted {
                    failed.get_or_insert(error);
                }
            })?;
        }
        if let Some(error) = failed {
            return Err(error);
        }
        let mut wrong = Vec::new();
        for (number, book) in found.iter().enumerate() {
            wrong.extend(check(book).into_iter().map(|it| format!("{}: {it}", group(number))));
        }
        Ok(Judged { wrong, entries: found.each_ref().map(|book| book.log.len()) })
    }
}

/// What was found of the groups.
#[derive(Clone, Debug)]
pub struct Judged {
    /// What is wrong.
    pub wrong: Vec<String>,
    /// How many entries each log has.
    pub entries: [usize; COUNT],
}

/// One group's life.
struct Life<P> {
    groups: Groups,
    place: P,
    number: usize,
}

impl<P: Place> Life<P> {
    async fn run(self, crowd: User) {
        let name = |user| name(self.number, user);
        let new = NewGroup {
            owner: name(0),
            members: vec![name(1)],
            members_max: 10_000,
            policy: Policy::default(),
        };
        if !self.change(GroupAction::Create(new)).await {
            return;
        }
        let crowd: Vec<UserId> = (ACTIVE..ACTIVE + crowd).map(name).collect();
        for users in crowd.chunks(GROUP_CHANGE_USERS_MAX) {
            if !self.change(GroupAction::Add { users: users.to_vec() }).await {
                return;
            }
        }
        let (mut members, mut sends) = (BTreeSet::from([0, 1]), tokio::task::JoinSet::new());
        while self.place.is_writing() {
            let (from, to) = if crowd.is_empty() { (50, 250) } else { (300, 900) };
            tokio::time::sleep(Duration::from_millis(self.between(from, to))).await;
            if self.between(0, 9) < 3 {
                self.come_or_go(&mut members).await;
            } else {
                sends.spawn(self.post());
            }
        }
        while sends.join_next().await.is_some() {}
    }

    fn between(&self, from: u64, to: u64) -> u64 {
        from + self.place.number() % (to - from + 1)
    }

    fn one_of(&self, from: User, to: User) -> User {
        User::try_from(self.between(from.into(), to.into())).expect("small")
    }

    /// Somebody joins, or leaves.
    async fn come_or_go(&self, members: &mut BTreeSet<User>) {
        let user = self.one_of(1, ACTIVE - 2);
        let joins = !members.contains(&user);
        let users = vec![name(self.number, user)];
        let action = match joins {
            true => GroupAction::Add { users },
            false => GroupAction::Remove { users },
        };
        if self.change(action).await {
            match joins {
                true => members.insert(user),
                false => members.remove(&user),
            };
            self.groups.0[self.number].lock().changed.push((user, joins));
        }
    }

    /// Asks for a change until it is so; false where users stopped writing before.
    async fn change(&self, action: GroupAction) -> bool {
        while self.place.is_writing() {
            match self.place.change(group(self.number), action.clone()).await {
                Ok(true) => return true,
                // Not taken, or nobody knows: what is so already is done.
                Ok(false) => tokio::time::sleep(AGAIN_AFTER).await,
                Err(what) => {
                    let group = group(self.number);
                    self.place.wrong(format!("{what} to a change of {group}"));
                    return false;
                }
            }
        }
        false
    }

    /// Somebody sends; what becomes of it is written down when it is known.
    fn post(&self) -> impl Future<Output = ()> + use<P> {
        let sender = self.one_of(0, ACTIVE - 1);
        let mut random = [0; 10];
        random[..8].copy_from_slice(&self.place.number().to_be_bytes());
        let client_msg_id = ClientMsgId::new(self.place.now(), random);
        let id = number_of(client_msg_id);
        let to = vec![Recipient::Group(group(self.number))];
        let draft = Draft { to, kind: 1, client_msg_id, body: body(id), act: None };
        let (groups, place, number) = (self.groups.clone(), self.place.clone(), self.number);
        groups.0[number].lock().sends.insert(id, (sender, Answer::Unknown));
        async move {
            let answer = place.send(name(number, sender), draft).await;
            groups.0[number].lock().sends.insert(id, (sender, answer));
        }
    }
}

fn number_of(id: ClientMsgId) -> u128 {
    u128::from_be_bytes(*id.as_bytes())
}

fn body(id: u128) -> Bytes {
    Bytes::copy_from_slice(&id.to_be_bytes())
}

/// Takes in what a mailbox holds.
fn note(found: &mut [Group], mailbox: &Recipient, seq: Seq, entry: &Entry) -> Result<()> {
    match (mailbox, &entry.content) {
        (Recipient::Group(id), Content::Group(of)) => {
            let number = which(id)?;
            if of.seq != seq || of.group != *id {
                bail!("{id} has {entry:?} at {seq}");
            }
            found[number].log.push((seq.get(), said(number, entry, &of.event)?));
        }
        (Recipient::User(owner), Content::Group(of)) => {
            let (number, owner) = user(owner)?;
            if of.group != group(number) {
                bail!("{owner} of {number} has {entry:?}");
            }
            let given = found[number].given.entry(owner).or_default();
            given.push((of.seq.get(), said(number, entry, &of.event)?));
        }
        (Recipient::User(owner), Content::Refused { recipient: Recipient::Group(_), .. }) => {
            let (number, _) = user(owner)?;
            let Origin::Backend { id, .. } = &entry.origin else { bail!("{entry:?}") };
            found[number].refused.push(number_of(*id));
        }
        (Recipient::User(owner), _) if !is_member(owner) => {}
        _ => bail!("{mailbox} has {entry:?}"),
    }
    Ok(())
}

fn which(id: &GroupId) -> Result<usize> {
    (0..COUNT).find(|number| group(*number) == *id).with_context(|| format!("there is no {id}"))
}

/// The numbers of a group's users, in order.
fn users<'a>(number: usize, names: impl IntoIterator<Item = &'a UserId>) -> Result<Vec<User>> {
    let numbers = names.into_iter().map(|name| match user(name)? {
        (of, user) if of == number => Ok(user),
        _ => bail!("{name} is nobody of {}", group(number)),
    });
    let mut numbers = numbers.collect::<Result<Vec<_>>>()?;
    numbers.sort_unstable();
    Ok(numbers)
}

fn message(number: usize, sender: &UserId, id: ClientMsgId, found: &Bytes) -> Result<Said> {
    let (sender, id) = (users(number, [sender])?[0], number_of(id));
    if *found != body(id) {
        bail!("{id:x} of {sender} is not what was sent");
    }
    Ok(Said::Message { sender, id })
}

fn joined(number: usize, by: Option<&UserId>, names: &[UserId]) -> Result<Said> {
    Ok(Said::Joined(users(number, names.iter().chain(by))?))
}

/// A stored entry in the checker's words.
fn said(number: usize, entry: &Entry, event: &GroupEvent) -> Result<Said> {
    let by = entry.origin.sender();
    match event {
        GroupEvent::Message(it) => message(number, by, it.client_msg_id, &it.body),
        GroupEvent::Created { members } => joined(number, Some(by), members),
        GroupEvent::Joined { users } => joined(number, None, users),
        GroupEvent::Left { users: left } => Ok(Said::Left(users(number, left)?)),
        GroupEvent::RoleSet { .. } | GroupEvent::PolicySet { .. } | GroupEvent::Deleted => {
            Ok(Said::Other)
        }
    }
}

/// A device's entry in the checker's words, if it is one of the group.
fn taken(number: usize, entry: &client::Entry) -> Result<Option<Logged>> {
    let origin = entry.origin.as_ref().context("an entry without an origin")?;
    let by = origin.sender();
    let names = |names: &[String]| {
        let names = names.iter().map(|name| Ok(UserId::new(name.as_str())?));
        names.collect::<Result<Vec<UserId>>>()
    };
    Ok(Some(match &entry.content {
        client::Content::Message(it) => {
            let seq = it.group_seq.with_context(|| format!("{entry:?} is of no group"))?;
            (seq.get(), message(number, by, it.client_msg_id, &it.body)?)
        }
        client::Content::Group(it) => {
            let said = match &it.change {
                Change::Created(created) => joined(number, Some(by), &names(&created.members)?)?,
                Change::Joined(more) => joined(number, None, &names(&more.users)?)?,
                Change::Left(left) => Said::Left(users(number, &names(&left.users)?)?),
                Change::RoleSet(_) | Change::PolicySet(_) | Change::Deleted(_) => Said::Other,
            };
            (it.group_seq.get(), said)
        }
        client::Content::Refused { .. } => return Ok(None),
        client::Content::Act(act) => bail!("nobody here acts: {act:?}"),
        client::Content::Unknown(entry) => bail!("an unknown entry: {entry:?}"),
    }))
}
