//! Bodies: what is accepted, what is refused and why, and that no secret is ever told.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::world::{
    APP_KEY, DEVICE, PUSH_TOKEN, TOKEN, World, account, changed, hand_over_body, path, post, with_body,
};
use crate::engine::account::{Account, ContactStyle, TrunkSources};
use crate::engine::input::{CallHandOver, Command, HandOver, Mode, Preferences, PushPurpose, Rectification};
use crate::engine::policy::Provider;
use crate::vault::{Ha1Algorithm, Keep, Lent, Material, Vault};

const HA1: &str = "939e7578ed9e3c518a452acee763bce9";

/// The one hand-over the engine was asked for.
pub(super) fn handed(world: &World) -> HandOver {
    let mut asked = world.engine.asked();
    match (asked.pop(), asked.is_empty()) {
        (Some((_, Command::HandOver(handed))), true) => *handed,
        _ => unreachable!("one hand-over was expected"),
    }
}

fn rectification(world: &World) -> Rectification {
    match world.engine.asked().pop() {
        Some((_, Command::Rectify(_, _, change))) => *change,
        _ => unreachable!("a rectification was expected"),
    }
}

#[tokio::test]
async fn a_preference_is_changed_and_the_others_stay() {
    let world = World::new();
    for (body, wanted) in [
        (json!({"mode": "background"}), Preferences { mode: Mode::Background, ..Preferences::default() }),
        (
            json!({"hand_over": "reregister"}),
            Preferences { hand_over: CallHandOver::Reregister, ..Preferences::default() },
        ),
        (json!({"voicemail": "subscribe"}), Preferences { voicemail_subscribe: true, ..Preferences::default() }),
    ] {
        let reply = world.send(with_body(Method::PATCH, &path(""), TOKEN, body.to_string())).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        let change = rectification(&world);
        assert!(change.account.is_none() && change.push.is_none() && change.material.is_none());
        assert_eq!(change.preferences, Some(wanted));
    }
}

fn same_account(left: &Account, right: &Account) -> bool {
    left == right
}

#[tokio::test]
async fn every_member_reaches_the_engine() {
    let world = World::new();
    let body = [
        ("/account/outbound_proxy", json!("sip:proxy.example.com:5061;transport=tls")),
        ("/account/register_expires", json!(1800)),
        ("/account/trunk_sources", json!("registrar")),
        ("/account/early_response", json!(183)),
        ("/account/tls_spki_sha256", json!("ab".repeat(32))),
        ("/account/contact_style", json!("username")),
        ("/lease_seconds", json!(3600)),
        ("/mode", json!("takeover")),
        ("/hand_over", json!("reregister")),
        ("/voicemail", json!("subscribe")),
    ]
    .into_iter()
    .fold(hand_over_body(), |body, (pointer, value)| changed(&body, pointer, Some(value)));
    let reply = world.hand_over(&body).await;
    assert_eq!(reply.status, 201, "{}", reply.text);

    let handed = handed(&world);
    assert_eq!((&*handed.tenant, handed.device.as_str(), handed.platform.as_str()), ("acme", DEVICE, "ios"));
    assert_eq!(handed.lease, Duration::from_secs(3600));
    let account = &handed.account;
    assert_eq!(account.aor, "sip:alice@example.com");
    assert_eq!(account.registrar.text, "sip:example.com;transport=tls");
    assert_eq!(account.outbound_proxy.as_ref().map(|proxy| proxy.port), Some(Some(5061)));
    assert_eq!(account.auth_username, "alice");
    assert_eq!(account.register_expires, Duration::from_secs(1800));
    assert_eq!(account.trunk_sources, TrunkSources::Registrar);
    assert_eq!(account.early_response.map(|code| code.map(crate::sip::StatusCode::code)), Some(Some(183)));
    assert_eq!(account.tls_spki_sha256, Some([0xab; 32]));
    assert_eq!(account.contact_style, ContactStyle::Username);
    let wishes = Preferences { mode: Mode::Takeover, hand_over: CallHandOver::Reregister, voicemail_subscribe: true };
    assert_eq!(handed.preferences, wishes);
    let push: Vec<_> =
        handed.push.iter().map(|target| (target.purpose, target.provider, target.token.as_str())).collect();
    assert_eq!(
        push,
        [(PushPurpose::Call, Provider::Apns, PUSH_TOKEN), (PushPurpose::Other, Provider::Apns, PUSH_TOKEN)]
    );
    assert!(matches!(handed.material, Material::Password(_)));
}

