//! What becomes of an app's pushes, for the log and for `/readyz`.
//!
//! It is its own room because the failures of all providers are told alike, whichever client met them: a line for the
//! first of a kind, then one in a while with their count, so that a provider that is down for a night fills no disk. It
//! decides nothing about a push.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tracing::{info, warn};

use super::config::TimeSource;
use crate::clock::Instant;
use crate::engine::account::TenantId;
use crate::engine::output::PushOutcome;
use crate::engine::policy::Provider;

/// Events of one kind are told once in this span.
const TOLD_ONCE_IN: Duration = Duration::from_secs(10 * 60);
/// A failure that no push has followed for so long says nothing of the present.
const TROUBLE_LASTS: Duration = Duration::from_secs(3600);
/// An access token that ran out is no trouble: the next send has a fresh one. So many refusals in a row are.
const UNAUTHENTICATED_MAX: u32 = 2;

/// Which events of one kind are worth a line.
#[derive(Default)]
pub(crate) struct Throttle {
    told: Option<Instant>,
    untold: u64,
}

impl Throttle {
    /// One more event. Returns for how many a line stands that is written now, itself among them; `None`: none is due.
    pub(crate) fn admit(&mut self, now: Instant) -> Option<u64> {
        self.untold = self.untold.saturating_add(1);
        if self.told.is_some_and(|told| now.saturating_since(told) < TOLD_ONCE_IN) {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

/// The pushes of one app.
pub(crate) struct Health {
    tenant: TenantId,
    provider: Provider,
    app: String,
    time: TimeSource,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The last failure, unless a push was taken since.
    trouble: Option<(String, Instant)>,
    unauthenticated: u32,
    refused: Throttle,
    rejected: Throttle,
    failed: Throttle,
    busy: Throttle,
    unsent: Throttle,
    mended: Throttle,
}

impl Health {
    /// Nothing is known yet.
    pub(crate) fn new(tenant: TenantId, provider: Provider, app: String, time: TimeSource) -> Self {
        Self { tenant, provider, app, time, state: Mutex::default() }
    }

    /// What became of a push.
    pub(crate) fn note(&self, outcome: &PushOutcome) {
        let now = (self.time)().boot;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let unauthenticated = matches!(outcome, PushOutcome::Unauthenticated(_));
        state.unauthenticated = if unauthenticated { state.unauthenticated.saturating_add(1) } else { 0 };
        let why = match outcome {
            // A dead token is the word of a provider that serves us.
            PushOutcome::Accepted | PushOutcome::TokenDead { .. } => return self.mended(&mut state, now),
            // The next send has a fresh token of ours; only if that is refused too, something is wrong.
            PushOutcome::Unauthenticated(_) if state.unauthenticated < UNAUTHENTICATED_MAX => return,
            // One phone's token says nothing of the others, so it is a line and no trouble.
            PushOutcome::TokenRejected(why) => {
                let times = state.rejected.admit(now);
                return self.tell("the push provider refuses us", why, times);
            }
            PushOutcome::OurFault(why) | PushOutcome::Unauthenticated(why) => {
                let times = state.refused.admit(now);
                self.tell("the push provider refuses us", why, times);
                why.clone()
            }
            PushOutcome::Theirs(why) | PushOutcome::Unavailable { why, .. } => {
                let times = state.failed.admit(now);
                self.tell("pushes fail", why, times);
                why.clone()
            }
            PushOutcome::Later { .. } => {
                let why = "the provider asks to come later";
                let times = state.busy.admit(now);
                self.tell("pushes fail", why, times);
                why.to_owned()
            }
            PushOutcome::NotSent => {
                let why = "not sent: no time or no room was left";
                let times = state.unsent.admit(now);
                self.tell("pushes fail", why, times);
                why.to_owned()
            }
        };
        state.trouble = Some((why, now));
    }

    /// What the last push failed of, unless that was long ago.
    pub(crate) fn trouble(&self) -> Option<String> {
        let now = (self.time)().boot;
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (why, since) = state.trouble.as_ref()?;
        (now.saturating_since(*since) < TROUBLE_LASTS).then(|| why.clone())
    }

    fn mended(&self, state: &mut State, now: Instant) {
        if state.trouble.take().is_some() && state.mended.admit(now).is_some() {
            info!(provider = self.provider.as_str(), tenant = &*self.tenant, app = self.app, "pushes are taken again");
        }
    }

    fn tell(&self, message: &'static str, reason: &str, times: Option<u64>) {
        let Some(times) = times else { return };
        let (provider, tenant, app) = (self.provider.as_str(), &*self.tenant, &self.app);
        warn!(provider, tenant, app, reason, times, "{message}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant::from_nanos(1);

    #[test]
    fn the_first_of_a_kind_is_told_and_the_others_are_counted() {
        let mut throttle = Throttle::default();
        assert_eq!(throttle.admit(START), Some(1));
        for _ in 0..500 {
            assert_eq!(throttle.admit(START), None);
        }
        assert_eq!(throttle.admit(START + TOLD_ONCE_IN), Some(501));
        assert_eq!(throttle.admit(START + TOLD_ONCE_IN), None);
    }
}
