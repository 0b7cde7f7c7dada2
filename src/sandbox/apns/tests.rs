//! The stand-in refuses every violation, and nothing else.

use std::sync::atomic::{AtomicU64, Ordering};

use http_body_util::Full;
use jsonwebtoken::{Algorithm, EncodingKey, Header};

use super::*;
use crate::clock::PATIENCE;
use crate::sandbox::probe::Probe;

const VOIP_TOKEN: &str = "00ff00ff00ff00ff00ff00ff00ff00ff";

/// A request that can be spoilt.
struct Draft {
    method: &'static str,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: String,
}

impl Draft {
    fn set(&mut self, name: &'static str, value: impl Into<String>) {
        self.unset(name);
        self.headers.push((name, value.into()));
    }

    fn unset(&mut self, name: &str) {
        self.headers.retain(|(present, _)| *present != name);
    }
}

/// A stand-in with a clock that can be moved, and what a client of it needs.
struct Bench {
    stand_in: ApnsStandIn,
    ahead: Arc<AtomicU64>,
    /// `iat` of the first tokens: a second that ticks over must not look like a renewal.
    started: u64,
}

impl Bench {
    async fn start() -> Self {
        let ahead = Arc::new(AtomicU64::new(0));
        let hand = Arc::clone(&ahead);
        let time = Arc::new(move || {
            let (now, ahead) = (clock::now(), Duration::from_secs(hand.load(Ordering::Relaxed)));
            Now { boot: now.boot + ahead, wall: now.wall + ahead }
        });
        let bundles = vec!["com.example.phone".to_owned()];
        let stand_in = ApnsStandIn::start(ApnsOptions { bundles, time, ..ApnsOptions::default() }).await;
        Self { stand_in: stand_in.expect("a stand-in"), ahead, started: clock::now().wall.unix_seconds() }
    }

    fn seconds(&self) -> u64 {
        self.started + self.ahead.load(Ordering::Relaxed)
    }

    fn token(&self, kid: &str, claims: &Value) -> String {
        let header = Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::ES256) };
        let key = EncodingKey::from_ec_pem(self.stand_in.key_pem.as_bytes()).expect("a P-256 key");
        jsonwebtoken::encode(&header, claims, &key).expect("a token")
    }

    fn bearer(&self, iat: u64) -> String {
        format!("bearer {}", self.token(KEY_ID, &json!({ "iss": TEAM_ID, "iat": iat })))
    }

    fn call(&self) -> Draft {
        let headers = vec![
            ("authorization", self.bearer(self.seconds())),
            ("apns-id", "8f3c1d52-6a4e-4b5f-9f0a-0123456789ab".to_owned()),
            ("apns-topic", "com.example.phone.voip".to_owned()),
            ("apns-push-type", "voip".to_owned()),
            ("apns-priority", "10".to_owned()),
            ("apns-expiration", "0".to_owned()),
        ];
        Draft {
            method: "POST",
            path: format!("/3/device/{VOIP_TOKEN}"),
            headers,
            body: r#"{"aps":{},"v":1}"#.to_owned(),
        }
    }

    fn alert(&self) -> Draft {
        let mut draft = self.call();
        draft.set("apns-topic", "com.example.phone");
        draft.set("apns-push-type", "alert");
        draft.body = r#"{"aps":{"alert":"hi"}}"#.to_owned();
        draft
    }

    fn background(&self) -> Draft {
        let mut draft = self.alert();
        draft.set("apns-push-type", "background");
        draft.set("apns-priority", "5");
        draft.body = r#"{"aps":{"content-available":1}}"#.to_owned();
        draft
    }

    async fn probe(&self) -> Probe {
        Probe::connect(&self.stand_in.endpoint(), self.stand_in.ca_pem()).await
    }

    /// Sends on a connection of its own.
    async fn send(&self, draft: Draft) -> (u16, Value) {
        let probe = self.probe().await;
        self.send_on(&probe, draft).await.expect("an answer")
    }

    async fn send_on(&self, probe: &Probe, draft: Draft) -> Result<(u16, Value), hyper::Error> {
        let uri = format!("{}{}", self.stand_in.endpoint(), draft.path);
        let mut request = Request::builder().method(draft.method).uri(uri);
        for (name, value) in draft.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(Bytes::from(draft.body))).expect("a request");
        probe.send(request).await.map(|(status, body)| (status.as_u16(), body))
    }

    async fn nothing_more_arrived(&self) -> bool {
        self.stand_in.next_push(Duration::ZERO).await.is_none()
    }
}

