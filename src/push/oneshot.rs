//! One request on one HTTP/1.1 connection, for what is asked once an hour: OAuth tokens, and our own stand-in's mailbox.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use super::channel::Reply;
use super::endpoint::Endpoint;

/// How long the whole exchange may take.
const EXCHANGE_MAX: Duration = Duration::from_secs(20);
/// The largest answer we read; an access token has about one KiB.
const BODY_MAX: usize = 64 * 1024;

/// Posts a body and reads the answer. The error says at which step it failed, never what was sent.
pub(crate) async fn post(endpoint: &Endpoint, content_type: &'static str, body: Bytes) -> Result<Reply, String> {
    timeout(EXCHANGE_MAX, exchange(endpoint, content_type, body)).await.unwrap_or_else(|_| Err("timed out".to_owned()))
}

async fn exchange(endpoint: &Endpoint, content_type: &'static str, body: Bytes) -> Result<Reply, String> {
    let request = Request::builder()
        .method(Method::POST)
        .uri(endpoint.path())
        .header(header::HOST, endpoint.authority())
        .header(header::CONTENT_TYPE, content_type)
        .header(header::CONNECTION, "close")
        .body(Full::new(body))
        .map_err(|_| "the request cannot be built".to_owned())?;
    let io = endpoint.connect().await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await.map_err(|error| error.to_string())?;
    let answer = async move {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, BODY_MAX).collect().await.map_err(|_| "the answer broke off".to_owned())?;
        Ok(Reply { status: head.status, headers: head.headers, body: body.to_bytes() })
    };
    // The connection works only while it is polled; once the answer is whole, nothing on it matters any more.
    tokio::pin!(connection, answer);
    tokio::select! {
        answer = &mut answer => answer,
        _ = &mut connection => answer.await,
    }
}
