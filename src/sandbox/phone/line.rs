//! A phone's SIP side: one address of record, registered over UDP, TCP or TLS, and the calls that come.
//!
//! It registers at whatever is named: the daemon's edge (attaching), or a PBX directly. It calls nobody.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use rustls::pki_types::ServerName;
use tokio::net::lookup_host;
use zeroize::Zeroizing;

use crate::clock::{self, Instant};
pub use crate::sandbox::agent::CallId;
use crate::sandbox::agent::{Agent, CallEvent, Happening, TransactionId, random_branch, random_token};
use crate::sandbox::deadlines::sleep_until;
use crate::sandbox::trust::{Trust, TrustError};
use crate::sandbox::wire::{Path, Tls, Wire};
use crate::sip::digest::{Secret, Session, Signed};
use crate::sip::proxy::OwnVia;
use crate::sip::registration::{Register, verdict, write_register};
use crate::sip::uri::{Host, Uri};
use crate::sip::{Message, Method, StatusCode, Transport, registration};

/// How often a challenge is answered within one registration: the first, and once more if the nonce was stale.
const CHALLENGE_ANSWERS_MAX: u8 = 2;

/// The part of a granted expiry after which it is refreshed.
const REFRESH_AFTER: f64 = 0.8;

/// What a line needs.
pub struct LinePlan {
    /// Where to go: `sip:HOST:PORT;transport=tls`.
    pub server: String,
    /// Who to be: `sip:USER@DOMAIN`. The domain is the Request-URI of REGISTER.
    pub aor: String,
    /// User name of the credentials.
    pub username: String,
    /// The password.
    pub password: Zeroizing<String>,
    /// The realm to answer to; `None`: any.
    pub realm: Option<String>,
    /// Whom to believe over TLS.
    pub trust: Trust,
}

/// What happens on a line.
#[derive(Debug)]
pub enum LineEvent {
    /// The registration stands.
    Registered(Registered),
    /// It was refused, or never answered (`None`).
    NotRegistered(Option<String>),
    /// A call comes in.
    Offered(Offer),
    /// The caller hung up before we answered.
    Cancelled(CallId),
    /// Another device answered before we did.
    AnsweredElsewhere(CallId),
    /// A text message came in, and was taken.
    Text(Text),
    /// Our answer was acknowledged: the call stands.
    Confirmed(CallId),
    /// The other side hung up.
    HungUp(CallId),
    /// We hung up, and that is settled.
    Over(CallId),
    /// The connection is gone.
    Closed,
}

/// A registration that stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// What was granted.
    pub expires: Duration,
    /// How often we were challenged on the way.
    pub challenges: u8,
    /// What the daemon tells of calls: the values of `Reveille-Call`.
    pub calls: Vec<CallNotice>,
}

/// A value of `Reveille-Call` in the answer to an attach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallNotice {
    /// The call.
    pub call: String,
    /// `ended`, or nothing.
    pub state: Option<String>,
    /// Why.
    pub reason: Option<String>,
}

/// A call that comes in.
#[derive(Debug)]
pub struct Offer {
    /// Names it on this line.
    pub call: CallId,
    /// `Reveille-Call`: the push's `call`.
    pub reveille_call: Option<String>,
    /// From, as it came.
    pub from: String,
    /// The session description offered.
    pub sdp: Bytes,
}

/// A text message (RFC 3428).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// From, as it came.
    pub from: String,
    /// The body.
    pub body: String,
}

/// Why a line cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// The address makes no sense.
    #[error("{0} is no address that can be registered at over UDP, TCP or TLS")]
    Address(String),
    /// Nobody can be believed.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// No connection.
    #[error("cannot connect to {server}: {error}")]
    Connect {
        /// Where to.
        server: String,
        /// Why not.
        error: io::Error,
    },
}

/// A line. Dropping it closes its connection.
pub struct Line {
    plan: LinePlan,
    agent: Agent,
    server: Server,
    path: Path,
    domain: String,
    call_id: String,
    from_tag: String,
    cseq: u32,
    session: Option<Session>,
    running: Option<Running>,
    refresh_at: Option<(Instant, u32)>,
    kept: VecDeque<LineEvent>,
}

