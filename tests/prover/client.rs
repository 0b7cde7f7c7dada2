//! An app that hands its account over, by HTTP/1.1 or HTTP/2, TLS 1.2 or 1.3, and breaks off wherever a test wants it to.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;

use crate::frames;
use crate::process::PATIENCE;

/// How an app speaks to the API.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Http1OverTls13,
    Http1OverTls12,
    Http2,
}

/// Where a request breaks off.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Break {
    /// After half of the body, between two TLS records; the connection is closed.
    BetweenRecords,
    /// In the middle of the TLS record with the second half; the connection is reset.
    InRecord,
    /// After the whole request; the app does not wait for the answer.
    BeforeAnswer,
    /// After half of the body; the connection stays open and nothing more comes.
    Stall,
}

/// A request.
pub(crate) struct Ask<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) bearer: &'a str,
    /// More header fields.
    pub(crate) more: &'a [(&'a str, &'a str)],
    pub(crate) body: &'a [u8],
}

/// Where an app over HTTP/2 falls silent: its connection stays open, it sends nothing more and answers no ping.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hush {
    /// When it has the answer.
    Answered,
    /// After half of the body, which is one frame.
    MidFrame,
    /// When it has taken the whole request back.
    TakenBack,
}

/// An app that fell silent; with it, its connection ends.
pub(crate) struct Silent {
    stream: StreamOwned<ClientConnection, TcpStream>,
    /// The body of the answer, if it waited for one.
    pub(crate) answer: Value,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

/// The way to one daemon's API.
#[derive(Clone)]
pub(crate) struct Client {
    address: SocketAddr,
    tls13: Arc<ClientConfig>,
    tls12: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
}

impl Client {
    pub(crate) fn new(port: u16, ca_file: &Path) -> anyhow::Result<Self> {
        let config = |versions: &[&'static rustls::SupportedProtocolVersion], alpn: &str| -> anyhow::Result<_> {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(ca_file)?)?;
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions)?;
            let mut config = builder.with_root_certificates(roots).with_no_client_auth();
            config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
            Ok(Arc::new(config))
        };
        Ok(Self {
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            tls13: config(&[&rustls::version::TLS13], "http/1.1")?,
            tls12: config(&[&rustls::version::TLS12], "http/1.1")?,
            http2: config(&[&rustls::version::TLS13], "h2")?,
        })
    }

    /// Asks, waits for the answer and, if the daemon wants to close the connection, for that.
    pub(crate) fn ask(&self, runtime: &Runtime, dialect: Dialect, ask: &Ask<'_>) -> anyhow::Result<Answer> {
        if dialect == Dialect::Http2 {
            let asked = async { tokio::time::timeout(PATIENCE, self.ask_http2(ask)).await };
            return runtime.block_on(asked).context("no answer over HTTP/2")?;
        }
        self.ask_http1(dialect, ask)
    }

    /// The same over HTTP/1.1, whatever the dialect says of HTTP.
    pub(crate) fn ask_http1(&self, dialect: Dialect, ask: &Ask<'_>) -> anyhow::Result<Answer> {
        let mut stream = self.connect(dialect)?;
        stream.write_all(&ask.head(ask.body.len()))?;
        // A daemon that refuses by the head may close before it has the body; then its answer is there all the same.
        let _ = stream.write_all(ask.body).and_then(|()| stream.flush());
        answer(stream)
    }

    /// Asks over HTTP/1.1 and breaks off. Whoever stalls waits for the daemon's patience to end.
    pub(crate) fn ask_and_break(&self, dialect: Dialect, ask: &Ask<'_>, breaking: Break) -> anyhow::Result<()> {
        let mut stream = self.connect(dialect)?;
        let (first, second) = ask.body.split_at(ask.body.len() / 2);
        stream.write_all(&ask.head(ask.body.len()))?;
        stream.write_all(first)?;
        stream.flush()?;
        match breaking {
            Break::BetweenRecords => {}
            Break::BeforeAnswer => {
                stream.write_all(second)?;
                stream.flush()?;
            }
            Break::Stall => {
                let answer = answer(stream)?;
                ensure!((400..500).contains(&answer.status), "a body that stalls was answered {answer:?}");
            }
            Break::InRecord => {
                let mut record = Vec::new();
                stream.conn.writer().write_all(second)?;
                stream.conn.write_tls(&mut record)?;
                stream.sock.write_all(&record[..record.len() / 2])?;
                let socket = socket2::SockRef::from(&stream.sock);
                socket.set_linger(Some(Duration::ZERO))?;
            }
        }
        Ok(())
    }

