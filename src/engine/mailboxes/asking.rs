//! SUBSCRIBE: asking, refreshing, ending (RFC 6665 §4.1.2). Signed like a REGISTER, and sent nowhere else.

use super::subscription::{Asking, Dialog};
use super::*;
use crate::engine::challenges::{Admission, Challenges};
use crate::engine::permits::Class;
use crate::engine::register::Identity;
use crate::engine::schedule::backoff;
use crate::sip::Message;
use crate::sip::digest::Signed;
use crate::sip::mailbox::{Request, write_subscribe};
use crate::sip::proxy::OwnVia;
use crate::sip::transaction::{NonInviteClient, Timeout, Verdict};

/// Refusals of the signed request that end it: it is signed with what registers.
const REFUSALS_MAX: u8 = 1;

impl Mailboxes {
    /// Wants a turn for a SUBSCRIBE: the first one, or a refresh in its dialog.
    pub(super) fn subscribe(&mut self, instance: InstanceId, registered: Registered<'_>) {
        let Some(subscription) = subscription_of(&mut self.boxes, instance) else { return };
        let destination = registered.target.destination();
        subscription.phase = Phase::Waiting(destination);
        self.schedule.remove((instance, Timer::Subscription));
        self.events.push_back(Event::Want(destination, Asker::Subscription(instance)));
    }

    /// A turn has come.
    pub(crate) fn handle_permit(
        &mut self,
        asker: Asker,
        permit: Permit,
        registered: Option<Registered<'_>>,
        desk: &mut Desk<'_>,
        now: Instant,
    ) {
        let begun = match asker {
            Asker::Subscription(instance) => self.ask_now(instance, permit, registered, desk, now),
            Asker::Unsubscription(instance) => self.leave_now(instance, permit, now),
            Asker::Binding(_) | Asker::Trial(_) | Asker::Erasure(_) | Asker::Departure(_) | Asker::Farewell(_) => false,
        };
        if !begun {
            self.events.push_back(Event::Report(permit.destination, Used::unused(permit.class)));
        }
    }

    /// Sends the SUBSCRIBE that waits. `false`: none does, or not there any more.
    fn ask_now(
        &mut self,
        instance: InstanceId,
        permit: Permit,
        registered: Option<Registered<'_>>,
        desk: &mut Desk<'_>,
        now: Instant,
    ) -> bool {
        let Some(subscription) = subscription_of(&mut self.boxes, instance) else { return false };
        if !matches!(subscription.phase, Phase::Waiting(at) if at == permit.destination) {
            return false;
        }
        let Some(registered) = registered.filter(|it| it.target.destination() == permit.destination) else {
            self.come_again(instance, Duration::ZERO, desk, now);
            return false;
        };
        if subscription.until.is_some_and(|until| until <= now) {
            // The notifier has forgotten it.
            subscription.start_over(desk.random);
        }
        let remaining = registered.lease_ends.saturating_since(now);
        let expires = subscription.expires.min(remaining).max(Duration::from_secs(1));
        let Some(mut asking) = ask(&mut subscription.dialog, registered, expires, desk, now) else {
            self.come_again(instance, Duration::ZERO, desk, now);
            return false;
        };
        asking.requests = 1;
        self.by_branch.insert(asking.branch, Awaited::Subscription(instance));
        self.schedule.set((instance, Timer::Subscription), asking.client.poll_timeout());
        self.events.push_back(Event::Send(asking.target.hop.clone(), asking.client.request().clone()));
        subscription.phase = Phase::Asking(Box::new(asking));
        true
    }