/// A registration under way.
struct Running {
    id: TransactionId,
    expires: u32,
    challenges: u8,
}

#[derive(Clone)]
struct Server {
    transport: Transport,
    address: SocketAddr,
    name: String,
}

impl Line {
    /// Connects; nothing is registered yet.
    ///
    /// # Errors
    /// The address cannot be used, resolved or connected to.
    pub async fn open(plan: LinePlan) -> Result<Self, LineError> {
        let server = Server::find(&plan.server).await?;
        let domain = domain_of(&plan.aor).ok_or_else(|| LineError::Address(plan.aor.clone()))?;
        let refused = |error| LineError::Connect { server: plan.server.clone(), error };
        let wire = match server.transport {
            Transport::Udp => Wire::datagrams(own_address(server.address)).await.map_err(refused)?,
            _ => Wire::outbound(),
        };
        let mut agent = Agent::new(wire, random_token());
        let path = connect(&mut agent, &server, &plan).await?;
        agent.go_through(path);
        Ok(Self {
            plan,
            agent,
            server,
            path,
            domain,
            call_id: random_token(),
            from_tag: random_token(),
            cseq: 0,
            session: None,
            running: None,
            refresh_at: None,
            kept: VecDeque::new(),
        })
    }

    /// Opens a new connection beside the old one, keeping the calls; to be registered again.
    ///
    /// # Errors
    /// It cannot be connected to.
    pub async fn reconnect(&mut self) -> Result<(), LineError> {
        self.path = connect(&mut self.agent, &self.server, &self.plan).await?;
        self.agent.go_through(self.path);
        // A nonce of the edge is bound to where it was asked for.
        self.session = None;
        Ok(())
    }

    /// Registers, refreshes, or with zero removes the registration, and waits for the verdict. What happens meanwhile is
    /// kept for `next`.
    pub async fn register(&mut self, expires: Duration) -> LineEvent {
        self.start_registering(expires);
        loop {
            match self.happen().await {
                Some(verdict @ (LineEvent::Registered(_) | LineEvent::NotRegistered(_) | LineEvent::Closed)) => {
                    return verdict;
                }
                Some(other) => self.kept.push_back(other),
                None => {}
            }
        }
    }

    /// The next thing that happens. Dropping the future loses nothing.
    pub async fn next(&mut self) -> LineEvent {
        loop {
            if let Some(event) = self.kept.pop_front() {
                return event;
            }
            if let Some(event) = self.happen().await {
                return event;
            }
        }
    }

    /// Rings (180).
    pub fn ring(&mut self, call: CallId) {
        self.agent.ring(call);
    }

    /// Answers with a session description.
    pub fn answer(&mut self, call: CallId, sdp: Bytes) {
        self.agent.answer(call, sdp);
    }

    /// Refuses.
    pub fn refuse(&mut self, call: CallId, code: StatusCode) {
        self.agent.refuse(call, code);
    }

    /// Hangs up.
    pub fn hang_up(&mut self, call: CallId) {
        self.agent.hang_up(call);
    }

    /// Our Contact URI.
    #[must_use]
    pub fn contact(&self) -> String {
        self.agent.contact(self.path)
    }

    /// What is spoken on the line.
    #[must_use]
    pub fn transport(&self) -> Transport {
        self.server.transport
    }

    fn start_registering(&mut self, expires: Duration) {
        let expires = u32::try_from(expires.as_secs()).unwrap_or(u32::MAX);
        self.send_register(expires, 0);
    }

