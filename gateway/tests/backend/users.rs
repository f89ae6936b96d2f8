//! `Settings` and `Devices`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidemark_gateway::config::ChecksConfig;
use tidemark_proto::v1::devices_client::DevicesClient;
use tidemark_proto::v1::messages_client::MessagesClient;
use tidemark_proto::v1::settings_client::SettingsClient;
use tidemark_proto::v1::{
    AcceptFrom, AllowRequest, BlockRequest, DisallowRequest, ForgetRequest, Label, ListRequest,
    LogOutRequest, MessagesStatusRequest, PushTarget, RegisterRequest, RegisterResponse,
    SetAcceptFromRequest, SetPushRequest, SetSilentRequest, Stage, Start, StartAt, UnblockRequest,
};
use tidemark_token::Role;
use tidemark_types::ErrorCode;
use tonic::{Response, Status};

use crate::gateway::{Gateway, bad_field, refused};
use crate::memory::{Fault, MemoryStore, NOW};
use crate::messages::{origin, request};

/// What alice hears of her message to grace, who lives on the same shard.
async fn fate(gateway: &Gateway, number: u8) -> Stage {
    let mut messages = MessagesClient::new(gateway.service());
    messages.send(request("alice", "grace", number)).await.unwrap();
    let origin = Some(origin("alice", number));
    let answer = messages.status(MessagesStatusRequest { origin }).await.unwrap();
    answer.into_inner().status.unwrap().stage()
}

#[tokio::test]
async fn a_block_holds_until_it_is_taken_back() {
    let gateway = Gateway::start().await;
    let mut settings = SettingsClient::new(gateway.service());
    let (user, sender) = (|| "grace".to_owned(), || "alice".to_owned());
    assert_eq!(fate(&gateway, 1).await, Stage::Delivered);
    settings.block(BlockRequest { user: user(), sender: sender() }).await.unwrap();
    assert_eq!(fate(&gateway, 2).await, Stage::Refused);
    settings.set_silent(SetSilentRequest { user: user(), silent: true }).await.unwrap();
    assert_eq!(fate(&gateway, 3).await, Stage::Delivered, "alice is not told");
    settings.set_silent(SetSilentRequest { user: user(), silent: false }).await.unwrap();
    assert_eq!(fate(&gateway, 4).await, Stage::Refused);
    settings.unblock(UnblockRequest { user: user(), sender: sender() }).await.unwrap();
    assert_eq!(fate(&gateway, 5).await, Stage::Delivered);
}

#[tokio::test]
async fn a_stranger_is_refused_until_allowed_or_everybody_is_welcome() {
    let gateway = Gateway::start().await;
    let mut settings = SettingsClient::new(gateway.service());
    let (user, sender) = (|| "grace".to_owned(), || "alice".to_owned());
    let from = |from: AcceptFrom| SetAcceptFromRequest { user: user(), accept_from: from.into() };
    settings.set_accept_from(from(AcceptFrom::Contacts)).await.unwrap();
    assert_eq!(fate(&gateway, 1).await, Stage::Refused);
    settings.allow(AllowRequest { user: user(), sender: sender() }).await.unwrap();
    assert_eq!(fate(&gateway, 2).await, Stage::Delivered);
    settings.disallow(DisallowRequest { user: user(), sender: sender() }).await.unwrap();
    assert_eq!(fate(&gateway, 3).await, Stage::Refused);
    settings.set_accept_from(from(AcceptFrom::Everybody)).await.unwrap();
    assert_eq!(fate(&gateway, 4).await, Stage::Delivered);
}

#[tokio::test]
async fn settings_name_who_and_whom() {
    let gateway = Gateway::start().await;
    let mut settings = SettingsClient::new(gateway.service());
    let block = |user: &str, sender: &str| BlockRequest {
        user: user.to_owned(),
        sender: sender.to_owned(),
    };
    bad_field(settings.block(block("", "alice")).await, "user");
    bad_field(settings.block(block("grace", "")).await, "sender");
    let request = UnblockRequest { user: "grace".to_owned(), sender: String::new() };
    bad_field(settings.unblock(request).await, "sender");
    let request = SetSilentRequest { user: String::new(), silent: true };
    bad_field(settings.set_silent(request).await, "user");
    let from = |user: &str, from: AcceptFrom| SetAcceptFromRequest {
        user: user.to_owned(),
        accept_from: from.into(),
    };
    bad_field(settings.set_accept_from(from("", AcceptFrom::Contacts)).await, "user");
    let unspecified = from("grace", AcceptFrom::Unspecified);
    bad_field(settings.set_accept_from(unspecified).await, "accept_from");
    let request = AllowRequest { user: String::new(), sender: "alice".to_owned() };
    bad_field(settings.allow(request).await, "user");
    let request = DisallowRequest { user: "grace".to_owned(), sender: String::new() };
    bad_field(settings.disallow(request).await, "sender");
    let failure = refused(settings.block(block("grace", "grace")).await);
    assert_eq!(failure.code, ErrorCode::Invalid);
    assert_eq!(failure.message, "nobody can block themselves");
    gateway.store.fail(&[Fault::Lost]);
    assert_eq!(refused(settings.block(block("grace", "alice")).await).code, ErrorCode::Unknown);
}

