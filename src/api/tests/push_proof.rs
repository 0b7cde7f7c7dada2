//! Proof of push tokens, and keys for the caller.

use http::Method;
use serde_json::{Value, json};

use super::world::{APP_KEY, Settings, TOKEN, World, changed, hand_over_body, path, post, usual_answer, with_body};
use crate::engine::caller_key::CallerSuite;
use crate::engine::input::Command;
use crate::engine::output::{Answer, Refusal};
use crate::engine::proof::ProofState;

/// X25519's base point, and the one that every private key takes to zero.
const POINT: &str = "CQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
const LOW: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
const SUITE: &str = "x25519-hkdf-sha256-aes128gcm";

#[tokio::test]
async fn a_challenge_is_returned_or_another_one_asked_for() {
    let world = World::new();
    let proof = path("/push-proof");
    let reply = world.send(post(&proof, TOKEN, json!({"challenge": "gaytemz"}).to_string())).await;
    assert_eq!((reply.status.as_u16(), reply.json()), (200, json!({"push_proof": "proven"})));
    assert!(matches!(world.engine.asked().pop(), Some((_, Command::Prove(_, _, Some(said)))) if said == "gaytemz"));

    for body in ["{}", ""] {
        let asked = world.send(post(&proof, TOKEN, body)).await;
        assert_eq!((asked.status.as_u16(), asked.json()), (202, json!({"push_proof": "pending"})));
        assert!(matches!(world.engine.asked().pop(), Some((_, Command::Prove(_, _, None)))));
    }
    for (state, status) in [(ProofState::NotRequired, 200), (ProofState::Contested, 200)] {
        world.engine.answers(move |command| match command {
            Command::Prove(..) => Answer::PushProof(state),
            other => usual_answer(other),
        });
        let reply = world.ask(Method::POST, &proof, TOKEN).await;
        assert_eq!((reply.status.as_u16(), reply.json()), (status, json!({"push_proof": state.as_str()})));
    }
}

#[tokio::test]
async fn a_token_for_calls_that_could_be_proven_does_not_go_with_another_one() {
    let world = World::with(Settings { change: |it| it.tenants[0].prove_push_token = true, ..Settings::default() });
    let target = |purpose: &str, provider: &str, app: &str, token: &str| json!({"for": purpose, "provider": provider, "app": app, "token": token});
    let (apns, droid) = ("com.example.phone", "com.example.droid");
    let own = target("other", "fcm", droid, "own");
    let fid = |purpose: &str, fid: &str| json!({"for": purpose, "provider": "fcm", "app": droid, "fid": fid});
    let id = "fHx0aBcD_eFgH-iJkLmNoP";
    let change = |targets: &Value| with_body(Method::PATCH, &path(""), TOKEN, json!({"push": targets}).to_string());
    for (targets, fine) in [
        // A thief's own token beside a stolen one.
        (json!([target("call", "fcm", droid, "stolen"), own]), false),
        (json!([own, target("call", "fcm", droid, "stolen")]), false),
        (json!([target("call", "fcm", droid, "stolen"), target("other", "apns", apns, "570ef0")]), false),
        (json!([target("call", "apns", apns, "a0a0")]), false),
        (json!([target("call", "fcm", droid, "own"), own]), true),
        (json!([target("call", "fcm", droid, "own")]), true),
        // The same characters in another form are another name.
        (json!([fid("call", id), fid("other", id)]), true),
        (json!([fid("call", id), own]), false),
        (json!([target("call", "apns", apns, "a0a0"), target("other", "apns", apns, "b0b0")]), true),
    ] {
        let body = changed(&hand_over_body(), "/device/push", Some(targets.clone()));
        for reply in [world.hand_over(&body).await, world.send(change(&targets)).await] {
            assert_eq!(reply.status.is_success(), fine, "{targets}: {}", reply.text);
            if !fine {
                assert_eq!(reply.problem(), "no-usable-push-target");
                assert!(!reply.text.contains("stolen") && reply.detail().contains("proof of the push token"));
            }
        }
    }
}

