//! Calls to gateways: one attempt after the other, until there is an answer or no time.
//!
//! ```text
//!   connect ──no──► the next gateway, at once; after a round of all, a pause
//!      │ yes
//!   call ──► answer                      lost, failed ──► Outcome: again elsewhere, or the end
//! ```

use std::sync::Arc;
use std::time::Duration;

use tidemark_env::{Clock, Rng};
use tidemark_proto::failure::first_cause;
use tidemark_proto::{Failure, headers};
use tidemark_token::Role;
use tidemark_types::ClusterId;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

use crate::error::Error;
use crate::outcome::{Attempt, Outcome};
use crate::target::{Credentials, Target};

/// A gateway that does not take a connection in this time is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// One attempt. A gateway itself waits for the end of an election, which this must outlast; one
/// that hangs leaves half of the usual deadline for another.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a token that is made for one attempt is good: longer than any attempt, and as much
/// difference of clocks as is usual.
const TOKEN_VALID: Duration = Duration::from_secs(60);

/// The first pause after all gateways have failed, doubled up to the longest.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
const PAUSE_LONGEST: Duration = Duration::from_millis(500);

/// The gateways of one command.
pub(crate) struct Gateways {
    endpoints: Vec<Endpoint>,
    /// The one to use, and the connection to it, if there is one.
    at: usize,
    channel: Option<Channel>,
    cluster: Option<ClusterId>,
    credentials: Credentials,
    deadline: Duration,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) rng: Arc<dyn Rng>,
}

impl Gateways {
    /// The target's gateways; each call may take `deadline`.
    pub(crate) fn new(
        target: Target,
        deadline: Duration,
        clock: Arc<dyn Clock>,
        rng: Arc<dyn Rng>,
    ) -> Result<Self, Error> {
        let Target { gateways, cluster, credentials, folder: _ } = target;
        let endpoints = gateways.iter().map(|address| endpoint(address));
        let endpoints = endpoints.collect::<Result<_, Error>>()?;
        Ok(Gateways { endpoints, at: 0, channel: None, cluster, credentials, deadline, clock, rng })
    }

    /// How long a call may take.
    pub(crate) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Calls until there is an answer, a refusal that counts, or no time. Every call here may be
    /// repeated; `outcome` knows what a lost answer means.
    pub(crate) async fn call<Q: Clone, A>(
        &mut self,
        role: Role,
        mut outcome: Outcome,
        request: Q,
        rpc: impl AsyncFn(Channel, Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<A, Error> {
        let ends = self.clock.monotonic().saturating_add(self.deadline);
        let mut pause = PAUSE_FIRST;
        let mut tried = 0;
        loop {
            let left = ends.saturating_sub(self.clock.monotonic());
            let failed = match self.attempt(role.clone(), request.clone(), &rpc, left).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            self.channel = None;
            self.at = (self.at + 1) % self.endpoints.len();
            tried += 1;
            let round = !matches!(failed, Attempt::NotSent(_)) || tried % self.endpoints.len() == 0;
            let asked = outcome.add(failed)?.unwrap_or_default();
            let wait = if round { asked.max(self.jittered(pause)) } else { asked };
            if self.clock.monotonic().saturating_add(wait) >= ends {
                return Err(outcome.end());
            }
            if round {
                pause = (pause * 2).min(PAUSE_LONGEST);
            }
            tokio::time::sleep(wait).await;
        }
    }

    async fn attempt<Q, A>(
        &mut self,
        role: Role,
        request: Q,
        rpc: &impl AsyncFn(Channel, Request<Q>) -> Result<Response<A>, Status>,
        left: Duration,
    ) -> Result<A, Attempt> {
        let address = self.endpoints[self.at].uri().authority().map(ToString::to_string);
        let address = address.unwrap_or_default();
        let channel = self.connected(&address, left).await?;
        let request = self.addressed(role, request);
        match timeout(left.min(ATTEMPT_TIMEOUT), rpc(channel, request)).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(Attempt::Failed(Failure::from(&status))),
            Err(_) => Err(Attempt::Lost(format!("{address} does not answer"))),
        }
    }

    /// The connection to the gateway in turn: the network's only door. Eager, so that a failure
    /// here certainly sent nothing.
    async fn connected(&mut self, address: &str, left: Duration) -> Result<Channel, Attempt> {
        if let Some(channel) = &self.channel {
            return Ok(channel.clone());
        }
        let not_sent = |reason: &str| Attempt::NotSent(format!("{address}: {reason}"));
        match timeout(left, self.endpoints[self.at].connect()).await {
            Ok(Ok(channel)) => Ok(self.channel.insert(channel).clone()),
            // The library's own words say only "transport error".
            Ok(Err(error)) => Err(not_sent(&first_cause(&error))),
            Err(_) => Err(not_sent("no connection in time")),
        }
    }

    fn addressed<Q>(&self, role: Role, message: Q) -> Request<Q> {
        let mut request = Request::new(message);
        let metadata = request.metadata_mut();
        let token = self.credentials.token(role, TOKEN_VALID, self.clock.as_ref());
        let bearer = format!("{}{token}", headers::BEARER).parse();
        metadata.insert(headers::AUTHORIZATION, bearer.expect("tokens are visible ASCII"));
        if let Some(cluster) = self.cluster {
            let cluster = cluster.to_string().parse().expect("a UUID is a header");
            metadata.insert(headers::CLUSTER, cluster);
        }
        request
    }

    /// Between half and all of `pause`, so that many callers do not come back at once.
    fn jittered(&self, pause: Duration) -> Duration {
        pause.mul_f64(0.5 + 0.5 * self.rng.unit())
    }
}

/// A gateway by its address.
pub(crate) fn endpoint(address: &str) -> Result<Endpoint, Error> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"));
    let endpoint = endpoint.map_err(|_| Error::Usage(format!("{address} is not host:port")))?;
    Ok(endpoint.connect_timeout(CONNECT_TIMEOUT).tcp_nodelay(true))
}
