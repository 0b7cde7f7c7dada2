//! One subscription to a mailbox: its dialog, and where it stands.

use std::time::Duration;

use super::{EXPIRES, ROUTE_BYTES_MAX, ROUTES_MAX, TAG_BYTES_MAX};
use crate::clock::Instant;
use crate::engine::challenges::{Challenges, Sessions};
use crate::engine::ids::BranchId;
use crate::engine::output::DestinationKey;
use crate::engine::random::Random;
use crate::engine::register::Target;
use crate::sip::address::Address;
use crate::sip::transaction::NonInviteClient;
use crate::sip::{HeaderName, Message};

/// A subscription that an instance wants.
pub(super) struct Subscription {
    pub(super) dialog: Dialog,
    pub(super) phase: Phase,
    pub(super) backoff_step: u32,
    /// The expiry to ask for.
    pub(super) expires: Duration,
    /// Granted until.
    pub(super) until: Option<Instant>,
    /// When it was granted first.
    pub(super) since: Option<Instant>,
}

pub(super) enum Phase {
    /// For its turn at the registrar.
    Waiting(DestinationKey),
    Asking(Box<Asking>),
    /// Until the refresh, or the next try.
    Resting,
    /// The notifier does not want to hear of it.
    Stopped,
}

/// A subscription on its way out.
pub(super) struct Leaving {
    pub(super) dialog: Dialog,
    pub(super) asking: Asking,
    pub(super) until: Instant,
}

/// A SUBSCRIBE under way.
pub(super) struct Asking {
    pub(super) branch: BranchId,
    pub(super) client: NonInviteClient,
    pub(super) target: Target,
    pub(super) contact: String,
    pub(super) challenges: Challenges,
    pub(super) expires: Duration,
    pub(super) bumped: bool,
    /// Requests that were sent; none while it waits for its turn.
    pub(super) requests: u8,
}

/// Our side of the dialog (RFC 6665 §4.1, RFC 3261 §12), and the digest sessions within it.
pub(super) struct Dialog {
    pub(super) call_id: String,
    pub(super) local_tag: String,
    pub(super) remote_tag: Option<String>,
    /// The notifier's Contact.
    pub(super) target: Option<Vec<u8>>,
    pub(super) routes: Vec<Vec<u8>>,
    pub(super) cseq: u32,
    /// CSeq of the last NOTIFY.
    pub(super) notified: Option<u32>,
    pub(super) sessions: Sessions,
}

impl Subscription {
    pub(super) fn new(random: &mut Random) -> Self {
        Self {
            dialog: Dialog::new(random, Sessions::default()),
            phase: Phase::Resting,
            backoff_step: 0,
            expires: EXPIRES,
            until: None,
            since: None,
        }
    }

    /// The next SUBSCRIBE begins another dialog.
    pub(super) fn start_over(&mut self, random: &mut Random) {
        let sessions = std::mem::take(&mut self.dialog.sessions);
        self.dialog = Dialog::new(random, sessions);
        self.until = None;
        self.since = None;
    }
}

impl Dialog {
    fn new(random: &mut Random, sessions: Sessions) -> Self {
        Self {
            call_id: random.text::<16>(),
            local_tag: random.text::<8>(),
            remote_tag: None,
            target: None,
            routes: Vec::new(),
            cseq: 0,
            notified: None,
            sessions,
        }
    }

    /// Whether there is a notifier at the other end.
    pub(super) fn is_established(&self) -> bool {
        self.remote_tag.is_some()
    }

    /// Whether a request of the notifier belongs to it.
    pub(super) fn is_of(&self, request: &Message) -> bool {
        let to = request.to().ok().and_then(|to| tag_of(&to));
        let from = request.from().ok().and_then(|from| tag_of(&from));
        request.call_id().ok() == Some(self.call_id.as_bytes())
            && to.as_deref() == Some(self.local_tag.as_str())
            && from.is_some()
            && (self.remote_tag.is_none() || self.remote_tag == from)
    }

    /// A 2xx to our SUBSCRIBE: the other end (RFC 3261 §12.1.2).
    pub(super) fn establish(&mut self, response: &Message) {
        let tag = response.to().ok().and_then(|to| tag_of(&to));
        self.remote_tag = tag.or_else(|| self.remote_tag.take());
        if let Some(contact) = response.contacts().find_map(Result::ok) {
            self.retarget(contact.uri().raw());
        }
        let mut routes: Vec<Vec<u8>> = response.list(HeaderName::RecordRoute).map(<[u8]>::to_vec).collect();
        let bytes: usize = routes.iter().map(Vec::len).sum();
        if routes.len() <= ROUTES_MAX && bytes <= ROUTE_BYTES_MAX && self.routes.is_empty() {
            routes.reverse();
            self.routes = routes;
        }
    }

    /// A NOTIFY of it came. `false`: it came before.
    pub(super) fn note(&mut self, notify: &Message) -> bool {
        let number = notify.cseq().map_or(0, |cseq| cseq.number);
        if self.notified.is_some_and(|last| last >= number) {
            return false;
        }
        self.notified = Some(number);
        if self.remote_tag.is_none() {
            self.remote_tag = notify.from().ok().and_then(|from| tag_of(&from));
        }
        if let Some(contact) = notify.contacts().find_map(Result::ok) {
            self.retarget(contact.uri().raw());
        }
        true
    }

    fn retarget(&mut self, uri: &[u8]) {
        let sound = uri.len() <= ROUTE_BYTES_MAX && std::str::from_utf8(uri).is_ok_and(|uri| !uri.contains('"'));
        if sound {
            self.target = Some(uri.to_vec());
        }
    }
}

/// The tag, if it is one to be kept.
fn tag_of(address: &Address<'_>) -> Option<String> {
    address.tag().filter(|tag| tag.len() <= TAG_BYTES_MAX).map(str::to_owned)
}
