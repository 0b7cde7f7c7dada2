//! What the API asks about traces, and whose message something is. Where nobody has consented to a trace, nothing here looks at
//! anything.

use bytes::Bytes;

use super::account::TenantId;
use super::audit::{LifeEvent, Reader};
use super::engine::Engine;
use super::ids::{BindingId, InstanceId, ReplyTo};
use super::input::{Arrival, TokenHash};
use super::messages::registering;
use super::output::{Answer, Consent, Hop, Refusal, TraceKind};
use super::traces::{Side, Transaction};
use crate::clock::Now;
use crate::sip::{Message, Method};

/// When to come again where no further trace may be kept.
const COME_AGAIN: std::time::Duration = std::time::Duration::from_secs(60);

impl Engine {
    /// `POST /v1/instances/{id}/trace`.
    pub(super) fn consent_to_trace(
        &mut self,
        id: InstanceId,
        token: &TokenHash,
        consent: Consent,
        reply: ReplyTo,
        now: Now,
    ) {
        let Some(()) = self.check(id, token, reply) else { return };
        if self.is_restricted(id) {
            return self.reply(reply, Answer::Refused(Refusal::Restricted));
        }
        let Some(()) = self.may_be_recorded(id, reply, now) else { return };
        if !self.traces.begin(id, consent, now) {
            return self.reply(reply, Answer::Refused(Refusal::Busy { after: COME_AGAIN }));
        }
        self.record(id, LifeEvent::TraceConsented, now);
        let answer = self.traces.consent(id).map_or(Answer::Refused(Refusal::NoTrace), Answer::Consent);
        self.reply(reply, answer);
    }

    /// `DELETE /v1/instances/{id}/trace`. Asked again it changes nothing.
    pub(super) fn withdraw_trace(&mut self, id: InstanceId, token: &TokenHash, reply: ReplyTo, now: Now) {
        let Some(()) = self.check(id, token, reply) else { return };
        let withdrawn = self.end_trace(id, now);
        self.reply(reply, Answer::TraceEnded(withdrawn));
    }

    /// The device wants no trace any more. `false`: there was none.
    pub(super) fn end_trace(&mut self, id: InstanceId, now: Now) -> bool {
        let withdrawn = self.traces.end(id);
        if withdrawn {
            self.record(id, LifeEvent::TraceWithdrawn, now);
        }
        withdrawn
    }

    /// `GET /v1/instances/{id}/trace`.
    pub(super) fn read_trace(&mut self, id: InstanceId, token: &TokenHash, reply: ReplyTo, now: Now) {
        let Some(()) = self.check(id, token, reply) else { return };
        self.tell_trace(id, Reader::Device, reply, now);
    }

    /// `GET /v1/tenants/self/instances/{id}/trace`: where the device does not want it, there is nothing.
    pub(super) fn read_trace_as_tenant(&mut self, tenant: &TenantId, id: InstanceId, reply: ReplyTo, now: Now) {
        let own = self.leases.get(id).is_some_and(|instance| instance.tenant == *tenant);
        let may = self.traces.consent(id).is_some_and(|view| view.consent.tenant_may_read);
        if own && may {
            self.tell_trace(id, Reader::Tenant, reply, now);
        } else {
            self.reply(reply, Answer::Refused(Refusal::NotFound));
        }
    }

    fn tell_trace(&mut self, id: InstanceId, reader: Reader, reply: ReplyTo, now: Now) {
        self.traces.handle_timeout(now);
        let Some(view) = self.traces.view(id) else {
            return self.reply(reply, Answer::Refused(Refusal::NoTrace));
        };
        if let Err(after) = self.leases.take_reading(id, reader, now.boot) {
            return self.reply(reply, Answer::Refused(Refusal::RateLimited { after }));
        }
        self.record(id, LifeEvent::TraceRead(reader), now);
        self.reply(reply, Answer::Trace(Box::new(view)));
    }