    /// Ends the subscription, if there is one: with one SUBSCRIBE for no time, whose answer nothing waits for. Where its turn does
    /// not come within the grace, the subscription ends by itself.
    pub(super) fn unsubscribe(
        &mut self,
        instance: InstanceId,
        registered: Option<Registered<'_>>,
        desk: &mut Desk<'_>,
        now: Instant,
    ) {
        let Some(subscription) = self.boxes.get_mut(&instance).and_then(|mailbox| mailbox.subscription.take()) else {
            return;
        };
        self.schedule.remove((instance, Timer::Subscription));
        self.drop_phase(instance, &subscription.phase);
        let mut dialog = subscription.dialog;
        let Some(registered) = registered.filter(|_| dialog.is_established()) else { return };
        let Some(asking) = ask(&mut dialog, registered, Duration::ZERO, desk, now) else { return };
        self.gone(instance);
        let until = now + desk.policy.erasure_grace;
        self.schedule.set((instance, Timer::Leaving), Some(until));
        self.events.push_back(Event::Want(asking.target.destination(), Asker::Unsubscription(instance)));
        self.leaving.insert(instance, Box::new(Leaving { dialog, asking, until }));
    }

    /// Sends the end of a subscription. `false`: none waits to be ended, or not there any more.
    fn leave_now(&mut self, instance: InstanceId, permit: Permit, now: Instant) -> bool {
        let Some(leaving) = self.leaving.get_mut(&instance) else { return false };
        let Leaving { asking, until, .. } = &mut **leaving;
        if asking.requests > 0 || asking.target.destination() != permit.destination {
            return false;
        }
        asking.requests = 1;
        // Its timers begin now.
        let request = asking.client.request().clone();
        asking.client = NonInviteClient::new(request.clone(), asking.target.transport.is_reliable(), None, now);
        self.events.push_back(Event::Send(asking.target.hop.clone(), request));
        self.by_branch.insert(asking.branch, Awaited::Leaving(instance));
        let due = asking.client.poll_timeout().map_or(*until, |due| due.min(*until));
        self.schedule.set((instance, Timer::Leaving), Some(due));
        true
    }

    /// What a subscription was about to do is not wanted any more.
    pub(super) fn drop_phase(&mut self, instance: InstanceId, phase: &Phase) {
        match phase {
            Phase::Waiting(destination) => {
                self.events.push_back(Event::Withdraw(*destination, Asker::Subscription(instance)));
            }
            Phase::Asking(asking) => {
                self.by_branch.remove(&asking.branch);
                self.report(asking.target.destination(), asking.requests);
            }
            Phase::Resting | Phase::Stopped => {}
        }
    }

    /// A SUBSCRIBE is over. That a registrar says nothing to it tells nothing of its REGISTERs.
    fn report(&mut self, destination: DestinationKey, requests: u8) {
        let used = Used { class: Class::Subscription, outcome: PermitOutcome::Unused, requests };
        self.events.push_back(Event::Report(destination, used));
    }

    /// Whether the request with this branch of ours came from that registrant.
    pub(crate) fn speaks_for(&self, branch: BranchId, identity: &Identity) -> bool {
        let asking = match self.by_branch.get(&branch) {
            Some(Awaited::Subscription(instance)) => {
                let phase = self.boxes.get(instance).and_then(|it| it.subscription.as_ref()).map(|it| &it.phase);
                if let Some(Phase::Asking(asking)) = phase { Some(&**asking) } else { None }
            }
            Some(Awaited::Leaving(instance)) => self.leaving.get(instance).map(|leaving| &leaving.asking),
            Some(Awaited::Handing(_)) | None => None,
        };
        let contact = asking.and_then(|asking| asking.contact.strip_prefix('<')?.strip_suffix('>'));
        contact.is_some() && contact == identity.contact_uri()
    }

    /// A response to a request of ours, with what the instance still is at its registrar.
    pub(crate) fn handle_response(
        &mut self,
        branch: BranchId,
        response: &Message,
        identity: Option<&Identity>,
        desk: &mut Desk<'_>,
        now: Instant,
    ) {
        match self.by_branch.get(&branch) {
            Some(&Awaited::Subscription(instance)) => {
                self.handle_subscription_response(instance, response, identity, desk, now);
            }
            Some(&Awaited::Leaving(instance)) => self.handle_leaving_response(instance, response, identity, desk, now),
            Some(&Awaited::Handing(instance)) => self.handle_handing_response(instance, response, now),
            None => {}
        }
    }

