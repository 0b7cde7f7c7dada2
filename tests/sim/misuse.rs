//! Whoever holds an app key, or an instance of his own, and makes more of it than is meant: what it costs the others.

use reveille::engine::input::{Command, HandOver, Parting, Rectification};
use reveille::engine::output::{Answer, Consent, HandedOver, Refusal, RegistrationState};

use crate::pbx::Verdict;
use crate::share::offer_of;
use crate::world::build::{TENANT, password, targets};
use crate::world::{World, hours, millis, secs, seed};

/// Hands alice's account over from a device of its own.
fn ask_from(world: &mut World, number: usize, text: &str) -> u64 {
    let mut offer = offer_of(world, "alice");
    (offer.device, offer.material) = (format!("urn:uuid:{number}"), password(text));
    let asked = world.command(Command::HandOver(Box::new(offer)));
    world.run_for(secs(4));
    asked
}

fn is_limited(world: &World, asked: u64) -> bool {
    matches!(world.refusal(asked), Some(Refusal::RateLimited { .. }))
}

#[test]
fn credentials_that_nobody_judges_get_no_more_bindings_of_an_account_than_it_may_have_devices() {
    let mut world = World::new(seed(1201))
        .with_policy(|policy| (policy.limits.devices_per_account, policy.limits.refusals_per_account) = (3, 1000))
        .with_phone("alice");
    world.pbx().registrar.verdict = Verdict::Code(503, None);
    for number in 0..50 {
        let asked = ask_from(&mut world, number, &format!("wrong {number}"));
        assert_eq!(is_limited(&world, asked), number >= 3, "{number}");
    }
    assert_eq!((world.table("leases.benches"), world.table("vault"), world.table("places")), (3, 3, 3));
    let again = ask_from(&mut world, 50, "wrong 1");
    assert!(matches!(world.answer(again), Some(Answer::HandedOver(_))), "what is held may be shared");
}

#[test]
fn a_wrong_guess_at_a_held_account_counts_where_its_registrar_does_not_judge_it() {
    for (verdict, deletes) in
        [(Verdict::Silent, false), (Verdict::Silent, true), (Verdict::Code(503, None), false), (Verdict::Fair, false)]
    {
        let mut world = World::new(seed(1202))
            .with_policy(|policy| (policy.limits.devices_per_account, policy.limits.refusals_per_account) = (100, 4))
            .with_sleeping_phone("alice");
        world.pbx().registrar.verdict = verdict.clone();
        for number in 0..30 {
            let asked = ask_from(&mut world, number, &format!("wrong {number}"));
            assert_eq!(is_limited(&world, asked), number >= 4, "{number} where it says {verdict:?}");
            if deletes {
                delete_at_once(&mut world, asked);
            }
        }
        let right = ask_from(&mut world, 30, "secret of alice");
        assert!(is_limited(&world, right), "nobody learns that it is");
    }
}

fn delete_at_once(world: &mut World, asked: u64) {
    let Some(Answer::HandedOver(it)) = world.answer(asked) else { return };
    let HandedOver { instance, token, .. } = it.as_ref();
    let (id, token) = (*instance, World::token_hash(token));
    world.command(Command::Erase(id, token));
    world.run_for(secs(3));
}

#[test]
fn other_credentials_that_register_are_no_wrong_guess_at_a_held_account() {
    let mut world = World::new(seed(1203))
        .with_policy(|policy| policy.limits.refusals_per_account = 1)
        .with_sleeping_phone("alice");
    world.pbx().set_password("alice", "new at the PBX");
    let asked = ask_from(&mut world, 1, "new at the PBX");
    assert_eq!(world.handed_over(asked).registration.state, RegistrationState::Registered);
    let asked = ask_from(&mut world, 2, "new at the PBX");
    assert_eq!(world.handed_over(asked).registration.state, RegistrationState::Registered);
    assert_eq!((world.table("guesses"), world.table("guesses.paid")), (0, 0));
    world.assert_nothing_left();
}

#[test]
fn asking_again_while_other_credentials_are_tried_is_no_wrong_guess() {
    let mut world = World::new(seed(1211)).with_sleeping_phone("alice");
    world.pbx().set_password("alice", "new at the PBX");
    world.wire.latency = millis(200);
    let mut ask = || {
        let mut offer = world.offer("alice");
        offer.material = password("new at the PBX");
        let asked = world.command(Command::HandOver(Box::new(offer)));
        world.run_for(millis(50));
        asked
    };
    let (first, others) = (ask(), [ask(), ask(), ask()]);
    assert!(others.iter().all(|asked| is_limited(&world, *asked)), "one is under way");
    world.run_for(secs(4));
    assert_eq!(world.handed_over(first).registration.state, RegistrationState::Registered);
    assert_eq!((world.table("guesses"), world.table("guesses.paid")), (0, 0));
}

