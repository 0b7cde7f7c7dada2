//! The sockets of a stand-in: datagrams, accepted streams, streams it opened itself.
//!
//! Its own room so that the SIP side above names a [`Path`] and never a socket. It parses what comes in and drops what is
//! no SIP; it answers keep-alive pings and knows nothing else of what it carries.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::sip::framing::{Frame, FrameLimits, Framer};
use crate::sip::message::LONG_MESSAGE_MAX;
use crate::sip::outbound::PONG;
use crate::sip::{Message, Transport};

/// Streams at once; above it new ones are closed.
const STREAMS_MAX: usize = 256;
/// Messages read and not yet taken by the owner; above it the streams are read no further.
const ARRIVALS_QUEUED: usize = 256;
/// Messages waiting to be written on one stream; above it the stream counts as dead and is closed.
const WRITES_QUEUED: usize = 64;
/// How often a pair of a UDP and a TCP socket on one free port is tried.
const BIND_ATTEMPTS: u32 = 32;
/// How long opening a stream may take, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A stream; numbers are never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct StreamId(u64);

/// Where a message came from, and where one can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Path {
    Datagram(SocketAddr),
    Stream(StreamId),
}

/// What the sockets say.
pub(crate) enum Incoming {
    Message { message: Message, path: Path, peer: SocketAddr },
    Closed(StreamId),
}

struct Stream {
    transport: Transport,
    local: SocketAddr,
    peer: SocketAddr,
    writes: mpsc::Sender<Bytes>,
}

/// How a TLS stream is opened.
pub(crate) struct Tls {
    pub(crate) name: ServerName<'static>,
    pub(crate) config: Arc<ClientConfig>,
}

/// All sockets of one stand-in. Dropping it closes them.
pub(crate) struct Wire {
    udp: Option<UdpSocket>,
    tcp: Option<TcpListener>,
    local: SocketAddr,
    streams: HashMap<StreamId, Stream>,
    streams_opened: u64,
    arrivals: mpsc::Receiver<Incoming>,
    arrivals_in: mpsc::Sender<Incoming>,
    tasks: JoinSet<()>,
    datagram: Vec<u8>,
}

