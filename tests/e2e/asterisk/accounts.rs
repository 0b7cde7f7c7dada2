//! How Asterisk takes our registrations: algorithms, its own end, and accounts with room for one contact.

use std::time::Duration;

use serde_json::{Value, json};

use super::office::Office;
use super::{Asterisk, Manners};
use crate::daemon::{Daemon, HandOver};
use crate::http::Answer;
use crate::kamailio::PASSWORD;
use crate::phones::{Attach, CallerManners, Make, Phone};
use crate::process::{after, until};
use crate::push::{Provider, PushService};
use crate::world::{Transport, World};

/// What is granted where a test waits for the next refresh, in seconds.
const SHORT: u32 = 20;

/// Asterisk learns digests beyond MD5 with version 22.2.
#[test]
fn the_strongest_algorithm_that_the_pbx_offers_is_used() {
    let offers = [("md5", "MD5"), ("sha-256", "SHA-256"), ("sha-512-256", "SHA-512-256"), ("md5,sha-256", "SHA-256")];
    for (offered, used) in offers {
        let world = World::new(&format!("asterisk-algorithm-{}", offered.replace(',', "-")));
        let office = Office::new(&world, &Manners { algorithms: offered, ..Manners::default() }, Transport::Udp);

        let registers = office.asterisk.trace.distinct("REGISTER");

        let answered: Vec<&str> = registers.iter().filter_map(|register| register.header("Authorization")).collect();
        let named = format!("algorithm={used}");
        let is_used = |answer: &&str| answer.split(',').any(|field| field.trim().replace('"', "") == named);
        assert!(answered.len() == 1 && answered.iter().all(is_used), "{offered}: {answered:?}");
    }
}

/// Nothing tells a client over UDP that the PBX has lost its registrations: it learns so at its next refresh. A connection that
/// broke tells at once.
#[test]
fn every_account_is_back_after_the_pbx_has_lost_its_registrations() {
    let world = World::new("asterisk-restart");
    let mut office = Office::new(&world, &Manners { max_expires: SHORT, ..Manners::default() }, Transport::Udp);
    for (user, trunk) in [("carol", Transport::Tcp), ("dave", Transport::Tls)] {
        office.daemon.hand_over(&office.asterisk, &office.push, user, trunk);
    }
    let users = ["alice", "carol", "dave"];
    let before = users.map(|user| office.asterisk.bindings(user));

    office.asterisk.restart();

    let span = Duration::from_secs(u64::from(SHORT));
    after(span, "everybody to be back", || {
        users.iter().all(|user| office.asterisk.bindings(user).len() == 1).then_some(())
    });
    // What it has of a connection is its source, and that is another one now.
    assert_eq!(office.asterisk.bindings("alice"), before[0], "the same Contact");
    let mut caller = office.caller(CallerManners::default());
    for user in users {
        let id = caller.call(user);
        office.push.wait_for("call", &office.push.token(user, "call"), 1);
        caller.trace.of_call(&id).response(180, "INVITE");
        caller.hang_up();
        caller.trace.of_call(&id).response(487, "INVITE");
    }
}

/// A desk phone is registered at an account with room for one contact, and then the account is handed over.
struct Desk<'w> {
    world: &'w World,
    daemon: Daemon<'w>,
    asterisk: Asterisk,
    push: PushService<'w>,
    /// The desk phone's binding.
    former: Vec<String>,
    /// It must not be dropped earlier.
    _phone: Phone,
}

impl<'w> Desk<'w> {
    #[track_caller]
    fn new(world: &'w World, remove_existing: bool) -> Self {
        let manners = Manners { max_contacts: 1, remove_existing, ..Manners::default() };
        let asterisk = Asterisk::start(world, &manners);
        let push = PushService::start(world, Provider::Fcm);
        let daemon = Daemon::start(world, &asterisk, &push);
        let attach = Attach::to(&asterisk, "alice", PASSWORD, Transport::Udp, world);
        let phone = Phone::start(world, Make::Pjsip, &attach);
        phone.wait_registered();
        let former = asterisk.bindings("alice");
        assert_eq!(former.len(), 1);
        Self { world, daemon, asterisk, push, former, _phone: phone }
    }

    #[track_caller]
    fn hand_over(&self, mode: &str) -> Answer {
        let hand_over = HandOver { user: "alice", device: mode, trunk: Transport::Udp, more: json!({ "mode": mode }) };
        self.daemon.try_hand_over(&self.asterisk, &self.push, &hand_over)
    }

    #[track_caller]
    fn ask(&self, method: &str, instance: &Value, what: &str, body: Option<&Value>) -> Answer {
        let path = format!("/v1/instances/{}{what}", instance["instance"].as_str().expect("an id"));
        self.daemon.ask(method, &path, instance["token"].as_str().expect("a token"), body)
    }
}

#[test]
fn a_pbx_that_removes_the_existing_contact_gives_us_the_desk_phones_place() {
    let world = World::new("asterisk-remove-existing");
    let desk = Desk::new(&world, true);

    let taken = desk.hand_over("always").json();

    assert_eq!(taken["registration"]["state"], "registered", "{taken}");
    let contacts = desk.asterisk.bindings("alice");
    assert!(contacts.len() == 1 && contacts != desk.former, "{contacts:?}");
    let mut caller = Phone::caller(desk.world, &desk.asterisk, CallerManners::default());
    caller.call("alice");
    desk.push.wait_for_call(1);
}

#[test]
fn a_pbx_that_keeps_the_existing_contact_refuses_us_until_we_take_it_over() {
    let world = World::new("asterisk-takeover");
    let desk = Desk::new(&world, false);

    let refused = desk.hand_over("always").json();
    assert_eq!(refused["registration"]["state"], "failing", "{refused}");
    assert_eq!(refused["registration"]["verdict"], "403 Forbidden", "{refused}");
    assert_eq!(desk.asterisk.bindings("alice"), desk.former, "the desk phone keeps its place");
    assert_eq!(desk.ask("DELETE", &refused, "", None).status, 200);

    let taken = desk.hand_over("takeover").json();
    assert_eq!(taken["registration"]["state"], "registered", "{taken}");
    let contacts = desk.asterisk.bindings("alice");
    assert!(contacts.len() == 1 && contacts != desk.former, "{contacts:?}");

    assert_eq!(desk.ask("POST", &taken, "/foreground", Some(&json!({}))).status, 200);
    until("the desk phone to have its place again", || (desk.asterisk.bindings("alice") == desk.former).then_some(()));
}
