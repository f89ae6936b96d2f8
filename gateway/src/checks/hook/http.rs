//! The hook as an HTTP service: JSON in a POST that is signed after Standard Webhooks.
//!
//! It refuses what it does not understand: another status than 200, a body that is too long, a
//! verdict that it does not know.

use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use tidemark_env::Clock;
use tidemark_proto::v1::{BeforeSendRequest, Id, IdKind};
use tidemark_push::config::TlsConfig;
use tidemark_push::{BuildError, SignedEndpoint};
use tidemark_types::ClientMsgId;
use tidemark_types::limits::BODY_BYTES_MAX;

use super::{Failed, Verdict};

/// Bytes of an answer: a whole body in base64, and what is around it.
const ANSWER_BYTES_MAX: usize = BODY_BYTES_MAX * 2;

/// Calls it over a few connections that are kept.
pub(super) struct Caller(SignedEndpoint);

/// What it is told of a message.
#[derive(Serialize)]
struct Question<'a> {
    sender: &'a str,
    /// None, if a back end sends it.
    #[serde(skip_serializing_if = "str::is_empty")]
    device: &'a str,
    to: Vec<Recipient<'a>>,
    kind: u32,
    /// In base64.
    body: String,
    /// A UUID.
    client_msg_id: String,
    /// It is the new body of a message that is there.
    #[serde(skip_serializing_if = "is_not")]
    edit: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_not(flag: &bool) -> bool {
    !flag
}

#[derive(Serialize)]
struct Recipient<'a> {
    kind: &'static str,
    name: &'a str,
}

/// What it says.
#[derive(Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
enum Answer {
    Allow,
    Reject,
    Replace {
        /// In base64.
        body: String,
    },
    Drop,
}

impl Caller {
    /// At a URL, signed with the secrets in this file; over `https` trusting also the authorities in
    /// that one.
    pub(super) fn new(
        url: &str,
        secrets: &Path,
        ca_file: Option<&Path>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, BuildError> {
        let tls = TlsConfig { ca: ca_file.map(Path::to_owned) };
        SignedEndpoint::new(url, secrets, &tls, clock).map(Caller)
    }

    pub(super) async fn ask(&self, request: &BeforeSendRequest) -> Result<Verdict, Failed> {
        // The same for each retry, and another one for every other message.
        let id = self.0.name(&[&request.client_msg_id, request.sender.as_bytes()]);
        match self.0.post(&id, question(request)?, ANSWER_BYTES_MAX).await? {
            (200, answer) => verdict(&answer),
            (status, _) => Err(format!("it answers {status}")),
        }
    }
}

fn question(request: &BeforeSendRequest) -> Result<Vec<u8>, Failed> {
    let id = ClientMsgId::try_from(request.client_msg_id.as_ref());
    let question = Question {
        sender: &request.sender,
        device: &request.device,
        to: request.to.iter().map(recipient).collect(),
        kind: request.kind,
        body: STANDARD.encode(&request.body),
        client_msg_id: id.map_err(|error| error.to_string())?.to_string(),
        edit: request.edit,
    };
    serde_json::to_vec(&question).map_err(|error| error.to_string())
}

fn recipient(id: &Id) -> Recipient<'_> {
    let kind = match id.kind() {
        IdKind::User => "user",
        IdKind::Group => "group",
        IdKind::Counter | IdKind::Unspecified => "other",
    };
    Recipient { kind, name: &id.name }
}

fn verdict(body: &[u8]) -> Result<Verdict, Failed> {
    let answer = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    Ok(match answer {
        Answer::Allow => Verdict::Allow,
        Answer::Reject => Verdict::Reject,
        Answer::Replace { body } => {
            let body = STANDARD.decode(body).map_err(|error| error.to_string())?;
            Verdict::Replace(body.into())
        }
        Answer::Drop => Verdict::Drop,
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tidemark_proto::convert::bytes_of;
    use tidemark_types::UnixMs;

    use super::*;

    #[test]
    fn a_question_is_json_that_anybody_can_read() {
        let id = ClientMsgId::new(UnixMs::new(1_000), [7; 10]);
        let user = |name: &str| Id { kind: IdKind::User.into(), name: name.to_owned() };
        let request = BeforeSendRequest {
            sender: "alice".to_owned(),
            device: "phone".to_owned(),
            to: vec![user("bob"), user("\"carol\"")],
            kind: 3,
            body: Bytes::from_static(b"\xff!"),
            client_msg_id: bytes_of(id.as_bytes()),
            edit: false,
        };
        let wanted = "{\"sender\":\"alice\",\"device\":\"phone\",\
                      \"to\":[{\"kind\":\"user\",\"name\":\"bob\"},\
                      {\"kind\":\"user\",\"name\":\"\\\"carol\\\"\"}],\
                      \"kind\":3,\"body\":\"/yE=\",\
                      \"client_msg_id\":\"00000000-03e8-7707-8707-070707070707\"}";
        assert_eq!(question(&request).expect("legal"), wanted.as_bytes());
        let edit = BeforeSendRequest { edit: true, ..request.clone() };
        let asked = question(&edit).expect("legal");
        assert!(asked.ends_with(b",\"edit\":true}"), "{asked:?}");
        let back_end = BeforeSendRequest { device: String::new(), ..request };
        let asked = question(&back_end).expect("legal");
        assert!(asked.starts_with(b"{\"sender\":\"alice\",\"to\":"));
    }

    #[test]
    fn an_answer_that_is_none_is_a_failure() {
        let replaced = Verdict::Replace(Bytes::from_static(b"!"));
        for (answer, wanted) in [
            ("{\"verdict\":\"allow\"}", Verdict::Allow),
            ("{\"verdict\":\"reject\",\"reason\":\"whatever\"}", Verdict::Reject),
            ("{\"body\":\"IQ==\",\"verdict\":\"replace\"}", replaced),
            ("{\"verdict\":\"drop\"}", Verdict::Drop),
        ] {
            assert_eq!(verdict(answer.as_bytes()), Ok(wanted), "{answer}");
        }
        for answer in [
            "",
            "{}",
            "allow",
            "{\"verdict\":\"ALLOW\"}",
            "{\"verdict\":\"replace\"}",
            "{\"verdict\":\"replace\",\"body\":\"?\"}",
        ] {
            assert!(verdict(answer.as_bytes()).is_err(), "{answer}");
        }
    }
}
