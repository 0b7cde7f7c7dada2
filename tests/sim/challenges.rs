//! Registrars and proxies that ask who we are in every form there is: several realms on one way, forms of digest that few use,
//! and what cannot be signed, which is named and is no wrong password.

use reveille::engine::audit::{AuditEvent, Cause, Unregister};
use reveille::engine::input::Command;
use reveille::engine::output::{Answer, Refusal, RegistrationReason, RegistrationState, WakeKind};
use reveille::sip::auth::Algorithm;
use reveille::sip::digest;
use reveille::vault::{Ha1, Ha1Algorithm, Material};

use crate::pbx::{Guard, Pbx};
use crate::world::build::{password, password_of};
use crate::world::{World, hours, minutes, secs, seed};

fn behind(number: u64, guards: impl IntoIterator<Item = Guard>) -> World {
    let list: Vec<Guard> = guards.into_iter().collect();
    World::new(seed(number)).with_pbx(|pbx| pbx.registrar.guards.list = list).with_phone("alice")
}

fn proxy_and_registrar() -> [Guard; 2] {
    [Guard::new(true, "proxy"), Guard::new(false, "pbx")]
}

fn register(world: &mut World) {
    let asked = world.hand_over("alice");
    world.run_for(secs(10));
    assert_eq!(world.handed_over(asked).registration.state, RegistrationState::Registered);
}

fn shown(world: &mut World) -> (RegistrationState, Option<RegistrationReason>, Option<String>) {
    let asked = world.show("alice");
    let Some(Answer::Instance(view)) = world.answer(asked) else { panic!("a view: {:?}", world.refusal(asked)) };
    let registration = &view.registration;
    (registration.state, registration.reason, registration.verdict.clone())
}

fn held(world: &mut World) -> (bool, Vec<String>) {
    let (id, token) = world.key_of("alice");
    let asked = world.command(Command::Data(id, token));
    let Some(Answer::Data(data)) = world.answer(asked) else { panic!("data") };
    (data.password, data.ha1.iter().map(|(realm, algorithm)| format!("{realm} {algorithm}")).collect())
}

fn asked(pbx: &Pbx, realm: &str) -> u32 {
    pbx.registrar.guards.asked.get(realm.as_bytes()).copied().unwrap_or_default()
}

#[test]
fn a_proxy_and_the_registrar_behind_it_are_both_answered_and_later_requests_answer_both_at_once() {
    let mut world = behind(1, proxy_and_registrar());
    register(&mut world);
    assert_eq!(world.pbx().verdicts(), [407, 401, 200]);
    let kinds = |fields: &Vec<(bool, Vec<u8>)>| fields.iter().map(|(proxy, _)| *proxy).collect::<Vec<_>>();
    let of_each: Vec<_> = world.pbx().registrar.guards.shown.iter().map(kinds).collect();
    assert_eq!(of_each, [vec![], vec![true], vec![true, false]]);
    let mut hashes = held(&mut world);
    hashes.1.retain(|it| it.ends_with(" MD5"));
    assert_eq!(hashes, (false, vec!["proxy MD5".to_owned(), "pbx MD5".to_owned()]), "of each realm, and no password");

    world.run_for(hours(6));
    assert!(world.pbx().verdicts()[3..].iter().all(|code| *code == 200) && world.pbx().verdicts().len() > 30);
    assert_eq!((asked(world.pbx(), "proxy"), asked(world.pbx(), "pbx")), (1, 1));
    world.assert_nothing_left();
}

#[test]
fn realms_of_one_kind_and_challenges_of_one_response_are_all_answered() {
    for kinds in [[false, false], [true, true], [true, false], [false, true]] {
        for (together, codes) in [(false, 3), (true, 2)] {
            let mut world = behind(2, [Guard::new(kinds[0], "one"), Guard::new(kinds[1], "two")]);
            world.pbx().registrar.guards.together = together;
            register(&mut world);
            assert_eq!(world.pbx().verdicts().len(), codes, "{kinds:?}");
            world.run_for(hours(2));
            assert_eq!((asked(world.pbx(), "one"), asked(world.pbx(), "two")), (1, 1), "{kinds:?}");
        }
    }
}

