//! Push targets: which are taken, which are refused, and which member the refusal names.

use http::Method;
use serde_json::{Value, json};

use super::hand_over::handed;
use super::world::{PUSH_TOKEN, Reply, TOKEN, World, changed, hand_over_body, path, with_body};
use crate::engine::input::Command;

#[tokio::test]
async fn without_a_usable_push_target_the_secret_is_not_even_looked_at() {
    let world = World::new();
    let target = |purpose: &str, provider: &str, app: &str, token: &str| json!([{"for": purpose, "provider": provider, "app": app, "token": token}]);
    // A secret no parser would accept: whoever looked at it would have complained about it instead.
    let unreadable = changed(&hand_over_body(), "/account/password", Some(json!({"not": ["a", "string"]})));
    for push in [
        json!([]),
        target("other", "apns", "com.example.phone", "t"),
        target("call", "apns", "com.example.phone", ""),
        target("call", "apns", "com.example.phone", "sp ace"),
        target("call", "apns", "com.beta.phone", "t"),
        target("call", "fcm", "com.example.phone", "t"),
        target("call", "sandbox", "com.example.phone", "t"),
        target("call", "apns", &"a".repeat(200), "t"),
        target("call", "apns", "com.example.phone", &"a".repeat(5000)),
    ] {
        let reply = world.hand_over(&changed(&unreadable, "/device/push", Some(push.clone()))).await;
        assert_eq!((reply.status.as_u16(), reply.problem().as_str()), (422, "no-usable-push-target"), "{push}");
    }
    let many: Vec<_> = (0..9).map(|_| target("call", "apns", "com.example.phone", "t")[0].clone()).collect();
    assert_eq!(
        world.hand_over(&changed(&unreadable, "/device/push", Some(json!(many)))).await.problem(),
        "invalid-request"
    );
    assert!(world.engine.asked().is_empty());
}

/// A hand-over and a change of push targets that give these.
async fn both_ways(world: &World, targets: &Value) -> [Reply; 2] {
    let patch = json!({"push": targets}).to_string();
    [
        world.hand_over(&changed(&hand_over_body(), "/device/push", Some(targets.clone()))).await,
        world.send(with_body(Method::PATCH, &path(""), TOKEN, patch)).await,
    ]
}

#[tokio::test]
async fn a_token_that_cannot_be_one_of_its_provider_is_refused_and_its_member_is_named() {
    let world = World::new();
    let apns = |member: &str, text: &str| json!({"for": "other", "provider": "apns", "app": "com.example.phone", member: text});
    let fcm =
        |member: &str, text: &str| json!({"for": "other", "provider": "fcm", "app": "com.example.droid", member: text});
    let good = json!({"for": "call", "provider": "apns", "app": "com.example.phone", "token": PUSH_TOKEN});
    const FID: &str = "fHx0aBcD_eFgH-iJkLmNoP";
    for (target, member, hint) in [
        (apns("token", ""), "token", "empty"),
        (apns("token", "ChYgCg+/8Q=="), "token", "hexadecimal"),
        (apns("token", "ExponentPushToken[xxxxxxxxxxxxxxxxxxxxxx]"), "token", "hexadecimal"),
        (apns("token", "f00"), "token", "hexadecimal"),
        (apns("token", "f00d\n"), "token", "hexadecimal"),
        (apns("token", &"f0".repeat(300)), "token", "longer"),
        (apns("fid", FID), "fid", "fcm"),
        (fcm("token", "a b"), "token", "characters"),
        (fcm("token", "a:b\r\n"), "token", "characters"),
        (fcm("token", "a%3Ab"), "token", "characters"),
        (fcm("token", FID), "token", "\"fid\""),
        (fcm("fid", "t:1_2-3"), "fid", "\"token\""),
    ] {
        for reply in both_ways(&world, &json!([good, target])).await {
            let told = (reply.status.as_u16(), reply.problem());
            assert_eq!(told, (422, "no-usable-push-target".to_owned()), "{target}");
            let at = reply.json()["path"].as_str().expect("a path").to_owned();
            assert!(at.ends_with(&format!("push[1].{member}")), "{target}: {at}");
            assert!(reply.detail().contains(&at) && reply.detail().contains(hint), "{}", reply.detail());
        }
    }
    for target in [json!({"token": "a:b", "fid": FID}), json!({})] {
        let mut target = target;
        target["for"] = json!("call");
        target["provider"] = json!("fcm");
        target["app"] = json!("com.example.droid");
        for reply in both_ways(&world, &json!([good, target])).await {
            assert_eq!((reply.status.as_u16(), reply.problem().as_str()), (400, "invalid-request"), "{target}");
            assert!(reply.json()["path"].as_str().expect("a path").ends_with("push[1]"));
        }
    }
    assert!(world.engine.asked().iter().all(|(_, command)| matches!(command, Command::Data(..))));
}

#[tokio::test]
async fn an_installation_id_takes_the_place_of_a_registration_token() {
    let world = World::new();
    let push = json!([{"for": "call", "provider": "fcm", "app": "com.example.droid", "fid": "fHx0aBcD_eFgH-iJkLmNoP"}]);
    for reply in both_ways(&world, &push).await {
        assert!(reply.status.is_success(), "{}", reply.text);
    }
    let tokens: Vec<_> = world
        .engine
        .asked()
        .into_iter()
        .filter_map(|(_, command)| match command {
            Command::HandOver(handed) => Some(handed.push[0].token.clone()),
            Command::Rectify(_, _, change) => change.push.map(|push| push[0].token.clone()),
            _ => None,
        })
        .collect();
    let told: Vec<_> = tokens.iter().map(|token| (token.form(), token.as_str())).collect();
    assert_eq!(told, [("fid", "fHx0aBcD_eFgH-iJkLmNoP"); 2]);
}

#[tokio::test]
async fn targets_of_apps_that_are_not_known_are_left_aside() {
    let world = World::new();
    let push = json!([
        {"for": "call", "provider": "fcm", "app": "com.example.phone", "token": "unknown app"},
        {"for": "call", "provider": "apns", "app": "com.example.phone", "token": "600d"},
        {"for": "other", "provider": "apns", "app": "com.beta.phone", "token": "f00d"}
    ]);
    assert_eq!(world.hand_over(&changed(&hand_over_body(), "/device/push", Some(push))).await.status, 201);
    let push = handed(&world).push;
    assert_eq!(push.iter().map(|target| target.token.as_str()).collect::<Vec<_>>(), ["600d"]);
}
