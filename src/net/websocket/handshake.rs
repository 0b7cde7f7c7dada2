//! The HTTP request that asks for a WebSocket, and our answer to it (RFC 6455 §4.2, RFC 7118 §4.1).
//!
//! Nothing but the upgrade is served here: any path, any Origin (who may attach is decided by credentials, which no page
//! of another site has), no extension. A refusal says in a line what is missing, and closes.

use std::io;

use http::StatusCode;
use http::header::{CONTENT_LENGTH, SEC_WEBSOCKET_PROTOCOL, TRANSFER_ENCODING};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tungstenite::error::{Error, ProtocolError};
use tungstenite::handshake::machine::TryParse;
use tungstenite::handshake::server::{Request, create_response};

use super::super::bounds::UPGRADE_HEAD_MAX;
use super::super::stream::drain;

/// The subprotocol of RFC 7118.
const SUBPROTOCOL: &str = "sip";
const NO_HANDSHAKE: &str = "this is no WebSocket handshake (RFC 6455)";
const HEAD_END: &[u8] = b"\r\n\r\n";
/// Bytes read at once; most requests fit.
const CHUNK: usize = 1024;

/// Why there is no WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    /// What the developer of a client reads.
    pub(super) reason: &'static str,
}

/// Reads the request and answers it.
///
/// # Errors
/// There is no WebSocket: the peer went away, or has its refusal.
pub(in super::super) async fn upgrade<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> io::Result<()> {
    let answer = match read_head(stream).await? {
        Some(head) => answer(&head),
        None => Err(refusal(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "the request is too large")),
    };
    match answer {
        Ok(response) => {
            stream.write_all(&response).await?;
            stream.flush().await
        }
        Err(refusal) => {
            stream.write_all(&refusal.response()).await?;
            stream.shutdown().await?;
            // Closing over what the peer still sends would take the answer from it.
            drain(stream).await;
            Err(io::ErrorKind::InvalidData.into())
        }
    }
}

/// Reads until the empty line; `None` if it does not come within the bound.
async fn read_head<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Option<Vec<u8>>> {
    let mut head = Vec::with_capacity(CHUNK);
    loop {
        let searched = head.len().saturating_sub(HEAD_END.len() - 1);
        let room = u64::try_from((UPGRADE_HEAD_MAX - head.len()).min(CHUNK)).unwrap_or(0);
        if (&mut *stream).take(room).read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if memchr::memmem::find(&head[searched..], HEAD_END).is_some() {
            return Ok(Some(head));
        }
        if head.len() >= UPGRADE_HEAD_MAX {
            return Ok(None);
        }
    }
}

/// The response to a whole request head.
pub(super) fn answer(head: &[u8]) -> Result<Vec<u8>, Refusal> {
    let parsed = Request::try_parse(head).map_err(|error| unsuitable(&error))?;
    let (length, request) = parsed.ok_or(refusal(StatusCode::BAD_REQUEST, NO_HANDSHAKE))?;
    let response = create_response(&request).map_err(|error| unsuitable(&error))?;
    let headers = request.headers();
    // A client waits for our answer before it sends frames, and an upgrade has no body.
    if length != head.len() || headers.contains_key(CONTENT_LENGTH) || headers.contains_key(TRANSFER_ENCODING) {
        return Err(refusal(StatusCode::BAD_REQUEST, "nothing may follow the request before its answer"));
    }
    let offered = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    if !offered.flat_map(|value| value.split(',')).any(|name| name.trim() == SUBPROTOCOL) {
        let reason = "Sec-WebSocket-Protocol must offer sip (RFC 7118)";
        return Err(refusal(StatusCode::BAD_REQUEST, reason));
    }
    let mut out = b"HTTP/1.1 101 Switching Protocols\r\n".to_vec();
    for (name, value) in response.headers() {
        field(&mut out, name.as_str(), value.as_bytes());
    }
    field(&mut out, SEC_WEBSOCKET_PROTOCOL.as_str(), SUBPROTOCOL.as_bytes());
    out.extend_from_slice(b"\r\n");
    Ok(out)
}

fn unsuitable(error: &Error) -> Refusal {
    match error {
        Error::Protocol(ProtocolError::WrongHttpMethod) => {
            refusal(StatusCode::METHOD_NOT_ALLOWED, "only GET opens a WebSocket")
        }
        Error::Protocol(
            ProtocolError::MissingConnectionUpgradeHeader
            | ProtocolError::MissingUpgradeWebSocketHeader
            | ProtocolError::MissingSecWebSocketVersionHeader,
        ) => refusal(StatusCode::UPGRADE_REQUIRED, "only WebSocket, version 13, is served here"),
        _ => refusal(StatusCode::BAD_REQUEST, NO_HANDSHAKE),
    }
}

fn refusal(status: StatusCode, reason: &'static str) -> Refusal {
    Refusal { status, reason }
}

fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    for part in [name.as_bytes(), b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

impl Refusal {
    fn response(self) -> Vec<u8> {
        let extra = match self.status {
            StatusCode::METHOD_NOT_ALLOWED => "Allow: GET\r\n",
            // RFC 9110 §15.5.22 and RFC 6455 §4.4.
            StatusCode::UPGRADE_REQUIRED => "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
            _ => "",
        };
        let (status, reason) = (self.status, self.reason);
        let connection = if status == StatusCode::UPGRADE_REQUIRED { "Upgrade, close" } else { "close" };
        format!(
            "HTTP/1.1 {status}\r\nConnection: {connection}\r\n{extra}Content-Type: text/plain\r\nContent-Length: {}\r\n\r\n\
             {reason}\n",
            reason.len() + 1
        )
        .into_bytes()
    }
}
