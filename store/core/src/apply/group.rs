//! Groups (R10): who may change one, and who may send to it.
//!
//! A command is judged here, in the group's shard, by the roles at that seq of the group's log; what
//! it changes is an entry of that log. What is as it was asked for is done already, so that an
//! unknown outcome may be repeated; only members and those who are named are told even that.

use tidemark_types::limits::GROUP_CHANGE_USERS_MAX;
use tidemark_types::{ErrorCode, GroupId, UserId};

use super::fanout::Work;
use crate::group::{
    Group, GroupAction, GroupCommand, GroupEvent, NewGroup, Policy, Role, each_once,
};
use crate::reply::{Outcome, Reject, Reply};
use crate::storage::Fatal;
use crate::transaction::{Step, Stop};
use crate::value::{Message, Origin, Shard};

/// A change as it was decided; none where all is so already.
type Decision = Result<Option<GroupEvent>, Stop>;

/// `Group`.
pub(super) fn change(
    step: &mut Step<'_>,
    shard: &mut Shard,
    command: &GroupCommand,
) -> Result<Reply, Stop> {
    let GroupCommand { group: id, by, action } = command;
    check_users(action.users())?;
    let known = Work::of(step, id)?;
    if let GroupAction::Create(new) = action {
        return match known {
            Some(known) => again(&known.group, new),
            None => create(step, shard, id, by.as_ref(), new),
        };
    }
    let Some(mut work) = known else { return refused(ErrorCode::GroupGone) };
    if work.group.deleted {
        return match action {
            GroupAction::Delete => Ok(Reply::Done),
            _ => refused(ErrorCode::GroupGone),
        };
    }
    let asker = Asker::of(&mut work, step, by.as_ref())?;
    if let Some(event) = asker.decide(&mut work, step, action)? {
        enact(step, shard, &mut work, asker.name, event)?;
        work.save(step);
    }
    Ok(Reply::Done)
}

/// Takes a message into a group's log, or refuses it: membership and the right to post are judged
/// at this seq of the log.
pub(super) fn post(
    step: &mut Step<'_>,
    shard: &mut Shard,
    origin: &Origin,
    message: &Message,
    group: &GroupId,
) -> Result<Outcome, Fatal> {
    let known = Work::of(step, group)?.filter(|work| !work.group.deleted);
    let Some(mut work) = known else { return Ok(Outcome::Refused(ErrorCode::GroupGone)) };
    let role = work.roll.role(step, &work.group, origin.sender())?;
    let may_post = role.is_some_and(|role| work.group.policy.post.includes(role));
    if !may_post {
        return Ok(Outcome::Refused(ErrorCode::NotMember));
    }
    let event = GroupEvent::Message(message.clone());
    Ok(match work.append(step, shard, origin.clone(), event)? {
        Ok(seq) => {
            work.save(step);
            Outcome::Appended(seq)
        }
        Err(code) => Outcome::Refused(code),
    })
}

fn refused<T>(code: ErrorCode) -> Result<T, Stop> {
    Err(Reject::Group(code).into())
}

fn check_users(users: &[UserId]) -> Result<(), Reject> {
    match users.len() {
        0..=GROUP_CHANGE_USERS_MAX => Ok(()),
        many => Err(Reject::Invalid(format!("{many} users: up to {GROUP_CHANGE_USERS_MAX}"))),
    }
}

/// `Create` of a group that is there, or was.
fn again(known: &Group, new: &NewGroup) -> Result<Reply, Stop> {
    match known.creation == new.hash() {
        _ if known.deleted => refused(ErrorCode::GroupGone),
        true => Ok(Reply::Done),
        false => Err(Reject::Conflict.into()),
    }
}

fn create(
    step: &mut Step<'_>,
    shard: &mut Shard,
    id: &GroupId,
    by: Option<&UserId>,
    new: &NewGroup,
) -> Result<Reply, Stop> {
    if by.is_some_and(|by| *by != new.owner) {
        return Err(Reject::Invalid("owner: is not the one who asks".to_owned()).into());
    }
    let most = shard.settings.group_members_max;
    if new.members_max == 0 || new.members_max > most {
        let text = format!("members_max: {}, and must be 1 to {most}", new.members_max);
        return Err(Reject::Invalid(text).into());
    }
    let mut members = each_once(&new.members);
    members.retain(|user| *user != new.owner);
    if members.len() >= new.members_max as usize {
        return refused(ErrorCode::GroupFull);
    }
    let group = Group {
        creation: new.hash(),
        owner: new.owner.clone(),
        members: 0,
        members_max: new.members_max,
        policy: new.policy,
        deleted: false,
        fan_out: None,
    };
    let mut work = Work::new(step, id, group)?;
    enact(step, shard, &mut work, new.owner.clone(), GroupEvent::Created { members })?;
    work.save(step);
    Ok(Reply::Done)
}

/// Who asks for a change.
struct Asker<'a> {
    by: Option<&'a UserId>,
    /// In whose name it is done.
    name: UserId,
    /// What the one who asks may do; a back end everything, a stranger nothing.
    role: Option<Role>,
}

impl<'a> Asker<'a> {
    fn of(work: &mut Work, step: &Step<'_>, by: Option<&'a UserId>) -> Result<Self, Fatal> {
        let (name, role) = match by {
            None => (work.group.owner.clone(), Some(Role::Owner)),
            Some(user) => (user.clone(), work.roll.role(step, &work.group, user)?),
        };
        Ok(Asker { by, name, role })
    }

