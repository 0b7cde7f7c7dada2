//! The endpoints over real sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::status::url_of;
use super::*;
use crate::engine::audit::Cause;
use crate::engine::ids::ShardId;
use crate::engine::output::CallOutcome;
use crate::engine::tally::{Census, Tally};
use crate::telemetry::{Meters, Metric, Readiness};

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
    daemon.meters.publish_census(ShardId(0), &Census { instances: [1, 5, 0, 0, 0], flows: 2, held_calls: 1 });
    let overview = ask(&daemon.url()).await.expect("it runs");
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
    assert!(!ask(&daemon.url()).await.expect("it runs").is_ready());
    daemon.stop().await;
}

#[tokio::test]
async fn a_daemon_that_is_not_there_is_unavailable() {
    let daemon = Daemon::start().await;
    let url = daemon.url();
    daemon.stop().await;
    assert!(matches!(ask(&url).await, Err(StatusError::Unavailable { .. })));
    assert!(matches!(ask("https://127.0.0.1:1").await, Err(StatusError::Url(_))));
    assert!(matches!(ask("nonsense").await, Err(StatusError::Url(_))));
}

#[tokio::test]
async fn something_else_is_not_taken_for_a_daemon() {
    let listener = bind(&[loopback()]).await.expect("an ephemeral port").remove(0);
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    let other = async {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").await.expect("a reader");
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
    };
    let error = tokio::select! {
        answer = ask(&url) => answer.expect_err("it is no daemon"),
        () = async { other.await; std::future::pending().await } => unreachable!("pending"),
    };
    assert!(matches!(error, StatusError::Unavailable { .. }), "{error}");
}

#[test]
fn status_asks_the_first_address_of_the_configuration() {
    let url = |listen: &str| url_of(&[listen.parse().expect("an address")]).expect("there is one");
    assert_eq!(url("127.0.0.1:9464"), "http://127.0.0.1:9464");
    assert_eq!(url("0.0.0.0:9464"), "http://127.0.0.1:9464");
    assert_eq!(url("[::]:9464"), "http://[::1]:9464");
    assert!(matches!(url_of(&[]), Err(StatusError::NotServed)));
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// The endpoints of a daemon that does nothing else.
struct Daemon {
    address: SocketAddr,
    meters: Arc<Meters>,
    readiness: Arc<Readiness>,
    backlog: Arc<AtomicUsize>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Daemon {
    async fn start() -> Self {
        let listeners = bind(&[loopback()]).await.expect("an ephemeral port");
        let address = listeners[0].local_addr().expect("it is bound");
        let meters = Arc::new(Meters::new(&[]));
        let (readiness, backlog) = (Arc::new(Readiness::new()), Arc::new(AtomicUsize::new(0)));
        let (stop, stopping) = watch::channel(false);
        let seen = Arc::clone(&backlog);
        let endpoints = Endpoints {
            meters: Arc::clone(&meters),
            readiness: Arc::clone(&readiness),
            refresh: Box::new(move |meters| meters.publish_audit_backlog(seen.load(Ordering::Relaxed))),
        };
        #[expect(clippy::disallowed_methods, reason = "awaited in `stop`")]
        let task = tokio::spawn(serve(endpoints, listeners, stopping));
        Self { address, meters, readiness, backlog, stop, task }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let (status, _, body) = self.request(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n")).await;
        (status, body)
    }

    /// Status, head and body of the answer.
    async fn request(&self, head: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.address).await.expect("it listens");
        let _ = stream.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes()).await;
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes).await;
        let text = String::from_utf8(bytes).expect("an answer is text");
        let (head, body) = text.split_once("\r\n\r\n").expect("an answer has a head");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a head has a status");
        (status, head.to_owned(), body.to_owned())
    }

    async fn stop(self) {
        self.stop.send_replace(true);
        self.task.await.expect("the server ends when it is told to");
    }
}
