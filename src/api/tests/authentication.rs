//! Who may do what, and what strangers learn.

use http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::tenants::sha256;
use super::world::{
    APP_KEY, CALL, DOMAIN, SECOND_APP_KEY, TOKEN, World, changed, claims, empty, hand_over_body, path, post, request,
    unsigned, with_body,
};
use crate::clock::now;
use crate::engine::ids::{InstanceId, ShardId};
use crate::engine::input::Command;
use crate::engine::output::Refusal;

const OTHER_DEVICE: &str = "urn:uuid:00000000-0000-4000-8000-000000000001";
const TENANT_INSTANCES: &str = "/v1/tenants/self/instances";

async fn hand_over_as(world: &World, bearer: &str) -> (u16, String, Vec<(ShardId, Command)>) {
    let reply = world.send(post("/v1/instances", bearer, hand_over_body().to_string())).await;
    let problem = if reply.status.is_success() { String::new() } else { reply.problem() };
    (reply.status.as_u16(), problem, world.engine.asked())
}

#[tokio::test]
async fn both_live_app_keys_hand_over_and_nothing_close_to_them_does() {
    let world = World::new();
    for key in [APP_KEY, SECOND_APP_KEY] {
        let (status, _, asked) = hand_over_as(&world, key).await;
        assert_eq!(status, 201);
        assert!(matches!(&asked[..], [(_, Command::HandOver(handed))] if &*handed.tenant == "acme"));
    }
    let hash: String = sha256(APP_KEY.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    for wrong in [&APP_KEY[1..], &APP_KEY.to_uppercase(), &hash, "x"] {
        let (status, problem, asked) = hand_over_as(&world, wrong).await;
        assert_eq!((status, problem.as_str(), asked.len()), (401, "unauthorized", 0), "{wrong}");
    }
}

#[tokio::test]
async fn a_request_without_one_usable_bearer_gets_401_on_every_call() {
    let world = World::new();
    let calls = [
        (Method::POST, "/v1/instances".to_owned()),
        (Method::GET, path("")),
        (Method::PATCH, path("")),
        (Method::DELETE, path("")),
        (Method::POST, path("/refresh")),
        (Method::GET, path("/data")),
        (Method::POST, path("/restrict")),
        (Method::DELETE, path("/restrict")),
        (Method::POST, path("/trace")),
        (Method::GET, path("/trace")),
        (Method::DELETE, path("/trace")),
        (Method::GET, format!("{TENANT_INSTANCES}/x/trace")),
        (Method::GET, path(&format!("/calls/{CALL}"))),
        (Method::POST, path(&format!("/calls/{CALL}/decline"))),
        (Method::DELETE, TENANT_INSTANCES.to_owned()),
    ];
    for (method, path) in calls {
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "Basic YTpi",
            "Bearer a b",
            "Bearer \"x\"",
            &format!("Bearer {}", "x".repeat(5000)),
        ] {
            let mut builder = request(method.clone(), &path).header("content-type", "application/json");
            if !wrong.is_empty() {
                builder = builder.header("authorization", wrong);
            }
            let reply = world.send(builder.body(empty()).expect("a request")).await;
            assert_eq!(
                (reply.status.as_u16(), reply.problem().as_str()),
                (401, "unauthorized"),
                "{method} {path} {wrong}"
            );
        }
        let twice = request(method.clone(), &path)
            .header("authorization", format!("Bearer {TOKEN}"))
            .header("authorization", format!("Bearer {APP_KEY}"));
        assert_eq!(world.send(twice.body(empty()).expect("a request")).await.status, 401, "{method} {path} twice");
    }
    assert!(world.engine.asked().is_empty());
}