impl Wire {
    /// Listens for datagrams and streams on one address; port 0 finds a port that is free for both.
    pub(crate) async fn listen(address: SocketAddr) -> io::Result<Self> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let udp = UdpSocket::bind(address).await?;
            let local = udp.local_addr()?;
            ready_to_send(&udp).await?;
            match TcpListener::bind(local).await {
                Ok(tcp) => return Ok(Self::new(local, Some(udp), Some(tcp))),
                Err(_) if address.port() == 0 && attempts < BIND_ATTEMPTS => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Listens for datagrams alone, as a phone does.
    pub(crate) async fn datagrams(address: SocketAddr) -> io::Result<Self> {
        let udp = UdpSocket::bind(address).await?;
        let local = udp.local_addr()?;
        ready_to_send(&udp).await?;
        Ok(Self::new(local, Some(udp), None))
    }

    /// Listens for nothing: a phone behind a NAT, which has only the streams it opens.
    pub(crate) fn outbound() -> Self {
        Self::new(SocketAddr::from(([127, 0, 0, 1], 0)), None, None)
    }

    /// Opens a stream and waits until it stands.
    pub(crate) async fn connect(&mut self, peer: SocketAddr, tls: Option<Tls>) -> io::Result<Path> {
        let tcp = timeout(CONNECT_TIMEOUT, TcpStream::connect(peer)).await??;
        tcp.set_nodelay(true)?;
        let local = tcp.local_addr()?;
        let id = match tls {
            None => self.adopt(tcp, Transport::Tcp, local, peer),
            Some(Tls { name, config }) => {
                let connecting = TlsConnector::from(config).connect(name, tcp);
                let stream = timeout(CONNECT_TIMEOUT, connecting).await??;
                self.adopt(stream, Transport::Tls, local, peer)
            }
        };
        Ok(Path::Stream(id))
    }

    /// The next message, or the end of a stream. Dropping the future loses nothing.
    pub(crate) async fn receive(&mut self) -> Incoming {
        loop {
            tokio::select! {
                Some(incoming) = self.arrivals.recv() => {
                    if let Incoming::Closed(id) = &incoming {
                        self.streams.remove(id);
                    }
                    return incoming;
                }
                received = datagram(self.udp.as_ref(), &mut self.datagram) => {
                    let Ok((length, peer)) = received else { continue };
                    if let Ok(message) = Message::parse_datagram(self.datagram[..length].to_vec()) {
                        return Incoming::Message { message, path: Path::Datagram(peer), peer };
                    }
                }
                Ok((stream, peer)) = accept(self.tcp.as_ref()) => {
                    if self.streams.len() < STREAMS_MAX && stream.set_nodelay(true).is_ok() {
                        self.adopt(stream, Transport::Tcp, self.local, peer);
                    }
                }
                Some(_) = self.tasks.join_next() => {}
            }
        }
    }

    /// Sends, or drops what cannot be sent: SIP's timers notice.
    pub(crate) fn send(&mut self, path: Path, bytes: Bytes) {
        match path {
            Path::Datagram(peer) => {
                if let Some(udp) = &self.udp {
                    // A socket whose buffer is full loses the datagram as the network would.
                    let _ = udp.try_send_to(&bytes, peer);
                }
            }
            Path::Stream(id) => {
                let full = self.streams.get(&id).is_some_and(|stream| stream.writes.try_send(bytes).is_err());
                if full {
                    self.streams.remove(&id);
                }
            }
        }
    }

    /// A way to `peer`: the datagram socket, a live TCP stream that was opened to it, or a new one.
    pub(crate) fn path_to(&mut self, transport: Transport, peer: SocketAddr) -> Option<Path> {
        match transport {
            Transport::Udp => Some(Path::Datagram(peer)),
            Transport::Tcp => {
                let live = self.streams.iter().find(|(_, stream)| stream.peer == peer).map(|(id, _)| *id);
                live.or_else(|| self.dial(peer)).map(Path::Stream)
            }
            Transport::Tls | Transport::Ws | Transport::Wss => None,
        }
    }

    /// Whether something sent on the path may arrive.
    pub(crate) fn is_live(&self, path: Path) -> bool {
        match path {
            Path::Datagram(_) => self.udp.is_some(),
            Path::Stream(id) => self.streams.contains_key(&id),
        }
    }

    /// What is spoken on the path.
    pub(crate) fn transport(&self, path: Path) -> Transport {
        match path {
            Path::Datagram(_) => Transport::Udp,
            Path::Stream(id) => self.streams.get(&id).map_or(Transport::Tcp, |stream| stream.transport),
        }
    }

    /// Where the other side finds us, for Via and Contact.
    pub(crate) fn local(&self, path: Path) -> SocketAddr {
        match path {
            Path::Datagram(_) => self.local,
            Path::Stream(id) => self.streams.get(&id).map_or(self.local, |stream| stream.local),
        }
    }

    /// The bound address.
    pub(crate) fn address(&self) -> SocketAddr {
        self.local
    }

    fn new(local: SocketAddr, udp: Option<UdpSocket>, tcp: Option<TcpListener>) -> Self {
        let (arrivals_in, arrivals) = mpsc::channel(ARRIVALS_QUEUED);
        Self {
            udp,
            tcp,
            local,
            streams: HashMap::new(),
            streams_opened: 0,
            arrivals,
            arrivals_in,
            tasks: JoinSet::new(),
            datagram: vec![0; LONG_MESSAGE_MAX],
        }
    }

    fn adopt<S>(&mut self, stream: S, transport: Transport, local: SocketAddr, peer: SocketAddr) -> StreamId
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (id, writes) = self.enter(transport, local, peer);
        let arrivals = self.arrivals_in.clone();
        self.tasks.spawn(async move {
            carry(id, peer, stream, writes, &arrivals).await;
            let _ = arrivals.send(Incoming::Closed(id)).await;
        });
        id
    }

