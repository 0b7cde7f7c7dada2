//! What the rooms say, each handed to the next.

use super::audit::LifeEvent;
use super::engine::{Effect, Engine};
use super::input::PeerMessage;
use super::output::{Note, Output, Step, WakeKind};
use super::permits::{Asker, Class, Permit, Want};
use super::{bindings, calls, destinations, edge, erasures, names, wakes};
use crate::clock::Now;

impl Engine {
    pub(super) fn route_bindings(&mut self, now: Now) -> bool {
        use bindings::Event;
        let Some(event) = self.bindings.poll_event() else { return false };
        match event {
            Event::Locate(query, uri) => self.emit(Output::Locate(query, uri)),
            Event::Want(destination, asker, want) => {
                self.destinations.want(destination, asker, want, &mut self.random, now.boot);
            }
            Event::Withdraw(destination, asker) => {
                self.destinations.withdraw(destination, asker, &mut self.random, now.boot);
            }
            Event::Report(destination, used) => {
                self.destinations.report(destination, used, &mut self.random, now.boot);
            }
            Event::Farewell(binding, target, request) => {
                self.erasures.send_farewell(binding, &target, request, now.boot);
            }
            Event::Back(binding) => self.erasures.drop_farewell(binding),
            Event::Unpaced(destination) => self.destinations.charge(destination, 1, &mut self.random, now.boot),
            Event::Load(destination, tenant, change) => {
                self.destinations.load(destination, tenant, change, &mut self.random, now.boot);
            }
            // Behind a destination that says nothing it does not wait for its turn.
            Event::Waits(binding, destination) => {
                let paced = !self.destinations.is_withheld(&destination);
                self.bindings.note_pacing(binding, paced, now.boot);
            }
            Event::Send(hop, bytes) => self.outputs.push_back(Effect::Send(hop, bytes)),
            Event::Proven(address, span) => self.emit(Output::Registrar(address, span)),
            Event::Changed(binding, state, reason, code) => {
                self.trace_binding(binding, || {
                    let reason = reason.map(|reason| format!(", {}", reason.as_str())).unwrap_or_default();
                    let code = code.map(|code| format!(" ({code})")).unwrap_or_default();
                    format!("registration: {}{reason}{code}", state.as_str())
                });
                for member in self.members_of(binding) {
                    self.emit(Output::Note(Note::Registration(member, state, reason, code)));
                }
            }
            Event::Refused(binding) => {
                for member in self.members_of(binding) {
                    self.record(member, LifeEvent::Refused, now);
                }
            }
            Event::Spoken(binding, spoken) => {
                self.handle_spoken(binding, &spoken, now);
                self.review_heirs(binding, now);
            }
            Event::GiveUp(binding, cause) => {
                if self.handle_candidate_given_up(binding, now) {
                    return true;
                }
                for member in self.members_of(binding) {
                    self.erase(member, cause, None, now);
                }
            }
            Event::Incurable(binding) => self.call_for_credentials(binding, now),
            Event::Tried(binding, tried) => self.handle_tried(binding, tried, now),
            Event::Borne(binding, Some(at)) => self.names.bear(binding, at.user, at.address, at.trunk),
            Event::Borne(binding, None) => self.names.lay_down(binding),
        }
        true
    }

    pub(super) fn route_destinations(&mut self, now: Now) -> bool {
        use destinations::Event;
        let Some(event) = self.destinations.poll_event() else { return false };
        match event {
            Event::Peer(shard, destination, message) => {
                self.emit(Output::Peer(shard, PeerMessage::Permit(destination, message)));
            }
            Event::Permit(asker, permit) => self.handle_permit(asker, permit, now),
            Event::Refused(destination, binding, after) => {
                let (bindings, mut desk) = self.for_bindings();
                bindings.handle_crowded(binding, destination, after, &mut desk, now.boot);
            }
            Event::Withheld(destination, binding) => {
                let (bindings, mut desk) = self.for_bindings();
                bindings.handle_withheld(binding, destination, &mut desk, now.boot);
            }
            Event::Crowded(crowded) => self.emit(Output::Note(Note::RegistrarFull(crowded))),
        }
        true
    }

    fn handle_permit(&mut self, asker: Asker, permit: Permit, now: Now) {
        match asker {
            Asker::Binding(binding) | Asker::Trial(binding) => {
                let (bindings, mut desk) = self.for_bindings();
                bindings.handle_permit(binding, permit, &mut desk, now.boot);
            }
            Asker::Erasure(_) | Asker::Departure(_) | Asker::Farewell(_) => {
                let (erasures, mut desk) = self.for_erasures();
                erasures.handle_permit(asker, permit, &mut desk, now);
            }
            Asker::Subscription(instance) | Asker::Unsubscription(instance) => {
                self.at_mailbox(instance, now, |mailboxes, registered, desk| {
                    mailboxes.handle_permit(asker, permit, registered, desk, now.boot);
                });
            }
        }
    }

