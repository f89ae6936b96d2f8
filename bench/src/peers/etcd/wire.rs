//! etcd's protocol, as far as it is spoken here: messages and field numbers of its `rpc.proto` and
//! `kv.proto`. By hand, since the crates that have all of it need a `protoc` to be built, and since
//! this way its calls go through the same tonic as ours.

use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};
use prost::Message;
use thiserror::Error;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

/// A node that does not answer in this time is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes under way in one stream, as in ours.
const WINDOW_BYTES: u32 = 4 << 20;

/// The largest answer: a watch's events come many at once.
const ANSWER_BYTES_MAX: usize = 64 << 20;

const PUT: &str = "/etcdserverpb.KV/Put";
const RANGE: &str = "/etcdserverpb.KV/Range";
const WATCH: &str = "/etcdserverpb.Watch/Watch";

/// A call that failed.
#[derive(Debug, Error)]
#[error("{code:?}: {message}")]
pub(crate) struct Failed {
    code: tonic::Code,
    message: String,
}

impl From<Status> for Failed {
    fn from(status: Status) -> Self {
        Failed { code: status.code(), message: status.message().to_owned() }
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PutRequest {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) value: Bytes,
}

/// What is in it is not of interest.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct PutResponse {}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct RangeRequest {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) range_end: Bytes,
    #[prost(bool, tag = "9")]
    pub(crate) count_only: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct RangeResponse {
    #[prost(message, repeated, tag = "2")]
    pub(crate) kvs: Vec<KeyValue>,
    #[prost(int64, tag = "4")]
    pub(crate) count: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct KeyValue {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) key: Bytes,
    #[prost(int64, tag = "3")]
    pub(crate) mod_revision: i64,
    #[prost(bytes = "bytes", tag = "5")]
    pub(crate) value: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct WatchRequest {
    #[prost(message, optional, tag = "1")]
    pub(crate) create_request: Option<WatchCreateRequest>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct WatchCreateRequest {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) range_end: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct WatchResponse {
    #[prost(bool, tag = "3")]
    pub(crate) created: bool,
    #[prost(bool, tag = "4")]
    pub(crate) canceled: bool,
    #[prost(string, tag = "6")]
    pub(crate) cancel_reason: String,
    #[prost(message, repeated, tag = "11")]
    pub(crate) events: Vec<Event>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Event {
    /// 0 for a put.
    #[prost(int32, tag = "1")]
    pub(crate) kind: i32,
    #[prost(message, optional, tag = "2")]
    pub(crate) kv: Option<KeyValue>,
}

/// A connection to one node.
#[derive(Clone)]
pub(crate) struct Connection {
    channel: Channel,
}

impl Connection {
    /// To the node that serves clients on this port.
    pub(crate) async fn open(port: u16) -> Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}"))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES);
        let channel = endpoint.connect().await;
        Ok(Connection { channel: channel.with_context(|| format!("no etcd at port {port}"))? })
    }

    /// Puts a key.
    pub(crate) async fn put(&self, key: Bytes, value: Bytes) -> Result<(), Failed> {
        let PutResponse {} = self.call(PUT, PutRequest { key, value }).await?;
        Ok(())
    }

    /// How many keys begin so.
    pub(crate) async fn count(&self, prefix: &str) -> Result<i64, Failed> {
        Ok(self.range(prefix, true).await?.count)
    }

    /// All keys that begin so.
    pub(crate) async fn all(&self, prefix: &str) -> Result<Vec<KeyValue>, Failed> {
        Ok(self.range(prefix, false).await?.kvs)
    }

    /// What is put from now on under the prefixes that `requests` ask for.
    pub(crate) async fn watch(
        &self,
        requests: impl Stream<Item = WatchRequest> + Send + 'static,
    ) -> Result<BoxStream<'static, Result<WatchResponse, Failed>>, Failed> {
        let mut grpc = self.grpc().await?;
        let codec = ProstCodec::<WatchRequest, WatchResponse>::default();
        let path = PathAndQuery::from_static(WATCH);
        let answer = grpc.streaming(Request::new(requests), path, codec).await?;
        Ok(answer.into_inner().map_err(Failed::from).boxed())
    }

    async fn range(&self, prefix: &str, count_only: bool) -> Result<RangeResponse, Failed> {
        let key = Bytes::copy_from_slice(prefix.as_bytes());
        let range_end = range_end(prefix);
        self.call(RANGE, RangeRequest { key, range_end, count_only }).await
    }

    async fn call<A, B>(&self, path: &'static str, request: A) -> Result<B, Failed>
    where
        A: Message + 'static,
        B: Message + Default + 'static,
    {
        let mut grpc = self.grpc().await?;
        let codec = ProstCodec::<A, B>::default();
        let path = PathAndQuery::from_static(path);
        Ok(grpc.unary(Request::new(request), path, codec).await?.into_inner())
    }

    async fn grpc(&self) -> Result<Grpc<Channel>, Failed> {
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX);
        let ready = grpc.ready().await;
        let failed = |error| Failed { code: tonic::Code::Unavailable, message: format!("{error}") };
        ready.map_err(failed)?;
        Ok(grpc)
    }
}

/// To watch everything that begins so.
pub(crate) fn watch_request(prefix: &str) -> WatchRequest {
    let key = Bytes::copy_from_slice(prefix.as_bytes());
    let create = WatchCreateRequest { key, range_end: range_end(prefix) };
    WatchRequest { create_request: Some(create) }
}

/// The first key behind all that begin so. Prefixes here end with a `/`, which has a successor.
fn range_end(prefix: &str) -> Bytes {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_the_next_one() {
        assert_eq!(range_end("u/7/"), Bytes::from_static(b"u/70"));
        assert!(b"u/7/1/2"[..] < range_end("u/7/")[..]);
        assert!(b"u/71/"[..] > range_end("u/7/")[..]);
    }

    #[test]
    fn messages_have_the_bytes_that_etcd_knows() {
        let put = PutRequest { key: Bytes::from_static(b"k"), value: Bytes::from_static(b"v") };
        assert_eq!(put.encode_to_vec(), b"\x0a\x01k\x12\x01v");
        let count = RangeRequest { count_only: true, ..RangeRequest::default() };
        assert_eq!(count.encode_to_vec(), b"\x48\x01");
        // An answer with a header, two keys and their count.
        let answer = b"\x0a\x02\x18\x05\x12\x05\x0a\x01k\x18\x07\x12\x03\x0a\x01l\x20\x02";
        let answer = RangeResponse::decode(&answer[..]).expect("an answer");
        assert_eq!((answer.count, answer.kvs.len(), answer.kvs[0].mod_revision), (2, 2, 7));
        // A watch's event: a put of k.
        let event = b"\x5a\x07\x12\x05\x0a\x01k\x18\x09";
        let event = WatchResponse::decode(&event[..]).expect("an event").events.remove(0);
        assert_eq!((event.kind, event.kv.expect("a key").mod_revision), (0, 9));
    }
}