    /// A message came in.
    pub(super) fn trace_in(&mut self, message: &Message, arrival: &Arrival, now: Now) {
        if self.traces.is_empty() {
            return;
        }
        self.traces.tick(now);
        let hop = match arrival.flow {
            Some(flow) => Hop::Flow(flow),
            None => Hop::Datagram { listener: arrival.listener, peer: arrival.peer },
        };
        for id in self.concerned(message, &hop) {
            self.traces.note(id, TraceKind::Received, message, true);
            let own = message.status().is_none() && self.is_of_device(id, message, &hop);
            if let Some(transaction) = Transaction::at(message, 0).filter(|_| own) {
                self.traces.learn(id, transaction, Side::Device);
            }
        }
    }

    /// A message goes out.
    pub(super) fn trace_out(&mut self, hop: &Hop, bytes: &Bytes) {
        if self.traces.is_empty() {
            return;
        }
        let Ok(message) = Message::parse_datagram(bytes.to_vec()) else { return };
        for id in self.concerned(&message, hop) {
            let whole = !self.may_be_anothers(id, &message, hop);
            self.traces.note(id, TraceKind::Sent, &message, whole);
        }
    }

    /// Whether an answer to the trunk may be what another device of the account said: then it tells where that one is.
    fn may_be_anothers(&self, id: InstanceId, message: &Message, hop: &Hop) -> bool {
        let shares = || {
            let binding = self.leases.get(id).map(|instance| instance.binding);
            binding.is_some_and(|binding| self.leases.members(binding).nth(1).is_some())
        };
        message.status().is_some() && !self.is_of_device(id, message, hop) && shares()
    }

    /// A request concerns these instances, as only its recipient could tell.
    pub(super) fn trace_request(&mut self, request: &Message, instances: &[InstanceId]) {
        if self.traces.is_empty() {
            return;
        }
        for &id in instances {
            let Some(transaction) = Transaction::at(request, 0) else { return };
            // What its device began is known already.
            if self.traces.learn(id, transaction, Side::Trunk) {
                self.traces.note(id, TraceKind::Received, request, true);
            }
        }
    }

    /// Takes note of a decision about all who share a binding.
    pub(super) fn trace_binding(&mut self, binding: BindingId, words: impl Fn() -> String) {
        if self.traces.is_empty() {
            return;
        }
        for member in self.members_of(binding) {
            self.traces.decide(member, &words);
        }
    }

    /// The traced instances that a message on this hop is about.
    fn concerned(&self, message: &Message, hop: &Hop) -> Vec<InstanceId> {
        let top = Transaction::at(message, 0);
        let beneath = Transaction::at(message, 1);
        let about = |id: &InstanceId| {
            self.is_of_device(*id, message, hop)
                || self.is_of_registration(*id, message)
                || self.traces.knows(*id, top.as_ref(), Side::Trunk)
                || self.traces.knows(*id, beneath.as_ref(), Side::Device)
        };
        self.traces.instances().filter(about).collect()
    }

    /// Whether it goes to or comes from the instance's own device. A connection or an address that others use too is nobody's: there only
    /// what names the instance is its own.
    fn is_of_device(&self, id: InstanceId, message: &Message, hop: &Hop) -> bool {
        let named = message.cseq().is_ok_and(|cseq| cseq.method == Method::Register)
            && message.to().ok().and_then(|to| InstanceId::parse(to.uri().user()?)) == Some(id);
        named
            || (self.edge.device(id).is_some_and(|device| device.hop == *hop)
                && registering(message).is_none()
                && self.edge.is_alone_on(hop))
    }

    /// Whether it belongs to the registration we keep for the instance.
    fn is_of_registration(&self, id: InstanceId, message: &Message) -> bool {
        let binding = self.leases.get(id).map(|instance| instance.binding);
        let own = binding.and_then(|binding| self.bindings.call_id(binding));
        own.is_some() && own.map(str::as_bytes) == message.call_id().ok()
    }
}