    pub(super) fn route_names(&mut self) -> bool {
        let Some(names::Event::Peer(shard, message)) = self.names.poll_event() else { return false };
        self.emit(Output::Peer(shard, message));
        true
    }

    pub(super) fn route_edge(&mut self, now: Now) -> bool {
        use edge::Event;
        let Some(event) = self.edge.poll_event() else { return false };
        self.tell_texts(&event, now);
        match event {
            Event::Send(hop, bytes) => self.outputs.push_back(Effect::Send(hop, bytes)),
            Event::Attached(instance) => {
                self.traces.decide(instance, || "device: attached".to_owned());
                self.wakes.handle_attached(instance);
                self.leases.hear(instance, now.boot);
                let Some(device) = self.edge.device(instance).cloned() else { return true };
                let (calls, mut desk) = self.for_calls();
                calls.handle_attached(instance, &device, &mut desk, now.boot);
                self.pass.let_go(instance);
            }
            Event::Detached(instance) => {
                self.traces.decide(instance, || "device: detached".to_owned());
                self.leases.hear(instance, now.boot);
                let (calls, mut desk) = self.for_calls();
                calls.handle_detached(instance, &mut desk, now.boot);
            }
            Event::Proven(peer, span) => self.emit(Output::Device(peer, span)),
        }
        true
    }

    pub(super) fn route_calls(&mut self, now: Now) -> bool {
        use calls::Event;
        let Some(event) = self.calls.poll_event() else { return false };
        match event {
            Event::Send(hop, bytes) => self.outputs.push_back(Effect::Send(hop, bytes)),
            Event::Wake(wanted) => self.send_call_wake(wanted, now),
            Event::Silent(instance) => {
                self.edge.handle_silence(instance, now.boot);
                self.pass.handle_silence(instance, now.boot);
            }
            Event::LastDialog(instance) if self.leases.get(instance).is_none_or(|it| it.restricted.is_some()) => {
                self.edge.release(instance);
                self.pass.release(instance);
            }
            Event::LastDialog(_) => {}
            Event::Step(instance, call, step) => {
                self.traces.decide(instance, || match step.reason() {
                    Some(reason) => format!("call {call}: {} ({reason})", step.as_str()),
                    None => format!("call {call}: {}", step.as_str()),
                });
                // A dialog outlives its instance; what is kept for the instance does not.
                if step == Step::PrivateMediaAddress && self.leases.get(instance).is_some() {
                    self.stories.note_private_media(instance);
                }
                self.stories.note(instance, call, step, &mut self.tally, now);
            }
            Event::Note(note) => {
                if let Note::CallEnded(call, instance, outcome) = note {
                    self.stories.note_outcome(instance, call, outcome);
                }
                self.emit(Output::Note(note));
            }
        }
        true
    }

    pub(super) fn route_erasures(&mut self, now: Now) -> bool {
        use erasures::Event;
        let Some(event) = self.erasures.poll_event() else { return false };
        match event {
            Event::Want(destination, asker) => {
                let want = Want::new(Class::Removal, 0, now.boot);
                self.destinations.want(destination, asker, want, &mut self.random, now.boot);
            }
            Event::Withdraw(destination, asker) => {
                self.destinations.withdraw(destination, asker, &mut self.random, now.boot);
            }
            Event::Report(destination, used) => {
                self.destinations.report(destination, used, &mut self.random, now.boot);
            }
            Event::Send(hop, bytes) => self.outputs.push_back(Effect::Send(hop, bytes)),
            Event::Record(job) => {
                self.count_record(&job);
                self.emit(Output::Record(job));
            }
            Event::Reply(reply, answer) => self.emit(Output::Reply(reply, answer)),
            Event::Note(note) => self.emit(Output::Note(note)),
        }
        true
    }

    fn send_call_wake(&mut self, wanted: calls::WakeWanted, now: Now) {
        if !self.calls.is_wanted(&wanted) {
            return;
        }
        if wanted.kind == WakeKind::MissedCall {
            let missed = wakes::Missed { count: 1, call: wanted.uuid, caller: wanted.caller };
            return self.tell_missed(wanted.instance, missed, now);
        }
        let call_wake = wanted.kind == WakeKind::Call;
        let reason = wakes::Reason {
            kind: wanted.kind,
            call: Some(wanted.uuid),
            caller: self.told_caller(wanted.instance, wanted.kind, wanted.caller),
            until: call_wake.then_some(wanted.until),
            detail: wanted.detail,
            again: wanted.again,
        };
        let sent = self.send_wake(wanted.instance, reason, now);
        if call_wake {
            let (calls, mut desk) = self.for_calls();
            calls.handle_wake_sent(wanted.call, wanted.instance, sent, &mut desk, now.boot);
        }
    }
}
