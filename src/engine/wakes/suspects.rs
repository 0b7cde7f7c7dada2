//! Tokens that a provider refuses as not valid without saying that they are dead.
//!
//! APNs says `BadDeviceToken` for a token that never existed, and just the same for every token of the other environment; FCM
//! says `INVALID_ARGUMENT` of a token it cannot read, and of much else. So it proves nothing against a token until it is sure that the app's environment and key are right: another push of the
//! same app has been taken meanwhile. Even then the provider has to say it more than once.

use ahash::HashMap;

use super::super::account::TenantId;
use super::super::ids::InstanceId;
use super::super::input::PushPurpose;
use super::super::policy::Provider;
use crate::clock::{Instant, WallTime};

/// A token refused so often, while others of its app are taken, is dead.
const REJECTIONS_MAX: u32 = 3;

/// An app as it is configured: what has one key and one environment.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct AppKey {
    pub(super) tenant: TenantId,
    pub(super) provider: Provider,
    pub(super) app: String,
}

struct Suspicion {
    /// The first refusal.
    since: Instant,
    rejections: u32,
    /// When the device gave us the token: another one starts with a clean sheet.
    known_since: WallTime,
}

/// The suspects, and what speaks for the configuration.
#[derive(Default)]
pub(super) struct Suspects {
    tokens: HashMap<(InstanceId, PushPurpose), Suspicion>,
    /// When a push of an app was last taken. Targets name configured apps only, so their number bounds it.
    taken: HashMap<AppKey, Instant>,
}

impl Suspects {
    pub(super) fn handle_accepted(&mut self, instance: InstanceId, purpose: PushPurpose, app: &AppKey, now: Instant) {
        self.tokens.remove(&(instance, purpose));
        match self.taken.get_mut(app) {
            Some(at) => *at = now,
            None => drop(self.taken.insert(app.clone(), now)),
        }
    }

    /// Counts a refusal and tells whether the token is dead.
    pub(super) fn handle_rejected(
        &mut self,
        instance: InstanceId,
        purpose: PushPurpose,
        app: &AppKey,
        known_since: WallTime,
        now: Instant,
    ) -> bool {
        let fresh = || Suspicion { since: now, rejections: 0, known_since };
        let suspicion = self.tokens.entry((instance, purpose)).or_insert_with(fresh);
        if suspicion.known_since != known_since {
            *suspicion = fresh();
        }
        suspicion.rejections += 1;
        let app_works = self.taken.get(app).is_some_and(|at| *at > suspicion.since);
        suspicion.rejections >= REJECTIONS_MAX && app_works
    }

    pub(super) fn forget(&mut self, instance: InstanceId) {
        for purpose in [PushPurpose::Call, PushPurpose::Other] {
            self.tokens.remove(&(instance, purpose));
        }
    }

    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }
}
