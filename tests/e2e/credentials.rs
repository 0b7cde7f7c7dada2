//! What the registrar wants to know changes while an account is held: its realm, its algorithm, the password. The app's
//! ordinary hand-over cures it, and nothing else that comes meanwhile does harm.

use std::time::Duration;

use serde_json::{Value, json};

use crate::daemon::{Daemon, HandOver, Instance};
use crate::http::Answer;
use crate::kamailio::{Kamailio, Manners, PASSWORD};
use crate::process::after;
use crate::push::{Provider, PushService};
use crate::world::{Transport, World};

/// What the PBX grants, in seconds: so soon a held account meets what has changed.
const GRANTED: u32 = 30;

const NEW_PASSWORD: &str = "the-secret-that-alice-and-the-pbx-agreed-on-later";

/// The PBX, the daemon and an app that hands alice's account over.
struct Scene<'w> {
    world: &'w World,
    daemon: Daemon<'w>,
    kamailio: Kamailio,
    push: PushService<'w>,
    alice: Instance,
}

impl<'w> Scene<'w> {
    #[track_caller]
    fn new(world: &'w World) -> Self {
        let kamailio = Kamailio::start(world, &manners(""));
        let push = PushService::start(world, Provider::Fcm);
        let daemon = Daemon::start(world, &kamailio, &push);
        let alice = daemon.hand_over(&kamailio, &push, "alice", Transport::Udp);
        Self { world, daemon, kamailio, push, alice }
    }

    #[track_caller]
    fn hand_over(&self, password: &str) -> Answer {
        let more = json!({ "account": { "password": password } });
        let hand_over = HandOver { user: "alice", device: "alice", trunk: Transport::Udp, more };
        self.daemon.try_hand_over(&self.kamailio, &self.push, &hand_over)
    }

    fn state(&self) -> Value {
        self.daemon.status(&self.alice).json()["registration"]["state"].clone()
    }

    /// Waits until the daemon has met what changed, with what it holds.
    #[track_caller]
    fn wait_failing(&self) {
        let span = Duration::from_secs(u64::from(GRANTED));
        after(span, "the held account to fail", || (self.state() == "failing").then_some(()));
    }

    /// Hands over as at every start of the app, and is registered by one REGISTER, its challenge and one more.
    #[track_caller]
    fn is_cured_by(&mut self, password: &str) {
        let before = ["accepted", "registers"].map(|what| self.kamailio.count(what));

        let answer = self.hand_over(password);

        assert!(matches!(answer.status, 200 | 201), "{answer:?}");
        let answer = answer.json();
        assert_eq!(answer["registration"]["state"], "registered", "{answer}");
        let [accepted, registers] = ["accepted", "registers"].map(|what| self.kamailio.count(what));
        assert_eq!(accepted - before[0], 1);
        assert!(registers - before[1] <= 2, "{} REGISTERs", registers - before[1]);
        assert_eq!(self.kamailio.bindings("alice").len(), 1);
        let token = answer["token"].as_str().expect("a token").to_owned();
        assert_eq!(answer["instance"], self.alice.id.as_str(), "it is the instance that was there");
        self.alice = Instance { token, answer, ..self.alice.clone() };
        assert_eq!(self.state(), "registered");
    }

    /// A password that the registrar refuses changes nothing, for whoever has an app key could offer one.
    #[track_caller]
    fn is_not_harmed_by(&self, password: &str) {
        let held = || (self.state(), self.kamailio.bindings("alice"));
        let before = held();

        let answer = self.hand_over(password);

        assert_eq!(answer.status, 422, "{answer:?}");
        assert_eq!(answer.json()["type"], "urn:reveille:problem:registrar-refused", "{answer:?}");
        assert_eq!(held(), before);
    }

    /// The PBX comes back with another algorithm; it has forgotten who was registered.
    #[track_caller]
    fn restart_with(&mut self, algorithm: &'static str) {
        self.kamailio.restart(self.world, &manners(algorithm));
    }
}

fn manners(algorithm: &'static str) -> Manners {
    Manners { max_expires: GRANTED, algorithm, ..Manners::default() }
}

#[test]
fn a_realm_that_changes_is_cured_by_handing_over_again() {
    let world = World::new("credentials-realm");
    let mut scene = Scene::new(&world);
    scene.kamailio.set("realm", "moved.test");
    scene.wait_failing();

    scene.is_not_harmed_by("a guess");
    scene.is_cured_by(PASSWORD);

    scene.is_not_harmed_by("another guess");
    assert_eq!(scene.state(), "registered");
}

#[test]
fn an_algorithm_that_changes_is_cured_by_handing_over_again() {
    let world = World::new("credentials-algorithm");
    let mut scene = Scene::new(&world);
    scene.restart_with("SHA-256");
    let span = Duration::from_secs(u64::from(GRANTED));
    after(span, "a stronger algorithm to be met", || (scene.kamailio.count("accepted") > 0).then_some(()));

    // What is weaker than what the registrar took is not kept.
    scene.restart_with("MD5");
    scene.wait_failing();
    scene.is_cured_by(PASSWORD);

    scene.is_not_harmed_by("a guess");
    assert_eq!(scene.state(), "registered");
}

/// The app may come before or after the daemon has met the change.
#[test]
fn a_password_that_changes_is_cured_by_handing_over_the_new_one() {
    let world = World::new("credentials-password");
    let mut scene = Scene::new(&world);
    scene.kamailio.set("password", NEW_PASSWORD);
    scene.is_cured_by(NEW_PASSWORD);
    scene.is_not_harmed_by(PASSWORD);

    scene.kamailio.set("password", PASSWORD);
    scene.wait_failing();
    scene.is_cured_by(PASSWORD);
    scene.is_not_harmed_by(NEW_PASSWORD);
}