#[test]
fn one_realm_under_both_kinds_may_have_an_algorithm_for_each() {
    let strong = Guard::new(false, "pbx").saying(",algorithm=SHA-256,qop=\"auth\"").signed(
        Algorithm::Sha256,
        false,
        Some("auth"),
    );
    let mut world = behind(3, [Guard::new(true, "pbx"), strong]);
    register(&mut world);
    world.run_for(hours(2));
    assert!(world.pbx().verdicts()[3..].iter().all(|code| *code == 200));
    assert_eq!(held(&mut world), (false, ["pbx MD5", "pbx SHA-256", "pbx SHA-512-256"].map(str::to_owned).to_vec()));
}

#[test]
fn a_stale_nonce_of_one_realm_leaves_the_others_alone() {
    let [proxy, mut registrar] = proxy_and_registrar();
    registrar.life = 2;
    let mut world = behind(4, [proxy, registrar]);
    register(&mut world);
    world.run_for(hours(4));
    let codes = world.pbx().verdicts();
    assert!(codes[3..].iter().all(|code| [401, 200].contains(code)), "{codes:?}");
    assert_eq!(asked(world.pbx(), "proxy"), 1);
    assert!(asked(world.pbx(), "pbx") > 5);
    assert_eq!(shown(&mut world).0, RegistrationState::Registered);
}

#[test]
fn a_registration_behind_a_proxy_is_removed_with_fresh_challenges_of_both() {
    let mut world = behind(5, proxy_and_registrar());
    register(&mut world);
    world.pbx().registrar.guards.list = proxy_and_registrar().to_vec();
    let before = world.pbx().registers.len();
    world.delete("alice");
    world.run_until_quiet();
    assert_eq!(world.pbx().verdicts()[before..], [407, 401, 200]);
    assert!(world.pbx().contacts("alice").is_empty());
    let last = world.records.last().expect("a record");
    assert!(matches!(last.event, AuditEvent::Erased { unregister: Unregister::Confirmed, .. }), "{:?}", last.event);
}

#[test]
fn a_mailbox_behind_a_proxy_is_subscribed_and_refreshed() {
    let mut world = behind(6, proxy_and_registrar());
    let mut offer = world.offer("alice");
    offer.preferences.voicemail_subscribe = true;
    world.hand_over_this("alice", offer);
    world.run_for(hours(5));
    let codes: Vec<u16> = world.pbx().mailbox.subscribes.iter().map(|it| it.code).collect();
    assert_eq!(codes[..3], [407, 401, 200]);
    assert!(codes.len() > 3 && codes[3..].iter().all(|code| *code == 200), "{codes:?}");
    world.pbx().registrar.guards.list = proxy_and_registrar().to_vec();
    world.delete("alice");
    world.run_until_quiet();
    assert_eq!(world.pbx().mailbox.subscribes.last().map(|it| it.code), Some(200), "ended with fresh challenges");
}

#[test]
fn a_wrong_password_behind_a_proxy_is_refused_and_not_shown_more_often() {
    for (first, second) in [("right", "right"), ("right", "wrong"), ("wrong", "right")] {
        let mut world = behind(7, proxy_and_registrar());
        let guards = &mut world.pbx().registrar.guards.list;
        guards[0].closed = first == "wrong";
        guards[1].closed = second == "wrong";
        let asked = world.hand_over("alice");
        world.run_for(secs(10));
        let registers = world.pbx().registers.len();
        if (first, second) == ("right", "right") {
            assert_eq!(registers, 3);
            continue;
        }
        assert!(matches!(world.refusal(asked), Some(Refusal::RegistrarRefused(_))), "{:?}", world.refusal(asked));
        assert_eq!(registers, if first == "wrong" { 3 } else { 4 }, "each refuses twice at most");
        world.run_for(hours(24));
        assert_eq!(world.pbx().registers.len(), registers);
        world.assert_empty();
    }
}

