//! One request on its way through us: the server transaction it came in by, the client transaction it left by.

use std::net::SocketAddr;

use bytes::Bytes;

use super::allowance::{Allowance, FINALS_TO_UNPROVEN_MAX};
use super::held::MergeKey;
use super::in_dialog::Inside;
use super::leg::Leg;
use crate::clock::Instant;
use crate::engine::ids::{Capability, InstanceId, ListenerId};
use crate::engine::input::Arrival;
use crate::engine::output::Hop;
use crate::sip::proxy::{self, Reply};
use crate::sip::transaction::{InviteServer, NonInviteServer, Timeout};
use crate::sip::{Message, Method, StatusCode, Transport};

/// Names a relay in its shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RelayId(pub(crate) u64);

/// The side a request came from.
pub(super) enum Server {
    Invite(InviteServer),
    Other(NonInviteServer),
}

/// A request, and how it came.
pub(super) struct Came<'a> {
    pub(super) request: Message,
    pub(super) arrival: &'a Arrival,
    pub(super) back: Hop,
    pub(super) allowance: Allowance,
}

/// One request on its way.
pub(super) struct Relay {
    pub(super) server: Server,
    /// The request as it came in.
    pub(super) request: Message,
    /// Where its responses go.
    pub(super) back: Hop,
    pub(super) source: SocketAddr,
    pub(super) listener: ListenerId,
    pub(super) transport: Transport,
    /// Its branches, one for each device it was sent to and that may still answer it; inside a dialog there is one at most.
    pub(super) legs: Vec<Leg>,
    /// What may be sent back.
    pub(super) allowance: Allowance,
    /// 2xx passed on.
    successes: u8,
    /// The To tag of our own answers.
    pub(super) tag: String,
    /// For a request inside a dialog: which one.
    pub(super) inside: Option<Inside>,
    /// For an INVITE to a capability: what its copies are known by.
    pub(super) merge: Option<MergeKey>,
    /// The one-call Contact of our own provisional answer.
    pub(super) early_contact: Option<Capability>,
}

impl Relay {
    /// A relay for a request that just came in.
    pub(super) fn new(came: Came<'_>, tag: String, now: Instant) -> Self {
        let Came { request, arrival, back, allowance } = came;
        let reliable = arrival.transport.is_reliable();
        let finals_max = (!allowance.is_proven()).then_some(FINALS_TO_UNPROVEN_MAX);
        let server = match request.method() {
            Some(Method::Invite) => Server::Invite(InviteServer::new(reliable, finals_max, now)),
            _ => Server::Other(NonInviteServer::new(reliable, now)),
        };
        Self {
            server,
            request,
            back,
            source: arrival.peer,
            listener: arrival.listener,
            transport: arrival.transport,
            legs: Vec::new(),
            allowance,
            successes: 0,
            tag,
            inside: None,
            merge: None,
            early_contact: None,
        }
    }

    /// Writes an answer of our own and gives it to the server transaction; the bytes go to `back`. `None`: nothing is to
    /// be sent, since it comes too late or the source has not paid for it.
    pub(super) fn answer(
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
    pub(super) fn pass(&mut self, response: &Message, code: StatusCode, now: Instant) -> Option<Bytes> {
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

    /// The branch to a device.
    pub(super) fn leg_to(&mut self, instance: InstanceId) -> Option<&mut Leg> {
        self.legs.iter_mut().find(|leg| leg.instance == instance)
    }

    /// Whether a final response went back.
    pub(super) fn is_answered(&self) -> bool {
        self.server.final_code().is_some()
    }

    /// Whether nothing is left to do or to absorb.
    pub(super) fn is_over(&self) -> bool {
        self.server.is_terminated() && self.legs.iter().all(Leg::is_over)
    }

    /// The next deadline of either side.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let legs = self.legs.iter().filter_map(Leg::poll_timeout);
        self.server.poll_timeout().into_iter().chain(legs).min()
    }
}

impl Server {
    /// `false`: the response comes too late and is not to be sent.
    pub(super) fn respond(&mut self, code: StatusCode, response: Bytes, now: Instant) -> bool {
        match self {
            Self::Invite(server) => server.respond(code, response, now),
            Self::Other(server) => server.respond(code, response, now),
        }
    }

    pub(super) fn handle_retransmission(&self) -> Option<&Bytes> {
        match self {
            Self::Invite(server) => server.handle_retransmission(),
            Self::Other(server) => server.handle_retransmission(),
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) -> Timeout {
        match self {
            Self::Invite(server) => server.handle_timeout(now),
            Self::Other(server) => server.handle_timeout(now),
        }
    }

    /// The response a due timer wants sent again.
    pub(super) fn last(&self) -> Option<&Bytes> {
        match self {
            Self::Invite(server) => server.last(),
            Self::Other(server) => server.handle_retransmission(),
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Invite(server) => server.poll_timeout(),
            Self::Other(server) => server.poll_timeout(),
        }
    }

    pub(super) fn final_code(&self) -> Option<StatusCode> {
        match self {
            Self::Invite(server) => server.final_code(),
            Self::Other(server) => server.final_code(),
        }
    }

    pub(super) fn is_terminated(&self) -> bool {
        match self {
            Self::Invite(server) => server.is_terminated(),
            Self::Other(server) => server.is_terminated(),
        }
    }
}
