//! One served API, a scripted engine behind it and clients in front of it: every test of the API needs all three together.
#![expect(clippy::disallowed_methods, reason = "tasks of a test end with its runtime")]

mod answers;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::super::server::Deadlines;
use super::super::tenants::sha256;
use super::super::{ApiConfig, Ask, JwtKey, Tenant, Tenants, Tls, bind, serve_within};
use crate::audit_log::Notary;
use crate::clock::{PATIENCE, now};
use crate::engine::ids::{CallUuid, InstanceId, ShardId};
use crate::engine::input::Command;
use crate::engine::limits::Limits;
use crate::engine::output::{Answer, Refusal};
use crate::engine::placement::Placement;
use crate::engine::policy::{AppPolicy, Policy, Provider, RegistrarPolicy, TenantPolicy};

pub(super) use answers::{account, handed_over, moving, order_view, receipt, test_view, usual_answer};

pub(super) const APP_KEY: &str = "acme-app-key-of-many-characters";
pub(super) const SECOND_APP_KEY: &str = "acme-app-key-that-comes-next";
pub(super) const DOMAIN: &str = "edge.example.net";
pub(super) const DEVICE: &str = "urn:uuid:4b1682a8-f968-4701-83fc-7c6741dc6697";
pub(super) const TOKEN: &str = "the-instance-token-of-alice";
pub(super) const PUSH_TOKEN: &str = "f00dfeed";
pub(super) const CALL: &str = "7b1f6a54-6b0a-5d0e-9c3c-1f0a6b6f3a11";

type Answering = Box<dyn Fn(&Command) -> Answer + Send + Sync>;

/// Plays the engines.
pub(super) struct Script {
    answer: Mutex<Answering>,
    asked: Mutex<Vec<(ShardId, Command)>>,
    /// Answers wait until it is true.
    open: watch::Sender<bool>,
}

impl Ask for Arc<Script> {
    async fn ask(&self, shard: ShardId, command: Command) -> Answer {
        let answer = (self.answer.lock().expect("no panic"))(&command);
        self.asked.lock().expect("no panic").push((shard, command));
        let mut open = self.open.subscribe();
        open.wait_for(|open| *open).await.expect("the script outlives the server");
        answer
    }
}

impl Script {
    pub(super) fn answers(&self, answer: impl Fn(&Command) -> Answer + Send + Sync + 'static) {
        *self.answer.lock().expect("no panic") = Box::new(answer);
    }

    pub(super) fn refuses(&self, refusal: Refusal) {
        self.answers(move |_| Answer::Refused(refusal.clone()));
    }

    pub(super) fn asked(&self) -> Vec<(ShardId, Command)> {
        std::mem::take(&mut self.asked.lock().expect("no panic"))
    }

    pub(super) fn hold(&self) {
        self.open.send_replace(false);
    }

    pub(super) fn release(&self) {
        self.open.send_replace(true);
    }
}

/// How a world differs from the usual one.
pub(super) struct Settings {
    pub(super) limits: Limits,
    pub(super) deadlines: Deadlines,
    pub(super) change: fn(&mut Policy),
    /// Of the first tenant.
    pub(super) jwt_required: bool,
    pub(super) debug_faults: bool,
}

impl Default for Settings {
    fn default() -> Self {
        // Bounds that no test meets by chance.
        let limits = Limits { posts_per_source: 10_000, flows_per_source: 10_000, ..Limits::default() };
        Self { limits, deadlines: Deadlines::default(), change: |_| {}, jwt_required: false, debug_faults: false }
    }
}

