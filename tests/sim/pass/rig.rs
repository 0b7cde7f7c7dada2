//! Real engines, a registrar played by the test, and phones that register through us: each message is put in by hand and
//! looked at by hand, so that every order of events can be had.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use reveille::clock::{Instant, Now};
use reveille::engine::edge_registrar::EdgeRegistrar;
use reveille::engine::ids::{FlowId, ListenerId, ShardId};
use reveille::engine::input::{Arrival, Input, Located, PushPurpose, TrunkFault};
use reveille::engine::output::{Hop, Output, PushOutcome, TrunkKey, WakeKind};
use reveille::engine::placement::Placement;
use reveille::engine::policy::Policy;
use reveille::engine::{Engine, Start};
use reveille::sip::{HeaderName, Message, Method, Transport};
use reveille::vault::Vault;

use crate::sip_text::{Answer, Dialog, Request, bytes, field};
use crate::world::WALL_START;
use crate::world::build::{DOMAIN, PBX, address, policy};

/// A push as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push {
    pub kind: WakeKind,
    pub token: String,
    pub purpose: PushPurpose,
    pub app: String,
}

/// Where something comes from.
#[derive(Clone, Copy, Debug)]
pub enum From {
    Udp(SocketAddr),
    Tcp(u64, SocketAddr),
}

/// Everything there is.
pub struct Rig {
    engines: Vec<Engine>,
    placement: Placement,
    pub now: Now,
    sent: Vec<(String, Message)>,
    pub pushes: Vec<Push>,
    pub outcome: PushOutcome,
    pub names: BTreeMap<String, Vec<Located>>,
    pub located: usize,
    registrars: BTreeMap<IpAddr, Instant>,
    devices: BTreeMap<SocketAddr, Instant>,
    pub closed: Vec<u64>,
}

impl Rig {
    /// One tenant that lists the registrar.
    pub fn new() -> Self {
        Self::with(DOMAIN, |_| {})
    }

    pub fn with(registrar: &str, change: impl FnOnce(&mut Policy)) -> Self {
        let mut policy = policy();
        policy.tenants[0].edge_registrars = vec![EdgeRegistrar::parse(registrar).expect("a registrar")];
        change(&mut policy);
        let policy = Arc::new(policy);
        let placement = Placement::new(3, [7, 9]);
        let engine = |shard: u16| {
            let seed = [u8::try_from(shard).expect("small") + 1; 32];
            let (policy, placement) = (Arc::clone(&policy), placement.clone());
            Engine::new(Start { shard: ShardId(shard), policy, placement, seed, vault: Vault::plain() })
        };
        let located = vec![Located { transport: Transport::Udp, address: address(PBX) }];
        Self {
            engines: (0..3).map(engine).collect(),
            placement,
            now: Now { boot: Instant::from_nanos(0), wall: WALL_START },
            sent: Vec::new(),
            pushes: Vec::new(),
            outcome: PushOutcome::Accepted,
            names: BTreeMap::from([(DOMAIN.to_owned(), located)]),
            located: 0,
            registrars: BTreeMap::new(),
            devices: BTreeMap::new(),
            closed: Vec::new(),
        }
    }

    /// A message comes in.
    pub fn receive(&mut self, message: &Message, from: From) {
        let message = Message::parse_datagram(message.bytes().to_vec()).expect("SIP");
        let (listener, transport, peer, flow) = match from {
            From::Udp(peer) => (0, Transport::Udp, peer, None),
            From::Tcp(flow, peer) => (1, Transport::Tcp, peer, Some(FlowId(flow))),
        };
        let registrar = self.registrars.get(&peer.ip()).is_some_and(|until| *until > self.now.boot);
        let device = self.devices.get(&peer).is_some_and(|until| *until > self.now.boot);
        let listener = ListenerId(listener);
        let arrival = Arrival { listener, transport, peer, flow, trunk: None, registrar, device };
        let shard = self.placement.message(&message, &arrival);
        self.feed(shard, Input::Sip(message, arrival));
    }

    pub fn close(&mut self, flow: u64) {
        for shard in 0..3 {
            self.feed(ShardId(shard), Input::FlowClosed(FlowId(flow)));
        }
    }