#[tokio::test]
async fn optional_members_may_be_left_out() {
    let world = World::new();
    let body = json!({
        "account": {"aor": "sip:alice%20b@Example.COM:5080", "registrar": "sip:example.com",
                    "ha1": [{"realm": "example.com", "algorithm": "MD5", "value": HA1},
                            {"realm": "example.com", "algorithm": "SHA-256", "value": HA1.repeat(2)}]},
        "device": {"id": DEVICE.to_uppercase().replace("URN:UUID", "urn:uuid"), "platform": "android",
                   "push": [{"for": "call", "provider": "fcm", "app": "com.example.droid", "token": "t:1_2-3"}]}
    });
    let reply = world.hand_over(&body).await;
    assert_eq!(reply.status, 201, "{}", reply.text);
    let handed = handed(&world);
    assert_eq!(handed.account.aor, "sip:alice%20b@example.com:5080");
    assert_eq!(handed.account.auth_username, "alice b");
    assert_eq!(handed.account.register_expires, Duration::from_secs(600));
    assert_eq!(handed.account.early_response, None);
    assert_eq!(handed.lease, Duration::from_secs(3 * 24 * 3600));
    assert_eq!(handed.device, DEVICE);
    let Material::Ha1(ha1) = &handed.material else { unreachable!("hashes were sent") };
    assert_eq!(ha1.iter().map(|one| one.algorithm()).collect::<Vec<_>>(), [Ha1Algorithm::Md5, Ha1Algorithm::Sha256]);
    assert_eq!(ha1[0].value(), HA1);
}

#[tokio::test]
async fn an_address_of_record_for_a_phone_number_is_served() {
    for aor in
        ["sip:+49301@example.com;user=phone", "sip:+49301@Example.com;User=PHONE", "sip:+49301@example.com;user=ip"]
    {
        let world = World::new();
        let body = changed(&hand_over_body(), "/account/auth_username", None);
        let body = changed(&body, "/account/aor", Some(json!(aor)));
        assert_eq!(world.hand_over(&body).await.status, 201, "{aor}");
        let account = handed(&world).account;
        assert_eq!(
            (account.aor.as_str(), account.auth_username.as_str()),
            ("sip:+49301@example.com", "+49301"),
            "{aor}"
        );
    }
}

#[tokio::test]
async fn secrets_with_what_no_header_can_carry_are_refused_and_not_repeated() {
    let hash = |realm: &str| json!([{ "realm": realm, "algorithm": "MD5", "value": HA1 }]);
    for (member, value) in [
        ("password", json!("CANARY\u{0}")),
        ("password", json!("CANARY\n")),
        ("password", json!("\rCANARY")),
        ("password", json!("CANARY\r\nTo: x")),
        ("auth_username", json!("CANARY\n")),
        ("auth_username", json!("CANARY\u{0}")),
        ("ha1", hash("CANARY\r\n")),
        ("ha1", hash("CANARY\u{0}")),
    ] {
        let world = World::new();
        let mut body = hand_over_body();
        if member == "ha1" {
            body = changed(&body, "/account/password", None);
        }
        let body = changed(&body, &format!("/account/{member}"), Some(value.clone()));
        let reply = world.hand_over(&body).await;
        assert_eq!((reply.status.as_u16(), reply.problem().as_str()), (422, "invalid-account"), "{member} {value}");
        assert_eq!(reply.json()["path"], format!("account.{member}"));
        assert!(!reply.text.contains("CANARY"), "{}", reply.text);
    }
}

