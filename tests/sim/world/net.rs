//! The network: datagrams by the wire's luck, streams in order, and who lives at which address.

use super::build::address;
use super::*;
use crate::sip_text::{Answer, call_id, first_line, gist, uri};
use crate::transactions::{Out, Path};
use reveille::engine::ids::{FlowId, ListenerId};
use reveille::engine::input::{Arrival, Malformed};
use reveille::engine::output::Hop;
use reveille::sip::{Message, Method, StatusCode, Transport};

/// A stream connection, known to both sides by its number.
pub(super) struct Connection {
    pub(super) peer: SocketAddr,
    pub(super) listener: ListenerId,
    pub(super) transport: Transport,
    /// We opened it.
    pub(super) trunk: Option<Arc<TrunkKey>>,
    pub(super) open: bool,
}

/// Characters of a capability.
const CAPABILITY_LENGTH: usize = 29;

enum Resident {
    Pbx(usize),
    Phone(String),
    Nobody,
}

impl World {
    pub(super) fn send(&mut self, hop: &Hop, bytes: &[u8]) {
        let message = Message::parse_datagram(bytes.to_vec());
        let message = message.unwrap_or_else(|fault| panic!("an engine sent no SIP: {fault}: {}", first_line(bytes)));
        self.forgive();
        self.critic.judge_sent(&message);
        if self.is_too_large(hop, &message) {
            return;
        }
        match hop {
            Hop::Datagram { listener, peer } => {
                let from = self.listener_address(*listener);
                self.sent.push((self.now.boot, peer.to_string(), bytes.to_vec()));
                self.meter.entry(*peer).or_default().1 += bytes.len();
                self.judge_leaving(&message, *peer);
                self.datagram(from, *peer, bytes);
            }
            Hop::Flow(flow) => self.send_on_stream(flow.0, bytes),
            Hop::Trunk(key) => {
                let open = self.connections.iter().find(|(_, it)| it.open && it.trunk.as_ref() == Some(key));
                match open.map(|(stream, _)| *stream).or_else(|| self.open_trunk(key)) {
                    Some(stream) => self.send_on_stream(stream, bytes),
                    None => self.schedule(millis(30), Event::TrunkDown(Arc::clone(key), self.fault_of(key))),
                }
            }
        }
    }

    /// Why a connection could not be opened.
    fn fault_of(&self, key: &TrunkKey) -> TrunkFault {
        match self.resident(key.remote) {
            Resident::Pbx(place) if self.pbxs[place].registrar.listens => TrunkFault::Tls,
            Resident::Pbx(_) | Resident::Phone(_) | Resident::Nobody => TrunkFault::Connect,
        }
    }

    fn open_trunk(&mut self, key: &Arc<TrunkKey>) -> Option<u64> {
        let opens = match self.resident(key.remote) {
            Resident::Pbx(place) => self.pbxs[place].registrar.accepts(key),
            Resident::Phone(_) | Resident::Nobody => false,
        };
        if !opens {
            return None;
        }
        self.connections_made += 1;
        let stream = self.connections_made;
        let connection = Connection {
            peer: key.remote,
            listener: key.listener,
            transport: key.transport,
            trunk: Some(Arc::clone(key)),
            open: true,
        };
        self.connections.insert(stream, connection);
        Some(stream)
    }

    fn send_on_stream(&mut self, stream: u64, bytes: &[u8]) {
        let Some(connection) = self.connections.get(&stream).filter(|it| it.open) else { return };
        self.sent.push((self.now.boot, connection.peer.to_string(), bytes.to_vec()));
        self.story.tell_bytes(self.now.boot, &format!("us ={stream}=> {}", gist(bytes)), bytes);
        let event = Event::Frame { stream, to_engine: false, bytes: bytes.to_vec() };
        let peer = connection.peer;
        self.schedule(self.wire.latency, event);
        self.judge_leaving(&Message::parse_frame(bytes.to_vec()).expect("SIP"), peer);
    }

    /// By when the engines must have acted on what is known now: one round trip.
    fn one_round_trip_on(&self) -> Instant {
        self.now.boot + (self.wire.latency + self.wire.jitter).max(millis(5)) * 2
    }

    fn judge_leaving(&mut self, message: &Message, peer: SocketAddr) {
        let by = self.one_round_trip_on();
        match self.resident(peer) {
            Resident::Pbx(_) | Resident::Nobody => self.ringing.judge_upstream(message, by),
            Resident::Phone(name) => self.ringing.judge_downstream(message, &name, self.now.boot, by),
        }
    }

