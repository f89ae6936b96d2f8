//! Groups under faults: members who are no devices, through the store's client, and what they were
//! answered. One group is small; the other one is given each entry in portions (R10).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use parking_lot::Mutex;
use tidemark_checker::groups::{Answer, Group, Said, User, check};
use tidemark_env::Clock;
use tidemark_store::inspect::Inspector;
use tidemark_store::storage;
use tidemark_store_client::Client;
use tidemark_store_core::Reply;
use tidemark_store_core::command::{BackendSend, Command, Draft};
use tidemark_store_core::group::{GroupAction, GroupCommand, GroupEvent, NewGroup, Policy};
use tidemark_store_core::value::{Content, Entry, Origin, Verdict};
use tidemark_types::limits::GROUP_CHANGE_USERS_MAX;
use tidemark_types::{ClientMsgId, ContentHash, GroupId, Recipient, UserId};

use crate::plan::Dice;
use crate::world::{PROBER, World};

/// Users of each group who do something: the first owns it, the last never joins.
const ACTIVE: User = 8;

/// Members of the second group beside them, who do nothing: an entry takes two portions and more.
const CROWD: User = 900;

/// A command that came to nothing is given again after this.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// Fewer entries of a group's log than these show too little.
const LOG_MIN: usize = 15;

/// What is known of both groups.
#[derive(Default)]
pub struct Groups {
    books: [Mutex<Group>; 2],
    begun: Mutex<BTreeSet<usize>>,
}

fn group(number: usize) -> GroupId {
    GroupId::new(["few", "many"][number]).expect("a legal name")
}

fn name(number: usize, user: User) -> UserId {
    UserId::new(format!("member-{number}-{user}")).expect("a legal name")
}

fn user(name: &UserId) -> Result<(usize, User)> {
    let parts = name.as_str().strip_prefix("member-").and_then(|rest| rest.split_once('-'));
    let (number, user) = parts.with_context(|| format!("{name} is nobody of these groups"))?;
    Ok((number.parse()?, user.parse()?))
}

/// Lets both groups live while users write. Where mailboxes keep few entries, the logs could not be
/// read in the end, and there are no groups.
pub fn start(world: &Arc<World>, client: &Client) {
    let keeps_all = tidemark_store_core::value::Settings::default().mailbox_entries_max;
    if world.plan.mailbox_entries_max < keeps_all {
        return;
    }
    for number in 0..2 {
        let dice = Dice::new(world.rng().number(), 20 + number as u64);
        let life = Life { world: world.clone(), client: client.clone(), number, dice };
        tokio::spawn(life.run());
    }
}

struct Life {
    world: Arc<World>,
    client: Client,
    number: usize,
    dice: Dice,
}

impl Life {
    async fn run(self) {
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
        self.world.groups.begun.lock().insert(self.number);
        if self.number == 1 {
            let crowd: Vec<UserId> = (ACTIVE..ACTIVE + CROWD).map(name).collect();
            for users in crowd.chunks(GROUP_CHANGE_USERS_MAX) {
                if !self.change(GroupAction::Add { users: users.to_vec() }).await {
                    return;
                }
            }
        }
        let mut members = BTreeSet::from([0, 1]);
        while self.world.is_writing() {
            let pause = if self.number == 0 { (50, 250) } else { (500, 1_500) };
            tokio::time::sleep(self.dice.ms(pause.0, pause.1)).await;
            if self.dice.chance(0.3) {
                self.come_or_go(&mut members).await;
            } else {
                self.post();
            }
        }
    }

    fn one_of(&self, from: User, to: User) -> User {
        let number = self.dice.between(from.into(), to.into());
        User::try_from(number).expect("small")
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
            self.world.groups.books[self.number].lock().changed.push((user, joins));
        }
    }

    /// Asks for a change until it is done; false where users stopped writing before.
    async fn change(&self, action: GroupAction) -> bool {
        let command = Command::Group(GroupCommand { group: group(self.number), by: None, action });
        while self.world.is_writing() {
            let attempt = async { self.client.submit(&command).await?.reply().await };
            match attempt.await {
                Ok(Reply::Done) => return true,
                Ok(other) => {
                    let what = format!("{other:?} to a change of {}", group(self.number));
                    self.world.safety.violated(&self.world, what);
                    return false;
                }
                // Not taken, or nobody knows: what is so already is done.
                Err(_) => tokio::time::sleep(AGAIN_AFTER).await,
            }
        }
        false
    }

    /// Somebody sends; what becomes of it is written down when it is known.
    fn post(&self) {
        let sender = self.one_of(0, ACTIVE - 1);
        let mut random = [0; 10];
        random[..8].copy_from_slice(&self.dice.number().to_be_bytes());
        let client_msg_id = ClientMsgId::new(self.world.clock(PROBER).wall(), random);
        let id = u128::from_be_bytes(*client_msg_id.as_bytes());
        let to = vec![Recipient::Group(group(self.number))];
        let body = bytes_of(id);
        let content = ContentHash::of(&to, 1, &body);
        let draft = Draft { to, kind: 1, client_msg_id, body };
        let sender_name = name(self.number, sender);
        let send = Command::BackendSend(BackendSend { sender: sender_name, content, draft });
        let (world, client, number) = (self.world.clone(), self.client.clone(), self.number);
        world.groups.books[number].lock().sends.insert(id, (sender, Answer::Unknown));
        tokio::spawn(async move {
            let attempt = async { client.submit(&send).await?.reply().await };
            let answer = match attempt.await {
                Ok(Reply::Sent(Verdict::Accepted { .. })) => Answer::Accepted,
                Ok(_) => Answer::NotTaken,
                Err(_) => Answer::Unknown,
            };
            world.groups.books[number].lock().sends.insert(id, (sender, answer));
        });
    }
}

