//! The outside contract: shapes, statuses, problem types and the OpenAPI document.

use std::collections::BTreeSet;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::super::openapi;
use super::super::problem::Kind;
use super::super::views::ReceiptBody;
use super::world::{
    APP_KEY, CALL, DEVICE, DOMAIN, Settings, TOKEN, World, changed, empty, hand_over_body, handed_over, instance,
    moving, path, post, receipt, request, test_view, usual_answer, with_body,
};
use crate::engine::audit::Cause;
use crate::engine::input::{Command, Decline, DeclineReason, Parting};
use crate::engine::limits::Limits;
use crate::engine::output::{MoveView, Refusal, RegistrationReason, RegistrationState};

/// The document as it was last reviewed.
const REVIEWED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");

fn attach() -> Value {
    json!({"uri": format!("sip:{DOMAIN}:5061;transport=tls"), "alternatives": [format!("wss://{DOMAIN}:443")],
           "aor": format!("sip:{}@{DOMAIN}", instance()), "username": instance().to_string(), "realm": DOMAIN})
}

fn registered() -> Value {
    json!({"state": "registered", "expires": 600, "reason": null, "verdict": "200 OK",
           "other_contacts": 1, "dropped_contacts": 0, "replaced_contacts": 0})
}

#[tokio::test]
async fn a_hand_over_answers_201_200_or_202_with_the_token() {
    let world = World::new();
    for (state, replaced, status) in [
        (RegistrationState::Registered, false, 201),
        (RegistrationState::Failing, false, 201),
        (RegistrationState::Registered, true, 200),
        (RegistrationState::Registering, false, 202),
        (RegistrationState::Registering, true, 202),
    ] {
        world.engine.answers(move |_| handed_over(state, replaced));
        let reply = world.hand_over(&hand_over_body()).await;
        assert_eq!(reply.status.as_u16(), status, "{state:?} {replaced}");
        assert_eq!(reply.header("location"), Some(path("").as_str()));
        assert_eq!(reply.header("content-type"), Some("application/json"));
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        let registration = match state {
            RegistrationState::Registered => registered(),
            _ => json!({"state": state.as_str(), "expires": null, "reason": null, "verdict": null,
                        "other_contacts": 0, "dropped_contacts": 0, "replaced_contacts": 0}),
        };
        let wanted = json!({"instance": instance().to_string(), "token": TOKEN, "lease_ends": "2026-11-24T20:00:00Z",
                            "registration": registration, "attach": attach(), "caller_in_push": "sealed",
                            "push_proof": "pending", "tenant": "acme"});
        assert_eq!(reply.json(), wanted);
    }
}

#[tokio::test]
async fn a_change_of_place_that_has_not_come_about_is_told_and_answered_202_while_it_waits() {
    let world = World::new();
    for (view, status, told) in [
        (MoveView::Waiting, 202, json!({"state": "waiting", "verdict": null})),
        (MoveView::Failed("403 Forbidden".to_owned()), 200, json!({"state": "failed", "verdict": "403 Forbidden"})),
    ] {
        world.engine.answers(move |command| match command {
            Command::HandOver(_) => moving(handed_over(RegistrationState::Registered, true), &view),
            other => moving(usual_answer(other), &view),
        });
        let body = json!({"account": {"outbound_proxy": "sip:proxy.example;transport=tls", "password": "new"}});
        let change = with_body(Method::PATCH, &path(""), TOKEN, body.to_string());
        for reply in [world.hand_over(&hand_over_body()).await, world.send(change).await] {
            assert_eq!((reply.status.as_u16(), &reply.json()["registration"]["move"]), (status, &told));
        }
        let shown = world.ask(Method::GET, &path(""), TOKEN).await;
        assert_eq!((shown.status.as_u16(), &shown.json()["registration"]["move"]), (200, &told));
    }
}

