//! Wakes: which push goes to which token, for how long it is worth anything, how many, and what a provider's answer means.
//!
//! At most one call wake is outstanding for a call, and one that was not taken is sent again while the call is held, which
//! `calls` sees to; this room keeps the budgets of an instance, picks
//! the target, reads the outcome, knows when a device is to be told that its lease ends (`expiry`), and keeps self-tests
//! (`self_test`). It does not build payloads: that is the shell's `push`.

mod budget;
mod expiry;
mod missed;
mod self_test;
mod suspects;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use ahash::HashMap;
use uuid::Uuid;

use super::account::TenantId;
use super::audit::WakeCounts;
use super::ids::{CallUuid, InstanceId, WakeId};
use super::input::{PushPurpose, PushTarget};
use super::instance::Instance;
use super::limits::Limits;
use super::output::{PushJob, PushOutcome, TestView, ToldCaller, Unsent, WakeDetail, WakeKind};
use super::policy::Provider;
use super::push_token::PushToken;
use crate::clock::{Instant, Now, WallTime};
use budget::Ledger;
use expiry::Expiry;
use missed::Sums;
use self_test::SelfTests;
use suspects::{AppKey, Suspects};

pub(crate) use expiry::Notice;
pub(crate) use missed::Missed;
pub(crate) use self_test::TEST_LIFE;

/// No provider is tried for longer, however long the wake is worth something: until then its outcome is waited for.
const TRIED_MAX: Duration = Duration::from_secs(120);
/// What ends a phone's ringing is worth nothing once the phone has given up by itself.
const CALL_ENDED_LIFE: Duration = Duration::from_secs(120);
/// News for the user keep for a day, unless whoever asks for the wake knows better.
const NEWS_LIFE: Duration = Duration::from_secs(24 * 3600);
/// That calls no longer come has to reach a phone that was off over a long weekend.
const REPROVISION_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

/// What a wake is about.
pub(crate) struct Reason {
    pub(crate) kind: WakeKind,
    pub(crate) call: Option<CallUuid>,
    pub(crate) caller: Option<ToldCaller>,
    /// Until when it is worth something: for a call, until when it rings. `None`: as long as its kind is by itself.
    pub(crate) until: Option<Instant>,
    /// What this kind tells besides.
    pub(crate) detail: WakeDetail,
    /// It was sent before, and not taken: the same wake, which costs nothing more.
    pub(crate) again: bool,
}

impl Reason {
    /// A wake that is not about a call.
    pub(crate) fn plain(kind: WakeKind, detail: WakeDetail) -> Self {
        Self { kind, call: None, caller: None, until: None, detail, again: false }
    }
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
    pub(crate) sent: Now,
    purpose: PushPurpose,
    app: AppKey,
    token: PushToken,
}

impl Verdict {
    /// Whether it speaks of the token that one of these targets has now, for the same purpose and app.
    pub(crate) fn is_about(&self, targets: &[PushTarget]) -> bool {
        targets.iter().any(|target| {
            (target.purpose, target.provider) == (self.purpose, self.provider)
                && (&target.app, &target.token) == (&self.app.app, &self.token)
        })
    }
}

struct Pending {
    instance: InstanceId,
    kind: WakeKind,
    purpose: PushPurpose,
    app: AppKey,
    token: PushToken,
    sent: Now,
}

