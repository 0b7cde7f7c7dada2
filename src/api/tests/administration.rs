//! What a tenant's administrator may ask, and what comes of it.

use std::sync::atomic::{AtomicUsize, Ordering};

use http::Method;
use serde_json::{Value, json};

use super::world::{
    APP_KEY, DEVICE, Reply, Settings, Signer, TOKEN, World, changed, claims, hand_over_body, instance, order_view,
};
use crate::audit_log::verify::verify_summary;
use crate::engine::ids::{InstanceId, ShardId};
use crate::engine::input::{Command, Whom};
use crate::engine::limits::Limits;
use crate::engine::output::{Answer, Refusal};

const ALL: &str = "/v1/tenants/self/instances";

fn one() -> String {
    format!("{ALL}/{}", instance())
}

async fn erase_as_admin(world: &World, path: &str) -> Reply {
    let token = world.es256.token(&changed(&claims(), "/scope", Some(json!("read admin"))));
    world.ask(Method::DELETE, path, &token).await
}

#[tokio::test]
async fn an_order_goes_to_every_shard_and_its_summary_is_signed_and_always_the_same() {
    let world = World::new();
    let reply = erase_as_admin(&world, ALL).await;
    assert_eq!(reply.status, 200);
    let answer = reply.json();
    assert_eq!((&answer["erased"], &answer["left"]), (&json!(12), &json!(0)));
    let summary = &answer["summary"];
    let mut wanted = json!({
        "v": 1, "tenant": "acme", "whom": "all", "cause": "off-boarded", "policy": "5eed", "begun": "2026-11-21T20:00:00Z",
        "ended": "2026-11-21T20:00:02Z", "erased": 12, "unregister": {"confirmed": 12}, "logged": 12,
        "passed_through": 0,
    });
    for member in ["key", "signature"] {
        wanted[member] = summary[member].clone();
    }
    assert_eq!(summary, &wanted);
    verify_summary(reply.text.as_bytes(), &world.audit_key).expect("the log's key signed it");

    let mut asked = world.engine.asked();
    asked.sort_by_key(|(shard, _)| *shard);
    assert_eq!(asked.iter().map(|(shard, _)| shard.0).collect::<Vec<_>>(), [0, 1, 2, 3]);
    for (_, command) in &asked {
        assert!(matches!(command, Command::EraseAll { tenant, whom: Whom::Tenant } if &**tenant == "acme"));
    }
    assert_eq!(erase_as_admin(&world, ALL).await.text, reply.text);
}

#[tokio::test]
async fn an_order_that_is_not_done_is_answered_202_with_the_counts_so_far_and_no_summary() {
    let world = World::new();
    world.engine.answers(|_| Answer::Ordered(Box::new(order_view(5, 2))));
    let reply = erase_as_admin(&world, ALL).await;
    assert_eq!((reply.status.as_u16(), reply.json()), (202, json!({"erased": 20, "left": 8})));
    assert_eq!(reply.header("retry-after"), Some("1"));
}

#[tokio::test]
async fn a_device_or_one_instance_may_be_meant() {
    let world = World::new();
    for query in [format!("?device={DEVICE}"), format!("?device={}", DEVICE.replace(':', "%3a"))] {
        let reply = erase_as_admin(&world, &format!("{ALL}{query}")).await;
        assert_eq!(reply.json()["summary"]["whom"], DEVICE, "{}", reply.text);
        assert_eq!(reply.json()["summary"]["cause"], "administrator");
        let asked = world.engine.asked();
        assert_eq!(asked.len(), 4);
        assert!(
            matches!(&asked[0].1, Command::EraseAll { whom: Whom::Device(device), .. } if device == DEVICE),
            "{query}"
        );
    }
    let reply = erase_as_admin(&world, &one()).await;
    assert_eq!(reply.json()["summary"]["whom"], instance().to_string());
    assert!(matches!(
        &world.engine.asked()[..],
        [(ShardId(2), Command::EraseAll { whom: Whom::Instance(id), .. })] if *id == instance()
    ));
    for wrong in ["?device=x", "?devices=", "?device="] {
        assert_eq!(erase_as_admin(&world, &format!("{ALL}{wrong}")).await.problem(), "invalid-request", "{wrong}");
    }
    assert!(world.engine.asked().is_empty());
}

