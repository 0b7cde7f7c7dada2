//! Dialogs through us: where requests inside a call go, kept until BYE, flow end or `limits.dialog_max`.
//!
//! Holds no secret and outlives the erasure of its instance, so that nobody's call is cut by it.

use std::collections::BTreeSet;
use std::time::Duration;

use ahash::HashMap;

use crate::clock::Instant;
use crate::engine::ids::{CallUuid, FlowId, InstanceId, ListenerId};
use crate::engine::output::Hop;
use crate::engine::route_token::{self, DialogId, Mint};
use crate::engine::schedule::Schedule;
use crate::sip::timers::TRANSACTION_TIMEOUT;
use crate::sip::{Message, Method};

/// A call that may have requests inside.
pub(crate) struct Dialog {
    pub(crate) instance: InstanceId,
    /// What the call is called at the device, if it was called.
    pub(crate) call: Option<CallUuid>,
    pub(crate) call_id: Vec<u8>,
    /// The From tag of the INVITE: whoever uses it speaks for the side the INVITE came from.
    pub(crate) caller_tag: String,
    /// The trunk's next hop.
    pub(crate) trunk: Hop,
    pub(crate) trunk_listener: ListenerId,
    /// The connection of `trunk` is gone.
    pub(crate) trunk_lost: bool,
    /// The device sent the first request: who has `caller_tag` speaks for the device's side then.
    pub(crate) outgoing: bool,
}

impl Dialog {
    /// Whether a request with this From tag comes from the trunk's side.
    pub(crate) fn is_from_trunk(&self, tag: Option<&str>) -> bool {
        (tag == Some(self.caller_tag.as_str())) != self.outgoing
    }
}

/// The dialogs of one shard.
pub(crate) struct Dialogs {
    mint: Mint,
    next: u64,
    dialogs: HashMap<DialogId, Dialog>,
    by_flow: HashMap<FlowId, BTreeSet<DialogId>>,
    /// How many dialogs an instance has.
    counts: HashMap<InstanceId, usize>,
    /// Instances that have just lost their last one.
    emptied: Vec<InstanceId>,
    ends: Schedule<DialogId>,
    most: usize,
}

impl Dialogs {
    /// Remembers at most `most` dialogs; the one nearest to its end is forgotten first.
    pub(crate) fn new(mint: Mint, most: usize) -> Self {
        Self {
            mint,
            next: 0,
            dialogs: HashMap::default(),
            by_flow: HashMap::default(),
            counts: HashMap::default(),
            emptied: Vec::new(),
            ends: Schedule::default(),
            most: most.max(1),
        }
    }

    /// Remembers a dialog for at most `life`.
    pub(crate) fn open(&mut self, dialog: Dialog, life: Duration, now: Instant) -> DialogId {
        while self.dialogs.len() >= self.most {
            match self.ends.pop_due(Instant::from_nanos(u64::MAX)) {
                Some(oldest) => self.forget(oldest),
                None => break,
            }
        }
        self.next += 1;
        let id = DialogId(self.next);
        if let Hop::Flow(flow) = dialog.trunk {
            self.by_flow.entry(flow).or_default().insert(id);
        }
        *self.counts.entry(dialog.instance).or_default() += 1;
        self.ends.set(id, Some(now + life));
        self.dialogs.insert(id, dialog);
        id
    }

    /// The token for our Record-Route.
    pub(crate) fn token(&self, id: DialogId) -> Option<String> {
        let dialog = self.dialogs.get(&id)?;
        Some(self.mint.token(id, dialog.instance, &dialog.call_id, &dialog.trunk))
    }

    /// The dialog whose valid token stands in the top Route, and how many leading Routes carry it.
    pub(crate) fn find(&self, request: &Message) -> Option<(DialogId, usize)> {
        let first = request.routes().next()?.ok()?;
        let user = first.uri().user()?;
        let (_, id, mac) = route_token::read(user)?;
        let dialog = self.dialogs.get(&id)?;
        let call_id = request.call_id().ok()?;
        if dialog.call_id != call_id || !self.mint.verify(&mac, id, dialog.instance, call_id, &dialog.trunk) {
            return None;
        }
        let inside = request.to().ok()?.tag().is_some();
        if !inside && !matches!(request.method(), Some(Method::Ack | Method::Cancel)) {
            return None;
        }
        let own = request.routes().take_while(|route| {
            route.as_ref().is_ok_and(|route| route.uri().user().is_some_and(|own| own.eq_ignore_ascii_case(user)))
        });
        Some((id, own.count()))
    }

    pub(crate) fn get(&self, id: DialogId) -> Option<&Dialog> {
        self.dialogs.get(&id)
    }

    /// The dialog goes on for so long.
    pub(crate) fn prolong(&mut self, id: DialogId, life: Duration, now: Instant) {
        if self.dialogs.contains_key(&id) {
            self.ends.set(id, Some(now + life));
        }
    }

    /// BYE was answered, or the call never came to be: only late messages are still let through.
    pub(crate) fn end(&mut self, id: DialogId, now: Instant) {
        if self.dialogs.contains_key(&id) {
            self.ends.set(id, Some(now + TRANSACTION_TIMEOUT));
        }
    }

    pub(crate) fn handle_flow_closed(&mut self, flow: FlowId) {
        for id in self.by_flow.remove(&flow).unwrap_or_default() {
            if let Some(dialog) = self.dialogs.get_mut(&id) {
                dialog.trunk_lost = true;
            }
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while let Some(id) = self.ends.pop_due(now) {
            self.forget(id);
        }
    }

    /// Whether an instance has any.
    pub(crate) fn has_any(&self, instance: InstanceId) -> bool {
        self.counts.contains_key(&instance)
    }

    /// An instance that has lost its last one.
    pub(crate) fn pop_emptied(&mut self) -> Option<InstanceId> {
        self.emptied.pop()
    }

    pub(crate) fn len(&self) -> usize {
        self.dialogs.len()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.ends.next()
    }

    fn forget(&mut self, id: DialogId) {
        self.ends.remove(id);
        let Some(dialog) = self.dialogs.remove(&id) else { return };
        if let Some(count) = self.counts.get_mut(&dialog.instance) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&dialog.instance);
                self.emptied.push(dialog.instance);
            }
        }
        if let Hop::Flow(flow) = dialog.trunk
            && let Some(ids) = self.by_flow.get_mut(&flow)
        {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_flow.remove(&flow);
            }
        }
    }
}
