//! What an instance has spent on wakes. Each kind that peers can cause has a budget of its own, so that a flood of one
//! kind keeps no other from its device.

use std::time::Duration;

use super::super::audit::WakeCounts;
use super::super::limits::Limits;
use super::super::output::{Unsent, WakeKind};
use super::missed::AT_ONCE_MAX;
use crate::clock::Instant;

/// How many wakes of one kind other than calls an instance may send at once before `limits.other_wakes_per_hour` counts.
const OTHER_BURST: u32 = 5;
/// A message wake stands for all messages that come until its device attaches, but for so long at most: a push may get
/// lost, and then the next message has to try again.
const MESSAGES_TOLD_FOR: Duration = Duration::from_secs(10 * 60);

/// One instance's account of its wakes.
#[derive(Default)]
pub(super) struct Ledger {
    /// When the next wake of a kind would be due if they went out evenly.
    call: Instant,
    missed_call: Instant,
    message: Instant,
    voicemail: Instant,
    refresh: Instant,
    /// Until when a message wake stands for further messages.
    message_told: Option<Instant>,
    /// All that were sent.
    sent: WakeCounts,
}

impl Ledger {
    /// Takes one wake from the budget of its kind.
    pub(super) fn spend(&mut self, kind: WakeKind, limits: &Limits, now: Instant) -> Result<(), Unsent> {
        let minute = Duration::from_secs(60);
        let (due, interval, burst) = match kind {
            WakeKind::Call => (&mut self.call, minute / limits.wakes_per_minute.max(1), limits.wake_burst),
            // A peer causes it as well, by requests inside a call that it sends and gives up.
            WakeKind::Refresh => (&mut self.refresh, minute / limits.wakes_per_minute.max(1), limits.wake_burst),
            WakeKind::MissedCall => (&mut self.missed_call, other_interval(limits), OTHER_BURST),
            WakeKind::Message => {
                if self.message_told.is_some_and(|until| until > now) {
                    return Err(Unsent::Told);
                }
                (&mut self.message, other_interval(limits), OTHER_BURST)
            }
            WakeKind::Voicemail => (&mut self.voicemail, other_interval(limits), OTHER_BURST),
            // One for each call wake that was sent.
            WakeKind::CallEnded => return Ok(()),
            // Once for each step of a lease, at an erasure, and as often as a self-test or a challenge may begin.
            WakeKind::Expiring | WakeKind::Reprovision | WakeKind::Test | WakeKind::Proof => return Ok(()),
        };
        let next = (*due).max(now);
        if next.saturating_since(now) > interval * burst.max(1).saturating_sub(1) {
            return Err(Unsent::OverBudget);
        }
        *due = next + interval;
        if kind == WakeKind::Message {
            self.message_told = Some(now + MESSAGES_TOLD_FOR);
        }
        Ok(())
    }

    /// Whether a missed call has a push of its own: while the budget is fresh enough to leave room for sums.
    pub(super) fn tells_missed_at_once(&self, limits: &Limits, now: Instant) -> bool {
        self.missed_call.saturating_since(now) <= other_interval(limits) * (AT_ONCE_MAX - 1)
    }

    /// When the budget allows the next push for missed calls.
    pub(super) fn missed_allowed(&self, limits: &Limits, now: Instant) -> Instant {
        let ahead = other_interval(limits) * (OTHER_BURST - 1);
        now + self.missed_call.saturating_since(now).saturating_sub(ahead)
    }

    /// A wake was sent.
    pub(super) fn count(&mut self, kind: WakeKind) {
        self.sent.add(kind);
    }

    /// The wakes that were sent.
    pub(super) fn sent(&self) -> &WakeCounts {
        &self.sent
    }

    /// The next message is worth a wake of its own.
    pub(super) fn message_done(&mut self) {
        self.message_told = None;
    }
}

fn other_interval(limits: &Limits) -> Duration {
    Duration::from_secs(3600) / limits.other_wakes_per_hour.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(other_wakes_per_hour: u32) -> Limits {
        Limits { other_wakes_per_hour, ..Limits::default() }
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn each_kind_that_peers_cause_has_a_budget_of_its_own() {
        let (mut ledger, limits) = (Ledger::default(), limits(6));
        let floods = [WakeKind::MissedCall, WakeKind::Voicemail];
        for kind in floods {
            let sent = (0..100).filter(|_| ledger.spend(kind, &limits, at(0)).is_ok()).count();
            assert_eq!(sent, 5, "{kind:?}");
            assert_eq!(ledger.spend(kind, &limits, at(599)), Err(Unsent::OverBudget));
            assert_eq!(ledger.spend(kind, &limits, at(600)), Ok(()));
        }
        for kind in WakeKind::ALL.into_iter().filter(|kind| !floods.contains(kind)) {
            assert_eq!(ledger.spend(kind, &limits, at(600)), Ok(()), "{kind:?}");
        }
    }

    #[test]
    fn a_peer_that_comes_and_goes_inside_a_call_wakes_no_phone_without_end() {
        let (mut ledger, limits) = (Ledger::default(), limits(60));
        let sent = (0..1_000).filter(|_| ledger.spend(WakeKind::Refresh, &limits, at(0)).is_ok()).count();
        assert_eq!(sent, limits.wake_burst as usize);
        assert_eq!(ledger.spend(WakeKind::Call, &limits, at(0)), Ok(()), "a call has its own");
        assert_eq!(ledger.spend(WakeKind::Refresh, &limits, at(60)), Ok(()));
    }

    #[test]
    fn one_message_wake_stands_for_all_messages_until_its_device_attaches_or_it_seems_lost() {
        let (mut ledger, limits) = (Ledger::default(), limits(60));
        assert_eq!(ledger.spend(WakeKind::Message, &limits, at(0)), Ok(()));
        assert_eq!(ledger.spend(WakeKind::Message, &limits, at(599)), Err(Unsent::Told));
        assert_eq!(ledger.spend(WakeKind::Message, &limits, at(600)), Ok(()));
        ledger.message_done();
        assert_eq!(ledger.spend(WakeKind::Message, &limits, at(601)), Ok(()));
    }

    #[test]
    fn devices_that_attach_for_every_message_are_still_not_woken_without_end() {
        let (mut ledger, limits) = (Ledger::default(), limits(60));
        let mut sent = 0;
        for second in 0..3600 {
            sent += u32::from(ledger.spend(WakeKind::Message, &limits, at(second)).is_ok());
            ledger.message_done();
        }
        assert!((60..=65).contains(&sent), "{sent}");
    }
}
