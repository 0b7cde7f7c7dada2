//! Mailboxes: what waits at the PBX for an account's owner (RFC 3842), told to the app.
//!
//! News come as NOTIFYs, unsolicited or of a subscription that we keep at the registrar where an instance asks for one
//! (RFC 6665). This room decides what is news, whether a sleeping device is woken for it, and when to subscribe; it holds
//! no credential: what signs a SUBSCRIBE is shown to it for as long as it writes one, and goes where the REGISTERs go.

mod asking;
mod notices;
mod subscription;

use std::collections::VecDeque;
use std::time::Duration;

use ahash::HashMap;
use bytes::Bytes;

use subscription::{Leaving, Phase, Subscription};

pub(crate) use notices::Audience;
use notices::Handing;

use super::ids::{BranchId, InstanceId};
use super::output::{DestinationKey, Hop, MailboxView};
use super::permits::{Asker, Permit, PermitOutcome, Used};
use super::register::{Desk, Registered};
use super::schedule::Schedule;
use crate::clock::Instant;
use crate::sip::mailbox::Summary;

/// The expiry we ask for (RFC 3842 §3.4 has days or weeks; a PBX that restarts forgets subscriptions).
const EXPIRES: Duration = Duration::from_secs(3600);
/// The longest expiry a 423 may talk us into.
const EXPIRES_MAX: Duration = Duration::from_secs(24 * 3600);
/// The least pause between two wakes about one mailbox; what changes meanwhile is told at its end.
const WAKE_PAUSE: Duration = Duration::from_secs(10);
/// How long an attached device may take to answer a NOTIFY before it is woken instead.
const PATIENCE: Duration = Duration::from_secs(3);
/// A subscription that ended sooner is not asked for again at once, whatever the reason it gave.
const SHORT_LIVED: Duration = Duration::from_secs(60);
/// Pause before a subscription that ended in order is asked for again: a PBX that ends thousands gets them spread.
const AGAIN_PAUSE: Duration = Duration::from_secs(5);
/// Record-Routes of a subscription that are kept; one with more is refreshed without.
const ROUTES_MAX: usize = 8;
/// Bytes of all of them, and of the notifier's Contact.
const ROUTE_BYTES_MAX: usize = 1024;

/// Bytes of a notifier's tag; one with a longer tag gets 481.
const TAG_BYTES_MAX: usize = 256;

/// What this room asks of the engine.
pub(crate) enum Event {
    /// A SUBSCRIBE wants to go there.
    Want(DestinationKey, Asker),
    /// It does not any more.
    Withdraw(DestinationKey, Asker),
    /// What became of its permit.
    Report(DestinationKey, Used),
    Send(Hop, Bytes),
    /// Wake the device: the counts of its mailbox changed.
    Wake(InstanceId, Summary),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Timer {
    /// The subscription: its transaction, its refresh, its next try.
    Subscription,
    /// The end of one.
    Leaving,
    /// A wake may be sent again.
    Pause,
    /// An attached device is being told.
    Handing,
}

impl Timer {
    const ALL: [Self; 4] = [Self::Subscription, Self::Leaving, Self::Pause, Self::Handing];
}

/// What a response is for.
#[derive(Clone, Copy)]
enum Awaited {
    Subscription(InstanceId),
    Leaving(InstanceId),
    Handing(InstanceId),
}

/// One account's mailbox, as far as we know.
#[derive(Default)]
struct Mailbox {
    /// What the app was told last.
    told: Summary,
    /// What is true.
    latest: Summary,
    /// No further wake before.
    paused_until: Option<Instant>,
    handing: Option<Box<Handing>>,
    subscription: Option<Box<Subscription>>,
}

/// The room.
#[derive(Default)]
pub(crate) struct Mailboxes {
    /// At most one for each instance held.
    boxes: HashMap<InstanceId, Mailbox>,
    /// Subscriptions being ended; at most one for each instance held or being erased.
    leaving: HashMap<InstanceId, Box<Leaving>>,
    by_branch: HashMap<BranchId, Awaited>,
    schedule: Schedule<(InstanceId, Timer)>,
    events: VecDeque<Event>,
}

impl Mailboxes {
    /// Keeps a subscription where the instance wants one and is registered, and ends it where it does not.
    pub(crate) fn review(
        &mut self,
        instance: InstanceId,
        wanted: bool,
        registered: Option<Registered<'_>>,
        desk: &mut Desk<'_>,
        now: Instant,
    ) {
        let has = self.boxes.get(&instance).is_some_and(|mailbox| mailbox.subscription.is_some());
        match (wanted, has, registered) {
            (true, false, Some(registered)) => {
                let subscription = Subscription::new(desk.random);
                self.boxes.entry(instance).or_default().subscription = Some(Box::new(subscription));
                self.subscribe(instance, registered);
            }
            (false, true, registered) => {
                self.unsubscribe(instance, registered, desk, now);
                self.tidy(instance);
            }
            _ => {}
        }
    }

