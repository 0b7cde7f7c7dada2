//! Clients of HTTP/2 that send a secret and then fall silent: they neither send nor answer a ping, and keep their connection
//! open. Its buffers hold the secret, so it is for the server to end it.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::super::server::Deadlines;
use super::frames;
use super::world::{APP_KEY, Settings, TOKEN, World, hand_over_body, path};

const SHORT: Duration = Duration::from_millis(150);
/// Before a ping of the server's could have gone unanswered for too long, and before a last deadline.
const PATIENCE: Duration = Duration::from_secs(10);

fn world(deadlines: Deadlines) -> World {
    World::with(Settings { deadlines: Deadlines { after_secret: SHORT, ..deadlines }, ..Settings::default() })
}

/// A client that answers nothing.
struct Silent {
    stream: TlsStream<TcpStream>,
    heard: Vec<u8>,
}

impl Silent {
    async fn connect(world: &World, begins: &[&[u8]]) -> Self {
        let mut stream = world.connect(&[b"h2"]).await.expect("connected");
        stream.write_all(&[&[frames::PREFACE], begins].concat().concat()).await.expect("sent");
        Self { stream, heard: Vec::new() }
    }

    async fn read_answer(&mut self, stream: u32) {
        while !frames::is_answered(&self.heard, stream) {
            assert_ne!(self.stream.read_buf(&mut self.heard).await.expect("an answer"), 0, "ended without an answer");
        }
    }

    async fn see_the_end(&mut self) {
        // In whatever manner it ends.
        let ended = timeout(PATIENCE, self.stream.read_to_end(&mut self.heard)).await;
        let _ = ended.expect("the server has ended the connection");
    }
}

#[tokio::test]
async fn a_client_that_falls_silent_after_a_secret_was_answered_is_cut_off() {
    let world = world(Deadlines::default());
    let body = hand_over_body().to_string();
    let handing = [frames::hand_over(1, APP_KEY), frames::last_data(1, &body)].concat();
    let mut client = Silent::connect(&world, &[&handing]).await;
    client.read_answer(1).await;
    let answer: serde_json::Value = serde_json::from_slice(&frames::body(&client.heard, 1)).expect("JSON");
    assert_eq!(answer["token"], TOKEN);
    client.see_the_end().await;
}

#[tokio::test]
async fn a_client_that_falls_silent_in_mid_body_is_cut_off_when_its_time_is_up() {
    let world = world(Deadlines { body: SHORT, ..Deadlines::default() });
    let data = frames::last_data(1, &hand_over_body().to_string());
    let mut client = Silent::connect(&world, &[&frames::hand_over(1, APP_KEY), &data[..data.len() / 2]]).await;
    client.read_answer(1).await;
    client.see_the_end().await;
    assert!(world.engine.asked().is_empty());
}

#[tokio::test]
async fn a_secret_that_its_client_takes_back_ends_the_connection_too() {
    let world = world(Deadlines::default());
    world.engine.hold();
    let body = hand_over_body().to_string();
    let handing = [frames::hand_over(1, APP_KEY), frames::last_data(1, &body)].concat();
    let mut client = Silent::connect(&world, &[&handing]).await;
    while world.engine.asked().is_empty() {
        tokio::task::yield_now().await;
    }
    client.stream.write_all(&frames::reset(1)).await.expect("sent");
    client.see_the_end().await;
    world.engine.release();
}

#[tokio::test]
async fn what_else_is_under_way_on_a_connection_after_a_secret_is_answered_first() {
    let world = world(Deadlines::default());
    world.engine.hold();
    let refused = [frames::hand_over(1, "stranger"), frames::last_data(1, "{}")].concat();
    let mut client = Silent::connect(&world, &[&refused, &frames::get(3, &path(""), TOKEN)]).await;
    client.read_answer(1).await;
    // Another one, whose secret was answered later, tells when the time of the first would be over.
    let mut later = Silent::connect(&world, &[&refused]).await;
    later.see_the_end().await;
    assert!(!frames::is_answered(&client.heard, 3));
    world.engine.release();
    client.read_answer(3).await;
    client.see_the_end().await;
}

#[tokio::test]
async fn a_call_that_is_never_answered_keeps_a_secret_no_longer_than_the_last_deadline() {
    let world = world(Deadlines { linger: 2 * SHORT, ..Deadlines::default() });
    world.engine.hold();
    let refused = [frames::hand_over(1, "stranger"), frames::last_data(1, "{}")].concat();
    let mut client = Silent::connect(&world, &[&refused, &frames::get(3, &path(""), TOKEN)]).await;
    client.see_the_end().await;
    assert!(!frames::is_answered(&client.heard, 3));
}
