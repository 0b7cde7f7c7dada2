//! Which target a wake of each kind takes, how long it lives, and what lets the next one go.

use zeroize::Zeroizing;

use super::super::account::{Account, ContactStyle, TrunkSources, TrunkUri};
use super::super::ids::{BindingId, ShardId};
use super::super::input::{Preferences, TokenHash};
use super::super::token::{Token, Tokens};
use super::*;

const NOW: Now = Now { boot: Instant::from_nanos(9), wall: WallTime::from_unix_millis(1_795_291_200_000) };
const HOUR: Duration = Duration::from_secs(3600);

fn target(purpose: PushPurpose, provider: Provider) -> PushTarget {
    let token = if purpose == PushPurpose::Call { "call" } else { "other" };
    PushTarget { purpose, provider, app: "com.example.phone".to_owned(), token: token.into() }
}

fn instance(push: Vec<PushTarget>) -> Instance {
    let aor = "sip:alice@example.com".to_owned();
    Instance {
        id: InstanceId::mint(ShardId(0), [1; 16]),
        tenant: "acme".into(),
        device: "urn:uuid:device".to_owned(),
        platform: "ios".to_owned(),
        account: Account {
            aor,
            registrar: TrunkUri::parse("registrar", "sip:example.com").expect("a registrar"),
            outbound_proxy: None,
            auth_username: "alice".to_owned(),
            register_expires: Duration::from_secs(600),
            trunk_sources: TrunkSources::Any,
            early_response: None,
            contact_style: ContactStyle::default(),
            tls_spki_sha256: None,
        },
        push,
        caller_key: None,
        preferences: Preferences::default(),
        push_since: NOW.wall,
        binding: BindingId(1),
        foreground: None,
        restricted: None,
        salt: [0; 32],
        handed_over: NOW.wall,
        trunk_drops: 0,
        recorded: crate::engine::allowance::Allowance::default(),
        trace_reads: Default::default(),
        lease: HOUR * 72,
        lease_ends: Now { boot: NOW.boot + HOUR * 72, wall: NOW.wall + HOUR * 72 },
        tokens: Tokens::new(Token::new(TokenHash([0; 32]), Zeroizing::default())),
        order: 1,
        heir: false,
        heard: NOW.boot,
    }
}

fn both(provider: Provider) -> Instance {
    instance(vec![target(PushPurpose::Call, provider), target(PushPurpose::Other, provider)])
}

fn send(wakes: &mut Wakes, instance: &Instance, kind: WakeKind, now: Now) -> Result<WakeId, Unsent> {
    wakes.send(instance, Reason::plain(kind, WakeDetail::None), "sip:edge", &Limits::default(), now)
}

fn message(wakes: &mut Wakes, seconds: u64) -> Result<WakeId, Unsent> {
    let span = Duration::from_secs(seconds);
    let now = Now { boot: NOW.boot + span, wall: NOW.wall + span };
    send(wakes, &both(Provider::Fcm), WakeKind::Message, now)
}

#[test]
fn only_a_call_takes_the_call_target_where_there_are_two() {
    for provider in [Provider::Apns, Provider::Fcm, Provider::Sandbox] {
        for kind in WakeKind::ALL {
            let mut wakes = Wakes::default();
            assert!(send(&mut wakes, &both(provider), kind, NOW).is_ok());
            let job = wakes.poll_job().expect("a job");
            let expected = if kind == WakeKind::Call { PushPurpose::Call } else { PushPurpose::Other };
            assert_eq!((job.purpose, job.provider, job.kind), (expected, provider, kind));
            assert_eq!(job.token.as_str(), if kind == WakeKind::Call { "call" } else { "other" });
        }
    }
}

#[test]
fn a_device_with_its_call_target_alone_gets_the_other_kinds_there_unless_it_is_a_voip_token() {
    for kind in WakeKind::ALL {
        let of = |provider| instance(vec![target(PushPurpose::Call, provider)]);
        let sends = |instance: &Instance| send(&mut Wakes::default(), instance, kind, NOW).is_ok();
        assert_eq!(sends(&of(Provider::Apns)), kind == WakeKind::Call, "{kind:?}");
        for provider in [Provider::Fcm, Provider::Sandbox] {
            assert!(sends(&of(provider)), "{kind:?}");
        }
        let others = instance(vec![target(PushPurpose::Other, Provider::Fcm)]);
        assert!(sends(&others), "{kind:?}: a phone that registers through us may have an alert token only");
    }
}

#[test]
fn a_wake_is_worth_as_long_as_its_cause() {
    for (kind, life) in [
        (WakeKind::CallEnded, Duration::from_secs(120)),
        (WakeKind::MissedCall, HOUR * 24),
        (WakeKind::Message, HOUR * 24),
        (WakeKind::Voicemail, HOUR * 24),
        (WakeKind::Reprovision, HOUR * 24 * 7),
        (WakeKind::Test, Duration::from_secs(600)),
    ] {
        let mut wakes = Wakes::default();
        assert!(send(&mut wakes, &both(Provider::Apns), kind, NOW).is_ok());
        let job = wakes.poll_job().expect("a job");
        assert_eq!(job.expires_at, NOW.wall + life, "{kind:?}");
        assert_eq!(job.deadline, NOW.boot + Duration::from_secs(120), "{kind:?}");
    }
    let mut wakes = Wakes::default();
    let until = Some(NOW.boot + Duration::from_secs(45));
    let reason = Reason { until, ..Reason::plain(WakeKind::Call, WakeDetail::None) };
    assert!(wakes.send(&both(Provider::Apns), reason, "sip:edge", &Limits::default(), NOW).is_ok());
    let job = wakes.poll_job().expect("a job");
    assert_eq!(job.expires_at, NOW.wall + Duration::from_secs(45));
    assert_eq!(job.deadline, NOW.boot + Duration::from_secs(45));
}

#[test]
fn one_message_wake_stands_for_a_flood_of_messages() {
    let mut wakes = Wakes::default();
    let sent = (0..10_000).filter(|place| message(&mut wakes, place / 20).is_ok()).count();
    assert_eq!(sent, 1);
    assert_eq!(wakes.pending.len(), 1);
}

#[test]
fn the_next_message_wakes_again_once_the_device_attached_or_the_push_failed() {
    let mut wakes = Wakes::default();
    let id = both(Provider::Fcm).id;
    let first = message(&mut wakes, 0).expect("sent");
    assert!(wakes.handle_outcome(first, PushOutcome::Accepted, NOW).is_some());
    assert_eq!(message(&mut wakes, 1), Err(Unsent::Told));
    wakes.handle_attached(id);
    let second = message(&mut wakes, 2).expect("sent");
    assert!(wakes.handle_outcome(second, PushOutcome::Theirs("503".to_owned()), NOW).is_some());
    assert!(message(&mut wakes, 3).is_ok());
    wakes.forget(id);
    assert!(wakes.ledgers.is_empty());
}

#[test]
fn a_flood_of_one_kind_keeps_no_other_kind_from_the_device() {
    let mut wakes = Wakes::default();
    let instance = both(Provider::Apns);
    for _ in 0..1000 {
        let _ = send(&mut wakes, &instance, WakeKind::Voicemail, NOW);
    }
    assert_eq!(send(&mut wakes, &instance, WakeKind::Voicemail, NOW), Err(Unsent::OverBudget));
    for kind in WakeKind::ALL.into_iter().filter(|kind| *kind != WakeKind::Voicemail) {
        assert!(send(&mut wakes, &instance, kind, NOW).is_ok(), "{kind:?}");
    }
}
