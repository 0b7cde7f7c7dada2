//! From the configured list to bound sockets.
//!
//! A UDP entry opens TCP on the same port too, because phones switch to TCP for messages above 1,300 bytes (RFC 3261
//! §18.1.1); the twin is a listener of its own, right behind its sibling. Everything is bound before anything is served,
//! so that a daemon that cannot have all its ports does not start. Refuses to choose an address the world does not see.

use std::io;
use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

use super::bounds::{LISTEN_BACKLOG, PORT_TRIES, UDP_SOCKET_BUFFER};
use crate::engine::policy::Listener;
use crate::sip::Transport;

/// One configured listener.
#[derive(Clone, Debug)]
pub struct ListenEntry {
    /// `Udp` (opens TCP too), `Tcp`, `Tls`, `Ws` or `Wss`.
    pub transport: Transport,
    /// The address to bind; port 0 takes a free one.
    pub address: SocketAddr,
    /// `host:port` as the world sees us. Without a port, or with port 0, the bound port is put in; absent: the bound
    /// address.
    pub advertise: Option<String>,
}

/// Sockets that are bound and not yet served.
pub struct Plan {
    pub(super) sockets: Vec<BoundSocket>,
    listeners: Vec<Listener>,
}

pub(super) enum BoundSocket {
    Datagram(std::net::UdpSocket),
    Stream(std::net::TcpListener),
}

/// Why the listeners cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The socket could not be bound.
    #[error("cannot listen on {transport} {address}: {error}", transport = .transport.as_param())]
    Bind {
        /// What was to be spoken there.
        transport: Transport,
        /// Where.
        address: SocketAddr,
        /// What the kernel says.
        error: io::Error,
    },
    /// A wildcard address needs to be told how the world sees it.
    #[error("the listener on {0} needs `advertise`: a wildcard address means nothing to the world")]
    AdvertiseMissing(SocketAddr),
    /// The text is no `host:port`.
    #[error("`advertise` must be host:port, with an IPv6 address in brackets")]
    AdvertiseMalformed,
    /// More listeners than a number can name.
    #[error("too many listeners")]
    TooMany,
    /// A listener with TLS but without a certificate.
    #[error("a tls or wss listener needs sip.tls_certificate and sip.tls_key")]
    CertificateMissing,
}

/// Binds every entry, in order, each UDP entry followed by its TCP twin (unless that is an entry of its own).
///
/// # Errors
/// The first entry that cannot be had.
pub fn plan_listeners(entries: &[ListenEntry]) -> Result<Plan, ListenError> {
    let mut plan = Plan { sockets: Vec::new(), listeners: Vec::new() };
    for entry in entries {
        match entry.transport {
            Transport::Udp => plan.add_udp(entry, has_own_tcp(entries, entry.address))?,
            Transport::Tcp | Transport::Tls | Transport::Ws | Transport::Wss => {
                let socket = bind_stream(entry.address).map_err(|error| failed(entry, error))?;
                plan.add_stream(socket, entry.transport, entry)?;
            }
        }
    }
    if u16::try_from(plan.listeners.len()).is_err() {
        return Err(ListenError::TooMany);
    }
    Ok(plan)
}

impl Plan {
    /// The listeners in the engine's words; a `ListenerId` is a place in this list.
    #[must_use]
    pub fn listeners(&self) -> Vec<Listener> {
        self.listeners.clone()
    }

    fn add_udp(&mut self, entry: &ListenEntry, has_own_tcp: bool) -> Result<(), ListenError> {
        if has_own_tcp {
            let socket = bind_datagram(entry.address).map_err(|error| failed(entry, error))?;
            return self.add_datagram(socket, entry);
        }
        let (datagram, stream) = bind_twins(entry.address).map_err(|error| failed(entry, error))?;
        self.add_datagram(datagram, entry)?;
        self.add_stream(stream, Transport::Tcp, entry)
    }

    fn add_datagram(&mut self, socket: std::net::UdpSocket, entry: &ListenEntry) -> Result<(), ListenError> {
        let local = socket.local_addr().map_err(|error| failed(entry, error))?;
        self.listeners.push(listener(Transport::Udp, local, entry)?);
        self.sockets.push(BoundSocket::Datagram(socket));
        Ok(())
    }

    fn add_stream(
        &mut self,
        socket: std::net::TcpListener,
        transport: Transport,
        entry: &ListenEntry,
    ) -> Result<(), ListenError> {
        let local = socket.local_addr().map_err(|error| failed(entry, error))?;
        self.listeners.push(listener(transport, local, entry)?);
        self.sockets.push(BoundSocket::Stream(socket));
        Ok(())
    }
}

fn failed(entry: &ListenEntry, error: io::Error) -> ListenError {
    ListenError::Bind { transport: entry.transport, address: entry.address, error }
}

/// Whether the list itself has a stream where the twin would be.
fn has_own_tcp(entries: &[ListenEntry], address: SocketAddr) -> bool {
    address.port() != 0 && entries.iter().any(|entry| entry.address == address && entry.transport.is_reliable())
}

