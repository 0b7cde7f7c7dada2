//! Building a world before it runs, and handing accounts over.

use super::*;
use reveille::engine::account::{Account, ContactStyle, TrunkSources, TrunkUri};
use reveille::engine::input::{HandOver, Preferences, PushPurpose, PushTarget};
use reveille::engine::limits::Limits;
use reveille::engine::policy::{AppPolicy, Listener, Provider, RegistrarPolicy, TenantPolicy};
use reveille::sip::{StatusCode, Transport};
use reveille::vault::{Material, Password};
use zeroize::Zeroizing;

pub const EDGE: &str = "192.0.2.5:5060";
pub const PBX: &str = "198.51.100.10:5060";
pub const DOMAIN: &str = "pbx.example.com";
pub const TENANT: &str = "acme";

impl World {
    pub fn new(seed: u64) -> Self {
        let edge = address(EDGE);
        let pbx = Pbx::new(address(PBX), DOMAIN, edge);
        let located = vec![Located { transport: Transport::Udp, address: address(PBX) }];
        Self {
            now: Now { boot: Instant::from_nanos(0), wall: WALL_START },
            wall_shift: 0,
            wire: Wire::default(),
            dice: Dice::new(seed),
            seed,
            shards: 2,
            policy: Arc::new(policy()),
            placement: Placement::new(1, [0, 0]),
            engines: Vec::new(),
            events: BTreeMap::new(),
            sequence: 0,
            pbxs: vec![pbx],
            phones: BTreeMap::new(),
            connections: BTreeMap::new(),
            connections_made: 0,
            registrars: BTreeMap::new(),
            devices: BTreeMap::new(),
            names: BTreeMap::from([(DOMAIN.to_owned(), Ok(located))]),
            resolver_delay: millis(20),
            push_modes: BTreeMap::new(),
            push_mode: PushMode::Accept(millis(50)),
            push_script: VecDeque::new(),
            pushes: Vec::new(),
            pushes_outstanding: BTreeSet::new(),
            audit_delay: millis(5),
            audit_logged: true,
            records: Vec::new(),
            answers: BTreeMap::new(),
            asked: 0,
            foreground: false,
            bringing: BTreeSet::new(),
            waiting: BTreeMap::new(),
            notes: Vec::new(),
            drained: 0,
            mailbox: Vec::new(),
            room: usize::MAX,
            meter: BTreeMap::new(),
            closed: Vec::new(),
            sent: Vec::new(),
            peer_messages: 0,
            bad_luck: BTreeSet::new(),
            critic: Critic::default(),
            ringing: Ringing::default(),
            story: Story::default(),
            queries: 0,
            records_waiting: 0,
            texts: [0; 9],
        }
    }

    /// Changes the operator's decisions; first of all builders.
    pub fn with_policy(mut self, change: impl FnOnce(&mut Policy)) -> Self {
        assert!(self.engines.is_empty(), "the engines run already");
        change(Arc::make_mut(&mut self.policy));
        self
    }

    pub fn with_shards(mut self, shards: u16) -> Self {
        assert!(self.engines.is_empty(), "the engines run already");
        self.shards = shards;
        self
    }

    pub fn with_wire(mut self, wire: Wire) -> Self {
        self.wire = wire;
        self
    }

    pub fn with_push_delay(mut self, delay: Duration) -> Self {
        self.push_mode = PushMode::Accept(delay);
        self
    }

    pub fn with_push(mut self, mode: PushMode) -> Self {
        self.push_mode = mode;
        self
    }

    /// The call pushes to come get these outcomes, one after the other.
    pub fn with_push_outcomes(mut self, outcomes: &[PushOutcome]) -> Self {
        self.push_script = outcomes.iter().cloned().map(PushMode::Answer).collect();
        self
    }

    pub fn with_pbx(mut self, change: impl FnOnce(&mut Pbx)) -> Self {
        change(self.pbx());
        self
    }

    /// A phone that owns an account at the PBX, not yet handed over.
    pub fn with_phone(mut self, name: &str) -> Self {
        self.add_phone(name);
        self
    }

    /// A phone with its account handed over and registered, asleep.
    pub fn with_sleeping_phone(mut self, name: &str) -> Self {
        self.add_phone(name);
        self.hand_over_now(name);
        self
    }

    /// A phone that is attached.
    pub fn with_attached_phone(self, name: &str) -> Self {
        let mut world = self.with_sleeping_phone(name);
        world.phone(name).attach();
        world.run_until_quiet();
        assert!(world.phone(name).is_attached());
        world
    }

    /// A phone of another platform than iOS, with its account handed over and registered, asleep.
    pub fn with_sleeping_android(mut self, name: &str) -> Self {
        self.add_phone(name);
        self.phone(name).platform = "android";
        self.hand_over_now(name);
        self
    }