    fn judge_coming(&mut self, message: &Message, peer: SocketAddr) {
        let by = self.one_round_trip_on();
        match self.resident(peer) {
            Resident::Pbx(_) | Resident::Nobody => {
                self.ringing.hear_pbx(message, by);
                // A wake that the shard of the call decides on meanwhile has its cause.
                if message.method() == Some(Method::Cancel) && calls_by_name(&uri(message)) {
                    self.ringing.pass_on(message, self.now.boot + BETWEEN_SHARDS);
                }
            }
            Resident::Phone(_) => self.ringing.hear_phone(message, by),
        }
    }

    /// Puts a datagram on the wire.
    pub(super) fn datagram(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let copies = self.wire.copies(&mut self.dice);
        if copies.is_empty() && bytes.starts_with(b"SIP/2.0 ") {
            let message = Message::parse_datagram(bytes.to_vec()).expect("an answer");
            self.bad_luck.insert(call_id(&message));
        }
        let fate = match copies.len() {
            0 => " (lost)",
            1 => "",
            _ => " (twice)",
        };
        self.story.tell_bytes(self.now.boot, &format!("{from} -> {to} {}{fate}", gist(bytes)), bytes);
        for delay in copies {
            self.schedule(delay, Event::Datagram { from, to, bytes: bytes.to_vec() });
        }
    }

    /// A stranger sends something to our UDP listener.
    pub fn stranger_sends(&mut self, from: &str, bytes: &[u8]) {
        self.start();
        let from = address(from);
        self.meter.entry(from).or_default().0 += bytes.len();
        self.datagram(from, self.listener_address(ListenerId(0)), bytes);
    }

    /// A stranger opens a TCP connection.
    pub fn stranger_connects(&mut self, from: &str) -> u64 {
        self.start();
        self.connections_made += 1;
        let stream = self.connections_made;
        self.accept(stream, address(from), Transport::Tcp);
        stream
    }

    pub fn stranger_writes(&mut self, stream: u64, bytes: &[u8]) {
        let event = Event::Frame { stream, to_engine: true, bytes: bytes.to_vec() };
        self.schedule(self.wire.latency, event);
    }

    fn accept(&mut self, stream: u64, peer: SocketAddr, transport: Transport) {
        let place = self.policy.listeners.iter().position(|it| it.transport == transport).expect("a listener");
        let listener = ListenerId(u16::try_from(place).expect("few listeners"));
        let connection = Connection { peer, listener, transport, trunk: None, open: true };
        assert!(self.connections.insert(stream, connection).is_none(), "a stream twice");
    }

    /// Breaks every connection to or from an address.
    pub fn break_connections(&mut self, peer: SocketAddr) {
        let streams: Vec<u64> =
            self.connections.iter().filter(|(_, it)| it.open && it.peer == peer).map(|(stream, _)| *stream).collect();
        for stream in streams {
            self.close(stream, false);
            self.schedule(self.wire.latency, Event::Closed { stream, to_engine: false });
        }
    }

    /// Breaks every connection to or from a host.
    pub fn break_connections_of(&mut self, host: IpAddr) {
        let peers: BTreeSet<SocketAddr> =
            self.connections.values().filter(|it| it.open && it.peer.ip() == host).map(|it| it.peer).collect();
        for peer in peers {
            self.break_connections(peer);
        }
    }

    /// Who has to be at the other end of the trunks that were opened.
    pub fn trunk_identities(&self) -> Vec<String> {
        let keys = self.connections.values().filter_map(|it| it.trunk.as_ref());
        keys.filter_map(|key| key.identity.as_ref().map(|identity| identity.host.clone())).collect()
    }

    pub fn open_connections(&self, peer: SocketAddr) -> usize {
        self.connections.values().filter(|it| it.open && it.peer == peer).count()
    }

    /// Closes a connection; the other side hears of it after a while.
    pub(super) fn close(&mut self, stream: u64, by_engine: bool) {
        let Some(connection) = self.connections.get_mut(&stream).filter(|it| it.open) else { return };
        connection.open = false;
        let peer = connection.peer;
        if let Resident::Phone(name) = self.resident(peer) {
            self.ringing.lose(&name);
        }
        self.story.tell(self.now.boot, &format!("stream {stream} closed"));
        self.schedule(self.wire.latency, Event::Closed { stream, to_engine: !by_engine });
        if by_engine {
            self.schedule(Duration::ZERO, Event::Closed { stream, to_engine: true });
        }
    }

