//! A stem that nobody bears is put into everything the outside can say, well-formed or not, and looked for afterwards.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use serde_json::{Value, json};

use crate::canary::STEM;
use crate::daemon::{Daemon, HandOver, Settings};
use crate::kamailio::{Kamailio, Manners};
use crate::process::{PATIENCE, until};
use crate::push::{Provider, PushService};
use crate::world::{Transport, World};

#[test]
fn what_clients_say_is_in_no_log_metric_record_or_refusal() {
    let world = World::new("canaries-api");
    let kamailio = Kamailio::start(&world, &Manners::default());
    let push = PushService::start(&world, Provider::Apns);
    let daemon = Daemon::start(&world, &kamailio, &push);
    let alice = daemon.hand_over(&kamailio, &push, "alice", Transport::Udp);

    let good = |more: Value| HandOver { user: "carol", device: "carol", trunk: Transport::Udp, more };
    let bodies = [
        json!({ "account": { "password": 7, "aor": STEM } }),
        json!({ "account": { "password": { STEM: STEM } } }),
        json!({ "account": { "password": STEM } }),
        json!({ "account": { "registrar": format!("sip:{STEM}.test:5099") } }),
        json!({ "account": { "registrar": format!("sips:{STEM}") } }),
        json!({ "account": { "aor": format!("tel:{STEM}") } }),
        json!({ "account": { "outbound_proxy": format!("sip:{STEM}.invalid") } }),
        json!({ "account": { "tls_spki_sha256": STEM } }),
        json!({ "account": { "contact_style": STEM } }),
        json!({ "account": { "ha1": [{ "realm": STEM, "algorithm": STEM, "value": STEM }] } }),
        json!({ "device": { "id": STEM } }),
        json!({ "device": { "push": [{ "for": STEM, "provider": STEM, "app": STEM, "token": STEM }] } }),
        json!({ "mode": STEM, "hand_over": STEM, "lease_seconds": STEM }),
        json!({ "lease_seconds": 999_999_999, "device": { "platform": STEM } }),
    ];
    for more in bodies {
        let answer = daemon.try_hand_over(&kamailio, &push, &good(more.clone()));
        assert!(answer.status >= 400, "{more}: {answer:?}");
        assert_untold(&answer.text, &more);
    }
    for (method, path, bearer) in [
        ("POST", "/v1/instances", STEM),
        ("GET", "/v1/instances/xyzzyqxyzzyqxyzzyqxyzzyqxyzzyq", STEM),
        ("GET", "/xyzzyq?xyzzyq=xyzzyq", STEM),
        ("XYZZYQ", "/v1/instances", STEM),
        ("DELETE", "/v1/tenants/self/instances?device=xyzzyq", "eyJhbGciOiJub25lIn0.eyJpc3MiOiJ4eXp6eXEifQ."),
        ("PATCH", &format!("/v1/instances/{}", alice.id), STEM),
    ] {
        let answer = daemon.ask(method, path, bearer, Some(&json!({ "account": { "password": STEM } })));
        assert!(answer.status >= 400, "{method} {path}: {answer:?}");
        assert_untold(&answer.text, &json!(path));
    }
    let calls = format!("/v1/instances/{}/calls/xyzzyq", alice.id);
    assert_untold(&daemon.ask("GET", &calls, &alice.token, None).text, &json!(calls));
    raw_https(&world, daemon.api_port());
    assert_untold(&daemon.calls(), &json!("reveille calls"));
    // What follows is looked at when the daemon is dropped.
}

