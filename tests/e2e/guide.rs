//! The client guide: its examples are what really happens, and a client written from it works.

mod app;
mod book;
mod generated;
mod phone;
mod stage;

use serde_json::{Value, json};

use self::book::{Book, excerpt};
use self::phone::RawPhone;
use self::stage::{APP_KEY, Stage};
use crate::process::until;
use crate::world::{EDGE_DOMAIN, World};

/// How long the guide's phone stays registered, in seconds.
const EXPIRES: u32 = 3600;

/// An app in use: its instance, and what is written down of it.
struct App<'s, 'w> {
    stage: &'s Stage<'w>,
    book: Book,
    user: &'static str,
    instance: String,
    token: String,
    /// Calls so far.
    calls: usize,
}

impl<'s, 'w> App<'s, 'w> {
    /// Hands an account over.
    #[track_caller]
    fn hand_over(stage: &'s Stage<'w>, mut book: Book, user: &'static str, platform: &str) -> Self {
        let body = stage.hand_over(user, platform);
        let answer = stage.ask("POST", "/v1/instances", APP_KEY, Some(&body));
        assert_eq!(answer.status, 201, "{answer:?}");
        let word = |key: &str| answer.json()[key].as_str().expect("it is in the answer").to_owned();
        let (instance, token) = (word("instance"), word("token"));
        book.word(&instance, "INSTANCE");
        book.word(&token, "TOKEN");
        if user == "alice" {
            let request = "POST /v1/instances HTTP/1.1\nHost: edge.example.net:8443\nAuthorization: Bearer APP-KEY\nContent-Type: application/json\n";
            book.http("hand-over", request, Some(&body), answer.status, &answer.text);
        }
        Self { stage, book, user, instance, token, calls: 0 }
    }

    /// Asks something about the instance and writes it down.
    #[track_caller]
    fn ask(&mut self, name: &str, method: &str, rest: &str, body: Option<&Value>) -> Value {
        let path = format!("/v1/instances/{}{rest}", self.instance);
        let answer = self.stage.ask(method, &path, &self.token, body);
        let request = format!("{method} {path} HTTP/1.1");
        self.book.http(name, &request, body, answer.status, &answer.text);
        answer.json()
    }

    /// Waits for the push of a call; its provider has taken it, too.
    #[track_caller]
    fn woken(&mut self) -> (Value, String) {
        let push = self.stage.push(&format!("{}-call", self.user), "call");
        let call = push["call"].as_str().expect("a call has a name").to_owned();
        self.calls += 1;
        self.book.word(&call, format!("{}b6e2c4e-6f0e-5d0c-9d5e-0b8a4f1c2d3e", self.calls - 1));
        let path = format!("/v1/instances/{}/calls/{call}", self.instance);
        until("the push to be accepted", || {
            let view = self.stage.ask("GET", &path, &self.token, None).text;
            view.contains("wake-accepted").then_some(())
        });
        (push, call)
    }

    #[track_caller]
    fn connect(&mut self) -> RawPhone {
        let phone = self.stage.phone(&self.instance, &self.token);
        self.book.word(&phone.address, "192.168.7.23:49152");
        phone
    }
}

#[test]
fn the_examples_of_the_guide_are_what_happens() {
    let world = World::new("guide");
    let stage = Stage::start(&world);
    let mut book = Book::default();
    book.word(format!("127.0.0.1:{}", stage.tls_port), "edge.example.net:5061");
    book.word(format!("127.0.0.1:{}", stage.udp_port), "edge.example.net:5060");
    book.word(stage.pbx.address().to_string(), "pbx.example.com");
    book.word(EDGE_DOMAIN, "edge.example.net");

    let mut alice = App::hand_over(&stage, book, "alice", "android");
    a_self_test(&mut alice);
    an_answered_call(&mut alice);
    a_declined_call(&mut alice);
    a_call_that_is_over(&mut alice);
    a_message(&mut alice);
    alice.ask("refresh", "POST", "/refresh", None);
    alice.ask("foreground", "POST", "/foreground", Some(&json!({ "binding": "release" })));
    alice.ask("delete", "DELETE", "", None);
    let mut carol = App::hand_over(&stage, alice.book, "carol", "ios");
    a_call_that_is_over_on_ios(&mut carol);

    carol.book.compare();
}

#[test]
fn the_client_of_the_guide_takes_a_call_and_takes_its_account_back() {
    let world = World::new("guide-client");
    let stage = Stage::start(&world);
    let mut client = stage.client("alice");
    until("the client to hand its account over", || {
        client.assert_running();
        client.output().contains("handed over: registered").then_some(())
    });

    let mut caller = stage.call("alice");
    until("the client to take the call", || {
        client.assert_running();
        client.output().contains("<-- ACK").then_some(())
    });
    stage.hang_up(&mut caller);

    assert!(client.wait().success(), "{}", client.output());
    assert!(client.output().contains("erased: 200 True"), "{}", client.output());
}