pub(super) struct World {
    pub(super) address: SocketAddr,
    pub(super) tls: Tls,
    pub(super) engine: Arc<Script>,
    pub(super) stop: watch::Sender<bool>,
    pub(super) served: JoinHandle<()>,
    pub(super) audit_key: String,
    pub(super) es256: Signer,
    pub(super) eddsa: Signer,
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(Settings::default())
    }

    pub(super) fn with(settings: Settings) -> Self {
        let Settings { limits, deadlines, change, jwt_required, debug_faults } = settings;
        let (es256, eddsa) = (Signer::es256(), Signer::eddsa());
        let tenants = Tenants::new(
            vec![
                Tenant { jwt_required, ..tenant("acme", &[APP_KEY, SECOND_APP_KEY], Some(&es256)) },
                tenant("beta", &["beta-app-key"], Some(&eddsa)),
                tenant("keyless", &["keyless-app-key"], None),
            ],
            DOMAIN.to_owned(),
        );
        let listeners = bind(&["127.0.0.1:0".parse().expect("an address")]).expect("a port");
        let address = listeners[0].local_addr().expect("bound");
        let listeners =
            listeners.into_iter().map(|listener| TcpListener::from_std(listener).expect("a runtime")).collect();
        let tls = Tls::self_signed(&Tls::self_signed_names(DOMAIN)).expect("a certificate");
        let engine = Arc::new(Script {
            answer: Mutex::new(Box::new(usual_answer)),
            asked: Mutex::new(Vec::new()),
            open: watch::Sender::new(true),
        });
        let stop = watch::Sender::new(false);
        let placement = Placement::new(4, [1, 2]);
        let notary = Notary::of_nobody();
        let audit_key = notary.public_key_pem();
        let mut policy = policy(limits);
        change(&mut policy);
        let config = ApiConfig {
            policy: Arc::new(policy),
            placement,
            tenants,
            notary,
            key: crate::vault::ProcessKey::plain(),
            debug_faults,
        };
        let served = serve_within(deadlines, config, listeners, Arc::clone(&engine), &tls, &stop.subscribe());
        Self { address, tls, engine, stop, served, audit_key, es256, eddsa }
    }

    /// A TLS connection that offered `alpn`.
    pub(super) async fn connect(&self, alpn: &[&[u8]]) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.tls.end_entity().expect("a certificate")).expect("a root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from("localhost").expect("a name");
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// Waits until the server has noticed that clients left. It counts a connection out when its task ends, which no
    /// client can see, so this asks until there is room for one more.
    pub(super) async fn wait_for_room(&self) {
        let again = async {
            while self.connect(&[b"http/1.1"]).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, again).await.expect("room again");
    }

    pub(super) async fn http1(&self) -> hyper::client::conn::http1::SendRequest<Full<Bytes>> {
        let io = TokioIo::new(self.connect(&[b"http/1.1"]).await.expect("connected"));
        let (sender, connection) = hyper::client::conn::http1::handshake(io).await.expect("HTTP/1.1");
        tokio::spawn(connection);
        sender
    }

    pub(super) async fn http2(&self) -> (hyper::client::conn::http2::SendRequest<Full<Bytes>>, JoinHandle<()>) {
        let io = TokioIo::new(self.connect(&[b"h2"]).await.expect("connected"));
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.expect("HTTP/2");
        (sender, tokio::spawn(async { drop(connection.await) }))
    }

    /// One request on a connection of its own.
    pub(super) async fn send(&self, request: Request<Full<Bytes>>) -> Reply {
        let mut sender = self.http1().await;
        Reply::read(sender.send_request(request).await.expect("a response")).await
    }

    pub(super) async fn hand_over(&self, body: &Value) -> Reply {
        self.send(post("/v1/instances", APP_KEY, body.to_string())).await
    }

    /// One request without a body, authenticated by `bearer`.
    pub(super) async fn ask(&self, method: Method, path: &str, bearer: &str) -> Reply {
        self.send(request(method, path).header("authorization", format!("Bearer {bearer}")).body(empty()).expect("ok"))
            .await
    }
}

/// A whole response.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

impl Reply {
    pub(super) async fn read(response: hyper::Response<hyper::body::Incoming>) -> Self {
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.expect("a body").to_bytes();
        Self { status: head.status, headers: head.headers, text: String::from_utf8(bytes.to_vec()).expect("UTF-8") }
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| unreachable!("not JSON: {}", self.text))
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("text"))
    }

    /// The problem's type without what all share, after checking everything a problem must have.
    #[track_caller]
    pub(super) fn problem(&self) -> String {
        let json = self.json();
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{}", self.text);
        assert_eq!(self.header("cache-control"), Some("no-store"));
        assert_eq!(json["status"], self.status.as_u16());
        assert!(json["title"].as_str().is_some_and(|title| !title.is_empty()));
        assert!(json["detail"].as_str().is_some_and(|detail| detail.len() > 10), "{}", self.text);
        assert_eq!(self.header("www-authenticate").is_some(), self.status == 401);
        let kind = json["type"].as_str().and_then(|kind| kind.strip_prefix("urn:reveille:problem:"));
        kind.expect("one of our types").to_owned()
    }

    #[track_caller]
    pub(super) fn detail(&self) -> String {
        self.json()["detail"].as_str().expect("a detail").to_owned()
    }
}

pub(super) fn request(method: Method, path: &str) -> http::request::Builder {
    Request::builder().method(method).uri(path).header("host", "localhost")
}

pub(super) fn post(path: &str, bearer: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    with_body(Method::POST, path, bearer, body)
}

pub(super) fn with_body(method: Method, path: &str, bearer: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    request(method, path)
        .header("authorization", format!("Bearer {bearer}"))
        .header("content-type", "application/json")
        .body(Full::new(body.into()))
        .expect("a request")
}

pub(super) fn empty() -> Full<Bytes> {
    Full::default()
}

type Signing = Box<dyn Fn(&[u8]) -> Vec<u8> + Send + Sync>;

/// Signs tokens of a tenant's backend.
pub(super) struct Signer {
    pub(super) algorithm: &'static str,
    pub(super) public_pem: String,
    sign: Signing,
}

