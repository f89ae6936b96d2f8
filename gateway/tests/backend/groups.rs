//! `Groups`: who may ask, what is refused by its field, and what members are given.

use tidemark_proto::v1::group_change::Change;
use tidemark_proto::v1::groups_client::GroupsClient;
use tidemark_proto::v1::mailboxes_client::MailboxesClient;
use tidemark_proto::v1::messages_client::MessagesClient;
use tidemark_proto::v1::*;
use tidemark_types::ErrorCode;

use crate::gateway::{Caller, Gateway, bad_field, device_of, refused};
use crate::memory::{Fault, NOW};
use crate::messages;

// alice, grace and the group "team" live on one shard, and nothing is relayed here.
const TEAM: &str = "team";

fn create(members: &[&str]) -> CreateGroupRequest {
    CreateGroupRequest {
        group: TEAM.to_owned(),
        owner: "alice".to_owned(),
        members: members.iter().map(ToString::to_string).collect(),
        ..CreateGroupRequest::default()
    }
}

fn add(by: &str, user: &str) -> AddMembersRequest {
    AddMembersRequest { group: TEAM.to_owned(), by: by.to_owned(), users: vec![user.to_owned()] }
}

fn get(by: &str) -> GetGroupRequest {
    GetGroupRequest { group: TEAM.to_owned(), by: by.to_owned() }
}

fn groups(caller: Caller) -> GroupsClient<Caller> {
    GroupsClient::new(caller)
}

async fn entries(gateway: &Gateway, user: &str) -> Vec<Entry> {
    let request = SyncRequest { user: user.to_owned(), ..SyncRequest::default() };
    let answer = MailboxesClient::new(gateway.service()).sync(request).await.unwrap();
    answer.into_inner().page.unwrap().entries
}

#[tokio::test]
async fn members_are_given_changes_and_messages_in_one_order() {
    let gateway = Gateway::start().await;
    let mut service = groups(gateway.service());
    gateway.store.fail(&[Fault::Lost]);
    assert_eq!(refused(service.create(create(&["grace"])).await).code, ErrorCode::Unknown);
    // It was taken, and the same again is done.
    service.create(create(&["grace"])).await.unwrap();
    assert_eq!(refused(service.create(create(&[])).await).code, ErrorCode::Conflict);

    let team = Id { kind: IdKind::Group.into(), name: TEAM.to_owned() };
    let send = SendRequest { to: vec![team.clone()], ..messages::request("grace", "", 1) };
    let sent = MessagesClient::new(gateway.service()).send(send).await.unwrap().into_inner();
    assert_eq!(sent, SendResponse { seq: 0, time_ms: NOW.get() });
    let admin = GroupRole::Admin.into();
    let (group, by) = (TEAM.to_owned(), String::new());
    service
        .set_role(SetRoleRequest { group, by, user: "grace".to_owned(), role: admin })
        .await
        .unwrap();

    let of_grace = entries(&gateway, "grace").await;
    assert_eq!(of_grace, entries(&gateway, "alice").await);
    let [created, message, role_set] = &of_grace[..] else { panic!("{of_grace:?}") };
    let change = |entry: &Entry| match entry.content.clone() {
        Some(entry::Content::GroupChange(change)) => (change.group_seq, change.change.unwrap()),
        other => panic!("{other:?}"),
    };
    let members = vec!["grace".to_owned()];
    assert_eq!(change(created), (1, Change::Created(GroupCreated { members })));
    let user = "grace".to_owned();
    assert_eq!(change(role_set), (3, Change::RoleSet(GroupRoleSet { user, role: admin })));
    let place = GroupPlace { group: TEAM.to_owned(), seq: 3 };
    let key = Some(origin::Key::GroupChange(place));
    // A back end acts in the owner's name.
    assert_eq!(role_set.origin, Some(Origin { sender: "alice".to_owned(), key }));
    let Some(entry::Content::Message(said)) = &message.content else { panic!("{message:?}") };
    assert_eq!((said.conversation.as_ref(), said.group_seq), (Some(&team), 2));
    assert_eq!((&said.body[..], said.to.len()), (&b"hello"[..], 0));
    assert_eq!(message.origin, Some(messages::origin("grace", 1)));
}

