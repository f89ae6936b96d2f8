//! `health`: asks each server's `/readyz`, which says in words what is missing.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1::handshake;
use hyper::header::HOST;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::cluster_file::ClusterFile;
use crate::command::here;
use crate::error::Error;
use crate::output::{Output, plain};

/// A server that does not answer in this time is not ready.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Bytes of an answer: a sentence or two.
const ANSWER_BYTES_MAX: usize = 4096;

/// Asks all servers at once, and prints a line for each.
pub(crate) async fn run(servers: Vec<String>, output: Output) -> Result<(), Error> {
    let servers = match servers.is_empty() {
        true => of_the_file()?,
        false => servers.into_iter().map(|http| ("server".to_owned(), http)).collect(),
    };
    let count = servers.len();
    let healths = join_all(servers.into_iter().map(|(server, http)| ask(server, http))).await;
    let failing = healths.iter().filter(|health| !health.ready).count();
    healths.iter().try_for_each(|health| output.print(health))?;
    match failing {
        0 => Ok(()),
        _ => Err(Error::Unavailable(format!("{failing} of {count} servers are not ready"))),
    }
}

fn of_the_file() -> Result<Vec<(String, String)>, Error> {
    let file = ClusterFile::find(&here()?)?.ok_or_else(|| {
        Error::Usage(
            "no server is known: name HTTP addresses, or call it in a cluster's folder".to_owned(),
        )
    })?;
    let gateways = file.gateways.into_iter().map(|gateway| ("gateway".to_owned(), gateway.http));
    let stores = file.stores.into_iter().map(|store| (format!("store {}", store.node), store.http));
    Ok(gateways.chain(stores).collect())
}

async fn ask(server: String, http: String) -> Health {
    let said = timeout(TIMEOUT, readiness(&http)).await;
    let (ready, reason) = match said {
        Ok(Ok((ready, reason))) => (ready, reason),
        Ok(Err(error)) => (false, error.to_string()),
        Err(_) => (false, "no answer".to_owned()),
    };
    Health { server, http, ready, reason }
}

/// Is it ready, and what does it say?
async fn readiness(http: &str) -> Result<(bool, String), Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(http).await?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    // It ends with the sender; what fails in it the answer will show.
    tokio::spawn(connection);
    let request = hyper::Request::get("/readyz").header(HOST, http).body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await?;
    let ready = answer.status().is_success();
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await?.to_bytes();
    Ok((ready, String::from_utf8_lossy(&body).trim().to_owned()))
}

#[derive(Serialize)]
struct Health {
    /// `gateway`, `store` with its number, or `server` when it was named by its address.
    server: String,
    http: String,
    ready: bool,
    /// What it says, or why it says nothing.
    reason: String,
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Wide enough for `store 9999` and an IPv4 address, so that lines align as they come.
        write!(f, "{:10}  {:21}  ", self.server, self.http)?;
        match self.ready {
            true => write!(f, "ready"),
            false => write!(f, "not ready: {}", plain(&self.reason)),
        }
    }
}