#[tokio::test]
async fn devices_of_one_account_meet_in_one_shard() {
    let world = World::new();
    let other = changed(&hand_over_body(), "/device/id", Some(json!("urn:uuid:00000000-0000-4000-8000-000000000001")));
    let other = changed(&other, "/account/aor", Some(json!("sip:alice@EXAMPLE.com")));
    assert_eq!(world.hand_over(&hand_over_body()).await.status, 201);
    assert_eq!(world.hand_over(&other).await.status, 201);
    let asked = world.engine.asked();
    assert_eq!(asked[0].0, asked[1].0);
}

#[tokio::test]
async fn members_of_the_account_that_cannot_be_used_are_named() {
    let world = World::new();
    let wrong = [
        ("aor", json!("sips:alice@example.com"), "transport=tls"),
        ("aor", json!("sip:example.com"), "user"),
        ("aor", json!("sip:@example.com"), "sip:"),
        ("aor", json!("tel:+4930123456"), "sip:"),
        ("aor", json!("sip:alice:CANARY@example.com"), "password"),
        ("aor", json!("sip:alice@example.com;transport=tls"), "parameters"),
        ("aor", json!("sip:alice@example.com;user=phone;maddr=192.0.2.1"), "parameters"),
        ("aor", json!("sip:alice@example.com;user"), "parameters"),
        ("aor", json!(" sip:alice@example.com"), "bare"),
        ("aor", json!("sip:al\u{0}ice@example.com"), "ASCII"),
        ("aor", json!("sip:al%0d%0aice@example.com"), "control"),
        ("registrar", json!("sip:example.com "), "bare"),
        ("aor", json!("sip:alice@example.com?subject=x"), "headers"),
        ("aor", json!("sip:alice@exam ple.com"), "ASCII"),
        ("aor", json!("<sip:alice@example.com>"), "bare"),
        ("aor", json!("sip:alice@example.com\r\nTo: x"), "ASCII"),
        ("aor", json!(format!("sip:alice@{}.com", "a".repeat(600))), "512"),
        ("registrar", json!("sips:example.com"), "transport=tls"),
        ("registrar", json!("sip:bob@example.com"), "user"),
        ("registrar", json!("sip:example.com;transport=sctp"), "udp, tcp or tls"),
        ("registrar", json!("sip:example.com?a=b"), "headers"),
        ("registrar", json!("example.com"), "SIP URI"),
        ("outbound_proxy", json!("https://example.com"), "sip:"),
        ("outbound_proxy", json!("sip:exa\u{e4}mple.com"), "ASCII"),
        ("auth_username", json!(""), "1 to 256"),
        ("auth_username", json!("al\u{0}ice"), "control"),
        ("auth_username", json!("a".repeat(257)), "256"),
        ("password", json!(""), "empty"),
        ("password", json!("p".repeat(257)), "256"),
        ("password", Value::Null, "password or ha1"),
        ("ha1", json!([{"realm": "r", "algorithm": "MD5", "value": HA1}]), "one of the two"),
        ("register_expires", json!(59), "60 to 86400"),
        ("register_expires", json!(86_401), "60 to 86400"),
        ("trunk_sources", json!("all"), "registrar"),
        ("contact_style", json!("other"), "capability"),
        ("early_response", json!(200), "180, 183, or 0"),
        ("tls_spki_sha256", json!("abcd"), "32 bytes"),
    ];
    for (member, value, word) in wrong {
        let reply =
            world.hand_over(&changed(&hand_over_body(), &format!("/account/{member}"), Some(value.clone()))).await;
        assert_eq!((reply.status.as_u16(), reply.problem().as_str()), (422, "invalid-account"), "{member} {value}");
        assert_eq!(reply.json()["path"], format!("account.{member}"), "{value}");
        assert!(reply.detail().contains(word), "{member} {value}: {}", reply.detail());
        assert!(!reply.text.contains("CANARY"));
    }
    assert!(world.engine.asked().is_empty());
}

