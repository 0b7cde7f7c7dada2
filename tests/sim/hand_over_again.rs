//! Story (a), later on: handing over again, rectifying, refreshing, asking.

use reveille::engine::account::TrunkHost;
use reveille::engine::input::{Command, Rectification};
use reveille::engine::output::{Answer, Refusal, RegistrationState};
use reveille::sip::auth::Algorithm;
use reveille::vault::{Ha1, Ha1Algorithm, Material};

use crate::pbx::Verdict;
use crate::world::build::{DOMAIN, account, password, password_of, registrar, targets};
use crate::world::{World, hours, millis, minutes, secs, seed};

#[test]
fn handing_over_again_with_the_same_password_replaces_at_once_and_the_first_use_of_the_new_token_kills_the_old() {
    let mut world = World::new(seed(28)).with_sleeping_phone("alice");
    let (instance, old_token) = world.key_of("alice");
    let registers = world.pbx().registers.len();
    let asked = world.hand_over("alice");
    world.run_for(millis(3));

    let handed = world.handed_over(asked);
    assert!(handed.replaced);
    assert_eq!(handed.instance, instance);
    assert_eq!(handed.registration.state, RegistrationState::Registered);
    assert_eq!(world.pbx().registers.len(), registers, "no answer of the registrar was waited for");
    let with_new = world.show("alice");
    assert!(matches!(world.answer(with_new), Some(Answer::Instance(_))));
    let with_old = world.command(Command::Show(instance, old_token));
    assert_eq!(world.refusal(with_old), Some(Refusal::NotFound));
    world.assert_nothing_left();
    assert_eq!(world.table("leases"), 1);
}

#[test]
fn handing_over_again_with_the_ha1_of_the_same_password_replaces_at_once() {
    let mut world = World::new(seed(28)).with_sleeping_phone("alice");
    let registers = world.pbx().registers.len();
    let mut offer = world.offer("alice");
    let value = reveille::sip::digest::ha1(Algorithm::Md5, "alice", "pbx", password_of("alice").as_bytes());
    offer.material = Material::Ha1(vec![Ha1::new("pbx".to_owned(), Ha1Algorithm::Md5, value).expect("a hash")]);
    let asked = world.hand_over_this("alice", offer);
    world.run_for(millis(10));
    assert!(world.handed_over(asked).replaced);
    assert_eq!(world.pbx().registers.len(), registers);
}

#[test]
fn handing_over_again_with_another_password_that_registers_replaces_with_the_same_call_id_and_contact() {
    let mut world = World::new(seed(29)).with_sleeping_phone("alice");
    let (instance, _) = world.key_of("alice");
    let first = world.pbx().registers[1].clone();
    world.pbx().set_password("alice", "new at the PBX");
    let mut offer = world.offer("alice");
    offer.material = password("new at the PBX");
    let asked = world.hand_over_this("alice", offer);
    world.run_until_quiet();

    let handed = world.handed_over(asked);
    assert!(handed.replaced && handed.instance == instance);
    let last = world.pbx().registers.last().expect("a registration").clone();
    assert_eq!((last.code, &last.call_id, &last.contact), (200, &first.call_id, &first.contact));
    assert!(last.cseq > first.cseq);
    assert_eq!(world.pbx().contacts("alice").len(), 1);
    world.run_for(hours(2));
    assert_eq!(world.pbx().contacts("alice").len(), 1, "refreshed with the new password");
    world.assert_nothing_left();
}

#[test]
fn handing_over_again_with_a_wrong_password_leaves_the_predecessor_untouched() {
    let mut world = World::new(seed(30)).with_sleeping_phone("alice");
    let mut offer = world.offer("alice");
    offer.material = password("a guess");
    let asked = world.command(Command::HandOver(Box::new(offer)));
    world.run_until_quiet();

    assert!(matches!(world.refusal(asked), Some(Refusal::RegistrarRefused(_))));
    let shown = world.show("alice");
    assert!(matches!(world.answer(shown), Some(Answer::Instance(_))), "the old token still works");
    world.run_for(hours(2));
    assert_eq!(world.pbx().contacts("alice").len(), 1);
    let call = world.call_and_wait("alice");
    assert_eq!(world.pbx().final_response(call), Some(200));
    world.pbx().hang_up(call);
    world.assert_nothing_left();
}