impl Signer {
    pub(super) fn es256() -> Self {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pair.serialize_der()).expect("a key");
        let sign = move |text: &[u8]| key.sign(&SystemRandom::new(), text).expect("signed").as_ref().to_vec();
        Self { algorithm: "ES256", public_pem: pair.public_key_pem(), sign: Box::new(sign) }
    }

    pub(super) fn eddsa() -> Self {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
        let key = Ed25519KeyPair::from_pkcs8(&pair.serialize_der()).expect("a key");
        let sign = move |text: &[u8]| key.sign(text).as_ref().to_vec();
        Self { algorithm: "EdDSA", public_pem: pair.public_key_pem(), sign: Box::new(sign) }
    }

    pub(super) fn token(&self, claims: &Value) -> String {
        self.token_with(&json!({"alg": self.algorithm, "typ": "JWT"}), claims)
    }

    pub(super) fn token_with(&self, header: &Value, claims: &Value) -> String {
        self.token_of(&header.to_string(), &claims.to_string())
    }

    /// A token of any two texts.
    pub(super) fn token_of(&self, header: &str, claims: &str) -> String {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = URL_SAFE_NO_PAD.encode((self.sign)(signed.as_bytes()));
        format!("{signed}.{signature}")
    }
}

pub(super) fn unsigned(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(header), part(claims))
}

/// Claims that are right for `acme`, with a new `jti`.
pub(super) fn claims() -> Value {
    let seconds = now().wall.unix_seconds();
    json!({"iss": "acme", "aud": DOMAIN, "sub": DEVICE, "iat": seconds, "exp": seconds + 300,
           "jti": uuid::Uuid::new_v4().to_string()})
}

/// `base` with the member at `pointer` set, or removed where `value` is `None`.
pub(super) fn changed(base: &Value, pointer: &str, value: Option<Value>) -> Value {
    let mut changed = base.clone();
    let (parent, member) = pointer.rsplit_once('/').expect("a pointer");
    let parent = changed.pointer_mut(parent).and_then(Value::as_object_mut).expect("an object");
    match value {
        Some(value) => parent.insert(member.to_owned(), value),
        None => parent.remove(member),
    };
    changed
}

/// A hand-over with every member.
pub(super) fn hand_over_body() -> Value {
    json!({
        "account": {
            "aor": "sip:alice@example.com", "registrar": "sip:example.com;transport=tls", "outbound_proxy": null,
            "auth_username": "alice", "password": "pass\u{e9}\"word", "register_expires": 600,
            "trunk_sources": "any", "contact_style": "capability", "early_response": null, "tls_spki_sha256": null
        },
        "device": {
            "id": DEVICE, "platform": "ios",
            "push": [
                {"for": "call", "provider": "apns", "app": "com.example.phone", "token": PUSH_TOKEN},
                {"for": "other", "provider": "apns", "app": "com.example.phone", "token": PUSH_TOKEN}
            ]
        },
        "lease_seconds": 259_200, "mode": "always", "hand_over": "relay"
    })
}

pub(super) fn instance() -> InstanceId {
    InstanceId::mint(ShardId(2), *b"0123456789abcdef")
}

pub(super) fn path(rest: &str) -> String {
    format!("/v1/instances/{}{rest}", instance())
}

pub(super) fn call_id() -> CallUuid {
    CallUuid(CALL.parse().expect("a UUID"))
}

pub(super) fn tenant(id: &str, app_keys: &[&str], signer: Option<&Signer>) -> Tenant {
    Tenant {
        id: id.into(),
        app_key_sha256: app_keys.iter().map(|key| sha256(key.as_bytes())).collect(),
        jwt_key: signer.map(|signer| JwtKey::from_pem(signer.public_pem.as_bytes()).expect("a key")),
        jwt_required: false,
    }
}

fn policy(limits: Limits) -> Policy {
    let app = |id: &str, provider| AppPolicy { id: id.to_owned(), provider, owner: None };
    let tenant = |id: &str, apps| TenantPolicy { id: id.into(), apps, ..TenantPolicy::default() };
    Policy {
        domain: DOMAIN.to_owned(),
        listeners: Vec::new(),
        register_wait: Duration::from_secs(3),
        registrars: RegistrarPolicy {
            allow: vec!["*".to_owned()],
            allow_special_ranges: Vec::new(),
            ports: vec![5060],
            rate: 50,
            rate_max: 1_000,
            drain_rate: 100,
        },
        lease_default: Duration::from_secs(3 * 24 * 3600),
        lease_maximum: Duration::from_secs(6 * 24 * 3600),
        hold: Duration::from_secs(45),
        silence: Duration::from_millis(500),
        early_response: None,
        erasure_grace: Duration::from_secs(2),
        drain_calls: Duration::from_secs(10),
        messages_keep: Duration::from_secs(24 * 3600),
        tenants: vec![
            tenant("acme", vec![app("com.example.phone", Provider::Apns), app("com.example.droid", Provider::Fcm)]),
            TenantPolicy { prove_push_token: true, ..tenant("beta", vec![app("com.beta.phone", Provider::Apns)]) },
        ],
        limits,
    }
}
