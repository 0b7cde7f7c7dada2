//! Which machine a message belongs to: the transaction layer of a stand-in over the machines of `sip::transaction`.
//!
//! It repeats, matches, absorbs and acknowledges refusals; it decides no answer. What is to be sent waits in
//! `poll_send`.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use bytes::Bytes;

use crate::clock::Instant;
use crate::sandbox::deadlines::Deadlines;
use crate::sandbox::wire::{Path, StreamId};
use crate::sip::proxy;
use crate::sip::transaction::{
    InviteClient, InviteServer, NonInviteClient, NonInviteServer, ServerKey, Timeout, Verdict, cancels,
};
use crate::sip::{Message, Method, StatusCode};

/// Transactions at once; above it requests from outside are ignored and own ones refused.
const TRANSACTIONS_MAX: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TransactionId(u64);

/// What the layer above has to know.
pub(crate) enum Indication {
    /// A new request, answered with `respond`.
    Request(TransactionId),
    /// An ACK to a 2xx: it has no transaction.
    Ack(Message),
    /// A response to a request of ours; a 2xx to an INVITE comes as often as the peer repeats it.
    Response(TransactionId, Message),
    /// No final response came, or the connection it would come on is gone.
    Unanswered(TransactionId),
}

struct Client {
    machine: ClientMachine,
    path: Path,
    request: Message,
    name: ClientName,
}

/// Branch and whether it is a CANCEL, which shares its INVITE's branch.
type ClientName = (String, bool);

enum ClientMachine {
    Invite(InviteClient),
    Other(NonInviteClient),
}

struct Server {
    machine: ServerMachine,
    path: Path,
    request: Message,
    key: ServerKey,
}

enum ServerMachine {
    Invite(InviteServer),
    Other(NonInviteServer),
}

enum Transaction {
    Client(Client),
    Server(Server),
}

pub(crate) struct Transactions {
    all: HashMap<TransactionId, Transaction>,
    clients: HashMap<ClientName, TransactionId>,
    servers: HashMap<ServerKey, TransactionId>,
    deadlines: Deadlines<TransactionId>,
    opened: u64,
    to_send: VecDeque<(Path, Bytes)>,
}

impl Transactions {
    pub(crate) fn new() -> Self {
        Self {
            all: HashMap::new(),
            clients: HashMap::new(),
            servers: HashMap::new(),
            deadlines: Deadlines::new(),
            opened: 0,
            to_send: VecDeque::new(),
        }
    }

    /// A message came in. `None`: it was dealt with here.
    pub(crate) fn handle_message(
        &mut self,
        message: Message,
        path: Path,
        peer: SocketAddr,
        now: Instant,
    ) -> Option<Indication> {
        if message.status().is_some() { self.response(message, now) } else { self.request(message, path, peer, now) }
    }

    /// Does one thing that is due. `None`: nothing more is due, or nothing worth telling came of it (see `next_timeout`).
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Option<Indication> {
        while let Some(id) = self.deadlines.pop_due(now) {
            let Some(transaction) = self.all.get_mut(&id) else { continue };
            let (timeout, path, bytes) = transaction.fire(now);
            match timeout {
                Timeout::Idle => self.reschedule(id),
                Timeout::Retransmit => {
                    self.to_send.extend(bytes.map(|bytes| (path, bytes)));
                    self.reschedule(id);
                }
                Timeout::Terminated => self.forget(id),
                Timeout::TimedOut => {
                    let is_client = matches!(transaction, Transaction::Client(_));
                    self.forget(id);
                    if is_client {
                        return Some(Indication::Unanswered(id));
                    }
                }
            }
        }
        None
    }

    /// A stream is gone, and with it the answers that would have come on it.
    pub(crate) fn handle_closed(&mut self, stream: StreamId) -> Vec<TransactionId> {
        let mut lost = Vec::new();
        for (id, transaction) in &self.all {
            if let Transaction::Client(client) = transaction
                && client.path == Path::Stream(stream)
                && !client.is_over()
            {
                lost.push(*id);
            }
        }
        lost.sort_unstable();
        for id in &lost {
            self.forget(*id);
        }
        lost
    }

