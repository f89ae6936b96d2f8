//! The gRPC port of a node's process: what it says that it serves, and whom it sends away.

use anyhow::{Context, Result};
use tempfile::TempDir;
use tidemark_proto::store::v1::store_client::StoreClient;
use tidemark_proto::store::v1::{
    Request, Requests, TransferLeaderRequest, TrustClockRequest, WatchRequest, request, response,
};
use tidemark_proto::{Failure, headers};
use tidemark_store_client::Client;
use tidemark_store_core::Command;
use tidemark_types::{ErrorCode, Id};
use tonic::transport::{Channel, Endpoint};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::fail_stop::connect;
use crate::node::user;
use crate::rig::{self, Child};

/// A node, and two ways to it: by the client, which keeps to the rules, and without.
async fn start(dir: &TempDir) -> Result<(Child, Client, Channel)> {
    let (node, grpc) = rig::node(&dir.path().join("data"), dir.path().join("node.log"))?;
    let client = connect(&grpc).await?;
    let channel = Endpoint::from_shared(format!("http://{grpc}"))?.connect().await?;
    Ok((node, client, channel))
}

/// A request that names this cluster, or none.
fn naming<T>(cluster: Option<&str>, message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    if let Some(cluster) = cluster {
        request.metadata_mut().insert(headers::CLUSTER, cluster.parse().unwrap());
    }
    request
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reflection_lists_what_is_served() -> Result<()> {
    let dir = TempDir::new()?;
    let (_node, _, channel) = start(&dir).await?;
    let message_request = Some(MessageRequest::ListServices(String::new()));
    let request = ServerReflectionRequest { message_request, ..Default::default() };
    let mut reflection = ServerReflectionClient::new(channel);
    let asked = reflection.server_reflection_info(tokio_stream::once(request)).await?;
    let answer = asked.into_inner().message().await?.context("an answer")?;
    let Some(MessageResponse::ListServicesResponse(services)) = answer.message_response else {
        panic!("{answer:?}")
    };
    let names: Vec<_> = services.service.iter().map(|service| service.name.as_str()).collect();
    for name in ["tidemark.store.v1.Store", "grpc.health.v1.Health"] {
        assert!(names.contains(&name), "{names:?}");
    }
    assert!(!names.contains(&"tidemark.v1.Gateway"), "{names:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_means_another_cluster_or_none_is_sent_away() -> Result<()> {
    let dir = TempDir::new()?;
    let (_node, client, channel) = start(&dir).await?;
    let mut store = StoreClient::new(channel);
    let other = "0192f5a0-1234-7abc-8def-0123456789ac";
    for (cluster, code) in [(None, ErrorCode::Invalid), (Some(other), ErrorCode::WrongCluster)] {
        let transfer = TransferLeaderRequest::default();
        let refused = [
            store.exchange(naming(cluster, tokio_stream::empty::<Requests>())).await.map(drop),
            store.watch(naming(cluster, tokio_stream::empty::<WatchRequest>())).await.map(drop),
            store.transfer_leader(naming(cluster, transfer)).await.map(drop),
            store.trust_clock(naming(cluster, TrustClockRequest {})).await.map(drop),
        ];
        for refused in refused {
            assert_eq!(Failure::from(&refused.unwrap_err()).code, code);
        }
    }
    let ours = client.map().cluster.to_string();
    store.trust_clock(naming(Some(&ours), TrustClockRequest {})).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_for_a_shard_where_its_id_does_not_live_is_refused() -> Result<()> {
    let dir = TempDir::new()?;
    let (_node, client, channel) = start(&dir).await?;
    let alice = user("alice");
    let home = client.shard_of(&Id::User(alice.clone()));
    let what = request::What::Command(Command::DeleteMailbox { user: alice }.encode());
    let wrong = Request { id: 7, shard: 1 - u32::from(home.get()), what: Some(what) };
    let requests = tokio_stream::once(Requests { requests: vec![wrong] });
    let ours = client.map().cluster.to_string();
    let answers = StoreClient::new(channel).exchange(naming(Some(&ours), requests)).await?;
    let answers = answers.into_inner().message().await?.context("an answer")?.responses;
    let [answer] = answers.as_slice() else { panic!("{answers:?}") };
    let Some(response::What::Failure(failure)) = answer.what.clone() else { panic!("{answer:?}") };
    assert_eq!((answer.id, Failure::from(failure).code), (7, ErrorCode::WrongShard));
    Ok(())
}