async fn register(
    gateway: &Gateway,
    device: &str,
    start: Option<Start>,
) -> Result<Response<RegisterResponse>, Status> {
    let device = device.to_owned();
    let request = RegisterRequest { user: "alice".to_owned(), device, start, label: None };
    DevicesClient::new(gateway.service()).register(request).await
}

#[tokio::test]
async fn a_device_keeps_its_place_until_it_is_forgotten() {
    let gateway = Gateway::start().await;
    for number in 1..=3 {
        fate(&gateway, number).await;
    }
    let start = |at: StartAt, last| Some(Start { at: at.into(), last });
    let at = |start, cursor| RegisterResponse { epoch: 1, floor: 0, head: 3, start, cursor };
    let phone = register(&gateway, "phone", start(StartAt::Last, 2)).await.unwrap();
    assert_eq!(phone.into_inner(), at(1, 1));
    let again = register(&gateway, "phone", start(StartAt::Head, 0)).await.unwrap();
    assert_eq!(again.into_inner(), at(3, 1));
    let mut devices = DevicesClient::new(gateway.service());
    let forget = ForgetRequest { user: "alice".to_owned(), device: "phone".to_owned() };
    for _ in 0..2 {
        devices.forget(forget.clone()).await.unwrap();
    }
    let anew = register(&gateway, "phone", start(StartAt::Floor, 0)).await.unwrap();
    assert_eq!(anew.into_inner(), at(0, 0));
}

#[tokio::test]
async fn devices_are_listed_with_all_that_their_owner_may_know() {
    let gateway = Gateway::waking().await;
    let (user, device) = (|| "alice".to_owned(), |name: &str| name.to_owned());
    let floor = Some(Start { at: StartAt::Floor.into(), last: 0 });
    let mut devices = DevicesClient::new(gateway.service());
    let label = Label { name: "Alice's phone".to_owned(), platform: "Android 17".to_owned() };
    let request = RegisterRequest {
        user: user(),
        device: device("phone"),
        start: floor,
        label: Some(label.clone()),
    };
    devices.register(request.clone()).await.unwrap();
    register(&gateway, "desk", floor).await.unwrap();
    let target = PushTarget { provider: "log".to_owned(), target: "secret".to_owned() };
    let set_push = SetPushRequest { user: user(), device: device("phone"), target: Some(target) };
    devices.set_push(set_push).await.unwrap();
    let log_out = LogOutRequest { user: user(), device: device("desk") };
    devices.log_out(log_out.clone()).await.unwrap();
    let listed = devices.list(ListRequest { user: user() }).await.unwrap().into_inner().devices;
    let names: Vec<_> = listed.iter().map(|device| device.device.as_str()).collect();
    assert_eq!(names, ["desk", "phone"]);
    assert!(listed[0].logged_out_ms > 0);
    assert_eq!((listed[1].label.as_ref(), listed[1].logged_out_ms), (Some(&label), 0));
    assert_eq!(listed[1].push_provider, "log");
    assert!(!format!("{listed:?}").contains("secret"), "a token is nobody's business");

    let long = Some(Label { name: "x".repeat(65), platform: String::new() });
    bad_field(devices.register(RegisterRequest { label: long, ..request }).await, "label.name");
    devices.forget(ForgetRequest { user: user(), device: device("desk") }).await.unwrap();
    assert_eq!(refused(devices.log_out(log_out).await).code, ErrorCode::NoDevice);
    let target = Some(PushTarget { provider: "fcm".to_owned(), target: "token".to_owned() });
    let nowhere = SetPushRequest { user: user(), device: device("phone"), target };
    let failure = refused(devices.set_push(nowhere).await);
    assert_eq!(failure.code, ErrorCode::Invalid);
    assert_eq!(failure.message, "no push provider is called \"fcm\"");
}

