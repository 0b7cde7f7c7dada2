//! Keeping a message for a device that sleeps, until it is told or its time is over.

use zeroize::Zeroizing;

use super::inbox::Text;
use super::*;
use crate::sip::instant::write_kept;
use crate::vault::SEAL_OVERHEAD;

impl Texts {
    /// Seals a message for one recipient, and asks for a wake if one is due. A note that somebody types is dropped
    /// instead: nobody wants it later.
    pub(super) fn keep(&mut self, id: TextId, instance: InstanceId, desk: &mut Desk<'_>, now: Instant) {
        let Some(transit) = self.transits.get_mut(&id) else { return };
        let Some(origin) = &transit.origin else { return };
        if content(&origin.request) == Content::Composing {
            transit.kept = true;
            desk.tally.text(TextOutcome::Dropped);
            return self.drop_leg(id, instance);
        }
        if transit.until <= now {
            desk.tally.text(TextOutcome::Expired);
            return self.drop_leg(id, instance);
        }
        let mut plain = Zeroizing::new(Vec::with_capacity(origin.request.bytes().len() + 128 + SEAL_OVERHEAD));
        write_kept(&origin.request, transit.arrived, &mut plain);
        let Some(sealed) = desk.vault.seal(plain, instance.as_bytes()) else { return self.drop_leg(id, instance) };
        transit.kept = true;
        let text =
            Text { id, sealed, until: transit.until, name: transit.name.clone(), quiet: is_quiet(&origin.request) };
        let inbox = self.inboxes.entry(instance).or_default();
        match transit.legs.get_mut(&instance) {
            // It keeps the place it had.
            Some(leg) => {
                leg.kept = true;
                inbox.open -= 1;
            }
            None => self.held += 1,
        }
        inbox.waiting.push_back(text);
        desk.tally.text(TextOutcome::Kept);
        self.reschedule_inbox(instance);
        self.wake(instance);
    }

    /// Wipes a message that is kept for an instance.
    pub(super) fn discard(&mut self, id: TextId, instance: InstanceId, desk: &mut Desk<'_>) {
        let Some(text) = self.inboxes.get_mut(&instance).and_then(|inbox| inbox.take(id)) else { return };
        desk.vault.discard(text.sealed);
        self.held -= 1;
        self.reschedule_inbox(instance);
        self.tidy(instance);
    }

    /// Wipes what is worth nothing any more.
    pub(super) fn expire(&mut self, instance: InstanceId, desk: &mut Desk<'_>, now: Instant) {
        let Some(inbox) = self.inboxes.get_mut(&instance) else { return };
        while let Some(text) = inbox.take_expired(now) {
            desk.vault.discard(text.sealed);
            desk.tally.text(TextOutcome::Expired);
            self.held -= 1;
        }
    }

    pub(super) fn reschedule_inbox(&mut self, instance: InstanceId) {
        let due = self.inboxes.get(&instance).and_then(Inbox::poll_timeout);
        self.schedule.set(Deadline::Inbox(instance), due);
    }
}
