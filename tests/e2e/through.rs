//! Phones that register at their PBX *through* the daemon and say in their Contact how they are woken (RFC 8599).

use crate::daemon::{Daemon, Settings};
use crate::kamailio::{Kamailio, Manners};
use crate::pbx::Pbx;
use crate::phones::{Attach, CallerManners, Make, Order, Phone};
use crate::push::{Provider, PushService};
use crate::setting::Talk;
use crate::world::{Transport, World};

/// The PBX, the daemon that lists it, and a push service.
struct Edge<'w> {
    world: &'w World,
    daemon: Daemon<'w>,
    kamailio: Kamailio,
    push: PushService<'w>,
}

impl<'w> Edge<'w> {
    #[track_caller]
    fn new(world: &'w World, provider: Provider, trunk: Transport) -> Self {
        Self::listed(world, provider, trunk, "")
    }

    /// Like [`Self::new`], with more said of the registrar where it is listed.
    #[track_caller]
    fn listed(world: &'w World, provider: Provider, trunk: Transport, more: &str) -> Self {
        let kamailio = Kamailio::start(world, &Manners::default());
        let push = PushService::start(world, provider);
        let listed = format!("127.0.0.1:{};transport={}{more}", kamailio.port(), trunk.name());
        let settings = Settings { tenant: format!("edge_registrars = [\"{listed}\"]"), ..Settings::default() };
        let daemon = Daemon::start_with(world, &kamailio, &push, &settings);
        Self { world, daemon, kamailio, push }
    }

    fn attach(&self, user: &str, transport: Transport) -> Attach {
        self.daemon.through(&self.kamailio, &self.push, user, transport)
    }

    /// Starts a phone and waits until the PBX has registered it.
    #[track_caller]
    fn register(&self, make: Make, attach: &Attach) -> Phone {
        let phone = Phone::start(self.world, make, attach);
        phone.wait_registered();
        phone
    }

    /// The URI at which the PBX is asked for a user.
    fn uri(&self, user: &str) -> String {
        format!("sip:{user}@127.0.0.1:{}", self.kamailio.port())
    }
}

/// A phone registers, sleeps, is called, woken, registers again, and has its call.
fn is_woken(make: Make, edge: Transport, trunk: Transport, provider: Provider, behind: bool) {
    let place = if behind { "behind" } else { "in" };
    let name = format!("through-{make:?}-{}-trunk-{}-{place}", edge.name(), trunk.name()).to_lowercase();
    let world = World::new(&name);
    let through = Edge::new(&world, provider, trunk);
    let attach = Attach { contact_params_behind: behind, ..through.attach("alice", edge) };
    let token = through.push.token("alice", "call");

    let phone = through.register(make, &attach);
    let offered = phone.trace.response(200, "REGISTER");
    assert!(offered.header("Feature-Caps").is_some_and(|caps| caps.contains("+sip.pns=")), "{offered:?}");
    let bindings = through.kamailio.bindings("alice");
    assert_eq!(bindings.len(), 1, "{bindings:?}");
    assert!(!bindings[0].contains("pn-") && !bindings[0].contains(&token), "the PBX learns no token: {bindings:?}");
    assert!(through.push.accepted().is_empty(), "who is awake is not woken");
    phone.kill();

    let talk = wake_and_talk(&through, make, &attach);
    assert_eq!(talk.heard_by_phone().request("INVITE").header("Reveille-Call"), Some(talk.wake.word("call")));
    hold_and_end(talk);

    assert_eq!(through.kamailio.count("refused"), 0);
    assert_eq!(through.kamailio.count("BYE"), 1);
    assert_eq!(through.push.of_kind("call").len(), 1);
}

/// Bob calls alice, whose phone is woken, registers again and answers.
#[track_caller]
fn wake_and_talk(through: &Edge<'_>, make: Make, attach: &Attach) -> Talk {
    let mut caller = Phone::caller(through.world, &through.kamailio, CallerManners::default());
    let id = caller.call("alice");
    let wake = through.push.wait_for("call", &through.push.token("alice", "call"), 1);
    let mut phone = through.register(make, attach);
    phone.wait_ringing(&id);
    phone.answer();
    phone.trace.of_call(&id).request("ACK");
    Talk { caller, phone, id, wake }
}

/// Each end holds the other, and the caller hangs up.
#[track_caller]
fn hold_and_end(mut talk: Talk) {
    assert_eq!(talk.heard_by_phone().distinct("INVITE").len(), 1, "it rang once");
    for (by_phone, order) in [(false, Order::Hold), (false, Order::Resume), (true, Order::Hold), (true, Order::Resume)]
    {
        talk.re_invite(by_phone, order);
    }
    talk.caller.hang_up();
    talk.heard_by_phone().response(200, "BYE");
    talk.heard_by_caller().response(200, "BYE");
}