    /// Takes what peers want to send.
    pub(super) fn flush_peers(&mut self) {
        for place in 0..self.pbxs.len() {
            while let Some(out) = self.pbxs[place].transactions.out.pop_front() {
                self.peer_does(out, true);
            }
        }
        let names: Vec<String> = self.phones.keys().cloned().collect();
        for name in names {
            loop {
                let phone = self.phones.get_mut(&name).expect("a phone");
                let reachable = phone.reachable;
                let Some(out) = phone.transactions.out.pop_front() else { break };
                self.peer_does(out, reachable);
            }
        }
    }

    fn peer_does(&mut self, out: Out, reachable: bool) {
        match out {
            Out::Send(Path::Datagram { own, peer }, bytes) => {
                if reachable {
                    self.meter.entry(own).or_default().0 += bytes.len();
                    self.datagram(own, peer, &bytes);
                }
            }
            Out::Send(Path::Stream(stream), bytes) => {
                if self.connections.get(&stream).is_some_and(|it| it.open) {
                    self.story.tell_bytes(self.now.boot, &format!("us <={stream}= {}", gist(&bytes)), &bytes);
                    let event = Event::Frame { stream, to_engine: true, bytes: bytes.to_vec() };
                    self.schedule(self.wire.latency, event);
                }
            }
            Out::Open { stream, own, transport } => self.accept(stream, own, transport),
            Out::Close(stream) => self.close(stream, false),
        }
    }

    pub(super) fn time_peers(&mut self) -> bool {
        let now = self.now.boot;
        let mut any = false;
        for pbx in &mut self.pbxs {
            if pbx.poll_timeout().is_some_and(|due| due <= now) {
                any = true;
                pbx.set_now(now);
                pbx.handle_timeout();
            }
        }
        for phone in self.phones.values_mut() {
            if phone.poll_timeout().is_some_and(|due| due <= now) {
                any = true;
                phone.set_now(now);
                phone.handle_timeout();
            }
        }
        self.flush_peers();
        any
    }

    pub(super) fn happen(&mut self, event: Event) {
        match event {
            Event::Datagram { from, to, bytes } => self.datagram_arrives(from, to, bytes),
            Event::Frame { stream, to_engine, bytes } => self.frame_arrives(stream, to_engine, bytes),
            Event::Closed { stream, to_engine } => self.close_arrives(stream, to_engine),
            Event::Located(shard, query, answer) => {
                self.queries -= 1;
                self.feed(shard, Input::Located(query, answer));
            }
            Event::Pushed(shard, wake, outcome) => self.push_outcome(shard, wake, outcome),
            Event::Arrived(name, push) => {
                let now = self.now.boot;
                let phone = self.phones.get_mut(&name).expect("a phone");
                phone.set_now(now);
                phone.handle_push(push.kind, push.call);
            }
            Event::Recorded(shard, record, recorded) => {
                self.records_waiting -= 1;
                self.feed(shard, Input::Recorded(record, recorded));
            }
            Event::Peer { from, to, message } => self.feed(to, Input::Peer(from, message)),
            Event::TrunkDown(key, fault) => {
                self.story.tell(self.now.boot, &format!("trunk down: {fault:?}"));
                self.feed_all(|| Input::TrunkDown(Arc::clone(&key), fault));
            }
        }
    }

    fn datagram_arrives(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        let ours = self.policy.listeners.iter().position(|it| it.advertise == to.to_string());
        if let Some(place) = ours {
            self.story.tell(self.now.boot, &format!("   {from} came {}", gist(&bytes)));
            let arrival = Arrival {
                listener: ListenerId(u16::try_from(place).expect("few listeners")),
                transport: Transport::Udp,
                peer: from,
                flow: None,
                trunk: None,
                registrar: self.is_registrar(from.ip()),
                device: self.is_device(from),
            };
            return match Message::parse_datagram(bytes.clone()) {
                Ok(message) if message.from().is_ok() => self.message_arrives(message, arrival),
                Ok(_) => self.malformed_arrives(&bytes, StatusCode::BAD_REQUEST, arrival),
                Err(error) => self.malformed_arrives(&bytes, error.status(), arrival),
            };
        }
        let now = self.now.boot;
        let path = Path::Datagram { own: to, peer: from };
        match self.resident(to) {
            Resident::Pbx(place) => {
                let message = Message::parse_datagram(bytes).expect("checked when sent");
                self.pbxs[place].set_now(now);
                self.pbxs[place].handle(message, path);
            }
            Resident::Phone(name) => {
                let phone = self.phones.get_mut(&name).expect("a resident");
                if phone.reachable && phone.address == to {
                    phone.set_now(now);
                    phone.handle(Message::parse_datagram(bytes).expect("checked when sent"), path);
                }
            }
            Resident::Nobody => self.mailbox.push((to, bytes)),
        }
    }

