//! The guide's app: `docs/examples/app.py` plays the situations of the guide, and this is all that surrounds it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{SystemTime, UNIX_EPOCH};

use reveille::sandbox::caller::{Caller, Heard};
use serde_json::{Value, json};

use super::stage::{APP_KEY, PASSWORD, Stage};
use crate::process::{PATIENCE, Process, until};
use crate::world::{World, target_directory};

/// The app and what it has said so far.
struct Told<'s, 'w> {
    stage: &'s Stage<'w>,
    process: Process,
    read: usize,
}

impl<'s, 'w> Told<'s, 'w> {
    #[track_caller]
    fn start(stage: &'s Stage<'w>, user: &str, password: &str) -> Self {
        let python = target_directory().join("pjsip-venv/bin/python");
        assert!(python.exists(), "PJSIP is not installed; scripts/peers installs it");
        let mut process = stage.example("app.py", &python, user);
        process.tell(password);
        Self { stage, process, read: 0 }
    }

    /// Waits for a line that begins with `what`, past those waited for before; returns the rest of it.
    #[track_caller]
    fn says(&mut self, what: &str) -> String {
        let (line, read) = until(&format!("the app to say {what:?}"), || {
            self.process.assert_running();
            let output = self.process.output();
            let mut at = self.read;
            output.get(at..)?.split_inclusive('\n').filter(|line| line.ends_with('\n')).find_map(|line| {
                at += line.len();
                Some((line.strip_prefix(what)?.trim().to_owned(), at))
            })
        });
        self.read = read;
        line
    }

    /// What it has said since the start, but for PJSIP's own lines.
    fn count(&self, what: &str) -> usize {
        self.process.output().lines().filter(|line| line.starts_with(what)).count()
    }

    fn user(&mut self, command: &str) {
        self.process.tell(command);
    }

    /// The app loses its network, and Reveille has seen it go: from now on calls need a push.
    #[track_caller]
    fn goes_offline(&mut self) {
        self.user("offline");
        self.says("offline");
    }

    /// A call that is shown for its push.
    #[track_caller]
    fn rings(&mut self) -> (Caller, String) {
        let caller = self.stage.call("alice");
        (caller, self.says("ringing: "))
    }

    /// A push that no provider has sent: late, doubled, reordered or a stranger's.
    #[track_caller]
    fn push(&self, kind: &str, instance: &str, call: &str, expires_in: i64, more: &[(&str, Value)]) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is past 1970").as_secs();
        let mut payload = json!({
            "v": 1, "kind": kind, "instance": instance, "call": call, "expires_at": now.saturating_add_signed(expires_in),
            "attach": format!("sip:127.0.0.1:{};transport=tls", self.stage.tls_port),
        });
        for (name, value) in more {
            payload[name] = value.clone();
        }
        let token = if kind == "call" { "alice-call" } else { "alice-other" };
        let body = json!({ "token": token, "kind": kind, "payload": payload }).to_string();
        let endpoint = self.stage.mailbox.endpoint();
        let address = endpoint.trim_start_matches("http://").trim_end_matches("/push").to_owned();
        let mut socket = TcpStream::connect(&address).expect("the mailbox listens");
        let length = body.len();
        let head =
            format!("POST /push HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
        socket.write_all((head + &body).as_bytes()).expect("the mailbox reads");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("the mailbox answers");
        assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    }
}

/// Waits for the final answer of a caller's call.
#[track_caller]
fn refused(stage: &Stage<'_>, caller: &mut Caller) -> u16 {
    let refused = async {
        loop {
            match caller.next().await.expect("the call has a final answer").what {
                Heard::Refused { code, .. } => return code.code(),
                Heard::Trying | Heard::Ringing(_) => {}
                other => panic!("the caller hears {other:?}"),
            }
        }
    };
    stage.world.runtime.block_on(async { tokio::time::timeout(PATIENCE, refused).await }).expect("in time")
}