    /// Opens a stream in the background; what is sent meanwhile waits for it.
    fn dial(&mut self, peer: SocketAddr) -> Option<StreamId> {
        if self.streams.len() >= STREAMS_MAX {
            return None;
        }
        let (id, writes) = self.enter(Transport::Tcp, self.local, peer);
        let arrivals = self.arrivals_in.clone();
        self.tasks.spawn(async move {
            if let Ok(Ok(stream)) = timeout(CONNECT_TIMEOUT, TcpStream::connect(peer)).await
                && stream.set_nodelay(true).is_ok()
            {
                carry(id, peer, stream, writes, &arrivals).await;
            }
            let _ = arrivals.send(Incoming::Closed(id)).await;
        });
        Some(id)
    }

    fn enter(
        &mut self,
        transport: Transport,
        local: SocketAddr,
        peer: SocketAddr,
    ) -> (StreamId, mpsc::Receiver<Bytes>) {
        self.streams_opened += 1;
        let id = StreamId(self.streams_opened);
        let (writes, to_write) = mpsc::channel(WRITES_QUEUED);
        self.streams.insert(id, Stream { transport, local, peer, writes });
        (id, to_write)
    }
}

/// A new socket counts as full until the runtime has looked at it once, and `send` would lose its first datagram.
async fn ready_to_send(udp: &UdpSocket) -> io::Result<()> {
    udp.writable().await
}

async fn datagram(udp: Option<&UdpSocket>, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
    match udp {
        Some(udp) => udp.recv_from(buffer).await,
        None => std::future::pending().await,
    }
}

async fn accept(tcp: Option<&TcpListener>) -> io::Result<(TcpStream, SocketAddr)> {
    match tcp {
        Some(tcp) => tcp.accept().await,
        None => std::future::pending().await,
    }
}

/// Carries messages both ways until either side ends the stream or breaks its framing.
async fn carry<S>(
    id: StreamId,
    peer: SocketAddr,
    stream: S,
    mut writes: mpsc::Receiver<Bytes>,
    arrivals: &mpsc::Sender<Incoming>,
) where
    S: AsyncRead + AsyncWrite,
{
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut framer = Framer::default();
    framer.set_limits(FrameLimits { message: LONG_MESSAGE_MAX, skip: 0 });
    let mut buffer = vec![0; 4096];
    loop {
        let written = tokio::select! {
            read = reader.read(&mut buffer) => match read {
                Ok(length) if length > 0 => {
                    framer.push(&buffer[..length]);
                    take_frames(id, peer, &mut framer, &mut writer, arrivals).await
                }
                _ => break,
            },
            bytes = writes.recv() => match bytes {
                Some(bytes) => write(&mut writer, &bytes).await,
                None => break,
            },
        };
        if written.is_err() {
            break;
        }
    }
    // A peer that is gone cannot be told good-bye.
    let _ = writer.shutdown().await;
}

async fn take_frames<W: AsyncWrite + Unpin>(
    id: StreamId,
    peer: SocketAddr,
    framer: &mut Framer,
    writer: &mut W,
    arrivals: &mpsc::Sender<Incoming>,
) -> io::Result<()> {
    let broken = |_| io::Error::from(io::ErrorKind::InvalidData);
    while let Some(frame) = framer.next_frame().map_err(broken)? {
        match frame {
            Frame::Message(bytes) => {
                let message = Message::parse_frame(bytes).map_err(broken)?;
                let incoming = Incoming::Message { message, path: Path::Stream(id), peer };
                arrivals.send(incoming).await.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
            }
            Frame::Ping => write(writer, PONG).await?,
            // Nothing is skipped: a stand-in's peer that sends too much has a bug.
            Frame::Pong | Frame::Oversized(_) | Frame::Skipped => {}
        }
    }
    Ok(())
}

async fn write<W: AsyncWrite + Unpin>(writer: &mut W, bytes: &[u8]) -> io::Result<()> {
    writer.write_all(bytes).await?;
    writer.flush().await
}