#[tokio::test]
async fn other_members_that_cannot_be_used_are_named() {
    let world = World::new();
    let wrong = [
        ("/device/id", Some(json!("4b1682a8-f968-4701-83fc-7c6741dc6697")), "device.id"),
        ("/device/id", Some(json!("urn:uuid:{4b1682a8-f968-4701-83fc-7c6741dc6697}")), "device.id"),
        ("/device/platform", Some(json!("")), "device.platform"),
        ("/device/platform", Some(json!("i os")), "device.platform"),
        ("/lease_seconds", Some(json!(59)), "lease_seconds"),
        ("/lease_seconds", Some(json!(-1)), "lease_seconds"),
        ("/lease_seconds", Some(json!("3d")), "lease_seconds"),
        ("/mode", Some(json!("on-demand")), "mode"),
        ("/hand_over", Some(json!("redirect")), "hand_over"),
        ("/account/register_expires", Some(json!("CANARY")), "account.register_expires"),
        ("/account/aor", Some(json!(5)), "account.aor"),
        ("/account/aor", None, "account"),
        ("/account/pasword", Some(json!("CANARY")), "account.pasword"),
        ("/account/password", Some(json!({"CANARY": "CANARY"})), "account.password"),
        ("/account/password", Some(json!(12345)), "account.password"),
        ("/device/push/0/for", Some(json!("CANARY")), "device.push[0].for"),
        ("/device/push/1/provider", Some(json!("CANARY")), "device.push[1].provider"),
        ("/device/push/0/CANARY", None, ""),
        ("/device", None, ""),
        ("/extra", Some(json!({"CANARY": 1})), "extra"),
    ];
    for (pointer, value, path) in wrong {
        if path.is_empty() && value.is_none() && pointer != "/device" {
            continue;
        }
        let reply = world.hand_over(&changed_at(&hand_over_body(), pointer, value.clone())).await;
        assert_eq!((reply.status.as_u16(), reply.problem().as_str()), (400, "invalid-request"), "{pointer} {value:?}");
        if !path.is_empty() {
            assert_eq!(reply.json()["path"], path, "{}", reply.text);
        }
        assert!(!reply.text.contains("CANARY"), "{}", reply.text);
    }
    assert!(world.engine.asked().is_empty());
}

/// As [`changed`], through lists too.
fn changed_at(base: &Value, pointer: &str, value: Option<Value>) -> Value {
    changed(base, pointer, value)
}

#[tokio::test]
async fn broken_json_is_refused_with_its_place() {
    let world = World::new();
    for (body, line) in
        [("", 1), ("{\n\"account\": CANARY}", 2), ("[]", 1), ("{}{}", 1), ("\"CANARY\"", 1), ("\u{0}", 1)]
    {
        let reply = world.send(post("/v1/instances", APP_KEY, body)).await;
        assert_eq!(reply.problem(), "invalid-request", "{body}");
        assert_eq!(reply.json()["line"], line, "{}", reply.text);
        assert!(!reply.text.contains("CANARY"));
    }
    let reply = world.send(post("/v1/instances", APP_KEY, &b"{\"account\": \"\xff\"}"[..])).await;
    assert_eq!(reply.problem(), "invalid-request");
    assert!(world.engine.asked().is_empty());
}

#[tokio::test]
async fn a_lease_above_the_maximum_is_refused_and_the_maximum_is_named() {
    let world = World::new();
    let lease = |seconds: u64| changed(&hand_over_body(), "/lease_seconds", Some(json!(seconds)));
    let reply = world.hand_over(&lease(6 * 24 * 3600 + 1)).await;
    assert_eq!((reply.status.as_u16(), reply.problem().as_str()), (422, "lease-too-long"));
    assert!(reply.detail().contains("518400"), "{}", reply.detail());
    assert_eq!(world.hand_over(&lease(6 * 24 * 3600)).await.status, 201);
}