fn listener(transport: Transport, local: SocketAddr, entry: &ListenEntry) -> Result<Listener, ListenError> {
    let advertise = match &entry.advertise {
        Some(text) => complete(text, local.port()).ok_or(ListenError::AdvertiseMalformed)?,
        None if local.ip().is_unspecified() => return Err(ListenError::AdvertiseMissing(local)),
        None => local.to_string(),
    };
    Ok(Listener { transport, local, advertise })
}

/// Puts the bound port where none is given.
fn complete(advertise: &str, bound: u16) -> Option<String> {
    let (host, port) = match advertise.strip_prefix('[') {
        Some(rest) => {
            let (address, after) = rest.split_once(']')?;
            address.parse::<std::net::Ipv6Addr>().ok()?;
            (format!("[{address}]"), after.strip_prefix(':').or(after.is_empty().then_some("0"))?)
        }
        None => {
            let (host, port) = advertise.split_once(':').unwrap_or((advertise, "0"));
            let is_host = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
            (!host.is_empty() && host.bytes().all(is_host)).then_some(())?;
            (host.to_owned(), port)
        }
    };
    let port = match port.parse().ok()? {
        0 => bound,
        port => port,
    };
    Some(format!("{host}:{port}"))
}

fn bind_twins(address: SocketAddr) -> io::Result<(std::net::UdpSocket, std::net::TcpListener)> {
    let mut tries = 1;
    loop {
        let datagram = bind_datagram(address)?;
        match bind_stream(datagram.local_addr()?) {
            Ok(stream) => return Ok((datagram, stream)),
            // The kernel chose a port that is free for UDP; for TCP it need not be.
            Err(error) if address.port() == 0 && error.kind() == io::ErrorKind::AddrInUse && tries < PORT_TRIES => {
                tries += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

fn bind_datagram(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    // The kernel grants what it may; less is no error.
    let _ = socket.set_recv_buffer_size(UDP_SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(UDP_SOCKET_BUFFER);
    bind(&socket, address)?;
    Ok(socket.into())
}

/// Listens for TCP, ready for a runtime (non-blocking). An IPv6 address listens for IPv6 alone.
pub(crate) fn bind_stream(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Without it a restart waits for the old connections' TIME_WAIT.
    socket.set_reuse_address(true)?;
    bind(&socket, address)?;
    socket.listen(LISTEN_BACKLOG)?;
    Ok(socket.into())
}

fn bind(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    if matches!(address.ip(), IpAddr::V6(_)) {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(transport: Transport, address: &str, advertise: Option<&str>) -> ListenEntry {
        ListenEntry {
            transport,
            address: address.parse().expect("a literal"),
            advertise: advertise.map(ToOwned::to_owned),
        }
    }

    #[test]
    fn a_udp_entry_gets_a_tcp_twin_on_its_port() {
        let plan = plan_listeners(&[entry(Transport::Udp, "127.0.0.1:0", Some("edge.example.net"))]).expect("bound");
        let [udp, tcp]: [Listener; 2] = plan.listeners().try_into().expect("two listeners");
        assert_eq!((udp.transport, tcp.transport), (Transport::Udp, Transport::Tcp));
        assert_eq!(udp.local, tcp.local);
        assert_ne!(udp.local.port(), 0);
        assert_eq!(udp.advertise, format!("edge.example.net:{}", udp.local.port()));
    }

    #[test]
    fn ipv6_shares_a_port_with_ipv4() {
        let v4 = plan_listeners(&[entry(Transport::Udp, "127.0.0.1:0", None)]).expect("bound");
        let port = v4.listeners()[0].local.port();
        let v6 = plan_listeners(&[entry(Transport::Udp, &format!("[::]:{port}"), Some("[2001:db8::5]:0"))]);
        assert_eq!(v6.expect("bound").listeners()[0].advertise, format!("[2001:db8::5]:{port}"));
    }

    #[test]
    fn a_twin_that_is_listed_is_not_opened_twice() {
        let free = plan_listeners(&[entry(Transport::Udp, "127.0.0.1:0", None)]).expect("bound");
        let address = free.listeners()[0].local.to_string();
        drop(free);
        let plan = plan_listeners(&[entry(Transport::Tcp, &address, None), entry(Transport::Udp, &address, None)]);
        assert_eq!(plan.expect("bound").listeners().len(), 2);
    }

    #[test]
    fn what_cannot_be_served_is_refused() {
        let refused = |entry| plan_listeners(&[entry]).err().expect("refused");
        assert!(matches!(refused(entry(Transport::Tcp, "0.0.0.0:0", None)), ListenError::AdvertiseMissing(_)));
        for advertise in ["", ":5060", "a b:1", "edge:99999", "[2001:db8::5", "[nonsense]:1", "2001:db8::5"] {
            let error = refused(entry(Transport::Tcp, "127.0.0.1:0", Some(advertise)));
            assert!(matches!(error, ListenError::AdvertiseMalformed), "{advertise}");
        }
        let taken = plan_listeners(&[entry(Transport::Tcp, "127.0.0.1:0", None)]).expect("bound");
        let address = taken.listeners()[0].local.to_string();
        assert!(matches!(refused(entry(Transport::Tcp, &address, None)), ListenError::Bind { .. }));
    }
}
