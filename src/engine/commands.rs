//! Commands of the API: which call each one is, and the calls about one instance. Handing over is in `hand_over`.

use super::audit::{Cause, LifeEvent};
use super::engine::Engine;
use super::erasures::life_record;
use super::ids::{BindingId, CallUuid, InstanceId, ReplyTo};
use super::input::{Command, Mode, TokenHash};
use super::instance::Instance;
use super::output::{Answer, AttachView, CallState, CallView, InstanceView, Output, Refusal, RegistrationView};
use crate::clock::{Instant, Now};

impl Engine {
    pub(super) fn handle_command(&mut self, command: Command, reply: ReplyTo, now: Now) {
        match command {
            Command::HandOver(hand_over) => self.hand_over(hand_over, reply, now),
            Command::Show(id, token) => self.show(id, &token, reply, now),
            Command::Rectify(id, token, change) => self.rectify(id, &token, *change, reply, now),
            Command::Foreground(id, token, parting) => self.come_forward(id, &token, parting, reply, now),
            Command::Refresh(id, token) => self.refresh(id, &token, reply, now),
            Command::Restrict(id, token) => self.restrict(id, &token, reply, now),
            Command::Resume(id, token) => self.resume(id, &token, reply, now),
            Command::Consent(id, token, consent) => self.consent_to_trace(id, &token, consent, reply, now),
            Command::ReadTrace(id, token) => self.read_trace(id, &token, reply, now),
            Command::WithdrawTrace(id, token) => self.withdraw_trace(id, &token, reply, now),
            Command::ReadTraceAsTenant(tenant, id) => self.read_trace_as_tenant(&tenant, id, reply, now),
            Command::Erase(id, token) => {
                if self.leases.admit(id, &token) {
                    self.erase(id, Cause::Deleted, Some(reply), now);
                } else if self.erasures.erase_again(id, &token, reply).is_none() {
                    self.reply(reply, Answer::Refused(Refusal::NotFound));
                }
            }
            Command::Data(id, token) => self.data(id, &token, reply, now),
            Command::Call(id, token, uuid) => {
                let Some(()) = self.check(id, &token, reply) else { return };
                let answer = match self.call_view(id, uuid) {
                    Some(view) => Answer::Call(view),
                    None => Answer::Refused(Refusal::CallOver),
                };
                self.reply(reply, answer);
            }
            Command::Decline(id, token, uuid, decline) => {
                let Some(()) = self.check(id, &token, reply) else { return };
                let (calls, mut desk) = self.for_calls();
                let declined = calls.decline(id, uuid, decline, &mut desk, now.boot);
                let answer = if declined {
                    self.settle(now);
                    let ended = CallView::new(CallState::Ended, Some("declined"));
                    Answer::Call(self.call_view(id, uuid).unwrap_or(ended))
                } else {
                    Answer::Refused(Refusal::CallOver)
                };
                self.reply(reply, answer);
            }
            Command::BeginTest(id, token) => self.begin_test(id, &token, reply, now),
            Command::Test(id, token, test) => self.show_test(id, &token, test, reply),
            Command::TestArrived(id, token, test) => self.test_arrived(id, &token, test, reply, now),
            Command::Prove(id, token, challenge) => self.prove(id, &token, challenge.as_deref(), reply, now),
            Command::Stories { call, most } => {
                let stories = self.stories.newest(call, most);
                self.reply(reply, Answer::Stories(stories));
            }
            Command::EraseAll { tenant, whom } => self.erase_by_order(&tenant, &whom, reply, now),
        }
    }

    fn show(&mut self, id: InstanceId, token: &TokenHash, reply: ReplyTo, now: Now) {
        let Some(()) = self.check(id, token, reply) else { return };
        self.reply_instance(id, reply, now);
    }

    fn refresh(&mut self, id: InstanceId, token: &TokenHash, reply: ReplyTo, now: Now) {
        let Some(()) = self.check(id, token, reply) else { return };
        let Some(()) = self.may_be_recorded(id, reply, now) else { return };
        self.leases.extend(id, now);
        self.watch_lease(id, now);
        if let Some(binding) = self.leases.get(id).map(|instance| instance.binding) {
            self.adjust_binding(binding, now);
            self.bindings.remind(binding, now.boot);
        }
        self.record(id, LifeEvent::LeasedOn, now);
        self.reply_instance(id, reply, now);
    }

