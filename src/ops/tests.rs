//! The endpoints over real sockets.

mod access;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::client::url_of;
use super::*;
use crate::cli::{CallsArguments, Exit, LogNamesArguments, OpsArguments};
use crate::clock::WallTime;
use crate::config::{self, OpsListen};
use crate::engine::audit::Cause;
use crate::engine::ids::{CallUuid, InstanceId, ShardId};
use crate::engine::output::{CallOutcome, Step};
use crate::engine::story::{Moment, Story};
use crate::engine::tally::{Census, Tally};
use crate::telemetry::{Meters, Metric, Readiness, Redacted};

#[tokio::test]
async fn readyz_tells_whether_we_take_work_and_why_not() {
    let daemon = Daemon::start().await;
    assert_eq!(daemon.get("/readyz").await, (503, "{\"ready\":false,\"notes\":[]}".to_owned()));
    daemon.readiness.set_ready(true);
    assert_eq!(daemon.get("/readyz").await, (200, "{\"ready\":true,\"notes\":[]}".to_owned()));
    daemon.readiness.note("the API's certificate is self-signed", true);
    let (status, body) = daemon.get("/readyz").await;
    assert_eq!((status, body.as_str()), (200, "{\"ready\":true,\"notes\":[\"the API's certificate is self-signed\"]}"));
    daemon.readiness.set_ready(false);
    assert_eq!(daemon.get("/readyz").await.0, 503);
    assert_eq!(daemon.get("/healthz").await, (200, "ok\n".to_owned()), "alive all the same");
    daemon.stop().await;
}

#[tokio::test]
async fn metrics_show_everything_and_are_refreshed_for_each_scrape() {
    let daemon = Daemon::start().await;
    daemon.backlog.store(7, Ordering::Relaxed);
    let (status, page) = daemon.get("/metrics").await;
    assert_eq!(status, 200);
    for metric in Metric::ALL {
        assert!(page.contains(metric.name()), "{metric:?}");
    }
    assert!(page.contains("\nreveille_audit_backlog 7\n"));
    daemon.backlog.store(0, Ordering::Relaxed);
    assert!(daemon.get("/metrics").await.1.contains("\nreveille_audit_backlog 0\n"));
    daemon.stop().await;
}

#[tokio::test]
async fn other_paths_and_methods_are_refused() {
    let daemon = Daemon::start().await;
    assert_eq!(daemon.get("/").await.0, 404);
    assert_eq!(daemon.get("/metrics/x").await.0, 404);
    assert_eq!(daemon.get("/log-names").await.0, 404);
    let (status, head, _) = daemon.request("POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n").await;
    assert_eq!(status, 405);
    assert!(head.to_ascii_lowercase().contains("allow: get, head"), "{head}");
    let (status, _, body) = daemon.request("HEAD /healthz HTTP/1.1\r\nHost: a\r\n").await;
    assert_eq!((status, body.as_str()), (200, ""));
    daemon.stop().await;
}

#[tokio::test]
async fn a_long_head_is_cut_off() {
    let daemon = Daemon::start().await;
    let (status, _, _) = daemon.request(&format!("GET /healthz HTTP/1.1\r\nX: {}\r\n", "a".repeat(20_000))).await;
    assert_eq!(status, 431);
    daemon.stop().await;
}

#[tokio::test]
async fn status_is_told_in_a_few_lines() {
    let daemon = Daemon::start().await;
    daemon.readiness.set_ready(true);
    daemon.readiness.note("the API's certificate is self-signed", true);
    let mut tally = Tally::default();
    tally.call(CallOutcome::Answered);
    tally.call(CallOutcome::Answered);
    tally.call(CallOutcome::NoDevice);
    tally.erasure(Cause::Deleted, Duration::from_millis(3));
    daemon.meters.publish_tally(&tally);
    daemon.meters.publish_census(
        ShardId(0),
        &Census { instances: [1, 5, 0, 0, 0, 0], flows: 2, held_calls: 1, ..Census::default() },
    );
    let overview = status::ask(&daemon.asked()).await.expect("it runs");
    assert!(overview.is_ready());
    assert_eq!(
        overview.to_string(),
        "ready           yes (the API's certificate is self-signed)\n\
         instances       6 (5 registered, 1 registering)\n\
         devices here    2\n\
         calls held      1\n\
         calls ended     3 (2 answered, 1 no-device)\n\
         REGISTERs       0\n\
         pushes          0\n\
         erasures        1 (1 deleted)\n\
         shed            0\n\
         audit backlog   0\n"
    );
    daemon.readiness.set_ready(false);
    assert!(!status::ask(&daemon.asked()).await.expect("it runs").is_ready());
    daemon.stop().await;
}

