//! NOTIFY: what is news, and how the app hears of it.
//!
//! An attached device gets the NOTIFY; a sleeping one a wake, and so does one that does not take the NOTIFY.

use super::asking::subscription_of;
use super::*;
use crate::engine::device::Device;
use crate::sip::mailbox::{Request, Termination, remaining, summary, termination, write_notify};
use crate::sip::proxy::OwnVia;
use crate::sip::transaction::{NonInviteClient, Timeout, Verdict};
use crate::sip::{Message, StatusCode};

/// A NOTIFY on its way to an attached device.
pub(super) struct Handing {
    pub(super) branch: BranchId,
    client: NonInviteClient,
    hop: Hop,
    patience: Instant,
}

/// Who is to be told, and where it is.
pub(crate) struct Audience<'a> {
    pub(crate) instance: InstanceId,
    pub(crate) aor: &'a str,
    /// Where its device is, if it is attached.
    pub(crate) device: Option<Device>,
}

impl Mailboxes {
    /// A NOTIFY of a subscription: the answer it gets.
    pub(crate) fn handle_notify(
        &mut self,
        audience: Audience<'_>,
        notify: &Message,
        desk: &mut Desk<'_>,
        now: Instant,
    ) -> StatusCode {
        let instance = audience.instance;
        let Some(subscription) = subscription_of(&mut self.boxes, instance).filter(|it| it.dialog.is_of(notify)) else {
            // The last one, of a subscription that we have just ended, is no news.
            let last = self.leaving.get(&instance).is_some_and(|leaving| leaving.dialog.is_of(notify));
            return if last { StatusCode::OK } else { StatusCode::CALL_DOES_NOT_EXIST };
        };
        if !subscription.dialog.note(notify) {
            return StatusCode::OK;
        }
        match termination(notify) {
            Some(end) => self.handle_end(instance, end, desk, now),
            None => self.shorten(instance, notify, now),
        }
        self.handle_unsolicited(audience, notify, desk, now);
        StatusCode::OK
    }

    /// News of a mailbox, subscribed to or not.
    pub(crate) fn handle_unsolicited(
        &mut self,
        audience: Audience<'_>,
        notify: &Message,
        desk: &mut Desk<'_>,
        now: Instant,
    ) {
        let Some(latest) = summary(notify.body()) else { return };
        let instance = audience.instance;
        let mailbox = self.boxes.entry(instance).or_default();
        mailbox.latest = latest;
        match audience.device {
            Some(device) if is_news(mailbox.told, latest) => {
                self.hand(instance, &device, audience.aor, notify.body(), desk, now);
            }
            _ => self.wake_about(instance, now),
        }
        self.tidy(instance);
    }

    /// Wakes the device for what is true, if that is news and no wake was sent just now.
    pub(super) fn wake_about(&mut self, instance: InstanceId, now: Instant) {
        let Some(mailbox) = self.boxes.get_mut(&instance) else { return };
        if mailbox.paused_until.is_some() {
            return;
        }
        let latest = mailbox.latest;
        let news = is_news(mailbox.told, latest);
        mailbox.told = latest;
        if news {
            mailbox.paused_until = Some(now + WAKE_PAUSE);
            self.schedule.set((instance, Timer::Pause), mailbox.paused_until);
            self.events.push_back(Event::Wake(instance, latest));
        }
    }

    /// RFC 6665 §4.1.3: the notifier has ended it, and says what that means.
    fn handle_end(&mut self, instance: InstanceId, end: Termination, desk: &mut Desk<'_>, now: Instant) {
        let Some(subscription) = subscription_of(&mut self.boxes, instance) else { return };
        let former = std::mem::replace(&mut subscription.phase, Phase::Resting);
        let lived = subscription.since.is_some_and(|since| now.saturating_since(since) >= SHORT_LIVED);
        subscription.start_over(desk.random);
        self.drop_phase(instance, &former);
        match end {
            Termination::Never => self.stop(instance),
            Termination::AtOnce if lived => {
                let pause = desk.random.jitter(AGAIN_PAUSE, 0, 100);
                self.schedule.set((instance, Timer::Subscription), Some(now + pause));
            }
            Termination::AtOnce => self.come_again(instance, Duration::ZERO, desk, now),
            Termination::Later(after) => {
                let least = after.map_or(Duration::ZERO, |seconds| Duration::from_secs(u64::from(seconds)));
                self.come_again(instance, least, desk, now);
            }
        }
    }