#[test]
fn a_registrar_that_asks_under_ever_more_realms_is_given_up() {
    let many = (0..30).map(|number| Guard::new(number % 2 == 0, format!("realm {number}")));
    let mut world = behind(8, many);
    let asked = world.hand_over("alice");
    world.run_for(secs(20));
    let Some(Refusal::ChallengeUnsignable { reason, verdict }) = world.refusal(asked) else { panic!("an answer") };
    assert_eq!(reason, RegistrationReason::ChallengeUnsupported, "{verdict}");
    assert!(world.pbx().registers.len() < 12, "{}", world.pbx().registers.len());
    assert!(world.pbx().registrar.guards.shown.iter().all(|fields| fields.len() <= 4));
    world.assert_empty();
}

#[test]
fn a_realm_that_changes_is_answered_alone_where_the_password_is_kept() {
    let mut world = behind(9, [Guard::new(false, "old")]).with_policy(|policy| policy.tenants[0].keep_password = true);
    register(&mut world);
    world.pbx().registrar.guards.list = vec![Guard::new(false, "new")];
    world.run_for(hours(1));
    assert_eq!(shown(&mut world).0, RegistrationState::Registered);
    assert_eq!(world.pbx().registrar.guards.shown.last().map(Vec::len), Some(1), "no answer to a realm that is gone");
}

#[test]
fn every_form_of_digest_that_can_be_signed_is() {
    let md5 = |rest: &str, session, qop| Guard::new(false, "pbx").saying(rest).signed(Algorithm::Md5, session, qop);
    let with = |mut guard: Guard, change: fn(&mut Guard)| {
        change(&mut guard);
        guard
    };
    let (auth, int) = (Some("auth"), Some("auth-int"));
    let forms = [
        md5(",qop=\"\",algorithm=\"\"", false, None),
        md5(",qop=,algorithm=", false, None),
        md5("", false, None),
        md5(",algorithm=MD5-sess,qop=\"auth\"", true, auth),
        md5(",algorithm=\"md5-SESS\"", true, None),
        md5(",algorithm=MD5-sess,qop=\"auth-int\"", true, int),
        md5(",qop=\"auth-int\"", false, int),
        md5(",qop=auth,auth-int", false, auth),
        md5(",qop=auth-int,AUTH,algorithm=md5", false, auth),
        md5(",QOP=\"AUTH\",Algorithm=MD5,domain=\"\",userhash=true,stale=FALSE, ,", false, auth),
        Guard::new(false, "pbx").saying(",algorithm=SHA-256-sess,qop=\"auth\"").signed(Algorithm::Sha256, true, auth),
        Guard::new(false, "pbx").saying(",algorithm=SHA-256,qop=\"auth-int\"").signed(Algorithm::Sha256, false, int),
        Guard::new(false, "pbx").saying(",algorithm=SHA-512-256-sess,qop=auth").signed(
            Algorithm::Sha512256,
            true,
            auth,
        ),
        Guard::new(false, &b"M\xfcller \\\"PBX\\\""[..]),
        with(Guard::new(true, "pbx"), |guard| guard.nonce_length = 2048),
        Guard::new(false, "pbx").beside("Digest realm=\"pbx\",nonce=\"1\",algorithm=SHA-512,qop=\"auth\""),
        Guard::new(false, "pbx").beside("Basic realm=\"pbx\"").beside("Bearer realm=\"pbx\",scope=\"x\""),
        with(Guard::new(false, "pbx"), |guard| guard.life = 1),
    ];
    for (number, form) in forms.into_iter().enumerate() {
        let said = form.rest.clone();
        let lasts = form.life > 1;
        let mut world = behind(10, [form]);
        register(&mut world);
        assert_eq!(world.pbx().registers.len(), 2, "form {number}: {said}");
        world.run_for(hours(2));
        let codes = world.pbx().verdicts();
        assert!(
            codes.len() > 10 && (!lasts || codes[2..].iter().all(|code| *code == 200)),
            "{number} {said}: {codes:?}"
        );
        assert_eq!(shown(&mut world).0, RegistrationState::Registered, "form {number}: {said}");
        assert!(!held(&mut world).0);
        world.assert_nothing_left();
    }
}

