//! The calls of back ends and operators: one file per service, all on one [`Backend`]. All are unary
//! but the stream of allocations.
//!
//! ```text
//!   request ─► caller: cluster, token ─► role ─► checked fields ─► store ─► answer, or Status
//! ```
//!
//! A call checks who asks and what the fields are, and hands the rest to the store, which decides.
//! Nothing is decided twice and nothing is kept. Invariant: a call that may have been taken is
//! never told to have failed (R3); a step after the first effect turns a failure into *unknown*.

mod caller;
mod cluster;
mod devices;
mod feed;
mod groups;
mod logins;
mod mailboxes;
mod messages;
mod passing;
mod sequence;
mod settings;

use std::sync::Arc;

use tidemark_env::Clock;
use tidemark_proto::{Failure, headers};
use tidemark_push::Providers;
use tidemark_store_core::read::{Answer, Query};
use tidemark_store_core::value::Mailbox;
use tidemark_store_core::{Command, Reply};
use tidemark_token::Keys;
use tidemark_types::{ClusterId, ErrorCode, UserId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use crate::backend::caller::Caller;
use crate::backend::logins::Logins;
use crate::backend::sequence::Numbers;
use crate::checks::Checks;
use crate::kept::keep;
use crate::limits::{CALLS_MAX, REFUSED_RETRY};
use crate::store::Store;
use crate::{failure, metrics, receive};

/// All services of back ends; a cheap handle.
#[derive(Clone)]
pub(crate) struct Backend {
    store: Arc<dyn Store>,
    keys: Arc<Keys>,
    clock: Arc<dyn Clock>,
    checks: Option<Arc<Checks>>,
    /// Whom devices may name for their hints.
    providers: Providers,
    calls: Arc<Semaphore>,
    numbers: Numbers,
    logins: Arc<Logins>,
    /// The gateway stops: streams are ended, and begun elsewhere.
    leaving: watch::Sender<bool>,
}

impl Backend {
    /// The services over this store, for whoever has a token of these keys.
    pub(crate) fn new(
        store: Arc<dyn Store>,
        keys: Arc<Keys>,
        clock: Arc<dyn Clock>,
        checks: Option<Arc<Checks>>,
        providers: Providers,
    ) -> Self {
        let calls = Arc::new(Semaphore::new(CALLS_MAX));
        let numbers = Numbers::new(store.clone(), clock.clone());
        let (logins, leaving) = (Arc::default(), watch::Sender::default());
        Backend { store, keys, clock, checks, providers, calls, numbers, logins, leaving }
    }

    /// Ends streams once what they have taken is answered, and begins no others.
    pub(crate) fn leave(&self) {
        self.leaving.send_replace(true);
    }

    /// The one way into every call: who calls is checked first, and the outcome is counted.
    async fn call<Q, A, F>(
        &self,
        name: &'static str,
        request: Request<Q>,
        answer: impl FnOnce(Caller, Q) -> F,
    ) -> Result<Response<A>, Status>
    where
        F: Future<Output = Result<A, Failure>>,
    {
        let started = self.clock.monotonic();
        let outcome = match self.admit(request.metadata()) {
            Ok((caller, permit)) => match self.is_logged_in(&caller).await {
                Ok(()) => {
                    let answer = answer(caller, request.into_inner()).await;
                    answer.map(|answer| keep(Response::new(answer), permit))
                }
                Err(refused) => Err(refused),
            },
            Err(refused) => Err(refused),
        };
        let code = outcome.as_ref().err().map(|failure| failure.code);
        metrics::called(name, code, self.clock.monotonic() - started);
        outcome.map_err(Status::from)
    }

    /// Who calls, and one of the calls that there may be: until its answer was taken, since a page that
    /// nobody reads takes its room still.
    fn admit(&self, headers: &MetadataMap) -> Result<(Caller, OwnedSemaphorePermit), Failure> {
        let caller = self.caller(headers)?;
        let permit = self.calls.clone().try_acquire_owned();
        let overloaded = |_| Failure::new(ErrorCode::Overloaded).retry_after(REFUSED_RETRY);
        Ok((caller, permit.map_err(overloaded)?))
    }

    async fn command(&self, command: Command) -> Result<Reply, Failure> {
        self.store.command(command).await.map_err(failure::of_error)
    }

    /// A command whose reply is that it is done.
    async fn done(&self, command: Command) -> Result<(), Failure> {
        match self.command(command).await? {
            Reply::Done => Ok(()),
            other => Err(failure::of_reply(other)),
        }
    }

    async fn query(&self, query: Query) -> Result<Answer, Failure> {
        self.store.query(query).await.map_err(failure::of_error)
    }

    /// Where a user's mailbox stands.
    async fn mailbox(&self, user: &UserId) -> Result<Mailbox, Failure> {
        receive::mailbox(self.store.as_ref(), user.clone()).await
    }

    /// Does the caller mean this cluster? One that names none does (R8).
    fn check_cluster(&self, named: Option<&str>) -> Result<(), Failure> {
        let ours = self.store.map().cluster;
        match named.map(str::parse::<ClusterId>) {
            None => Ok(()),
            Some(Ok(named)) if named == ours => Ok(()),
            Some(Ok(_)) => Err(Failure::new(ErrorCode::WrongCluster)),
            Some(Err(error)) => {
                Err(Failure::new(ErrorCode::Invalid)
                    .message(format!("{}: {error}", headers::CLUSTER)))
            }
        }
    }
}