fn bytes_of(id: u128) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(&id.to_be_bytes())
}

/// Is the mailbox one of these groups, or of one of their members?
pub fn is_of_groups(mailbox: &Recipient) -> bool {
    match mailbox {
        Recipient::User(name) => user(name).is_ok(),
        Recipient::Group(_) => true,
    }
}

/// What is wrong with the groups, by what a replica's disk holds in the end.
pub fn judge(world: &World, inspector: &Inspector) -> Result<Vec<String>> {
    let begun = world.groups.begun.lock().clone();
    let mut found: Vec<Group> = world.groups.books.iter().map(|book| book.lock().clone()).collect();
    let mut failed = None;
    for shard in world.map.shard_count().into_iter().flat_map(|count| count.shards()) {
        inspector.visit(storage::GroupId::shard(shard), None, &mut |mailbox, _, entries| {
            if is_of_groups(mailbox)
                && let Err(error) = note(&mut found, mailbox, entries)
            {
                failed.get_or_insert(error);
            }
        })?;
    }
    if let Some(error) = failed {
        return Err(error);
    }
    let mut wrong = Vec::new();
    for number in begun {
        let book = &found[number];
        wrong.extend(check(book).into_iter().map(|it| format!("{}: {it}", group(number))));
        let entries = book.log.len();
        world.line(&format_args!("{}: {entries} entries", group(number)));
        if entries < LOG_MIN {
            wrong.push(format!("{} has only {entries} entries: too few to show", group(number)));
        }
    }
    Ok(wrong)
}

/// Takes in what a mailbox holds.
fn note(
    found: &mut [Group],
    mailbox: &Recipient,
    entries: &[(tidemark_types::Seq, Entry)],
) -> Result<()> {
    for (seq, entry) in entries {
        match (mailbox, &entry.content) {
            (Recipient::Group(id), Content::Group(of)) => {
                let number = number_of(id)?;
                if of.seq != *seq || of.group != *id {
                    bail!("{id} has {entry:?} at {seq}");
                }
                found[number].log.push((seq.get(), said(entry, &of.event)?));
            }
            (Recipient::User(owner), Content::Group(of)) => {
                let (number, owner) = user(owner)?;
                if of.group != group(number) {
                    bail!("{owner} of {number} has {entry:?}");
                }
                let given = found[number].given.entry(owner).or_default();
                given.push((of.seq.get(), said(entry, &of.event)?));
            }
            (Recipient::User(owner), Content::Refused { recipient: Recipient::Group(_), .. }) => {
                let (number, _) = user(owner)?;
                let Origin::Backend { id, .. } = &entry.origin else { bail!("{entry:?}") };
                found[number].refused.push(u128::from_be_bytes(*id.as_bytes()));
            }
            _ => bail!("{mailbox} has {entry:?}"),
        }
    }
    Ok(())
}

fn number_of(id: &GroupId) -> Result<usize> {
    (0..2).find(|number| group(*number) == *id).with_context(|| format!("there is no {id}"))
}

/// An entry in the checker's words.
fn said(entry: &Entry, event: &GroupEvent) -> Result<Said> {
    let numbers = |users: &[UserId]| {
        let mut numbers =
            users.iter().map(|name| Ok(user(name)?.1)).collect::<Result<Vec<User>>>()?;
        numbers.sort_unstable();
        Ok::<_, anyhow::Error>(numbers)
    };
    let sender = user(entry.origin.sender())?.1;
    Ok(match event {
        GroupEvent::Message(message) => {
            let id = u128::from_be_bytes(*message.client_msg_id.as_bytes());
            if message.body != bytes_of(id) {
                bail!("{entry:?} is not what was sent");
            }
            Said::Message { sender, id }
        }
        GroupEvent::Created { members } => {
            let mut users = numbers(members)?;
            users.push(sender);
            Said::Joined(users)
        }
        GroupEvent::Joined { users } => Said::Joined(numbers(users)?),
        GroupEvent::Left { users } => Said::Left(numbers(users)?),
        GroupEvent::RoleSet { .. } | GroupEvent::PolicySet { .. } | GroupEvent::Deleted => {
            Said::Other
        }
    })
}