    fn frame_arrives(&mut self, stream: u64, to_engine: bool, bytes: Vec<u8>) {
        let Some(connection) = self.connections.get(&stream).filter(|it| it.open) else { return };
        let peer = connection.peer;
        let Ok(message) = Message::parse_frame(bytes.clone()) else { return };
        if to_engine {
            let arrival = Arrival {
                listener: connection.listener,
                transport: connection.transport,
                peer,
                flow: Some(FlowId(stream)),
                trunk: connection.trunk.clone(),
                registrar: self.is_registrar(peer.ip()),
                device: self.is_device(peer),
            };
            return self.message_arrives(message, arrival);
        }
        let now = self.now.boot;
        match self.resident(peer) {
            Resident::Pbx(place) => {
                self.pbxs[place].set_now(now);
                self.pbxs[place].handle(message, Path::Stream(stream));
            }
            Resident::Phone(name) => {
                let phone = self.phones.get_mut(&name).expect("a resident");
                phone.set_now(now);
                phone.handle(message, Path::Stream(stream));
            }
            Resident::Nobody => self.mailbox.push((peer, bytes)),
        }
    }

    /// Whether a message does not fit what waits for a phone; if so, the engines hear of it.
    fn is_too_large(&mut self, hop: &Hop, message: &Message) -> bool {
        if message.bytes().len() <= self.room || matches!(hop, Hop::Trunk(_)) {
            return false;
        }
        let reply = Answer { tag: Some("unsent"), ..Answer::plain(513) };
        let ours = self.listener_address(ListenerId(0));
        if message.method().is_some_and(|method| method != Method::Ack) {
            let response = reply.write(message, ours);
            self.feed_all(|| Input::Unsent(response.clone()));
        }
        true
    }

    /// What the network side hands up of a datagram that cannot be read.
    fn malformed_arrives(&mut self, bytes: &[u8], code: StatusCode, arrival: Arrival) {
        if let Some(request) = Message::salvage(bytes).filter(|_| arrival.registrar) {
            let shard = self.placement.message(&request, &arrival);
            let malformed = Malformed { request, code, paid: bytes.len() };
            self.feed(shard, Input::Malformed(Box::new(malformed), arrival));
        }
    }

    fn message_arrives(&mut self, message: Message, arrival: Arrival) {
        self.judge_coming(&message, arrival.peer);
        let shard = self.placement.message(&message, &arrival);
        self.feed(shard, Input::Sip(message, arrival));
    }

    fn close_arrives(&mut self, stream: u64, to_engine: bool) {
        let Some(connection) = self.connections.get(&stream) else { return };
        let (peer, trunk) = (connection.peer, connection.trunk.clone());
        if to_engine {
            self.feed_all(|| Input::FlowClosed(FlowId(stream)));
            if let Some(key) = trunk {
                self.feed_all(|| Input::TrunkDown(Arc::clone(&key), TrunkFault::Closed));
            }
            return;
        }
        match self.resident(peer) {
            Resident::Phone(name) => self.phones.get_mut(&name).expect("a resident").handle_closed(stream),
            Resident::Pbx(place) => self.pbxs[place].transactions.handle_closed(stream),
            Resident::Nobody => {}
        }
    }

    fn is_registrar(&self, address: IpAddr) -> bool {
        self.registrars.get(&address).is_some_and(|until| *until > self.now.boot)
    }

    fn is_device(&self, peer: SocketAddr) -> bool {
        self.devices.get(&peer).is_some_and(|until| *until > self.now.boot)
    }

    fn resident(&self, at: SocketAddr) -> Resident {
        if let Some(place) = self.pbxs.iter().position(|pbx| pbx.address.ip() == at.ip()) {
            return Resident::Pbx(place);
        }
        let phone = self.phones.iter().find(|(_, phone)| phone.address.ip() == at.ip());
        phone.map_or(Resident::Nobody, |(name, _)| Resident::Phone(name.clone()))
    }

    fn listener_address(&self, listener: ListenerId) -> SocketAddr {
        address(&self.policy.listener(listener).expect("a listener").advertise)
    }
}

/// Whether a Request-URI names nobody by a capability.
fn calls_by_name(uri: &str) -> bool {
    let user = uri.trim_start_matches("sip:").split(['@', ';']).next().unwrap_or_default();
    !uri.contains(";cap=") && user.len() != CAPABILITY_LENGTH
}