#[test]
fn a_replacement_that_nobody_judges_in_time_is_unreachable_and_changes_nothing() {
    let mut world = World::new(seed(31)).with_sleeping_phone("alice");
    world.pbx().registrar.verdict = Verdict::Silent;
    let mut offer = world.offer("alice");
    offer.material = password("a guess");
    let asked = world.command(Command::HandOver(Box::new(offer)));
    world.run_for(millis(2999));
    assert!(world.answer(asked).is_none());
    world.run_for(millis(4));
    assert_eq!(world.refusal(asked), Some(Refusal::RegistrarUnreachable));
    assert_eq!(world.table("vault"), 1);
    world.pbx().registrar.verdict = Verdict::Fair;
    world.run_for(hours(1));
    assert_eq!(world.pbx().contacts("alice").len(), 1);
    world.assert_nothing_left();
}

#[test]
fn a_device_has_no_more_instances_than_its_limit() {
    let mut world = World::new(seed(33)).with_shards(4).with_policy(|policy| policy.limits.instances_per_device = 2);
    for name in ["alice", "bob", "carol"] {
        world.add_phone(name);
        let mut offer = world.offer(name);
        offer.device = "urn:uuid:one-device".to_owned();
        let asked = world.hand_over_this(name, offer);
        world.run_until_quiet();
        match name {
            "carol" => assert!(matches!(world.refusal(asked), Some(Refusal::RateLimited { .. }))),
            _ => assert!(!world.handed_over(asked).replaced),
        }
    }
}

#[test]
fn a_full_process_and_an_audit_log_that_cannot_be_written_admit_nobody() {
    let mut world = World::new(seed(34)).with_shards(1).with_policy(|policy| policy.limits.instances = 1);
    world = world.with_sleeping_phone("alice").with_phone("bob");
    let full = world.hand_over("bob");
    assert!(matches!(world.refusal(full), Some(Refusal::Busy { .. })));

    world.delete("alice");
    world.run_until_quiet();
    world.set_audit_writable(false);
    let unwritable = world.hand_over("bob");
    assert!(matches!(world.refusal(unwritable), Some(Refusal::Busy { .. })));
    world.set_audit_writable(true);
    let asked = world.hand_over("bob");
    world.run_until_quiet();
    assert!(!world.handed_over(asked).replaced);
}

#[test]
fn patching_the_push_target_sends_the_next_wake_to_it() {
    let mut world = World::new(seed(35)).with_sleeping_phone("alice");
    let (id, token) = world.key_of("alice");
    let change = Rectification { push: Some(targets("fresh-token")), ..Rectification::default() };
    let asked = world.command(Command::Rectify(id, token, Box::new(change)));
    assert!(matches!(world.answer(asked), Some(Answer::Instance(_))));
    world.pbx().invite("alice");
    world.run_for(secs(1));
    assert_eq!(world.pushes.last().expect("a push").token, "fresh-token");
}

#[test]
fn patching_the_destination_without_credentials_is_refused_and_changes_nothing() {
    let mut world = World::new(seed(36)).with_sleeping_phone("alice");
    let (id, token) = world.key_of("alice");
    let mut elsewhere = account("alice");
    elsewhere.registrar = registrar("sip:other.example.com");
    let change = Rectification { account: Some(elsewhere), push: Some(targets("x")), ..Rectification::default() };
    let asked = world.command(Command::Rectify(id, token, Box::new(change)));
    assert!(matches!(world.refusal(asked), Some(Refusal::InvalidAccount(_))));
    world.run_for(hours(1));
    assert_eq!(world.pbx().contacts("alice").len(), 1);
    let view = world.command(Command::Data(id, token));
    let Some(Answer::Data(data)) = world.answer(view) else { panic!("data") };
    assert_eq!(data.account.registrar.host, TrunkHost::Name(DOMAIN.to_owned()));
}

#[test]
fn patching_the_destination_with_credentials_moves_the_registration() {
    let mut world = World::new(seed(37)).with_sleeping_phone("alice");
    let other = world.add_pbx("other.example.com", "198.51.100.20:5060");
    world.pbx_at(other).set_password("alice", "secret there");
    let (id, token) = world.key_of("alice");
    let mut elsewhere = account("alice");
    elsewhere.registrar = registrar("sip:other.example.com");
    let change = Rectification {
        account: Some(elsewhere),
        material: Some(password("secret there")),
        ..Rectification::default()
    };
    let asked = world.command(Command::Rectify(id, token, Box::new(change)));
    world.run_for(millis(10));
    assert_eq!(world.table("vault"), 2, "the former secret is held until the new place grants");
    world.run_until_quiet();
    assert_eq!(world.table("vault"), 1, "and is wiped then");

    let Some(Answer::Instance(view)) = world.answer(asked) else { panic!("a view") };
    assert_eq!(view.registration.state, RegistrationState::Registered);
    assert!(world.pbx().contacts("alice").is_empty(), "gone from the former registrar");
    assert_eq!(world.pbx_at(other).contacts("alice").len(), 1);
    let former = world.pbx().registers[0].contact.clone();
    let leaked = world.pbx_at(other).registers.iter().any(|seen| seen.contact == former);
    assert!(!leaked, "the new registrar does not learn the capability the former one knows");
    world.assert_nothing_left();
}