#[tokio::test]
async fn a_stranger_is_refused_before_any_of_its_body_is_read() {
    let world = World::new();
    let requests = [
        ("POST /v1/instances".to_owned(), "nobody"),
        (format!("PATCH {}", path("")), "nobody"),
        (format!("POST {}", path(&format!("/calls/{CALL}/decline"))), "nobody"),
    ];
    world.engine.refuses(Refusal::NotFound);
    for (line, bearer) in requests {
        let mut stream = world.connect(&[b"http/1.1"]).await.expect("connected");
        // The body is announced and never sent: an answer proves that nobody waited for it. A server that had wanted
        // it would have said "100 Continue" first.
        let head = format!(
            "{line} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {bearer}\r\nContent-Type: application/json\r\n\
             Expect: 100-continue\r\nContent-Length: 500\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.expect("sent");
        let mut answer = vec![0; 12];
        stream.read_exact(&mut answer).await.expect("an answer");
        let status = String::from_utf8(answer).expect("text");
        assert!(status == "HTTP/1.1 401" || status == "HTTP/1.1 404", "{line}: {status}");
    }
}

#[tokio::test]
async fn an_app_key_may_only_hand_over() {
    let world = World::new();
    for (method, path) in [
        (Method::GET, path("")),
        (Method::PATCH, path("")),
        (Method::DELETE, path("")),
        (Method::POST, path("/refresh")),
        (Method::GET, path("/data")),
        (Method::GET, path(&format!("/calls/{CALL}"))),
        (Method::DELETE, TENANT_INSTANCES.to_owned()),
    ] {
        let reply = world.ask(method.clone(), &path, APP_KEY).await;
        assert_eq!((reply.status.as_u16(), reply.problem().as_str()), (403, "forbidden"), "{method} {path}");
    }
    assert!(world.engine.asked().is_empty());
}

#[tokio::test]
async fn a_jwt_is_no_instance_token() {
    let world = World::new();
    let reply = world.ask(Method::GET, &path(""), &world.es256.token(&claims())).await;
    assert_eq!(reply.problem(), "unauthorized");
    assert!(world.engine.asked().is_empty());
}

#[tokio::test]
async fn an_instance_token_reaches_the_engine_as_its_hash() {
    let world = World::new();
    assert_eq!(world.ask(Method::GET, &path(""), TOKEN).await.status, 200);
    let asked = world.engine.asked();
    assert!(matches!(&asked[..], [(ShardId(2), Command::Show(id, hash))]
            if *id == super::world::instance() && hash.0 == sha256(TOKEN.as_bytes())));
}

#[tokio::test]
async fn unknown_foreign_and_impossible_instances_give_the_same_404_bytes() {
    let world = World::new();
    world.engine.refuses(Refusal::NotFound);
    let nowhere = InstanceId::mint(ShardId(999), *b"0123456789abcdef");
    let foreign = world.ask(Method::GET, &path(""), TOKEN).await;
    assert_eq!(foreign.problem(), "not-found");
    for other in [
        format!("/v1/instances/{nowhere}"),
        "/v1/instances/x".to_owned(),
        "/v1/instances/%ff".to_owned(),
        path("/data"),
        path(&format!("/calls/{CALL}")),
        path("/calls/none"),
        path("/calls/%ff"),
    ] {
        let reply = world.ask(Method::GET, &other, TOKEN).await;
        let strip = |reply: &super::world::Reply| {
            let mut headers = reply.headers.clone();
            headers.remove("date");
            (reply.status, headers, reply.text.clone())
        };
        assert_eq!(strip(&reply), strip(&foreign), "{other}");
    }
}

#[tokio::test]
async fn a_backend_token_hands_over_one_body_and_only_for_its_device() {
    let world = World::new();
    let token = world.es256.token(&claims());
    assert_eq!(hand_over_as(&world, &token).await.0, 201);
    // Its answer was lost: the same once more is the same. With another body the token is worth nothing.
    let (status, _, asked) = hand_over_as(&world, &token).await;
    assert_eq!((status, asked.len()), (201, 1));
    for body in [changed(&hand_over_body(), "/lease_seconds", Some(json!(3600))), json!({})] {
        let reply = world.send(post("/v1/instances", &token, body.to_string())).await;
        assert_eq!((reply.status.as_u16(), reply.problem().as_str()), (401, "unauthorized"), "{body}");
        assert!(world.engine.asked().is_empty());
    }
    assert_eq!(hand_over_as(&world, &token).await.0, 201, "another body changes nothing");
    // A body that is refused is one too.
    let token = world.es256.token(&claims());
    let wrong = changed(&hand_over_body(), "/mode", Some(json!("none"))).to_string();
    assert_eq!(world.send(post("/v1/instances", &token, wrong.clone())).await.status, 400);
    assert_eq!(world.send(post("/v1/instances", &token, wrong)).await.status, 400);
    assert_eq!(hand_over_as(&world, &token).await.0, 401);

    let other = world.es256.token(&changed(&claims(), "/sub", Some(json!(OTHER_DEVICE))));
    let (status, problem, asked) = hand_over_as(&world, &other).await;
    assert_eq!((status, problem.as_str(), asked.len()), (403, "forbidden", 0));
}

#[tokio::test]
async fn each_tenants_key_fixes_its_algorithm() {
    let world = World::new();
    let for_beta = |claims: Value| changed(&claims, "/iss", Some(json!("beta")));
    // beta has no such app, so its hand-over passes authentication and stops at the push target.
    let (status, problem, _) = hand_over_as(&world, &world.eddsa.token(&for_beta(claims()))).await;
    assert_eq!((status, problem.as_str()), (422, "no-usable-push-target"));
    for token in [
        world.es256.token(&for_beta(claims())),
        world.eddsa.token(&claims()),
        world.es256.token(&changed(&claims(), "/iss", Some(json!("keyless")))),
        world.es256.token(&changed(&claims(), "/iss", Some(json!("nobody")))),
        world.es256.token_with(&json!({"alg": "EdDSA"}), &claims()),
        world.es256.token_with(&json!({"alg": "es256"}), &claims()),
    ] {
        let (status, problem, asked) = hand_over_as(&world, &token).await;
        assert_eq!((status, problem.as_str(), asked.len()), (401, "unauthorized", 0));
    }
}

#[tokio::test]
async fn forged_backend_tokens_are_refused() {
    use aws_lc_rs::hmac;
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    let world = World::new();
    let none = unsigned(&json!({"alg": "none"}), &claims());
    // The classic confusion: the public key taken for an HMAC secret.
    let hs256 = unsigned(&json!({"alg": "HS256"}), &claims());
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, world.es256.public_pem.as_bytes()), hs256.as_bytes());
    let tag = URL_SAFE_NO_PAD.encode(tag.as_ref());
    let good = world.es256.token(&claims());
    let (signed, signature) = good.rsplit_once('.').expect("three parts");
    let other_claims = unsigned(&json!({"alg": "ES256", "typ": "JWT"}), &claims());
    let forged = [
        format!("{none}."),
        none.clone(),
        format!("{none}.{signature}"),
        format!("{hs256}.{tag}"),
        format!("{other_claims}.{signature}"),
        format!("{signed}.{}", &signature[..signature.len() - 2]),
        format!("{signed}.{signature}.{signature}"),
        format!("{signed}."),
        "..".to_owned(),
        "eyJhbGciOiJFUzI1NiJ9.e30.x".to_owned(),
        world.es256.token_with(&json!({"alg": "ES256", "crit": ["b64"], "b64": false}), &claims()),
        super::world::Signer::es256().token(&claims()),
    ];
    for token in forged {
        let (status, problem, asked) = hand_over_as(&world, &token).await;
        assert_eq!((status, problem.as_str(), asked.len()), (401, "unauthorized", 0), "{token}");
    }
    assert_eq!(hand_over_as(&world, &good).await.0, 201, "the untouched token still works");
}

