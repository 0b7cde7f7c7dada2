//! Traces: what is consented to in which form, and who may read.

use http::Method;
use serde_json::{Value, json};

use super::world::{APP_KEY, Reply, TOKEN, World, changed, claims, instance, path, post};
use crate::engine::ids::ShardId;
use crate::engine::input::Command;
use crate::engine::output::Refusal;

fn as_tenant() -> String {
    format!("/v1/tenants/self/instances/{}/trace", instance())
}

async fn consent(world: &World, body: &Value) -> Reply {
    world.send(post(&path("/trace"), TOKEN, body.to_string())).await
}

fn in_force() -> Value {
    json!({"scope": ["sip", "decisions"], "since": "2026-11-21T20:00:00Z", "until": "2026-11-21T21:00:00Z",
           "tenant_may_read": false})
}

#[tokio::test]
async fn a_consent_names_scope_and_span_and_whether_the_tenant_may_read() {
    let world = World::new();
    for (body, wanted) in [
        (json!({"scope": ["sip", "decisions"], "seconds": 3600}), (true, true, false, 3600, false)),
        (json!({"scope": ["decisions"], "seconds": 1, "tenant_may_read": true}), (false, true, false, 1, true)),
        (json!({"scope": ["identities", "sip"], "seconds": 86_400}), (true, false, true, 86_400, false)),
    ] {
        world.engine.asked();
        let reply = consent(&world, &body).await;
        assert_eq!((reply.status.as_u16(), reply.json()), (201, in_force()), "{body}");
        let asked = world.engine.asked();
        let [(_, Command::Show(..)), (_, Command::Consent(_, _, given))] = &asked[..] else { unreachable!("{body}") };
        let given = (given.sip, given.decisions, given.identities, given.span.as_secs(), given.tenant_may_read);
        assert_eq!(given, wanted, "{body}");
    }
    for (body, member) in [
        (json!({"scope": [], "seconds": 60}), "scope"),
        (json!({"scope": ["identities"], "seconds": 60}), "scope"),
        (json!({"scope": ["sip", "all"], "seconds": 60}), "scope[1]"),
        (json!({"scope": ["sip"], "seconds": 0}), "seconds"),
        (json!({"scope": ["sip"], "seconds": 86_401}), "seconds"),
        (json!({"scope": ["sip"], "seconds": 60, "for_ever": true}), "for_ever"),
    ] {
        let reply = consent(&world, &body).await;
        assert_eq!(
            (reply.problem().as_str(), reply.json()["path"].as_str()),
            ("invalid-request", Some(member)),
            "{body}"
        );
    }
}

#[tokio::test]
async fn a_trace_is_read_and_withdrawn_by_its_device() {
    let world = World::new();
    let wanted = json!({
        "consent": in_force(), "omitted": 5,
        "entries": [{"at": "2026-11-21T20:00:01Z", "kind": "decision", "text": "wake call: sent"},
                    {"at": "2026-11-21T20:00:01Z", "kind": "sent", "text": "SIP/2.0 180 Ringing\n"}],
    });
    assert_eq!(world.ask(Method::GET, &path("/trace"), TOKEN).await.json(), wanted);
    let reply = world.ask(Method::DELETE, &path("/trace"), TOKEN).await;
    assert_eq!((reply.status.as_u16(), reply.json()), (200, json!({"withdrawn": true})));
    for method in [Method::GET, Method::DELETE] {
        assert_eq!(world.ask(method, &path("/trace"), APP_KEY).await.problem(), "forbidden");
    }

    world.engine.refuses(Refusal::NotFound);
    let body = "not even JSON";
    let reply = world.send(post(&path("/trace"), TOKEN, body)).await;
    assert_eq!(reply.problem(), "not-found", "the token is proven before the body is looked at");
}

#[tokio::test]
async fn only_the_tenants_administrator_may_ask_for_a_trace_beside_its_device() {
    let world = World::new();
    let scoped = |scope: Option<Value>| world.es256.token(&changed(&claims(), "/scope", scope));
    let admin = || scoped(Some(json!("admin")));
    let reply = world.ask(Method::GET, &as_tenant(), &admin()).await;
    assert_eq!((reply.status.as_u16(), &reply.json()["omitted"]), (200, &json!(5)));
    assert!(matches!(
        &world.engine.asked()[..],
        [(ShardId(2), Command::ReadTraceAsTenant(tenant, id))] if &**tenant == "acme" && *id == instance()
    ));
    assert_eq!(world.ask(Method::GET, &as_tenant(), &scoped(None)).await.problem(), "forbidden");
    assert_eq!(world.ask(Method::GET, &as_tenant(), APP_KEY).await.problem(), "forbidden");
    assert_eq!(world.ask(Method::GET, &as_tenant(), TOKEN).await.problem(), "unauthorized");
    assert!(world.engine.asked().is_empty());

    world.engine.refuses(Refusal::NotFound);
    let foreign = world.ask(Method::GET, &as_tenant(), &admin()).await;
    let unknown = world.ask(Method::GET, "/v1/tenants/self/instances/nonsense/trace", &admin()).await;
    assert_eq!((foreign.status.as_u16(), foreign.text), (404, unknown.text));
}