#[test]
fn guessing_through_the_account_of_ones_own_instance_counts_as_well() {
    // What another shard holds is not compared at all.
    let mut world = World::new(seed(1204))
        .with_shards(1)
        .with_policy(|policy| (policy.limits.devices_per_account, policy.limits.refusals_per_account) = (100, 4))
        .with_sleeping_phone("alice")
        .with_sleeping_phone("bob");
    world.pbx().registrar.verdict = Verdict::Silent;
    for number in 0..10 {
        let (id, token) = world.key_of("bob");
        let account = Some(offer_of(&world, "bob").account);
        let material = Some(password(&format!("wrong {number}")));
        let change = Rectification { account, material, ..Rectification::default() };
        let asked = world.command(Command::Rectify(id, token, Box::new(change)));
        world.run_for(secs(4));
        assert_eq!(is_limited(&world, asked), number >= 4, "{number}");
        // Back to an account of his own, so that the next guess leads elsewhere again.
        let mine = Rectification {
            account: Some(world.offer("bob").account),
            material: Some(password("secret of bob")),
            ..Rectification::default()
        };
        let (id, token) = world.key_of("bob");
        world.command(Command::Rectify(id, token, Box::new(mine)));
        world.run_for(secs(4));
    }
}

#[test]
fn other_credentials_are_not_taken_while_nothing_can_be_recorded() {
    let mut world = World::new(seed(1205)).with_sleeping_phone("alice");
    let (id, token) = world.key_of("alice");
    world.set_audit_writable(false);
    let registers = world.pbx().registers.len();
    world.pbx().set_password("alice", "other");
    let other = Rectification { material: Some(password("other")), ..Rectification::default() };
    let asked = world.command(Command::Rectify(id, token, Box::new(other)));
    world.run_for(secs(4));
    assert!(matches!(world.refusal(asked), Some(Refusal::Busy { .. })), "{:?}", world.refusal(asked));
    assert_eq!((world.table("vault"), world.table("guesses.paid")), (1, 0));
    assert_eq!(world.pbx().registers.len(), registers, "nobody was asked");
    let plain = Rectification { push: Some(targets("another")), ..Rectification::default() };
    let asked = world.command(Command::Rectify(id, token, Box::new(plain)));
    assert!(matches!(world.answer(asked), Some(Answer::Instance(_))), "what brings no credentials is taken");
}

#[test]
fn a_former_password_does_not_outlive_the_first_registration_of_another_device() {
    let mut world = World::new(seed(1207)).with_phone("alice").with_phone("tablet");
    world.pbx().registrar.verdict = Verdict::Code(503, None);
    let first = world.hand_over("alice");
    world.run_for(secs(4));
    let offer = offer_of(&world, "tablet");
    let second = world.hand_over_this("tablet", offer);
    world.run_for(secs(4));
    assert!(world.handed_over(first).registration.state != RegistrationState::Registered);
    assert!(world.handed_over(second).registration.state != RegistrationState::Registered);
    assert_eq!(world.table("bindings"), 1, "one binding");

    world.pbx().registrar.verdict = Verdict::Fair;
    world.pbx().set_password("alice", "new at the PBX");
    let mut offer = offer_of(&world, "tablet");
    offer.material = password("new at the PBX");
    let asked = world.hand_over_this("tablet", offer);
    world.run_for(secs(4));
    assert_eq!(world.handed_over(asked).registration.state, RegistrationState::Registered);
    for name in ["alice", "tablet"] {
        let (id, token) = world.key_of(name);
        let asked = world.command(Command::Data(id, token));
        let Some(Answer::Data(data)) = world.answer(asked) else { panic!("data") };
        assert!(!data.password, "the password of {name}");
    }
}

const CONSENT: Consent =
    Consent { sip: true, decisions: true, identities: false, span: hours(2), tenant_may_read: true };