    /// The instance is being erased: its subscription is ended with what `registered` still is, and what is known of its
    /// mailbox is forgotten.
    pub(crate) fn forget(
        &mut self,
        instance: InstanceId,
        registered: Option<Registered<'_>>,
        desk: &mut Desk<'_>,
        now: Instant,
    ) {
        self.unsubscribe(instance, registered, desk, now);
        let Some(mailbox) = self.boxes.remove(&instance) else { return };
        if let Some(handing) = mailbox.handing {
            self.by_branch.remove(&handing.branch);
        }
        for timer in [Timer::Subscription, Timer::Pause, Timer::Handing] {
            self.schedule.remove((instance, timer));
        }
    }

    /// Whose branch that is, if it is ours.
    pub(crate) fn whose(&self, branch: BranchId) -> Option<InstanceId> {
        self.by_branch.get(&branch).map(|awaited| match *awaited {
            Awaited::Subscription(instance) | Awaited::Leaving(instance) | Awaited::Handing(instance) => instance,
        })
    }

    /// What is known of an instance's mailbox.
    pub(crate) fn view(&self, instance: InstanceId) -> Option<MailboxView> {
        let mailbox = self.boxes.get(&instance)?;
        let Summary { new, old, .. } = mailbox.latest;
        Some(MailboxView { subscribed: mailbox.subscription.is_some(), new, old })
    }

    /// The next thing that is due; `handle_due` does it.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<(InstanceId, Timer)> {
        self.schedule.pop_due(now)
    }

    /// Does what is due.
    pub(crate) fn handle_due(
        &mut self,
        (instance, timer): (InstanceId, Timer),
        registered: Option<Registered<'_>>,
        desk: &mut Desk<'_>,
        now: Instant,
    ) {
        match timer {
            Timer::Subscription => self.handle_subscription_due(instance, registered, desk, now),
            Timer::Leaving => self.handle_leaving_due(instance, now),
            Timer::Pause => {
                if let Some(mailbox) = self.boxes.get_mut(&instance) {
                    mailbox.paused_until = None;
                }
                self.wake_about(instance, now);
                self.tidy(instance);
            }
            Timer::Handing => self.handle_handing_due(instance, now),
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.schedule.next()
    }

    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// How full each table is.
    pub(crate) fn tables(&self, out: &mut Vec<(&'static str, usize)>) {
        out.extend([
            ("mailboxes", self.boxes.len()),
            ("mailboxes.leaving", self.leaving.len()),
            ("mailboxes.branches", self.by_branch.len()),
        ]);
    }

    /// Forgets a mailbox of which there is nothing to know.
    fn tidy(&mut self, instance: InstanceId) {
        let Some(mailbox) = self.boxes.get(&instance) else { return };
        let idle = mailbox.subscription.is_none() && mailbox.handing.is_none() && mailbox.paused_until.is_none();
        if idle && mailbox.told == Summary::default() && mailbox.latest == Summary::default() {
            self.boxes.remove(&instance);
            for timer in Timer::ALL {
                if timer != Timer::Leaving {
                    self.schedule.remove((instance, timer));
                }
            }
        }
    }
}