    fn send_register(&mut self, expires: u32, challenges: u8) {
        self.cseq += 1;
        self.refresh_at = None;
        let request_uri = format!("sip:{}", self.domain);
        let authorization = self.session.as_mut().map(|session| {
            let secret = Secret::Password(self.plan.password.as_bytes());
            let cnonce = random_token();
            let signed = Signed::bare("REGISTER", &request_uri);
            (session.header(), session.authorize(&self.plan.username, secret, signed, &cnonce))
        });
        let (transport, sent_by) = self.agent.sent_by(self.path);
        let branch = random_branch();
        let contact = format!("<{}>", self.agent.contact(self.path));
        let register = Register {
            request_uri: &request_uri,
            aor: &self.plan.aor,
            from_tag: &self.from_tag,
            call_id: &self.call_id,
            cseq: self.cseq,
            via: OwnVia { transport, sent_by: &sent_by, branch: &branch },
            contact: &contact,
            expires,
            authorizations: authorization.as_slice(),
            route: None,
        };
        let mut request = Vec::with_capacity(1024);
        write_register(&register, &mut request);
        match self.agent.request(request, self.path) {
            Some(id) => self.running = Some(Running { id, expires, challenges }),
            None => self.kept.push_back(LineEvent::NotRegistered(None)),
        }
    }

    async fn happen(&mut self) -> Option<LineEvent> {
        let happening = tokio::select! {
            happening = self.agent.next() => happening,
            () = sleep_until(self.refresh_at.map(|(due, _)| due)) => {
                if let Some((_, expires)) = self.refresh_at.take() {
                    self.send_register(expires, 0);
                }
                return None;
            }
        };
        match happening {
            Happening::Response(id, response) => {
                let running = self.running.take_if(|running| running.id == id)?;
                self.handle_verdict(&running, response.as_ref())
            }
            Happening::Call(call, event) => translate(call, event),
            Happening::Closed(stream) => (self.path == Path::Stream(stream)).then_some(LineEvent::Closed),
            Happening::Request(id) => self.handle_request(id),
        }
    }

    fn handle_request(&mut self, id: TransactionId) -> Option<LineEvent> {
        let text = self.agent.asked(id).and_then(|(request, _)| Text::read(request));
        let code = if text.is_some() { StatusCode::OK } else { StatusCode::METHOD_NOT_ALLOWED };
        self.agent.reply(id, code, &[]);
        text.map(LineEvent::Text)
    }

    fn handle_verdict(&mut self, running: &Running, response: Option<&Message>) -> Option<LineEvent> {
        let Some(response) = response else { return Some(LineEvent::NotRegistered(None)) };
        let code = response.status()?;
        if code.is_success() {
            return Some(LineEvent::Registered(self.registered(running, response)));
        }
        let asks = matches!(code, StatusCode::UNAUTHORIZED | StatusCode::PROXY_AUTHENTICATION_REQUIRED);
        let stale = response.challenges().any(|challenge| challenge.stale);
        // An answer to a fresh challenge that is challenged again, and not for its age, was wrong.
        let answers_max = if stale { CHALLENGE_ANSWERS_MAX } else { 1 };
        if asks && running.challenges < answers_max {
            let realm = self.plan.realm.as_deref();
            let ours = |asked: &[u8], _| realm.is_none_or(|realm| realm.as_bytes() == asked);
            self.session = Session::choose(response.challenges(), ours);
            if self.session.is_some() {
                self.send_register(running.expires, running.challenges + 1);
                return None;
            }
        }
        self.session = None;
        Some(LineEvent::NotRegistered(Some(verdict(response))))
    }

    fn registered(&mut self, running: &Running, response: &Message) -> Registered {
        let contact = self.agent.contact(self.path);
        let user =
            Uri::parse(contact.as_bytes()).ok().and_then(|uri| uri.user().map(<[u8]>::to_vec)).unwrap_or_default();
        let asked = Duration::from_secs(running.expires.into());
        let granted =
            registration::granted_expiry(response, &String::from_utf8_lossy(&user), asked).unwrap_or_default();
        if !granted.is_zero() {
            self.refresh_at = Some((clock::now().boot + granted.mul_f64(REFRESH_AFTER), running.expires));
        }
        let notices = response.headers().filter(|header| header.raw_name.eq_ignore_ascii_case(b"Reveille-Call"));
        Registered {
            expires: granted,
            challenges: running.challenges,
            calls: notices.map(|header| CallNotice::parse(&String::from_utf8_lossy(header.value))).collect(),
        }
    }
}

impl Text {
    fn read(request: &Message) -> Option<Self> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (request.method() == Some(Method::Message)).then(|| Self {
            from: request.from().map(|from| text(from.raw())).unwrap_or_default(),
            body: text(request.body()),
        })
    }
}