    pub fn shut_down(&mut self) {
        for shard in 0..3 {
            self.feed(ShardId(shard), Input::Drain);
        }
    }

    pub fn trunk_down(&mut self, key: &Arc<TrunkKey>) {
        for shard in 0..3 {
            self.feed(ShardId(shard), Input::TrunkDown(Arc::clone(key), TrunkFault::Connect));
        }
    }

    /// Time passes, and everything due happens.
    pub fn pass(&mut self, span: Duration) {
        let end = self.now.boot + span;
        while let Some(due) = self.engines.iter().filter_map(Engine::poll_timeout).min().filter(|due| *due <= end) {
            self.set(due.max(self.now.boot));
            for shard in 0..3 {
                let now = self.now;
                self.engines[usize::from(shard)].handle_timeout(now);
                self.drain(ShardId(shard));
            }
        }
        self.set(end);
    }

    /// Takes everything sent to `to`: an address, `flow N` or `tcp ADDRESS`.
    pub fn take(&mut self, to: &str) -> Vec<Message> {
        let (there, rest) = std::mem::take(&mut self.sent).into_iter().partition(|(hop, _)| hop == to);
        self.sent = rest;
        there.into_iter().map(|(_, message): (String, Message)| message).collect()
    }

    /// Takes the only message sent to `to`.
    pub fn one(&mut self, to: &str) -> Message {
        let mut there = self.take(to);
        assert_eq!(there.len(), 1, "to {to}: {:?}", there.iter().map(line).collect::<Vec<_>>());
        there.remove(0)
    }

    /// Nothing was sent that was not taken.
    pub fn assert_silent(&self) {
        let left: Vec<_> = self.sent.iter().map(|(to, message)| (to, line(message))).collect();
        assert!(left.is_empty(), "{left:?}");
    }

    /// How full a table is, over all shards.
    pub fn table(&self, name: &str) -> usize {
        let tables = self.engines.iter().flat_map(Engine::tables);
        tables.filter(|(found, _)| *found == name).map(|(_, size)| size).sum()
    }

    /// Takes the kinds of pushes so far.
    pub fn pushed(&mut self) -> Vec<WakeKind> {
        std::mem::take(&mut self.pushes).into_iter().map(|push| push.kind).collect()
    }

