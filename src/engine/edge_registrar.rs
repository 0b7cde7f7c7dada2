//! A registrar at which apps may register *through* us (RFC 8599): what the operator wrote, parsed once.

use super::account::{TrunkHost, TrunkUri};
use crate::sip::Transport;
use crate::sip::uri::{Host, Uri};

/// One entry of `edge_registrars`: `pbx.example.com`, `pbx.example.com:5080;transport=tcp` or `pbx.example.com;path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeRegistrar {
    /// The domain or address that stands in the Request-URI of its REGISTERs.
    pub host: TrunkHost,
    /// The port to use, whatever the phone's Request-URI says.
    pub port: Option<u16>,
    /// The transport to use, whatever the phone's Request-URI says.
    pub transport: Option<Transport>,
    /// Whether we add Path (RFC 3327) and leave the phone's Contact as it is, where the phone supports it.
    pub path: bool,
}

impl EdgeRegistrar {
    /// Reads an entry.
    ///
    /// # Errors
    /// What is allowed, for the operator.
    pub fn parse(text: &str) -> Result<Self, String> {
        let problem = || {
            "must be a registrar's whole name or address, without a pattern, with \":port\", \";transport=udp|tcp|tls\" \
             and \";path\" where needed, such as \"pbx.example.com\" or \"pbx.example.com;path\""
                .to_owned()
        };
        let uri = format!("sip:{text}");
        let uri = Uri::parse(uri.as_bytes()).map_err(|_| problem())?;
        let known = |name: &str| name.eq_ignore_ascii_case("path") || name.eq_ignore_ascii_case("transport");
        if uri.user().is_some() || !uri.headers().is_empty() || !uri.params().all(|(name, _)| known(name)) {
            return Err(problem());
        }
        let transport = match uri.param("transport") {
            None => None,
            Some(name) => match Transport::from_param(name.unwrap_or_default()) {
                Some(transport @ (Transport::Udp | Transport::Tcp | Transport::Tls)) => Some(transport),
                _ => return Err(problem()),
            },
        };
        Ok(Self { host: host(uri.host()), port: uri.port(), transport, path: uri.param("path").is_some() })
    }

    /// Whether a Request-URI names it.
    #[must_use]
    pub fn is_named_by(&self, uri: &Uri<'_>) -> bool {
        uri.is_sip() && host(uri.host()) == self.host
    }

    /// Where a REGISTER with this Request-URI goes: what the operator wrote goes before what the phone did.
    pub(crate) fn next_hop(&self, uri: &Uri<'_>) -> TrunkUri {
        let asked = uri.param("transport").flatten().and_then(Transport::from_param);
        let asked = asked.filter(|it| matches!(it, Transport::Udp | Transport::Tcp | Transport::Tls));
        let text = String::from_utf8_lossy(uri.raw()).into_owned();
        TrunkUri { text, host: self.host.clone(), port: self.port.or(uri.port()), transport: self.transport.or(asked) }
    }
}

/// A host in the form in which registrars are compared.
pub(crate) fn host(host: Host<'_>) -> TrunkHost {
    match host {
        Host::Name(name) => TrunkHost::Name(name.trim_end_matches('.').to_ascii_lowercase()),
        Host::Address(address) => TrunkHost::Address(address.to_canonical()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_one_registrar_and_no_pattern() {
        let plain = EdgeRegistrar::parse("PBX.Example.com").expect("a name");
        let expected = TrunkHost::Name("pbx.example.com".to_owned());
        assert_eq!(plain, EdgeRegistrar { host: expected, port: None, transport: None, path: false });
        let full = EdgeRegistrar::parse("192.0.2.7:5080;transport=tcp;path").expect("an address");
        assert_eq!((full.port, full.transport, full.path), (Some(5080), Some(Transport::Tcp), true));
        for bad in ["", "*", "*.example.com", "sip:a", "a@b", "a;b", "a;transport=ws", "a b", "a?x=1", "a:0x1"] {
            assert!(EdgeRegistrar::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_operator_decides_before_the_phone_how_it_is_reached() {
        let uri = Uri::parse(b"sip:PBX.example.com:5070;transport=tcp").expect("a URI");
        let hop = |text: &str| EdgeRegistrar::parse(text).expect("an entry").next_hop(&uri);
        let (free, fixed) = (hop("pbx.example.com"), hop("pbx.example.com:5061;transport=tls"));
        assert_eq!((free.port, free.transport), (Some(5070), Some(Transport::Tcp)));
        assert_eq!((fixed.port, fixed.transport), (Some(5061), Some(Transport::Tls)));
        assert!(EdgeRegistrar::parse("pbx.example.com").expect("an entry").is_named_by(&uri));
        assert!(!EdgeRegistrar::parse("example.com").expect("an entry").is_named_by(&uri));
    }
}
