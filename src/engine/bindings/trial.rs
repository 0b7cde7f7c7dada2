//! Trials: other credentials for a binding we keep, tried on the same Contact and Call-ID beside it.
//!
//! They go where the binding is registered now, never to a place that came with them: an app key sits in a shipped app,
//! and whoever has it must not replace an instance through a registrar of his own.

use super::binding::{Phase, destination_of};
use super::{Bindings, Event, REFUSALS_AT_HAND_OVER, TRIAL_REST, Timer};
use crate::clock::Instant;
use crate::engine::ids::{BindingId, BranchId};
use crate::engine::permits::{Asker, Class, PermitOutcome, Used, Want};
use crate::engine::register::{Desk, End, Exchange, Identity, Step, Target, Unsigned};
use crate::vault::CredentialId;

/// How a trial of other credentials ended.
pub(crate) enum Tried {
    /// They registered and are in use; the former ones come back, with their user name.
    Accepted(CredentialId, String),
    /// They are wrong, in the registrar's words; they come back.
    Refused(CredentialId, String),
    /// They do not sign what the registrar asks for; they come back.
    Unsignable(CredentialId, Unsigned),
    /// The registrar refused for another reason, in its words; they come back.
    Failed(CredentialId, String),
    /// Nobody answered; they come back.
    Unreachable(CredentialId),
}

/// A trial under way; without an exchange it waits for its permit.
pub(super) struct Trial {
    pub(super) twin: Identity,
    pub(super) exchange: Option<Exchange>,
    /// Its permit came while the binding itself was asking; it wants another one afterwards.
    postponed: bool,
}

impl Bindings {
    /// Tries other credentials; `Event::Tried` follows, also when the binding goes.
    pub(crate) fn try_credential(&mut self, id: BindingId, credential: CredentialId, username: &str, now: Instant) {
        let binding = self.bindings.get_mut(&id).filter(|binding| binding.trial.is_none());
        if let Some(binding) = binding.filter(|binding| binding.dormant) {
            let mut twin = binding.identity.with_credential(credential, username);
            twin.begin_anew();
            // Other than in sleep, an un-REGISTER may be under way.
            self.cease(id);
            let Some(binding) = self.bindings.get_mut(&id) else { return };
            binding.trial = Some(Box::new(Trial { twin, exchange: None, postponed: false }));
            // It may have slept for days: the registrar may live elsewhere by now.
            return self.locate(id);
        }
        let binding = self.bindings.get_mut(&id).filter(|binding| binding.trial.is_none());
        let Some((binding, target)) =
            binding.and_then(|binding| binding.target.clone().map(|target| (binding, target)))
        else {
            self.events.push_back(Event::Tried(id, Tried::Unreachable(credential)));
            return;
        };
        let twin = binding.identity.with_credential(credential, username);
        binding.trial = Some(Box::new(Trial { twin, exchange: None, postponed: false }));
        self.want_trial(id, &target, now);
    }

    fn want_trial(&mut self, id: BindingId, target: &Target, now: Instant) {
        let want = Want::new(Class::Renewal, 0, now);
        self.events.push_back(Event::Want(destination_of(target), Asker::Trial(id), want));
    }

    pub(super) fn postpone_trial(&mut self, id: BindingId) {
        if let Some(trial) = self.bindings.get_mut(&id).and_then(|binding| binding.trial.as_mut()) {
            trial.postponed = true;
        }
    }

    /// The binding's own exchange is over: a trial that waited for that may go on.
    pub(super) fn resume_trial(&mut self, id: BindingId, now: Instant) {
        let Some(binding) = self.bindings.get_mut(&id) else { return };
        let (Some(target), Some(trial)) = (binding.target.clone(), &mut binding.trial) else { return };
        if std::mem::take(&mut trial.postponed) {
            self.want_trial(id, &target, now);
        }
    }

    /// Gives up a trial, if one is under way.
    pub(crate) fn end_trial(&mut self, id: BindingId, now: Instant) {
        let Some(binding) = self.bindings.get_mut(&id) else { return };
        let Some(trial) = binding.trial.take() else { return };
        binding.trial_rest = now + TRIAL_REST;
        if binding.dormant {
            self.cease(id);
        }
        self.part_later(id, now);
        self.drop_trial(id, *trial);
    }

    pub(super) fn start_trial(&mut self, id: BindingId, target: Target, desk: &mut Desk<'_>, now: Instant) {
        let Some(binding) = self.bindings.get_mut(&id) else { return };
        let mut terms = binding.terms(now);
        terms.refusals_max = REFUSALS_AT_HAND_OVER;
        let Some(trial) = &mut binding.trial else { return };
        if std::mem::take(&mut binding.farewell) {
            self.events.push_back(Event::Back(id));
        }
        trial.twin.catch_up(&binding.identity);
        let hop = target.hop.clone();
        let (exchange, request) = Exchange::start(&mut trial.twin, target, terms, desk, now);
        binding.identity.catch_up(&trial.twin);
        self.by_branch.insert(exchange.branch, id);
        self.schedule.set((id, Timer::Trial), exchange.poll_timeout());
        trial.exchange = Some(exchange);
        self.events.push_back(Event::Send(hop, request));
    }

