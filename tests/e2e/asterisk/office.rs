//! What these tests start with: Asterisk, a push service, the daemon, and alice's account handed over.

use super::{Asterisk, Manners};
use crate::daemon::{Daemon, Instance, Settings};
use crate::phones::{CallerManners, Make, Phone};
use crate::push::{Provider, Push, PushService};
use crate::trace::Message;
use crate::world::{Transport, World};

/// All of it, running. The daemon ends first: it takes its binding back from the PBX.
pub(super) struct Office<'w> {
    pub(super) world: &'w World,
    pub(super) daemon: Daemon<'w>,
    pub(super) asterisk: Asterisk,
    pub(super) push: PushService<'w>,
    pub(super) alice: Instance,
}

/// A call between bob at the PBX and a phone that was woken for it. The two sides have nothing in common but the PBX.
pub(super) struct Talk {
    pub(super) caller: Phone,
    pub(super) phone: Phone,
    /// The Call-ID of the caller's side.
    pub(super) calls: String,
    /// What woke the phone.
    pub(super) wake: Push,
}

impl<'w> Office<'w> {
    /// Alice's account registered over `trunk`, her phone asleep.
    #[track_caller]
    pub(super) fn new(world: &'w World, manners: &Manners, trunk: Transport) -> Self {
        Self::with(world, manners, trunk, &Settings::default())
    }

    /// Like [`Self::new`], with settings of the test's own.
    #[track_caller]
    pub(super) fn with(world: &'w World, manners: &Manners, trunk: Transport, settings: &Settings<'_>) -> Self {
        let asterisk = Asterisk::start(world, manners);
        let push = PushService::start(world, Provider::Fcm);
        let daemon = Daemon::start_with(world, &asterisk, &push, settings);
        let alice = daemon.hand_over(&asterisk, &push, "alice", trunk);
        Self { world, daemon, asterisk, push, alice }
    }

    /// Bob, who is at the PBX.
    #[track_caller]
    pub(super) fn caller(&self, manners: CallerManners) -> Phone {
        Phone::caller(self.world, &self.asterisk, manners)
    }

    /// Starts the phone of an instance, as the system does when a push arrives.
    #[track_caller]
    pub(super) fn wake_phone(&self, instance: &Instance, make: Make, transport: Transport) -> Phone {
        Phone::start(self.world, make, &self.daemon.attach(instance, transport))
    }

    /// Bob calls and alice's phone is woken and rings.
    #[track_caller]
    pub(super) fn ring(&self, make: Make, transport: Transport) -> Talk {
        let mut caller = self.caller(CallerManners::default());
        let before = self.push.of_kind("call").len();
        let calls = caller.call("alice");
        let wake = self.push.wait_for_call(before + 1);
        let phone = self.wake_phone(&self.alice, make, transport);
        let talk = Talk { caller, phone, calls, wake };
        assert_eq!(talk.rings().header("Reveille-Call"), Some(talk.wake.word("call")));
        talk
    }

    /// Bob and alice talk.
    #[track_caller]
    pub(super) fn talk(&self, make: Make, transport: Transport) -> Talk {
        let mut talk = self.ring(make, transport);
        talk.phone.answer();
        talk.phone.trace.request("ACK");
        talk.heard_by_caller().response(200, "INVITE");
        talk
    }

    /// Waits until neither the PBX nor the daemon has a call any more.
    #[track_caller]
    pub(super) fn wait_nothing_left(&self) {
        self.asterisk.wait_no_channel();
        crate::process::until("the daemon to hold no call", || {
            (self.daemon.metric("reveille_held_calls") == Some(0.0)).then_some(())
        });
    }
}

impl Talk {
    /// The INVITE for which the phone rings.
    #[track_caller]
    pub(super) fn rings(&self) -> Message {
        self.phone.trace.response(180, "INVITE");
        self.phone.trace.request("INVITE")
    }

    pub(super) fn heard_by_caller(&self) -> crate::trace::Trace {
        self.caller.trace.of_call(&self.calls)
    }

    /// The caller hangs up, and the phone hears of it.
    #[track_caller]
    pub(super) fn ends(&mut self) {
        self.caller.hang_up();
        let bye = self.phone.trace.request("BYE");
        assert_eq!(self.phone.trace.answer_to(&bye).status(), Some(200));
    }
}
