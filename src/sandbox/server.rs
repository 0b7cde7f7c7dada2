//! The listener under every stand-in: TLS or not, HTTP/2 or HTTP/1.1, and the faults that were planned.

use std::future::{Future, pending, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Ping, Reason, RecvStream};
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::fault::{Fault, Faults};
use super::goaway::{GoAway, Slipping};

/// Connections at once; above it new ones are closed.
const CONNECTIONS_MAX: usize = 1024;
/// Streams at once on a connection, as both providers' SETTINGS say.
const STREAMS_MAX: u32 = 1000;
/// Largest request body that is read at all.
const BODY_MAX: usize = 64 * 1024;
/// How long a handshake may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(15);

/// What a stand-in does with a request.
pub(crate) trait Service: Send + Sync + 'static {
    /// Answers it.
    fn call(&self, request: Request<Bytes>, peer: &Peer) -> impl Future<Output = Response<Bytes>> + Send;

    /// The faults planned for requests to `path`.
    fn faults(&self, path: &str) -> &Faults;

    /// A refusal of a request to `path` in the provider's own form.
    fn refusal(&self, path: &str, status: StatusCode, reason: &str) -> Response<Bytes>;

    /// Whether a connection may have only one stream until [`Peer::trust`] was called.
    fn one_stream_until_trusted(&self) -> bool {
        false
    }
}

/// One connection, as its requests see it.
pub(crate) struct Peer {
    /// Counted from 1.
    pub(crate) number: u64,
    counts: Arc<Counts>,
    /// The identity its first request claimed.
    pub(crate) identity: Mutex<Option<String>>,
    trusted: AtomicBool,
    in_flight: AtomicUsize,
}

impl Peer {
    fn new(number: u64, counts: Arc<Counts>) -> Self {
        let (trusted, in_flight) = (AtomicBool::new(false), AtomicUsize::new(0));
        Self { number, counts, identity: Mutex::default(), trusted, in_flight }
    }

    fn request_arrived(&self) {
        self.counts.requests.send_modify(|count| *count += 1);
    }

    /// Allows more than one stream.
    pub(crate) fn trust(&self) {
        self.trusted.store(true, Ordering::Release);
    }
}

/// What a listener has seen.
struct Counts {
    connections: AtomicU64,
    requests: watch::Sender<u64>,
}

/// A running listener; it ends when dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    counts: Arc<Counts>,
    /// The accept loop, which owns the connections.
    _task: JoinSet<()>,
}

impl Server {
    /// Listens at `address` and serves `service`, over TLS if a configuration for it is given.
    pub(crate) async fn start<S: Service>(
        address: SocketAddr,
        tls: Option<Arc<ServerConfig>>,
        service: Arc<S>,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let counts = Arc::new(Counts { connections: AtomicU64::new(0), requests: watch::Sender::new(0) });
        let mut task = JoinSet::new();
        task.spawn(accept(listener, tls.map(TlsAcceptor::from), service, Arc::clone(&counts)));
        Ok(Self { address, counts, _task: task })
    }

    /// How many connections were ever accepted.
    pub(crate) fn connections(&self) -> u64 {
        self.counts.connections.load(Ordering::Relaxed)
    }

    /// Waits until so many requests have ever arrived.
    pub(crate) async fn requests_reached(&self, count: u64) {
        let mut requests = self.counts.requests.subscribe();
        // The sender lives in `counts`, which we hold.
        drop(requests.wait_for(|seen| *seen >= count).await);
    }
}

async fn accept<S: Service>(listener: TcpListener, tls: Option<TlsAcceptor>, service: Arc<S>, counts: Arc<Counts>) {
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = open.join_next() => {}
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                if open.len() >= CONNECTIONS_MAX {
                    continue;
                }
                let number = counts.connections.fetch_add(1, Ordering::Relaxed) + 1;
                let peer = Arc::new(Peer::new(number, Arc::clone(&counts)));
                open.spawn(serve(stream, tls.clone(), Arc::clone(&service), peer));
            }
        }
    }
}

async fn serve<S: Service>(stream: TcpStream, tls: Option<TlsAcceptor>, service: Arc<S>, peer: Arc<Peer>) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let Some(tls) = tls else { return serve_http1(stream, service, peer).await };
    let Ok(Ok(stream)) = timeout(HANDSHAKE_MAX, tls.accept(stream)).await else { return };
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        serve_http2(stream, service, peer).await;
    } else {
        serve_http1(stream, service, peer).await;
    }
}

async fn serve_http1<S: Service>(stream: impl AsyncRead + AsyncWrite + Unpin, service: Arc<S>, peer: Arc<Peer>) {
    let handler = service_fn(|request: Request<Incoming>| {
        let (service, peer) = (Arc::clone(&service), Arc::clone(&peer));
        async move {
            let (head, body) = request.into_parts();
            peer.request_arrived();
            let fault = service.faults(head.uri.path()).draw();
            let Ok(body) = Limited::new(body, BODY_MAX).collect().await else {
                let refusal = service.refusal(head.uri.path(), StatusCode::PAYLOAD_TOO_LARGE, "PayloadTooLarge");
                return Ok(refusal.map(Full::new));
            };
            let request = Request::from_parts(head, body.to_bytes());
            match answer(&*service, request, &peer, fault).await {
                Some(response) => Ok(response.map(Full::new)),
                None => Err(io::Error::from(io::ErrorKind::ConnectionAborted)),
            }
        }
    });
    // Whatever ends it ends this connection only.
    drop(http1::Builder::new().serve_connection(TokioIo::new(stream), handler).await);
}

