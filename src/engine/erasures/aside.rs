//! Wipes of instances that stay, as their apps are in the foreground: one record each, and an answer that can be asked for
//! again.

use std::time::Duration;

use super::{COME_AGAIN, Erasures, Event, Subject, WAITING_MAX};
use crate::clock::Now;
use crate::engine::account::TenantId;
use crate::engine::audit::{Cause, Unregister, WakeCounts};
use crate::engine::ids::{InstanceId, RecordId, ReplyTo};
use crate::engine::input::Recorded;
use crate::engine::output::{Answer, ForegroundView, KeptContact, Refusal};
use crate::engine::register::Desk;
use crate::vault::CredentialId;

/// The credentials of an instance that stays: its app is in the foreground.
pub(crate) struct Wiped {
    pub(crate) instance: InstanceId,
    pub(crate) tenant: TenantId,
    pub(crate) salt: [u8; 32],
    pub(crate) wakes: WakeCounts,
    pub(crate) unregister: Unregister,
    pub(crate) kept: Option<KeptContact>,
}

/// What is remembered of such a wipe, for an app that asks again.
pub(super) struct Aside {
    /// Its own record: that of an earlier wipe may be late.
    record: RecordId,
    kept: Option<KeptContact>,
    answer: Option<ForegroundView>,
    waiting: Vec<ReplyTo>,
}

impl Erasures {
    /// Wipes the credentials of an instance that stays, and answers with the receipt when it is there.
    pub(crate) fn wipe_for_foreground(
        &mut self,
        wiped: Wiped,
        credential: CredentialId,
        reply: ReplyTo,
        desk: &mut Desk<'_>,
        now: Now,
    ) {
        let Wiped { instance, tenant, salt, wakes, unregister, kept } = wiped;
        let proof = desk.vault.wipe(credential);
        desk.tally.erasure(Cause::Foreground, Duration::ZERO);
        self.records += 1;
        let record = RecordId(self.records);
        self.asides.insert(instance, Aside { record, kept, answer: None, waiting: vec![reply] });
        self.asides_by_record.insert(record, instance);
        let job = Subject { instance, tenant, salt, wakes }.record(proof, Cause::Foreground, unregister, record, now);
        self.events.push_back(Event::Record(Box::new(job)));
    }

    /// The app asks again: the same answer, now or when it is there. `None`: nothing of it is remembered.
    pub(crate) fn foreground_again(&mut self, id: InstanceId, reply: ReplyTo) -> Option<()> {
        let aside = self.asides.get_mut(&id)?;
        let answer = match &aside.answer {
            Some(view) => Answer::Foreground(Box::new(view.clone())),
            None if aside.waiting.len() < WAITING_MAX => {
                aside.waiting.push(reply);
                return Some(());
            }
            None => Answer::Refused(Refusal::RateLimited { after: COME_AGAIN }),
        };
        self.events.push_back(Event::Reply(reply, Box::new(answer)));
        Some(())
    }

    /// The app handed over again, or its instance is gone: the answer is of no use any more. Who waits for it is told that.
    pub(crate) fn forget_foreground(&mut self, id: InstanceId) {
        let Some(aside) = self.asides.remove(&id) else { return };
        for reply in aside.waiting {
            let refusal = Refusal::RateLimited { after: COME_AGAIN };
            self.events.push_back(Event::Reply(reply, Box::new(Answer::Refused(refusal))));
        }
    }

    pub(super) fn handle_aside_recorded(&mut self, id: InstanceId, record: RecordId, recorded: Recorded) {
        let Some(aside) = self.asides.get_mut(&id).filter(|aside| aside.record == record) else { return };
        let Recorded { receipt, logged } = recorded;
        let view = ForegroundView { receipt, logged, kept: aside.kept.take() };
        for reply in std::mem::take(&mut aside.waiting) {
            self.events.push_back(Event::Reply(reply, Box::new(Answer::Foreground(Box::new(view.clone())))));
        }
        aside.answer = Some(view);
    }
}
