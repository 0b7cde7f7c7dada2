//! Reinstalled apps: the same phone hands the same account over under another device id. The newer instance takes the older
//! one's place, and no caller, stranger or other account can bring that about.

use reveille::engine::audit::AuditEvent;
use reveille::engine::input::{Command, HandOver, Parting, Preferences, Rectification};
use reveille::engine::output::{Answer, CallOutcome, Refusal, RegistrationState, WakeDetail, WakeKind};
use reveille::engine::policy::TenantPolicy;
use reveille::sip::Method;

use crate::pbx::{Text, Verdict};
use crate::world::build::{password, registrar, targets};
use crate::world::{World, hours, millis, minutes, secs, seed};

#[test]
fn seven_reinstalls_in_a_row_leave_one_instance_that_rings_once() {
    for shards in [1, 3] {
        let mut world = World::new(seed(701)).with_shards(shards).with_sleeping_phone("alice");
        for number in 1..=7 {
            let asked = reinstall(&mut world, "alice", number);
            world.run_until_quiet();
            assert_eq!(world.handed_over(asked).registration.state, RegistrationState::Registered, "{number}");
            assert!(!world.handed_over(asked).replaced, "an instance of its own");
        }
        assert_eq!(held(&world), (1, 1, 1));
        assert_eq!(world.table("places"), 1, "only the newest device has a place");
        assert_eq!(causes(&world), [("replaced", "shared"); 7]);
        assert!(world.pushes.is_empty(), "the phone is told nothing: it is the same one");
        assert_eq!(world.pbx().contacts("alice").len(), 1);

        let call = world.call_and_wait("alice");
        assert_eq!(world.pbx().final_response(call), Some(200));
        assert_eq!(world.pushed(WakeKind::Call), 1);
        world.phone("alice").hang_up();
        world.assert_nothing_left();
    }
}

#[test]
fn reinstalls_while_the_registrar_is_still_silent_are_one_instance_too() {
    let mut world = World::new(seed(702)).with_phone("alice");
    world.pbx().registrar.verdict = Verdict::Silent;
    let asked: Vec<u64> = (1..=7).map(|number| reinstall(&mut world, "alice", number)).collect();
    world.run_for(millis(100));
    for former in &asked[..6] {
        let refusal = format!("{:?}", world.refusal(*former));
        assert!(refusal.contains("Gone") && refusal.contains("Replaced"), "{refusal}");
    }
    assert_eq!(held(&world), (1, 1, 1));
    world.pbx().registrar.verdict = Verdict::Fair;
    world.run_for(minutes(2));
    assert_eq!(world.handed_over(asked[6]).instance, world.key_of("alice").0);
    assert_eq!(world.pbx().contacts("alice").len(), 1);
    world.assert_nothing_left();
}

#[test]
fn the_older_instance_s_token_learns_that_it_was_replaced_and_gets_its_receipt() {
    let mut world = World::new(seed(703)).with_sleeping_phone("alice");
    let (id, token) = world.key_of("alice");
    reinstall(&mut world, "alice", 1);
    world.run_until_quiet();

    let shown = world.command(Command::Show(id, token));
    match world.refusal(shown) {
        Some(Refusal::Gone { cause, receipt: Some(receipt) }) => {
            assert_eq!(cause.as_str(), "replaced");
            assert!(receipt.record.contains("\"replaced\""), "{}", receipt.record);
        }
        other => panic!("{other:?}"),
    }
    let deleted = world.command(Command::Erase(id, token));
    assert!(matches!(world.answer(deleted), Some(Answer::Erased { .. })));
}

#[test]
fn another_account_of_the_same_phone_and_another_tenant_s_phone_stay() {
    let mut world = World::new(seed(704)).with_policy(|policy| {
        let other = TenantPolicy { id: "other".into(), ..policy.tenants[0].clone() };
        policy.tenants.push(other);
    });
    world = world.with_sleeping_phone("alice").with_phone("bob");
    let mut second = reinstalled(&world, "bob", 1);
    second.push = targets(&world.phone("alice").token.clone());
    world.hand_over_this("bob", second);
    let mut same_device = world.offer("bob");
    same_device.device = world.offer("alice").device;
    same_device.account.registrar = registrar("sip:198.51.100.10");
    same_device.push = targets(&world.phone("alice").token.clone());
    world.command(Command::HandOver(Box::new(same_device)));
    let mut foreign = reinstalled(&world, "alice", 2);
    foreign.tenant = "other".into();
    world.command(Command::HandOver(Box::new(foreign)));
    let mut other_phone = reinstalled(&world, "alice", 3);
    other_phone.push = targets("another-phone");
    world.command(Command::HandOver(Box::new(other_phone)));
    let mut other_app = reinstalled(&world, "alice", 4);
    other_app.push.iter_mut().for_each(|target| target.app = "com.example.other".to_owned());
    world.command(Command::HandOver(Box::new(other_app)));
    world.run_until_quiet();
    assert_eq!((world.table("leases"), causes(&world).len()), (6, 0));
}