#[tokio::test]
async fn a_body_of_the_limit_is_read_and_one_byte_more_is_too_large() {
    let world = World::new();
    let padded = |length: usize| {
        let body = hand_over_body().to_string();
        format!("{body}{}", " ".repeat(length - body.len()))
    };
    let limit = 16 * 1024;
    assert_eq!(world.send(post("/v1/instances", APP_KEY, padded(limit))).await.status, 201);
    for length in [limit + 1, 10 * limit] {
        let reply = world.send(post("/v1/instances", APP_KEY, padded(length))).await;
        assert_eq!((reply.status.as_u16(), reply.problem().as_str()), (413, "too-large"));
    }
    assert_eq!(world.engine.asked().len(), 1);
}

#[tokio::test]
async fn a_rectification_changes_what_it_names_and_nothing_else() {
    let world = World::new();
    let patch = async |body: Value| {
        let reply = world.send(with_body(Method::PATCH, &path(""), TOKEN, body.to_string())).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        rectification(&world)
    };
    let change =
        patch(json!({"push": [{"for": "call", "provider": "apns", "app": "com.example.phone", "token": "0e3d"}]}))
            .await;
    assert_eq!(change.push.map(|push| push[0].token.as_str().to_owned()), Some("0e3d".to_owned()));
    assert!(change.account.is_none() && change.material.is_none());

    let change = patch(json!({"account": {"trunk_sources": "registrar", "early_response": 0}})).await;
    let wanted = Account { trunk_sources: TrunkSources::Registrar, early_response: Some(None), ..account() };
    assert!(change.account.is_some_and(|account| same_account(&account, &wanted)));
    assert!(change.push.is_none() && change.material.is_none());

    let change = patch(json!({"account": {"password": "new"}})).await;
    assert!(change.account.is_none() && matches!(change.material, Some(Material::Password(_))));

    let change = patch(json!({"account": {"registrar": "sip:other.example;transport=tls", "password": "new"}})).await;
    assert!(change.account.is_some_and(|account| account.registrar.text == "sip:other.example;transport=tls"));
    assert!(change.material.is_some());
}

#[tokio::test]
async fn credentials_are_needed_again_where_they_would_go_elsewhere() {
    let world = World::new();
    for change in [
        json!({"registrar": "sip:other.example;transport=tls"}),
        json!({"registrar": "sip:example.com;transport=tcp"}),
        json!({"outbound_proxy": "sip:other.example"}),
        json!({"auth_username": "bob"}),
        json!({"aor": "sip:bob@example.com"}),
        json!({"tls_spki_sha256": "ab".repeat(32)}),
    ] {
        let body = json!({"account": change});
        let reply = world.send(with_body(Method::PATCH, &path(""), TOKEN, body.to_string())).await;
        assert_eq!(reply.problem(), "invalid-account", "{body}");
        assert_eq!(reply.json()["path"], "account.password");
    }
    for (body, problem) in [
        (json!({}), "invalid-request"),
        (json!({"lease_seconds": 5}), "invalid-request"),
        (json!({"account": {"contact_style": "other"}}), "invalid-account"),
        (json!({"mode": "sometimes"}), "invalid-request"),
        (json!({"hand_over": null, "voicemail": "never"}), "invalid-request"),
        (json!({"push": []}), "no-usable-push-target"),
        (
            json!({"push": [{"for": "call", "provider": "apns", "app": "com.beta.phone", "token": "t"}]}),
            "no-usable-push-target",
        ),
    ] {
        let reply = world.send(with_body(Method::PATCH, &path(""), TOKEN, body.to_string())).await;
        assert_eq!(reply.problem(), problem, "{body}");
    }
    assert!(world.engine.asked().iter().all(|(_, command)| matches!(command, Command::Data(..))));
}