    /// Posts a hand-over over HTTP/2 and falls silent.
    pub(crate) fn post_and_hush(&self, bearer: &str, body: &str, hush: Hush) -> anyhow::Result<Silent> {
        const STREAM: u32 = 1;
        let mut stream = self.connect_as(&self.http2)?;
        let data = frames::last_data(STREAM, body);
        let sent = if hush == Hush::MidFrame { &data[..data.len() / 2] } else { &data };
        stream.write_all(&[frames::PREFACE, &frames::hand_over(STREAM, bearer), sent].concat())?;
        stream.flush()?;
        let mut silent = Silent { stream, answer: Value::Null };
        match hush {
            Hush::Answered => silent.read_answer(STREAM)?,
            Hush::MidFrame => {}
            Hush::TakenBack => {
                silent.stream.write_all(&frames::reset(STREAM))?;
                silent.stream.flush()?;
            }
        }
        Ok(silent)
    }

    /// For HTTP/1.1.
    fn connect(&self, dialect: Dialect) -> anyhow::Result<StreamOwned<ClientConnection, TcpStream>> {
        self.connect_as(if dialect == Dialect::Http1OverTls12 { &self.tls12 } else { &self.tls13 })
    }

    fn connect_as(&self, config: &Arc<ClientConfig>) -> anyhow::Result<StreamOwned<ClientConnection, TcpStream>> {
        let connection = ClientConnection::new(Arc::clone(config), ServerName::from(self.address.ip()))?;
        let socket = TcpStream::connect(self.address)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_nodelay(true)?;
        Ok(StreamOwned::new(connection, socket))
    }

    async fn ask_http2(&self, ask: &Ask<'_>) -> anyhow::Result<Answer> {
        let socket = tokio::net::TcpStream::connect(self.address).await?;
        let tls = TlsConnector::from(Arc::clone(&self.http2));
        let stream = tls.connect(ServerName::from(self.address.ip()), socket).await?;
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        let mut request = Request::builder().method(ask.method);
        request = request.uri(format!("https://{}{}", self.address, ask.path));
        for (name, value) in ask.fields() {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(ask.body)))?;
        let question = async move {
            let response = sender.send_request(request).await?;
            let status = response.status().as_u16();
            let body = response.into_body().collect().await?.to_bytes();
            // With the sender the connection ends, if the daemon has not ended it by then.
            anyhow::Ok(Answer { status, body: serde_json::from_slice(&body).unwrap_or(Value::Null) })
        };
        let (answer, _) = tokio::join!(question, connection);
        answer
    }
}

impl Silent {
    fn read_answer(&mut self, stream: u32) -> anyhow::Result<()> {
        let (mut heard, mut buffer) = (Vec::new(), [0; 4096]);
        while !frames::is_answered(&heard, stream) {
            let more = self.stream.read(&mut buffer)?;
            ensure!(more > 0, "the connection ended without an answer");
            heard.extend_from_slice(&buffer[..more]);
        }
        self.answer = serde_json::from_slice(&frames::body(&heard, stream))?;
        Ok(())
    }
}

impl Ask<'_> {
    fn fields(&self) -> impl Iterator<Item = (&str, String)> {
        let bearer = (!self.bearer.is_empty()).then(|| ("authorization", format!("Bearer {}", self.bearer)));
        let json = !self.more.iter().any(|(name, _)| *name == "content-type") && !self.body.is_empty();
        let json = json.then(|| ("content-type", "application/json".to_owned()));
        self.more.iter().map(|(name, value)| (*name, (*value).to_owned())).chain(bearer).chain(json)
    }

    fn head(&self, length: usize) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\nhost: localhost\r\n", self.method, self.path);
        for (name, value) in self.fields() {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let chunked = self.more.iter().any(|(name, _)| *name == "transfer-encoding");
        if !chunked {
            head.push_str(&format!("content-length: {length}\r\n"));
        }
        head.push_str("\r\n");
        head.into_bytes()
    }
}

/// Reads an answer and, where it ends the connection, to the connection's end.
fn answer(mut stream: StreamOwned<ClientConnection, TcpStream>) -> anyhow::Result<Answer> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let complete = complete(&bytes);
        if let Some((status, body, closes)) = &complete
            && !closes
        {
            return Ok(Answer { status: *status, body: body.clone() });
        }
        match stream.read(&mut buffer) {
            Ok(more) if more > 0 => bytes.extend_from_slice(&buffer[..more]),
            // The end, in whatever manner.
            ended => match complete {
                Some((status, body, _)) => return Ok(Answer { status, body }),
                None => bail!("the connection ended without an answer: {ended:?}"),
            },
        }
    }
}

/// Status, body, and whether the connection ends with it.
fn complete(bytes: &[u8]) -> Option<(u16, Value, bool)> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?.to_ascii_lowercase();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let length: usize = field("content-length:").map_or(Some(0), |length| length.parse().ok())?;
    let body = bytes.get(end + 4..end + 4 + length)?;
    Some((status, serde_json::from_slice(body).unwrap_or(Value::Null), field("connection:") == Some("close")))
}