    /// Sends a request of ours. `None`: it is no request that can be matched to a response, or there are too many.
    pub(crate) fn send(&mut self, request: Vec<u8>, path: Path, reliable: bool, now: Instant) -> Option<TransactionId> {
        let request = Message::parse_datagram(request).ok()?;
        let bytes = request.bytes().clone();
        let method = request.method()?;
        let name = (request.top_via().ok()?.branch()?.to_owned(), method == Method::Cancel);
        let machine = match method {
            Method::Invite => ClientMachine::Invite(InviteClient::new(bytes.clone(), reliable, now)),
            _ => ClientMachine::Other(NonInviteClient::new(bytes.clone(), reliable, None, now)),
        };
        let id = self.open()?;
        self.clients.insert(name.clone(), id);
        self.all.insert(id, Transaction::Client(Client { machine, path, request, name }));
        self.to_send.push_back((path, bytes));
        self.reschedule(id);
        Some(id)
    }

    /// Sends without a transaction: an ACK to a 2xx, or a 2xx that nobody has acknowledged yet.
    pub(crate) fn send_bare(&mut self, bytes: Bytes, path: Path) {
        self.to_send.push_back((path, bytes));
    }

    /// Answers a request.
    pub(crate) fn respond(&mut self, id: TransactionId, code: StatusCode, response: Bytes, now: Instant) {
        let Some(Transaction::Server(server)) = self.all.get_mut(&id) else { return };
        let sends = match &mut server.machine {
            ServerMachine::Invite(machine) => machine.respond(code, response.clone(), now),
            ServerMachine::Other(machine) => machine.respond(code, response.clone(), now),
        };
        if sends {
            self.to_send.push_back((server.path, response));
        }
        self.reschedule(id);
    }

