//! Via (RFC 3261 §20.42, RFC 3581) and transports.
//!
//! A view over one Via value. White space may stand around each slash and colon (RFC 4475 §3.1.1.1), and a transport we do
//! not know is no error: a proxy forwards it. Where a response goes is decided elsewhere (`proxy::response_target`).

use std::fmt;

use super::grammar::{self, Parameters};
use super::uri::{self, Host};

/// How SIP travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// A plain stream.
    Tcp,
    /// A stream over TLS.
    Tls,
    /// WebSocket (RFC 7118).
    Ws,
    /// WebSocket over TLS.
    Wss,
}

impl Transport {
    const ALL: [Self; 5] = [Self::Udp, Self::Tcp, Self::Tls, Self::Ws, Self::Wss];

    /// `udp`, `tcp`, `tls`, `ws`, `wss` in any case.
    pub fn from_param(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|transport| transport.as_param().eq_ignore_ascii_case(name))
    }

    /// The name in lower case: what an operator writes.
    pub fn as_param(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Ws => "ws",
            Self::Wss => "wss",
        }
    }

    /// For `;transport=` in a URI. RFC 7118 §5.2.2 has the one value `ws`, over TLS or not.
    pub fn as_uri_param(self) -> &'static str {
        match self {
            Self::Ws | Self::Wss => "ws",
            Self::Udp | Self::Tcp | Self::Tls => self.as_param(),
        }
    }

    /// For Via: upper case.
    pub fn as_via(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
            Self::Ws => "WS",
            Self::Wss => "WSS",
        }
    }

    /// Whether it delivers or breaks, so that nothing is retransmitted.
    pub fn is_reliable(self) -> bool {
        !matches!(self, Self::Udp)
    }

    /// Whether TLS protects it.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Tls | Self::Wss)
    }

    /// Whether messages come in WebSocket frames. Devices alone speak it: no trunk does.
    pub fn is_websocket(self) -> bool {
        matches!(self, Self::Ws | Self::Wss)
    }

    /// 5060, or 5061 for TLS (RFC 3261 §19.1.2); 80/443 for WebSocket.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Udp | Self::Tcp => 5060,
            Self::Tls => 5061,
            Self::Ws => 80,
            Self::Wss => 443,
        }
    }
}

/// One Via value.
#[derive(Clone, Copy)]
pub struct Via<'a> {
    raw: &'a [u8],
    transport: &'a str,
    sent_by: &'a str,
    host: Host<'a>,
    port: Option<u16>,
    params: Parameters<'a>,
}

/// The bytes are no Via value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed Via")]
pub struct ViaError;

impl<'a> Via<'a> {
    /// Parses one value (one element of the comma list).
    ///
    /// # Errors
    /// If the value does not follow the grammar.
    pub fn parse(raw: &'a [u8]) -> Result<Self, ViaError> {
        let sound = |via: &Self| via.params.are_well_formed() && via.branch() != Some("");
        cut(grammar::trim(raw)).filter(sound).ok_or(ViaError)
    }

    /// `None` for a transport we do not know.
    pub fn transport(&self) -> Option<Transport> {
        Transport::from_param(self.transport)
    }

    /// The transport as written.
    pub fn transport_name(&self) -> &'a str {
        self.transport
    }

    /// The host of sent-by as written, brackets of an IPv6 reference included, without the port.
    pub fn sent_by(&self) -> &'a str {
        self.sent_by
    }

    /// The host of sent-by, parsed.
    pub fn host(&self) -> Host<'a> {
        self.host
    }

    /// The port of sent-by, if one is written.
    pub fn sent_by_port(&self) -> Option<u16> {
        self.port
    }

    /// The branch, magic cookie included.
    pub fn branch(&self) -> Option<&'a str> {
        self.param("branch").flatten()
    }

    /// `;rport` present (RFC 3581), with or without a value.
    pub fn wants_rport(&self) -> bool {
        self.param("rport").is_some()
    }

    /// A parameter by name (any case): `None` absent, `Some(None)` without value.
    pub fn param(&self, name: &str) -> Option<Option<&'a str>> {
        self.params.find(name)
    }

    /// The value as it stands.
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }
}

/// The transport only: the rest says where somebody is.
impl fmt::Debug for Via<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Via").field("transport", &self.transport).finish_non_exhaustive()
    }
}

/// `sent-protocol LWS sent-by *( SEMI via-params )`.
fn cut(raw: &[u8]) -> Option<Via<'_>> {
    let (_protocol, rest) = grammar::token(raw)?;
    let (_version, rest) = grammar::token(after(rest, b'/')?)?;
    let (transport, rest) = grammar::token(after(rest, b'/')?)?;
    let sent_by = grammar::trim_start(rest);
    if sent_by.len() == rest.len() {
        return None;
    }
    let (host, rest) = uri::host(sent_by)?;
    let written = &sent_by[..sent_by.len() - rest.len()];
    let (port, params) = match after(rest, b':') {
        None => (None, rest),
        Some(rest) => uri::port(rest).map(|(port, rest)| (Some(port), rest))?,
    };
    let sent_by = std::str::from_utf8(written).ok()?;
    Some(Via { raw, transport, sent_by, host, port, params: Parameters::new(params) })
}

/// What follows `separator`, white space on both its sides allowed.
fn after(text: &[u8], separator: u8) -> Option<&[u8]> {
    grammar::trim_start(text).strip_prefix(&[separator]).map(grammar::trim_start)
}

#[cfg(test)]
mod tests;
