//! A dialog (RFC 3261 §12): who the two ends are, how requests between them are numbered, and which way they go.

use std::net::{IpAddr, SocketAddr};

use crate::sip::address::Address;
use crate::sip::encode::Encoder;
use crate::sip::proxy::OwnVia;
use crate::sip::uri::{Host, Uri};
use crate::sip::{FieldError, HeaderName, Message, Method, Transport};

/// Where a request we originate starts counting hops.
pub(super) const MAX_FORWARDS: u8 = 70;

pub(crate) struct Dialog {
    call_id: Vec<u8>,
    /// Our From or To with its tag, as it goes into requests of ours.
    local: Vec<u8>,
    remote: Vec<u8>,
    remote_tag: String,
    local_number: u32,
    remote_number: u32,
    target: Vec<u8>,
    routes: Vec<Vec<u8>>,
}

/// Where a request goes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NextHop {
    pub(crate) transport: Transport,
    pub(crate) address: SocketAddr,
}

/// A request within a dialog.
pub(super) struct InDialog<'a> {
    pub(super) method: Method<'a>,
    pub(super) number: u32,
    pub(super) via: OwnVia<'a>,
    pub(super) reason: Option<&'a str>,
}

impl Dialog {
    /// The caller's dialog, by the 2xx: route set reversed (§12.1.2).
    pub(super) fn of_caller(invite: &Message, response: &Message) -> Result<Self, FieldError> {
        let contact = response.contacts().next().ok_or(FieldError { name: HeaderName::Contact })??;
        let mut routes: Vec<Vec<u8>> = response.list(HeaderName::RecordRoute).map(<[u8]>::to_vec).collect();
        routes.reverse();
        Ok(Self {
            call_id: invite.call_id()?.to_vec(),
            local: invite.from()?.raw().to_vec(),
            remote: response.to()?.raw().to_vec(),
            remote_tag: response.to()?.tag().unwrap_or_default().to_owned(),
            local_number: invite.cseq()?.number,
            remote_number: 0,
            target: contact.uri().raw().to_vec(),
            routes,
        })
    }

    /// The callee's dialog, by the INVITE: route set in order (§12.1.1).
    pub(super) fn of_callee(invite: &Message, local_tag: &str) -> Result<Self, FieldError> {
        let contact = invite.contacts().next().ok_or(FieldError { name: HeaderName::Contact })??;
        let to = invite.to()?.raw();
        Ok(Self {
            call_id: invite.call_id()?.to_vec(),
            local: [to, b";tag=", local_tag.as_bytes()].concat(),
            remote: invite.from()?.raw().to_vec(),
            remote_tag: invite.from()?.tag().unwrap_or_default().to_owned(),
            local_number: 0,
            remote_number: invite.cseq()?.number,
            target: contact.uri().raw().to_vec(),
            routes: invite.list(HeaderName::RecordRoute).map(<[u8]>::to_vec).collect(),
        })
    }

    /// Whether the other end of the request is the other end of this dialog.
    pub(super) fn is_with(&self, request: &Message) -> bool {
        request.from().is_ok_and(|from| from.tag().unwrap_or_default() == self.remote_tag)
    }

    /// Whether the tag is the other end's.
    pub(super) fn is_remote(&self, tag: Option<&str>) -> bool {
        tag.unwrap_or_default() == self.remote_tag
    }

    /// Takes the number of a request of the peer; `false`: it is older than one seen (§12.2.2: 500).
    pub(super) fn take_remote_number(&mut self, number: u32) -> bool {
        let newer = number > self.remote_number;
        self.remote_number = self.remote_number.max(number);
        newer
    }

    /// A target refresh (§12.2.2): a Contact in a re-INVITE or its answer.
    pub(super) fn refresh_target(&mut self, message: &Message) {
        if let Some(Ok(contact)) = message.contacts().next() {
            self.target = contact.uri().raw().to_vec();
        }
    }

    /// The number of our next request.
    pub(super) fn next_number(&mut self) -> u32 {
        self.local_number = self.local_number.saturating_add(1);
        self.local_number
    }

    pub(super) fn write(&self, request: &InDialog<'_>, out: &mut Vec<u8>) {
        let (request_uri, routes) = self.routed();
        let mut message = Encoder::request(out, request.method, request_uri);
        message.header(HeaderName::Via, via_value(request.via));
        for route in &routes {
            message.raw(HeaderName::Route, route);
        }
        message.header(HeaderName::MaxForwards, MAX_FORWARDS);
        message.raw(HeaderName::From, &self.local);
        message.raw(HeaderName::To, &self.remote);
        message.raw(HeaderName::CallId, &self.call_id);
        message.header(HeaderName::CSeq, format_args!("{} {}", request.number, request.method.as_str()));
        if let Some(reason) = request.reason {
            message.header(HeaderName::Reason, reason);
        }
        message.finish(b"");
    }

    /// Where our requests go: the first route, else the target.
    pub(super) fn next_hop(&self) -> Option<NextHop> {
        match self.routes.first() {
            Some(route) => NextHop::of(Address::parse(route).ok()?.uri()),
            None => NextHop::of(Uri::parse(&self.target).ok()?),
        }
    }

    /// Request-URI and Routes; a strict router in front takes the Request-URI's place (§12.2.1.1).
    fn routed(&self) -> (&[u8], Vec<Vec<u8>>) {
        let strict = self.routes.first().and_then(|first| Address::parse(first).ok()).filter(|a| !a.uri().has_lr());
        match strict {
            None => (&self.target, self.routes.clone()),
            Some(first) => {
                let mut routes = self.routes[1..].to_vec();
                routes.push([b"<", self.target.as_slice(), b">"].concat());
                (first.uri().raw(), routes)
            }
        }
    }
}

impl NextHop {
    /// The hop a URI names; `None` where its host is a name: a stand-in asks no resolver.
    pub(crate) fn of(uri: Uri<'_>) -> Option<Self> {
        let named = uri.param("transport").flatten();
        let transport = named.map_or(Some(Transport::Udp), Transport::from_param)?;
        let ip = match uri.host() {
            Host::Address(ip) => ip,
            Host::Name("localhost") => IpAddr::from([127, 0, 0, 1]),
            Host::Name(_) => return None,
        };
        let port = uri.port().unwrap_or(transport.default_port());
        Some(Self { transport, address: SocketAddr::new(ip, port) })
    }
}

/// The value of our Via.
pub(super) fn via_value(via: OwnVia<'_>) -> String {
    let rport = if via.transport.is_reliable() { "" } else { ";rport" };
    format!("SIP/2.0/{} {}{rport};branch={}", via.transport.as_via(), via.sent_by, via.branch)
}