/// Collects what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_secret_reaches_a_response_or_the_log_on_any_path() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone()).finish();
    // As long as there is only one, tracing asks the thread that meets an event first whether anyone listens, and the
    // threads of other tests say no.
    let _second = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::new());
    // All tasks of this runtime run on this thread, so the guard covers them.
    let _guard = tracing::subscriber::set_default(subscriber);
    let world = World::new();
    let body = changed(&hand_over_body(), "/account/password", Some(json!("CANARY-password")));
    let body = changed(&body, "/device/push/0/provider", Some(json!("fcm")));
    let body = changed(&body, "/device/push/0/app", Some(json!("com.example.droid")));
    let body = changed(&body, "/device/push/0/token", Some(json!("CANARY-push")));
    let ha1 = changed(&body, "/account/password", None);
    let ha1 = |value: Value| changed(&ha1, "/account/ha1", Some(value));
    let bodies = [
        body.to_string(),
        body.to_string().replace("\"aor\"", "\"aorta\""),
        body.to_string().replace("sip:example.com;transport=tls", "sips:example.com"),
        body.to_string()[..body.to_string().len() - 1].to_owned(),
        format!("{body}CANARY"),
        format!("{body}{}", " CANARY".repeat(4000)),
        changed(&body, "/account", Some(json!("CANARY"))).to_string(),
        changed(&body, "/account/register_expires", Some(json!("CANARY"))).to_string(),
        changed(&body, "/device/push", Some(json!("CANARY"))).to_string(),
        changed(&body, "/device/push/0/token", Some(json!("CANARY push"))).to_string(),
        changed(&body, "/device/push/1/token", Some(json!("CANARY"))).to_string(),
        changed(&body, "/device/push/0/fid", Some(json!("CANARY"))).to_string(),
        ha1(json!("CANARY")).to_string(),
        ha1(json!([{"realm": "CANARY", "algorithm": "CANARY", "value": "CANARY"}])).to_string(),
        ha1(json!([{"realm": "r", "algorithm": "MD5", "value": "CANARY"}])).to_string(),
        ha1(json!([{"realm": "r", "algorithm": "MD5", "value": ["CANARY"]}])).to_string(),
        ha1(json!([{"realm": 7, "algorithm": "MD5", "value": "CANARY"}])).to_string(),
    ];
    for bearer in [APP_KEY, "CANARY-stranger"] {
        for body in &bodies {
            let reply = world.send(post("/v1/instances", bearer, body.clone())).await;
            assert!(!reply.text.contains("CANARY"), "{}", reply.text);
            assert!(!format!("{:?}", reply.headers).contains("CANARY"));
        }
    }
    world.ask(Method::GET, &path("?CANARY=1"), "CANARY-token").await;
    world.ask(Method::GET, "/CANARY", "CANARY-token").await;
    let logged = String::from_utf8_lossy(&log.0.lock().expect("no panic")).into_owned();
    assert!(logged.contains("request refused") && logged.contains("request answered"), "captured");
    let ours: Vec<_> = logged.lines().filter(|line| line.contains("reveille")).collect();
    assert!(!ours.is_empty() && ours.iter().all(|line| !line.contains("CANARY")), "{ours:?}");
    for secret in ["CANARY-password", "CANARY-push", "CANARY-token", "CANARY-stranger"] {
        assert!(!logged.contains(secret), "{secret} in a library's log");
    }
}

#[tokio::test]
async fn a_password_arrives_in_the_vault_as_it_was_typed() {
    let world = World::new();
    assert_eq!(world.hand_over(&hand_over_body()).await.status, 201);
    let mut vault = Vault::plain();
    let credential = vault.admit(handed(&world).material, Keep::UntilAccepted);
    let lent = vault.lend(&credential, b"any", Ha1Algorithm::Md5, |lent| {
        assert!(matches!(lent, Lent::Password(bytes) if bytes == "pass\u{e9}\"word".as_bytes()));
    });
    assert!(lent.is_some());
}