/// Bytes that no HTTP library would send.
fn raw_https(world: &World, port: u16) {
    let long = STEM.repeat(4000);
    for request in [
        format!(
            "POST /v1/instances HTTP/1.1\r\nhost: {STEM}\r\ncontent-type: {STEM}\r\ncontent-length: 6\r\n\r\n{STEM}"
        ),
        format!(
            "POST /v1/instances HTTP/1.1\r\nhost: a\r\nx-{STEM}: {STEM}\r\nauthorization: Bearer an-app-key-that-sits-in-every-shipped-app\r\ncontent-type: application/json\r\ncontent-length: 30\r\n\r\n{{\"account\":{{\"password\":\"{STEM}"
        ),
        format!(
            "POST /v1/instances HTTP/1.1\r\nhost: a\r\nauthorization: Bearer an-app-key-that-sits-in-every-shipped-app\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{long}",
            long.len()
        ),
        format!("{STEM} {STEM} {STEM}\r\n{STEM}\r\n\r\n"),
        format!("GET /{long} HTTP/1.1\r\nhost: a\r\n\r\n"),
    ] {
        let answer = over_tls(world, port, STEM, request.as_bytes());
        assert_untold(&answer, &json!(&request[..60.min(request.len())]));
    }
    // Not even TLS.
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the API listens");
    stream.write_all(STEM.repeat(100).as_bytes()).expect("the connection stands");
    read_all(&mut stream);
}

#[test]
fn what_sip_peers_say_is_in_no_log_metric_or_record() {
    let world = World::new("canaries-sip");
    let kamailio = Kamailio::start(&world, &Manners::default());
    let push = PushService::start(&world, Provider::Fcm);
    let registrar = RudeRegistrar::start();
    let settings = Settings { registrar: Some(registrar.port), ..Settings::default() };
    let daemon = Daemon::start_with(&world, &kamailio, &push, &settings);
    let alice = daemon.hand_over(&kamailio, &push, "alice", Transport::Udp);
    let capability = kamailio.bindings("alice").pop().expect("alice is registered");
    let edge = SocketAddr::from((Ipv4Addr::LOCALHOST, daemon.sip_port()));

    for method in
        ["INVITE", "MESSAGE", "NOTIFY", "OPTIONS", "SUBSCRIBE", "BYE", "CANCEL", "REFER", "XYZZYQ", "REGISTER"]
    {
        for uri in [capability.as_str(), "sip:xyzzyq@edge.test", &format!("sip:{}@edge.test", alice.id)] {
            for message in requests(method, uri) {
                say(edge, &message);
            }
        }
    }
    // The daemon reads what comes over one socket in order: this answer comes after all of them.
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    socket.set_read_timeout(Some(PATIENCE)).expect("not zero");
    let own = socket.local_addr().expect("bound");
    socket.send_to(request("OPTIONS", &capability, own, "somebody").as_bytes(), edge).expect("loopback takes it");
    let mut answer = vec![0; 4096];
    let (length, _) = socket.recv_from(&mut answer).expect("OPTIONS at a capability is answered");
    assert!(answer[..length].starts_with(b"SIP/2.0 200"));
    // Which call the INVITE began is told in words of ours.
    until("the story of a call", || daemon.calls().contains("wak").then_some(()));

    let refused = daemon.try_hand_over(
        &kamailio,
        &push,
        &HandOver {
            user: "carol",
            device: "carol",
            trunk: Transport::Udp,
            more: json!({ "account": { "registrar": format!("sip:127.0.0.1:{};transport=udp", registrar.port) } }),
        },
    );
    // The registrar's verdict belongs to the device: verbatim to it, and to nobody else.
    assert!(refused.text.contains(STEM), "{refused:?}");
    registrar.stop();
}

/// A request with the stem in every place that is free for it, sound and with a fault at each of some places.
fn requests(method: &str, uri: &str) -> Vec<String> {
    let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
    let sound = request(method, uri, here, STEM);
    let fault = |from: &str, to: &str| sound.replacen(from, to, 1);
    vec![
        fault("CSeq: 1", "CSeq: xyzzyq"),
        fault("Content-Length: ", "Content-Length: xyzzyq"),
        fault("Max-Forwards: 70", "Max-Forwards: 0"),
        fault("From: ", "Fr\0om: xyzzyq"),
        fault("Via: ", "Via: xyzzyq, "),
        fault("SIP/2.0\r\n", "SIP/3.0\r\n"),
        fault("Require: xyzzyq", "Require: 100rel"),
        fault("Require: xyzzyq\r\n", ""),
        sound,
    ]
}