    pub(super) fn advance_trial(
        &mut self,
        id: BindingId,
        branch: BranchId,
        step: Step,
        desk: &mut Desk<'_>,
        now: Instant,
    ) {
        let Some(binding) = self.bindings.get_mut(&id) else { return };
        let Some(Trial { exchange: Some(exchange), .. }) = binding.trial.as_deref() else { return };
        match step {
            Step::Wait => self.schedule.set((id, Timer::Trial), exchange.poll_timeout()),
            Step::Send(request) => {
                self.by_branch.remove(&branch);
                self.by_branch.insert(exchange.branch, id);
                self.schedule.set((id, Timer::Trial), exchange.poll_timeout());
                self.events.push_back(Event::Send(exchange.target.hop.clone(), request));
            }
            Step::Done(end) => self.finish_trial(id, end, desk, now),
        }
    }

    pub(super) fn finish_trial(&mut self, id: BindingId, end: End, desk: &mut Desk<'_>, now: Instant) {
        let Some(binding) = self.bindings.get_mut(&id) else { return };
        let Some(mut trial) = binding.trial.take() else { return };
        binding.trial_rest = now + TRIAL_REST;
        self.schedule.remove((id, Timer::Trial));
        let again = binding.dormant && matches!(end, End::Silent) && !binding.candidates.is_empty();
        if let Some(exchange) = &trial.exchange {
            self.by_branch.remove(&exchange.branch);
            let outcome =
                if matches!(end, End::Silent) { self.silence(id, exchange, now) } else { PermitOutcome::Answered };
            self.report_trial(&exchange.target, outcome, exchange.requests);
        }
        if again && let Some(binding) = self.bindings.get_mut(&id) {
            trial.exchange = None;
            binding.trial = Some(trial);
            return self.next_target(id, desk, now);
        }
        let Some(binding) = self.bindings.get_mut(&id) else { return };
        let tried = match end {
            End::Granted(grant) => {
                std::mem::swap(&mut binding.identity, &mut trial.twin);
                // What the former credentials have under way must not answer for the new ones.
                self.cease(id);
                self.granted(id, grant, desk, now);
                let (former, username) = trial.twin.into_credential();
                Tried::Accepted(former, username)
            }
            End::Refused { verdict } => Tried::Refused(trial.twin.credential, verdict),
            End::Unsignable(unsigned) => Tried::Unsignable(trial.twin.credential, unsigned),
            End::Failed { verdict, .. } => Tried::Failed(trial.twin.credential, verdict),
            End::Silent => Tried::Unreachable(trial.twin.credential),
        };
        self.part_later(id, now);
        self.events.push_back(Event::Tried(id, tried));
    }

    pub(super) fn drop_trial(&mut self, id: BindingId, trial: Trial) {
        self.schedule.remove((id, Timer::Trial));
        if let Some(exchange) = &trial.exchange {
            self.by_branch.remove(&exchange.branch);
            self.report_trial(&exchange.target, PermitOutcome::Unused, exchange.requests);
        } else if let Some(target) = self.bindings.get(&id).and_then(|binding| binding.target.as_ref()) {
            self.events.push_back(Event::Withdraw(destination_of(target), Asker::Trial(id)));
        }
        self.events.push_back(Event::Tried(id, Tried::Unreachable(trial.twin.credential)));
    }

    fn report_trial(&mut self, target: &Target, outcome: PermitOutcome, requests: u8) {
        let used = Used { class: Class::Renewal, outcome, requests };
        self.events.push_back(Event::Report(destination_of(target), used));
    }

    /// Ends whatever the binding is doing, and gives back what it holds for it.
    pub(super) fn cease(&mut self, id: BindingId) {
        let Some(binding) = self.bindings.get_mut(&id) else { return };
        let (restricted, class) = (binding.restricted, binding.permit_class);
        self.schedule.remove((id, Timer::Pacing));
        match std::mem::replace(&mut binding.phase, Phase::Resting) {
            Phase::Exchanging(exchange) => {
                self.by_branch.remove(&exchange.branch);
                self.schedule.remove((id, Timer::Exchange));
                // The un-REGISTER of a restriction needed no permit.
                if !restricted {
                    let used = Used { class, outcome: PermitOutcome::Unused, requests: exchange.requests };
                    self.events.push_back(Event::Report(destination_of(&exchange.target), used));
                }
            }
            Phase::Waiting(destination) => self.events.push_back(Event::Withdraw(destination, Asker::Binding(id))),
            Phase::Locating(query) => {
                self.by_query.remove(&query);
            }
            Phase::Resting => {}
        }
    }
}