#[tokio::test]
async fn a_flawless_push_of_each_type_is_accepted_and_told_as_it_came() {
    let bench = Bench::start().await;
    for (draft, push_type, priority) in
        [(bench.call(), "voip", 10), (bench.alert(), "alert", 10), (bench.background(), "background", 5)]
    {
        let body = draft.body.clone();
        assert_eq!(bench.send(draft).await, (200, Value::Null));
        let push = bench.stand_in.next_push(PATIENCE).await.expect("the push");
        assert_eq!((push.push_type.as_str(), push.priority, push.expiration), (push_type, priority, 0));
        assert_eq!((push.payload.to_string(), push.token.as_str()), (body, VOIP_TOKEN));
    }
    assert!(bench.nothing_more_arrived().await);
    assert_eq!(bench.stand_in.refusals(), []);
}

type Spoil = fn(&mut Draft);
type Violation = (&'static str, Spoil, u16, &'static str);
type Table = (fn(&Bench) -> Draft, &'static [Violation]);

/// What is spoilt, how, and what Apple says to it.
const CALL_VIOLATIONS: &[Violation] = &[
    ("method", |d| d.method = "PUT", 405, "MethodNotAllowed"),
    ("path", |d| d.path = "/2/device/ab".to_owned(), 404, "BadPath"),
    ("no device token", |d| d.path = "/3/device/".to_owned(), 400, "MissingDeviceToken"),
    ("device token not hex", |d| d.path = "/3/device/xyz0".to_owned(), 400, "BadDeviceToken"),
    ("device token of odd length", |d| d.path = "/3/device/abc".to_owned(), 400, "BadDeviceToken"),
    ("device token beyond reason", |d| d.path.push_str(&"ab".repeat(200)), 400, "BadDeviceToken"),
    ("header twice", |d| d.headers.push(("apns-priority", "10".to_owned())), 400, "DuplicateHeaders"),
    ("no provider token", |d| d.unset("authorization"), 403, "MissingProviderToken"),
    ("not a bearer", |d| d.set("authorization", "basic YTpi"), 403, "InvalidProviderToken"),
    ("not a JWT", |d| d.set("authorization", "bearer abc"), 403, "InvalidProviderToken"),
    ("apns-id", |d| d.set("apns-id", "42"), 400, "BadMessageId"),
    ("apns-id without hyphens", |d| d.set("apns-id", "8f3c1d526a4e4b5f9f0a0123456789ab"), 400, "BadMessageId"),
    ("no push type", |d| d.unset("apns-push-type"), 400, "InvalidPushType"),
    ("unknown push type", |d| d.set("apns-push-type", "call"), 400, "InvalidPushType"),
    ("no topic", |d| d.unset("apns-topic"), 400, "MissingTopic"),
    ("topic not one", |d| d.set("apns-topic", "com example"), 400, "BadTopic"),
    ("topic of another app", |d| d.set("apns-topic", "com.example.other.voip"), 400, "TopicDisallowed"),
    ("VoIP push on the app's topic", |d| d.set("apns-topic", "com.example.phone"), 400, "InvalidPushType"),
    ("alert on the VoIP topic", |d| d.set("apns-push-type", "alert"), 400, "InvalidPushType"),
    ("priority", |d| d.set("apns-priority", "7"), 400, "BadPriority"),
    ("expiration no number", |d| d.set("apns-expiration", "soon"), 400, "BadExpirationDate"),
    ("VoIP push that is stored", |d| d.set("apns-expiration", "2000000000"), 400, "BadExpirationDate"),
    ("VoIP push without expiration", |d| d.unset("apns-expiration"), 400, "BadExpirationDate"),
    ("collapse id", |d| d.set("apns-collapse-id", "x".repeat(65)), 400, "BadCollapseId"),
    ("no payload", |d| d.body.clear(), 400, "PayloadEmpty"),
    ("payload no JSON", |d| d.body = "{".to_owned(), 400, "PayloadEmpty"),
    ("payload without aps", |d| d.body = r#"{"v":1}"#.to_owned(), 400, "PayloadEmpty"),
    ("payload too large", |d| d.body = format!(r#"{{"aps":{{}},"x":"{}"}}"#, "x".repeat(5104)), 413, "PayloadTooLarge"),
];

const OTHER_VIOLATIONS: &[Violation] = &[
    ("alert with nothing to show", |d| d.body = r#"{"aps":{}}"#.to_owned(), 400, "InvalidPushType"),
    (
        "alert too large",
        |d| d.body = format!(r#"{{"aps":{{"alert":"{}"}}}}"#, "x".repeat(4077)),
        413,
        "PayloadTooLarge",
    ),
];

const BACKGROUND_VIOLATIONS: &[Violation] = &[
    ("background in a hurry", |d| d.set("apns-priority", "10"), 400, "BadPriority"),
    ("background of default priority", |d| d.unset("apns-priority"), 400, "BadPriority"),
    ("background without its flag", |d| d.body = r#"{"aps":{}}"#.to_owned(), 400, "InvalidPushType"),
    (
        "background that shows",
        |d| {
            d.body = r#"{"aps":{"content-available":1,"alert":"hi"}}"#.to_owned();
        },
        400,
        "InvalidPushType",
    ),
];

#[tokio::test]
async fn every_violation_is_refused_with_apples_status_and_reason() {
    let bench = Bench::start().await;
    let tables: [Table; 3] =
        [(Bench::call, CALL_VIOLATIONS), (Bench::alert, OTHER_VIOLATIONS), (Bench::background, BACKGROUND_VIOLATIONS)];
    let mut expected = Vec::new();
    for (draft, violations) in tables {
        for &(what, spoil, status, reason) in violations {
            let mut draft = draft(&bench);
            spoil(&mut draft);
            assert_eq!(bench.send(draft).await, (status, json!({ "reason": reason })), "{what}");
            expected.push((status, reason));
        }
    }
    assert_eq!(bench.stand_in.refusals(), expected);
    assert!(bench.nothing_more_arrived().await);
}

#[tokio::test]
async fn the_largest_payloads_allowed_are_accepted() {
    let bench = Bench::start().await;
    let mut call = bench.call();
    call.body = format!(r#"{{"aps":{{}},"x":"{}"}}"#, "x".repeat(5120 - 17));
    let mut alert = bench.alert();
    alert.body = format!(r#"{{"aps":{{"alert":"{}"}}}}"#, "x".repeat(4096 - 20));
    assert_eq!((call.body.len(), alert.body.len()), (5120, 4096));
    assert_eq!(bench.send(call).await.0, 200);
    assert_eq!(bench.send(alert).await.0, 200);
}

#[tokio::test]
async fn provider_tokens_are_judged_by_signature_key_team_and_age() {
    let bench = Bench::start().await;
    let other = Bench::start().await;
    let now = bench.seconds();
    let valid = json!({ "iss": TEAM_ID, "iat": now });
    let mut tampered = bench.token(KEY_ID, &valid);
    tampered.replace_range(tampered.len() - 8.., "AAAAAAAA");
    for (what, token, reason) in [
        ("another key under this name", other.token(KEY_ID, &valid), "InvalidProviderToken"),
        ("an unknown key", bench.token("OTHERKEY01", &valid), "InvalidProviderToken"),
        ("tampered with", tampered, "InvalidProviderToken"),
        ("another team", bench.token(KEY_ID, &json!({ "iss": "OTHERTEAM1", "iat": now })), "InvalidProviderToken"),
        ("no iat", bench.token(KEY_ID, &json!({ "iss": TEAM_ID })), "InvalidProviderToken"),
        ("iat a text", bench.token(KEY_ID, &json!({ "iss": TEAM_ID, "iat": now.to_string() })), "InvalidProviderToken"),
        ("of the future", bench.token(KEY_ID, &json!({ "iss": TEAM_ID, "iat": now + 600 })), "InvalidProviderToken"),
        ("too old", bench.token(KEY_ID, &json!({ "iss": TEAM_ID, "iat": now - 3700 })), "ExpiredProviderToken"),
    ] {
        let mut draft = bench.call();
        draft.set("authorization", format!("bearer {token}"));
        assert_eq!(bench.send(draft).await, (403, json!({ "reason": reason })), "{what}");
    }
    assert!(bench.nothing_more_arrived().await);
}

#[tokio::test]
async fn a_connection_belongs_to_one_key() {
    let bench = Bench::start().await;
    let probe = bench.probe().await;
    assert_eq!(bench.send_on(&probe, bench.call()).await.expect("an answer").0, 200);
    let mut other = bench.call();
    other.set("authorization", format!("bearer {}", bench.token("OTHERKEY01", &json!({ "iss": TEAM_ID, "iat": 1 }))));
    let refused = bench.send_on(&probe, other).await.expect("an answer");
    assert_eq!(refused, (403, json!({ "reason": "UnrelatedKeyIdInToken" })));
}

#[tokio::test]
async fn a_provider_token_renewed_within_twenty_minutes_is_refused() {
    let bench = Bench::start().await;
    assert_eq!(bench.send(bench.call()).await.0, 200);
    bench.ahead.store(19 * 60, Ordering::Relaxed);
    let refused = bench.send(bench.call()).await;
    assert_eq!(refused, (429, json!({ "reason": "TooManyProviderTokenUpdates" })));
    bench.ahead.store(20 * 60, Ordering::Relaxed);
    assert_eq!(bench.send(bench.call()).await.0, 200);
}

#[tokio::test]
async fn dead_and_foreign_device_tokens_are_refused_with_what_the_client_needs() {
    let bench = Bench::start().await;
    let since = WallTime::from_unix_millis(1_700_000_000_123);
    bench.stand_in.bind(VOIP_TOKEN, "com.example.phone");
    assert_eq!(bench.send(bench.call()).await, (400, json!({ "reason": "DeviceTokenNotForTopic" })));
    assert_eq!(bench.send(bench.alert()).await.0, 200);
    bench.stand_in.revoke(VOIP_TOKEN, since);
    let gone = json!({ "reason": "Unregistered", "timestamp": 1_700_000_000_123u64 });
    assert_eq!(bench.send(bench.call()).await, (410, gone));
    bench.stand_in.expire(VOIP_TOKEN, since);
    let expired = json!({ "reason": "ExpiredToken", "timestamp": 1_700_000_000_123u64 });
    assert_eq!(bench.send(bench.call()).await, (410, expired));
}

#[tokio::test]
async fn only_one_stream_may_be_open_until_a_push_was_accepted() {
    let bench = Bench::start().await;
    bench.stand_in.fail_after(0, Fault::Silence);
    let probe = bench.probe().await;
    let first = bench.send_on(&probe, bench.call());
    let second = async {
        // Streams arrive in order, so the silent first one is there when this one is.
        bench.send_on(&probe, bench.call()).await
    };
    let refused = tokio::select! {
        biased;
        _ = first => unreachable!("the stand-in is silent"),
        refused = second => refused.expect_err("a second stream"),
    };
    let source = std::error::Error::source(&refused).and_then(|source| source.downcast_ref::<h2::Error>());
    assert_eq!(source.and_then(h2::Error::reason), Some(h2::Reason::REFUSED_STREAM));
}

#[tokio::test]
async fn goaway_ends_later_streams_and_lets_earlier_ones_finish() {
    let bench = Bench::start().await;
    let probe = bench.probe().await;
    assert_eq!(bench.send_on(&probe, bench.call()).await.expect("an answer").0, 200);
    bench.stand_in.fail_after(0, Fault::Delay(Duration::from_millis(200)));
    bench.stand_in.fail_after(0, Fault::GoAway);
    let (early, late) = tokio::join!(bench.send_on(&probe, bench.call()), bench.send_on(&probe, bench.call()));
    assert_eq!(early.expect("an answer").0, 200);
    let late = late.expect_err("never processed");
    let source = std::error::Error::source(&late).and_then(|source| source.downcast_ref::<h2::Error>());
    assert!(source.is_some_and(|error| error.is_go_away() && error.is_remote()), "{late:?}");
    assert_eq!(bench.stand_in.accepted(), 2);
}