#[tokio::test]
async fn instance_calls_answer_their_shapes() {
    let world = World::new();
    let shown = json!({"instance": instance().to_string(), "registration": registered(),
                       "lease_ends": "2026-11-24T20:00:00Z", "attach": attach(), "attached": true, "trunk_drops": 7,
                       "private_media_address": false, "caller_in_push": "sealed", "push_proof": "pending"});
    for (method, rest) in
        [(Method::GET, ""), (Method::POST, "/refresh"), (Method::POST, "/restrict"), (Method::DELETE, "/restrict")]
    {
        let reply = world.ask(method, &path(rest), TOKEN).await;
        assert_eq!((reply.status.as_u16(), reply.json()), (200, shown.clone()));
    }
    assert!(matches!(
        &world.engine.asked()[..],
        [(_, Command::Show(..)), (_, Command::Refresh(..)), (_, Command::Restrict(..)), (_, Command::Resume(..))]
    ));

    let reply = world.ask(Method::DELETE, &path(""), TOKEN).await;
    let receipt = serde_json::to_value(receipt()).expect("JSON");
    assert_eq!((reply.status.as_u16(), reply.json()), (200, json!({"receipt": receipt, "logged": true})));

    let reply = world.ask(Method::GET, &path("/data"), TOKEN).await;
    let mut wanted = shown;
    let more = json!({
        "mode": "always", "hand_over": "relay", "voicemail": "unsolicited",
        "tenant": "acme", "handed_over": "2026-11-21T20:00:00Z",
        "device": {"id": DEVICE, "platform": "ios",
                   "push": [{"for": "call", "provider": "apns", "app": "com.example.phone", "token": "present"}],
                   "caller_key": {"suite": "x25519-hkdf-sha256-chacha20poly1305",
                                  "public": "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk"}},
        "account": {"aor": "sip:alice@example.com", "registrar": "sip:example.com;transport=tls", "outbound_proxy": null,
                    "auth_username": "alice", "password": "absent",
                    "ha1": [{"realm": "example.com", "algorithm": "SHA-256", "value": "present"}],
                    "register_expires": 600, "trunk_sources": "any", "contact_style": "capability",
                    "early_response": null, "tls_spki_sha256": null},
        "held": {"registered_at": "198.51.100.10:5061", "lease_seconds": 259_200,
                 "push_targets_since": "2026-11-21T20:00:00Z", "pushes_sent": {"missed-call": 1},
                 "restricted_since": null, "devices_sharing": 1, "texts_waiting": 2, "pushes_under_way": 1,
                 "attached": {"address": "192.0.2.7:5060", "contact": "sip:app@192.0.2.7"},
                 "mailbox": {"subscribed": true, "new": 3, "old": 4},
                 "calls": [{"call": CALL, "state": "ended", "reason": "declined", "story": [], "story_omitted": 0,
                            "private_media_address": false}],
                 "self_test": {"test": test_view().test.to_string(), "requested_at": "2026-11-21T20:00:00Z",
                               "accepted_at": "2026-11-21T20:00:01Z", "arrived_at": null, "accepted_ms": 730,
                               "arrived_ms": null, "failure": null},
                 "trace": {"scope": ["sip", "decisions"], "since": "2026-11-21T20:00:00Z",
                           "until": "2026-11-21T21:00:00Z", "tenant_may_read": false}}
    });
    wanted.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    assert_eq!(reply.json(), wanted);
}

#[tokio::test]
async fn calls_are_shown_and_declined() {
    let world = World::new();
    let call = path(&format!("/calls/{CALL}"));
    let shown = json!({
        "state": "waking", "reason": null, "story_omitted": 2, "private_media_address": true,
        "story": [{"event": "invited", "ms": 0, "at": "2026-11-24T20:00:00Z"},
                  {"event": "wake-failed", "reason": "token-dead", "ms": 1300, "at": "2026-11-24T20:00:02Z"}],
    });
    assert_eq!(world.ask(Method::GET, &call, TOKEN).await.json(), shown);
    let declined = json!({"state": "ended", "reason": "declined", "story": [], "story_omitted": 0,
                          "private_media_address": false});
    for (body, wanted) in [
        (json!({"reason": "busy"}), Decline { reason: DeclineReason::Busy, everywhere: false }),
        (
            json!({"reason": "decline", "everywhere": true}),
            Decline { reason: DeclineReason::Decline, everywhere: true },
        ),
        (
            json!({"reason": "unavailable", "everywhere": false}),
            Decline { reason: DeclineReason::Unavailable, everywhere: false },
        ),
    ] {
        world.engine.asked();
        let reply = world.send(post(&format!("{call}/decline"), TOKEN, body.to_string())).await;
        assert_eq!(reply.json(), declined, "{}", reply.text);
        assert!(
            matches!(world.engine.asked().pop(), Some((_, Command::Decline(_, _, _, decline))) if decline == wanted)
        );
    }
    for body in [json!({}), json!({"reason": "no"}), json!({"reason": "busy", "everywhere": 1})] {
        let reply = world.send(post(&format!("{call}/decline"), TOKEN, body.to_string())).await;
        assert_eq!(reply.problem(), "invalid-request", "{body}");
    }
}