#[tokio::test]
async fn a_device_acts_as_its_own_user_alone() {
    let gateway = Gateway::start().await;
    let mut alice = groups(gateway.by(device_of("alice")));
    let mut bob = groups(gateway.by(device_of("bob")));
    let denied = |code| assert_eq!(code, ErrorCode::PermissionDenied);
    denied(refused(bob.create(create(&[])).await).code);
    alice.create(create(&["grace"])).await.unwrap();
    denied(refused(bob.add(add("alice", "bob")).await).code);
    denied(refused(bob.add(add("", "bob")).await).code);
    denied(refused(alice.get(get("")).await).code);
    // What bob may ask, the group refuses.
    assert_eq!(refused(bob.add(add("bob", "bob")).await).code, ErrorCode::Forbidden);
    assert_eq!(refused(bob.get(get("bob")).await).code, ErrorCode::NotMember);
    alice.add(add("alice", "bob")).await.unwrap();
    let known = bob.get(get("bob")).await.unwrap().into_inner();
    assert_eq!((known.owner.as_str(), known.members, known.members_max), ("alice", 3, 500));
    assert_eq!((known.role(), known.head, known.given), (GroupRole::Member, 2, 2));
    let page = MembersRequest { group: TEAM.to_owned(), by: "bob".to_owned(), page: 0 };
    let mut found = Vec::new();
    let mut next = page.clone();
    loop {
        let page = bob.members(next.clone()).await.unwrap().into_inner();
        found.extend(page.members.into_iter().map(|member| (member.user, member.role)));
        match page.next_page {
            0 => break,
            page => next.page = page,
        }
    }
    found.sort();
    let role = |user: &str, role: GroupRole| (user.to_owned(), i32::from(role));
    let (owner, member) = (GroupRole::Owner, GroupRole::Member);
    assert_eq!(found, [role("alice", owner), role("bob", member), role("grace", member)]);
    let leave = RemoveMembersRequest {
        group: TEAM.to_owned(),
        by: "bob".to_owned(),
        users: vec!["bob".to_owned()],
    };
    bob.remove(leave.clone()).await.unwrap();
    bob.remove(leave).await.unwrap();
    assert_eq!(refused(bob.members(page).await).code, ErrorCode::NotMember);
}

#[tokio::test]
async fn a_bad_call_is_refused_by_its_field() {
    let gateway = Gateway::start().await;
    let mut service = groups(gateway.service());
    let nobody = CreateGroupRequest { owner: String::new(), ..create(&[]) };
    bad_field(service.create(nobody).await, "owner");
    bad_field(
        service.create(CreateGroupRequest { group: String::new(), ..create(&[]) }).await,
        "group",
    );
    let policy = Some(GroupPolicy { post: 9, ..GroupPolicy::default() });
    bad_field(service.create(CreateGroupRequest { policy, ..create(&[]) }).await, "policy.post");
    bad_field(service.create(create(&["bob"; 257])).await, "members");
    bad_field(service.create(create(&["bob", ""])).await, "members[1]");
    let huge = CreateGroupRequest { members_max: 10_001, ..create(&[]) };
    bad_field(service.create(huge).await, "members_max");
    let none = AddMembersRequest { users: Vec::new(), ..add("", "") };
    bad_field(service.add(none).await, "users");
    let role =
        SetRoleRequest { group: TEAM.to_owned(), user: "bob".to_owned(), ..Default::default() };
    bad_field(service.set_role(role).await, "role");
    let policy = SetPolicyRequest { group: TEAM.to_owned(), ..Default::default() };
    bad_field(service.set_policy(policy).await, "policy");
    // None of it has made the group.
    assert_eq!(refused(service.get(get("")).await).code, ErrorCode::GroupGone);
    let small = CreateGroupRequest { members_max: 2, ..create(&["bob"]) };
    service.create(small).await.unwrap();
    assert_eq!(refused(service.add(add("", "eve")).await).code, ErrorCode::GroupFull);
    let delete = DeleteGroupRequest { group: TEAM.to_owned(), by: "alice".to_owned() };
    service.delete(delete).await.unwrap();
    assert_eq!(refused(service.get(get("")).await).code, ErrorCode::GroupGone);
}
