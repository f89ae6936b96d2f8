//! The port of all services but APNs, by path; HTTP/1.1, as some of them insist.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::admin;
use crate::http::{Call, Reply};
use crate::services::{self, Judged};
use crate::state::{Fault, Service, State};

/// Connections at once.
pub(crate) const CONNECTIONS_MAX: usize = 1_024;

pub(crate) async fn run(listener: TcpListener, at: SocketAddr, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        if connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
        }
        let Ok((stream, _)) = listener.accept().await else { continue };
        let state = state.clone();
        connections.spawn(async move {
            let service = service_fn(|request| {
                let state = state.clone();
                async move {
                    let reply = match Call::read(request).await {
                        Ok(call) => answer(&state, at, &call).await,
                        Err(reply) => reply,
                    };
                    Ok::<_, Infallible>(reply.response())
                }
            });
            let served = hyper::server::conn::http1::Builder::new();
            // Whoever breaks the connection does not get an answer.
            drop(served.serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

async fn answer(state: &State, at: SocketAddr, call: &Call) -> Reply {
    let parts: Vec<_> = call.path.split('/').skip(1).collect();
    let (service, judged) = match parts[..] {
        ["sim", what] => return admin::answer(state, at, call, what),
        ["fcm", "token"] => return services::fcm_token(state, at, call),
        ["v1", "projects", project, "messages:send"] => {
            (Service::Fcm, services::fcm(state, call, project))
        }
        ["wns", "token"] => return services::wns_token(state, call),
        ["wns", "channel", id] => (Service::Wns, services::wns(state, call, id)),
        ["push", id] => (Service::WebPush, services::webpush(state, at, call, id)),
        ["mpns", "channel", id] => (Service::Mpns, services::mpns(state, call, id)),
        ["mss", "PD_pushRequest"] | ["pap"] => (Service::BbPush, services::bbpush(state, call)),
        ["webhook"] => (Service::Webhook, services::webhook(state, call)),
        _ => return Reply::status(404),
    };
    settle(state, service, call, judged).await.0
}

/// What a valid request meets: a fault that was ordered, or nothing, and it is taken. The second part
/// is whether the connection is to end.
pub(crate) async fn settle(
    state: &State,
    service: Service,
    call: &Call,
    judged: Result<Judged, Reply>,
) -> (Reply, bool) {
    let judged = match judged {
        Ok(judged) => judged,
        Err(refused) => return (refused, false),
    };
    match state.fault(service) {
        Some(fault) => {
            tokio::time::sleep(Duration::from_millis(fault.stall_ms)).await;
            let Fault { close, .. } = fault;
            (services::failed(&fault), close)
        }
        None => {
            let reply = judged.reply.clone();
            state.take(service, call, judged);
            (reply, false)
        }
    }
}