fn unsignable() -> Vec<Guard> {
    let said = |rest: &str| Guard::new(false, "pbx").saying(rest);
    let mut long = Guard::new(false, "pbx");
    long.nonce_length = 3000;
    vec![
        said(",algorithm=SHA-512,qop=\"auth\""),
        said(",algorithm=\"MD5, SHA-256\""),
        said(",qop=\"auth-conf\""),
        said(",nonce=\"another\""),
        long,
    ]
}

#[test]
fn what_cannot_be_signed_is_named_at_hand_over_and_is_no_wrong_guess() {
    for guard in unsignable() {
        let said = guard.rest.clone();
        let mut world = behind(11, [guard]);
        for _ in 0..12 {
            let asked = world.hand_over("alice");
            world.run_for(secs(10));
            let Some(Refusal::ChallengeUnsignable { reason, verdict }) = world.refusal(asked) else {
                panic!("{said}: {:?}", world.refusal(asked))
            };
            assert_eq!(reason, RegistrationReason::ChallengeUnsupported, "{said}");
            assert!(verdict.starts_with("401 Unauthorized; the registrar"), "{verdict}");
        }
        assert_eq!(world.pbx().registers.len(), 12, "one REGISTER each");
        assert!(
            world
                .records
                .iter()
                .all(|record| !matches!(record.event, AuditEvent::Erased { cause: Cause::Refused, .. }))
        );
        world.assert_empty();
        world.pbx().registrar.guards.list = vec![Guard::new(false, "pbx")];
        register(&mut world);
    }
}

#[test]
fn what_cannot_be_signed_any_more_is_named_counts_as_no_refusal_and_ends_after_twelve_hours() {
    for guard in unsignable() {
        let said = guard.rest.clone();
        let mut world = behind(12, [Guard::new(false, "pbx")]);
        register(&mut world);
        world.pbx().registrar.guards.list = vec![guard];
        world.run_for(hours(11));
        let (state, reason, verdict) = shown(&mut world);
        assert_eq!(
            (state, reason),
            (RegistrationState::Failing, Some(RegistrationReason::ChallengeUnsupported)),
            "{said}"
        );
        assert!(verdict.is_some_and(|words| words.contains("; the registrar")), "{said}");
        assert_eq!(world.pushed(WakeKind::Reprovision), 0, "the app cannot help");
        world.run_for(hours(2));
        let last = world.records.last().expect("a record");
        assert!(
            matches!(last.event, AuditEvent::Erased { cause: Cause::Unregistrable, .. }),
            "{said}: {:?}",
            last.event
        );
        world.assert_empty();
    }
}

#[test]
fn what_cannot_be_signed_after_the_answer_does_not_end_the_instance() {
    let [unsigned, ..] = &unsignable()[..] else { panic!("some") };
    let mut world = behind(13, [unsigned.clone()]);
    world.pbx().registrar.delay = secs(6);
    let asked = world.hand_over("alice");
    world.run_for(secs(30));
    assert_eq!(world.handed_over(asked).registration.state, RegistrationState::Registering);
    let (state, reason, _) = shown(&mut world);
    assert_eq!((state, reason), (RegistrationState::Failing, Some(RegistrationReason::ChallengeUnsupported)));
    world.pbx().registrar.delay = secs(0);
    world.pbx().registrar.guards.list = vec![Guard::new(false, "pbx")];
    world.run_for(hours(1));
    assert_eq!(shown(&mut world).0, RegistrationState::Registered);
}

fn ha1s(entries: &[(&str, Algorithm)]) -> Material {
    let of = |(realm, algorithm): &(&str, Algorithm)| {
        let kind = match algorithm {
            Algorithm::Md5 => Ha1Algorithm::Md5,
            Algorithm::Sha256 => Ha1Algorithm::Sha256,
            Algorithm::Sha512256 => Ha1Algorithm::Sha512256,
        };
        Ha1::new(*realm, kind, digest::ha1(*algorithm, "alice", realm, password_of("alice").as_bytes()))
            .expect("a hash")
    };
    Material::Ha1(entries.iter().map(of).collect())
}