#[tokio::test]
async fn a_daemon_that_is_not_there_is_unavailable() {
    let daemon = Daemon::start().await;
    let asked = daemon.asked();
    daemon.stop().await;
    assert!(matches!(status::ask(&asked).await, Err(AskError::Unavailable { .. })));
    assert!(matches!(at("ftp://127.0.0.1:1"), Err(AskError::Url(_))));
    assert!(matches!(at("nonsense"), Err(AskError::Url(_))));
}

#[tokio::test]
async fn something_else_is_not_taken_for_a_daemon() {
    let listener = TcpListener::bind(loopback()).await.expect("an ephemeral port");
    let asked = at(&format!("http://{}", listener.local_addr().expect("it is bound"))).expect("a URL");
    let other = async {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").await.expect("a reader");
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
    };
    let error = tokio::select! {
        answer = status::ask(&asked) => answer.expect_err("it is no daemon"),
        () = async { other.await; std::future::pending().await } => unreachable!("pending"),
    };
    assert!(matches!(error, AskError::Unavailable { .. }), "{error}");
}

#[tokio::test]
async fn calls_are_told_with_the_reason_why_no_phone_rang() {
    let daemon = Daemon::start().await;
    daemon.tell(vec![
        story(2, &[(Step::Invited, 0), (Step::WakeSent, 4)], None),
        story(1, &REFUSED, Some(CallOutcome::NoPush)),
    ]);
    let told = calls::ask(&daemon.asked(), None).await.expect("it runs").to_string();
    let instance = InstanceId::mint(ShardId(0), [1; 16]);
    let (one, two) = (id(1), id(2));
    assert_eq!(
        told,
        format!(
            "2026-11-24T20:00:02Z {two}: the wake is with the provider, which has not answered yet\n\
             \x20 under way, instance {instance}\n\
             \x20     0.000 s  invited\n\
             \x20     0.004 s  wake-sent\n\
             \n\
             2026-11-24T20:00:01Z {one}: no wake: the provider refused the token (token-dead)\n\
             \x20 no-push, instance {instance}\n\
             \x20     0.000 s  invited\n\
             \x20     0.092 s  wake-failed (token-dead)\n\
             \x20    45.000 s  ended (no-device)\n\
             \x20 3 steps are left out"
        )
    );
    daemon.stop().await;
}

#[tokio::test]
async fn one_call_can_be_asked_for_and_one_that_is_forgotten_is_not_there() {
    let daemon = Daemon::start().await;
    daemon.tell(vec![story(2, &REFUSED, None), story(1, &REFUSED, None)]);
    let (status, body) = daemon.get(&format!("/calls/{}", id(1))).await;
    let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    let wanted = serde_json::json!({"calls": [{
        "call": id(1).to_string(), "instance": InstanceId::mint(ShardId(0), [1; 16]).to_string(),
        "began": "2026-11-24T20:00:01Z", "over": true, "outcome": null, "reason": "no-device",
        "why": "no wake: the provider refused the token (token-dead)",
        "story": [{"event": "invited", "ms": 0, "at": "2026-11-24T20:00:01Z"},
                  {"event": "wake-failed", "reason": "token-dead", "ms": 92, "at": "2026-11-24T20:00:01Z"},
                  {"event": "ended", "reason": "no-device", "ms": 45_000, "at": "2026-11-24T20:00:46Z"}],
        "story_omitted": 3,
    }]});
    assert_eq!((status, body), (200, wanted));
    assert!(!calls::ask(&daemon.asked(), Some(id(2))).await.expect("it runs").is_empty());

    assert_eq!(daemon.get(&format!("/calls/{}", id(3))).await.0, 404);
    assert!(calls::ask(&daemon.asked(), Some(id(3))).await.expect("it runs").is_empty());
    assert_eq!(daemon.get("/calls/3").await.0, 400);
    assert_eq!(daemon.get("/calls/").await.0, 400);
    daemon.stop().await;
}

#[tokio::test]
async fn calls_of_a_busy_daemon_are_unavailable_and_no_calls_are_no_fault() {
    let daemon = Daemon::start().await;
    assert_eq!(daemon.get("/calls").await, (200, "{\"calls\":[]}".to_owned()));
    *daemon.stories.lock().expect("no test panics with it") = None;
    assert_eq!(daemon.get("/calls").await.0, 503);
    assert!(matches!(calls::ask(&daemon.asked(), None).await, Err(AskError::Unavailable { .. })));
    daemon.stop().await;
}