    fn handle_subscription_response(
        &mut self,
        instance: InstanceId,
        response: &Message,
        identity: Option<&Identity>,
        desk: &mut Desk<'_>,
        now: Instant,
    ) {
        let Some(subscription) = subscription_of(&mut self.boxes, instance) else { return };
        let Phase::Asking(asking) = &mut subscription.phase else { return };
        let Some(status) = response.status() else { return };
        if asking.client.handle_response(status, now) != Verdict::Deliver || status.is_provisional() {
            return self.schedule.set((instance, Timer::Subscription), asking.client.poll_timeout());
        }
        let former = asking.branch;
        let again = match status.code() {
            401 | 407 => identity.is_some_and(|identity| {
                answer(asking, &mut subscription.dialog, response, identity, desk, now).is_some()
            }),
            423 => identity.is_some_and(|identity| {
                ask_longer(asking, &mut subscription.dialog, response, identity, desk, now).is_some()
            }),
            _ => false,
        };
        if again {
            subscription.expires = asking.expires.max(EXPIRES);
            let (branch, hop, bytes) = (asking.branch, asking.target.hop.clone(), asking.client.request().clone());
            self.schedule.set((instance, Timer::Subscription), asking.client.poll_timeout());
            self.by_branch.remove(&former);
            self.by_branch.insert(branch, Awaited::Subscription(instance));
            return self.events.push_back(Event::Send(hop, bytes));
        }
        self.by_branch.remove(&former);
        let (destination, requests) = (asking.target.destination(), asking.requests);
        self.report(destination, requests);
        let Some(subscription) = subscription_of(&mut self.boxes, instance) else { return };
        match status.code() {
            200..=299 => self.granted(instance, response, desk, now),
            // Who we are is refused, or what we want: asking again would not change it.
            401 | 403..=407 | 410 | 416 | 489 | 501 | 604 => self.stop(instance),
            481 => {
                subscription.start_over(desk.random);
                self.come_again(instance, Duration::ZERO, desk, now);
            }
            _ => self.come_again(instance, response.retry_after().unwrap_or_default(), desk, now),
        }
    }

    fn granted(&mut self, instance: InstanceId, response: &Message, desk: &mut Desk<'_>, now: Instant) {
        let Some(subscription) = subscription_of(&mut self.boxes, instance) else { return };
        let Phase::Asking(asking) = std::mem::replace(&mut subscription.phase, Phase::Resting) else { return };
        subscription.dialog.sessions.handle_granted(response);
        subscription.dialog.establish(response);
        subscription.backoff_step = 0;
        // RFC 6665 §4.1.2.1: it may be shorter than asked for, never longer.
        let granted = response.expires().ok().flatten().map(|seconds| Duration::from_secs(u64::from(seconds)));
        let span = granted.unwrap_or(asking.expires).min(asking.expires);
        subscription.until = Some(now + span);
        subscription.since.get_or_insert(now);
        let refresh = desk.random.jitter(span, 75, 90).max(Duration::from_secs(1));
        self.schedule.set((instance, Timer::Subscription), Some(now + refresh));
    }

    /// Not again, until the instance asks anew.
    pub(super) fn stop(&mut self, instance: InstanceId) {
        let Some(subscription) = subscription_of(&mut self.boxes, instance) else { return };
        subscription.phase = Phase::Stopped;
        self.schedule.remove((instance, Timer::Subscription));
    }

    /// Again after a back-off, and not before `at_least`.
    pub(super) fn come_again(&mut self, instance: InstanceId, at_least: Duration, desk: &mut Desk<'_>, now: Instant) {
        let Some(subscription) = subscription_of(&mut self.boxes, instance) else { return };
        subscription.phase = Phase::Resting;
        let pause = backoff(subscription.backoff_step, desk.random).max(at_least);
        subscription.backoff_step = subscription.backoff_step.saturating_add(1);
        self.schedule.set((instance, Timer::Subscription), Some(now + pause));
    }