#[test]
fn pjsip_over_udp_to_a_udp_trunk() {
    is_woken(Make::Pjsip, Transport::Udp, Transport::Udp, Provider::Fcm, false);
}

#[test]
fn pjsip_over_tcp_to_a_udp_trunk() {
    is_woken(Make::Pjsip, Transport::Tcp, Transport::Udp, Provider::Apns, false);
}

#[test]
fn pjsip_over_tcp_to_a_tcp_trunk() {
    is_woken(Make::Pjsip, Transport::Tcp, Transport::Tcp, Provider::Fcm, false);
}

#[test]
fn linphone_over_udp_to_a_udp_trunk() {
    is_woken(Make::Linphone, Transport::Udp, Transport::Udp, Provider::Apns, false);
}

#[test]
fn linphone_over_tcp_to_a_udp_trunk() {
    is_woken(Make::Linphone, Transport::Tcp, Transport::Udp, Provider::Fcm, false);
}

#[test]
fn linphone_over_tcp_to_a_tcp_trunk() {
    is_woken(Make::Linphone, Transport::Tcp, Transport::Tcp, Provider::Fcm, false);
}

/// linphone's own library does so when it is asked through its daemon.
#[test]
fn push_parameters_behind_the_uri_do_as_well() {
    is_woken(Make::Linphone, Transport::Tcp, Transport::Udp, Provider::Fcm, true);
}

/// The PBX sees the phone's own Contact, and finds us by our Path (RFC 3327).
#[test]
fn a_registrar_that_is_listed_with_path_keeps_the_phones_own_contact() {
    let world = World::new("through-path");
    let through = Edge::listed(&world, Provider::Fcm, Transport::Udp, ";path");
    let attach = through.attach("alice", Transport::Tcp);

    let phone = through.register(Make::Pjsip, &attach);
    let written = phone.trace.request("REGISTER").header("Contact").expect("it has one").to_owned();
    let host = |uri: &str| uri.split_once('@').map(|(_, rest)| rest.split(';').next().unwrap_or(rest).to_owned());
    let bindings = through.kamailio.bindings("alice");
    assert_eq!(host(&bindings[0]), host(&written), "{bindings:?}");
    assert!(!bindings[0].contains("pn-"), "{bindings:?}");
    phone.kill();
    hold_and_end(wake_and_talk(&through, Make::Pjsip, &attach));
}

/// The same call passes the daemon twice, which is no loop: once for its caller, once for its callee.
#[test]
fn alice_calls_carol_and_both_are_there_through_the_daemon() {
    let world = World::new("through-spiral");
    let through = Edge::new(&world, Provider::Fcm, Transport::Udp);
    let mut alice = through.register(Make::Pjsip, &through.attach("alice", Transport::Tcp));
    let mut carol = through.register(Make::Linphone, &through.attach("carol", Transport::Tcp));

    alice.obey(Order::Call(&through.uri("carol")));
    let invite = alice.trace.nth("INVITE", 1);
    let id = invite.header("Call-ID").expect("every INVITE has one");
    carol.wait_ringing(id);
    carol.answer();
    let heard = carol.trace.of_call(id);
    heard.request("ACK");
    // Alice, the daemon, the PBX, the daemon.
    assert_eq!(heard.request("INVITE").via_count(), 4);
    carol.hang_up();
    let bye = alice.trace.of_call(id).request("BYE");
    assert_eq!(bye.via_count(), 4, "{bye:?}");
    heard.response(200, "BYE");
    assert!(!alice.trace.messages().iter().any(|message| message.is_response(482, "INVITE")));
}

#[test]
fn a_provider_that_nobody_configured_is_refused() {
    let world = World::new("through-555");
    let through = Edge::new(&world, Provider::Fcm, Transport::Udp);
    let params = ";pn-provider=webpush;pn-param=x;pn-prid=y".to_owned();
    let attach = Attach { contact_params: params, ..through.attach("alice", Transport::Tcp) };

    let phone = Phone::start(&world, Make::Pjsip, &attach);

    phone.trace.response(555, "REGISTER");
    assert!(through.kamailio.bindings("alice").is_empty());
}

#[test]
fn a_phone_that_asks_for_the_providers_is_told() {
    let world = World::new("through-query");
    let through = Edge::new(&world, Provider::Fcm, Transport::Udp);
    let attach = Attach { contact_params: ";pn-provider".into(), ..through.attach("alice", Transport::Tcp) };

    let phone = through.register(Make::Pjsip, &attach);

    let told = phone.trace.response(200, "REGISTER");
    assert!(told.header("Feature-Caps").is_some_and(|caps| caps.contains("+sip.pns=\"fcm\"")), "{told:?}");
    assert!(through.kamailio.bindings("alice").iter().all(|contact| !contact.contains("pn-")));
}
