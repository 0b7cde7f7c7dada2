//! The stand-in refuses every violation, and nothing else.

use std::sync::atomic::{AtomicU64, Ordering};

use http_body_util::Full;
use jsonwebtoken::{Algorithm, EncodingKey, Header};

use super::*;
use crate::clock::PATIENCE;
use crate::sandbox::probe::{self, Probe};

const FORM: &str = "application/x-www-form-urlencoded";
const GRANT_TYPE: &str = "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer";

/// A stand-in with a clock that can be moved.
struct Bench {
    stand_in: FcmStandIn,
    ahead: Arc<AtomicU64>,
}

/// A request that can be spoilt.
struct Draft {
    path: String,
    authorization: String,
    content_type: &'static str,
    body: Value,
}

impl Bench {
    async fn start() -> Self {
        let ahead = Arc::new(AtomicU64::new(0));
        let hand = Arc::clone(&ahead);
        let time = Arc::new(move || {
            let (now, ahead) = (clock::now(), Duration::from_secs(hand.load(Ordering::Relaxed)));
            Now { boot: now.boot + ahead, wall: now.wall + ahead }
        });
        let stand_in = FcmStandIn::start(FcmOptions { time, ..FcmOptions::default() }).await;
        Self { stand_in: stand_in.expect("a stand-in"), ahead }
    }

    fn claims(&self) -> Value {
        let now = clock::now().wall.unix_seconds();
        json!({
            "iss": CLIENT_EMAIL, "aud": self.stand_in.token_uri(), "iat": now, "exp": now + 3600,
            "scope": "https://www.googleapis.com/auth/firebase.messaging",
        })
    }

    fn assertion(&self, kid: &str, claims: &Value) -> String {
        let header = Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::RS256) };
        let key = EncodingKey::from_rsa_pem(self.stand_in.key_pem.as_bytes()).expect("an RSA key");
        jsonwebtoken::encode(&header, claims, &key).expect("a token")
    }

    async fn ask(&self, content_type: &str, form: String) -> (u16, Value) {
        let request = Request::post(TOKEN_PATH)
            .header("host", "127.0.0.1")
            .header("content-type", content_type)
            .body(Full::new(Bytes::from(form)))
            .expect("a request");
        let endpoint = self.stand_in.endpoint();
        let (status, body) = probe::http1(&endpoint, Some(self.stand_in.ca_pem()), request).await;
        (status.as_u16(), body)
    }

    async fn granted(&self) -> String {
        let assertion = self.assertion(KEY_ID, &self.claims());
        let (status, body) = self.ask(FORM, format!("grant_type={GRANT_TYPE}&assertion={assertion}")).await;
        assert_eq!((status, body["token_type"].as_str()), (200, Some("Bearer")));
        body["access_token"].as_str().expect("a token").to_owned()
    }

    fn draft(&self, access_token: &str) -> Draft {
        let message = json!({
            "token": "abc:DEF-1_2", "data": { "v": "1", "kind": "call" }, "android": { "priority": "HIGH", "ttl": "0s" },
        });
        Draft {
            path: "/v1/projects/reveille-sandbox/messages:send".to_owned(),
            authorization: format!("Bearer {access_token}"),
            content_type: "application/json",
            body: json!({ "message": message }),
        }
    }

    async fn send(&self, draft: Draft) -> (u16, Value) {
        let request = Request::post(format!("{}{}", self.stand_in.endpoint(), draft.path))
            .header("authorization", draft.authorization)
            .header("content-type", draft.content_type)
            .body(Full::new(Bytes::from(draft.body.to_string())))
            .expect("a request");
        let probe = Probe::connect(&self.stand_in.endpoint(), self.stand_in.ca_pem()).await;
        let (status, body) = probe.send(request).await.expect("an answer");
        (status.as_u16(), body)
    }
}

/// Of an error: the RPC status, FcmError's code, and the field BadRequest blames.
fn parts(body: &Value) -> (&str, Option<&str>, Option<&str>) {
    let error = &body["error"];
    let detail = |kind: &str| error["details"].as_array()?.iter().find(|detail| detail["@type"] == kind);
    let code = detail(FCM_ERROR).and_then(|detail| detail["errorCode"].as_str());
    let field = detail(BAD_REQUEST).and_then(|detail| detail["fieldViolations"][0]["field"].as_str());
    (error["status"].as_str().unwrap_or(""), code, field)
}