#[test]
fn a_stranger_that_knows_the_token_and_not_the_credentials_changes_nothing() {
    for verdict in [Verdict::Fair, Verdict::Silent, Verdict::Code(403, None), Verdict::Code(503, None)] {
        let mut world = World::new(seed(705)).with_sleeping_phone("alice");
        let (id, token) = world.key_of("alice");
        world.pbx().registrar.verdict = verdict.clone();
        for number in 1..=3 {
            let mut guess = reinstalled(&world, "alice", number);
            guess.material = password(&format!("guess {number}"));
            world.command(Command::HandOver(Box::new(guess)));
            world.run_for(secs(12));
        }
        world.pbx().registrar.verdict = Verdict::Fair;
        world.run_for(hours(3));
        let shown = world.command(Command::Show(id, token));
        assert!(matches!(world.answer(shown), Some(Answer::Instance(_))), "{verdict:?}");
        assert!(causes(&world).iter().all(|(cause, _)| *cause != "replaced"), "{verdict:?}: {:?}", causes(&world));
    }
}

#[test]
fn a_stranger_with_a_proxy_that_grants_everything_changes_nothing() {
    let mut world = World::new(seed(706)).with_sleeping_phone("alice");
    let evil = world.add_pbx("evil.example.com", "198.51.100.66:5060");
    world.pbx_at(evil).set_password("alice", "a guess");
    let (id, token) = world.key_of("alice");
    let mut guess = reinstalled(&world, "alice", 1);
    guess.account.outbound_proxy = Some(registrar("sip:evil.example.com"));
    guess.material = password("a guess");
    let asked = world.command(Command::HandOver(Box::new(guess)));
    world.run_until_quiet();
    assert_eq!(world.handed_over(asked).registration.state, RegistrationState::Registered);
    let shown = world.command(Command::Show(id, token));
    assert!(matches!(world.answer(shown), Some(Answer::Instance(_))));
    assert!(causes(&world).is_empty());
}

#[test]
fn a_changed_password_that_registers_by_itself_takes_the_place_and_one_that_waits_does_so_later() {
    let mut world = World::new(seed(707)).with_sleeping_phone("alice");
    world.pbx().set_password("alice", "new at the PBX");
    let mut offer = reinstalled(&world, "alice", 1);
    offer.material = password("new at the PBX");
    let asked = world.hand_over_this("alice", offer);
    world.run_until_quiet();
    assert_eq!(world.handed_over(asked).registration.state, RegistrationState::Registered);
    assert_eq!((held(&world), causes(&world)), ((1, 1, 1), vec![("replaced", "shared")]));

    // The registrar does not answer, so the newest has a binding of its own and is answered 202.
    world.run_for(secs(20));
    world.pbx().set_password("alice", "the newest");
    world.pbx().registrar.verdict = Verdict::Silent;
    let mut offer = reinstalled(&world, "alice", 2);
    offer.material = password("the newest");
    let asked = world.hand_over_this("alice", offer);
    world.run_for(secs(4));
    assert_eq!(world.handed_over(asked).registration.state, RegistrationState::Registering);
    assert_eq!(world.table("leases"), 2, "nothing is proven yet");
    world.pbx().registrar.verdict = Verdict::Fair;
    world.run_for(minutes(5));
    assert_eq!(held(&world), (1, 1, 1));
    assert_eq!(causes(&world)[1].0, "replaced");
    // The former registration could not be removed with the former password.
    world.run_for(minutes(11));
    assert_eq!(world.pbx().contacts("alice").len(), 1);
    world.assert_nothing_left();
}