#[tokio::test]
async fn self_tests_begin_are_shown_and_are_reported() {
    let world = World::new();
    let test = test_view().test.to_string();
    let requested_at = "2026-11-21T20:00:00Z";
    let reply = world.ask(Method::POST, &path("/test"), TOKEN).await;
    assert_eq!((reply.status.as_u16(), reply.json()), (202, json!({"test": test, "requested_at": requested_at})));

    let shown = json!({"test": test, "requested_at": requested_at, "accepted_at": "2026-11-21T20:00:01Z",
                       "arrived_at": null, "accepted_ms": 730, "arrived_ms": null, "failure": null});
    let of_test = path(&format!("/test/{test}"));
    for method in [Method::GET, Method::POST] {
        let reply = world.ask(method, &of_test, TOKEN).await;
        assert_eq!((reply.status.as_u16(), reply.json()), (200, shown.clone()));
    }
    let asked = world.engine.asked();
    assert!(
        matches!(&asked[..], [(_, Command::BeginTest(..)), (_, Command::Test(..)), (_, Command::TestArrived(..))]),
        "{}",
        asked.len()
    );
    for other in ["nonsense", "00000000-0000-0000-0000-00000000000c"] {
        let reply = world.ask(Method::GET, &path(&format!("/test/{other}")), TOKEN).await;
        assert_eq!((reply.status.as_u16(), reply.problem().as_str()), (404, "not-found"));
    }
}

#[tokio::test]
async fn coming_to_the_foreground_answers_the_receipt_and_what_became_of_the_contact() {
    let world = World::new();
    let told = |binding: &str| json!({"receipt": receipt(), "logged": true, "binding": binding});
    for (body, wanted, parting) in [
        (json!({}), told("released"), Parting::Release),
        (json!({"binding": "release"}), told("released"), Parting::Release),
        (json!({"binding": "keep"}), told("kept"), Parting::Keep),
    ] {
        let reply = world.send(post(&path("/foreground"), TOKEN, body.to_string())).await;
        let mut wanted = wanted;
        if parting == Parting::Keep {
            wanted["contact"] = json!("sip:cap@h");
            wanted["expires"] = json!(540);
        }
        assert_eq!(reply.json(), wanted, "{body}");
        assert!(matches!(world.engine.asked().pop(), Some((_, Command::Foreground(_, _, asked))) if asked == parting));
    }
    let reply = world.send(post(&path("/foreground"), TOKEN, json!({"binding": "drop"}).to_string())).await;
    assert_eq!((reply.problem().as_str(), reply.json()["path"].as_str()), ("invalid-request", Some("binding")));
}

#[tokio::test]
async fn every_refusal_becomes_its_problem() {
    let world = World::new();
    let seconds = Duration::from_secs;
    let gone = |receipt| Refusal::Gone { cause: Cause::LeaseEnded, receipt };
    let refusals = [
        (Refusal::NotFound, 404, "not-found", None),
        (gone(None), 410, "instance-erased", None),
        (gone(Some(Box::new(receipt()))), 410, "instance-erased", None),
        (Refusal::InvalidAccount("the engine's words".to_owned()), 422, "invalid-account", None),
        (Refusal::RegistrarNotAllowed("the engine's words".to_owned()), 422, "registrar-not-allowed", None),
        (Refusal::RegistrarRefused("403 Forbidden".to_owned()), 422, "registrar-refused", None),
        (unsignable(), 422, "registrar-refused", None),
        (Refusal::RegistrarUnreachable, 422, "registrar-unreachable", None),
        (Refusal::WrongMode, 400, "invalid-request", None),
        (Refusal::Restricted, 403, "forbidden", None),
        (Refusal::CallOver, 404, "call-over", None),
        (Refusal::TestOver, 404, "test-over", None),
        (Refusal::NoTrace, 404, "no-trace", None),
        (Refusal::NoPushTarget, 422, "no-usable-push-target", None),
        (Refusal::SwitchedOff, 403, "forbidden", None),
        (Refusal::RateLimited { after: seconds(30) }, 429, "rate-limited", Some("30")),
        (Refusal::TooManyDevices { after: seconds(86_400) }, 429, "too-many-devices", Some("86400")),
        (Refusal::Busy { after: Duration::ZERO }, 503, "busy", Some("1")),
    ];
    for (refusal, status, problem, retry_after) in refusals {
        world.engine.refuses(refusal.clone());
        let reply = world.hand_over(&hand_over_body()).await;
        assert_eq!((reply.status.as_u16(), reply.problem().as_str()), (status, problem), "{refusal:?}");
        assert_eq!(reply.header("retry-after"), retry_after);
        let json = reply.json();
        match refusal {
            Refusal::Gone { receipt, .. } => {
                assert_eq!(json["cause"], "lease-ended");
                assert_eq!(
                    json.get("receipt").cloned(),
                    receipt.map(|receipt| serde_json::to_value(receipt).expect("JSON"))
                );
            }
            Refusal::RegistrarRefused(verdict) => {
                assert_eq!((json["verdict"].as_str(), json["reason"].as_str()), (Some(&*verdict), Some("rejected")));
            }
            Refusal::ChallengeUnsignable { verdict, .. } => {
                assert_eq!(
                    (json["verdict"].as_str(), json["reason"].as_str()),
                    (Some(&*verdict), Some("no-matching-ha1"))
                );
                let detail = json["detail"].as_str().expect("a detail");
                assert!(!detail.contains("Check user name and password"), "they are not to blame: {detail}");
            }
            Refusal::InvalidAccount(words) | Refusal::RegistrarNotAllowed(words) => assert_eq!(json["detail"], words),
            _ => assert!(json.get("cause").is_none() && json.get("verdict").is_none()),
        }
    }
}

