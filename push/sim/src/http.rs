//! Requests and replies, as values that a rule can judge.

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};

/// Bytes of a request that are read: beyond every service's limit, so that each can say so itself.
const REQUEST_BYTES_MAX: usize = 64 * 1024;

/// A request, whole.
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Call {
    /// Reads it; the error is the reply.
    pub(crate) async fn read(request: Request<Incoming>) -> Result<Call, Reply> {
        let (parts, body) = request.into_parts();
        let body = Limited::new(body, REQUEST_BYTES_MAX).collect().await;
        let body = body.map_err(|_| Reply::status(413))?.to_bytes().to_vec();
        Ok(Call {
            method: parts.method,
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            headers: parts.headers,
            body,
        })
    }

    /// A header's value, if it is text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Is a header there more than once?
    pub(crate) fn twice(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.headers.get_all(*name).iter().count() > 1)
    }

    /// The fields of a form.
    pub(crate) fn form(&self) -> std::collections::BTreeMap<String, String> {
        url::form_urlencoded::parse(&self.body).into_owned().collect()
    }

    /// The body as JSON, or null.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn status(status: u16) -> Reply {
        Reply { status, headers: Vec::new(), body: String::new() }
    }

    pub(crate) fn text(status: u16, body: impl Into<String>) -> Reply {
        Reply { body: body.into(), ..Reply::status(status) }
    }

    pub(crate) fn json(status: u16, body: &serde_json::Value) -> Reply {
        Reply::text(status, body.to_string()).with("content-type", "application/json")
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Reply {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn with_pause(self, seconds: Option<u64>) -> Reply {
        match seconds {
            Some(seconds) => self.with("retry-after", seconds.to_string()),
            None => self,
        }
    }

    pub(crate) fn response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(Bytes::from(self.body)));
        *response.status_mut() =
            StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        for (name, value) in self.headers {
            // A reason that an order made up may be no header; then there is none.
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().insert(HeaderName::from_static(name), value);
            }
        }
        response
    }
}