    pub(crate) fn poll_send(&mut self) -> Option<(Path, Bytes)> {
        self.to_send.pop_front()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    /// The request of a transaction and the path it goes or came on.
    pub(crate) fn about(&self, id: TransactionId) -> Option<(&Message, Path)> {
        match self.all.get(&id)? {
            Transaction::Client(client) => Some((&client.request, client.path)),
            Transaction::Server(server) => Some((&server.request, server.path)),
        }
    }

    /// Whether a CANCEL may be sent for the INVITE (RFC 3261 §9.1: only after a provisional response).
    pub(crate) fn is_proceeding(&self, id: TransactionId) -> bool {
        let Some(Transaction::Client(client)) = self.all.get(&id) else { return false };
        matches!(&client.machine, ClientMachine::Invite(machine) if machine.is_proceeding())
    }

    /// The INVITE that a CANCEL means.
    pub(crate) fn cancelled_by(&self, cancel: &Message) -> Option<TransactionId> {
        let id = *self.servers.get(&ServerKey::of_cancelled(cancel).ok()?)?;
        let (invite, _) = self.about(id)?;
        cancels(cancel, invite).then_some(id)
    }

    fn request(&mut self, request: Message, path: Path, peer: SocketAddr, now: Instant) -> Option<Indication> {
        let key = ServerKey::of(&request).ok()?;
        let is_ack = request.method() == Some(Method::Ack);
        let Some(&id) = self.servers.get(&key) else {
            return if is_ack {
                Some(Indication::Ack(request))
            } else {
                self.open_server(request, key, path, peer, now)
            };
        };
        let Some(Transaction::Server(server)) = self.all.get_mut(&id) else { return None };
        let again = match &mut server.machine {
            ServerMachine::Invite(machine) if is_ack => {
                let absorbed = machine.handle_ack(now);
                self.reschedule(id);
                return (!absorbed).then_some(Indication::Ack(request));
            }
            ServerMachine::Invite(machine) => machine.handle_retransmission(),
            ServerMachine::Other(machine) => machine.handle_retransmission(),
        };
        // The same request on a new connection: the answer follows it there.
        server.path = reply_path(&request, path, peer);
        self.to_send.extend(again.cloned().map(|bytes| (server.path, bytes)));
        None
    }

    fn open_server(
        &mut self,
        request: Message,
        key: ServerKey,
        path: Path,
        peer: SocketAddr,
        now: Instant,
    ) -> Option<Indication> {
        let reliable = matches!(path, Path::Stream(_));
        let machine = match request.method()? {
            Method::Invite => ServerMachine::Invite(InviteServer::new(reliable, None, now)),
            _ => ServerMachine::Other(NonInviteServer::new(reliable, now)),
        };
        let path = reply_path(&request, path, peer);
        let id = self.open()?;
        self.servers.insert(key.clone(), id);
        self.all.insert(id, Transaction::Server(Server { machine, path, request, key }));
        Some(Indication::Request(id))
    }

    fn response(&mut self, response: Message, now: Instant) -> Option<Indication> {
        let code = response.status()?;
        let is_cancel = response.cseq().ok()?.method == Method::Cancel;
        let branch = response.top_via().ok()?.branch()?.to_owned();
        let id = *self.clients.get(&(branch, is_cancel))?;
        let Some(Transaction::Client(client)) = self.all.get_mut(&id) else { return None };
        let verdict = match &mut client.machine {
            ClientMachine::Invite(machine) => machine.handle_response(code, now),
            ClientMachine::Other(machine) => machine.handle_response(code, now),
        };
        if matches!(verdict, Verdict::DeliverAndAck | Verdict::Ack) {
            let mut ack = Vec::new();
            if proxy::write_ack(&client.request, &response, &mut ack).is_ok() {
                self.to_send.push_back((client.path, Bytes::from(ack)));
            }
        }
        self.reschedule(id);
        match verdict {
            Verdict::Deliver | Verdict::DeliverAndAck => Some(Indication::Response(id, response)),
            Verdict::Ack | Verdict::Absorb => None,
        }
    }

    fn open(&mut self) -> Option<TransactionId> {
        if self.all.len() >= TRANSACTIONS_MAX {
            return None;
        }
        self.opened += 1;
        Some(TransactionId(self.opened))
    }

    fn reschedule(&mut self, id: TransactionId) {
        let due = self.all.get(&id).and_then(Transaction::due);
        self.deadlines.set(id, due);
    }

    fn forget(&mut self, id: TransactionId) {
        self.deadlines.set(id, None);
        match self.all.remove(&id) {
            Some(Transaction::Client(client)) => drop(self.clients.remove(&client.name)),
            Some(Transaction::Server(server)) => drop(self.servers.remove(&server.key)),
            None => {}
        }
    }
}

impl Client {
    fn is_over(&self) -> bool {
        match &self.machine {
            ClientMachine::Invite(machine) => machine.is_over(),
            ClientMachine::Other(machine) => machine.is_over(),
        }
    }
}

impl Transaction {
    fn due(&self) -> Option<Instant> {
        match self {
            Self::Client(Client { machine: ClientMachine::Invite(machine), .. }) => machine.poll_timeout(),
            Self::Client(Client { machine: ClientMachine::Other(machine), .. }) => machine.poll_timeout(),
            Self::Server(Server { machine: ServerMachine::Invite(machine), .. }) => machine.poll_timeout(),
            Self::Server(Server { machine: ServerMachine::Other(machine), .. }) => machine.poll_timeout(),
        }
    }

    /// What a due timer asks for, and what would be sent again.
    fn fire(&mut self, now: Instant) -> (Timeout, Path, Option<Bytes>) {
        match self {
            Self::Client(Client { machine: ClientMachine::Invite(machine), path, .. }) => {
                (machine.handle_timeout(now), *path, Some(machine.request().clone()))
            }
            Self::Client(Client { machine: ClientMachine::Other(machine), path, .. }) => {
                (machine.handle_timeout(now), *path, Some(machine.request().clone()))
            }
            Self::Server(Server { machine: ServerMachine::Invite(machine), path, .. }) => {
                (machine.handle_timeout(now), *path, machine.last().cloned())
            }
            Self::Server(Server { machine: ServerMachine::Other(machine), path, .. }) => {
                (machine.handle_timeout(now), *path, None)
            }
        }
    }
}

/// Down the stream it came on, or to where the top Via wants datagrams.
fn reply_path(request: &Message, path: Path, peer: SocketAddr) -> Path {
    match path {
        Path::Stream(_) => path,
        Path::Datagram(_) => Path::Datagram(proxy::response_target(request, peer)),
    }
}
