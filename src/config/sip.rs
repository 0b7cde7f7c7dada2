//! Section `[sip]` with its listeners.

use std::net::SocketAddr;

use super::files::{self, TlsFiles};
use super::report::{Place, Report};
use super::section::{Entry, SIP_LISTEN, Section};
use super::sections::collide;
use super::settings::{Sip, SipListener};
use super::values;
use crate::sip::Transport;

/// The answer to what the syntax knows and this version does not do.
pub(super) const NOT_AVAILABLE: &str = "is not available in this version";

/// What was read, before it is known to be whole.
pub(super) struct Reading {
    domain: Option<String>,
    tls: Option<TlsFiles>,
    pub(super) listeners: Vec<Entry<SipListener>>,
}

impl Reading {
    /// The section, if nothing that it needs is missing.
    pub(super) fn finish(self) -> Option<Sip> {
        let listen = self.listeners.into_iter().map(|entry| entry.value).collect();
        Some(Sip { domain: self.domain?, tls: self.tls, listen })
    }
}

pub(super) fn read(mut section: Section<'_>) -> Reading {
    let written = section.has("domain");
    let domain = section.parse("domain", values::domain).map(|entry| entry.value);
    if !written {
        section.missing("domain", "it is the name devices attach at, such as \"edge.example.net\"");
    }
    let tls = files::tls(&mut section);
    let raws = section.tables("listen");
    if raws.is_empty() {
        section.missing("listen", "at least one [[sip.listen]] is needed");
    }
    let (section_place, base) = (section.place(), section.base());
    let written = raws.len();
    let mut listeners = Vec::new();
    for raw in raws {
        listeners.extend(listener(Section::new(raw, SIP_LISTEN, base, section.report)));
    }
    if listeners.len() == written {
        refuse_websocket_alone(&listeners, section.report);
    }
    warn_about_certificates(&listeners, tls.is_some(), &section_place, section.report);
    section.finish();
    Reading { domain, tls, listeners }
}

fn listener(mut section: Section<'_>) -> Option<Entry<SipListener>> {
    let transports = [
        ("udp", Transport::Udp),
        ("tcp", Transport::Tcp),
        ("tls", Transport::Tls),
        ("ws", Transport::Ws),
        ("wss", Transport::Wss),
    ];
    for (key, what) in [
        ("transport", "it must be one of \"udp\", \"tcp\", \"tls\", \"ws\", \"wss\""),
        ("address", "it is where to listen, such as \"0.0.0.0:5060\""),
    ] {
        if !section.has(key) {
            section.missing(key, what);
        }
    }
    let transport = section.choice("transport", &transports);
    let address = section.parse("address", values::socket_address);
    let advertise = section.parse("advertise", values::advertise).map(|entry| entry.value);
    let proxies = section.list("proxy_protocol_from", values::network, None).unwrap_or_default();
    if let Some(entry) = proxies.first() {
        section.mistake(&entry.place, "proxy_protocol_from", format!("{NOT_AVAILABLE}; leave it out or empty"));
    }
    if let Some(Entry { place, value }) = &address
        && value.ip().is_unspecified()
        && advertise.is_none()
    {
        let problem = "is needed, as the address is that of no host: host:port as the world sees this listener";
        section.mistake(place, "advertise", problem);
    }
    section.finish();
    let (transport, Entry { place, value: address }) = (transport?.value, address?);
    Some(Entry { place, value: SipListener { transport, address, advertise } })
}

/// Registrars are reached from a listener of their kind, and they do not speak WebSocket.
fn refuse_websocket_alone(listeners: &[Entry<SipListener>], report: &mut Report) {
    let Some(first) = listeners.first() else { return };
    if listeners.iter().all(|entry| entry.value.transport.is_websocket()) {
        let problem = "are for apps alone; registrars need a listener with transport udp, tcp or tls as well";
        report.mistake(first.place.clone(), "sip.listen", problem);
    }
}

fn warn_about_certificates(
    listeners: &[Entry<SipListener>],
    has_certificate: bool,
    section: &Place,
    report: &mut Report,
) {
    let tls = listeners.iter().find(|entry| entry.value.transport.is_tls());
    match tls {
        Some(entry) if !has_certificate => report.warning(
            entry.place.clone(),
            "sip.tls_certificate",
            "is not set, so the listener uses a self-signed certificate that no phone trusts by itself",
        ),
        None if has_certificate => {
            report.warning(section.clone(), "sip.tls_certificate", "is not used: no listener has transport tls or wss");
        }
        _ => {}
    }
}

/// Refuses listeners that could not be bound beside each other. Every SIP listener takes its TCP port, a UDP listener for
/// its TCP twin.
pub(super) fn refuse_shared_ports(
    listeners: &[Entry<SipListener>],
    others: &[(&str, &Vec<Entry<SocketAddr>>)],
    report: &mut Report,
) {
    let sip = listeners.iter().enumerate().map(|(index, entry)| {
        let named = format!("sip.listen[{index}].address");
        (named, entry.place.clone(), entry.value.address)
    });
    let others = others
        .iter()
        .flat_map(|(key, entries)| entries.iter().map(|entry| ((*key).to_owned(), entry.place.clone(), entry.value)));
    let mut taken: Vec<(String, Place, SocketAddr)> = Vec::new();
    for (key, place, address) in sip.chain(others) {
        if let Some((_, first, _)) = taken.iter().find(|(_, _, other)| collide(*other, address)) {
            let problem = match first {
                Place::Line(line) => format!("is taken by the listener of line {line} (udp listens on TCP as well)"),
                _ => "is taken by another listener (udp listens on TCP as well)".to_owned(),
            };
            report.mistake(place, key, problem);
        } else {
            taken.push((key, place, address));
        }
    }
}
