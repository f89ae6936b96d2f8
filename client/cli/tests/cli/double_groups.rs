//! The double's groups: one, with two pages of members.

use tidemark_proto::v1::groups_server::Groups;
use tidemark_proto::v1::{
    AddMembersRequest, AddMembersResponse, CreateGroupRequest, CreateGroupResponse,
    DeleteGroupRequest, DeleteGroupResponse, GetGroupRequest, GetGroupResponse, GroupMember,
    GroupPolicy, GroupRole, GroupWho, MembersRequest, MembersResponse, RemoveMembersRequest,
    RemoveMembersResponse, SetPolicyRequest, SetPolicyResponse, SetRoleRequest, SetRoleResponse,
};
use tonic::{Request, Response, Status};

use crate::double::Gateway;

#[tonic::async_trait]
impl Groups for Gateway {
    async fn create(
        &self,
        request: Request<CreateGroupRequest>,
    ) -> Result<Response<CreateGroupResponse>, Status> {
        let asked = self.meet(request).await?;
        assert_eq!((asked.owner.as_str(), asked.members_max), ("alice", 20));
        assert_eq!(asked.members, ["bob", "carol"]);
        assert_eq!(asked.policy.map(|policy| policy.post()), Some(GroupWho::Admins));
        Ok(Response::new(CreateGroupResponse {}))
    }

    async fn add(
        &self,
        request: Request<AddMembersRequest>,
    ) -> Result<Response<AddMembersResponse>, Status> {
        let asked = self.meet(request).await?;
        let joins = asked.users == [asked.by.clone()];
        assert!(joins || (asked.by.is_empty() && asked.users == ["dave", "eve"]), "{asked:?}");
        Ok(Response::new(AddMembersResponse {}))
    }

    async fn remove(
        &self,
        request: Request<RemoveMembersRequest>,
    ) -> Result<Response<RemoveMembersResponse>, Status> {
        let asked = self.meet(request).await?;
        let leaves = asked.users == [asked.by.clone()];
        assert!(leaves || (asked.by == "alice" && asked.users == ["dave"]), "{asked:?}");
        Ok(Response::new(RemoveMembersResponse {}))
    }

    async fn set_role(
        &self,
        request: Request<SetRoleRequest>,
    ) -> Result<Response<SetRoleResponse>, Status> {
        let asked = self.meet(request).await?;
        assert_eq!((asked.user.as_str(), asked.role()), ("bob", GroupRole::Admin));
        Ok(Response::new(SetRoleResponse {}))
    }

    async fn set_policy(
        &self,
        request: Request<SetPolicyRequest>,
    ) -> Result<Response<SetPolicyResponse>, Status> {
        let asked = self.meet(request).await?;
        let policy = GroupPolicy { open: true, ..GroupPolicy::default() };
        assert_eq!(asked.policy, Some(policy));
        Ok(Response::new(SetPolicyResponse {}))
    }

    async fn delete(
        &self,
        request: Request<DeleteGroupRequest>,
    ) -> Result<Response<DeleteGroupResponse>, Status> {
        self.meet(request).await?;
        Ok(Response::new(DeleteGroupResponse {}))
    }

    async fn get(
        &self,
        request: Request<GetGroupRequest>,
    ) -> Result<Response<GetGroupResponse>, Status> {
        self.meet(request).await?;
        Ok(Response::new(GetGroupResponse {
            owner: "alice".to_owned(),
            members: 3,
            members_max: 20,
            policy: Some(GroupPolicy { post: GroupWho::Admins.into(), ..GroupPolicy::default() }),
            role: GroupRole::Unspecified.into(),
            head: 41,
            given: 40,
        }))
    }

    async fn members(
        &self,
        request: Request<MembersRequest>,
    ) -> Result<Response<MembersResponse>, Status> {
        let page = self.meet(request).await?.page;
        let member =
            |user: &str, role: GroupRole| GroupMember { user: user.to_owned(), role: role.into() };
        Ok(Response::new(match page {
            0 => MembersResponse { members: vec![member("bob", GroupRole::Member)], next_page: 1 },
            1 => MembersResponse { members: Vec::new(), next_page: 2 },
            _ => MembersResponse { members: vec![member("alice", GroupRole::Owner)], next_page: 0 },
        }))
    }
}