#[tokio::test]
async fn every_problem_type_is_reached() {
    let limits = Limits { posts_per_source: 5, ..Settings::default().limits };
    let world = World::with(Settings { limits, ..Settings::default() });
    let mut seen = BTreeSet::new();
    let body = hand_over_body();
    // Five hand-overs, then the source has had its share.
    for body in [
        changed(&body, "/mode", Some(json!("other"))),
        changed(&body, "/account/aor", Some(json!("sip:"))),
        changed(&body, "/device/push", Some(json!([]))),
        changed(&body, "/lease_seconds", Some(json!(999_999_999))),
        changed(&body, "/mode", Some(json!("x".repeat(20_000)))),
        body.clone(),
    ] {
        seen.insert(world.hand_over(&body).await.problem());
    }
    assert!(seen.contains("rate-limited"));
    seen.insert(world.ask(Method::GET, &path(""), APP_KEY).await.problem());
    seen.insert(world.send(request(Method::GET, &path("")).body(empty()).expect("a request")).await.problem());
    for refusal in [
        Refusal::NotFound,
        Refusal::CallOver,
        Refusal::TestOver,
        Refusal::NoTrace,
        Refusal::Gone { cause: Cause::Deleted, receipt: None },
        Refusal::RegistrarNotAllowed("no".to_owned() + " such registrar"),
        Refusal::RegistrarRefused("403 Forbidden".to_owned()),
        Refusal::RegistrarUnreachable,
        Refusal::TooManyDevices { after: Duration::from_secs(1) },
        Refusal::Busy { after: Duration::from_secs(1) },
    ] {
        world.engine.refuses(refusal);
        seen.insert(world.ask(Method::GET, &path(""), TOKEN).await.problem());
    }
    let all: BTreeSet<_> = Kind::ALL.iter().map(|kind| kind.name().to_owned()).collect();
    assert_eq!(seen, all);
}

#[tokio::test]
async fn other_paths_and_methods_get_problems_too() {
    let world = World::new();
    for path in ["/", "/v1", "/v1/instances/", "/v2/instances", "/openapi.yaml"] {
        let reply = world.ask(Method::GET, path, TOKEN).await;
        assert_eq!((reply.status.as_u16(), reply.problem().as_str()), (404, "not-found"), "{path}");
    }
    let reply = world.ask(Method::PUT, &path(""), TOKEN).await;
    assert_eq!((reply.status.as_u16(), reply.problem().as_str()), (405, "invalid-request"));
    let allowed: BTreeSet<_> = reply.header("allow").expect("Allow").split(',').map(str::trim).collect();
    assert_eq!(allowed, BTreeSet::from(["GET", "HEAD", "PATCH", "DELETE"]));
    let head = world.ask(Method::HEAD, &path(""), TOKEN).await;
    assert_eq!((head.status.as_u16(), head.text.as_str()), (200, ""));
    assert!(world.engine.asked().iter().all(|(_, command)| matches!(command, Command::Show(..))));
}

