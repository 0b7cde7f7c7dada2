//! Every kind of wake at every provider: what the headers, priorities and lifetimes are, and what the user reads.

use serde_json::{Value, json};

use super::*;
use crate::clock::WallTime;
use crate::engine::proof::Challenge;
use crate::sandbox::apns::ApnsPush;
use crate::sandbox::mailbox::{Mailbox as Letterbox, MailboxOptions};

const LEASE_ENDS: WallTime = WallTime::from_unix_millis(1_795_550_400_000);
const TEST: Uuid = Uuid::from_u128(11);
const CHALLENGE: Challenge = Challenge::new([13; 16]);
const OWN_TEXT: &str = "Anruf in Abwesenheit";

/// A member that only some kinds have.
type Member = (&'static str, Value);

/// Every wake there is: its kind and what it tells besides, and under which member.
fn wakes() -> [(WakeKind, WakeDetail, Option<Member>); 11] {
    let ends = json!(LEASE_ENDS.rfc3339());
    let expiring = |visible| WakeDetail::Expiring { lease_ends: LEASE_ENDS, visible };
    [
        (WakeKind::Call, WakeDetail::None, None),
        (WakeKind::CallEnded, WakeDetail::Ended("cancelled"), Some(("reason", json!("cancelled")))),
        (WakeKind::MissedCall, WakeDetail::None, None),
        (WakeKind::Message, WakeDetail::None, None),
        (
            WakeKind::Voicemail,
            WakeDetail::Voicemail { new: 2, old: 1 },
            Some(("voicemail", json!({ "new": 2, "old": 1 }))),
        ),
        (WakeKind::Expiring, expiring(false), Some(("lease_ends", ends.clone()))),
        (WakeKind::Expiring, expiring(true), Some(("lease_ends", ends))),
        (WakeKind::Reprovision, WakeDetail::None, None),
        (WakeKind::Refresh, WakeDetail::None, None),
        (WakeKind::Test, WakeDetail::Test(TEST), Some(("test", json!(TEST.to_string())))),
        (WakeKind::Proof, WakeDetail::Proof(CHALLENGE), Some(("challenge", json!(CHALLENGE.text())))),
    ]
}

fn is_silent(kind: WakeKind, detail: WakeDetail) -> bool {
    matches!(kind, WakeKind::CallEnded | WakeKind::Refresh | WakeKind::Proof)
        || matches!(detail, WakeDetail::Expiring { visible: false, .. })
}

fn german(mut app: AppConfig) -> AppConfig {
    app.texts = Arc::new(Texts::new(vec![(WakeKind::MissedCall, OWN_TEXT.to_owned())]));
    app
}

/// What the user reads of a kind.
fn text(kind: WakeKind) -> &'static str {
    match kind {
        WakeKind::Call => "Incoming call",
        WakeKind::CallEnded => "Call ended",
        WakeKind::MissedCall => OWN_TEXT,
        WakeKind::Message => "New message",
        WakeKind::Voicemail => "New voicemail",
        WakeKind::Expiring => "Open the app to keep receiving calls",
        WakeKind::Reprovision => "Open the app to receive calls again",
        WakeKind::Test => "Test notification",
        WakeKind::Refresh | WakeKind::Proof => "not shown",
    }
}

fn collapse_id(job: &PushJob) -> Option<String> {
    match job.kind {
        WakeKind::Call | WakeKind::CallEnded | WakeKind::Refresh | WakeKind::Test | WakeKind::Proof => None,
        WakeKind::MissedCall => job.call.map(|call| call.to_string()),
        WakeKind::Message => Some(format!("message.{}", job.instance)),
        WakeKind::Voicemail => Some(format!("voicemail.{}", job.instance)),
        WakeKind::Expiring | WakeKind::Reprovision => Some(format!("lease.{}", job.instance)),
    }
}

fn assert_apns(push: &ApnsPush, job: &PushJob) {
    let (kind, detail) = (job.kind, job.detail);
    let headers = (push.push_type.as_str(), push.priority, push.topic.as_str(), push.expiration);
    let expires_at = job.expires_at.unix_seconds();
    // Ten seconds of the forty-five of its hold.
    let stored = push.expiration.saturating_sub(expires_at - 45);
    let aps = &push.payload["aps"];
    if kind == WakeKind::Call {
        assert_eq!((headers.0, headers.1, headers.2), ("voip", 10, "com.example.phone.voip"));
        assert!((9..=15).contains(&stored), "{stored}");
        assert_eq!(*aps, json!({}));
    } else if is_silent(kind, detail) {
        assert_eq!(headers, ("background", 5, APP, expires_at), "{kind:?}");
        assert_eq!(*aps, json!({ "content-available": 1 }), "{kind:?}");
    } else {
        assert_eq!(headers, ("alert", 10, APP, expires_at), "{kind:?}");
        let expected = json!({ "alert": { "body": text(kind) }, "sound": "default", "mutable-content": 1 });
        assert_eq!(*aps, expected, "{kind:?}");
    }
    assert_eq!(push.collapse_id, collapse_id(job), "{kind:?}");
}