    pub(super) fn handle_subscription_due(
        &mut self,
        instance: InstanceId,
        registered: Option<Registered<'_>>,
        desk: &mut Desk<'_>,
        now: Instant,
    ) {
        let Some(subscription) = subscription_of(&mut self.boxes, instance) else { return };
        let Phase::Asking(asking) = &mut subscription.phase else {
            return match registered {
                Some(registered) => self.subscribe(instance, registered),
                None => self.come_again(instance, Duration::ZERO, desk, now),
            };
        };
        match asking.client.handle_timeout(now) {
            Timeout::Retransmit => {
                let again = Event::Send(asking.target.hop.clone(), asking.client.request().clone());
                self.events.push_back(again);
                self.schedule.set((instance, Timer::Subscription), asking.client.poll_timeout());
            }
            Timeout::Idle => self.schedule.set((instance, Timer::Subscription), asking.client.poll_timeout()),
            Timeout::TimedOut | Timeout::Terminated => {
                let (branch, destination, requests) = (asking.branch, asking.target.destination(), asking.requests);
                self.by_branch.remove(&branch);
                self.report(destination, requests);
                self.come_again(instance, Duration::ZERO, desk, now);
            }
        }
    }

    fn handle_leaving_response(
        &mut self,
        instance: InstanceId,
        response: &Message,
        identity: Option<&Identity>,
        desk: &mut Desk<'_>,
        now: Instant,
    ) {
        let Some(leaving) = self.leaving.get_mut(&instance) else { return };
        let Some(status) = response.status() else { return };
        let Leaving { dialog, asking, until } = &mut **leaving;
        if asking.client.handle_response(status, now) != Verdict::Deliver || status.is_provisional() {
            return;
        }
        let former = asking.branch;
        // The credential may be wiped by now; then the subscription ends by itself.
        let challenged = matches!(status.code(), 401 | 407);
        let again = identity
            .filter(|_| challenged)
            .is_some_and(|identity| answer(asking, dialog, response, identity, desk, now).is_some());
        self.by_branch.remove(&former);
        if again {
            self.by_branch.insert(asking.branch, Awaited::Leaving(instance));
            let due = asking.client.poll_timeout().map_or(*until, |due| due.min(*until));
            self.schedule.set((instance, Timer::Leaving), Some(due));
            let again = Event::Send(asking.target.hop.clone(), asking.client.request().clone());
            self.events.push_back(again);
        } else {
            self.gone(instance);
        }
    }

    pub(super) fn handle_leaving_due(&mut self, instance: InstanceId, now: Instant) {
        let Some(leaving) = self.leaving.get_mut(&instance) else { return };
        if leaving.until <= now {
            return self.gone(instance);
        }
        let asking = &mut leaving.asking;
        if asking.client.handle_timeout(now) == Timeout::Retransmit {
            let again = Event::Send(asking.target.hop.clone(), asking.client.request().clone());
            self.events.push_back(again);
        }
        let due = asking.client.poll_timeout().map_or(leaving.until, |due| due.min(leaving.until));
        self.schedule.set((instance, Timer::Leaving), Some(due));
    }

    fn gone(&mut self, instance: InstanceId) {
        self.schedule.remove((instance, Timer::Leaving));
        let Some(leaving) = self.leaving.remove(&instance) else { return };
        let asking = &leaving.asking;
        self.by_branch.remove(&asking.branch);
        match asking.requests {
            0 => {
                let waiting = Asker::Unsubscription(instance);
                self.events.push_back(Event::Withdraw(asking.target.destination(), waiting));
            }
            requests => self.report(asking.target.destination(), requests),
        }
    }
}

pub(super) fn subscription_of(
    boxes: &mut HashMap<InstanceId, Mailbox>,
    instance: InstanceId,
) -> Option<&mut Subscription> {
    boxes.get_mut(&instance)?.subscription.as_deref_mut()
}

