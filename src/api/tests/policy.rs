//! What a tenant's own policy allows of what all may do.

use http::Method;
use serde_json::json;

use super::super::server::Deadlines;
use super::world::{
    APP_KEY, SECOND_APP_KEY, Settings, TOKEN, World, changed, claims, hand_over_body, path, post, with_body,
};
use crate::engine::input::{Command, Mode};
use crate::engine::limits::Limits;
use std::time::Duration;

#[tokio::test]
async fn a_tenant_that_requires_jwts_takes_no_app_key() {
    let world = World::with(Settings { jwt_required: true, ..Settings::default() });
    for key in [APP_KEY, SECOND_APP_KEY] {
        let reply = world.send(post("/v1/instances", key, hand_over_body().to_string())).await;
        assert_eq!((reply.status.as_u16(), reply.problem().as_str()), (403, "forbidden"));
        assert!(reply.detail().contains("JWT of its backend"), "{}", reply.detail());
    }
    assert!(world.engine.asked().is_empty());
    let token = world.es256.token(&claims());
    assert_eq!(world.send(post("/v1/instances", &token, hand_over_body().to_string())).await.status, 201);
    // The instance token comes from such a hand-over alone, and is enough from then on.
    assert_eq!(world.ask(Method::GET, &path(""), TOKEN).await.status, 200);
    // Its neighbour goes on as before, as far as its own policy lets it.
    let other = world.send(post("/v1/instances", "beta-app-key", hand_over_body().to_string())).await;
    assert_eq!(other.problem(), "no-usable-push-target");
}

#[tokio::test]
async fn a_mode_that_the_tenant_may_not_use_is_refused_with_those_it_may() {
    let world = World::with(Settings {
        change: |policy| policy.tenants[0].modes = vec![Mode::Background, Mode::Takeover],
        ..Settings::default()
    });
    for mode in [Some(json!("always")), None] {
        let reply = world.hand_over(&changed(&hand_over_body(), "/mode", mode)).await;
        assert_eq!((reply.status.as_u16(), reply.problem().as_str()), (403, "forbidden"));
        assert!(reply.detail().contains("\"background\", \"takeover\""), "{}", reply.detail());
        assert_eq!(reply.json()["path"], "mode");
    }
    assert!(world.engine.asked().is_empty());
    assert_eq!(world.hand_over(&changed(&hand_over_body(), "/mode", Some(json!("takeover")))).await.status, 201);

    world.engine.asked();
    let change = |mode: &str| with_body(Method::PATCH, &path(""), TOKEN, json!({"mode": mode}).to_string());
    assert_eq!(world.send(change("always")).await.problem(), "forbidden");
    assert!(matches!(&world.engine.asked()[..], [(_, Command::Data(..))]), "asked, and nothing changed");
    assert_eq!(world.send(change("background")).await.status, 200);
}

#[tokio::test]
async fn a_tenants_own_lease_maximum_is_below_that_of_all() {
    let world = World::with(Settings {
        change: |policy| policy.tenants[0].lease_maximum = Some(Duration::from_secs(3600)),
        ..Settings::default()
    });
    let reply = world.hand_over(&changed(&hand_over_body(), "/lease_seconds", Some(json!(3601)))).await;
    assert_eq!(reply.problem(), "lease-too-long");
    assert!(reply.detail().contains("3600"), "{}", reply.detail());
    for lease in [Some(json!(3600)), None] {
        assert_eq!(world.hand_over(&changed(&hand_over_body(), "/lease_seconds", lease)).await.status, 201);
        let asked = world.engine.asked();
        assert!(matches!(&asked[..], [(_, Command::HandOver(it))] if it.lease == Duration::from_secs(3600)));
    }
}

#[tokio::test]
async fn a_tenant_over_its_share_waits_and_its_neighbours_and_strangers_are_no_part_of_it() {
    let limits = Limits { posts_per_tenant: 2, ..Settings::default().limits };
    let world = World::with(Settings { limits, deadlines: Deadlines::default(), ..Settings::default() });
    // Nobody can spend what is another's: only authenticated hand-overs count.
    for _ in 0..5 {
        assert_eq!(world.send(post("/v1/instances", "stranger", "{}")).await.status, 401);
    }
    assert_eq!(world.hand_over(&hand_over_body()).await.status, 201);
    assert_eq!(world.send(post("/v1/instances", SECOND_APP_KEY, "{}")).await.problem(), "invalid-request");
    let reply = world.hand_over(&hand_over_body()).await;
    assert_eq!((reply.status.as_u16(), reply.problem().as_str()), (429, "rate-limited"));
    let after: u64 = reply.header("retry-after").expect("Retry-After").parse().expect("seconds");
    assert!((1..=30).contains(&after));
    let other = world.send(post("/v1/instances", "beta-app-key", hand_over_body().to_string())).await;
    assert_eq!(other.problem(), "no-usable-push-target");
}