#[test]
fn an_ha1_for_another_realm_or_algorithm_is_named_with_what_the_registrar_wants() {
    let strong = || {
        Guard::new(false, "pbx").saying(",algorithm=SHA-256,qop=\"auth\"").signed(
            Algorithm::Sha256,
            false,
            Some("auth"),
        )
    };
    for (guard, entries, words) in [
        (Guard::new(false, "pbx"), [("example.com", Algorithm::Md5)], "realm pbx, algorithm MD5"),
        (strong(), [("pbx", Algorithm::Md5)], "realm pbx, algorithm SHA-256"),
        (
            Guard::new(false, "pbx").saying(",algorithm=MD5-sess").signed(Algorithm::Md5, true, None),
            [("pbx", Algorithm::Sha256)],
            "realm pbx, algorithm MD5-sess",
        ),
        (Guard::new(true, &b"M\xfcller"[..]), [("pbx", Algorithm::Md5)], "realm Müller, algorithm MD5"),
    ] {
        let mut world = behind(14, [guard]);
        let mut offer = world.offer("alice");
        offer.material = ha1s(&entries);
        let asked = world.hand_over_this("alice", offer);
        world.run_for(secs(10));
        let Some(Refusal::ChallengeUnsignable { reason, verdict }) = world.refusal(asked) else { panic!("{words}") };
        assert_eq!(reason, RegistrationReason::NoMatchingHa1);
        assert!(verdict.ends_with(&format!("the registrar asks for {words}; no ha1 for it")), "{verdict}");
        assert_eq!(world.pbx().registers.len(), 1);
        world.assert_empty();
    }
}

#[test]
fn ha1s_for_several_realms_answer_them_all() {
    let mut world = behind(15, [Guard::new(true, "proxy"), Guard::new(false, &b"M\xfcller"[..])]);
    // The app gives the realm as text, and its hash over the bytes the registrar has.
    let bytes = digest::ha1(Algorithm::Md5, "alice", b"M\xfcller", password_of("alice").as_bytes());
    let mut offer = world.offer("alice");
    let Material::Ha1(mut hashes) = ha1s(&[("proxy", Algorithm::Md5)]) else { panic!("hashes") };
    hashes.push(Ha1::new("Müller", Ha1Algorithm::Md5, bytes).expect("a hash"));
    offer.material = Material::Ha1(hashes);
    let asked = world.hand_over_this("alice", offer);
    world.run_for(secs(10));
    assert_eq!(world.handed_over(asked).registration.state, RegistrationState::Registered);
    world.run_for(hours(2));
    assert_eq!(shown(&mut world).0, RegistrationState::Registered);
}

#[test]
fn other_credentials_that_do_not_fit_are_named_and_change_nothing() {
    let mut world = behind(16, [Guard::new(false, "pbx")]);
    register(&mut world);
    let mut offer = world.offer("alice");
    offer.material = ha1s(&[("example.com", Algorithm::Md5)]);
    let asked = world.command(Command::HandOver(Box::new(offer)));
    world.run_for(secs(10));
    let refusal = world.refusal(asked);
    assert!(
        matches!(refusal, Some(Refusal::ChallengeUnsignable { reason: RegistrationReason::NoMatchingHa1, .. })),
        "{refusal:?}"
    );
    assert_eq!(shown(&mut world).0, RegistrationState::Registered);
    world.run_for(minutes(60));
    assert_eq!(world.table("vault"), 1);
    world.assert_nothing_left();
}

#[test]
fn a_changed_password_is_tried_behind_a_proxy_and_taken() {
    let mut world = behind(17, proxy_and_registrar());
    register(&mut world);
    world.pbx().set_password("alice", "new");
    let mut offer = world.offer("alice");
    offer.material = password("new");
    let asked = world.hand_over_this("alice", offer);
    world.run_for(secs(10));
    assert_eq!(world.handed_over(asked).registration.state, RegistrationState::Registered);
    world.run_for(hours(2));
    assert_eq!(shown(&mut world).0, RegistrationState::Registered);
    world.assert_nothing_left();
}
