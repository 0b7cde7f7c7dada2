//! The transactions of a peer, over the machines of `reveille::sip::transaction`: it repeats, matches and absorbs, so that
//! PBX and phones only see what is new.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use reveille::clock::Instant;
use reveille::sip::proxy::write_ack;
use reveille::sip::timers::{T1, T2, TRANSACTION_TIMEOUT};
use reveille::sip::transaction::{
    InviteClient, InviteServer, NonInviteClient, NonInviteServer, ServerKey, Timeout, Verdict,
};
use reveille::sip::{Message, Method, Transport};

use crate::sip_text::{call_id, first_line};

/// How a message travels, seen from a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    Datagram { own: SocketAddr, peer: SocketAddr },
    Stream(u64),
}

impl Path {
    fn is_reliable(self) -> bool {
        matches!(self, Self::Stream(_))
    }
}

/// What a peer does on the network.
pub enum Out {
    Send(Path, Bytes),
    Open { stream: u64, own: SocketAddr, transport: Transport },
    Close(u64),
}

/// Something new.
pub enum Incoming {
    Request(Message, Path),
    /// A response, and the request it answers.
    Response(Message, Message),
}

enum ClientMachine {
    Invite(InviteClient),
    Other(NonInviteClient),
}

struct Client {
    branch: String,
    machine: ClientMachine,
    path: Path,
    request: Message,
}

enum ServerMachine {
    Invite(InviteServer),
    Other(NonInviteServer),
}

struct Server {
    key: ServerKey,
    call_id: String,
    cseq: u32,
    machine: ServerMachine,
    path: Path,
    /// A 2xx to an INVITE is repeated until its ACK (RFC 3261 §13.3.1.4).
    success: Option<Repeat>,
}

struct Repeat {
    bytes: Bytes,
    due: Instant,
    pause: Duration,
    until: Instant,
}

/// The transactions of one peer.
#[derive(Default)]
pub struct Transactions {
    clients: Vec<Client>,
    servers: Vec<Server>,
    pub out: VecDeque<Out>,
    /// Requests of ours that nobody answered.
    pub unanswered: Vec<Message>,
    /// 2xx of ours whose ACK never came.
    pub unacknowledged: Vec<String>,
}

impl Transactions {
    /// Sends a request in a transaction of its own.
    pub fn request(&mut self, request: &Message, path: Path, now: Instant) {
        let bytes = request.bytes().clone();
        self.out.push_back(Out::Send(path, bytes.clone()));
        let machine = match request.method() {
            Some(Method::Ack) => return,
            Some(Method::Invite) => ClientMachine::Invite(InviteClient::new(bytes, path.is_reliable(), now)),
            _ => ClientMachine::Other(NonInviteClient::new(bytes, path.is_reliable(), None, now)),
        };
        self.clients.push(Client { branch: branch(request), machine, path, request: request.clone() });
    }

    /// Answers a request that was delivered.
    pub fn respond(&mut self, request: &Message, response: &Message, path: Path, now: Instant) {
        let key = ServerKey::of(request).expect("a request that was delivered has a key");
        let code = response.status().expect("a response");
        let bytes = response.bytes().clone();
        let Some(server) = self.servers.iter_mut().find(|server| server.key == key) else { return };
        server.path = path;
        let sent = match &mut server.machine {
            ServerMachine::Invite(machine) => machine.respond(code, bytes.clone(), now),
            ServerMachine::Other(machine) => machine.respond(code, bytes.clone(), now),
        };
        if !sent {
            return;
        }
        if code.is_success() && matches!(server.machine, ServerMachine::Invite(_)) {
            let repeat = Repeat { bytes: bytes.clone(), due: now + T1, pause: T1, until: now + TRANSACTION_TIMEOUT };
            server.success = Some(repeat);
        }
        self.out.push_back(Out::Send(path, bytes));
    }

