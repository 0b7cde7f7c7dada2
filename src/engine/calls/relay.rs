//! One request on its way through us: the server transaction it came in by, the client transaction it left by.

use std::net::SocketAddr;

use bytes::Bytes;

use super::allowance::{Allowance, FINALS_TO_UNPROVEN_MAX};
use super::held::MergeKey;
use crate::clock::Instant;
use crate::engine::ids::{BranchId, Capability, InstanceId, ListenerId};
use crate::engine::input::Arrival;
use crate::engine::output::Hop;
use crate::engine::route_token::DialogId;
use crate::sip::proxy::{self, Reply};
use crate::sip::transaction::{InviteClient, InviteServer, NonInviteClient, NonInviteServer, Timeout, Verdict};
use crate::sip::{Message, Method, StatusCode, Transport};

/// Names a relay in its shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RelayId(pub(crate) u64);

/// The side a request came from.
pub(crate) enum Server {
    Invite(InviteServer),
    Other(NonInviteServer),
}

/// The side a request left by.
pub(crate) enum Client {
    Invite(InviteClient),
    Other(NonInviteClient),
}

/// A request forwarded, and how.
pub(crate) struct Leg {
    pub(crate) branch: BranchId,
    pub(crate) client: Client,
    pub(crate) hop: Hop,
    pub(crate) request: Message,
    /// Where our Via says responses go: kept when the request is sent again on another flow.
    pub(crate) listener: ListenerId,
    /// A CANCEL waits for the first provisional response (RFC 3261 §9.1), with this Reason.
    pub(crate) cancel: Cancel,
    /// Route values of ours on top of the forwarded request's Record-Route.
    pub(crate) own_routes: usize,
    /// Whether the leg leads to the device (else to the trunk).
    pub(crate) to_device: bool,
}

/// How far the cancelling of a leg went.
pub(crate) enum Cancel {
    No,
    /// To be sent at the first provisional response.
    Wanted(Option<String>),
    Sent(Box<NonInviteClient>),
}

/// A request, and how it came.
pub(super) struct Came<'a> {
    pub(super) request: Message,
    pub(super) arrival: &'a Arrival,
    pub(super) back: Hop,
    pub(super) allowance: Allowance,
}

/// One request on its way.
pub(crate) struct Relay {
    pub(crate) instance: InstanceId,
    pub(crate) server: Server,
    /// The request as it came in.
    pub(crate) request: Message,
    /// Where its responses go.
    pub(crate) back: Hop,
    pub(crate) source: SocketAddr,
    pub(crate) listener: ListenerId,
    pub(crate) transport: Transport,
    pub(crate) leg: Option<Leg>,
    /// The branch it was forwarded with, whatever became of the leg.
    pub(crate) branch: Option<BranchId>,
    /// The phones (by their tags) whose late answers we have ended.
    pub(crate) hung_up: Vec<String>,
    /// What may be sent back.
    pub(super) allowance: Allowance,
    /// 2xx passed on.
    successes: u8,
    /// The To tag of our own answers.
    pub(crate) tag: String,
    pub(crate) dialog: Option<DialogId>,
    /// For an INVITE to a capability: what its copies are known by.
    pub(super) merge: Option<MergeKey>,
    /// The one-call Contact of our own provisional answer.
    pub(crate) early_contact: Option<Capability>,
}

impl Relay {
    /// A relay for a request that just came in.
    pub(super) fn new(instance: InstanceId, came: Came<'_>, tag: String, now: Instant) -> Self {
        let Came { request, arrival, back, allowance } = came;
        let reliable = arrival.transport.is_reliable();
        let finals_max = (!allowance.is_proven()).then_some(FINALS_TO_UNPROVEN_MAX);
        let server = match request.method() {
            Some(Method::Invite) => Server::Invite(InviteServer::new(reliable, finals_max, now)),
            _ => Server::Other(NonInviteServer::new(reliable, now)),
        };
        Self {
            instance,
            server,
            request,
            back,
            source: arrival.peer,
            listener: arrival.listener,
            transport: arrival.transport,
            leg: None,
            branch: None,
            hung_up: Vec::new(),
            allowance,
            successes: 0,
            tag,
            dialog: None,
            merge: None,
            early_contact: None,
        }
    }

    /// Writes an answer of our own and gives it to the server transaction; the bytes go to `back`. `None`: nothing is to
    /// be sent, since it comes too late or the source has not paid for it.
    pub(crate) fn answer(
        &mut self,
        code: StatusCode,
        record_route: bool,
        extra: &[(&str, String)],
        now: Instant,
    ) -> Option<Bytes> {
        let to_tag = (code.code() > 100).then_some(self.tag.as_str());
        let mut out = Vec::with_capacity(512);
        let reply = Reply { code, to_tag, source: Some(self.source), record_route, extra };
        proxy::write_reply(&self.request, &reply, &mut out).ok()?;
        let bytes = Bytes::from(out);
        let size = bytes.len();
        if code.is_provisional() && !self.allowance.spares(size) || !self.server.respond(code, bytes.clone(), now) {
            return None;
        }
        let paid = if code.is_provisional() { self.allowance.spend(size) } else { self.allowance.spend_on_final(size) };
        paid.then_some(bytes)
    }