#[test]
fn the_app_of_the_guide_takes_calls_in_every_situation() {
    let world = World::new("guide-app");
    let stage = Stage::start(&world);
    let mut app = Told::start(&stage, "alice", PASSWORD);
    assert_eq!(app.says("handed over: "), "registered", "a");

    // c: woken, attached, invited, answered.
    let (mut caller, call) = app.rings();
    assert_eq!(app.says("invited: "), call);
    app.user("answer");
    assert_eq!(app.says("talking: "), call);
    // i, g: a second call comes down the same connection, with or without a push, and is declined (m).
    let (mut second, other) = app.rings();
    app.says("invited: ");
    app.user("decline");
    assert_eq!(refused(&stage, &mut second), 486);
    assert!(app.says("over: ").starts_with(&other));
    stage.hang_up(&mut caller);
    assert!(app.says("over: ").starts_with(&call));

    // k: the caller gives up while it rings.
    let (mut caller, call) = app.rings();
    app.says("invited: ");
    stage.hang_up(&mut caller);
    assert_eq!(app.says("over: "), format!("{call} SIP 487"));

    // j: the caller gives up while the phone has no network; the attach tells, or the push; o: a missed call.
    app.goes_offline();
    let (mut caller, call) = app.rings();
    stage.hang_up(&mut caller);
    app.user("online");
    assert_eq!(app.says("over: "), format!("{call} cancelled"));
    until("the missed call to be shown", || (app.count(&format!("missed-call: {call}")) == 1).then_some(()));

    // l: declined before SIP is up.
    app.goes_offline();
    let (mut caller, _) = app.rings();
    app.user("decline");
    assert_eq!(app.says("declined: "), "200");
    assert_eq!(refused(&stage, &mut caller), 486);
    app.user("online");
}

#[test]
fn the_app_of_the_guide_knows_pushes_that_are_late_doubled_reordered_and_strange() {
    let world = World::new("guide-app-pushes");
    let stage = Stage::start(&world);
    let mut app = Told::start(&stage, "alice", PASSWORD);
    app.says("handed over: ");
    // u: another hand-over, whose token was used, has made the app's token stale: the app hands over again and takes the call.
    let again = stage.ask("POST", "/v1/instances", APP_KEY, Some(&stage.hand_over("alice", "android")));
    assert_eq!(again.status, 200, "{again:?}");
    let instance = again.json()["instance"].as_str().expect("it has a name").to_owned();
    let token = again.json()["token"].as_str().expect("it has a token").to_owned();
    assert_eq!(stage.ask("GET", &format!("/v1/instances/{instance}"), &token, None).status, 200);
    let (mut caller, call) = app.rings();
    assert_eq!(app.says("not attached: "), "401");
    assert_eq!(app.says("handed over: "), "registered");
    assert_eq!(app.says("invited: "), call);
    // d: the same push once more rings no second time.
    app.push("call", &instance, &call, 40, &[]);
    app.user("decline");
    assert_eq!(refused(&stage, &mut caller), 486);
    app.says("over: ");

    // e: late, and for a call whose end came first; t: a stranger's.
    app.push("call", &instance, "late", -1, &[]);
    assert_eq!(app.says("too late: "), "late");
    app.push("call-ended", &instance, "gone", 100, &[("reason", json!("cancelled"))]);
    assert_eq!(app.says("over: "), "gone cancelled");
    app.push("call", &instance, "gone", 40, &[]);
    assert_eq!(app.says("too late: "), "gone");
    app.push("call", "somebody", "x", 40, &[]);
    assert_eq!(app.says("unknown instance: "), "call");
    // f: no INVITE comes.
    app.push("call", &instance, "silent", 2, &[]);
    assert_eq!(app.says("ringing: "), "silent");
    assert_eq!(app.says("over: "), "silent expired");
    assert_eq!(app.count(&format!("ringing: {call}")), 1);

    // o: the mailbox; n: a text; s: a self-test.
    app.push("voicemail", &instance, "x", 40, &[("voicemail", json!({ "new": 2, "old": 1 }))]);
    app.says("voicemail: ");
    let status = world.runtime.block_on(stage.pbx.text("alice", "See you at eight.")).expect("the PBX is answered");
    assert_eq!(status.code(), 202);
    assert_eq!(app.says("message: "), "See you at eight.");
    app.user("test");
    assert_eq!(app.says("test arrived: "), "True");
}

#[test]
fn the_app_of_the_guide_comes_to_the_foreground_renews_and_takes_its_account_back() {
    let world = World::new("guide-app-lease");
    let stage = Stage::start(&world);
    // b: a wrong password is refused, and nothing is held.
    let mut wrong = Told::start(&stage, "carol", "wrong");
    assert!(wrong.says("refused: ").starts_with("422 urn:reveille:problem:registrar-refused"));

    let mut app = Told::start(&stage, "alice", PASSWORD);
    app.says("handed over: ");
    // r
    app.user("foreground");
    assert_eq!(app.says("foreground: "), "released");
    app.user("background");
    assert_eq!(app.says("handed over: "), "registered");
    // p
    app.user("refresh");
    assert_eq!(app.says("refreshed: "), "200");
    // q
    app.user("off");
    assert_eq!(app.says("erased: "), "200 True");
    // v: it is gone, and the next start hands over again.
    app.user("refresh");
    assert_eq!(app.says("forgotten: "), "410 deleted");
    app.user("start");
    assert_eq!(app.says("handed over: "), "registered");
}