/// The room.
#[derive(Default)]
pub(crate) struct Wakes {
    next: u64,
    pending: HashMap<WakeId, Pending>,
    /// What each instance has spent, and what waits for its device. An instance that was never woken has none.
    ledgers: HashMap<InstanceId, Ledger>,
    expiry: Expiry,
    missed: Sums,
    tests: SelfTests,
    suspects: Suspects,
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
        let whom = whom.into();
        let target = target_of(whom.push, reason.kind).ok_or(Unsent::NoTarget)?;
        if !reason.again {
            let ledger = self.ledgers.entry(whom.id).or_default();
            ledger.spend(reason.kind, limits, now.boot)?;
            ledger.count(reason.kind);
        }
        let life = life(&reason, now.boot);
        self.next += 1;
        let wake = WakeId(self.next);
        self.jobs.push_back(PushJob {
            wake,
            tenant: whom.tenant.clone(),
            provider: target.provider,
            app: target.app.clone(),
            token: target.token.clone(),
            purpose: target.purpose,
            kind: reason.kind,
            call: reason.call,
            instance: whom.id,
            expires_at: now.wall + life,
            deadline: now.boot + life.min(TRIED_MAX),
            attach: attach.to_owned(),
            caller: reason.caller,
            detail: reason.detail,
        });
        let app = AppKey { tenant: whom.tenant.clone(), provider: target.provider, app: target.app.clone() };
        let (kind, purpose) = (reason.kind, target.purpose);
        let token = target.token.clone();
        self.pending.insert(wake, Pending { instance: whom.id, kind, purpose, app, token, sent: now });
        Ok(wake)
    }

    /// The provider's answer.
    pub(crate) fn handle_outcome(&mut self, wake: WakeId, outcome: PushOutcome, now: Now) -> Option<Verdict> {
        let Pending { instance, kind, purpose, app, token, sent } = self.pending.remove(&wake)?;
        if outcome == PushOutcome::Accepted {
            self.suspects.handle_accepted(instance, purpose, &app, now.boot);
        } else if kind == WakeKind::Message
            && let Some(ledger) = self.ledgers.get_mut(&instance)
        {
            // It woke nobody, so the next message has to.
            ledger.message_done();
        }
        if kind == WakeKind::Test {
            self.tests.handle_outcome(instance, wake, &outcome, now);
        }
        Some(Verdict { instance, kind, provider: app.provider, outcome, sent, purpose, app, token })
    }

    /// Whether a token that was refused as not valid is to be taken for dead; until then it may be the operator's
    /// configuration that is wrong. `known_since`: when the device gave us the token.
    pub(crate) fn is_dead_after(&mut self, refused: &Verdict, known_since: WallTime, now: Instant) -> bool {
        self.suspects.handle_rejected(refused.instance, refused.purpose, &refused.app, known_since, now)
    }

    /// The device attached: whatever waited for it has been told.
    pub(crate) fn handle_attached(&mut self, instance: InstanceId) {
        if let Some(ledger) = self.ledgers.get_mut(&instance) {
            ledger.message_done();
        }
    }

    /// A lease of this length begins, or begins anew: from now on the device is told before `ends`.
    pub(crate) fn watch_lease(&mut self, instance: InstanceId, lease: Duration, ends: Now, now: Now) {
        self.expiry.watch(instance, lease, ends, now);
    }

    /// The device need not be told that its lease ends: its app is in the foreground and keeps the account itself.
    pub(crate) fn rest_lease(&mut self, instance: InstanceId) {
        self.expiry.forget(instance);
    }

    /// A device that is to be told now that its lease ends, by either clock.
    pub(crate) fn pop_notice(&mut self, now: Now) -> Option<Notice> {
        self.expiry.pop(now)
    }

    /// A call was missed. Given back: it is to be told at once, and not summed up with those that follow.
    pub(crate) fn miss(
        &mut self,
        instance: InstanceId,
        missed: Missed,
        limits: &Limits,
        now: Instant,
    ) -> Option<Missed> {
        let ledger = self.ledgers.entry(instance).or_default();
        if !self.missed.has(instance) && ledger.tells_missed_at_once(limits, now) {
            return Some(missed);
        }
        let allowed = ledger.missed_allowed(limits, now);
        self.missed.add(instance, missed, allowed, now);
        None
    }

    /// Missed calls that are to be told now, summed up.
    pub(crate) fn pop_missed(&mut self, now: Instant) -> Option<(InstanceId, Missed)> {
        self.missed.pop(now)
    }

    /// When the instance may begin another self-test, if not now.
    pub(crate) fn test_wait(&self, instance: InstanceId, now: Instant) -> Option<Duration> {
        self.tests.wait(instance, now)
    }

    /// A self-test's wake was sent.
    pub(crate) fn begin_test(&mut self, instance: InstanceId, test: Uuid, wake: WakeId, now: Now) -> TestView {
        self.tests.begin(instance, test, wake, now)
    }

    /// The app tells that a self-test's wake arrived. `None`: no such test, or forgotten.
    pub(crate) fn test_arrived(&mut self, instance: InstanceId, test: Uuid, now: Now) -> Option<TestView> {
        self.tests.handle_arrived(instance, test, now)
    }

    /// A self-test as it stands. `None`: no such test, or forgotten.
    pub(crate) fn test(&self, instance: InstanceId, test: Uuid) -> Option<TestView> {
        self.tests.view(instance, test)
    }

    /// The self-test of an instance that is remembered.
    pub(crate) fn last_test(&self, instance: InstanceId) -> Option<TestView> {
        self.tests.last(instance)
    }

    /// Pushes to an instance's device whose outcome is awaited.
    pub(crate) fn under_way(&self, instance: InstanceId) -> usize {
        self.pending.values().filter(|pending| pending.instance == instance).count()
    }

    /// Forgets self-tests that are over.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.tests.handle_timeout(now);
    }

    /// When [`Self::handle_timeout`], [`Self::pop_notice`] or [`Self::pop_missed`] has something to do.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        [self.tests.poll_timeout(), self.expiry.poll_timeout(), self.missed.poll_timeout()].into_iter().flatten().min()
    }

    /// The wakes that were sent to an instance so far.
    pub(crate) fn counts(&self, instance: InstanceId) -> WakeCounts {
        self.ledgers.get(&instance).map(|ledger| ledger.sent().clone()).unwrap_or_default()
    }

    /// The instance is gone.
    pub(crate) fn forget(&mut self, instance: InstanceId) {
        self.ledgers.remove(&instance);
        self.expiry.forget(instance);
        self.missed.forget(instance);
        self.tests.forget(instance);
        self.suspects.forget(instance);
    }

    /// Whether no push waits for its outcome.
    pub(crate) fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    /// How full each table is.
    pub(crate) fn tables(&self, out: &mut Vec<(&'static str, usize)>) {
        out.extend([
            ("wakes.pending", self.pending.len()),
            ("wakes.budgets", self.ledgers.len()),
            ("wakes.notices", self.expiry.len()),
            ("wakes.missed", self.missed.len()),
            ("wakes.tests", self.tests.len()),
            ("wakes.suspects", self.suspects.len()),
        ]);
    }

    pub(crate) fn poll_job(&mut self) -> Option<PushJob> {
        self.jobs.pop_front()
    }
}

