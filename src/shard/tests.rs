//! Shards with real engines, a real network side on loopback, and a registrar of a few lines.

mod websocket;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Mutex;

use tokio::net::UdpSocket;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::*;
use crate::clock::PATIENCE;
use crate::effects::RecordDone;
use crate::engine::Start;
use crate::engine::account::{Account, ContactStyle, TrunkSources, TrunkUri};
use crate::engine::audit::{AuditEvent, Receipt};
use crate::engine::input::{Command, HandOver, Preferences, PushPurpose, PushTarget, Recorded};
use crate::engine::limits::Limits;
use crate::engine::output::{Answer, HandedOver, Refusal, RegistrationState};
use crate::engine::placement::Placement;
use crate::engine::policy::{AppPolicy, Listener, Policy, Provider, RegistrarPolicy, TenantPolicy};
use crate::net::{ClientTls, ListenEntry, Net, Plan, Settings, Timings, plan_listeners};
use crate::sip::proxy::{Reply, write_reply};
use crate::sip::{HeaderName, Message, Method, StatusCode, Transport};
use crate::vault::{Material, Password, Vault};

const SHARDS: u16 = 3;

#[tokio::test]
async fn an_account_goes_through_its_shard_to_the_registrar_and_a_drain_takes_it_back() {
    let world = World::start(PATIENCE, Arc::new(|_| {}));
    let registrar = Registrar::bind().await;

    let (answer, register) = tokio::join!(world.hand_over(registrar.address), registrar.grant());
    let handed = handed_over(answer);
    assert_eq!(handed.registration.state, RegistrationState::Registered);
    assert_eq!(register.expires(), Ok(Some(600)));

    let drained = world.shards.drained();
    world.router.drain().await;
    let ((), unregister) = tokio::join!(within(drained), registrar.grant());
    assert_eq!(unregister.expires(), Ok(Some(0)));
    assert_eq!(unregister.call_id(), register.call_id());
    let erased = |event: &AuditEvent| matches!(event, AuditEvent::Erased { .. });
    assert_eq!(world.records.lock().expect("no panic").iter().filter(|event| erased(event)).count(), 1);

    assert!(matches!(world.hand_over(registrar.address).await, Answer::Refused(Refusal::Busy { .. })));
    within(world.shards.stop()).await.expect("no shard panicked");
    within(world.net.stop()).await;
}

#[tokio::test]
async fn a_silent_registrar_is_given_up_by_the_engines_timer() {
    let world = World::start(Duration::from_millis(50), Arc::new(|_| {}));
    let registrar = Registrar::bind().await;
    let handed = handed_over(within(world.hand_over(registrar.address)).await);
    assert_eq!(handed.registration.state, RegistrationState::Registering);
}

#[tokio::test]
async fn what_was_counted_is_observed_by_its_shard() {
    let seen: Arc<Mutex<Vec<Observation>>> = Arc::default();
    let observations = Arc::clone(&seen);
    let observer = move |observation| observations.lock().expect("no panic").push(observation);
    let world = World::start(PATIENCE, Arc::new(observer));
    let registrar = Registrar::bind().await;
    let (answer, _) = tokio::join!(world.hand_over(registrar.address), registrar.grant());
    let owner = handed_over(answer).instance.shard();
    within(world.shards.stop()).await.expect("no shard panicked");

    let seen = seen.lock().expect("no panic");
    let registers = |shard: ShardId| -> u64 {
        let of_shard = seen.iter().filter(|observation| observation.shard == shard);
        of_shard.flat_map(|observation| observation.tally.registers).sum()
    };
    for shard in (0..SHARDS).map(ShardId) {
        assert_eq!(registers(shard), u64::from(shard == owner), "{shard:?}");
    }
    assert!(seen.iter().any(|observation| observation.shard == owner && observation.census.is_some()));
}

#[tokio::test]
async fn a_panic_in_a_shard_is_reported() {
    let mut world = World::start(PATIENCE, Arc::new(|_| std::panic::resume_unwind(Box::new("test"))));
    world.router.audit_writable(false).await;
    assert!(within(world.shards.failed()).await.is_some_and(|error| error.is_panic()));
}

struct World {
    shards: Shards,
    net: Net,
    router: Router,
    records: Arc<Mutex<Vec<AuditEvent>>>,
}

impl World {
    fn start(register_wait: Duration, observer: Observer) -> Self {
        let entries = [Transport::Udp, Transport::Ws].map(|transport| ListenEntry {
            transport,
            address: literal("127.0.0.1:0"),
            advertise: None,
        });
        let plan = plan_listeners(&entries).expect("free ports");
        let policy = Arc::new(policy(plan.listeners(), register_wait));
        let placement = Placement::new(SHARDS, [1, 2]);
        let (router, inboxes) = Router::new(placement.clone(), &policy.limits);
        let net = start_net(plan, &policy.limits, &router);
        let engines = (0..SHARDS)
            .map(|shard| {
                let (policy, placement) = (Arc::clone(&policy), placement.clone());
                let seed = [u8::try_from(shard).expect("few shards"); 32];
                Engine::new(Start { shard: ShardId(shard), policy, placement, seed, vault: Vault::plain() })
            })
            .collect();
        let records = Arc::<Mutex<Vec<AuditEvent>>>::default();
        let written = Arc::clone(&records);
        let sinks = Sinks {
            push: Box::new(|_, _| {}),
            record: Box::new(move |job, done: Option<RecordDone>| {
                written.lock().expect("no panic").push(job.record.event);
                done.into_iter().for_each(|done| done(receipt()));
            }),
            note: Box::new(|_, _| {}),
        };
        let wiring = Wiring { router: router.clone(), net: net.handle(), sinks: Arc::new(sinks), observer };
        Self { shards: Shards::start(engines, inboxes, &wiring), net, router, records }
    }