#[tokio::test]
async fn only_an_admin_token_erases_a_tenants_instances_in_every_shard() {
    let world = World::new();
    let with_scope = |scope: Option<Value>| world.es256.token(&changed(&claims(), "/scope", scope));
    for path in [ALL.to_owned(), one()] {
        for scope in [None, Some(json!("administrator")), Some(json!(""))] {
            assert_eq!(world.ask(Method::DELETE, &path, &with_scope(scope)).await.problem(), "forbidden");
        }
        assert_eq!(world.ask(Method::DELETE, &path, APP_KEY).await.problem(), "forbidden");
        assert_eq!(world.ask(Method::DELETE, &path, TOKEN).await.problem(), "unauthorized");
    }
    assert!(world.engine.asked().is_empty());
    assert_eq!(erase_as_admin(&world, ALL).await.status, 200);
    assert_eq!(world.engine.asked().len(), 4);
}

#[tokio::test]
async fn what_a_shard_refuses_is_refused_and_an_impossible_instance_is_as_unknown_as_a_foreign_one() {
    let world = World::new();
    world.engine.refuses(Refusal::Busy { after: std::time::Duration::from_millis(2500) });
    let reply = erase_as_admin(&world, ALL).await;
    assert_eq!((reply.problem().as_str(), reply.header("retry-after")), ("busy", Some("3")));

    world.engine.refuses(Refusal::NotFound);
    let foreign = erase_as_admin(&world, &one()).await;
    let impossible = erase_as_admin(&world, &format!("{ALL}/nonsense")).await;
    assert_eq!((foreign.status.as_u16(), foreign.problem().as_str()), (404, "not-found"));
    assert_eq!(foreign.text, impossible.text, "byte for byte");
    world.engine.asked();
    let elsewhere = InstanceId::mint(ShardId(200), [3; 16]);
    assert_eq!(erase_as_admin(&world, &format!("{ALL}/{elsewhere}")).await.text, foreign.text);
    assert!(matches!(&world.engine.asked()[..], [(ShardId(0), Command::EraseAll { .. })]), "asked for like any other");
}

#[tokio::test]
async fn whoever_fails_as_an_administrator_pays_and_neither_administrators_nor_hand_overs_do() {
    let limits = Limits { posts_per_source: 3, ..Settings::default().limits };
    let world = World::with(Settings { limits, ..Settings::default() });
    for _ in 0..5 {
        assert_eq!(erase_as_admin(&world, ALL).await.status, 200);
    }
    let stranger = Signer::es256();
    let forged = || stranger.token(&changed(&claims(), "/scope", Some(json!("admin"))));
    let no_admin = world.es256.token(&claims());
    let refused =
        [(ALL.to_owned(), forged(), 401), (one(), no_admin, 403), (format!("{}/trace", one()), forged(), 401)];
    for (path, token, status) in refused {
        let method = if path.ends_with("trace") { Method::GET } else { Method::DELETE };
        assert_eq!(world.ask(method, &path, &token).await.status.as_u16(), status, "{path}");
    }
    let reply = world.ask(Method::DELETE, ALL, &forged()).await;
    assert_eq!((reply.status.as_u16(), reply.problem().as_str()), (429, "rate-limited"));
    assert!(reply.header("retry-after").is_some());
    for _ in 0..3 {
        assert_eq!(world.hand_over(&hand_over_body()).await.status, 201, "phones there are not concerned");
    }
    assert_eq!(world.hand_over(&hand_over_body()).await.status, 429);
}

#[tokio::test]
async fn one_shard_that_fails_keeps_no_other_from_its_order_and_the_answer_claims_nothing() {
    let world = World::new();
    let asked = AtomicUsize::new(0);
    world.engine.answers(move |_| match asked.fetch_add(1, Ordering::Relaxed) {
        1 => Answer::Refused(Refusal::Busy { after: std::time::Duration::from_secs(1) }),
        _ => Answer::Ordered(Box::new(order_view(3, 0))),
    });
    let reply = erase_as_admin(&world, ALL).await;
    assert_eq!((reply.status.as_u16(), reply.problem().as_str()), (503, "busy"));
    let reply = erase_as_admin(&world, ALL).await;
    assert_eq!((reply.status.as_u16(), reply.json()["erased"].as_u64()), (200, Some(12)));
    assert_eq!(world.engine.asked().len(), 8, "all four, both times");
}
