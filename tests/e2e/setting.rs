//! What most tests start with: a PBX, a push service, the daemon, and alice's account handed over.

use crate::daemon::{Daemon, Instance, Settings};
use crate::kamailio::{Kamailio, Manners};
use crate::phones::{CallerManners, Make, Order, Phone};
use crate::push::{Provider, Push, PushService};
use crate::trace::{Message, Trace, tag};
use crate::world::{Transport, World};

/// For how many seconds baresip registers, which refreshes after nine tenths of them.
const BARESIP_EXPIRES: u32 = 5;

/// All of it, running. The daemon ends first: it takes its binding back from the PBX.
pub(crate) struct Setting<'w> {
    pub(crate) world: &'w World,
    pub(crate) daemon: Daemon<'w>,
    pub(crate) kamailio: Kamailio,
    pub(crate) push: PushService<'w>,
    pub(crate) alice: Instance,
}

/// A call between bob at the PBX and a phone that was woken for it.
pub(crate) struct Talk {
    pub(crate) caller: Phone,
    pub(crate) phone: Phone,
    /// Its Call-ID.
    pub(crate) id: String,
    /// What woke the phone.
    pub(crate) wake: Push,
}

impl<'w> Setting<'w> {
    /// Alice's account registered over `trunk`, her phone asleep.
    #[track_caller]
    pub(crate) fn new(world: &'w World, provider: Provider, trunk: Transport) -> Self {
        Self::with(world, provider, trunk, &Settings::default())
    }

    /// Like [`Self::new`], with settings of the test's own.
    #[track_caller]
    pub(crate) fn with(world: &'w World, provider: Provider, trunk: Transport, settings: &Settings<'_>) -> Self {
        let kamailio = Kamailio::start(world, &Manners::default());
        let push = PushService::start(world, provider);
        let daemon = Daemon::start_with(world, &kamailio, &push, settings);
        let alice = daemon.hand_over(&kamailio, &push, "alice", trunk);
        Self { world, daemon, kamailio, push, alice }
    }

    /// Bob, who is at the PBX.
    #[track_caller]
    pub(crate) fn caller(&self, manners: CallerManners) -> Phone {
        Phone::caller(self.world, &self.kamailio, manners)
    }

    /// Starts alice's phone, as the system does when a push arrives.
    #[track_caller]
    pub(crate) fn wake_phone(&self, make: Make, transport: Transport) -> Phone {
        self.wake_phone_of(&self.alice, make, transport)
    }

    /// The same for another instance.
    #[track_caller]
    pub(crate) fn wake_phone_of(&self, instance: &Instance, make: Make, transport: Transport) -> Phone {
        let mut attach = self.daemon.attach(instance, transport);
        if make == Make::Baresip {
            // It does not look after its connection: only the next refresh opens another.
            attach.expires = BARESIP_EXPIRES;
        }
        Phone::start(self.world, make, &attach)
    }

    /// Bob calls and alice's phone is woken and rings.
    #[track_caller]
    pub(crate) fn ring(&self, make: Make, transport: Transport) -> Talk {
        let mut caller = self.caller(CallerManners::default());
        let id = caller.call("alice");
        let wake = self.push.wait_for_call(1);
        let phone = self.wake_phone(make, transport);
        phone.wait_ringing(&id);
        Talk { caller, phone, id, wake }
    }

    /// Bob and alice talk.
    #[track_caller]
    pub(crate) fn talk(&self, make: Make, transport: Transport) -> Talk {
        let mut talk = self.ring(make, transport);
        talk.phone.answer();
        talk.heard_by_phone().request("ACK");
        talk
    }

    /// Waits until the daemon holds no call any more.
    #[track_caller]
    pub(crate) fn wait_nothing_held(&self) {
        crate::process::until("the daemon to hold no call", || {
            (self.daemon.metric("reveille_held_calls") == Some(0.0)).then_some(())
        });
    }
}

impl Talk {
    pub(crate) fn heard_by_caller(&self) -> Trace {
        self.caller.trace.of_call(&self.id)
    }

    pub(crate) fn heard_by_phone(&self) -> Trace {
        self.phone.trace.of_call(&self.id)
    }

    /// One end does something that makes one request with `method`; waits until the other end has seen and answered it, and
    /// returns the request and its answer as the end that asked saw them.
    ///
    /// Fails if the request did not pass both proxies, or either body was changed on its way.
    #[track_caller]
    pub(crate) fn exchange(&mut self, by_phone: bool, order: Order<'_>, method: &str) -> (Message, Message) {
        let nth = self.heard_by_phone().distinct(method).len() + 1;
        if by_phone {
            self.phone.obey(order)
        } else {
            self.caller.obey(order)
        }
        let (asking, asked) = match by_phone {
            true => (self.heard_by_phone(), self.heard_by_caller()),
            false => (self.heard_by_caller(), self.heard_by_phone()),
        };
        let (sent, came) = (asking.nth(method, nth), asked.nth(method, nth));
        assert_eq!(tag(&sent, "From"), tag(&came, "From"), "both ends asked at once");
        assert_eq!(sent.body, came.body, "the body of {method} was changed on its way");
        assert_eq!(sent.via_count(), 1);
        assert_eq!(came.via_count(), 3, "{method} passed the daemon and the PBX, and nobody else: {came:?}");
        let (given, got) = (asked.answer_to(&came), asking.answer_to(&sent));
        assert_eq!((given.status(), &given.body), (got.status(), &got.body), "the answer was changed on its way");
        (sent, got)
    }

    /// A re-INVITE from one end, its 200, and the ACK that ends it.
    #[track_caller]
    pub(crate) fn re_invite(&mut self, by_phone: bool, order: Order<'_>) -> (Message, Message) {
        let (sent, got) = self.exchange(by_phone, order, "INVITE");
        assert_eq!(got.status(), Some(200));
        let asked = if by_phone { self.heard_by_caller() } else { self.heard_by_phone() };
        let nth = asked.distinct("INVITE").len();
        asked.nth("ACK", nth);
        (sent, got)
    }
}
