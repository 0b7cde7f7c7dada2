//! A SIP user agent on real sockets: what registrar, callers and phone of the sandbox have in common.
//!
//! It places and takes calls, keeps their dialogs, repeats what was lost and answers what needs no owner (OPTIONS, CANCEL,
//! BYE, methods nobody wants). Its owner drives it with `next` and decides the rest. It resolves no names and touches no
//! media: SDP is handed through.

mod dialog;
mod incoming;
mod outgoing;
mod transactions;

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use self::dialog::Dialog;
pub(crate) use self::dialog::NextHop;
pub(crate) use self::outgoing::Invitation;
pub(crate) use self::transactions::TransactionId;
use self::transactions::{Indication, Transactions};
use super::deadlines::{Deadlines, earliest, sleep_until};
use super::wire::{Incoming, Path, StreamId, Wire};
use crate::clock::{self, Instant};
use crate::sip::proxy::{self, OwnVia, Reply};
use crate::sip::{Message, StatusCode, Transport};

/// Calls at once; above it an INVITE gets 486 and `place` refuses.
const CALLS_MAX: usize = 256;
/// What we understand.
const ALLOW: &str = "INVITE, ACK, CANCEL, BYE, OPTIONS, MESSAGE";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
/// Names a call of one user agent.
pub struct CallId(u64);

/// What the owner has to know or decide.
pub(crate) enum Happening {
    /// A request that is the owner's to answer, with `reply`.
    Request(TransactionId),
    /// The final response to a request of the owner's; `None`: none came.
    Response(TransactionId, Option<Message>),
    /// Something happened to a call.
    Call(CallId, CallEvent),
    /// A stream ended.
    Closed(StreamId),
}

/// What happens to a call.
#[derive(Debug)]
pub(crate) enum CallEvent {
    /// Ours: a provisional response.
    Progress(StatusCode),
    /// Ours: taken, and acknowledged.
    Answered { sdp: Bytes },
    /// Ours: a final response other than 2xx. The call is over.
    Refused { code: StatusCode, phrase: String },
    /// Ours: nobody answered, or the connection broke. The call is over.
    Lost,
    /// Theirs: to be answered with `ring`, `answer` or `refuse`.
    Offered { invite: Message },
    /// Theirs: the caller hung up before we answered, or somebody else did answer. The call is over.
    Cancelled { elsewhere: bool },
    /// Theirs: our answer was acknowledged.
    Confirmed,
    /// The other end hung up. The call is over.
    HungUp,
    /// We hung up, and the other end has said so or stayed silent. The call is over.
    Over,
}

/// A dialog's name: Call-ID and our tag.
type DialogName = (Vec<u8>, String);

struct Call {
    name: DialogName,
    stage: Stage,
}

enum Stage {
    /// Our INVITE waits for its final response.
    Calling(Calling),
    /// Their INVITE waits for ours.
    Offered { invite: TransactionId },
    /// Answered.
    Talking(Talk),
    /// Our BYE waits for its response.
    HangingUp(Talk),
}

struct Calling {
    invite: TransactionId,
    request: Message,
    path: Path,
    last: Option<StatusCode>,
    cancel: Cancel,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Cancel {
    No,
    /// No provisional response came yet, so none may be sent (RFC 3261 §9.1).
    Wanted,
    Sent,
}

struct Talk {
    dialog: Dialog,
    /// Repeated for each 2xx that comes again.
    ack: Option<(Bytes, Path)>,
    /// Our 2xx, until its ACK comes.
    unacknowledged: Option<Unacknowledged>,
    /// Our session description, for a re-INVITE.
    sdp: Bytes,
}

/// A 2xx, repeated until its ACK comes, whatever the transport (RFC 3261 §13.3.1.4).
struct Unacknowledged {
    response: Bytes,
    path: Path,
    number: u32,
    due: Instant,
    pause: Duration,
    until: Instant,
}

/// One user agent. Dropping it drops its calls and closes its sockets.
pub(crate) struct Agent {
    wire: Wire,
    transactions: Transactions,
    /// The user part of our Contact.
    user: String,
    /// Where everything goes, whatever dialogs say: a phone's only connection.
    outbound: Option<Path>,
    calls: HashMap<CallId, Call>,
    calls_opened: u64,
    by_dialog: HashMap<DialogName, CallId>,
    by_transaction: HashMap<TransactionId, CallId>,
    deadlines: Deadlines<CallId>,
    happenings: VecDeque<Happening>,
}

impl Agent {
    pub(crate) fn new(wire: Wire, user: String) -> Self {
        Self {
            wire,
            transactions: Transactions::new(),
            user,
            outbound: None,
            calls: HashMap::new(),
            calls_opened: 0,
            by_dialog: HashMap::new(),
            by_transaction: HashMap::new(),
            deadlines: Deadlines::new(),
            happenings: VecDeque::new(),
        }
    }

    /// From now on everything goes this way.
    pub(crate) fn go_through(&mut self, path: Path) {
        self.outbound = Some(path);
    }

    pub(crate) fn wire(&self) -> &Wire {
        &self.wire
    }

    pub(crate) fn wire_mut(&mut self) -> &mut Wire {
        &mut self.wire
    }