fn request(method: &str, uri: &str, from: SocketAddr, stem: &str) -> String {
    let kind = if method == "MESSAGE" { "text/plain" } else { "application/sdp" };
    let event = if matches!(method, "NOTIFY" | "SUBSCRIBE") { "Event: message-summary\r\n" } else { "" };
    let require = if stem == STEM { format!("Require: {stem}\r\n") } else { String::new() };
    format!(
        "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {from};branch=z9hG4bK{stem}{method}\r\n\
        From: \"{stem}\" <sip:{stem}@{stem}.test>;tag={stem}1\r\nTo: <{uri}>\r\nCall-ID: {stem}{method}\r\n\
        CSeq: 1 {method}\r\nMax-Forwards: 70\r\n{require}{event}Subject: {stem}\r\nContact: <sip:{stem}@{from}>\r\n\
        User-Agent: {stem}\r\nP-Asserted-Identity: <sip:{stem}@{stem}.test>\r\nReason: Q.850;cause=16;text=\"{stem}\"\r\n\
        Authorization: Digest username=\"{stem}\", realm=\"{stem}\", nonce=\"{stem}\", uri=\"{uri}\", response=\"{stem}\"\r\n\
        Content-Type: {kind}\r\nContent-Length: {}\r\n\r\n{stem}",
        stem.len()
    )
}

/// Over UDP, and over TCP on a connection of its own.
fn say(edge: SocketAddr, message: &str) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    socket.send_to(message.as_bytes(), edge).expect("loopback takes it");
    let mut stream = TcpStream::connect(edge).expect("the listener takes TCP too");
    // A stranger's connection is closed by the daemon, maybe before everything is written.
    let _ = stream.write_all(message.replace("SIP/2.0/UDP", "SIP/2.0/TCP").as_bytes());
    let _ = stream.shutdown(std::net::Shutdown::Write);
    read_all(&mut stream);
}

fn over_tls(world: &World, port: u16, name: &str, request: &[u8]) -> String {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the API listens");
    let mut stream = crate::http::tls_stream(stream, &world.ca_file(), &format!("{name}.test"));
    // The daemon may have answered, and closed, before it was told everything.
    let _ = stream.write_all(request);
    read_all(&mut stream)
}

/// What comes until the other end closes or has said nothing for a while.
fn read_all(stream: &mut impl Read) -> String {
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[track_caller]
fn assert_untold(answer: &str, to: &Value) {
    assert!(!answer.to_ascii_lowercase().contains(STEM), "the answer to {to} repeats it: {answer}");
}

/// A registrar that puts the stem into all it says, and refuses.
struct RudeRegistrar {
    port: u16,
    thread: std::thread::JoinHandle<()>,
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
}

impl RudeRegistrar {
    fn start() -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = socket.local_addr().expect("bound").port();
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("not zero");
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let stopping = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while !stopping.load(std::sync::atomic::Ordering::Relaxed) {
                let Ok((length, peer)) = socket.recv_from(&mut buffer) else { continue };
                let answer = refusal(&String::from_utf8_lossy(&buffer[..length]));
                let _ = socket.send_to(answer.as_bytes(), peer);
            }
        });
        Self { port, thread, stop }
    }

    fn stop(self) {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        self.thread.join().expect("the registrar does not panic");
    }
}

/// First a challenge, then 403.
fn refusal(register: &str) -> String {
    let is = |line: &&str, name: &str| line.len() > name.len() && line[..name.len()].eq_ignore_ascii_case(name);
    let echoed: String = ["via:", "from:", "to:", "call-id:", "cseq:"]
        .iter()
        .filter_map(|name| register.lines().find(|line| is(line, name)))
        .map(|line| format!("{line}\r\n"))
        .collect();
    let challenge = "WWW-Authenticate: Digest realm=\"xyzzyq\", nonce=\"xyzzyq\", qop=\"auth\", opaque=\"xyzzyq\"\r\n";
    let (status, more) =
        if register.to_ascii_lowercase().contains("\r\nauthorization:") { (403, "") } else { (401, challenge) };
    format!(
        "SIP/2.0 {status} {STEM}\r\n{echoed}{more}Server: {STEM}\r\nWarning: 399 {STEM} \"{STEM}\"\r\nContent-Length: 0\r\n\r\n"
    )
}