#[test]
fn calls_that_are_recorded_are_bounded_for_each_instance() {
    let mut world = World::new(seed(1208)).with_sleeping_phone("alice").with_sleeping_phone("bob");
    let (id, token) = world.key_of("alice");
    world.command(Command::Consent(id, token, CONSENT));
    let records = world.records.len();
    for _ in 0..1000 {
        world.command(Command::Refresh(id, token));
    }
    world.run_for(secs(1));
    assert!(world.records.len() < records + 150, "{} records", world.records.len() - records);

    let change = Rectification { push: Some(targets("another")), ..Rectification::default() };
    let commands = [
        Command::Refresh(id, token),
        Command::Consent(id, token, CONSENT),
        Command::Rectify(id, token, Box::new(change)),
    ];
    for command in commands {
        let asked = world.command(command);
        let Some(Refusal::RateLimited { after }) = world.refusal(asked) else { panic!("{:?}", world.refusal(asked)) };
        assert!(after > secs(0) && after < secs(60), "{after:?}");
    }
    for reading in [Command::ReadTrace(id, token), Command::ReadTraceAsTenant(TENANT.into(), id)] {
        let read = world.command(reading);
        assert!(matches!(world.answer(read), Some(Answer::Trace(_))), "nobody has read anything yet");
    }
    for command in [Command::Show(id, token), Command::Data(id, token)] {
        let asked = world.command(command);
        assert!(!is_limited(&world, asked), "nothing is recorded of it");
    }
    let (other, key) = world.key_of("bob");
    let asked = world.command(Command::Refresh(other, key));
    assert!(matches!(world.answer(asked), Some(Answer::Instance(_))), "another instance is not concerned");
    world.run_for(secs(60));
    let asked = world.command(Command::Refresh(id, token));
    assert!(matches!(world.answer(asked), Some(Answer::Instance(_))), "a while later");
}

#[test]
fn what_takes_away_is_never_refused_for_its_number() {
    let mut world = World::new(seed(1209)).with_phone("alice");
    let mut offer: HandOver = world.offer("alice");
    offer.preferences.mode = reveille::engine::input::Mode::Background;
    world.hand_over_this("alice", offer);
    world.run_until_quiet();
    let (id, token) = world.key_of("alice");
    world.command(Command::Consent(id, token, CONSENT));
    for _ in 0..200 {
        world.command(Command::Refresh(id, token));
    }
    let asked = world.command(Command::Refresh(id, token));
    assert!(is_limited(&world, asked));

    let asked = world.command(Command::WithdrawTrace(id, token));
    assert!(matches!(world.answer(asked), Some(Answer::TraceEnded(true))));
    let asked = world.command(Command::Restrict(id, token));
    assert!(matches!(world.answer(asked), Some(Answer::Instance(_))));
    let resumed = world.command(Command::Resume(id, token));
    assert!(is_limited(&world, resumed), "to be processed again is to give");
    let asked = world.command(Command::Foreground(id, token, Parting::Release));
    assert!(!is_limited(&world, asked), "credentials are wiped");
    let asked = world.command(Command::Erase(id, token));
    world.run_until_quiet();
    assert!(matches!(world.answer(asked), Some(Answer::Erased { .. })));
}

#[test]
fn whoever_reads_a_trace_again_and_again_is_bounded_and_keeps_nobody_from_anything_else() {
    for by_tenant in [false, true] {
        let mut world = World::new(seed(1210)).with_sleeping_phone("alice");
        let (id, token) = world.key_of("alice");
        let read = |by_tenant| match by_tenant {
            true => Command::ReadTraceAsTenant(TENANT.into(), id),
            false => Command::ReadTrace(id, token),
        };
        world.command(Command::Consent(id, token, CONSENT));
        let records = world.records.len();
        let mut last = 0;
        for _ in 0..1000 {
            last = world.command(read(by_tenant));
        }
        world.run_for(secs(1));
        assert!(is_limited(&world, last));
        assert!(world.records.len() < records + 150, "{} records", world.records.len() - records);
        for command in [Command::Refresh(id, token), read(!by_tenant)] {
            let asked = world.command(command);
            assert!(!is_limited(&world, asked));
        }
        let asked = world.command(Command::Consent(id, token, CONSENT));
        assert!(!is_limited(&world, asked));
        let asked = world.command(read(by_tenant));
        assert!(is_limited(&world, asked), "another consent changes nothing about that");
    }
}

#[test]
fn the_edge_tells_nobody_without_the_token_what_became_of_an_instance() {
    for wrong_token in [true, false] {
        let mut seen = Vec::new();
        for state in ["live", "restricted", "erased"] {
            let mut world = World::new(seed(1211)).with_sleeping_phone("alice");
            let (id, token) = world.key_of("alice");
            match state {
                "restricted" => _ = world.command(Command::Restrict(id, token)),
                "erased" => _ = world.delete("alice"),
                _ => {}
            }
            world.run_until_quiet();
            if wrong_token {
                let account = world.phone("alice").account.as_mut().expect("handed over");
                account.token = "a guess".to_owned().into();
            }
            world.phone("alice").attach_once();
            world.run_for(secs(5));
            seen.push((state, world.phone("alice").verdicts.clone()));
        }
        let expected = |right: u16| vec![401, if wrong_token { 401 } else { right }];
        assert_eq!(seen, [("live", expected(200)), ("restricted", expected(403)), ("erased", expected(404))]);
    }
}
