//! What is kept until a peer has taken an answer.
//!
//! HTTP/2 takes an answer's bytes from its service and has them wait while the peer grants no window,
//! for as long as that likes. So the bytes themselves keep whatever bounds them.

use std::any::Any;
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::BodyExt as _;
use hyper::body::Frame;
use hyper::{Request, Response};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::NamedService;

/// Something that an answer keeps.
#[derive(Clone)]
struct Kept {
    _what: Arc<dyn Any + Send + Sync>,
}

/// The answer keeps this until it was taken, if its service is [`Keeping`].
pub(crate) fn keep<T>(
    mut answer: tonic::Response<T>,
    what: impl Send + Sync + 'static,
) -> tonic::Response<T> {
    answer.extensions_mut().insert(Kept { _what: Arc::new(what) });
    answer
}

/// A service whose answers keep what they were given by [`keep`].
#[derive(Clone)]
pub struct Keeping<S>(pub(crate) S);

impl<S: NamedService> NamedService for Keeping<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B> Service<Request<B>> for Keeping<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let answer = self.0.call(request);
        Box::pin(async move {
            let mut answer = answer.await?;
            Ok(match answer.extensions_mut().remove() {
                Some(kept) => answer.map(|body| keeping(body, kept)),
                None => answer,
            })
        })
    }
}

/// The body, each byte of which keeps it.
fn keeping(body: Body, kept: Kept) -> Body {
    Body::new(body.map_frame(move |frame: Frame<Bytes>| {
        frame.map_data(|data| Bytes::from_owner(Taken { data, _kept: kept.clone() }))
    }))
}

/// Bytes that are gone once they were written to the peer's socket.
struct Taken {
    data: Bytes,
    _kept: Kept,
}

impl AsRef<[u8]> for Taken {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

#[cfg(test)]
mod tests {
    use std::future::{Ready, ready};

    use super::*;

    /// Answers every call with a body that keeps this.
    struct Answers(Arc<()>);

    impl Service<Request<()>> for Answers {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = Ready<Result<Response<Body>, Infallible>>;

        fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _request: Request<()>) -> Self::Future {
            let mut answer = Response::new(Body::new("a page".to_owned()));
            answer.extensions_mut().insert(Kept { _what: self.0.clone() });
            ready(Ok(answer))
        }
    }

    #[tokio::test]
    async fn bytes_keep_it_longer_than_the_body() {
        let what = Arc::new(());
        let answer = Keeping(Answers(what.clone())).call(Request::new(())).await.unwrap();
        let mut body = answer.into_body();
        let page = body.frame().await.unwrap().unwrap().into_data().unwrap();
        drop(body);
        assert_eq!(Arc::strong_count(&what), 2, "the bytes have it");
        let rest = page.slice(2..);
        drop(page);
        assert_eq!((&rest[..], Arc::strong_count(&what)), (&b"page"[..], 2));
        drop(rest);
        assert_eq!(Arc::strong_count(&what), 1);
    }
}