#[tokio::test]
async fn claims_that_do_not_fit_are_refused_with_what_to_change() {
    let world = World::new();
    let seconds = now().wall.unix_seconds();
    let times = |iat: u64, exp: u64| changed(&changed(&claims(), "/iat", Some(json!(iat))), "/exp", Some(json!(exp)));
    let wrong = [
        (changed(&claims(), "/aud", Some(json!("other.example"))), "aud"),
        (changed(&claims(), "/aud", Some(json!(["a", "b"]))), "aud"),
        (changed(&claims(), "/aud", None), "aud"),
        (times(seconds - 300, seconds - 60), "expired"),
        (times(seconds - 900, seconds - 400), "expired"),
        (times(seconds, seconds + 601), "600"),
        (times(seconds - 500, seconds + 200), "600"),
        (times(seconds, seconds), "exp"),
        (times(seconds + 120, seconds + 300), "future"),
        (changed(&claims(), "/nbf", Some(json!(seconds + 120))), "future"),
        (changed(&claims(), "/sub", Some(json!(""))), "sub"),
        (changed(&claims(), "/sub", None), "sub"),
        (changed(&claims(), "/jti", Some(json!(""))), "jti"),
        (changed(&claims(), "/jti", None), "jti"),
        (changed(&claims(), "/exp", None), "exp"),
        (changed(&claims(), "/iat", Some(json!("now"))), "iat"),
    ];
    for (claims, word) in wrong {
        let reply = world.send(post("/v1/instances", &world.es256.token(&claims), hand_over_body().to_string())).await;
        assert_eq!(reply.problem(), "unauthorized", "{claims}");
        assert!(reply.detail().contains(word), "{}", reply.detail());
    }
    assert!(world.engine.asked().is_empty());
    for fine in [
        times(seconds - 590, seconds + 5),
        times(seconds - 100, seconds - 10),
        times(seconds + 10, seconds + 300),
        changed(&claims(), "/aud", Some(json!(["other", DOMAIN]))),
    ] {
        assert_eq!(hand_over_as(&world, &world.es256.token(&fine)).await.0, 201, "{fine}");
    }
}

#[tokio::test]
async fn a_rectification_proves_its_token_before_its_body_is_looked_at() {
    let world = World::new();
    world.engine.refuses(Refusal::NotFound);
    let reply = world.send(with_body(Method::PATCH, &path(""), TOKEN, "not even JSON")).await;
    assert_eq!(reply.problem(), "not-found");
    assert!(matches!(&world.engine.asked()[..], [(ShardId(2), Command::Data(..))]));
}