async fn serve_http2<S: Service>(stream: impl AsyncRead + AsyncWrite + Unpin, service: Arc<S>, peer: Arc<Peer>) {
    let goaway = GoAway::default();
    let handshake = h2::server::Builder::new()
        .max_concurrent_streams(STREAMS_MAX)
        .handshake::<_, Bytes>(Slipping::new(stream, goaway.clone()));
    let Ok(Ok(mut connection)) = timeout(HANDSHAKE_MAX, handshake).await else { return };
    let mut ping = connection.ping_pong();
    let (cut, mut cut_asked) = mpsc::channel(1);
    let mut streams = JoinSet::new();
    // Streams above a GOAWAY: dropping them would reset them, and the GOAWAY is all they get.
    let mut ignored = Vec::new();
    let mut last = 0;
    loop {
        let (request, mut respond) = tokio::select! {
            _ = cut_asked.recv() => return,
            Some(_) = streams.join_next() => continue,
            accepted = connection.accept() => match accepted {
                Some(Ok(stream)) => stream,
                Some(Err(_)) | None => return,
            },
        };
        if !ignored.is_empty() {
            ignored.push((request, respond));
            continue;
        }
        peer.request_arrived();
        let fault = service.faults(request.uri().path()).draw();
        let untrusted = service.one_stream_until_trusted() && !peer.trusted.load(Ordering::Acquire);
        match fault {
            Some(Fault::CutBefore) => return,
            Some(Fault::Freeze) => return pending().await,
            Some(Fault::RefuseStream) => respond.send_reset(Reason::REFUSED_STREAM),
            Some(Fault::GoAway) => {
                goaway.after(last);
                // Something has to be written for the frame to be slipped in before it.
                if let Some(ping) = &mut ping {
                    drop(ping.send_ping(Ping::opaque()));
                }
                ignored.push((request, respond));
            }
            _ if untrusted && peer.in_flight.load(Ordering::Acquire) > 0 => respond.send_reset(Reason::REFUSED_STREAM),
            fault => {
                last = respond.stream_id().as_u32();
                peer.in_flight.fetch_add(1, Ordering::AcqRel);
                let (service, peer) = (Arc::clone(&service), Arc::clone(&peer));
                streams.spawn(serve_stream(request, respond, service, peer, fault, cut.clone()));
            }
        }
    }
}

async fn serve_stream<S: Service>(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    service: Arc<S>,
    peer: Arc<Peer>,
    fault: Option<Fault>,
    cut: mpsc::Sender<()>,
) {
    let (head, body) = request.into_parts();
    if matches!(fault, Some(Fault::ResetStream)) {
        // Once the request is whole, as by a provider that fails over it.
        drop(read(body).await);
        peer.in_flight.fetch_sub(1, Ordering::AcqRel);
        return respond.send_reset(Reason::INTERNAL_ERROR);
    }
    let response = async {
        match read(body).await {
            Ok(Some(body)) => answer(&*service, Request::from_parts(head, body), &peer, fault).await,
            Ok(None) => {
                let path = head.uri.path();
                Some(service.refusal(path, StatusCode::PAYLOAD_TOO_LARGE, "PayloadTooLarge"))
            }
            // The client is gone, or broke the rules of HTTP/2.
            Err(_) => pending().await,
        }
    };
    let response = tokio::select! {
        response = response => response,
        // The client does not want it any more, and the stream is closed.
        _ = poll_fn(|cx| respond.poll_reset(cx)) => {
            peer.in_flight.fetch_sub(1, Ordering::AcqRel);
            return;
        }
    };
    let Some(response) = response else {
        // Nobody listens if the connection ended by itself.
        let _ = cut.send(()).await;
        return;
    };
    // Before the answer: once the client has it, it may open the next stream.
    peer.in_flight.fetch_sub(1, Ordering::AcqRel);
    let (head, body) = response.into_parts();
    if let Ok(mut stream) = respond.send_response(Response::from_parts(head, ()), body.is_empty())
        && !body.is_empty()
    {
        // A stream that was reset meanwhile needs no body.
        let _ = stream.send_data(body, true);
    }
}

async fn read(mut body: RecvStream) -> Result<Option<Bytes>, h2::Error> {
    let mut whole = BytesMut::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        if whole.len() + chunk.len() > BODY_MAX {
            return Ok(None);
        }
        body.flow_control().release_capacity(chunk.len())?;
        whole.extend_from_slice(&chunk);
    }
    Ok(Some(whole.freeze()))
}

/// The service's answer, or what the fault makes of it. `None`: cut the connection.
async fn answer<S: Service>(
    service: &S,
    request: Request<Bytes>,
    peer: &Peer,
    fault: Option<Fault>,
) -> Option<Response<Bytes>> {
    match fault {
        Some(Fault::Answer { status, reason, retry_after }) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let mut response = service.refusal(request.uri().path(), status, &reason);
            if let Some(after) = retry_after.and_then(|after| HeaderValue::from_str(&after).ok()) {
                response.headers_mut().insert(header::RETRY_AFTER, after);
            }
            return Some(response);
        }
        Some(Fault::Silence | Fault::Freeze) => return pending().await,
        Some(Fault::Delay(delay)) => sleep(delay).await,
        Some(Fault::Hold(gate)) => gate.passed().await,
        Some(Fault::CutBefore) => return None,
        Some(Fault::CutAfter) => {
            service.call(request, peer).await;
            return None;
        }
        // Only HTTP/2 has streams; without them a connection that goes away is cut.
        Some(Fault::GoAway | Fault::RefuseStream | Fault::ResetStream) => return None,
        None => {}
    }
    Some(service.call(request, peer).await)
}

/// A response with a JSON body.
pub(crate) fn json(status: StatusCode, body: &serde_json::Value) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
