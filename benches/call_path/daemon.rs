//! The calls at the whole daemon, in this process, over loopback sockets: a PBX, a phone and a stand-in for Apple around it.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use aws_lc_rs::digest;
use reveille::app::{self, Running};
use reveille::clock;
use reveille::config;
use reveille::engine::ids::Capability;
use reveille::sandbox::apns::{ApnsOptions, ApnsStandIn};
use reveille::sip::{Message, Method, Transport};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;

use crate::Samples;
use crate::link::{Link, secure};
use crate::texts::{self, Phone};

const APP_KEY: &str = "an-app-key-that-sits-in-every-shipped-app";
const PATIENCE: Duration = Duration::from_secs(10);

/// The daemon and what surrounds it.
pub(crate) struct Daemon {
    running: Running,
    apple: ApnsStandIn,
    /// Names things that must differ from call to call.
    count: usize,
    /// Its files; gone with it.
    _directory: TempDir,
    capability: Capability,
    push_token: String,
    instance: String,
    token: String,
    realm: String,
}

impl Daemon {
    /// Starts everything and hands one account over.
    pub(crate) async fn start() -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let apple = ApnsStandIn::start(ApnsOptions::default()).await.expect("a free port");
        let pbx = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let pbx_at = pbx.local_addr().expect("it is bound");
        let file = directory.path().join("reveille.toml");
        fs::write(directory.path().join("key.p8"), &*apple.credentials().key_pem).expect("writable");
        fs::write(directory.path().join("apple.pem"), apple.ca_pem()).expect("writable");
        fs::write(&file, configuration(&directory, &apple, pbx_at)).expect("writable");
        let settings = config::load(&file).unwrap_or_else(|mistakes| unreachable!("{mistakes}"));
        let running = app::start(settings).unwrap_or_else(|error| unreachable!("{error}"));

        let push_token = "0123456789abcdef".repeat(4);
        let account = account(pbx_at, &push_token);
        let (answer, capability) = tokio::join!(hand_over(running.api[0], &account), register(&pbx));
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let (instance, token) = (text(&answer["instance"]), text(&answer["token"]));
        let realm = text(&answer["attach"]["realm"]);
        Self { running, apple, count: 0, _directory: directory, capability, push_token, instance, token, realm }
    }

    /// Calls one after the other, each held, forwarded, rung and declined.
    pub(crate) async fn run(&mut self, transport: Transport, calls: usize) -> Samples {
        let listener = self.running.sip.iter().find(|listener| listener.transport == transport);
        let at = listener.expect("it listens there").local;
        let (mut pbx, mut phone) = (Link::open(transport, at).await, Link::open(transport, at).await);
        let who = Phone {
            instance: self.instance.clone(),
            token: self.token.clone(),
            realm: self.realm.clone(),
            transport,
            own: phone.own(),
        };
        let mut samples = Samples::default();
        for _ in 0..calls {
            self.call(&mut pbx, &mut phone, &who, &mut samples).await;
        }
        samples
    }

    /// As SIGTERM would.
    pub(crate) async fn stop(self) {
        self.running.shutdown().await;
    }

    async fn call(&mut self, pbx: &mut Link, phone: &mut Link, who: &Phone, samples: &mut Samples) {
        self.count += 3;
        let cseq = self.count;
        let invite = texts::invite(&self.capability.to_string(), who.transport, pbx.own(), self.count);
        let began = pbx.say(&invite).await;
        self.apple.next_push_to(&self.push_token, PATIENCE).await.expect("the phone sleeps");
        samples.invite_to_push.push(clock::now().boot.saturating_since(began));
        let invite = Message::parse_datagram(invite.into_bytes()).expect("well-formed");

        phone.say(&texts::register(who, None, cseq, 600)).await;
        let mut session = texts::session(&phone.response(401, Method::Register).await.0);
        let began = phone.say(&texts::register(who, Some(&mut session), cseq + 1, 600)).await;
        let (forwarded, at) = phone.request(Method::Invite).await;
        samples.attach_to_invite.push(at.saturating_since(began));

        let began = phone.say(&texts::response(&forwarded, "180 Ringing", who.own)).await;
        samples.response.push(pbx.response(180, Method::Invite).await.1.saturating_since(began));

        phone.say(&texts::response(&forwarded, "486 Busy Here", who.own)).await;
        let (last, _) = pbx.response(486, Method::Invite).await;
        pbx.say(&texts::ack(&invite, &last)).await;
        phone.say(&texts::register(who, Some(&mut session), cseq + 2, 0)).await;
        phone.response(200, Method::Register).await;
    }
}

