//! No wake without a cause: what must be so at the moment when a push leaves.

use reveille::engine::output::{PushJob, WakeDetail, WakeKind};

use super::*;

impl World {
    /// The cause of a push, as it is now.
    pub(super) fn judge_cause(&self, shard: ShardId, job: &PushJob) {
        let held = |table: &str| self.engines[usize::from(shard.0)].tables().iter().any(|it| it.0 == table && it.1 > 0);
        let call = || job.call.expect("a call");
        // A reinstalled app has the calls of its older instance under the names they had there.
        let older = self.notes.iter().filter_map(|note| if let Note::HandedOver(id) = note { Some(*id) } else { None });
        let named = || [job.instance].into_iter().chain(older.clone()).collect::<Vec<_>>();
        match job.kind {
            WakeKind::Call => {
                assert!(self.ringing.waits(&named(), call(), self.now.boot), "a call wake, and no INVITE waits")
            }
            WakeKind::CallEnded => {
                assert!(self.critic.woke(job.instance, &call().to_string()), "who was not woken hears of the end");
            }
            WakeKind::MissedCall => assert!(self.ringing.knows(&named(), call()), "a missed call that never came"),
            WakeKind::Message => assert!(held("texts.held"), "a message wake, and no text is kept"),
            WakeKind::Voicemail => assert!(held("mailboxes"), "a voicemail wake, and no mailbox is known"),
            WakeKind::Test => assert!(held("wakes.tests"), "a test wake that nobody asked for"),
            // Its instance is being erased, or was just now; the records tell why.
            WakeKind::Reprovision => assert!(!self.records.is_empty(), "a reprovision wake, and nothing is on record"),
            WakeKind::Proof => assert!(held("proofs"), "a challenge, and no proof is wanted"),
            WakeKind::Refresh => assert!(held("pass.bindings"), "a refresh wake, and no phone registers through us"),
            WakeKind::Expiring => self.judge_expiring(job),
        }
    }

    /// The app is told a day before its lease ends, its user half a day before.
    fn judge_expiring(&self, job: &PushJob) {
        let WakeDetail::Expiring { lease_ends, visible } = job.detail else {
            panic!("an expiring wake without its lease")
        };
        let near = if visible { hours(12) } else { hours(24) };
        assert!(lease_ends > self.now.wall, "a lease that is over is not about to end");
        assert!(lease_ends <= self.now.wall + near + minutes(1), "a lease with more than {near:?} ahead");
    }
}
