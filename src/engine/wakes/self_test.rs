//! Self-tests: an app asks for a wake and tells when it arrived. At most one for each instance is remembered.

use std::time::Duration;

use ahash::HashMap;
use uuid::Uuid;

use super::super::ids::{InstanceId, WakeId};
use super::super::output::{PushOutcome, TestView};
use super::super::schedule::Schedule;
use crate::clock::{Instant, Now};

/// A self-test's wake is worth something, and the self-test is remembered, for so long.
pub(crate) const TEST_LIFE: Duration = Duration::from_secs(600);
/// Between the beginnings of two self-tests of an instance.
const TEST_PAUSE: Duration = Duration::from_secs(30);

struct SelfTest {
    test: Uuid,
    wake: WakeId,
    requested: Now,
    accepted: Option<Now>,
    arrived: Option<Now>,
    failure: Option<&'static str>,
}

/// The self-tests that are remembered.
#[derive(Default)]
pub(super) struct SelfTests {
    by_instance: HashMap<InstanceId, SelfTest>,
    ends: Schedule<InstanceId>,
}

impl SelfTests {
    /// How long until the next self-test may begin, if it may not now.
    pub(super) fn wait(&self, instance: InstanceId, now: Instant) -> Option<Duration> {
        let former = self.by_instance.get(&instance)?;
        let wait = (former.requested.boot + TEST_PAUSE).saturating_since(now);
        (!wait.is_zero()).then_some(wait)
    }

    /// Takes the place of the former one.
    pub(super) fn begin(&mut self, instance: InstanceId, test: Uuid, wake: WakeId, now: Now) -> TestView {
        let begun = SelfTest { test, wake, requested: now, accepted: None, arrived: None, failure: None };
        let view = begun.view();
        self.by_instance.insert(instance, begun);
        self.ends.set(instance, Some(now.boot + TEST_LIFE));
        view
    }

    pub(super) fn handle_outcome(&mut self, instance: InstanceId, wake: WakeId, outcome: &PushOutcome, now: Now) {
        let Some(test) = self.by_instance.get_mut(&instance).filter(|test| test.wake == wake) else { return };
        if *outcome == PushOutcome::Accepted {
            test.accepted = Some(now);
        }
        test.failure = outcome.fault();
    }

    /// Takes note of the arrival; the first report counts.
    pub(super) fn handle_arrived(&mut self, instance: InstanceId, test: Uuid, now: Now) -> Option<TestView> {
        let known = self.by_instance.get_mut(&instance).filter(|known| known.test == test)?;
        known.arrived.get_or_insert(now);
        Some(known.view())
    }

    pub(super) fn view(&self, instance: InstanceId, test: Uuid) -> Option<TestView> {
        self.by_instance.get(&instance).filter(|known| known.test == test).map(SelfTest::view)
    }

    pub(super) fn last(&self, instance: InstanceId) -> Option<TestView> {
        self.by_instance.get(&instance).map(SelfTest::view)
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        while let Some(instance) = self.ends.pop_due(now) {
            self.by_instance.remove(&instance);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.ends.next()
    }

    pub(super) fn forget(&mut self, instance: InstanceId) {
        self.by_instance.remove(&instance);
        self.ends.remove(instance);
    }

    pub(super) fn len(&self) -> usize {
        self.by_instance.len()
    }
}

impl SelfTest {
    fn view(&self) -> TestView {
        let since = |moment: Now| moment.boot.saturating_since(self.requested.boot);
        TestView {
            test: self.test,
            requested_at: self.requested.wall,
            accepted: self.accepted.map(|at| (at.wall, since(at))),
            arrived: self.arrived.map(|at| (at.wall, since(at))),
            failure: self.failure,
        }
    }
}
