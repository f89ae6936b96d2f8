//! `group`: making groups, and changing and looking at them. A change that is so already is done, so
//! whatever is unknown may be said again.

use std::fmt;

use serde::Serialize;
use tidemark_proto::v1::groups_client::GroupsClient;
use tidemark_proto::v1::{
    AddMembersRequest, CreateGroupRequest, DeleteGroupRequest, GetGroupRequest, GetGroupResponse,
    GroupPolicy, GroupRole, GroupWho, MembersRequest, RemoveMembersRequest, SetPolicyRequest,
    SetRoleRequest,
};
use tidemark_token::Role;
use tidemark_types::{GroupId, UserId};

use crate::arguments::{Allowed, Asked, Group, MemberRole, Who};
use crate::change::{Policy, role};
use crate::error::Error;
use crate::gateways::Gateways;
use crate::outcome::Outcome;
use crate::output::{Output, plain, row, table};

/// Does what was asked of a group.
pub(crate) async fn run(
    group: Group,
    gateways: &mut Gateways,
    output: Output,
) -> Result<(), Error> {
    match group {
        Group::Create { group, owner, members, max, allowed } => {
            let request = CreateGroupRequest {
                group: group.to_string(),
                owner: owner.to_string(),
                members: names(&members),
                members_max: max.map_or(0, Into::into),
                policy: Some(policy(&allowed)),
            };
            let rpc = async |channel, request| GroupsClient::new(channel).create(request).await;
            gateways.call(Role::Service, Outcome::of_change(), request, rpc).await?;
            print(output, &group, "created", &members)
        }
        Group::Join { group, user } => {
            let asked = Asked { group, by: Some(user.clone()) };
            add(gateways, &asked, std::slice::from_ref(&user)).await?;
            print(output, &asked.group, "joined", &[user])
        }
        Group::Add { asked, users } => {
            add(gateways, &asked, &users).await?;
            print(output, &asked.group, "joined", &users)
        }
        Group::Leave { group, user } => {
            let asked = Asked { group, by: Some(user.clone()) };
            remove(gateways, &asked, std::slice::from_ref(&user)).await?;
            print(output, &asked.group, "left", &[user])
        }
        Group::Kick { asked, users } => {
            remove(gateways, &asked, &users).await?;
            print(output, &asked.group, "left", &users)
        }
        Group::Role { asked, user, role } => {
            set_role(gateways, &asked, &user, role).await?;
            print(output, &asked.group, "role set", &[user])
        }
        Group::Policy { asked, allowed } => {
            let (group, by) = parts(&asked);
            let request = SetPolicyRequest { group, by, policy: Some(policy(&allowed)) };
            let rpc = async |channel, request| GroupsClient::new(channel).set_policy(request).await;
            gateways.call(Role::Service, Outcome::of_change(), request, rpc).await?;
            print(output, &asked.group, "policy set", &[])
        }
        Group::Delete { asked } => {
            let (group, by) = parts(&asked);
            let request = DeleteGroupRequest { group, by };
            let rpc = async |channel, request| GroupsClient::new(channel).delete(request).await;
            gateways.call(Role::Service, Outcome::of_change(), request, rpc).await?;
            print(output, &asked.group, "deleted", &[])
        }
        Group::Info { asked } => info(gateways, &asked, output).await,
        Group::Members { asked } => members(gateways, &asked, output).await,
    }
}

fn names(users: &[UserId]) -> Vec<String> {
    users.iter().map(ToString::to_string).collect()
}

/// The group, and who asks, as a call names them.
fn parts(asked: &Asked) -> (String, String) {
    let by = asked.by.as_ref().map(ToString::to_string).unwrap_or_default();
    (asked.group.to_string(), by)
}

fn policy(allowed: &Allowed) -> GroupPolicy {
    let who = |who| match who {
        Who::Everybody => GroupWho::Everybody,
        Who::Admins => GroupWho::Admins,
    };
    let Allowed { post, add, open } = allowed;
    GroupPolicy { post: who(*post).into(), add: who(*add).into(), open: *open }
}

