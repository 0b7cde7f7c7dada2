//! A peer's socket to the daemon: a datagram socket, or a TLS connection.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use reveille::clock::{self, Instant};
use reveille::sandbox::trust::Trust;
use reveille::sip::{Message, Method, Transport};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// What takes longer is broken.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest message of ours.
const MESSAGE_MAX: usize = 8 * 1024;

/// One end of a conversation.
pub(crate) enum Link {
    /// Datagrams.
    Udp(UdpSocket),
    /// A connection, with what came and was not read yet.
    Tls(Box<TlsStream<TcpStream>>, Vec<u8>),
}

impl Link {
    /// From an address of its own to the daemon's listener.
    pub(crate) async fn open(transport: Transport, to: SocketAddr) -> Self {
        if transport == Transport::Udp {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("an ephemeral port");
            socket.connect(to).await.expect("loopback");
            return Self::Udp(socket);
        }
        Self::Tls(Box::new(secure(to).await), Vec::new())
    }

    /// Where it speaks from.
    pub(crate) fn own(&self) -> SocketAddr {
        match self {
            Self::Udp(socket) => socket.local_addr(),
            Self::Tls(stream, _) => stream.get_ref().0.local_addr(),
        }
        .expect("it is bound")
    }

    /// Says something; when it began to.
    pub(crate) async fn say(&mut self, text: &str) -> Instant {
        let began = clock::now().boot;
        match self {
            Self::Udp(socket) => assert_eq!(socket.send(text.as_bytes()).await.expect("loopback"), text.len()),
            Self::Tls(stream, _) => {
                stream.write_all(text.as_bytes()).await.expect("the daemon reads");
                stream.flush().await.expect("the daemon reads");
            }
        }
        began
    }

    /// The next request of this method, and when it came; everything else is passed over.
    pub(crate) async fn request(&mut self, method: Method<'_>) -> (Message, Instant) {
        self.wait(|message| message.method() == Some(method)).await
    }

    /// The next response with this code, to a request of this method.
    pub(crate) async fn response(&mut self, code: u16, method: Method<'_>) -> (Message, Instant) {
        let to = |message: &Message| message.cseq().is_ok_and(|cseq| cseq.method == method);
        self.wait(|message| message.status().is_some_and(|status| status.code() == code) && to(message)).await
    }

    async fn wait(&mut self, wanted: impl Fn(&Message) -> bool) -> (Message, Instant) {
        loop {
            let bytes = timeout(PATIENCE, self.hear()).await.expect("the daemon answers in time");
            let at = clock::now().boot;
            let message = Message::parse_datagram(bytes).expect("the daemon writes SIP");
            if wanted(&message) {
                return (message, at);
            }
        }
    }

    async fn hear(&mut self) -> Vec<u8> {
        match self {
            Self::Udp(socket) => {
                let mut bytes = vec![0; MESSAGE_MAX];
                let length = socket.recv(&mut bytes).await.expect("loopback");
                bytes.truncate(length);
                bytes
            }
            Self::Tls(stream, read) => loop {
                if let Some(length) = whole(read) {
                    return read.drain(..length).collect();
                }
                let more = stream.read_buf(read).await.expect("the connection stands");
                assert!(more > 0, "the daemon closed a connection");
            },
        }
    }
}

/// A TLS connection to the daemon, whatever its certificate.
pub(crate) async fn secure(to: SocketAddr) -> TlsStream<TcpStream> {
    let stream = TcpStream::connect(to).await.expect("the daemon listens");
    stream.set_nodelay(true).expect("a socket");
    let config = Trust::DangerousAnyone.client_config(&[]).expect("nothing to read");
    let name = ServerName::from(to.ip());
    TlsConnector::from(config).connect(name, stream).await.expect("the daemon speaks TLS")
}

/// The length of the first message, once all of it is here.
fn whole(read: &[u8]) -> Option<usize> {
    let head = read.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&read[..head]).expect("the daemon writes ASCII");
    let length = text.lines().find_map(|line| line.strip_prefix("Content-Length:"));
    let length = head + length.map_or(0, |length| length.trim().parse().expect("a number"));
    (read.len() >= length).then_some(length)
}