fn a_self_test(app: &mut App<'_, '_>) {
    let begun = app.ask("self-test", "POST", "/test", None);
    let push = app.stage.push("alice-other", "test");
    assert_eq!(push["test"], begun["test"]);
    let test = push["test"].as_str().expect("it has a name").to_owned();
    app.book.word(&test, "0f6f6a0e-3a64-4ac0-9f6e-0d2a3c1b5e77");
    let begun = serde_json::to_string(&begun).expect("it was JSON");
    let request = format!("POST /v1/instances/{}/test HTTP/1.1", app.instance);
    app.book.http("self-test", &request, None, 202, &begun);
    app.book.push("push-test", &push);
    let path = format!("/v1/instances/{}/test/{test}", app.instance);
    until("the push to be accepted", || {
        let taken = app.stage.ask("GET", &path, &app.token, None).json()["accepted_at"].is_string();
        taken.then_some(())
    });
    app.ask("self-test-arrived", "POST", &format!("/test/{test}"), None);
}

fn an_answered_call(app: &mut App<'_, '_>) {
    let mut caller = app.stage.call("alice");
    let (push, call) = app.woken();
    app.book.push("push-call", &push);
    let mut phone = app.connect();
    let [first, challenge, second, granted] = phone.register(EXPIRES);
    let challenge = excerpt(&challenge, &["WWW-Authenticate"]);
    let second = excerpt(&second, &["CSeq", "Authorization"]);
    app.book.sip("attach", &[&first, &challenge, &second, &granted]);
    let invite = phone.expect("INVITE ");
    app.book.sip("invite", &[&invite]);
    phone.answer(&invite, "180 Ringing");
    let ok = phone.answer(&invite, "200 OK");
    let ack = phone.expect("ACK ");
    app.book.sip("answer", &[&ok, &excerpt(&ack, &[])]);
    app.ask("story", "GET", &format!("/calls/{call}"), None);
    app.stage.world.runtime.block_on(caller.hang_up());
    let bye = phone.expect("BYE ");
    phone.answer(&bye, "200 OK");
    app.stage.wait_over(&mut caller);
    phone.register(0);
}

fn a_declined_call(app: &mut App<'_, '_>) {
    let mut caller = app.stage.call("alice");
    let (_, call) = app.woken();
    app.ask("decline", "POST", &format!("/calls/{call}/decline"), Some(&json!({ "reason": "decline" })));
    app.stage.wait_over(&mut caller);
}

fn a_call_that_is_over(app: &mut App<'_, '_>) {
    let mut caller = app.stage.call("alice");
    app.woken();
    app.stage.hang_up(&mut caller);
    let mut phone = app.connect();
    let granted = phone.register(EXPIRES)[3].clone();
    app.book.sip("late", &[&excerpt(&granted, &["Contact", "Reveille-Call"])]);
    phone.register(0);
}

fn a_message(app: &mut App<'_, '_>) {
    let Stage { world, pbx, .. } = app.stage;
    let status = world.runtime.block_on(pbx.text("alice", "See you at eight.")).expect("the PBX is answered");
    assert_eq!(status.code(), 202);
    let push = app.stage.later_push("alice-other", "message");
    app.book.push("push-message", &push);
    let mut phone = app.connect();
    phone.register(EXPIRES);
    let message = phone.expect("MESSAGE ");
    let ok = phone.answer(&message, "200 OK");
    app.book.sip("message", &[&message, &excerpt(&ok, &[])]);
    phone.register(0);
}

fn a_call_that_is_over_on_ios(app: &mut App<'_, '_>) {
    let mut caller = app.stage.call("carol");
    app.woken();
    app.stage.hang_up(&mut caller);
    let mut phone = app.connect();
    let granted = phone.register(EXPIRES)[3].clone();
    let invite = phone.expect("INVITE ");
    phone.answer(&invite, "100 Trying");
    let cancel = phone.expect("CANCEL ");
    phone.answer(&cancel, "200 OK");
    let terminated = phone.answer(&invite, "487 Request Terminated");
    let ack = phone.expect("ACK ");
    let messages = [&granted, &invite, &cancel, &terminated, &ack];
    let shown = messages.map(|message| excerpt(message, &["CSeq", "Reveille-Call", "Reason"]));
    app.book.sip("late-ios", &shown.each_ref().map(String::as_str));
}