#[tokio::test]
async fn who_has_an_id_learns_how_the_log_names_it_and_nothing_else_has_a_name() {
    let daemon = Daemon::start().await;
    let instance = InstanceId::mint(ShardId(0), [7; 16]);
    let call = CallUuid(id(9));
    let logged = [Redacted(instance).to_string(), Redacted(call).to_string()];
    let asked = daemon.asked();
    for (text, name) in [
        (instance.to_string(), &logged[0]),
        (instance.to_string().to_uppercase(), &logged[0]),
        (call.to_string(), &logged[1]),
    ] {
        let (status, body) = daemon.get(&format!("/log-names/{text}")).await;
        assert_eq!(status, 200);
        let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        let names = body["names"].as_array().expect("a list");
        let newest = names.last().expect("a day, as something was logged");
        assert_eq!(newest["name"].as_str(), Some(name.as_str()));
        assert_eq!(newest["day"].as_str().map(str::len), Some("2026-11-24".len()));
        let told = log_names::ask(&asked, &text).await.expect("it runs").to_string();
        assert!(told.lines().any(|line| line.ends_with(&format!(" {name}"))), "{told}");
    }
    // What can be guessed has a name too, which is not told.
    for guess in ["", "%2B15550100", "+15550100", "sip:alice@example.com", "192.0.2.1", "alice", "x/y"] {
        assert_eq!(daemon.get(&format!("/log-names/{guess}")).await.0, 400, "{guess}");
    }
    daemon.stop().await;
}

#[test]
fn what_is_no_id_is_not_even_asked_for() {
    let exit = |id: &str| log_names(&LogNamesArguments { id: id.to_owned(), daemon: arguments("http://127.0.0.1:1") });
    for guess in ["", "+15550100", "sip:alice@example.com", "../metrics"] {
        assert_eq!(exit(guess), Exit::Usage, "{guess}");
    }
    assert_eq!(exit(&id(9).to_string()), Exit::Unavailable);
    assert_eq!(exit(&InstanceId::mint(ShardId(0), [7; 16]).to_string()), Exit::Unavailable);
}

#[test]
fn the_exit_code_of_calls_says_what_came_of_it() {
    let ask = |ops: &str| calls(&CallsArguments { daemon: arguments(ops), ..CallsArguments::default() });
    assert_eq!(ask("nonsense"), Exit::Usage);
    // The port of no protocol: nobody listens there.
    assert_eq!(ask("http://127.0.0.1:1"), Exit::Unavailable);
    let one = CallsArguments { call: Some(id(1)), ..CallsArguments::default() };
    let (none, some) = (Calls::from(Vec::new()), Calls::from(vec![story(1, &REFUSED, None)]));
    assert_eq!(calls::tell(&none, &CallsArguments::default()), Exit::Success, "an idle daemon is no fault");
    assert_eq!(calls::tell(&none, &one), Exit::Unavailable, "a forgotten call is");
    assert_eq!(calls::tell(&some, &one), Exit::Success);
}

#[test]
fn a_call_that_stands_for_others_says_how_many() {
    let calls = Calls::from(vec![Story { repeated: 1_999, ..story(1, &REFUSED, None) }]);
    assert!(calls.to_string().ends_with("3 steps are left out\n  1999 more calls ended alike"), "{calls}");
    let json = serde_json::to_value(&calls).expect("JSON");
    assert_eq!(json["calls"][0]["repeated"], 1_999);
    assert_eq!(serde_json::from_value::<Calls>(json).expect("its own form"), calls);
}

#[test]
fn the_newest_calls_of_all_shards_are_told_and_no_more_than_the_bound() {
    let of_one = (1..=CALLS_MAX as u64).rev().map(|number| story(number * 2, &REFUSED, None));
    let of_other = (1..=CALLS_MAX as u64).rev().map(|number| story(number * 2 + 1, &REFUSED, None));
    let told: Vec<u64> = calls::newest(of_one.chain(of_other).collect()).iter().map(number).collect();
    let wanted: Vec<u64> = (0..CALLS_MAX as u64).map(|back| CALLS_MAX as u64 * 2 + 1 - back).collect();
    assert_eq!(told, wanted);
}

#[test]
fn status_asks_the_first_address_of_the_configuration() {
    let ops = |listen: &[&str]| {
        let place = |text: &&str| match text.strip_prefix('/') {
            Some(_) => OpsListen::Unix(text.into()),
            None => OpsListen::Tcp(text.parse().expect("an address")),
        };
        config::Ops { listen: listen.iter().map(place).collect(), ..config::Ops::default() }
    };
    let url = |listen: &str| url_of(&ops(&[listen])).expect("there is one");
    assert_eq!(url("127.0.0.1:9464"), "http://127.0.0.1:9464");
    assert_eq!(url("0.0.0.0:9464"), "http://127.0.0.1:9464");
    assert_eq!(url("[::]:9464"), "http://[::1]:9464");
    assert!(matches!(url_of(&ops(&[])), Err(AskError::NotServed)));
    let both = url_of(&ops(&["127.0.0.1:9464", "/run/reveille/ops.sock"])).expect("there is one");
    assert_eq!(both, "unix:/run/reveille/ops.sock", "nothing has to be shown there");
}

