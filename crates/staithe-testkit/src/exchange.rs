use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future;
use http::{HeaderValue, Method, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use s3s::service::S3Service;

use crate::body::{AnswerBody, CountedBody};
use crate::fault::{Plan, Refusal};
use crate::operation::Target;
use crate::requests::Entry;
use crate::socket::Line;
use crate::{Faults, Hold, Modes, Requests};

/// What serves the requests of every connection.
#[derive(Debug, Clone)]
pub(crate) struct Exchanges {
    pub(crate) service: S3Service,
    pub(crate) faults: Faults,
    pub(crate) requests: Requests,
    pub(crate) modes: Modes,
}

impl Exchanges {
    /// Serves one request. An error ends the connection without an answer.
    ///
    /// The order: log, limits, holds and delays before the effect, refusal, effect, holds and delays after it.
    pub(crate) async fn serve(
        &self,
        request: http::Request<Incoming>,
        connection: u64,
        line: Arc<Line>,
    ) -> io::Result<Response<AnswerBody>> {
        let (mut parts, body) = request.into_parts();
        let target = Target::of(&parts);
        let entry = self.requests.arrived(&target, &parts, connection);
        let plan = self.faults.meet(&target);
        let behaviour = self.modes.now();
        line.limit(plan.bandwidth.or(behaviour.bandwidth));
        pause(&plan.hold_request, plan.delay_request + behaviour.latency).await;
        if plan.black_hole {
            future::pending::<Infallible>().await;
        }
        if plan.reset_before {
            return Err(reset(&line));
        }
        let body = CountedBody::new(body, Arc::clone(&entry));
        let is_head = parts.method == Method::HEAD;
        let response = if let Some(refusal) = &plan.refusal {
            drain(body).await;
            refuse(refusal, &entry, is_head).map_err(io::Error::other)?
        } else {
            parts.extensions.insert(plan.lie);
            let request = http::Request::from_parts(parts, s3s::Body::http_body(body));
            self.service.call(request).await.map_err(|e| io::Error::other(s3s::StdError::from(e)))?
        };
        pause(&plan.hold_response, plan.delay_response).await;
        if plan.reset_after {
            return Err(reset(&line));
        }
        Ok(finish(response, entry, &plan))
    }
}

async fn pause(holds: &[Hold], delay: Duration) {
    for hold in holds {
        hold.pass().await;
    }
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
}

fn reset(line: &Line) -> io::Error {
    line.reset_on_close();
    io::Error::new(io::ErrorKind::ConnectionReset, "a fault resets this connection")
}

/// Takes the body in, so that the client gets to read the refusal.
async fn drain(mut body: CountedBody) {
    while let Some(Ok(_)) = body.frame().await {}
}

fn refuse(refusal: &Refusal, entry: &Entry, is_head: bool) -> Result<Response<s3s::Body>, http::Error> {
    let Refusal { status, code, retry_after } = refusal;
    let id = entry.request_id();
    let mut response = Response::builder().status(*status).header(header::CONTENT_TYPE, "application/xml");
    if let Some(wait) = retry_after {
        response = response.header(header::RETRY_AFTER, wait.as_secs());
    }
    if code.is_empty() {
        let page = Bytes::from_static(b"<html><title>404 Not Found</title></html>\n");
        let response = Response::builder().status(*status).header(header::CONTENT_TYPE, "text/html");
        return response.body(if is_head { s3s::Body::empty() } else { s3s::Body::from(page) });
    }
    let document = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <Error><Code>{code}</Code><Message>A fault of the test server.</Message><RequestId>{id}</RequestId></Error>"
    );
    response.body(if is_head { s3s::Body::empty() } else { s3s::Body::from(Bytes::from(document)) })
}

fn finish(response: Response<s3s::Body>, entry: Arc<Entry>, plan: &Plan) -> Response<AnswerBody> {
    let mut response = response;
    entry.answered(response.status().as_u16());
    if let Ok(id) = HeaderValue::from_str(&entry.request_id()) {
        response.headers_mut().insert("x-amz-request-id", id);
    }
    if response.status() == StatusCode::NOT_MODIFIED {
        response.headers_mut().remove(header::CONTENT_TYPE);
    }
    let body = |inner| AnswerBody::new(inner, entry).with_faults(plan.cut, plan.corrupt_at);
    response.map(body)
}