    /// The connection broke: what was asked over it will not be answered (RFC 3261 §8.1.3.1).
    pub fn handle_closed(&mut self, stream: u64) {
        let path = Path::Stream(stream);
        let lost = self.clients.iter().filter(|client| client.path == path);
        self.unanswered.extend(lost.map(|client| client.request.clone()));
        self.clients.retain(|client| client.path != path);
    }

    /// Waits no longer for the answer to a request.
    pub fn give_up(&mut self, request: &Message) {
        let name = branch(request);
        let given_up = self.clients.iter().filter(|client| client.branch == name);
        self.unanswered.extend(given_up.map(|client| client.request.clone()));
        self.clients.retain(|client| client.branch != name);
    }

    /// Forgets a request that will never be answered.
    pub fn ignore(&mut self, request: &Message) {
        let key = ServerKey::of(request).expect("a request that was delivered has a key");
        self.servers.retain(|server| server.key != key);
    }

    /// Takes a message from the wire; `None`: nothing new.
    pub fn handle(&mut self, message: Message, path: Path, now: Instant) -> Option<Incoming> {
        if message.status().is_some() {
            self.handle_response(message, now)
        } else {
            self.handle_request(message, path, now)
        }
    }

    fn handle_response(&mut self, response: Message, now: Instant) -> Option<Incoming> {
        let name = branch(&response);
        let invite = response.cseq().expect("a CSeq").method == Method::Invite;
        let method = response.cseq().expect("a CSeq").method.as_str().to_owned();
        let client = self.clients.iter_mut().find(|client| {
            client.branch == name && client.request.method().is_some_and(|asked| asked.as_str() == method)
        })?;
        let code = response.status().expect("a response");
        let verdict = match &mut client.machine {
            ClientMachine::Invite(machine) => machine.handle_response(code, now),
            ClientMachine::Other(machine) => machine.handle_response(code, now),
        };
        if invite && matches!(verdict, Verdict::Ack | Verdict::DeliverAndAck) {
            let mut out = Vec::new();
            write_ack(&client.request, &response, &mut out).expect("a response that can be acknowledged");
            self.out.push_back(Out::Send(client.path, out.into()));
        }
        let request = client.request.clone();
        matches!(verdict, Verdict::Deliver | Verdict::DeliverAndAck).then_some(Incoming::Response(response, request))
    }

    fn handle_request(&mut self, request: Message, path: Path, now: Instant) -> Option<Incoming> {
        let key = ServerKey::of(&request).expect("a request with a key");
        if request.method() == Some(Method::Ack) {
            return self.handle_ack(request, &key, path, now);
        }
        if let Some(server) = self.servers.iter_mut().find(|server| server.key == key) {
            server.path = path;
            let again = match &server.machine {
                ServerMachine::Invite(machine) => machine.handle_retransmission().cloned(),
                ServerMachine::Other(machine) => machine.handle_retransmission().cloned(),
            };
            let again = again.or_else(|| server.success.as_ref().map(|repeat| repeat.bytes.clone()));
            self.out.extend(again.map(|bytes| Out::Send(path, bytes)));
            return None;
        }
        let machine = match request.method() {
            Some(Method::Invite) => ServerMachine::Invite(InviteServer::new(path.is_reliable(), None, now)),
            _ => ServerMachine::Other(NonInviteServer::new(path.is_reliable(), now)),
        };
        let cseq = request.cseq().expect("a CSeq").number;
        self.servers.push(Server { key, call_id: call_id(&request), cseq, machine, path, success: None });
        Some(Incoming::Request(request, path))
    }