#[test]
fn an_older_instance_in_the_foreground_or_restricted_gives_way_once_the_newer_one_is_registered() {
    for restricted in [false, true] {
        let mut world = World::new(seed(708)).with_phone("alice");
        let mut offer = world.offer("alice");
        offer.preferences = Preferences { mode: reveille::engine::input::Mode::Background, ..Preferences::default() };
        world.hand_over_this("alice", offer);
        world.run_until_quiet();
        let (id, token) = world.key_of("alice");
        world.command(if restricted {
            Command::Restrict(id, token)
        } else {
            Command::Foreground(id, token, Parting::Release)
        });
        world.run_until_quiet();
        reinstall(&mut world, "alice", 1);
        world.run_until_quiet();
        assert_eq!(held(&world), (1, 1, 1), "restricted: {restricted}");
        let shown = world.command(Command::Show(id, token));
        assert!(format!("{:?}", world.refusal(shown)).contains("Replaced"));
        assert_eq!(world.pbx().contacts("alice").len(), 1);
        world.assert_nothing_left();
    }
}

#[test]
fn a_call_that_is_up_goes_on_to_its_end() {
    let mut world = World::new(seed(709)).with_sleeping_phone("alice");
    let call = world.call_and_wait("alice");
    assert!(world.pbx().call(call).is_up());
    reinstall(&mut world, "alice", 1);
    world.run_until_quiet();
    assert_eq!(causes(&world).len(), 1);
    world.pbx().inside(call, Method::Info, b"");
    world.run_for(secs(2));
    assert!(world.pbx().call(call).is_up());
    assert_eq!(world.phone("alice").requests.last().map(String::as_str), Some("INFO"));
    world.pbx().hang_up(call);
    world.run_for(secs(2));
    assert_eq!(world.phone("alice").requests.last().map(String::as_str), Some("BYE"));
    world.assert_nothing_left();
}

#[test]
fn a_call_that_is_held_for_the_older_instance_reaches_the_newer_one() {
    let mut world = World::new(seed(710)).with_sleeping_phone("alice").with("alice", |phone| phone.boot = secs(10));
    let call = world.pbx().invite("alice");
    world.run_for(secs(2));
    reinstall(&mut world, "alice", 1);
    world.run_for(secs(30));
    assert_eq!(world.pbx().final_response(call), Some(200));
    let woken: Vec<_> = world.pushes.iter().filter(|push| push.kind == WakeKind::Call).collect();
    assert_eq!((woken.len(), &woken[0].call), (2, &woken[1].call), "once for each instance, under one name");
    world.pbx().hang_up(call);
    world.assert_nothing_left();
}

#[test]
fn a_held_call_that_the_newer_instance_does_not_take_is_one_that_it_missed() {
    let mut world = World::new(seed(715)).with_sleeping_phone("alice").with("alice", |phone| phone.boot = minutes(10));
    let call = world.pbx().invite("alice");
    world.run_for(secs(2));
    reinstall(&mut world, "alice", 1);
    world.run_for(secs(50));
    assert_eq!((world.pbx().final_response(call), world.outcomes()), (Some(480), vec![CallOutcome::NoDevice]));
    assert_eq!(world.pushed(WakeKind::MissedCall), 1, "it hears so once");
    let reasons: Vec<_> = world.stories().iter().map(|story| story.reason()).collect();
    assert_eq!(reasons, [Some("erased"), Some("no-device")]);
}

#[test]
fn texts_that_wait_for_the_older_instance_are_told_to_the_newer_one() {
    let mut world = World::new(seed(711)).with_sleeping_phone("alice");
    for text in ["first", "second"] {
        world.pbx().text(Text::to("alice", text));
        world.run_until_quiet();
    }
    reinstall(&mut world, "alice", 1);
    world.run_until_quiet();
    assert_eq!((world.table("texts.held"), world.table("vault.sealed")), (2, 2));
    world.phone("alice").attach();
    world.run_until_quiet();
    assert_eq!(world.phone("alice").read(), ["first", "second"]);
    assert_eq!(world.table("vault.sealed"), 0);
    world.assert_nothing_left();
}

