//! Wakes: which push goes to which token, how many, and what a provider's answer means.
//!
//! At most one call wake is outstanding for a call, which `calls` sees to; this room keeps the budget of an instance, picks
//! the target and reads the outcome. It does not build payloads: that is the shell's `push`.

use std::collections::VecDeque;
use std::time::Duration;

use ahash::HashMap;

use super::account::TenantId;
use super::ids::{CallUuid, InstanceId, WakeId};
use super::input::{PushPurpose, PushTarget};
use super::instance::Instance;
use super::limits::Limits;
use super::output::{Caller, PushJob, PushOutcome, Unsent, WakeDetail, WakeKind};
use super::policy::Provider;
use crate::clock::{Instant, Now, WallTime};

/// A wake that is not about a ringing call is worth sending for so long.
const OTHER_WAKE_LIFE: Duration = Duration::from_secs(24 * 3600);

/// What a wake is about.
pub(crate) struct Reason {
    pub(crate) kind: WakeKind,
    pub(crate) call: Option<CallUuid>,
    pub(crate) caller: Option<Caller>,
    /// For a call: until when it rings. Others live for a day.
    pub(crate) until: Option<Instant>,
    /// What this kind tells besides.
    pub(crate) detail: WakeDetail,
}

/// Whom a wake is for.
#[derive(Clone, Copy)]
pub(crate) struct Addressee<'a> {
    pub(crate) id: InstanceId,
    pub(crate) tenant: &'a TenantId,
    pub(crate) push: &'a [PushTarget],
}

impl<'a> From<&'a Instance> for Addressee<'a> {
    fn from(instance: &'a Instance) -> Self {
        Self { id: instance.id, tenant: &instance.tenant, push: &instance.push }
    }
}

/// What an outcome means, for whom.
pub(crate) struct Verdict {
    pub(crate) instance: InstanceId,
    pub(crate) kind: WakeKind,
    pub(crate) provider: Provider,
    pub(crate) outcome: PushOutcome,
    /// For a dead token: whether it is still the one the device uses, as far as the outcome tells.
    pub(crate) sent_at: WallTime,
}

struct Pending {
    instance: InstanceId,
    kind: WakeKind,
    provider: Provider,
    sent_at: WallTime,
}

/// The room.
#[derive(Default)]
pub(crate) struct Wakes {
    next: u64,
    pending: HashMap<WakeId, Pending>,
    /// For each instance, when its next call wake would be due if they went out evenly.
    budgets: HashMap<InstanceId, Instant>,
    jobs: VecDeque<PushJob>,
}

impl Wakes {
    /// Sends a wake to the device of an instance, or of a registration that passes through us.
    pub(crate) fn send<'a>(
        &mut self,
        whom: impl Into<Addressee<'a>>,
        reason: Reason,
        attach: &str,
        limits: &Limits,
        now: Now,
    ) -> Result<WakeId, Unsent> {
        let instance = whom.into();
        let target = choose(instance.push, reason.kind).ok_or(Unsent::NoTarget)?;
        if reason.kind == WakeKind::Call && !self.spend(instance.id, limits, now.boot) {
            return Err(Unsent::OverBudget);
        }
        let life = reason.until.map_or(OTHER_WAKE_LIFE, |until| until.saturating_since(now.boot));
        self.next += 1;
        let wake = WakeId(self.next);
        self.jobs.push_back(PushJob {
            wake,
            tenant: instance.tenant.clone(),
            provider: target.provider,
            app: target.app.clone(),
            token: target.token.clone(),
            purpose: target.purpose,
            kind: reason.kind,
            call: reason.call,
            instance: instance.id,
            expires_at: now.wall + life,
            deadline: now.boot + life.min(Duration::from_secs(120)),
            attach: attach.to_owned(),
            caller: reason.caller,
            detail: reason.detail,
        });
        let pending =
            Pending { instance: instance.id, kind: reason.kind, provider: target.provider, sent_at: now.wall };
        self.pending.insert(wake, pending);
        Ok(wake)
    }

    /// The provider's answer.
    pub(crate) fn handle_outcome(&mut self, wake: WakeId, outcome: PushOutcome) -> Option<Verdict> {
        let Pending { instance, kind, provider, sent_at } = self.pending.remove(&wake)?;
        Some(Verdict { instance, kind, provider, outcome, sent_at })
    }

    /// The instance is gone.
    pub(crate) fn forget(&mut self, instance: InstanceId) {
        self.budgets.remove(&instance);
    }

    /// Whether no push waits for its outcome.
    pub(crate) fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    /// How full each table is.
    pub(crate) fn tables(&self, out: &mut Vec<(&'static str, usize)>) {
        out.extend([("wakes.pending", self.pending.len()), ("wakes.budgets", self.budgets.len())]);
    }

    pub(crate) fn poll_job(&mut self) -> Option<PushJob> {
        self.jobs.pop_front()
    }

    fn spend(&mut self, instance: InstanceId, limits: &Limits, now: Instant) -> bool {
        let interval = Duration::from_secs(60) / limits.wakes_per_minute.max(1);
        let burst = interval * limits.wake_burst.max(1).saturating_sub(1);
        let due = self.budgets.get(&instance).copied().unwrap_or_default().max(now);
        if due.saturating_since(now) > burst {
            return false;
        }
        self.budgets.insert(instance, due + interval);
        true
    }
}

/// A call goes to the call target. Everything else goes to the other one; a VoIP token must never carry it (the system
/// kills an app that shows no call for a VoIP push), but other providers have one token for both.
fn choose(targets: &[PushTarget], kind: WakeKind) -> Option<&PushTarget> {
    let of = |purpose| targets.iter().find(|target| target.purpose == purpose);
    match kind {
        // A phone that registers through us may have an alert token only; an instance always has one for calls.
        WakeKind::Call => of(PushPurpose::Call).or_else(|| of(PushPurpose::Other)),
        _ => {
            of(PushPurpose::Other).or_else(|| of(PushPurpose::Call).filter(|target| target.provider != Provider::Apns))
        }
    }
}
