//! Section `[ops]`: where operators ask, and what they show.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use crate::config::files::TlsFiles;

/// Where `[ops]` listens unless it is told otherwise.
pub const OPS_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);

/// Section `[ops]`. Addresses that others reach are listed only together with a token or a client CA.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ops {
    /// Where `/metrics`, `/healthz`, `/readyz` and `/calls` are served. Empty: nowhere.
    pub listen: Vec<OpsListen>,
    /// The SHA-256 of tokens that may ask, at most [`super::APP_KEYS_MAX`].
    pub token_sha256: Vec<[u8; 32]>,
    /// The certificate of its TCP listeners; `None`: plain HTTP.
    pub tls: Option<TlsFiles>,
    /// Certificates (PEM) whose holders may ask. Then there is a certificate of our own.
    pub client_ca_pem: Option<String>,
}

/// One place where `[ops]` listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpsListen {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A Unix socket: whoever may write to its file may ask.
    Unix(PathBuf),
}

impl fmt::Display for OpsListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