async fn add(gateways: &mut Gateways, asked: &Asked, users: &[UserId]) -> Result<(), Error> {
    let (group, by) = parts(asked);
    let request = AddMembersRequest { group, by, users: names(users) };
    let rpc = async |channel, request| GroupsClient::new(channel).add(request).await;
    gateways.call(Role::Service, Outcome::of_change(), request, rpc).await?;
    Ok(())
}

async fn remove(gateways: &mut Gateways, asked: &Asked, users: &[UserId]) -> Result<(), Error> {
    let (group, by) = parts(asked);
    let request = RemoveMembersRequest { group, by, users: names(users) };
    let rpc = async |channel, request| GroupsClient::new(channel).remove(request).await;
    gateways.call(Role::Service, Outcome::of_change(), request, rpc).await?;
    Ok(())
}

async fn set_role(
    gateways: &mut Gateways,
    asked: &Asked,
    user: &UserId,
    role: MemberRole,
) -> Result<(), Error> {
    let (group, by) = parts(asked);
    let role = match role {
        MemberRole::Member => GroupRole::Member,
        MemberRole::Admin => GroupRole::Admin,
        MemberRole::Owner => GroupRole::Owner,
    };
    let request = SetRoleRequest { group, by, user: user.to_string(), role: role.into() };
    let rpc = async |channel, request| GroupsClient::new(channel).set_role(request).await;
    gateways.call(Role::Service, Outcome::of_change(), request, rpc).await?;
    Ok(())
}

async fn info(gateways: &mut Gateways, asked: &Asked, output: Output) -> Result<(), Error> {
    let (group, by) = parts(asked);
    let request = GetGroupRequest { group, by };
    let rpc = async |channel, request| GroupsClient::new(channel).get(request).await;
    let known = gateways.call(Role::Service, Outcome::of_read(), request, rpc).await?;
    Ok(output.print(&Info::new(&asked.group, &known))?)
}

/// Prints the members as pages come.
async fn members(gateways: &mut Gateways, asked: &Asked, output: Output) -> Result<(), Error> {
    let mut page = 0;
    loop {
        let (group, by) = parts(asked);
        let request = MembersRequest { group, by, page };
        let rpc = async |channel, request| GroupsClient::new(channel).members(request).await;
        let found = gateways.call(Role::Service, Outcome::of_read(), request, rpc).await?;
        for member in &found.members {
            output.print(&Member { user: member.user.clone(), role: role(member.role()) })?;
        }
        match found.next_page {
            next if next > page => page = next,
            _ => return Ok(()),
        }
    }
}

fn print(
    output: Output,
    group: &GroupId,
    done: &'static str,
    users: &[UserId],
) -> Result<(), Error> {
    Ok(output.print(&Done { group: group.to_string(), done, users: names(users) })?)
}

/// What is so now.
#[derive(Serialize)]
struct Done {
    group: String,
    done: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    users: Vec<String>,
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", plain(&self.group), self.done)?;
        match self.users.is_empty() {
            true => Ok(()),
            false => write!(f, " {}", plain(&self.users.join(", "))),
        }
    }
}

#[derive(Serialize)]
struct Member {
    user: String,
    role: &'static str,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}  {}", plain(&self.user), self.role)
    }
}

/// How a group stands.
#[derive(Serialize)]
struct Info {
    group: String,
    owner: String,
    members: u32,
    members_max: u32,
    policy: Policy,
    head: u32,
    given: u32,
}

impl Info {
    fn new(group: &GroupId, known: &GetGroupResponse) -> Self {
        Info {
            group: group.to_string(),
            owner: known.owner.clone(),
            members: known.members,
            members_max: known.members_max,
            policy: Policy::from(&known.policy.unwrap_or_default()),
            head: known.head,
            given: known.given,
        }
    }
}

impl fmt::Display for Info {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let members = format!("{} of {} at most", self.members, self.members_max);
        f.write_str(&table([
            row([&"group", &plain(&self.group)]),
            row([&"owner", &plain(&self.owner)]),
            row([&"members", &members]),
            row([&"policy", &self.policy]),
            row([&"last number of its log", &self.head]),
            row([&"given to all up to", &self.given]),
        ]))
    }
}