/// A call goes to the call target. Everything else goes to the other one; a VoIP token must never carry it (the system
/// kills an app that shows no call for a VoIP push), but other providers have one token for both.
pub(crate) fn target_of(targets: &[PushTarget], kind: WakeKind) -> Option<&PushTarget> {
    let of = |purpose| targets.iter().find(|target| target.purpose == purpose);
    match kind {
        // A phone that registers through us may have an alert token only; an instance always has one for calls.
        WakeKind::Call => of(PushPurpose::Call).or_else(|| of(PushPurpose::Other)),
        _ => {
            of(PushPurpose::Other).or_else(|| of(PushPurpose::Call).filter(|target| target.provider != Provider::Apns))
        }
    }
}

/// How long a wake is worth something.
fn life(reason: &Reason, now: Instant) -> Duration {
    if let Some(until) = reason.until {
        return until.saturating_since(now);
    }
    match reason.kind {
        WakeKind::Call | WakeKind::CallEnded => CALL_ENDED_LIFE,
        WakeKind::MissedCall | WakeKind::Message | WakeKind::Voicemail | WakeKind::Expiring => NEWS_LIFE,
        WakeKind::Reprovision => REPROVISION_LIFE,
        WakeKind::Test | WakeKind::Refresh | WakeKind::Proof => TEST_LIFE,
    }
}