    async fn hand_over(&self, registrar: SocketAddr) -> Answer {
        let registrar = format!("sip:{registrar};transport=udp");
        let aor = "sip:alice@pbx.test";
        let account = Account {
            aor: aor.to_owned(),
            registrar: TrunkUri::parse("registrar", &registrar).expect("a trunk URI"),
            outbound_proxy: None,
            auth_username: "alice".to_owned(),
            register_expires: Duration::from_secs(600),
            trunk_sources: TrunkSources::Any,
            early_response: None,
            contact_style: ContactStyle::default(),
            tls_spki_sha256: None,
        };
        let target = PushTarget {
            purpose: PushPurpose::Call,
            provider: Provider::Sandbox,
            app: "com.example.phone".to_owned(),
            token: "token".into(),
        };
        let hand_over = HandOver {
            tenant: "acme".into(),
            device: "urn:uuid:8f6f1d4e-8a9b-4c57-9d0e-6d2f1a3b5c7d".to_owned(),
            platform: "ios".to_owned(),
            account,
            material: Material::Password(Password::new(Zeroizing::new(b"secret".to_vec())).expect("it fits")),
            push: vec![target],
            lease: Duration::from_secs(3600),
            caller_key: None,
            preferences: Preferences::default(),
        };
        let shard = self.router.placement().account("acme", aor, &registrar);
        within(self.router.ask(shard, Command::HandOver(Box::new(hand_over)))).await
    }
}

/// Grants what it is asked for.
struct Registrar {
    socket: UdpSocket,
    address: SocketAddr,
}

impl Registrar {
    async fn bind() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
        let address = socket.local_addr().expect("bound");
        Self { socket, address }
    }

    /// Answers one REGISTER, whatever is sent again meanwhile.
    async fn grant(&self) -> Message {
        let mut buffer = [0; 2048];
        let (length, peer) = within(self.socket.recv_from(&mut buffer)).await.expect("a datagram");
        let register = Message::parse_datagram(buffer[..length].to_vec()).expect("well-formed");
        assert_eq!(register.method(), Some(Method::Register));
        let contact = register.header(HeaderName::Contact).map(|value| String::from_utf8_lossy(value).into_owned());
        let expires = register.expires().expect("well-formed").unwrap_or_default();
        let extra = match contact {
            Some(contact) if expires > 0 => vec![("Contact", format!("{contact};expires={expires}"))],
            _ => Vec::new(),
        };
        let reply =
            Reply { code: StatusCode::OK, to_tag: Some("r"), source: Some(peer), record_route: false, extra: &extra };
        let mut bytes = Vec::new();
        write_reply(&register, &reply, &mut bytes).expect("its fields are there");
        self.socket.send_to(&bytes, peer).await.expect("sent");
        register
    }
}

fn policy(listeners: Vec<Listener>, register_wait: Duration) -> Policy {
    let app = AppPolicy { id: "com.example.phone".to_owned(), provider: Provider::Sandbox, owner: None };
    Policy {
        domain: "edge.test".to_owned(),
        listeners,
        register_wait,
        registrars: RegistrarPolicy {
            allow: vec!["*".to_owned()],
            allow_special_ranges: vec!["127.0.0.0/8".parse().expect("a range")],
            ports: (1..=u16::MAX).collect(),
            rate: 50,
            rate_max: 1_000,
            drain_rate: 100,
        },
        lease_default: Duration::from_secs(3600),
        lease_maximum: Duration::from_secs(3600),
        hold: Duration::from_secs(45),
        silence: Duration::from_millis(500),
        early_response: None,
        erasure_grace: Duration::from_secs(5),
        drain_calls: Duration::ZERO,
        messages_keep: Duration::from_secs(24 * 3600),
        tenants: vec![TenantPolicy { id: "acme".into(), apps: vec![app], ..TenantPolicy::default() }],
        limits: Limits::default(),
    }
}

fn start_net(plan: Plan, limits: &Limits, router: &Router) -> Net {
    let settings = Settings {
        server_tls: None,
        client_tls: ClientTls::new(None).expect("the public roots"),
        flows_max: limits.flows,
        flows_per_source_max: limits.flows_per_source,
        timings: Timings::default(),
        names: Arc::default(),
    };
    Net::start(plan, settings, router.clone()).expect("a runtime")
}

fn handed_over(answer: Answer) -> Box<HandedOver> {
    match answer {
        Answer::HandedOver(handed) => Some(handed),
        _ => None,
    }
    .expect("handed over")
}

fn receipt() -> Recorded {
    let receipt = Receipt {
        v: 1,
        instance: String::new(),
        salt: String::new(),
        record: String::new(),
        inclusion: None,
        key: String::new(),
        signature: String::new(),
    };
    Recorded { receipt: Box::new(receipt), logged: true }
}

fn literal(text: &str) -> SocketAddr {
    text.parse().expect("a literal")
}

async fn within<F: Future>(what: F) -> F::Output {
    timeout(PATIENCE, what).await.expect("it happens in time")
}