#[tokio::test]
async fn a_flawless_message_is_accepted_and_told_as_it_came() {
    let bench = Bench::start().await;
    let token = bench.granted().await;
    let (status, body) = bench.send(bench.draft(&token)).await;
    assert_eq!((status, body), (200, json!({ "name": "projects/reveille-sandbox/messages/1" })));
    let push = bench.stand_in.next_push(PATIENCE).await.expect("the message");
    assert_eq!((push.token.as_str(), push.data["kind"].as_str()), ("abc:DEF-1_2", "call"));
    assert_eq!((push.high_priority, push.ttl), (true, Duration::ZERO));
    assert!(bench.stand_in.next_push(Duration::ZERO).await.is_none());
}

type Spoil = fn(&mut Draft);
type Expected = (u16, &'static str, Option<&'static str>, Option<&'static str>);

const BAD: &str = "INVALID_ARGUMENT";

/// What is spoilt, how, and what Google says to it: status, RPC status, FcmError, field.
const VIOLATIONS: &[(&str, Spoil, Expected)] = &[
    ("path", |d| d.path = "/fcm/send".to_owned(), (404, "NOT_FOUND", None, None)),
    ("no access token", |d| d.authorization.clear(), (401, "UNAUTHENTICATED", None, None)),
    ("made-up access token", |d| d.authorization.push('x'), (401, "UNAUTHENTICATED", None, None)),
    (
        "another project",
        |d| d.path = "/v1/projects/other/messages:send".to_owned(),
        (403, "PERMISSION_DENIED", None, None),
    ),
    ("content type", |d| d.content_type = "text/plain", (400, BAD, None, Some("content-type"))),
    ("body a list", |d| d.body = json!([]), (400, BAD, None, Some(""))),
    ("no message", |d| d.body = json!({}), (400, BAD, Some(BAD), Some("message"))),
    ("member unknown", |d| d.body["message"]["to"] = json!("a"), (400, BAD, None, Some("message.to"))),
    ("no recipient", |d| d.body["message"] = json!({}), (400, BAD, Some(BAD), Some("message"))),
    (
        "installation id as a token",
        |d| d.body["message"]["token"] = json!("fHx0aBcD_eFgH-iJkLmNoP"),
        (400, BAD, Some(BAD), None),
    ),
    (
        "two recipients",
        |d| d.body["message"]["fid"] = json!("fHx0aBcD_eFgH-iJkLmNoP"),
        (400, BAD, None, Some("message")),
    ),
    ("token malformed", |d| d.body["message"]["token"] = json!("a b"), (400, BAD, Some(BAD), None)),
    ("token no text", |d| d.body["message"]["token"] = json!(1), (400, BAD, None, Some("message.token"))),
    ("data a number", |d| d.body["message"]["data"]["v"] = json!(1), (400, BAD, None, Some("message.data[v].value"))),
    ("data nested", |d| d.body["message"]["data"]["v"] = json!({}), (400, BAD, None, Some("message.data[v].value"))),
    ("key from", |d| d.body["message"]["data"]["from"] = json!("a"), (400, BAD, Some(BAD), Some("message.data[from]"))),
    (
        "key gcm",
        |d| d.body["message"]["data"]["gcm.a"] = json!("a"),
        (400, BAD, Some(BAD), Some("message.data[gcm.a]")),
    ),
    (
        "key google",
        |d| d.body["message"]["data"]["googles"] = json!("a"),
        (400, BAD, Some(BAD), Some("message.data[googles]")),
    ),
    (
        "data too large",
        |d| d.body["message"]["data"] = json!({ "a": "x".repeat(4096) }),
        (400, BAD, Some(BAD), Some("message.data")),
    ),
    (
        "priority",
        |d| d.body["message"]["android"]["priority"] = json!("high"),
        (400, BAD, None, Some("message.android.priority")),
    ),
    ("ttl a number", |d| d.body["message"]["android"]["ttl"] = json!(0), (400, BAD, None, Some("message.android.ttl"))),
    (
        "ttl without unit",
        |d| d.body["message"]["android"]["ttl"] = json!("0"),
        (400, BAD, None, Some("message.android.ttl")),
    ),
    (
        "ttl negative",
        |d| d.body["message"]["android"]["ttl"] = json!("-1s"),
        (400, BAD, None, Some("message.android.ttl")),
    ),
    (
        "ttl too long",
        |d| d.body["message"]["android"]["ttl"] = json!("2419201s"),
        (400, BAD, Some(BAD), Some("message.android.ttl")),
    ),
    ("android unknown", |d| d.body["message"]["android"]["x"] = json!(1), (400, BAD, None, Some("message.android.x"))),
];

#[tokio::test]
async fn every_violation_is_refused_with_googles_status_and_details() {
    let bench = Bench::start().await;
    let token = bench.granted().await;
    for &(what, spoil, (status, rpc, code, field)) in VIOLATIONS {
        let mut draft = bench.draft(&token);
        spoil(&mut draft);
        let (answered, body) = bench.send(draft).await;
        assert_eq!((answered, parts(&body)), (status, (rpc, code, field)), "{what}: {body}");
    }
    assert_eq!((bench.stand_in.refusals().len(), bench.stand_in.accepted()), (VIOLATIONS.len(), 0));
}

#[tokio::test]
async fn the_largest_data_and_the_longest_ttl_are_accepted() {
    let bench = Bench::start().await;
    let mut draft = bench.draft(&bench.granted().await);
    draft.body["message"]["data"] = json!({ "a": "x".repeat(4095) });
    draft.body["message"]["android"]["ttl"] = json!("2419200.0s");
    assert_eq!(bench.send(draft).await.0, 200);
}

#[tokio::test]
async fn unregistered_and_foreign_tokens_are_told_apart() {
    let bench = Bench::start().await;
    let token = bench.granted().await;
    bench.stand_in.estrange("abc:DEF-1_2");
    let (status, body) = bench.send(bench.draft(&token)).await;
    assert_eq!((status, parts(&body)), (403, ("PERMISSION_DENIED", Some("SENDER_ID_MISMATCH"), None)));
    bench.stand_in.revoke("abc:DEF-1_2");
    let (status, body) = bench.send(bench.draft(&token)).await;
    assert_eq!((status, parts(&body)), (404, ("NOT_FOUND", Some("UNREGISTERED"), None)));
}

#[tokio::test]
async fn an_access_token_ends() {
    let bench = Bench::start().await;
    let token = bench.granted().await;
    bench.ahead.store(3598, Ordering::Relaxed);
    assert_eq!(bench.send(bench.draft(&token)).await.0, 200);
    bench.ahead.store(3600, Ordering::Relaxed);
    assert_eq!(bench.send(bench.draft(&token)).await.0, 401);
}

#[tokio::test]
async fn the_token_endpoint_refuses_every_flaw_of_a_grant() {
    let bench = Bench::start().await;
    let spoilt = |name: &str, value: Value| {
        let mut claims = bench.claims();
        claims[name] = value;
        bench.assertion(KEY_ID, &claims)
    };
    let now = clock::now().wall.unix_seconds();
    let good = bench.assertion(KEY_ID, &bench.claims());
    let mut tampered = good.clone();
    tampered.replace_range(tampered.len() - 8.., "AAAAAAAA");
    let mut backwards = bench.claims();
    (backwards["iat"], backwards["exp"]) = (json!(now - 7200), json!(now - 3600));
    let invalid = "invalid_grant";
    for (what, assertion, error) in [
        ("not a JWT", "abc".to_owned(), invalid),
        ("unknown key", bench.assertion("other", &bench.claims()), invalid),
        ("tampered with", tampered, invalid),
        ("another account", spoilt("iss", json!("a@b")), invalid),
        ("another audience", spoilt("aud", json!("https://oauth2.googleapis.com/token")), invalid),
        ("another scope", spoilt("scope", json!("https://www.googleapis.com/auth/cloud-platform")), "invalid_scope"),
        ("too long", spoilt("exp", json!(now + 3700)), invalid),
        ("of the future", spoilt("iat", json!(now + 600)), invalid),
        ("over", bench.assertion(KEY_ID, &backwards), invalid),
        ("a claim missing", spoilt("scope", Value::Null), invalid),
    ] {
        let (status, body) = bench.ask(FORM, format!("grant_type={GRANT_TYPE}&assertion={assertion}")).await;
        assert_eq!((status, body["error"].as_str()), (400, Some(error)), "{what}");
    }
    for (what, content_type, form, error) in [
        ("content type", "application/json", format!("grant_type={GRANT_TYPE}&assertion={good}"), "invalid_request"),
        ("grant type", FORM, format!("grant_type=password&assertion={good}"), "unsupported_grant_type"),
        ("no assertion", FORM, format!("grant_type={GRANT_TYPE}"), "invalid_request"),
    ] {
        let (status, body) = bench.ask(content_type, form).await;
        assert_eq!((status, body["error"].as_str()), (400, Some(error)), "{what}");
    }
    assert_eq!(bench.stand_in.grants(), 0);
}
