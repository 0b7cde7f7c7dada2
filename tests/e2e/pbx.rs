//! A PBX as its neighbours see it: all they need is where to find it.

use crate::world::Transport;

/// A running PBX, with one port for UDP and TCP and another one for TLS.
pub(crate) trait Pbx {
    fn port(&self) -> u16;

    fn tls_port(&self) -> u16;

    /// Where a client that speaks `transport` finds it.
    fn uri(&self, transport: Transport) -> String {
        let port = if transport == Transport::Tls { self.tls_port() } else { self.port() };
        format!("sip:127.0.0.1:{port};transport={}", transport.name())
    }
}