impl CallNotice {
    fn parse(value: &str) -> Self {
        let mut parts = value.split(';').map(str::trim);
        let call = parts.next().unwrap_or_default().to_owned();
        let mut notice = Self { call, state: None, reason: None };
        for part in parts {
            match part.split_once('=') {
                Some(("state", value)) => notice.state = Some(value.to_owned()),
                Some(("reason", value)) => notice.reason = Some(value.to_owned()),
                _ => {}
            }
        }
        notice
    }
}

impl Server {
    async fn find(uri: &str) -> Result<Self, LineError> {
        let unusable = || LineError::Address(uri.to_owned());
        let parsed = Uri::parse(uri.as_bytes()).map_err(|_| unusable())?;
        let named = parsed.param("transport").flatten();
        let transport = named.map_or(Some(Transport::Udp), Transport::from_param).ok_or_else(unusable)?;
        if matches!(transport, Transport::Ws | Transport::Wss) || !parsed.is_sip() {
            return Err(unusable());
        }
        let port = parsed.port().unwrap_or(transport.default_port());
        let (address, name) = match parsed.host() {
            Host::Address(ip) => (SocketAddr::new(ip, port), ip.to_string()),
            Host::Name(name) => {
                let refused = |error| LineError::Connect { server: uri.to_owned(), error };
                let found = lookup_host((name, port)).await.map_err(refused)?.next();
                (found.ok_or_else(unusable)?, name.to_owned())
            }
        };
        Ok(Self { transport, address, name })
    }
}

async fn connect(agent: &mut Agent, server: &Server, plan: &LinePlan) -> Result<Path, LineError> {
    let tls = match server.transport {
        Transport::Udp => return Ok(Path::Datagram(server.address)),
        Transport::Tls => {
            let name = ServerName::try_from(server.name.clone());
            let name = name.map_err(|_| LineError::Address(plan.server.clone()))?;
            Some(Tls { name, config: plan.trust.client_config(&[])? })
        }
        _ => None,
    };
    let connected = agent.wire_mut().connect(server.address, tls).await;
    connected.map_err(|error| LineError::Connect { server: plan.server.clone(), error })
}

fn translate(call: CallId, event: CallEvent) -> Option<LineEvent> {
    match event {
        CallEvent::Offered { invite } => {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            Some(LineEvent::Offered(Offer {
                call,
                reveille_call: invite.extension("Reveille-Call").map(text),
                from: invite.from().map(|from| text(from.raw())).unwrap_or_default(),
                sdp: Bytes::copy_from_slice(invite.body()),
            }))
        }
        CallEvent::Cancelled { elsewhere: true } => Some(LineEvent::AnsweredElsewhere(call)),
        CallEvent::Cancelled { elsewhere: false } => Some(LineEvent::Cancelled(call)),
        CallEvent::Confirmed => Some(LineEvent::Confirmed(call)),
        CallEvent::HungUp => Some(LineEvent::HungUp(call)),
        CallEvent::Over | CallEvent::Lost => Some(LineEvent::Over(call)),
        // Of calls that we place; this phone places none.
        CallEvent::Progress(_) | CallEvent::Answered { .. } | CallEvent::Refused { .. } => None,
    }
}

/// What stands behind the `@` of an address of record, without parameters.
fn domain_of(aor: &str) -> Option<String> {
    let uri = Uri::parse(aor.as_bytes()).ok()?;
    let host = match uri.host() {
        Host::Name(name) => name.to_owned(),
        Host::Address(std::net::IpAddr::V6(ip)) => format!("[{ip}]"),
        Host::Address(ip) => ip.to_string(),
    };
    Some(uri.port().map_or(host.clone(), |port| format!("{host}:{port}")))
}

/// An address of ours that datagrams to `server` leave from: loopback to loopback, else any.
fn own_address(server: SocketAddr) -> SocketAddr {
    let any: SocketAddr = if server.is_ipv6() { ([0u16; 8], 0).into() } else { ([0u8; 4], 0).into() };
    if server.ip().is_loopback() { SocketAddr::new(server.ip(), 0) } else { any }
}

#[cfg(test)]
mod tests;