#[test]
fn a_receipt_leaves_the_api_as_the_audit_log_made_it() {
    for receipt in [receipt(), crate::engine::audit::Receipt { inclusion: None, ..receipt() }] {
        let made = serde_json::to_string(&receipt).expect("JSON");
        assert_eq!(serde_json::to_string(&ReceiptBody::from(receipt)).expect("JSON"), made);
    }
}

#[tokio::test]
async fn the_openapi_document_is_the_reviewed_one() {
    let world = World::new();
    let reply = world.send(request(Method::GET, "/openapi.json").body(empty()).expect("a request")).await;
    assert_eq!((reply.status.as_u16(), reply.header("content-type")), (200, Some("application/json")));
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(REVIEWED, format!("{}\n", reply.text)).expect("written");
    }
    let reviewed = std::fs::read_to_string(REVIEWED).expect("docs/openapi.json");
    assert_eq!(reply.text.trim(), reviewed.trim(), "run the test with UPDATE_OPENAPI=1 and review docs/openapi.json");
}

#[tokio::test]
async fn the_document_lists_exactly_what_is_served() {
    let world = World::new();
    let document: Value = serde_json::from_slice(&openapi::document()).expect("JSON");
    let paths = document["paths"].as_object().expect("paths");
    assert_eq!(paths.len(), 16);
    for (template, operations) in paths {
        let path = template.replace("{id}", &instance().to_string()).replace("{call}", CALL);
        let path = path.replace("{test}", &test_view().test.to_string());
        for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            let documented = operations.get(method.as_str().to_lowercase()).is_some();
            let reply = world.send(request(method.clone(), &path).body(empty()).expect("a request")).await;
            assert_eq!(reply.status != 405, documented, "{method} {template}");
            assert_ne!(reply.status, 404, "{method} {template}");
        }
    }
}

#[tokio::test]
async fn the_guides_first_example_is_accepted() {
    let guide = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/api.md")).expect("docs/api.md");
    let (_, rest) = guide.split_once("<<'JSON'\n").expect("an example");
    let (body, _) = rest.split_once("\nJSON\n").expect("its end");
    let world = World::new();
    // Its tokens are cut short, which shows.
    let body = body.replace('…', "");
    let reply = world.send(post("/v1/instances", APP_KEY, body)).await;
    assert_eq!(reply.status, 201, "{}", reply.text);
}

#[test]
fn the_guide_names_every_problem_type() {
    let guide = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/api.md")).expect("docs/api.md");
    for kind in Kind::ALL {
        let row = format!("| `{}` | {} |", kind.name(), kind.status().as_u16());
        assert!(guide.contains(&row), "{row}");
    }
}

#[test]
fn the_document_is_whole() {
    let document: Value = serde_json::from_slice(&openapi::document()).expect("JSON");
    let mut references = BTreeSet::new();
    collect_references(&document, &mut references);
    for reference in &references {
        let pointer = reference.strip_prefix('#').expect("a local reference");
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
    let schemes = document.pointer("/components/securitySchemes").and_then(Value::as_object).expect("schemes");
    let mut ids = BTreeSet::new();
    for operations in document["paths"].as_object().expect("paths").values() {
        for operation in operations.as_object().expect("operations").values() {
            let id = operation["operationId"].as_str().expect("an id").to_owned();
            assert!(ids.insert(id.clone()), "{id} twice");
            if id == "show_description" {
                continue;
            }
            let security = operation["security"].as_array().expect("security");
            assert!(!security.is_empty());
            for name in security.iter().flat_map(|one| one.as_object().expect("an object").keys()) {
                assert!(schemes.contains_key(name), "{name}");
            }
            for status in ["401", "403", "500", "503", "default"] {
                let problem =
                    operation.pointer(&format!("/responses/{status}/content/application~1problem+json/schema/$ref"));
                assert_eq!(problem, Some(&json!("#/components/schemas/Problem")), "{id} {status}");
            }
        }
    }
}

fn unsignable() -> Refusal {
    let verdict = "401 Unauthorized; the registrar asks for realm pbx, algorithm MD5; no ha1 for it".to_owned();
    Refusal::ChallengeUnsignable { verdict, reason: RegistrationReason::NoMatchingHa1 }
}

fn collect_references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            if let Some(Value::String(reference)) = members.get("$ref") {
                found.insert(reference.clone());
            }
            members.values().for_each(|value| collect_references(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| collect_references(value, found)),
        _ => {}
    }
}
