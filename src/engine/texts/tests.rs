//! Several devices behind one capability: what one sender hears of all of them.

use super::*;
use crate::engine::ids::ListenerId;
use crate::engine::policy::Listener;
use crate::sip::Transport;

#[test]
fn one_device_that_takes_it_answers_for_all_and_the_sleeping_one_gets_it_later() {
    let mut shard = Shard::new();
    shard.send("hello", &[(ALICE, true), (BOB, false)]);
    assert_eq!(shard.sent(), ["MESSAGE"]);
    assert_eq!(shard.wakes, [BOB]);
    shard.answer(200);
    assert_eq!(shard.sent(), ["200"]);
    assert_eq!(shard.texts.len(), 1);

    shard.attach(BOB);
    assert_eq!(shard.sent(), ["MESSAGE"]);
    shard.answer(200);
    assert_eq!((shard.texts.len(), shard.vault.sealed()), (0, 0));
}

#[test]
fn devices_that_all_sleep_each_get_a_wake_and_a_copy() {
    let mut shard = Shard::new();
    shard.send("hello", &[(ALICE, false), (BOB, false)]);
    assert_eq!(shard.sent(), ["202"]);
    assert_eq!(shard.wakes, [ALICE, BOB]);
    assert_eq!((shard.texts.len(), shard.vault.sealed()), (2, 2));
    for device in [ALICE, BOB] {
        shard.attach(device);
        assert_eq!(shard.sent(), ["MESSAGE"]);
        shard.answer(200);
    }
    assert_eq!(shard.vault.sealed(), 0);
}

#[test]
fn a_refusal_of_one_device_counts_only_if_no_other_has_it() {
    let mut shard = Shard::new();
    shard.send("hello", &[(ALICE, true), (BOB, false)]);
    let _ = shard.sent();
    shard.answer(415);
    assert_eq!(shard.sent(), ["202"], "it is kept for the other one");

    let mut shard = Shard::new();
    shard.send("hello", &[(ALICE, true), (BOB, true)]);
    assert_eq!(shard.sent(), ["MESSAGE", "MESSAGE"]);
    shard.answer(415);
    assert!(shard.sent().is_empty(), "the other one may still take it");
    shard.answer(200);
    assert_eq!(shard.sent(), ["200"]);
}

#[test]
fn one_device_erased_leaves_the_other_its_copy() {
    let mut shard = Shard::new();
    shard.send("hello", &[(ALICE, false), (BOB, false)]);
    let now = shard.now;
    let (texts, mut desk) = shard.desk();
    texts.forget(id(ALICE), &mut desk, now.boot);
    assert_eq!(shard.vault.sealed(), 1);
    let _ = shard.sent();
    shard.attach(BOB);
    assert_eq!(shard.sent(), ["MESSAGE"]);
}

#[test]
fn a_lingering_message_is_forgotten_with_time_and_leaves_nothing() {
    let mut shard = Shard::new();
    shard.send("hello", &[(ALICE, true), (BOB, true)]);
    shard.answer(200);
    shard.answer(200);
    while let Some(due) = shard.texts.poll_timeout() {
        shard.now.boot = due;
        let (texts, mut desk) = shard.desk();
        texts.handle_timeout(&mut desk, due);
    }
    let mut tables = Vec::new();
    shard.texts.tables(&mut tables);
    assert!(tables.iter().all(|(_, size)| *size == 0), "{tables:?}");
}

const ALICE: u8 = 1;
const BOB: u8 = 2;

fn id(device: u8) -> InstanceId {
    InstanceId::mint(ShardId(0), [device; 16])
}

/// The room and what it borrows.
struct Shard {
    texts: Texts,
    policy: Policy,
    random: Random,
    vault: Vault,
    tally: Tally,
    tags: Tags,
    now: Now,
    /// Requests to devices that are unanswered, the oldest first.
    open: VecDeque<Message>,
    wakes: Vec<u8>,
    sent: Vec<String>,
}

impl Shard {
    fn new() -> Self {
        let policy = policy();
        Self {
            texts: Texts::new([0; 32], &policy.limits, 1),
            policy,
            random: Random::new([7; 32]),
            vault: Vault::plain(),
            tally: Tally::default(),
            tags: Tags::new([1; 32]),
            now: Now::default(),
            open: VecDeque::new(),
            wakes: Vec::new(),
            sent: Vec::new(),
        }
    }