#[tokio::test]
async fn a_wrong_challenge_is_refused_with_what_to_do_and_without_what_was_said() {
    let world = World::new();
    let proof = path("/push-proof");
    for (tries, words) in [(2, "tries left: 2"), (0, "ask for another one")] {
        world.engine.answers(move |command| match command {
            Command::Prove(..) => Answer::Refused(Refusal::WrongChallenge { tries }),
            other => usual_answer(other),
        });
        let reply = world.send(post(&proof, TOKEN, json!({"challenge": "my-guess"}).to_string())).await;
        assert_eq!((reply.status.as_u16(), reply.problem().as_str()), (400, "invalid-request"));
        let body = reply.json();
        assert_eq!(body["path"], "challenge");
        assert!(body["detail"].as_str().is_some_and(|detail| detail.contains(words)), "{body}");
        assert!(!reply.text.contains("my-guess"));
    }
    for body in [json!({"challenge": 1}), json!({"chalenge": "a"}), json!([])] {
        let reply = world.send(post(&proof, TOKEN, body.to_string())).await;
        assert_eq!(reply.problem(), "invalid-request", "{body}");
    }
}

#[tokio::test]
async fn nobody_proves_for_an_instance_whose_token_he_does_not_have() {
    let world = World::new();
    world.engine.refuses(Refusal::NotFound);
    let proof = path("/push-proof");
    // Not even the shape of the body is looked at.
    let reply = world.send(post(&proof, "another-token", "no JSON".to_owned())).await;
    let unknown = world.ask(Method::GET, &path(""), "another-token").await;
    assert_eq!((reply.status.as_u16(), reply.text), (404, unknown.text));
}

#[tokio::test]
async fn a_tenant_that_asks_for_proof_needs_a_target_that_can_carry_a_challenge() {
    let world = World::new();
    let target = |purpose: &str| json!({"for": purpose, "provider": "apns", "app": "com.beta.phone", "token": "f00d"});
    let body = |targets: Value| changed(&hand_over_body(), "/device/push", Some(targets)).to_string();
    let voip_alone = body(json!([target("call")]));
    let reply = world.send(post("/v1/instances", "beta-app-key", voip_alone)).await;
    assert_eq!((reply.status.as_u16(), reply.problem().as_str()), (422, "no-usable-push-target"));
    assert!(reply.text.contains("proof of the push token"), "{}", reply.text);
    assert!(world.engine.asked().is_empty());
    let reply = world.send(post("/v1/instances", "beta-app-key", body(json!([target("call"), target("other")])))).await;
    assert_eq!(reply.status, 201, "{}", reply.text);
}

#[tokio::test]
async fn a_key_for_the_caller_reaches_the_engine_by_hand_over_and_by_patch() {
    let world = World::new();
    let key = json!({"suite": SUITE, "public": POINT});
    let reply = world.hand_over(&changed(&hand_over_body(), "/device/caller_key", Some(key.clone()))).await;
    assert_eq!(reply.status, 201, "{}", reply.text);
    let asked = world.engine.asked().pop();
    let Some((_, Command::HandOver(handed))) = asked else { panic!("a hand-over") };
    let handed = handed.caller_key.expect("the key");
    assert_eq!((handed.suite(), handed.public()[0]), (CallerSuite::Aes128Gcm, 9));

    for (body, wanted) in [(json!({"caller_key": key}), Some(Some(handed))), (json!({"caller_key": null}), Some(None))]
    {
        let reply = world.send(with_body(Method::PATCH, &path(""), TOKEN, body.to_string())).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        let Some((_, Command::Rectify(.., change))) = world.engine.asked().pop() else { panic!("a change") };
        assert!(change.caller_key == wanted, "{body}");
    }
}

#[tokio::test]
async fn a_key_that_nothing_can_be_sealed_to_is_refused_by_its_member() {
    let world = World::new();
    for (key, member) in [
        (json!({"suite": "x448", "public": POINT}), "suite"),
        (json!({"suite": SUITE, "public": LOW}), "public"),
        (json!({"suite": SUITE, "public": &POINT[1..]}), "public"),
        (json!({"suite": SUITE, "public": format!("{POINT}=")}), "public"),
        (json!({"suite": SUITE, "public": "+".repeat(43)}), "public"),
        (json!({"suite": SUITE, "public": ""}), "public"),
    ] {
        let body = changed(&hand_over_body(), "/device/caller_key", Some(key.clone())).to_string();
        let reply = world.send(post("/v1/instances", APP_KEY, body)).await;
        assert_eq!((reply.status.as_u16(), reply.problem().as_str()), (400, "invalid-request"), "{key}");
        assert_eq!(reply.json()["path"], format!("device.caller_key.{member}"));
        let body = json!({"caller_key": key}).to_string();
        let reply = world.send(with_body(Method::PATCH, &path(""), TOKEN, body)).await;
        assert_eq!(reply.json()["path"], format!("caller_key.{member}"));
    }
}
