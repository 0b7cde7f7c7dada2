//! Messages that wait for a phone whose app was installed anew.

use zeroize::Zeroizing;

use super::inbox::Text;
use super::*;
use crate::vault::SEAL_OVERHEAD;

impl Texts {
    /// What waits for the older instance of a phone waits for the newer one from now on, sealed anew; what is there already,
    /// or finds no room, is wiped.
    pub(crate) fn pass_on(
        &mut self,
        older: InstanceId,
        heir: InstanceId,
        device: Option<&Device>,
        desk: &mut Desk<'_>,
        now: Instant,
    ) {
        if self.waiting(older) == 0 {
            return;
        }
        self.stop_delivery(older);
        self.expire(older, desk, now);
        let waiting = self.inboxes.get_mut(&older).map(|inbox| std::mem::take(&mut inbox.waiting)).unwrap_or_default();
        for text in waiting {
            self.pass_on_one(text, older, heir, desk);
        }
        self.reschedule_inbox(older);
        self.tidy(older);
        self.reschedule_inbox(heir);
        match device {
            Some(device) => self.deliver(heir, device, desk, now),
            None => self.wake(heir),
        }
        self.tidy(heir);
    }

    fn pass_on_one(&mut self, text: Text, older: InstanceId, heir: InstanceId, desk: &mut Desk<'_>) {
        let Text { id, sealed, until, name, quiet } = text;
        let inbox = self.inboxes.entry(heir).or_default();
        let known = inbox.legs.contains(&id) || inbox.waiting.iter().any(|text| text.id == id);
        let is_welcome = !known && inbox.held() < per_instance(desk.policy);
        let opened = is_welcome.then(|| {
            desk.vault.lend_sealed(&sealed, older.as_bytes(), |plain| {
                let mut copy = Zeroizing::new(Vec::with_capacity(plain.len() + SEAL_OVERHEAD));
                copy.extend_from_slice(plain);
                copy
            })
        });
        // The new one first: with the last sealed text the key is forgotten.
        let fresh = opened.flatten().and_then(|plain| desk.vault.seal(plain, heir.as_bytes()));
        desk.vault.discard(sealed);
        let Some(sealed) = fresh else {
            self.held -= 1;
            return desk.tally.text(TextOutcome::Erased);
        };
        let after = inbox.waiting.iter().rposition(|text| text.id < id).map_or(0, |place| place + 1);
        // The first that waits may be on its way.
        let place = after.max(usize::from(inbox.delivery.is_some()));
        inbox.waiting.insert(place, Text { id, sealed, until, name, quiet });
    }
}