#[tokio::test]
async fn apns_gets_each_kind_with_its_own_type_priority_topic_lifetime_and_collapse_id() {
    let (clocks, seen) = (Clocks::default(), Seen::default());
    let options = ApnsOptions { time: clocks.source(), bundles: vec![APP.to_owned()], ..ApnsOptions::default() };
    let stand_in = ApnsStandIn::start(options).await.expect("a stand-in");
    let apps = vec![german(app(ProviderConfig::Apns(apns_config(&stand_in))))];
    let pusher = Pusher::new(apps, settings(&seen)).expect("a valid configuration");
    for (kind, detail, member) in wakes() {
        let job = || PushJob { detail, ..job_at(clocks.source()(), kind) };
        let sent = job();
        let expected = PushJob { expires_at: sent.expires_at, ..job() };
        assert_eq!(outcome(&pusher, sent).await, PushOutcome::Accepted, "{kind:?}");
        let push = stand_in.next_push(PATIENCE).await.expect("the push");
        assert_apns(&push, &expected);
        assert_eq!(push.payload["kind"], kind.as_str());
        if let Some((name, value)) = member {
            assert_eq!(push.payload[name], value, "{kind:?}");
        }
        assert_eq!(push.payload.get("text"), None, "it stands in aps");
    }
    assert_eq!(stand_in.refusals(), []);
}

#[tokio::test]
async fn fcm_hurries_what_the_user_is_to_see_at_once_and_stores_it_while_it_is_worth_something() {
    let google = Google::start().await;
    let apps = vec![german(app(ProviderConfig::Fcm(fcm_config(&google.stand_in))))];
    let settings = PushSettings { time: google.clocks.source(), ..settings(&Seen::default()) };
    let pusher = Pusher::new(apps, settings).expect("a valid configuration");
    for (kind, detail, member) in wakes() {
        let life = Duration::from_secs(3600);
        let base = google.job(kind);
        let job = PushJob { detail, expires_at: google.clocks.source()().wall + life, ..base };
        assert_eq!(outcome(&pusher, job).await, PushOutcome::Accepted, "{kind:?}");
        let push = google.stand_in.next_push(PATIENCE).await.expect("the push");
        let calm =
            [WakeKind::CallEnded, WakeKind::MissedCall, WakeKind::Voicemail, WakeKind::Expiring, WakeKind::Reprovision];
        let hurried = !calm.contains(&kind);
        assert_eq!(push.high_priority, hurried, "{kind:?}");
        let ttl = push.ttl.as_secs();
        assert!((3590..=3600).contains(&ttl), "{kind:?}: {ttl}");
        if let Some((name, value)) = member {
            let expected = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            assert_eq!(push.data[name], expected, "{kind:?}");
        }
        let shown = !is_silent(kind, detail) && kind != WakeKind::Call;
        assert_eq!(push.data.get("text").map(String::as_str), shown.then(|| text(kind)), "{kind:?}");
    }
    assert_eq!(google.stand_in.refusals(), []);
}

#[tokio::test]
async fn the_sandbox_gets_the_same_members_as_json() {
    let mailbox = Letterbox::start(MailboxOptions::default()).await.expect("a mailbox");
    let config = SandboxConfig { endpoint: mailbox.endpoint(), ca_pem: mailbox.ca_pem().map(str::to_owned) };
    let apps = vec![german(app(ProviderConfig::Sandbox(config)))];
    let pusher = Pusher::new(apps, settings(&Seen::default())).expect("a valid configuration");
    for (kind, detail, member) in wakes() {
        let job = PushJob { provider: Provider::Sandbox, token: "phone-1".into(), detail, ..job(kind) };
        let expires_at = job.expires_at.unix_seconds();
        assert_eq!(outcome(&pusher, job).await, PushOutcome::Accepted);
        let push = mailbox.next_push_to("phone-1", PATIENCE).await.expect("the push");
        assert_eq!((push.kind.as_str(), &push.payload["expires_at"]), (kind.as_str(), &json!(expires_at)));
        if let Some((name, value)) = member {
            assert_eq!(push.payload[name], value, "{kind:?}");
        }
        let shown = !is_silent(kind, detail) && kind != WakeKind::Call;
        assert_eq!(push.payload.get("text").and_then(Value::as_str), shown.then(|| text(kind)), "{kind:?}");
    }
}