    /// The same request came again: what it gets.
    pub(super) fn answer_again(&mut self, request: &Message, now: Instant) -> Option<Bytes> {
        self.allowance.earn(request);
        let Some(last) = self.server.handle_retransmission().cloned() else {
            let unheard = !self.is_answered() && request.method() == Some(Method::Invite);
            return unheard.then(|| self.answer(StatusCode::TRYING, false, &[], now)).flatten();
        };
        self.allowance.spend(last.len()).then_some(last)
    }

    /// Passes a response on.
    pub(crate) fn pass(&mut self, response: &Message, code: StatusCode, now: Instant) -> Option<Bytes> {
        let mut out = Vec::with_capacity(response.bytes().len());
        let changed = (response.status() != Some(code)).then_some(code);
        proxy::write_forward_response(response, changed, &mut out);
        let bytes = Bytes::from(out);
        self.allowance.charge(bytes.len());
        if code.is_success() && !self.allowance.is_proven() {
            self.successes = self.successes.saturating_add(1);
            if self.successes > FINALS_TO_UNPROVEN_MAX {
                return None;
            }
        }
        self.server.respond(code, bytes.clone(), now).then_some(bytes)
    }

    /// Whether a final response went back.
    pub(crate) fn is_answered(&self) -> bool {
        self.server.final_code().is_some()
    }

    /// Whether nothing is left to do or to absorb.
    pub(crate) fn is_over(&self) -> bool {
        self.server.is_terminated() && self.leg.as_ref().is_none_or(Leg::is_over)
    }

    /// The next deadline of either side.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let leg = self.leg.as_ref().and_then(Leg::poll_timeout);
        [self.server.poll_timeout(), leg].into_iter().flatten().min()
    }
}

impl Server {
    /// `false`: the response comes too late and is not to be sent.
    pub(crate) fn respond(&mut self, code: StatusCode, response: Bytes, now: Instant) -> bool {
        match self {
            Self::Invite(server) => server.respond(code, response, now),
            Self::Other(server) => server.respond(code, response, now),
        }
    }

    pub(crate) fn handle_retransmission(&self) -> Option<&Bytes> {
        match self {
            Self::Invite(server) => server.handle_retransmission(),
            Self::Other(server) => server.handle_retransmission(),
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Timeout {
        match self {
            Self::Invite(server) => server.handle_timeout(now),
            Self::Other(server) => server.handle_timeout(now),
        }
    }

    /// The response a due timer wants sent again.
    pub(crate) fn last(&self) -> Option<&Bytes> {
        match self {
            Self::Invite(server) => server.last(),
            Self::Other(server) => server.handle_retransmission(),
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Invite(server) => server.poll_timeout(),
            Self::Other(server) => server.poll_timeout(),
        }
    }

    pub(crate) fn final_code(&self) -> Option<StatusCode> {
        match self {
            Self::Invite(server) => server.final_code(),
            Self::Other(server) => server.final_code(),
        }
    }

    pub(crate) fn is_terminated(&self) -> bool {
        match self {
            Self::Invite(server) => server.is_terminated(),
            Self::Other(server) => server.is_terminated(),
        }
    }
}

impl Leg {
    pub(crate) fn is_over(&self) -> bool {
        self.client.is_over() && self.poll_timeout().is_none()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let cancel = match &self.cancel {
            Cancel::Sent(client) => client.poll_timeout(),
            Cancel::No | Cancel::Wanted(_) => None,
        };
        [self.client.poll_timeout(), cancel].into_iter().flatten().min()
    }
}

impl Client {
    /// A client transaction of the right kind for a request about to be sent.
    pub(crate) fn new(request: &Message, bytes: Bytes, reliable: bool, now: Instant) -> Self {
        match request.method() {
            Some(Method::Invite) => Self::Invite(InviteClient::new(bytes, reliable, now)),
            _ => Self::Other(NonInviteClient::new(bytes, reliable, None, now)),
        }
    }

    pub(crate) fn handle_response(&mut self, code: StatusCode, now: Instant) -> Verdict {
        match self {
            Self::Invite(client) => client.handle_response(code, now),
            Self::Other(client) => client.handle_response(code, now),
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Timeout {
        match self {
            Self::Invite(client) => client.handle_timeout(now),
            Self::Other(client) => client.handle_timeout(now),
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Invite(client) => client.poll_timeout(),
            Self::Other(client) => client.poll_timeout(),
        }
    }

    pub(crate) fn request(&self) -> &Bytes {
        match self {
            Self::Invite(client) => client.request(),
            Self::Other(client) => client.request(),
        }
    }

    /// Whether the other side has said anything.
    pub(crate) fn is_heard(&self) -> bool {
        match self {
            Self::Invite(client) => client.is_proceeding() || client.is_over(),
            Self::Other(client) => client.is_over(),
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        match self {
            Self::Invite(client) => client.is_over(),
            Self::Other(client) => client.is_over(),
        }
    }
}