/// One datagram from one socket to another, so often: what a daemon's figures have in them besides the daemon.
pub(crate) async fn loopback(rounds: usize) -> Vec<Duration> {
    let here = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let there = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let at = there.local_addr().expect("it is bound");
    let (mut spans, mut bytes) = (Vec::with_capacity(rounds), [0; 2048]);
    for _ in 0..rounds {
        let began = clock::now().boot;
        here.send_to(&[b'x'; 1200], at).await.expect("loopback");
        there.recv(&mut bytes).await.expect("loopback");
        spans.push(clock::now().boot.saturating_since(began));
    }
    spans
}

fn configuration(directory: &TempDir, apple: &ApnsStandIn, pbx: SocketAddr) -> String {
    let credentials = apple.credentials();
    let hash = digest::digest(&digest::SHA256, APP_KEY.as_bytes());
    let hash: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let file = |name: &str| directory.path().join(name).display().to_string();
    format!(
        "[api]\nlisten = \"127.0.0.1:0\"\n\
         [sip]\ndomain = \"edge.example.net\"\n\
         [[sip.listen]]\ntransport = \"udp\"\naddress = \"127.0.0.1:0\"\n\
         [[sip.listen]]\ntransport = \"tls\"\naddress = \"127.0.0.1:0\"\n\
         [registrars]\nallow_special_ranges = [\"127.0.0.0/8\"]\nports = [{}]\n\
         [calls]\nearly_response = 0\n\
         [audit]\npath = \"{}\"\n\
         [drain]\ncalls = \"0s\"\ndeadline = \"5s\"\n\
         [ops]\nlisten = \"127.0.0.1:0\"\n\
         [limits]\nwakes_per_minute = 1000000\nwake_burst = 1000000\n\
         [[tenant]]\nid = \"acme\"\napp_key_sha256 = [\"{hash}\"]\n\
         [[tenant.app]]\nid = \"com.example.phone\"\nprovider = \"apns\"\nteam_id = \"{}\"\nkey_id = \"{}\"\n\
         key_file = \"{}\"\nenvironment = \"production\"\nendpoint = \"{}\"\nca_file = \"{}\"\n",
        pbx.port(),
        file("audit.log"),
        credentials.team_id,
        credentials.key_id,
        file("key.p8"),
        apple.endpoint(),
        file("apple.pem"),
    )
}

fn account(pbx: SocketAddr, push_token: &str) -> Value {
    json!({
        "account": {"aor": format!("sip:alice@{pbx}"), "registrar": format!("sip:{pbx}"), "auth_username": "alice",
                    "password": "a password"},
        "device": {"id": "urn:uuid:00000000-0000-4000-8000-000000000001", "platform": "ios",
                   "push": [{"for": "call", "provider": "apns", "app": "com.example.phone", "token": push_token}]},
    })
}

async fn hand_over(api: SocketAddr, account: &Value) -> Value {
    let body = account.to_string();
    let request = format!(
        "POST /v1/instances HTTP/1.1\r\nHost: {api}\r\nAuthorization: Bearer {APP_KEY}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = secure(api).await;
    stream.write_all(request.as_bytes()).await.expect("the API reads");
    stream.flush().await.expect("the API reads");
    let mut answer = Vec::new();
    // A connection that carried a secret may end without a farewell.
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).expect("the API writes UTF-8");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
    assert!(head.starts_with("HTTP/1.1 201"), "{answer}");
    serde_json::from_str(body).expect("the API writes JSON")
}

/// Takes the account's registration; where its calls go to.
async fn register(pbx: &UdpSocket) -> Capability {
    let mut bytes = vec![0; 4096];
    let (length, from) = pbx.recv_from(&mut bytes).await.expect("loopback");
    let request = Message::parse_datagram(bytes[..length].to_vec()).expect("the daemon writes SIP");
    pbx.send_to(texts::registered(&request).as_bytes(), from).await.expect("loopback");
    let contact = request.contacts().find_map(Result::ok).expect("a REGISTER has a Contact");
    Capability::parse(contact.uri().user().expect("a Contact has a user")).expect("the daemon's own")
}