    /// Changes a phone.
    pub fn with(mut self, name: &str, change: impl FnOnce(&mut Phone)) -> Self {
        change(self.phone(name));
        self
    }

    pub fn add_phone(&mut self, name: &str) {
        let number = self.phones.len() as u64;
        self.phones.insert(name.to_owned(), Phone::new(name, number, address(EDGE)));
        self.pbx().set_password(name, &password_of(name));
    }

    /// Hands over and waits until it is registered.
    pub fn hand_over_now(&mut self, name: &str) {
        let asked = self.hand_over(name);
        self.run_until_quiet();
        let state = self.handed_over(asked).registration.state;
        assert_eq!(state, reveille::engine::output::RegistrationState::Registered);
    }

    pub fn hand_over(&mut self, name: &str) -> u64 {
        let offer = self.offer(name);
        self.hand_over_this(name, offer)
    }

    /// Hands over what `offer` made, for the phone called `name`.
    pub fn hand_over_this(&mut self, name: &str, offer: HandOver) -> u64 {
        // The answer may come at once, so the asker is known before.
        self.waiting.insert(self.asked + 1, name.to_owned());
        self.command(Command::HandOver(Box::new(offer)))
    }

    /// What the app of `name` would hand over.
    pub fn offer(&self, name: &str) -> HandOver {
        HandOver {
            tenant: TENANT.into(),
            device: format!("urn:uuid:device-of-{name}"),
            platform: self.phones[name].platform.to_owned(),
            account: account(name),
            material: password(&password_of(name)),
            push: targets(&self.phones[name].token),
            lease: hours(72),
            caller_key: None,
            preferences: Preferences::default(),
        }
    }

    /// Another PBX at another address, reachable by `domain`.
    pub fn add_pbx(&mut self, domain: &str, at: &str) -> usize {
        let mut pbx = Pbx::new(address(at), domain, address(EDGE));
        for name in self.phones.keys() {
            pbx.set_password(name, &password_of(name));
        }
        self.pbxs.push(pbx);
        let located = vec![Located { transport: Transport::Udp, address: address(at) }];
        self.names.insert(domain.to_owned(), Ok(located));
        self.pbxs.len() - 1
    }
}

pub fn account(name: &str) -> Account {
    Account {
        aor: format!("sip:{name}@{DOMAIN}"),
        registrar: TrunkUri::parse("registrar", &format!("sip:{DOMAIN}")).expect("a registrar"),
        outbound_proxy: None,
        auth_username: name.to_owned(),
        register_expires: secs(600),
        trunk_sources: TrunkSources::Any,
        early_response: None,
        contact_style: ContactStyle::default(),
        tls_spki_sha256: None,
    }
}

pub fn registrar(text: &str) -> TrunkUri {
    TrunkUri::parse("registrar", text).expect("a registrar")
}

pub fn password(text: &str) -> Material {
    Material::Password(Password::new(Zeroizing::new(text.as_bytes().to_vec())).expect("it fits"))
}

pub fn password_of(name: &str) -> String {
    format!("secret of {name}")
}

pub fn targets(token: &str) -> Vec<PushTarget> {
    let target = |purpose, suffix: &str| PushTarget {
        purpose,
        provider: Provider::Apns,
        app: "com.example.phone".to_owned(),
        token: format!("{token}{suffix}").into(),
    };
    vec![target(PushPurpose::Call, ""), target(PushPurpose::Other, "/other")]
}

pub fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

pub fn policy() -> Policy {
    let listener = |transport, port: u16| Listener {
        transport,
        local: SocketAddr::from(([0, 0, 0, 0], port)),
        advertise: format!("192.0.2.5:{port}"),
    };
    Policy {
        domain: "edge.example.net".to_owned(),
        listeners: vec![listener(Transport::Udp, 5060), listener(Transport::Tcp, 5060), listener(Transport::Tls, 5061)],
        register_wait: secs(3),
        registrars: RegistrarPolicy {
            allow: vec!["*".to_owned()],
            allow_special_ranges: vec!["198.51.100.0/24".parse().expect("a range")],
            ports: vec![5060, 5061],
            rate: 50,
            rate_max: 1_000,
            drain_rate: 100,
        },
        lease_default: hours(72),
        lease_maximum: hours(144),
        hold: secs(45),
        silence: millis(500),
        early_response: Some(StatusCode::RINGING),
        erasure_grace: secs(2),
        drain_calls: secs(10),
        messages_keep: hours(24),
        tenants: vec![TenantPolicy {
            id: TENANT.into(),
            apps: vec![AppPolicy { id: "com.example.phone".to_owned(), provider: Provider::Apns, owner: None }],
            ..TenantPolicy::default()
        }],
        limits: Limits::default(),
    }
}
