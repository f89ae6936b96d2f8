//! `Groups`: who asks is checked here; what they may do in a group, the group's shard decides.

use tidemark_proto::group::{by, some_users, users};
use tidemark_proto::v1::groups_server::Groups;
use tidemark_proto::v1::{
    AddMembersRequest, AddMembersResponse, CreateGroupRequest, CreateGroupResponse,
    DeleteGroupRequest, DeleteGroupResponse, GetGroupRequest, GetGroupResponse, GroupMember,
    MembersRequest, MembersResponse, RemoveMembersRequest, RemoveMembersResponse, SetPolicyRequest,
    SetPolicyResponse, SetRoleRequest, SetRoleResponse,
};
use tidemark_proto::{Failure, convert};
use tidemark_store_core::Command;
use tidemark_store_core::group::{GroupAction, GroupCommand, NewGroup};
use tidemark_store_core::group_read::{GroupInfo, MembersPage};
use tidemark_store_core::read::{Answer, Query};
use tidemark_types::limits::GROUP_MEMBERS_DEFAULT;
use tidemark_types::{GroupId, UserId};
use tonic::{Request, Response, Status};

use super::Backend;
use super::caller::Caller;
use crate::{failure, groups};

/// The group of a call, and who asks: whom the caller may act for, or a back end itself.
fn asked(caller: &Caller, group: &str, asks: &str) -> Result<(GroupId, Option<UserId>), Failure> {
    let (group, by) = (convert::name("group", group)?, by(asks)?);
    match &by {
        Some(user) => caller.act_for(user)?,
        None => caller.act_for_groups()?,
    }
    Ok((group, by))
}

impl Backend {
    async fn change_group(
        &self,
        (group, by): (GroupId, Option<UserId>),
        action: GroupAction,
    ) -> Result<(), Failure> {
        self.done(Command::Group(GroupCommand { group, by, action })).await
    }

    async fn create_group(
        &self,
        caller: Caller,
        request: CreateGroupRequest,
    ) -> Result<CreateGroupResponse, Failure> {
        let (group, owner) = asked(&caller, &request.group, &request.owner)?;
        let owner = convert::required("owner", owner)?;
        let policy = request.policy.as_ref().map(groups::called_policy).transpose()?;
        let new = NewGroup {
            owner: owner.clone(),
            members: users("members", &request.members)?,
            members_max: match request.members_max {
                0 => GROUP_MEMBERS_DEFAULT,
                wanted => wanted,
            },
            policy: policy.unwrap_or_default(),
        };
        self.change_group((group, Some(owner)), GroupAction::Create(new)).await?;
        Ok(CreateGroupResponse {})
    }

    async fn add_members(
        &self,
        caller: Caller,
        request: AddMembersRequest,
    ) -> Result<AddMembersResponse, Failure> {
        let asked = asked(&caller, &request.group, &request.by)?;
        let users = some_users("users", &request.users)?;
        self.change_group(asked, GroupAction::Add { users }).await?;
        Ok(AddMembersResponse {})
    }

    async fn remove_members(
        &self,
        caller: Caller,
        request: RemoveMembersRequest,
    ) -> Result<RemoveMembersResponse, Failure> {
        let asked = asked(&caller, &request.group, &request.by)?;
        let users = some_users("users", &request.users)?;
        self.change_group(asked, GroupAction::Remove { users }).await?;
        Ok(RemoveMembersResponse {})
    }

    async fn set_role_in_group(
        &self,
        caller: Caller,
        request: SetRoleRequest,
    ) -> Result<SetRoleResponse, Failure> {
        let asked = asked(&caller, &request.group, &request.by)?;
        let user = convert::name("user", &request.user)?;
        let role = groups::called_role(request.role)?;
        self.change_group(asked, GroupAction::SetRole { user, role }).await?;
        Ok(SetRoleResponse {})
    }

    async fn set_policy_of_group(
        &self,
        caller: Caller,
        request: SetPolicyRequest,
    ) -> Result<SetPolicyResponse, Failure> {
        let asked = asked(&caller, &request.group, &request.by)?;
        let policy = convert::required("policy", request.policy.as_ref())?;
        let policy = groups::called_policy(policy)?;
        self.change_group(asked, GroupAction::SetPolicy { policy }).await?;
        Ok(SetPolicyResponse {})
    }