    /// Whether the token is the instance's; else the refusal is on its way.
    pub(super) fn check(&mut self, id: InstanceId, token: &TokenHash, reply: ReplyTo) -> Option<()> {
        if self.leases.admit(id, token) {
            return Some(());
        }
        let refusal = self.erasures.refusal(id, token);
        self.reply(reply, Answer::Refused(refusal));
        None
    }

    /// Whether the instance may make a further call that is recorded; else the refusal is on its way.
    pub(super) fn may_be_recorded(&mut self, id: InstanceId, reply: ReplyTo, now: Now) -> Option<()> {
        self.leases.hear(id, now.boot);
        let taken = self.leases.take_allowance(id, now.boot);
        taken.map_err(|after| self.reply(reply, Answer::Refused(Refusal::RateLimited { after }))).ok()
    }

    pub(super) fn reply_instance(&mut self, id: InstanceId, reply: ReplyTo, now: Now) {
        if let Some(view) = self.instance_view(id, now) {
            self.reply(reply, Answer::Instance(Box::new(view)));
        }
    }

    /// A call with its story; `None`: there is none such.
    pub(super) fn call_view(&self, id: InstanceId, uuid: CallUuid) -> Option<CallView> {
        let story = self.stories.of(id, uuid);
        // A call that was turned away at once has a story, but no place among the calls.
        let turned_away = || story.map(|story| CallView::new(CallState::Ended, story.reason()));
        let mut view = self.calls.view(id, uuid).or_else(turned_away)?;
        view.story = story.cloned().map(Box::new);
        view.private_media_address = self.stories.private_media(id);
        Some(view)
    }

    pub(super) fn instance_view(&self, id: InstanceId, now: Now) -> Option<InstanceView> {
        let instance = self.leases.get(id)?;
        Some(InstanceView {
            instance: id,
            registration: self.registration_view(instance, now),
            lease_ends: instance.lease_ends_on(now),
            attach: self.attach_view(id),
            caller_in_push: self.caller_in_push(instance),
            push_proof: self.push_proof(id),
            attached: self.edge.device(id).is_some(),
            trunk_drops: instance.trunk_drops,
            private_media_address: self.stories.private_media(id),
        })
    }

    /// The registration as this member of its binding may know it.
    pub(super) fn registration_view(&self, instance: &Instance, now: Now) -> RegistrationView {
        let moving = self.hand_overs.move_view(instance.id);
        RegistrationView { moving, ..self.bindings.view(instance.binding, now.boot) }
    }

    pub(super) fn attach_view(&self, id: InstanceId) -> AttachView {
        AttachView {
            uri: self.policy.attach_uri(),
            alternatives: self.policy.attach_alternatives(),
            aor: format!("sip:{id}@{}", self.policy.domain),
            username: id.to_string(),
            realm: self.policy.domain.clone(),
        }
    }

    /// A binding is kept as long as the longest lease of those that share it, by the shortest expiry they ask for.
    pub(super) fn adjust_binding(&mut self, id: BindingId, now: Now) {
        let Some(expires) = self.leases.members(id).map(|member| member.account.register_expires).min() else { return };
        let ends = self.binding_ends(id).unwrap_or(now.boot);
        let takeover = self.takes_over(id);
        let (bindings, mut desk) = self.for_bindings();
        bindings.adjust(id, expires, ends, takeover, &mut desk, now.boot);
    }

    /// Whether any of those that share a binding wants it to take the place of other contacts.
    pub(super) fn takes_over(&self, id: BindingId) -> bool {
        self.leases.members(id).any(|member| member.preferences.mode == Mode::Takeover)
    }

    pub(super) fn binding_ends(&self, id: BindingId) -> Option<Instant> {
        self.leases.members(id).map(|member| member.lease_ends().boot).max()
    }

    pub(super) fn record(&mut self, id: InstanceId, event: LifeEvent, now: Now) {
        self.traces.decide(id, || format!("instance: {event:?}"));
        let Some(job) = self.leases.get(id).map(|instance: &Instance| life_record(instance, event, now)) else {
            return;
        };
        self.emit(Output::Record(Box::new(job)));
    }
}