#[test]
fn patching_one_instance_into_an_account_that_the_device_has_as_another_is_refused_and_changes_nothing() {
    let second = "sip:198.51.100.10";
    for shards in [1, 4] {
        let mut world = World::new(seed(64)).with_shards(shards).with_sleeping_phone("alice");
        let (id, token) = world.key_of("alice");
        let shard = id.shard();
        let mut offer = world.offer("alice");
        offer.account.registrar = registrar(second);
        // In the same shard, as it may be with any number of them.
        let asked = world.command_at(shard, Command::HandOver(Box::new(offer)));
        world.run_until_quiet();
        assert!(!world.handed_over(asked).replaced);

        let mut account = account("alice");
        account.registrar = registrar(second);
        let change = Rectification {
            account: Some(account),
            material: Some(password(&password_of("alice"))),
            ..Rectification::default()
        };
        let asked = world.command(Command::Rectify(id, token, Box::new(change)));
        world.run_until_quiet();
        assert!(matches!(world.refusal(asked), Some(Refusal::InvalidAccount(why)) if why.contains("another instance")));
        let tables = world.tables();
        assert_eq!((tables["leases"], tables["leases.accounts"], tables["vault"]), (2, 2, 2));
        assert_eq!(world.pbx().contacts("alice").len(), 2);
        world.assert_nothing_left();
    }
}

#[test]
fn patching_in_wrong_credentials_for_the_same_destination_is_refused_and_the_old_ones_stay() {
    let mut world = World::new(seed(38)).with_sleeping_phone("alice");
    let (id, token) = world.key_of("alice");
    let change =
        Rectification { material: Some(password("a typo")), push: Some(targets("half")), ..Rectification::default() };
    let asked = world.command(Command::Rectify(id, token, Box::new(change)));
    world.run_until_quiet();
    assert!(matches!(world.refusal(asked), Some(Refusal::RegistrarRefused(_))));
    world.run_for(hours(2));
    assert_eq!(world.pbx().contacts("alice").len(), 1);
    world.pbx().invite("alice");
    world.run_for(secs(1));
    assert_eq!(world.pushes.last().expect("a push").token, "push-token-alice", "refused as a whole");
}

#[test]
fn refreshing_starts_the_lease_anew() {
    let mut world = World::new(seed(39)).with_sleeping_phone("alice");
    world.run_for(hours(71));
    let (id, token) = world.key_of("alice");
    let asked = world.command(Command::Refresh(id, token));
    let Some(Answer::Instance(view)) = world.answer(asked) else { panic!("a view") };
    assert_eq!(view.lease_ends, world.now.wall + hours(72));
    world.run_for(hours(71));
    assert_eq!(world.table("leases"), 1);
    assert_eq!(world.pbx().contacts("alice").len(), 1);
    world.run_for(hours(2));
    world.assert_empty();
}

#[test]
fn data_tells_of_secrets_only_that_they_are_there() {
    let mut world = World::new(seed(40)).with_phone("alice");
    world.pbx().registrar.verdict = Verdict::Code(403, None);
    world.hand_over("alice");
    world.run_until_quiet();
    let (id, token) = world.key_of("alice");
    let before = world.command(Command::Data(id, token));
    world.pbx().registrar.verdict = Verdict::Fair;
    world.run_for(minutes(2));
    let after = world.command(Command::Data(id, token));

    let Some(Answer::Data(before)) = world.answer(before) else { panic!("data") };
    let Some(Answer::Data(after)) = world.answer(after) else { panic!("data") };
    assert!(before.password && before.ha1.is_empty());
    assert!(!after.password, "the password became HA1 and is wiped at the first 200");
    let realms: Vec<_> = after.ha1.iter().map(|(realm, algorithm)| (realm.as_str(), *algorithm)).collect();
    assert_eq!(realms, [("pbx", "MD5"), ("pbx", "SHA-256"), ("pbx", "SHA-512-256")]);
}

#[test]
fn a_wrong_token_and_an_unknown_instance_get_the_same_answer() {
    let mut world = World::new(seed(41)).with_sleeping_phone("alice");
    let (id, _) = world.key_of("alice");
    let wrong = world.command(Command::Show(id, World::token_hash("guess")));
    assert_eq!(world.refusal(wrong), Some(Refusal::NotFound));
    let unknown = reveille::engine::ids::InstanceId::mint(id.shard(), [7; 16]);
    let nobody = world.command(Command::Show(unknown, World::token_hash("guess")));
    assert_eq!(world.refusal(nobody), Some(Refusal::NotFound));
}