/// Begins an exchange; the request is to be sent to its target. `None`: there is no Contact to be notified at.
fn ask(
    dialog: &mut Dialog,
    registered: Registered<'_>,
    expires: Duration,
    desk: &mut Desk<'_>,
    now: Instant,
) -> Option<Asking> {
    let contact = format!("<{}>", registered.identity.contact_uri()?);
    let target = registered.target.clone();
    let (branch, client) = send(dialog, registered.identity, &target, &contact, expires, desk, now);
    let challenges = Challenges::default();
    Some(Asking { branch, client, target, contact, challenges, expires, bumped: false, requests: 0 })
}

/// Answers a challenge. `None`: it is a refusal, or cannot be answered.
fn answer(
    asking: &mut Asking,
    dialog: &mut Dialog,
    response: &Message,
    identity: &Identity,
    desk: &mut Desk<'_>,
    now: Instant,
) -> Option<()> {
    let asked = identity.asked(response, desk.vault);
    if asking.challenges.admit(asked, &mut dialog.sessions, REFUSALS_MAX) != Admission::Answered {
        return None;
    }
    resend(asking, dialog, identity, desk, now);
    Some(())
}

/// 423: asks for as long as the notifier wants, once.
fn ask_longer(
    asking: &mut Asking,
    dialog: &mut Dialog,
    response: &Message,
    identity: &Identity,
    desk: &mut Desk<'_>,
    now: Instant,
) -> Option<()> {
    let least = Duration::from_secs(u64::from(response.min_expires().ok().flatten()?));
    if asking.bumped || least <= asking.expires || least > EXPIRES_MAX {
        return None;
    }
    asking.bumped = true;
    asking.expires = least;
    resend(asking, dialog, identity, desk, now);
    Some(())
}

fn resend(asking: &mut Asking, dialog: &mut Dialog, identity: &Identity, desk: &mut Desk<'_>, now: Instant) {
    let (branch, client) = send(dialog, identity, &asking.target, &asking.contact, asking.expires, desk, now);
    asking.branch = branch;
    asking.client = client;
    asking.requests = asking.requests.saturating_add(1);
}

/// Writes a SUBSCRIBE in its dialog, signed as far as the sessions allow.
fn send(
    dialog: &mut Dialog,
    identity: &Identity,
    target: &crate::engine::register::Target,
    contact: &str,
    expires: Duration,
    desk: &mut Desk<'_>,
    now: Instant,
) -> (BranchId, NonInviteClient) {
    dialog.cseq += 1;
    let branch = BranchId::mint(desk.shard, desk.random.bytes());
    let aor = identity.aor();
    let remote = dialog.target.as_deref().filter(|_| dialog.remote_tag.is_some()).unwrap_or(aor.as_bytes());
    let request_uri = String::from_utf8_lossy(remote).into_owned();
    let signed = Signed::bare("SUBSCRIBE", &request_uri);
    let authorizations = identity.sign(&mut dialog.sessions, signed, desk.vault, desk.random);
    let to = match &dialog.remote_tag {
        Some(tag) => format!("<{aor}>;tag={tag}"),
        None => format!("<{aor}>"),
    };
    let sent_by = desk.policy.listener(target.listener).map_or("", |listener| listener.advertise.as_str());
    let request = Request {
        request_uri: request_uri.as_bytes(),
        via: OwnVia { transport: target.transport, sent_by, branch: &branch.branch() },
        routes: &dialog.routes,
        from: &format!("<{aor}>;tag={}", dialog.local_tag),
        to: &to,
        call_id: &dialog.call_id,
        cseq: dialog.cseq,
        contact,
    };
    let seconds = u32::try_from(expires.as_secs()).unwrap_or(u32::MAX);
    let mut out = Vec::with_capacity(1024);
    write_subscribe(&request, seconds, &authorizations, &mut out);
    (branch, NonInviteClient::new(Bytes::from(out), target.transport.is_reliable(), None, now))
}
