//! Who may make which call, and what is said to those who may not.

use tidemark_proto::headers;
use tidemark_proto::v1::*;
use tidemark_token::Role;
use tidemark_types::{DeviceId, ErrorCode, UserId};
use tonic::{Response, Status};

use crate::gateway::{Caller, Gateway, bearer, device_of, refused};
use crate::messages;

/// Who may make a call: each of these may make those of the ones before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Needs {
    /// Alice herself.
    Own,
    Service,
    Admin,
}

/// A call, who may make it, and what came of it.
type Made = (&'static str, Needs, Result<(), Status>);

fn done<T>(outcome: Result<Response<T>, Status>) -> Result<(), Status> {
    outcome.map(|_| ())
}

/// Every call, with legal fields, in alice's name; adoption first, since it needs an unused
/// mailbox.
async fn every_call(caller: &Caller) -> Vec<Made> {
    let mut made = mailbox_calls(caller).await;
    made.extend(user_calls(caller).await);
    made.extend(group_calls(caller).await);
    made.extend(other_calls(caller).await);
    made
}

async fn mailbox_calls(caller: &Caller) -> Vec<Made> {
    let user = || "alice".to_owned();
    let mut mailboxes = mailboxes_client::MailboxesClient::new(caller.clone());
    let adopt = mailboxes.adopt(AdoptRequest { user: user(), seq: 5 }).await;
    let sync = mailboxes.sync(SyncRequest { user: user(), ..SyncRequest::default() }).await;
    let head = mailboxes.head(HeadRequest { user: user() }).await;
    let trim = mailboxes.trim(TrimRequest { user: user(), upto: 9 }).await;
    let mut messages = messages_client::MessagesClient::new(caller.clone());
    let send = messages.send(messages::request("alice", "bob", 1)).await;
    let origin = Some(messages::origin("alice", 1));
    let status = messages.status(MessagesStatusRequest { origin }).await;
    vec![
        ("Mailboxes.Adopt", Needs::Admin, done(adopt)),
        ("Mailboxes.Sync", Needs::Own, done(sync)),
        ("Mailboxes.Head", Needs::Own, done(head)),
        ("Mailboxes.Trim", Needs::Admin, done(trim)),
        ("Messages.Send", Needs::Own, done(send)),
        ("Messages.Status", Needs::Own, done(status)),
    ]
}

async fn user_calls(caller: &Caller) -> Vec<Made> {
    let (user, sender, device) =
        (|| "alice".to_owned(), || "bob".to_owned(), || "phone".to_owned());
    let start = Some(Start { at: StartAt::Floor.into(), last: 0 });
    let mut settings = settings_client::SettingsClient::new(caller.clone());
    let block = settings.block(BlockRequest { user: user(), sender: sender() }).await;
    let unblock = settings.unblock(UnblockRequest { user: user(), sender: sender() }).await;
    let silent = settings.set_silent(SetSilentRequest { user: user(), silent: true }).await;
    let mut devices = devices_client::DevicesClient::new(caller.clone());
    let request = RegisterRequest { user: user(), device: device(), start, label: None };
    let register = devices.register(request).await;
    let list = devices.list(ListRequest { user: user() }).await;
    let request = SetPushRequest { user: user(), device: device(), target: None };
    let set_push = devices.set_push(request).await;
    let log_out = devices.log_out(LogOutRequest { user: user(), device: device() }).await;
    let forget = devices.forget(ForgetRequest { user: user(), device: device() }).await;
    vec![
        ("Settings.Block", Needs::Own, done(block)),
        ("Settings.Unblock", Needs::Own, done(unblock)),
        ("Settings.SetSilent", Needs::Own, done(silent)),
        ("Devices.Register", Needs::Own, done(register)),
        ("Devices.List", Needs::Own, done(list)),
        ("Devices.SetPush", Needs::Own, done(set_push)),
        ("Devices.LogOut", Needs::Own, done(log_out)),
        ("Devices.Forget", Needs::Own, done(forget)),
    ]
}

async fn group_calls(caller: &Caller) -> Vec<Made> {
    let (group, by) = (|| "team".to_owned(), || "alice".to_owned());
    let users = || vec!["bob".to_owned()];
    let mut groups = groups_client::GroupsClient::new(caller.clone());
    let request =
        CreateGroupRequest { group: group(), owner: by(), ..CreateGroupRequest::default() };
    let create = groups.create(request).await;
    let add = AddMembersRequest { group: group(), by: by(), users: users() };
    let add = groups.add(add).await;
    let get = groups.get(GetGroupRequest { group: group(), by: by() }).await;
    let by_nobody = groups.get(GetGroupRequest { group: group(), by: String::new() }).await;
    let members = groups.members(MembersRequest { group: group(), by: by(), page: 0 }).await;
    let (user, role) = ("bob".to_owned(), GroupRole::Admin.into());
    let set_role = groups.set_role(SetRoleRequest { group: group(), by: by(), user, role }).await;
    let policy = Some(GroupPolicy::default());
    let set_policy = groups.set_policy(SetPolicyRequest { group: group(), by: by(), policy }).await;
    let remove = RemoveMembersRequest { group: group(), by: by(), users: users() };
    let remove = groups.remove(remove).await;
    let by_nobody_too = RemoveMembersRequest { group: group(), by: String::new(), users: users() };
    let by_nobody_too = groups.remove(by_nobody_too).await;
    let delete = groups.delete(DeleteGroupRequest { group: group(), by: by() }).await;
    vec![
        ("Groups.Create", Needs::Own, done(create)),
        ("Groups.Add", Needs::Own, done(add)),
        ("Groups.Get", Needs::Own, done(get)),
        ("Groups.Get by nobody", Needs::Service, done(by_nobody)),
        ("Groups.Members", Needs::Own, done(members)),
        ("Groups.SetRole", Needs::Own, done(set_role)),
        ("Groups.SetPolicy", Needs::Own, done(set_policy)),
        ("Groups.Remove", Needs::Own, done(remove)),
        ("Groups.Remove by nobody", Needs::Service, done(by_nobody_too)),
        ("Groups.Delete", Needs::Own, done(delete)),
    ]
}

async fn other_calls(caller: &Caller) -> Vec<Made> {
    let counter = || "orders".to_owned();
    let mut sequence = sequence_client::SequenceClient::new(caller.clone());
    let request = AllocateRequest { counter: counter(), count: 1, ..AllocateRequest::default() };
    let allocate = sequence.allocate(request).await;
    let stream = sequence.allocate_stream(tokio_stream::empty()).await;
    let current = sequence.current(CurrentRequest { counter: counter() }).await;
    let feed = feed_client::FeedClient::new(caller.clone()).read(ReadFeedRequest::default()).await;
    let mut cluster = cluster_client::ClusterClient::new(caller.clone());
    let status = cluster.status(ClusterStatusRequest {}).await;
    let map = cluster.map(MapRequest {}).await;
    let transfer = cluster.transfer(TransferRequest { shard: 0, node: 2 }).await;
    vec![
        ("Sequence.Allocate", Needs::Service, done(allocate)),
        ("Sequence.AllocateStream", Needs::Service, done(stream)),
        ("Sequence.Current", Needs::Service, done(current)),
        ("Feed.Read", Needs::Service, done(feed)),
        ("Cluster.Status", Needs::Admin, done(status)),
        ("Cluster.Map", Needs::Admin, done(map)),
        ("Cluster.Transfer", Needs::Admin, done(transfer)),
    ]
}

/// Calls up to `allowed` succeed, and the others are refused with this code.
async fn check(caller: Caller, allowed: Option<Needs>, code: ErrorCode) {
    for (call, needs, outcome) in every_call(&caller).await {
        if allowed.is_some_and(|allowed| needs <= allowed) {
            assert!(outcome.is_ok(), "{call}: {outcome:?}");
        } else {
            let failure = refused(outcome.map(Response::new));
            assert_eq!(failure.code, code, "{call}: {failure}");
        }
    }
}

#[tokio::test]
async fn a_role_may_make_its_calls_and_no_others() {
    for (role, allowed) in [
        (Role::Admin, Some(Needs::Admin)),
        (Role::Service, Some(Needs::Service)),
        (device_of("alice"), Some(Needs::Own)),
        (device_of("bob"), None),
    ] {
        let gateway = Gateway::start().await;
        gateway.store.lead(1);
        check(gateway.by(role), allowed, ErrorCode::PermissionDenied).await;
    }
}

#[tokio::test]
async fn a_token_of_one_device_names_no_other() {
    let gateway = Gateway::start().await;
    let user = UserId::new("alice").unwrap();
    let forget = |device| {
        let role = Role::Device { user: user.clone(), device: DeviceId::new(device).ok() };
        let mut devices = devices_client::DevicesClient::new(gateway.by(role));
        let request = ForgetRequest { user: "alice".to_owned(), device: "phone".to_owned() };
        async move { devices.forget(request).await }
    };
    assert!(forget("phone").await.is_ok());
    assert_eq!(refused(forget("tablet").await).code, ErrorCode::PermissionDenied);
}

#[tokio::test]
async fn without_a_good_token_nothing_is_told() {
    let gateway = Gateway::start().await;
    let good = gateway.token(Role::Admin);
    for headers in [
        vec![],
        vec![(headers::AUTHORIZATION, good.clone())],
        vec![bearer("")],
        vec![bearer(&good[..good.len() - 2])],
    ] {
        check(gateway.with(&headers), None, ErrorCode::Unauthenticated).await;
    }
    let expired = bearer(&gateway.expired(Role::Admin));
    check(gateway.with(&[expired]), None, ErrorCode::TokenExpired).await;
}

#[tokio::test]
async fn a_call_for_another_cluster_is_refused() {
    let gateway = Gateway::start().await;
    let head = |cluster: &str| {
        let token = bearer(&gateway.token(Role::Service));
        let caller = gateway.with(&[token, (headers::CLUSTER, cluster.to_owned())]);
        let mut mailboxes = mailboxes_client::MailboxesClient::new(caller);
        async move { mailboxes.head(HeadRequest { user: "alice".to_owned() }).await }
    };
    assert!(head(&gateway.app.cluster().to_string()).await.is_ok());
    let other = "01010101-0101-0101-0101-010101010101";
    assert_eq!(refused(head(other).await).code, ErrorCode::WrongCluster);
    let failure = refused(head("here").await);
    assert_eq!(failure.code, ErrorCode::Invalid);
    assert!(failure.message.starts_with("tidemark-cluster: "), "{failure}");
}