#[tokio::test]
async fn a_device_that_is_away_is_woken_once_for_what_it_lacks() {
    let gateway = Gateway::waking().await;
    let (user, device) = ("grace".to_owned(), "phone".to_owned());
    let mut devices = DevicesClient::new(gateway.service());
    let start = Some(Start { at: StartAt::Floor.into(), last: 0 });
    let request =
        RegisterRequest { user: user.clone(), device: device.clone(), start, label: None };
    devices.register(request).await.unwrap();
    let target = Some(PushTarget { provider: "log".to_owned(), target: "token".to_owned() });
    devices.set_push(SetPushRequest { user: user.clone(), device, target }).await.unwrap();
    for number in 1..=3 {
        fate(&gateway, number).await;
        let began = std::time::Instant::now();
        loop {
            let request = ListRequest { user: user.clone() };
            let listed = devices.list(request).await.unwrap().into_inner().devices;
            if listed[0].pushed_upto == u32::from(number) {
                break;
            }
            assert!(began.elapsed() < std::time::Duration::from_secs(30), "{listed:?}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test]
async fn a_device_is_named_and_says_where_it_starts() {
    let gateway = Gateway::start().await;
    let head = Some(Start { at: StartAt::Head.into(), last: 0 });
    bad_field(register(&gateway, "", head).await, "device");
    bad_field(register(&gateway, "phone", None).await, "start");
    bad_field(register(&gateway, "phone", Some(Start::default())).await, "start.at");
    let mut devices = DevicesClient::new(gateway.service());
    let forget = ForgetRequest { user: String::new(), device: "phone".to_owned() };
    bad_field(devices.forget(forget).await, "user");
}

/// Of alice's device, or of any of hers.
fn device_token(device: Option<&str>) -> Role {
    let device = device.map(|name| name.parse().unwrap());
    Role::Device { user: "alice".parse().unwrap(), device }
}

#[tokio::test]
async fn what_a_device_had_is_good_for_nothing_once_it_is_logged_out() {
    let store = Arc::new(MemoryStore::new());
    let here = Gateway::of(store.clone(), ChecksConfig::default()).await;
    let there = Gateway::of(store, ChecksConfig::default()).await;
    for device in ["phone", "desk"] {
        register(&here, device, Some(Start { at: StartAt::Head.into(), last: 0 })).await.unwrap();
    }
    // Log time stands still at NOW.
    let (before, after) = (NOW.minus(Duration::from_secs(1)), NOW.plus(Duration::from_secs(1)));
    let list = |gateway: &Gateway, device, issued| {
        let caller = gateway.issued(device_token(device), issued);
        async move { DevicesClient::new(caller).list(ListRequest { user: "alice".to_owned() }).await }
    };
    for gateway in [&here, &there] {
        list(gateway, Some("phone"), before).await.unwrap();
    }
    let log_out = LogOutRequest { user: "alice".to_owned(), device: "phone".to_owned() };
    let desk = here.issued(device_token(Some("desk")), before);
    DevicesClient::new(desk).log_out(log_out).await.unwrap();
    let failure = refused(list(&here, Some("phone"), before).await);
    assert_eq!(failure.code, ErrorCode::LoggedOut);
    let deadline = Instant::now() + Duration::from_secs(30);
    while let Ok(answer) = list(&there, Some("phone"), before).await {
        assert!(Instant::now() < deadline, "another gateway hears of it: {answer:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let failure = refused(list(&there, Some("phone"), before).await);
    assert_eq!(failure.code, ErrorCode::LoggedOut);
    for gateway in [&here, &there] {
        list(gateway, Some("desk"), before).await.unwrap();
        list(gateway, Some("phone"), after).await.unwrap();
        // A token of the user's that names no device goes on, but not for the one that is out.
        list(gateway, None, before).await.unwrap();
        let mut devices = DevicesClient::new(gateway.issued(device_token(None), before));
        let set = |device: &str| {
            let device = device.to_owned();
            SetPushRequest { user: "alice".to_owned(), device, target: None }
        };
        let failure = refused(devices.set_push(set("phone")).await);
        assert_eq!(failure.code, ErrorCode::LoggedOut);
        devices.set_push(set("desk")).await.unwrap();
    }
}