pub(super) fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

const REFUSED: [(Step, u64); 3] =
    [(Step::Invited, 0), (Step::WakeFailed("token-dead"), 92), (Step::Ended("no-device"), 45_000)];

/// The story of call `number`, which began at that second.
fn story(number: u64, steps: &[(Step, u64)], outcome: Option<CallOutcome>) -> Story {
    let moment = |&(step, ms)| Moment { step, after: Duration::from_millis(ms) };
    Story {
        instance: InstanceId::mint(ShardId(0), [1; 16]),
        call: CallUuid(id(number)),
        began: WallTime::from_unix_millis(1_795_550_400_000 + number * 1_000),
        moments: steps.iter().map(moment).collect(),
        omitted: if steps.len() == REFUSED.len() { 3 } else { 0 },
        outcome,
        repeated: 0,
    }
}

fn id(number: u64) -> uuid::Uuid {
    uuid::Uuid::from_u128(number.into())
}

fn number(story: &Story) -> u64 {
    u64::try_from(story.call.0.as_u128()).expect("small")
}

fn at(url: &str) -> Result<client::Daemon, AskError> {
    client::Daemon::of(&arguments(url), &config::Ops::default())
}

fn arguments(url: &str) -> OpsArguments {
    OpsArguments { ops: Some(url.to_owned()), ..OpsArguments::default() }
}

/// The endpoints of a daemon that does nothing else.
pub(super) struct Daemon {
    pub(super) place: OpsListen,
    /// `None`: it has no time.
    stories: Arc<Mutex<Option<Vec<Story>>>>,
    meters: Arc<Meters>,
    pub(super) readiness: Arc<Readiness>,
    backlog: Arc<AtomicUsize>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Daemon {
    async fn start() -> Self {
        Self::start_with(Access::default(), OpsListen::Tcp(loopback()))
    }

    pub(super) fn start_with(access: Access, listen: OpsListen) -> Self {
        let bound = bind(&[listen]).expect("it is free").remove(0);
        let place = bound.place().expect("it is bound");
        let listeners = vec![bound.register().expect("a runtime")];
        let meters = Arc::new(Meters::new(&[]));
        let (readiness, backlog) = (Arc::new(Readiness::new()), Arc::new(AtomicUsize::new(0)));
        let (stop, stopping) = watch::channel(false);
        let seen = Arc::clone(&backlog);
        let stories = Arc::new(Mutex::new(Some(Vec::new())));
        let told = Arc::clone(&stories);
        let endpoints = Endpoints {
            meters: Arc::clone(&meters),
            readiness: Arc::clone(&readiness),
            refresh: Box::new(move |meters| meters.publish_audit_backlog(seen.load(Ordering::Relaxed))),
            stories: Box::new(move |call| {
                let all: Option<Vec<Story>> = told.lock().expect("no test panics with it").clone();
                let of = move |story: &Story| call.is_none_or(|call| story.call == call);
                Box::pin(async move { Some(all?.into_iter().filter(of).collect()) })
            }),
            access,
        };
        #[expect(clippy::disallowed_methods, reason = "awaited in `stop`")]
        let task = tokio::spawn(serve(endpoints, listeners, stopping));
        Self { place, stories, meters, readiness, backlog, stop, task }
    }

    fn tell(&self, stories: Vec<Story>) {
        *self.stories.lock().expect("no test panics with it") = Some(stories);
    }

    /// As `reveille status` finds it.
    pub(super) fn asked(&self) -> client::Daemon {
        at(&format!("http://{}", self.place)).expect("a URL")
    }

    pub(super) async fn get(&self, path: &str) -> (u16, String) {
        let (status, _, body) = self.request(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n")).await;
        (status, body)
    }

    /// Status, head and body of the answer.
    pub(super) async fn request(&self, head: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.place.to_string()).await.expect("it listens");
        let _ = stream.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes()).await;
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes).await;
        let text = String::from_utf8(bytes).expect("an answer is text");
        let (head, body) = text.split_once("\r\n\r\n").expect("an answer has a head");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a head has a status");
        (status, head.to_owned(), body.to_owned())
    }

    pub(super) async fn stop(self) {
        self.stop.send_replace(true);
        self.task.await.expect("the server ends when it is told to");
    }
}