    fn handle_ack(&mut self, ack: Message, key: &ServerKey, path: Path, now: Instant) -> Option<Incoming> {
        if let Some(Server { machine: ServerMachine::Invite(machine), .. }) =
            self.servers.iter_mut().find(|server| server.key == *key)
            && machine.handle_ack(now)
        {
            return None;
        }
        let (id, cseq) = (call_id(&ack), ack.cseq().expect("a CSeq").number);
        let mut news = false;
        for server in self.servers.iter_mut().filter(|server| server.call_id == id && server.cseq == cseq) {
            news |= server.success.take().is_some();
        }
        news.then_some(Incoming::Request(ack, path))
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        for client in &mut self.clients {
            let (timeout, bytes) = match &mut client.machine {
                ClientMachine::Invite(machine) => (machine.handle_timeout(now), machine.request().clone()),
                ClientMachine::Other(machine) => (machine.handle_timeout(now), machine.request().clone()),
            };
            match timeout {
                Timeout::Retransmit => self.out.push_back(Out::Send(client.path, bytes)),
                Timeout::TimedOut => self.unanswered.push(client.request.clone()),
                Timeout::Idle | Timeout::Terminated => {}
            }
        }
        for server in &mut self.servers {
            let (timeout, bytes) = match &mut server.machine {
                ServerMachine::Invite(machine) => (machine.handle_timeout(now), machine.last().cloned()),
                ServerMachine::Other(machine) => {
                    (machine.handle_timeout(now), machine.handle_retransmission().cloned())
                }
            };
            if timeout == Timeout::Retransmit {
                self.out.extend(bytes.map(|bytes| Out::Send(server.path, bytes)));
            }
            let Some(repeat) = &mut server.success else { continue };
            if repeat.until <= now {
                self.unacknowledged.push(server.call_id.clone());
                server.success = None;
            } else if repeat.due <= now {
                repeat.pause = (repeat.pause * 2).min(T2);
                repeat.due = now + repeat.pause;
                self.out.push_back(Out::Send(server.path, repeat.bytes.clone()));
            }
        }
        self.clients.retain(|client| !client.machine.is_terminated());
        self.servers.retain(|server| !server.machine.is_terminated() || server.success.is_some());
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        let clients = self.clients.iter().filter_map(|client| match &client.machine {
            ClientMachine::Invite(machine) => machine.poll_timeout(),
            ClientMachine::Other(machine) => machine.poll_timeout(),
        });
        let servers = self.servers.iter().flat_map(|server| {
            let machine = match &server.machine {
                ServerMachine::Invite(machine) => machine.poll_timeout(),
                ServerMachine::Other(machine) => machine.poll_timeout(),
            };
            [machine, server.success.as_ref().map(|repeat| repeat.due.min(repeat.until))]
        });
        clients.chain(servers.flatten()).min()
    }

    /// Requests under way, either side.
    pub fn len(&self) -> usize {
        self.clients.len() + self.servers.len()
    }

    /// Whether an end may still come of one: what was asked over a connection that is gone is answered only if the peer is
    /// there again when the answer comes.
    pub fn are_under_way(&self, is_open: impl Fn(u64) -> bool) -> bool {
        let reaches = |path| match path {
            Path::Stream(stream) => is_open(stream),
            Path::Datagram { .. } => true,
        };
        !self.servers.is_empty() || self.clients.iter().any(|client| reaches(client.path))
    }

    /// The requests under way, either side, in words.
    pub fn describe(&self) -> Vec<String> {
        let clients = self.clients.iter().map(|it| format!("> {} {:?}", first_line(it.request.bytes()), it.path));
        let servers = self.servers.iter().map(|it| format!("< {} {:?}", it.call_id, it.path));
        clients.chain(servers).collect()
    }

    /// The peer restarts: it has forgotten everything.
    pub fn clear(&mut self) {
        self.clients.clear();
        self.servers.clear();
    }
}

impl ClientMachine {
    fn is_terminated(&self) -> bool {
        match self {
            Self::Invite(machine) => machine.is_terminated(),
            Self::Other(machine) => machine.is_terminated(),
        }
    }
}

impl ServerMachine {
    fn is_terminated(&self) -> bool {
        match self {
            Self::Invite(machine) => machine.is_terminated(),
            Self::Other(machine) => machine.is_terminated(),
        }
    }
}

fn branch(message: &Message) -> String {
    message.top_via().expect("a Via").branch().expect("a branch").to_owned()
}
