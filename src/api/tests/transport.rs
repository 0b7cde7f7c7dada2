//! TLS, HTTP versions, deadlines and bounds.
#![expect(clippy::disallowed_methods, reason = "tasks of a test end with its runtime")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Method, StatusCode};
use http_body_util::Full;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::handlers::ANSWER_WAIT_MAX;
use super::super::server::Deadlines;
use super::frames;
use super::world::{
    APP_KEY, CALL, Reply, Settings, TOKEN, World, empty, hand_over_body, path, post, request, usual_answer, with_body,
};
use crate::config::STEP_WAIT_MAX;
use crate::engine::input::Command;
use crate::engine::limits::Limits;
use crate::engine::output::{Answer, Refusal};

/// A deadline that is meant to pass: long enough for what must come before it on a busy machine, short enough to wait for.
const SHORT: Duration = Duration::from_secs(1);
/// How long a busy shard asks to be left alone.
const PAUSE: Duration = Duration::from_millis(150);

fn get(rest: &str) -> http::Request<Full<bytes::Bytes>> {
    request(Method::GET, &path(rest))
        .header("authorization", format!("Bearer {TOKEN}"))
        .body(empty())
        .expect("a request")
}

#[tokio::test]
async fn plain_http_gets_no_answer() {
    let world = World::new();
    let mut stream = TcpStream::connect(world.address).await.expect("connected");
    stream.write_all(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok();
    assert!(!answer.starts_with(b"HTTP"), "at most a TLS alert: {answer:?}");
}

#[tokio::test]
async fn http_2_is_chosen_by_alpn_and_http_1_1_without_it() {
    let world = World::new();
    let both = world.connect(&[b"h2", b"http/1.1"]).await.expect("connected");
    assert_eq!(both.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, _connection) = world.http2().await;
    let reply = sender
        .send_request(
            request(Method::GET, &format!("https://localhost{}", path("")))
                .header("authorization", format!("Bearer {TOKEN}"))
                .body(empty())
                .expect("a request"),
        )
        .await
        .expect("a response");
    assert_eq!((reply.version(), reply.status()), (http::Version::HTTP_2, StatusCode::OK));

    let mut plain = world.connect(&[]).await.expect("connected");
    plain.write_all(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.expect("sent");
    let mut answer = Vec::new();
    plain.read_to_end(&mut answer).await.expect("read");
    assert!(answer.starts_with(b"HTTP/1.1 200"));
}

#[tokio::test]
async fn a_connection_goes_on_after_harmless_calls_and_ends_after_a_secret() {
    let world = World::new();
    let mut sender = world.http1().await;
    for rest in ["", "/data", &format!("/calls/{CALL}")] {
        sender.ready().await.expect("kept alive");
        let reply = Reply::read(sender.send_request(get(rest)).await.expect("a response")).await;
        assert_eq!((reply.status.as_u16(), reply.header("connection")), (200, None));
    }
    sender.ready().await.expect("kept alive");
    let accepted = post("/v1/instances", APP_KEY, hand_over_body().to_string());
    let reply = Reply::read(sender.send_request(accepted).await.expect("a response")).await;
    assert_eq!((reply.status.as_u16(), reply.header("connection")), (201, Some("close")));
    assert!(sender.ready().await.is_err(), "the server has closed it");

    for secret in [
        post("/v1/instances", APP_KEY, "not JSON"),
        post("/v1/instances", "stranger", hand_over_body().to_string()),
        post("/v1/instances", APP_KEY, "x".repeat(20_000)),
        with_body(Method::PATCH, &path(""), TOKEN, "{\"account\": {\"password\": \"p\"}}"),
        with_body(Method::PATCH, &path(""), TOKEN, "{\"account\": "),
        with_body(Method::PATCH, &path(""), "wrong", "{\"account\": {\"password\": \"p\"}}"),
        post("/v1/instance", APP_KEY, hand_over_body().to_string()),
        with_body(Method::PUT, "/v1/instances", APP_KEY, hand_over_body().to_string()),
    ] {
        let mut sender = world.http1().await;
        let reply = Reply::read(sender.send_request(secret).await.expect("a response")).await;
        assert_eq!(reply.header("connection"), Some("close"), "{}", reply.text);
        assert!(sender.ready().await.is_err());
    }
}

#[tokio::test]
async fn an_http_2_connection_goes_away_after_a_secret_and_finishes_its_other_streams() {
    let world = World::new();
    let (mut sender, connection) = world.http2().await;
    world.engine.hold();
    let absolute = |request: http::Request<Full<bytes::Bytes>>| {
        let (mut head, body) = request.into_parts();
        head.uri = format!("https://localhost{}", head.uri).parse().expect("a URI");
        head.headers.remove("host");
        http::Request::from_parts(head, body)
    };
    let shown = sender.send_request(absolute(get("")));
    let handed = sender.send_request(absolute(post("/v1/instances", APP_KEY, hand_over_body().to_string())));
    let refused = sender.send_request(absolute(post("/v1/instances", "stranger", hand_over_body().to_string())));
    // The stranger's answer alone makes the connection go away, while two streams still wait for the engine.
    assert_eq!(refused.await.expect("a response").status(), 401);
    world.engine.release();
    let (shown, handed) = tokio::join!(shown, handed);
    assert_eq!(Reply::read(shown.expect("a response")).await.status, 200);
    assert_eq!(Reply::read(handed.expect("a response")).await.status, 201);
    connection.await.expect("the connection has ended");
    assert!(sender.ready().await.is_err());
}

#[tokio::test]
async fn an_instance_whose_client_left_before_the_answer_is_erased() {
    let world = world_after_a_client_left(usual_answer).await;
    world.stop.send_replace(true);
    world.engine.release();
    world.served.await.expect("no panic");
    let hash = super::super::tenants::sha256(TOKEN.as_bytes());
    assert!(
        matches!(&world.engine.asked()[..], [(_, Command::Erase(id, token))] if *id == super::world::instance() && token.0 == hash)
    );
}

#[tokio::test]
async fn an_instance_that_nobody_can_ask_for_is_erased_although_its_shard_was_too_busy_at_first() {
    const REFUSALS: usize = 2;
    let refused = AtomicUsize::new(0);
    let world = world_after_a_client_left(move |command| match command {
        Command::Erase(..) if refused.fetch_add(1, Ordering::Relaxed) < REFUSALS => {
            Answer::Refused(Refusal::Busy { after: PAUSE })
        }
        _ => usual_answer(command),
    })
    .await;
    world.engine.release();
    let mut asked = Vec::new();
    while asked.len() <= REFUSALS {
        asked.extend(world.engine.asked());
        tokio::task::yield_now().await;
    }
    // Whoever still waited to ask would do so now.
    world.stop.send_replace(true);
    world.served.await.expect("no panic");
    asked.extend(world.engine.asked());
    assert_eq!(asked.len(), REFUSALS + 1, "and not again after it was taken");
    assert!(
        asked.iter().all(|(_, command)| matches!(command, Command::Erase(id, _) if *id == super::world::instance()))
    );
}

#[tokio::test]
async fn a_server_that_stops_does_not_wait_for_a_shard_that_stays_too_busy() {
    let world = world_after_a_client_left(|command| match command {
        Command::Erase(..) => Answer::Refused(Refusal::Busy { after: PAUSE }),
        _ => usual_answer(command),
    })
    .await;
    world.engine.release();
    while world.engine.asked().is_empty() {
        tokio::task::yield_now().await;
    }
    world.stop.send_replace(true);
    world.served.await.expect("no panic");
}

#[test]
fn the_longest_answer_that_can_be_configured_comes_before_we_give_up_on_it_or_on_its_connection() {
    // A DELETE: `erasure.grace`, then `audit.sync_wait`.
    assert!(2 * STEP_WAIT_MAX < ANSWER_WAIT_MAX);
    let Deadlines { body, linger, .. } = Deadlines::default();
    assert!(ANSWER_WAIT_MAX + body < linger);
}

/// A server whose engine is held up, and which has noticed that the client of a hand-over is gone.
async fn world_after_a_client_left(answer: impl Fn(&Command) -> Answer + Send + Sync + 'static) -> World {
    let limits = Limits { api_connections: 1, ..Settings::default().limits };
    let world = World::with(Settings { limits, ..Settings::default() });
    world.engine.answers(answer);
    world.engine.hold();
    let (mut sender, connection) = world.http2().await;
    let mut handing = post("https://localhost/v1/instances", APP_KEY, hand_over_body().to_string());
    handing.headers_mut().remove("host");
    let handing = tokio::spawn(sender.send_request(handing));
    while world.engine.asked().is_empty() {
        tokio::task::yield_now().await;
    }
    handing.abort();
    drop(sender);
    connection.await.expect("the client has left");
    world.wait_for_room().await;
    world
}

#[tokio::test]
async fn a_slow_body_is_given_up() {
    let world =
        World::with(Settings { deadlines: Deadlines { body: SHORT, ..Deadlines::default() }, ..Settings::default() });
    let mut stream = world.connect(&[b"http/1.1"]).await.expect("connected");
    let head = format!(
        "POST /v1/instances HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {APP_KEY}\r\n\
         Content-Type: application/json\r\nContent-Length: 500\r\n\r\n{{\"account\":"
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answered and closed");
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("did not arrive within"), "{answer}");
    assert!(world.engine.asked().is_empty());
}

#[tokio::test]
async fn a_slow_head_an_idle_connection_and_a_slow_handshake_are_closed() {
    let deadlines = Deadlines { handshake: SHORT, head: SHORT, idle: SHORT, ..Deadlines::default() };
    let world = World::with(Settings { deadlines, ..Settings::default() });

    let mut slow = world.connect(&[b"http/1.1"]).await.expect("connected");
    slow.write_all(b"GET /openapi.json HTTP/1.1\r\nHost:").await.expect("sent");
    let mut answer = Vec::new();
    slow.read_to_end(&mut answer).await.ok();
    assert!(!answer.starts_with(b"HTTP/1.1 200"));

    let mut silent = TcpStream::connect(world.address).await.expect("connected");
    assert_eq!(silent.read(&mut [0; 16]).await.ok().unwrap_or(0), 0);

    let (mut sender, connection) = world.http2().await;
    connection.await.expect("the idle connection has ended");
    assert!(sender.ready().await.is_err());
}

#[tokio::test]
async fn media_types_and_encodings_that_are_not_plain_json_are_refused() {
    let world = World::new();
    let body = hand_over_body().to_string();
    let send = async |headers: &[(&str, &str)]| {
        let mut builder = request(Method::POST, "/v1/instances").header("authorization", format!("Bearer {APP_KEY}"));
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        world.send(builder.body(Full::new(body.clone().into())).expect("a request")).await
    };
    for headers in [
        &[][..],
        &[("content-type", "text/plain")],
        &[("content-type", "application/jsonx")],
        &[("content-type", "application/json"), ("content-encoding", "gzip")],
    ] {
        assert_eq!(send(headers).await.problem(), "invalid-request", "{headers:?}");
    }
    assert!(world.engine.asked().is_empty());
    assert_eq!(send(&[("content-type", "Application/JSON; charset=utf-8")]).await.status, 201);
}

#[tokio::test]
async fn a_source_over_its_share_is_told_when_to_come_again() {
    let limits = Limits { posts_per_source: 2, ..Settings::default().limits };
    let world = World::with(Settings { limits, ..Settings::default() });
    assert_eq!(world.hand_over(&hand_over_body()).await.status, 201);
    // Strangers count too: guessing is limited as well.
    assert_eq!(world.send(post("/v1/instances", "stranger", "{}")).await.status, 401);
    let reply = world.hand_over(&hand_over_body()).await;
    assert_eq!((reply.status.as_u16(), reply.problem().as_str()), (429, "rate-limited"));
    let after: u64 = reply.header("retry-after").expect("Retry-After").parse().expect("seconds");
    assert!((1..=30).contains(&after));
    assert_eq!(world.ask(Method::GET, &path(""), TOKEN).await.status, 200, "other calls go on");
    assert_eq!(world.engine.asked().iter().filter(|(_, command)| matches!(command, Command::HandOver(_))).count(), 1);
}

#[tokio::test]
async fn connections_above_the_limits_are_closed_and_room_comes_back() {
    for limits in [
        Limits { api_connections: 1, ..Settings::default().limits },
        Limits { flows_per_source: 1, ..Settings::default().limits },
    ] {
        let world = World::with(Settings { limits, ..Settings::default() });
        let mut first = world.connect(&[b"http/1.1"]).await.expect("connected");
        assert!(world.connect(&[b"http/1.1"]).await.is_err(), "no handshake");
        first.shutdown().await.expect("closed");
        let mut rest = Vec::new();
        first.read_to_end(&mut rest).await.ok();
        drop(first);
        world.wait_for_room().await;
    }
}

#[tokio::test]
async fn a_reloaded_certificate_serves_new_connections_and_live_ones_go_on() {
    let world = World::new();
    let mut live = world.http1().await;
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    world.tls.reload(made.cert.pem().as_bytes(), made.signing_key.serialize_pem().as_bytes()).expect("reloaded");
    // This client trusts the new certificate and no other.
    assert_eq!(world.ask(Method::GET, &path(""), TOKEN).await.status, 200);
    assert_eq!(live.send_request(get("")).await.expect("a response").status(), 200);
}

#[tokio::test]
async fn stopping_lets_a_running_request_finish_and_then_ends() {
    let world = World::new();
    world.engine.hold();
    let mut sender = world.http1().await;
    let running =
        tokio::spawn(async move { Reply::read(sender.send_request(get("")).await.expect("a response")).await });
    while world.engine.asked().is_empty() {
        tokio::task::yield_now().await;
    }
    world.stop.send_replace(true);
    // The listener goes first.
    while TcpStream::connect(world.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(!world.served.is_finished());
    world.engine.release();
    assert_eq!(running.await.expect("no panic").status, 200);
    world.served.await.expect("no panic");
}

#[tokio::test]
async fn streams_that_are_reset_before_they_are_taken_up_end_their_connection() {
    const ENHANCE_YOUR_CALM: u32 = 0xb;
    let world = World::new();
    let mut stream = world.connect(&[b"h2"]).await.expect("connected");
    let burst: Vec<u8> = (0..500u32)
        .flat_map(|turn| [frames::get(2 * turn + 1, &path(""), TOKEN), frames::reset(2 * turn + 1)].concat())
        .collect();
    let _ = stream.write_all(&[frames::PREFACE, &burst].concat()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert_eq!(frames::goaway(&answer), Some(ENHANCE_YOUR_CALM));
    assert!(world.engine.asked().len() < 100, "most never got to an engine");
    assert_eq!(world.ask(Method::GET, &path(""), TOKEN).await.status, 200, "others are served");
}

#[tokio::test]
async fn requests_that_are_given_up_one_after_the_other_have_a_budget_too() {
    let world = World::new();
    world.engine.hold();
    let (mut reader, mut writer) = tokio::io::split(world.connect(&[b"h2"]).await.expect("connected"));
    let ended = tokio::spawn(async move {
        let mut rest = Vec::new();
        let _ = reader.read_to_end(&mut rest).await;
    });
    writer.write_all(frames::PREFACE).await.expect("sent");
    let mut taken = 0u32;
    // Each is in an engine's hands before it is reset, so that no budget for streams that wait is touched.
    while !ended.is_finished() && taken < 1_000 {
        let id = 2 * taken + 1;
        if writer.write_all(&frames::get(id, &path(""), TOKEN)).await.is_err() {
            break;
        }
        while world.engine.asked().is_empty() && !ended.is_finished() {
            tokio::task::yield_now().await;
        }
        if writer.write_all(&frames::reset(id)).await.is_err() {
            break;
        }
        taken += 1;
    }
    ended.await.expect("no panic");
    assert!(taken < 200, "{taken} were taken up");
    world.engine.release();
}