    fn desk(&mut self) -> (&mut Texts, Desk<'_>) {
        let Self { texts, policy, random, vault, tally, tags, .. } = self;
        (texts, Desk { shard: ShardId(0), policy, random, vault, tally, tags })
    }

    fn send(&mut self, body: &str, recipients: &[(u8, bool)]) {
        let text = format!(
            "MESSAGE sip:cap@192.0.2.5 SIP/2.0\r\nVia: SIP/2.0/TCP pbx;branch=z9hG4bK1\r\nMax-Forwards: 70\r\n\
             From: <sip:c@d>;tag=1\r\nTo: <sip:a@b>\r\nCall-ID: x\r\nCSeq: 1 MESSAGE\r\nContent-Type: text/plain\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let arrival = Arrival {
            listener: ListenerId(0),
            transport: Transport::Tcp,
            peer: "198.51.100.10:5060".parse().expect("an address"),
            flow: None,
            trunk: None,
            registrar: true,
            device: false,
        };
        let recipients = recipients
            .iter()
            .map(|&(device, attached)| Recipient { instance: id(device), device: attached.then(|| reached(device)) });
        let incoming = Incoming {
            request: Message::parse_datagram(text.into_bytes()).expect("a MESSAGE"),
            arrival: &arrival,
            back: Hop::Flow(crate::engine::ids::FlowId(9)),
            recipients: recipients.collect(),
            draining: false,
        };
        let now = self.now;
        let (texts, mut desk) = self.desk();
        texts.handle_message(incoming, &mut desk, now);
        self.drain();
    }

    fn attach(&mut self, device: u8) {
        let now = self.now.boot;
        let (texts, mut desk) = self.desk();
        texts.handle_attached(id(device), &reached(device), &mut desk, now);
    }

    /// The device that was asked first answers.
    fn answer(&mut self, code: u16) {
        self.drain();
        let request = self.open.pop_front().expect("an unanswered request");
        let mut out = Vec::new();
        let reply = crate::sip::proxy::Reply {
            code: StatusCode::new(code).expect("a code"),
            to_tag: Some("device"),
            source: None,
            record_route: false,
            extra: &[],
        };
        crate::sip::proxy::write_reply(&request, &reply, &mut out).expect("an answer");
        let response = Message::parse_datagram(out).expect("a response");
        let via = response.top_via().expect("a Via");
        let branch = BranchId::from_branch(via.branch().expect("a branch").as_bytes()).expect("ours");
        let now = self.now.boot;
        let (texts, mut desk) = self.desk();
        assert!(texts.handle_response(branch, &response, &mut desk, now));
    }

    /// Methods and codes that went out since.
    fn sent(&mut self) -> Vec<String> {
        self.drain();
        std::mem::take(&mut self.sent)
    }

    fn drain(&mut self) {
        while let Some(event) = self.texts.poll_event() {
            match event {
                Event::Send(_, bytes) => {
                    let message = Message::parse_datagram(bytes.to_vec()).expect("SIP");
                    self.sent.push(match message.status() {
                        Some(code) => code.code().to_string(),
                        None => message.method().expect("a request").as_str().to_owned(),
                    });
                    if message.status().is_none() {
                        self.open.push_back(message);
                    }
                }
                Event::Wake(instance) => {
                    self.wakes.push([ALICE, BOB].into_iter().find(|device| id(*device) == instance).expect("known"));
                }
                Event::Silent(..) => {}
            }
        }
    }
}

fn reached(device: u8) -> Device {
    Device {
        hop: Hop::Flow(crate::engine::ids::FlowId(u64::from(device))),
        listener: ListenerId(0),
        transport: Transport::Tcp,
        peer: "203.0.113.9:40000".parse().expect("an address"),
        contact: b"sip:phone@192.168.1.5".to_vec(),
    }
}

fn policy() -> Policy {
    Policy {
        domain: "edge.example.net".to_owned(),
        listeners: vec![Listener {
            transport: Transport::Tcp,
            local: "0.0.0.0:5060".parse().expect("an address"),
            advertise: "192.0.2.5:5060".to_owned(),
        }],
        register_wait: Duration::ZERO,
        registrars: Policy::bare(Limits::default()).registrars,
        lease_default: Duration::ZERO,
        lease_maximum: Duration::ZERO,
        hold: Duration::ZERO,
        silence: Duration::ZERO,
        early_response: None,
        erasure_grace: Duration::ZERO,
        drain_calls: Duration::ZERO,
        messages_keep: Duration::from_secs(3600),
        tenants: Vec::new(),
        limits: Limits::default(),
    }
}
