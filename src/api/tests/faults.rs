//! Panics in handlers.

use bytes::Bytes;
use http::{HeaderValue, Method, Request};
use http_body_util::Full;

use super::world::{APP_KEY, Reply, Settings, World, empty, hand_over_body, post, request};

const CANARY: &str = "canary-in-a-body";

fn with_faults() -> World {
    World::with(Settings { debug_faults: true, ..Settings::default() })
}

fn with_fault() -> Request<Full<Bytes>> {
    let mut request = post("/v1/instances", APP_KEY, format!("{{\"account\": \"{CANARY}\"}}"));
    request.headers_mut().insert("reveille-fault", HeaderValue::from_static("panic"));
    request
}

#[tokio::test]
async fn a_panic_in_a_handler_is_a_500_that_says_nothing_and_ends_its_connection_alone() {
    let world = with_faults();
    let mut neighbour = world.http1().await;
    let mut sender = world.http1().await;
    let reply = Reply::read(sender.send_request(with_fault()).await.expect("a response")).await;

    assert_eq!(reply.status, 500);
    assert_eq!(reply.header("content-type"), Some("application/problem+json"));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert_eq!(reply.header("connection"), Some("close"));
    assert_eq!(reply.text, r#"{"type":"about:blank","title":"Internal Server Error","status":500}"#);

    let fine = request(Method::GET, "/openapi.json").body(empty()).expect("a request");
    assert_eq!(neighbour.send_request(fine).await.expect("a response").status(), 200);
    assert_eq!(world.hand_over(&hand_over_body()).await.status, 201, "and so can a new one");
}

#[tokio::test]
async fn over_http_2_a_panic_is_the_same_answer_and_the_connection_goes_away() {
    let world = with_faults();
    let (mut sender, connection) = world.http2().await;
    let reply = Reply::read(sender.send_request(with_fault()).await.expect("a response")).await;
    assert_eq!(reply.status, 500);
    assert!(!reply.text.contains(CANARY));
    connection.await.expect("the connection ends by itself");
}

#[tokio::test]
async fn nobody_can_ask_for_a_fault_unless_the_operator_wants_it() {
    let world = World::new();
    assert_eq!(world.send(with_fault()).await.problem(), "invalid-request");
}