    async fn delete_group(
        &self,
        caller: Caller,
        request: DeleteGroupRequest,
    ) -> Result<DeleteGroupResponse, Failure> {
        let asked = asked(&caller, &request.group, &request.by)?;
        self.change_group(asked, GroupAction::Delete).await?;
        Ok(DeleteGroupResponse {})
    }

    async fn get_group(
        &self,
        caller: Caller,
        request: GetGroupRequest,
    ) -> Result<GetGroupResponse, Failure> {
        let (group, by) = asked(&caller, &request.group, &request.by)?;
        match self.query(Query::Group { group, by }).await? {
            Answer::Group(Ok(info)) => Ok(known(info)),
            Answer::Group(Err(code)) => Err(Failure::new(code)),
            other => Err(failure::of_answer(other)),
        }
    }

    async fn group_members(
        &self,
        caller: Caller,
        request: MembersRequest,
    ) -> Result<MembersResponse, Failure> {
        let (group, by) = asked(&caller, &request.group, &request.by)?;
        let page = request.page;
        match self.query(Query::GroupMembers { group, by, page }).await? {
            Answer::GroupMembers(Ok(MembersPage { members, pages })) => Ok(MembersResponse {
                members: members
                    .into_iter()
                    .map(|(user, role)| GroupMember {
                        user: user.to_string(),
                        role: groups::wire_role(role).into(),
                    })
                    .collect(),
                next_page: page.checked_add(1).filter(|next| *next < pages).unwrap_or(0),
            }),
            Answer::GroupMembers(Err(code)) => Err(Failure::new(code)),
            other => Err(failure::of_answer(other)),
        }
    }
}

fn known(info: GroupInfo) -> GetGroupResponse {
    GetGroupResponse {
        owner: info.owner.to_string(),
        members: info.members,
        members_max: info.members_max,
        policy: Some(groups::wire_policy(info.policy)),
        role: info.role.map(groups::wire_role).unwrap_or_default().into(),
        head: info.head.get(),
        given: info.given.get(),
    }
}

#[tonic::async_trait]
impl Groups for Backend {
    async fn create(
        &self,
        request: Request<CreateGroupRequest>,
    ) -> Result<Response<CreateGroupResponse>, Status> {
        let answer = |caller, request| self.create_group(caller, request);
        self.call("Groups.Create", request, answer).await
    }

    async fn add(
        &self,
        request: Request<AddMembersRequest>,
    ) -> Result<Response<AddMembersResponse>, Status> {
        let answer = |caller, request| self.add_members(caller, request);
        self.call("Groups.Add", request, answer).await
    }

    async fn remove(
        &self,
        request: Request<RemoveMembersRequest>,
    ) -> Result<Response<RemoveMembersResponse>, Status> {
        let answer = |caller, request| self.remove_members(caller, request);
        self.call("Groups.Remove", request, answer).await
    }

    async fn set_role(
        &self,
        request: Request<SetRoleRequest>,
    ) -> Result<Response<SetRoleResponse>, Status> {
        let answer = |caller, request| self.set_role_in_group(caller, request);
        self.call("Groups.SetRole", request, answer).await
    }

    async fn set_policy(
        &self,
        request: Request<SetPolicyRequest>,
    ) -> Result<Response<SetPolicyResponse>, Status> {
        let answer = |caller, request| self.set_policy_of_group(caller, request);
        self.call("Groups.SetPolicy", request, answer).await
    }

    async fn delete(
        &self,
        request: Request<DeleteGroupRequest>,
    ) -> Result<Response<DeleteGroupResponse>, Status> {
        let answer = |caller, request| self.delete_group(caller, request);
        self.call("Groups.Delete", request, answer).await
    }

    async fn get(
        &self,
        request: Request<GetGroupRequest>,
    ) -> Result<Response<GetGroupResponse>, Status> {
        let answer = |caller, request| self.get_group(caller, request);
        self.call("Groups.Get", request, answer).await
    }

    async fn members(
        &self,
        request: Request<MembersRequest>,
    ) -> Result<Response<MembersResponse>, Status> {
        let answer = |caller, request| self.group_members(caller, request);
        self.call("Groups.Members", request, answer).await
    }
}