    /// Waits for the next thing to know. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Happening {
        loop {
            self.flush();
            if let Some(happening) = self.happenings.pop_front() {
                return happening;
            }
            let due = earliest(self.transactions.poll_timeout(), self.deadlines.next());
            tokio::select! {
                incoming = self.wire.receive() => self.handle_incoming(incoming, clock::now().boot),
                () = sleep_until(due) => self.handle_timeout(clock::now().boot),
            }
        }
    }

    /// Sends a request of the owner's; its end comes as `Happening::Response`.
    pub(crate) fn request(&mut self, request: Vec<u8>, path: Path) -> Option<TransactionId> {
        let reliable = self.wire.transport(path).is_reliable();
        let id = self.transactions.send(request, path, reliable, clock::now().boot);
        self.flush();
        id
    }

    /// The request behind `Happening::Request`.
    pub(crate) fn asked(&self, id: TransactionId) -> Option<(&Message, Path)> {
        self.transactions.about(id)
    }

    /// Answers a request.
    pub(crate) fn reply(&mut self, id: TransactionId, code: StatusCode, extra: &[(&str, String)]) {
        self.reply_tagged(id, code, &random_token(), extra);
        self.flush();
    }

    /// What goes into Via on that path: transport, sent-by.
    pub(crate) fn sent_by(&self, path: Path) -> (Transport, String) {
        (self.wire.transport(path), self.wire.local(path).to_string())
    }

    /// Our Contact URI on that path.
    pub(crate) fn contact(&self, path: Path) -> String {
        let (transport, host) = self.sent_by(path);
        match transport {
            Transport::Udp => format!("sip:{}@{host}", self.user),
            other => format!("sip:{}@{host};transport={}", self.user, other.as_param()),
        }
    }

    fn reply_tagged(&mut self, id: TransactionId, code: StatusCode, tag: &str, extra: &[(&str, String)]) {
        let Some((request, path)) = self.transactions.about(id) else { return };
        let source = match path {
            Path::Datagram(peer) => Some(peer),
            Path::Stream(_) => None,
        };
        let reply = Reply { code, to_tag: Some(tag), source, record_route: code.code() > 100, extra };
        let mut out = Vec::with_capacity(512);
        if proxy::write_reply(request, &reply, &mut out).is_ok() {
            self.transactions.respond(id, code, out.into(), clock::now().boot);
        }
    }

    fn handle_incoming(&mut self, incoming: Incoming, now: Instant) {
        match incoming {
            Incoming::Message { message, path, peer } => {
                if let Some(indication) = self.transactions.handle_message(message, path, peer, now) {
                    self.handle_indication(indication, now);
                }
            }
            Incoming::Closed(stream) => {
                for id in self.transactions.handle_closed(stream) {
                    self.handle_indication(Indication::Unanswered(id), now);
                }
                self.happenings.push_back(Happening::Closed(stream));
            }
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        while let Some(indication) = self.transactions.handle_timeout(now) {
            self.handle_indication(indication, now);
        }
        while let Some(call) = self.deadlines.pop_due(now) {
            self.handle_call_deadline(call, now);
        }
    }

    fn handle_indication(&mut self, indication: Indication, now: Instant) {
        match indication {
            Indication::Request(id) => self.handle_request(id),
            Indication::Ack(ack) => self.handle_ack(&ack),
            Indication::Response(id, response) => self.handle_response(id, response, now),
            Indication::Unanswered(id) => self.handle_unanswered(id),
        }
    }

    /// Gives the sockets what waits to be sent.
    fn flush(&mut self) {
        while let Some((path, bytes)) = self.transactions.poll_send() {
            self.wire.send(path, bytes);
        }
    }

    fn enter(&mut self, name: DialogName, stage: Stage) -> CallId {
        self.calls_opened += 1;
        let call = CallId(self.calls_opened);
        self.by_dialog.insert(name.clone(), call);
        self.calls.insert(call, Call { name, stage });
        call
    }

    /// The call is over.
    fn end(&mut self, call: CallId, event: CallEvent) {
        if let Some(ended) = self.calls.remove(&call) {
            self.by_dialog.remove(&ended.name);
            self.by_transaction.retain(|_, of| *of != call);
            self.deadlines.set(call, None);
            self.tell(call, event);
        }
    }

    fn tell(&mut self, call: CallId, event: CallEvent) {
        self.happenings.push_back(Happening::Call(call, event));
    }

    /// The way a dialog's requests go.
    fn route(&mut self, dialog: &Dialog) -> Option<Path> {
        match self.outbound {
            Some(path) => Some(path),
            None => {
                let hop = dialog.next_hop()?;
                self.wire.path_to(hop.transport, hop.address)
            }
        }
    }
}

impl Unacknowledged {
    fn next_due(&self) -> Instant {
        self.due.min(self.until)
    }
}

/// A name nobody guesses: for tags, branches, Call-IDs, nonces.
pub(crate) fn random_token() -> String {
    Uuid::new_v4().simple().to_string()
}

/// A branch for a new transaction.
pub(crate) fn random_branch() -> String {
    format!("z9hG4bK{}", Uuid::new_v4().simple())
}

/// Our Via for a new request.
fn own_via<'a>(transport: Transport, sent_by: &'a str, branch: &'a str) -> OwnVia<'a> {
    OwnVia { transport, sent_by, branch }
}