    /// The registrar answers a request it got.
    pub fn answer(&mut self, request: &Message, code: u16, extra: &[(&'static str, String)]) {
        self.answer_from(address(PBX), request, code, extra);
    }

    pub fn answer_from(&mut self, at: SocketAddr, request: &Message, code: u16, extra: &[(&'static str, String)]) {
        let answer =
            Answer { code, tag: Some("pbx"), record_route: true, extra: extra.to_vec(), raw: Vec::new(), body: b"" };
        let response = answer.write(request, address("192.0.2.5:5060"));
        self.receive(&response, From::Udp(at));
    }

    /// The registrar grants what it was asked for.
    pub fn grant(&mut self, register: &Message, expires: u32) {
        let contacts = register.contacts().map(|contact| {
            let uri = String::from_utf8_lossy(contact.expect("a Contact").uri().raw()).into_owned();
            ("Contact", format!("<{uri}>;expires={expires}"))
        });
        let contacts: Vec<_> = contacts.collect();
        self.answer(register, 200, &contacts);
    }

    fn feed(&mut self, shard: ShardId, input: Input) {
        let now = self.now;
        self.engines[usize::from(shard.0)].handle_input(input, now);
        self.drain(shard);
    }

    fn drain(&mut self, shard: ShardId) {
        let mut buffer = Vec::new();
        while let Some(output) = self.engines[usize::from(shard.0)].poll_output(&mut buffer) {
            match output {
                Output::Send(hop, range) => {
                    let message = Message::parse_datagram(buffer[range].to_vec()).expect("what we send is SIP");
                    assert!(
                        !String::from_utf8_lossy(message.bytes()).contains("pn-prid")
                            || matches!(hop, Hop::Flow(_))
                            || is_phone(&hop),
                        "a push token leaves us"
                    );
                    self.sent.push((name(&hop), message));
                }
                Output::Locate(query, uri) => {
                    self.located += 1;
                    let host = match &uri.host {
                        reveille::engine::account::TrunkHost::Name(name) => name.clone(),
                        reveille::engine::account::TrunkHost::Address(address) => address.to_string(),
                    };
                    let found = self.names.get(&host).cloned().unwrap_or_default();
                    self.feed(shard, Input::Located(query, Ok(found)));
                }
                Output::Push(job) => {
                    let (kind, token, purpose, app) =
                        (job.kind, job.token.as_str().to_owned(), job.purpose, job.app.clone());
                    self.pushes.push(Push { kind, token, purpose, app });
                    let outcome = self.outcome.clone();
                    self.feed(shard, Input::Pushed(job.wake, outcome));
                }
                Output::Device(peer, span) => {
                    self.devices.insert(peer, self.now.boot + span);
                }
                Output::Registrar(address, span) => {
                    self.registrars.insert(address, self.now.boot + span);
                }
                Output::Peer(to, message) => self.feed(to, Input::Peer(shard, message)),
                Output::CloseFlow(flow) => self.closed.push(flow.0),
                Output::Reply(..) | Output::Record(_) | Output::Note(_) | Output::Drained => {}
            }
        }
    }

    fn set(&mut self, at: Instant) {
        let span = at.saturating_since(self.now.boot);
        self.now = Now { boot: at, wall: self.now.wall + span };
    }
}

/// Phones of these tests live in this network.
fn is_phone(hop: &Hop) -> bool {
    matches!(hop, Hop::Datagram { peer, .. } if peer.ip().to_string().starts_with("203.0.113."))
}

fn name(hop: &Hop) -> String {
    match hop {
        Hop::Datagram { peer, .. } => peer.to_string(),
        Hop::Flow(flow) => format!("flow {}", flow.0),
        Hop::Trunk(key) => format!("{} {}", key.transport.as_param(), key.remote),
    }
}

pub fn line(message: &Message) -> String {
    crate::sip_text::first_line(&bytes(message))
}

/// A phone that registers through us.
pub struct Mobile {
    pub user: &'static str,
    pub at: From,
    /// The Contact's URI.
    pub uri: String,
    /// What stands behind it.
    pub params: String,
    pub expires: u32,
    pub registrar: String,
    pub extra: Vec<(String, String)>,
    call_id: String,
    cseq: u32,
}

impl Mobile {
    pub fn new(user: &'static str, at: From) -> Self {
        let uri = format!(
            "sip:{user}@192.168.1.5:5060;ob;pn-provider=apns;pn-param=ABCDE12345.com.example.phone.voip%26remote;\
             pn-prid={}:voip%26{}:remote",
            token(user),
            other_token(user),
        );
        Self {
            user,
            at,
            uri,
            params: String::new(),
            expires: 3600,
            registrar: format!("sip:{DOMAIN}"),
            extra: Vec::new(),
            call_id: format!("register-{user}"),
            cseq: 0,
        }
    }

    pub fn udp(user: &'static str, last: u8) -> Self {
        Self::new(user, From::Udp(SocketAddr::from(([203, 0, 113, last], 40_000))))
    }

    pub fn tcp(user: &'static str, flow: u64) -> Self {
        let last = u8::try_from(flow % 250).expect("small");
        Self::new(user, From::Tcp(flow, SocketAddr::from(([203, 0, 113, last], 40_000))))
    }

    /// What the rig calls it.
    pub fn name(&self) -> String {
        match self.at {
            From::Udp(peer) => peer.to_string(),
            From::Tcp(flow, _) => format!("flow {flow}"),
        }
    }

    pub fn aor(&self) -> String {
        format!("sip:{}@{DOMAIN}", self.user)
    }

    pub fn register(&mut self) -> Message {
        let contact = format!("<{}>{}", self.uri, self.params);
        self.register_as(&[contact])
    }

    pub fn register_as(&mut self, contacts: &[String]) -> Message {
        self.cseq += 1;
        let mut extra: Vec<(String, String)> =
            contacts.iter().map(|contact| ("Contact".to_owned(), contact.clone())).collect();
        extra.push(("Expires".to_owned(), self.expires.to_string()));
        extra.extend(self.extra.clone());
        let (registrar, call_id, number) = (self.registrar.clone(), self.call_id.clone(), self.cseq);
        self.write(Method::Register, &registrar, &self.aor(), &call_id, number, extra)
    }

    /// A request of its own outside a dialog, with us as preloaded Route.
    pub fn request(&mut self, method: Method<'_>, uri: &str, call_id: &str, extra: &[(&str, &str)]) -> Message {
        let mut fields = vec![("Contact".to_owned(), format!("<{}>", self.uri))];
        fields.extend(extra.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        self.cseq += 1;
        let number = self.cseq;
        self.write(method, uri, uri, call_id, number, fields)
    }

    fn write(
        &self,
        method: Method<'_>,
        uri: &str,
        to: &str,
        call_id: &str,
        cseq: u32,
        extra: Vec<(String, String)>,
    ) -> Message {
        let transport = if matches!(self.at, From::Udp(_)) { Transport::Udp } else { Transport::Tcp };
        let request = Request {
            method,
            uri,
            transport,
            sent_by: "192.168.1.5:5060".to_owned(),
            branch: format!("z9hG4bK-{}-{call_id}-{cseq}", self.name().replace([' ', ':'], "-")),
            routes: &["<sip:192.0.2.5:5060;lr>".to_owned()],
            from: format!("<{}>;tag={}-{}", self.aor(), self.user, cseq),
            to: format!("<{to}>"),
            call_id,
            cseq,
            extra,
            body: b"",
        };
        request.write()
    }

    /// Registers, and the registrar grants it. Returns the user part of the Contact it got.
    pub fn come(&mut self, rig: &mut Rig) -> String {
        let register = self.register();
        rig.receive(&register, self.at);
        let passed = rig.one(PBX);
        let handle = handle_of(&passed);
        rig.grant(&passed, self.expires);
        let answers = rig.take(&self.name());
        assert_eq!(line(&answers[0]), "SIP/2.0 200 OK");
        assert!(answers.len() == 1, "{:?}", answers.iter().map(line).collect::<Vec<_>>());
        handle
    }
}

pub fn token(user: &str) -> String {
    user.bytes().map(|byte| format!("{byte:02x}")).collect()
}

pub fn other_token(user: &str) -> String {
    format!("ffff{}", token(user))
}

/// A request inside a dialog.
pub fn inside(dialog: &mut Dialog, method: Method<'_>, transport: Transport, extra: &[(&str, &str)]) -> Message {
    dialog.cseq += 1;
    let request = Request {
        method,
        uri: &dialog.target,
        transport,
        sent_by: "peer.invalid:5060".to_owned(),
        branch: format!("z9hG4bK-{}-{}-{}", dialog.call_id, method.as_str(), dialog.cseq),
        routes: &dialog.routes,
        from: dialog.local.clone(),
        to: dialog.remote.clone(),
        call_id: &dialog.call_id,
        cseq: dialog.cseq,
        extra: extra.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        body: b"",
    };
    request.write()
}

/// An answer to a request.
pub fn answered(request: &Message, code: u16, tag: &str, contact: &str) -> Message {
    let extra = vec![("Contact", format!("<{contact}>"))];
    let answer = Answer { code, tag: Some(tag), record_route: true, extra, raw: Vec::new(), body: b"" };
    answer.write(request, address("192.0.2.5:5060"))
}

/// The user part of a REGISTER's first Contact.
pub fn handle_of(register: &Message) -> String {
    let contact = register.contacts().next().expect("a Contact").expect("a Contact");
    String::from_utf8_lossy(contact.uri().user().expect("a user")).into_owned()
}

/// A request of the PBX outside a dialog.
pub fn outside(method: Method<'_>, uri: &str, call_id: &str, extra: &[(&str, &str)]) -> Message {
    let mut fields = vec![("Contact".to_owned(), format!("<sip:caller@{PBX}>"))];
    fields.extend(extra.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    let request = Request {
        method,
        uri,
        transport: Transport::Udp,
        sent_by: PBX.to_owned(),
        branch: format!("z9hG4bK-pbx-{call_id}"),
        routes: &[],
        from: format!("<sip:caller@{DOMAIN}>;tag=caller"),
        to: format!("<{uri}>"),
        call_id,
        cseq: 1,
        extra: fields,
        body: b"",
    };
    request.write()
}

pub fn value(message: &Message, name: HeaderName) -> String {
    field(message, name)
}