    fn decide(&self, work: &mut Work, step: &Step<'_>, action: &GroupAction) -> Decision {
        match action {
            GroupAction::Create(_) => unreachable!("it was answered before"),
            GroupAction::Add { users } => self.add(work, step, each_once(users)),
            GroupAction::Remove { users } => self.remove(work, step, each_once(users)),
            GroupAction::SetRole { user, role } => self.set_role(work, step, user, *role),
            GroupAction::SetPolicy { policy } => self.set_policy(work, *policy),
            GroupAction::Delete => {
                self.must_be(Role::Owner)?;
                Ok(Some(GroupEvent::Deleted))
            }
        }
    }

    fn must_be(&self, role: Role) -> Result<(), Stop> {
        match self.role {
            Some(own) if own >= role => Ok(()),
            Some(_) => refused(ErrorCode::Forbidden),
            None => refused(ErrorCode::NotMember),
        }
    }

    /// Is it about the one who asks alone?
    fn is_about_self(&self, users: &[UserId]) -> bool {
        matches!(users, [user] if Some(user) == self.by)
    }

    fn add(&self, work: &mut Work, step: &Step<'_>, mut users: Vec<UserId>) -> Decision {
        let joins = self.is_about_self(&users);
        if self.role.is_none() && !joins {
            return refused(ErrorCode::NotMember);
        }
        retain(&mut users, |user| Ok(work.roll.role(step, &work.group, user)?.is_none()))?;
        if users.is_empty() {
            return Ok(None);
        }
        let may = match self.role {
            Some(role) => work.group.policy.add.includes(role),
            None => work.group.policy.open,
        };
        if !may {
            return refused(ErrorCode::Forbidden);
        }
        if work.group.members as usize + users.len() > work.group.members_max as usize {
            return refused(ErrorCode::GroupFull);
        }
        Ok(Some(GroupEvent::Joined { users }))
    }

    fn remove(&self, work: &mut Work, step: &Step<'_>, mut users: Vec<UserId>) -> Decision {
        let leaves = self.is_about_self(&users);
        if self.role.is_none() && !leaves {
            return refused(ErrorCode::NotMember);
        }
        let mut highest = None;
        retain(&mut users, |user| {
            let role = work.roll.role(step, &work.group, user)?;
            highest = highest.max(role);
            Ok(role.is_some())
        })?;
        let Some(highest) = highest else { return Ok(None) };
        // An owner hands over before leaving; below that everybody may leave, and an admin removes
        // members, the owner admins too.
        if highest == Role::Owner || !(leaves || self.role > Some(highest)) {
            return refused(ErrorCode::Forbidden);
        }
        Ok(Some(GroupEvent::Left { users }))
    }

    fn set_role(&self, work: &mut Work, step: &Step<'_>, user: &UserId, role: Role) -> Decision {
        if self.role.is_none() {
            return refused(ErrorCode::NotMember);
        }
        let Some(before) = work.roll.role(step, &work.group, user)? else {
            return refused(ErrorCode::NotMember);
        };
        if before == role {
            return Ok(None);
        }
        let steps_down = self.by == Some(user) && role < before;
        if before == Role::Owner || !(steps_down || self.role == Some(Role::Owner)) {
            return refused(ErrorCode::Forbidden);
        }
        Ok(Some(GroupEvent::RoleSet { user: user.clone(), role }))
    }

    fn set_policy(&self, work: &Work, policy: Policy) -> Decision {
        match self.role {
            None => refused(ErrorCode::NotMember),
            Some(_) if work.group.policy == policy => Ok(None),
            Some(_) => {
                self.must_be(Role::Admin)?;
                Ok(Some(GroupEvent::PolicySet { policy }))
            }
        }
    }
}

/// Keeps the users for whom this is so.
fn retain(
    users: &mut Vec<UserId>,
    mut keep: impl FnMut(&UserId) -> Result<bool, Fatal>,
) -> Result<(), Fatal> {
    let mut kept = Vec::with_capacity(users.len());
    for user in users.drain(..) {
        if keep(&user)? {
            kept.push(user);
        }
    }
    *users = kept;
    Ok(())
}

/// Makes a change, which becomes the log's next entry.
fn enact(
    step: &mut Step<'_>,
    shard: &mut Shard,
    work: &mut Work,
    sender: UserId,
    event: GroupEvent,
) -> Result<(), Stop> {
    let Ok(seq) = work.vacancy() else { return refused(ErrorCode::SeqExhausted) };
    let Work { group, roll, .. } = work;
    let count = |users: &[UserId]| u32::try_from(users.len()).expect("a change names few users");
    match &event {
        GroupEvent::Message(_) => {}
        GroupEvent::Created { members } => {
            let owner = group.owner.clone();
            roll.join(step, group, &owner, Role::Owner, seq)?;
            for user in members {
                roll.join(step, group, user, Role::Member, seq)?;
            }
            group.members = 1 + count(members);
        }
        GroupEvent::Joined { users } => {
            for user in users {
                roll.join(step, group, user, Role::Member, seq)?;
            }
            group.members += count(users);
        }
        GroupEvent::Left { users } => {
            for user in users {
                roll.leave(step, group, user, seq)?;
            }
            group.members -= count(users);
        }
        GroupEvent::RoleSet { user, role } => {
            if *role == Role::Owner {
                let former = std::mem::replace(&mut group.owner, user.clone());
                roll.set_role(step, group, &former, Role::Admin)?;
            }
            roll.set_role(step, group, user, *role)?;
        }
        GroupEvent::PolicySet { policy } => group.policy = *policy,
        GroupEvent::Deleted => {
            group.deleted = true;
            group.members = 0;
        }
    }
    let origin = Origin::Group { sender, group: work.id.clone(), seq };
    match work.append(step, shard, origin, event)? {
        Ok(_) => Ok(()),
        Err(code) => refused(code),
    }
}
