//! The account as the app hands it over: parsed once, then it cannot be wrong.

use std::sync::Arc;
use std::time::Duration;

use crate::sip::uri::{Host, Uri};
use crate::sip::{StatusCode, Transport};

/// The vendor or operator whose app handed the instance over.
pub type TenantId = Arc<str>;

/// A SIP address of record and how to keep it registered. Holds no credential.
#[derive(Clone, PartialEq, Eq)]
pub struct Account {
    /// The address of record as text, `sip:alice@example.com`.
    pub aor: String,
    /// Where REGISTER is addressed; its text is the Request-URI and the digest `uri`.
    pub registrar: TrunkUri,
    /// Where REGISTER is sent instead, if anywhere.
    pub outbound_proxy: Option<TrunkUri>,
    /// The user name of the credentials.
    pub auth_username: String,
    /// The expiry we ask the registrar for.
    pub register_expires: Duration,
    /// From where INVITEs to the capability are taken.
    pub trunk_sources: TrunkSources,
    /// Our own early response, if the account overrides the configuration (`Some(None)`: none).
    pub early_response: Option<Option<StatusCode>>,
    /// What stands in the user part of the Contact we register.
    pub contact_style: ContactStyle,
    /// The registrar's certificate, as the SHA-256 of its public key, instead of a public chain.
    pub tls_spki_sha256: Option<[u8; 32]>,
}

/// A `sip:` URI that names a next hop on the trunk.
#[derive(Clone, PartialEq, Eq)]
pub struct TrunkUri {
    /// As it stands in a Request-URI.
    pub text: String,
    /// Domain or address, lower case, IPv6 without brackets.
    pub host: TrunkHost,
    /// A port in the URI rules out SRV (RFC 3263 §4.2).
    pub port: Option<u16>,
    /// A transport in the URI rules out NAPTR and other transports.
    pub transport: Option<Transport>,
}

/// Domain name or literal address.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum TrunkHost {
    /// A name to resolve.
    Name(String),
    /// An address to filter and use.
    Address(std::net::IpAddr),
}

/// From where an INVITE to a capability is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrunkSources {
    /// From anywhere: the capability is the key.
    #[default]
    Any,
    /// Only from the addresses the registrar and the outbound proxy resolve to.
    Registrar,
}

/// What stands in the user part of the Contact we register.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ContactStyle {
    /// The capability.
    #[default]
    Capability,
    /// The account's own user name, for registrars and trunks that insist on it; the capability is a URI parameter.
    Username,
}

/// Why an account was refused: which member, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("account.{member}: {problem}")]
pub struct AccountError {
    /// The JSON member.
    pub member: &'static str,
    /// One sentence for the developer. Never repeats the value.
    pub problem: &'static str,
}

impl TrunkUri {
    /// Reads a registrar or outbound proxy.
    ///
    /// # Errors
    /// Not a `sip:` URI with a host, a user part where none belongs, or a transport we do not speak.
    pub fn parse(member: &'static str, text: &str) -> Result<Self, AccountError> {
        let fail = |problem| AccountError { member, problem };
        if text.len() > 512 {
            return Err(fail("longer than 512 bytes"));
        }
        if text.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("sips:")) {
            return Err(fail("sips: is not supported; use sip: with ;transport=tls"));
        }
        let uri = Uri::parse(text.as_bytes()).map_err(|_| fail("not a SIP URI such as sip:example.com"))?;
        if !uri.is_sip() {
            return Err(fail("the scheme must be sip:"));
        }
        if uri.user().is_some() {
            return Err(fail("must not have a user part"));
        }
        let transport = match uri.param("transport") {
            None => None,
            Some(name) => match Transport::from_param(name.unwrap_or_default()) {
                Some(transport @ (Transport::Udp | Transport::Tcp | Transport::Tls)) => Some(transport),
                _ => return Err(fail("the transport must be udp, tcp or tls")),
            },
        };
        let host = match uri.host() {
            Host::Name(name) => TrunkHost::Name(name.to_ascii_lowercase()),
            Host::Address(address) => TrunkHost::Address(address),
        };
        Ok(Self { text: text.to_owned(), host, port: uri.port(), transport })
    }
}