    /// "active;expires=N": the notifier may shorten it.
    fn shorten(&mut self, instance: InstanceId, notify: &Message, now: Instant) {
        let Some(seconds) = remaining(notify) else { return };
        let Some(subscription) = subscription_of(&mut self.boxes, instance) else { return };
        let span = Duration::from_secs(u64::from(seconds));
        if subscription.until.is_some_and(|until| now + span < until) && matches!(subscription.phase, Phase::Resting) {
            subscription.until = Some(now + span);
            let due = now + (span * 3 / 4).max(Duration::from_secs(1));
            if self.schedule.at((instance, Timer::Subscription)).is_none_or(|at| due < at) {
                self.schedule.set((instance, Timer::Subscription), Some(due));
            }
        }
    }

    /// Tells an attached device by a NOTIFY of ours; a newer one takes the place of one that is unanswered.
    fn hand(
        &mut self,
        instance: InstanceId,
        device: &Device,
        aor: &str,
        body: &[u8],
        desk: &mut Desk<'_>,
        now: Instant,
    ) {
        let branch = BranchId::mint(desk.shard, desk.random.bytes());
        let sent_by = desk.policy.listener(device.listener).map_or("", |listener| listener.advertise.as_str());
        let request = Request {
            request_uri: &device.contact,
            via: OwnVia { transport: device.transport, sent_by, branch: &branch.branch() },
            routes: &[],
            from: &format!("<{aor}>;tag={}", desk.random.text::<8>()),
            to: &format!("<{aor}>"),
            call_id: &desk.random.text::<16>(),
            cseq: 1,
            contact: &format!("<sip:{sent_by};transport={}>", device.transport.as_param()),
        };
        let mut out = Vec::with_capacity(768);
        write_notify(&request, body, &mut out);
        let bytes = Bytes::from(out);
        let client = NonInviteClient::new(bytes.clone(), device.transport.is_reliable(), None, now);
        let handing = Handing { branch, client, hop: device.hop.clone(), patience: now + PATIENCE };
        self.schedule.set((instance, Timer::Handing), handing.poll_timeout());
        self.by_branch.insert(branch, Awaited::Handing(instance));
        let Some(mailbox) = self.boxes.get_mut(&instance) else { return };
        if let Some(former) = mailbox.handing.replace(Box::new(handing)) {
            self.by_branch.remove(&former.branch);
        }
        self.events.push_back(Event::Send(device.hop.clone(), bytes));
    }

    pub(super) fn handle_handing_response(&mut self, instance: InstanceId, response: &Message, now: Instant) {
        let Some(mailbox) = self.boxes.get_mut(&instance) else { return };
        let (Some(handing), Some(code)) = (&mut mailbox.handing, response.status()) else { return };
        if handing.client.handle_response(code, now) != Verdict::Deliver || code.is_provisional() {
            return;
        }
        if code.is_success() {
            mailbox.told = mailbox.latest;
        }
        self.end_handing(instance, now);
    }

    pub(super) fn handle_handing_due(&mut self, instance: InstanceId, now: Instant) {
        let Some(mailbox) = self.boxes.get_mut(&instance) else { return };
        let Some(handing) = &mut mailbox.handing else { return };
        if handing.patience <= now {
            return self.end_handing(instance, now);
        }
        if handing.client.handle_timeout(now) == Timeout::Retransmit {
            self.events.push_back(Event::Send(handing.hop.clone(), handing.client.request().clone()));
        }
        self.schedule.set((instance, Timer::Handing), handing.poll_timeout());
    }

    /// The device has it, or is woken.
    fn end_handing(&mut self, instance: InstanceId, now: Instant) {
        let Some(mailbox) = self.boxes.get_mut(&instance) else { return };
        if let Some(handing) = mailbox.handing.take() {
            self.by_branch.remove(&handing.branch);
        }
        self.schedule.remove((instance, Timer::Handing));
        self.wake_about(instance, now);
        self.tidy(instance);
    }
}

impl Handing {
    fn poll_timeout(&self) -> Option<Instant> {
        Some(self.client.poll_timeout().map_or(self.patience, |due| due.min(self.patience)))
    }
}

/// Whether the app has to hear of it: the counts changed, and something waits now or did before.
fn is_news(told: Summary, latest: Summary) -> bool {
    told != latest && (latest.waiting || told.waiting || told.new > 0)
}
