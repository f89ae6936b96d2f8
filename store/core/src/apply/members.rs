//! A group's members while a command works on them: buckets are read when they are needed, and
//! those that were changed are written once.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use tidemark_types::{GroupId, Seq, UserId};

use crate::group::{Group, Member, Members, Role, Span};
use crate::key::MembersKey;
use crate::storage::Fatal;
use crate::transaction::Step;

/// The members of one group.
pub(super) struct Roll {
    group: GroupId,
    open: BTreeMap<u32, Bucket>,
}

#[derive(Default)]
struct Bucket {
    members: Members,
    changed: bool,
}

impl Roll {
    /// Nothing read yet.
    pub(super) fn of(group: &GroupId) -> Self {
        Roll { group: group.clone(), open: BTreeMap::new() }
    }

    /// What this user may do; none for one who is not a member.
    pub(super) fn role(
        &mut self,
        step: &Step<'_>,
        group: &Group,
        user: &UserId,
    ) -> Result<Option<Role>, Fatal> {
        let bucket = self.bucket(step, group.bucket_of(user))?;
        Ok(find(&bucket.members, user).ok().and_then(|at| bucket.members.members[at].role))
    }

    /// The user is a member from this seq of the log on.
    pub(super) fn join(
        &mut self,
        step: &Step<'_>,
        group: &Group,
        user: &UserId,
        role: Role,
        from: Seq,
    ) -> Result<(), Fatal> {
        let bucket = self.changed(step, group.bucket_of(user))?;
        let at = find(&bucket.members, user).unwrap_or_else(|at| {
            let member = Member { user: user.clone(), role: None, spans: Vec::new() };
            bucket.members.members.insert(at, member);
            at
        });
        let member = &mut bucket.members.members[at];
        member.role = Some(role);
        member.spans.push(Span { from, to: None });
        Ok(())
    }

    /// The user is a member up to this seq of the log.
    pub(super) fn leave(
        &mut self,
        step: &Step<'_>,
        group: &Group,
        user: &UserId,
        last: Seq,
    ) -> Result<(), Fatal> {
        let member = self.known(step, group, user)?;
        member.role = None;
        if let Some(span) = member.spans.last_mut() {
            span.to = Some(last);
        }
        Ok(())
    }

    /// The member has this role.
    pub(super) fn set_role(
        &mut self,
        step: &Step<'_>,
        group: &Group,
        user: &UserId,
        role: Role,
    ) -> Result<(), Fatal> {
        self.known(step, group, user)?.role = Some(role);
        Ok(())
    }

    /// Everything up to this seq was given: what ended there is done with, and so is a user who has
    /// left and has nothing else to be given.
    pub(super) fn pass(
        &mut self,
        step: &Step<'_>,
        group: &Group,
        user: &UserId,
        seq: Seq,
    ) -> Result<(), Fatal> {
        let bucket = self.changed(step, group.bucket_of(user))?;
        if let Ok(at) = find(&bucket.members, user) {
            let member = &mut bucket.members.members[at];
            member.spans.retain(|span| span.to.is_none_or(|to| to > seq));
            if member.spans.is_empty() {
                bucket.members.members.remove(at);
            }
        }
        Ok(())
    }

    /// Who of a bucket was a member at this seq of the log.
    pub(super) fn at(
        &mut self,
        step: &Step<'_>,
        bucket: u32,
        seq: Seq,
    ) -> Result<Vec<UserId>, Fatal> {
        let members = &self.bucket(step, bucket)?.members.members;
        let given = members.iter().filter(|member| member.was_in(seq));
        Ok(given.map(|member| member.user.clone()).collect())
    }

    /// Nobody is in the bucket any more.
    pub(super) fn empty(&mut self, step: &Step<'_>, bucket: u32) -> Result<(), Fatal> {
        if !self.bucket(step, bucket)?.members.members.is_empty() {
            self.changed(step, bucket)?.members.members.clear();
        }
        Ok(())
    }

    /// Writes what was changed.
    pub(super) fn save(self, step: &mut Step<'_>) {
        for (bucket, Bucket { members, .. }) in
            self.open.into_iter().filter(|(_, bucket)| bucket.changed)
        {
            let key = MembersKey { group: self.group.clone(), bucket };
            match members.members.is_empty() {
                true => step.delete(&key),
                false => step.put(&key, &members),
            }
        }
    }

    fn bucket(&mut self, step: &Step<'_>, number: u32) -> Result<&mut Bucket, Fatal> {
        Ok(match self.open.entry(number) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(vacant) => {
                let key = MembersKey { group: self.group.clone(), bucket: number };
                let members = step.get(&key)?.unwrap_or_default();
                vacant.insert(Bucket { members, changed: false })
            }
        })
    }

    fn changed(&mut self, step: &Step<'_>, number: u32) -> Result<&mut Bucket, Fatal> {
        let bucket = self.bucket(step, number)?;
        bucket.changed = true;
        Ok(bucket)
    }

    fn known(
        &mut self,
        step: &Step<'_>,
        group: &Group,
        user: &UserId,
    ) -> Result<&mut Member, Fatal> {
        let missing = format!("group {}: {user} is a member and not there", self.group);
        let bucket = self.changed(step, group.bucket_of(user))?;
        let at = find(&bucket.members, user).map_err(|_| Fatal::Corrupt(missing))?;
        Ok(&mut bucket.members.members[at])
    }
}

/// Where a user is, or would be.
fn find(members: &Members, user: &UserId) -> Result<usize, usize> {
    members.members.binary_search_by(|member| member.user.cmp(user))
}