#[test]
fn where_push_tokens_are_proven_the_newer_instance_waits_for_its_proof() {
    let mut world =
        World::new(seed(712)).with_shards(3).with_policy(|policy| policy.tenants[0].prove_push_token = true);
    world = world.with_sleeping_phone("alice");
    prove(&mut world, "alice");
    let former = world.key_of("alice");
    reinstall(&mut world, "alice", 1);
    world.run_until_quiet();
    let shown = world.command(Command::Show(former.0, former.1));
    assert!(matches!(world.answer(shown), Some(Answer::Instance(_))), "the newer one is not proven");
    assert_eq!(world.table("leases"), 2);

    prove(&mut world, "alice");
    assert_eq!((held(&world), causes(&world)), ((1, 1, 1), vec![("replaced", "shared")]));
    let call = world.call_and_wait("alice");
    assert_eq!(world.pbx().final_response(call), Some(200));
}

#[test]
fn a_tenant_without_a_place_left_lets_an_app_be_installed_anew_and_takes_nobody_else_in() {
    for shards in [1, 3] {
        let mut world = World::new(seed(714)).with_shards(shards).with_policy(|policy| {
            policy.tenants[0].instances_max = Some(1);
        });
        world = world.with_sleeping_phone("alice").with_phone("bob");
        let other = world.hand_over("bob");
        let mut guess = reinstalled(&world, "alice", 1);
        guess.material = password("a guess");
        let guess = world.command(Command::HandOver(Box::new(guess)));
        world.run_until_quiet();
        for refused in [other, guess] {
            assert_eq!(world.refusal(refused), Some(Refusal::RateLimited { after: secs(30) }));
        }
        for number in 2..=4 {
            let asked = reinstall(&mut world, "alice", number);
            world.run_until_quiet();
            assert_eq!(world.handed_over(asked).registration.state, RegistrationState::Registered);
            assert_eq!((held(&world), world.table("places")), ((1, 1, 1), 2), "of the device and of the tenant");
        }
        world.delete("alice");
        world.run_until_quiet();
        world.assert_empty();
        world.hand_over_now("bob");
    }
}

#[test]
fn an_older_installation_that_hands_over_again_is_the_newest() {
    let mut world = World::new(seed(713)).with_sleeping_phone("alice");
    let backup = world.offer("alice");
    let other = targets("another-phone");
    let mut offer = reinstalled(&world, "alice", 1);
    offer.push = other;
    world.hand_over_this("alice", offer);
    world.run_until_quiet();
    assert_eq!(world.table("leases"), 2);
    let (id, token) = world.key_of("alice");

    // Its app learns its real push token a moment later.
    let change = Rectification { push: Some(backup.push.clone()), ..Rectification::default() };
    world.command(Command::Rectify(id, token, Box::new(change)));
    world.run_until_quiet();
    assert_eq!((world.table("leases"), causes(&world)), (1, vec![("replaced", "shared")]));

    let asked = world.hand_over_this("alice", backup);
    world.run_until_quiet();
    assert!(!world.handed_over(asked).replaced);
    assert_eq!(causes(&world).len(), 2);
    assert_eq!(world.key_of("alice").0, world.handed_over(asked).instance);
    assert_eq!(held(&world), (1, 1, 1));
    world.assert_nothing_left();
}

/// What the reinstalled app of `name` would hand over: the same phone and token, another device id.
fn reinstalled(world: &World, name: &str, number: u32) -> HandOver {
    let mut offer = world.offer(name);
    offer.device = format!("urn:uuid:installation-{number}");
    offer
}

fn reinstall(world: &mut World, name: &str, number: u32) -> u64 {
    let offer = reinstalled(world, name, number);
    world.hand_over_this(name, offer)
}

/// Instances, bindings and secrets.
fn held(world: &World) -> (usize, usize, usize) {
    (world.table("leases"), world.table("bindings"), world.table("vault"))
}

/// Causes and ends of all erasures so far, by name.
fn causes(world: &World) -> Vec<(&'static str, &'static str)> {
    let of = |event: &AuditEvent| match event {
        AuditEvent::Erased { cause, unregister, .. } => Some((cause.as_str(), unregister.as_str())),
        _ => None,
    };
    world.records.iter().filter_map(|record| of(&record.event)).collect()
}

/// Returns the challenge that was pushed last.
fn prove(world: &mut World, name: &str) {
    let challenge = world.pushes.iter().rev().find_map(|push| match push.detail {
        WakeDetail::Proof(challenge) => Some(challenge.text()),
        _ => None,
    });
    let (id, token) = world.key_of(name);
    world.command(Command::Prove(id, token, challenge));
    world.run_for(millis(100));
}
