//! The steps of a call's story, and what this room refuses by itself; the whole of it is tried in `tests/sim`.

use super::*;
use crate::engine::ids::{FlowId, ListenerId};
use crate::engine::input::CallHandOver;
use crate::engine::limits::Limits;
use crate::engine::output::PushOutcome;
use crate::engine::policy::{Listener, RegistrarPolicy};
use crate::sip::Transport;

#[test]
fn a_story_has_a_step_for_each_milestone_of_each_device() {
    let mut room = Room::new();
    room.invite("v=0\r\nc=IN IP4 10.0.0.9\r\n", 2);
    let offered = [Step::Invited, Step::PrivateMediaAddress, Step::WakeSent];
    assert_eq!(room.steps(0), offered);
    assert_eq!(room.steps(1), offered);

    room.taken(0, &PushOutcome::Accepted);
    room.taken(1, &PushOutcome::Theirs("503".to_owned()));
    assert_eq!(room.steps(1), [Step::WakeFailed("provider-failed")]);
    room.attach(0, 7);
    room.answer(0, 180);
    assert_eq!(room.steps(0), [Step::WakeAccepted, Step::Attached, Step::Forwarded, Step::Ringing]);
    room.with(|calls, desk, now| calls.handle_detached(instance(0), desk, now));
    room.attach(0, 8);
    assert_eq!(room.steps(0), [Step::FlowLost, Step::WakeSent, Step::Forwarded]);
    room.with(|calls, _, _| calls.handle_attach_refused(instance(1), "wrong-token"));
    room.answer(0, 200);
    assert_eq!(room.steps(0), [Step::Answered]);
    assert_eq!(room.steps(1), [Step::AttachRefused("wrong-token"), Step::Ended("answered-elsewhere")]);
    room.with(|calls, _, _| calls.handle_attach_refused(instance(1), "wrong-token"));
    assert_eq!(room.steps(1), [], "only while a call waits");
}

#[test]
fn nothing_is_said_of_media_where_its_address_is_public() {
    let mut room = Room::new();
    room.invite("v=0\r\nc=IN IP4 198.51.100.10\r\n", 1);
    assert_eq!(room.steps(0), [Step::Invited, Step::WakeSent]);
}

#[test]
fn a_call_rings_at_as_many_devices_as_an_account_may_have() {
    let mut room = Room::new();
    room.invite("", 7);
    assert_eq!((room.steps(4).len(), room.steps(5).len()), (2, 0));
}

#[test]
fn a_wake_whose_call_ended_before_its_turn_is_not_wanted_any_more() {
    let mut room = Room::new();
    room.slow = true;
    room.invite("", 1);
    let wanted = room.wanted.pop().expect("a wake");
    assert!(room.calls.is_wanted(&wanted));
    room.with(|calls, desk, now| calls.end_instance(instance(0), desk, now));
    assert!(!room.calls.is_wanted(&wanted), "never a call wake without an INVITE that waits");
    assert!(room.wanted.is_empty());
}

#[test]
fn a_held_call_is_small() {
    let own = size_of::<Relay>() + size_of::<Held>() + size_of::<callee::Called>();
    assert!(own < 2048, "{own} bytes beside its INVITE");
    assert!(size_of::<leg::Leg>() < 1024);
}

/// The room alone, with hands to reach into it.
struct Room {
    calls: Calls,
    policy: Policy,
    random: Random,
    tally: Tally,
    tags: Tags,
    now: Instant,
    steps: Vec<(InstanceId, Step)>,
    wanted: Vec<WakeWanted>,
    /// Wakes are not sent by themselves.
    slow: bool,
    wakes: HashMap<InstanceId, WakeId>,
    invites: HashMap<FlowId, Message>,
    names: HashMap<InstanceId, CallUuid>,
    sent: u64,
    flow: FlowId,
}

impl Room {
    fn new() -> Self {
        let limits = Limits::default();
        Self {
            calls: Calls::new(Mint::new(ShardId(0), [1; 32]), &limits, 1),
            policy: policy(limits),
            random: Random::new([2; 32]),
            tally: Tally::default(),
            tags: Tags::new([3; 32]),
            now: Instant::from_nanos(1_000_000_000),
            steps: Vec::new(),
            wanted: Vec::new(),
            slow: false,
            wakes: HashMap::default(),
            invites: HashMap::default(),
            names: HashMap::default(),
            sent: 0,
            flow: FlowId(0),
        }
    }

    fn with<T>(&mut self, act: impl FnOnce(&mut Calls, &mut Desk<'_>, Instant) -> T) -> T {
        let Self { calls, policy, random, tally, tags, now, .. } = self;
        let mut desk = Desk { shard: ShardId(0), policy, random, tally, tags };
        let result = act(calls, &mut desk, *now);
        self.drain();
        result
    }

    fn drain(&mut self) {
        while let Some(event) = self.calls.poll_event() {
            match event {
                Event::Step(instance, uuid, step) => {
                    assert_eq!(uuid, *self.names.entry(instance).or_insert(uuid), "one name at a device");
                    self.steps.push((instance, step));
                }
                Event::Wake(wanted) if wanted.kind == WakeKind::Call && !self.slow => {
                    self.sent += 1;
                    let wake = WakeId(self.sent);
                    self.wakes.insert(wanted.instance, wake);
                    let instance = wanted.instance;
                    self.with(|calls, desk, now| calls.handle_wake_sent(wanted.call, instance, Ok(wake), desk, now));
                }
                Event::Wake(wanted) => self.wanted.push(wanted),
                Event::Send(Hop::Flow(flow), bytes) => {
                    let message = Message::parse_datagram(bytes.to_vec()).expect("SIP");
                    if message.method() == Some(Method::Invite) {
                        self.flow = flow;
                        self.invites.insert(flow, message);
                    }
                }
                Event::Send(..) | Event::Silent(_) | Event::LastDialog(_) | Event::Note(_) => {}
            }
        }
    }

    fn invite(&mut self, body: &str, devices: u8) {
        let text = format!(
            "INVITE sip:x@192.0.2.5 SIP/2.0\r\nVia: SIP/2.0/UDP 198.51.100.10;rport;branch=z9hG4bK1\r\nFrom: <sip:c@d>;tag=1\r\n\
             To: <sip:a@d>\r\nCall-ID: 1\r\nCSeq: 1 INVITE\r\nContact: <sip:c@198.51.100.10>\r\n\r\n{body}"
        );
        let arrival = Arrival {
            listener: ListenerId(0),
            transport: Transport::Udp,
            peer: "198.51.100.10:5060".parse().expect("an address"),
            flow: None,
            trunk: None,
            registrar: true,
            device: false,
        };
        let callee = |number| Callee {
            instance: instance(number),
            platform_ios: true,
            hand_over: CallHandOver::Relay,
            caller: None,
            device: None,
            returns_until: None,
        };
        let incoming = Incoming {
            request: Message::parse_datagram(text.into_bytes()).expect("SIP"),
            arrival: &arrival,
            back: Hop::Datagram { listener: ListenerId(0), peer: arrival.peer },
            capability: Capability::mint(ShardId(0), [9; 16]),
            early: None,
            callees: (0..devices).map(callee).collect(),
            draining: false,
        };
        self.with(|calls, desk, now| calls.handle_invite(incoming, desk, now));
    }

    fn taken(&mut self, number: u8, outcome: &PushOutcome) {
        let wake = self.wakes[&instance(number)];
        self.with(|calls, desk, now| calls.handle_wake_outcome(wake, outcome, false, desk, now));
    }

    fn attach(&mut self, number: u8, flow: u64) {
        let device = Device {
            hop: Hop::Flow(FlowId(flow)),
            listener: ListenerId(0),
            transport: Transport::Tcp,
            peer: "203.0.113.1:5060".parse().expect("an address"),
            contact: b"sip:phone@192.168.1.5".to_vec(),
        };
        self.with(|calls, desk, now| calls.handle_attached(instance(number), &device, desk, now));
    }

    /// The phone that was sent the last INVITE answers.
    fn answer(&mut self, number: u8, code: u16) {
        let tag = format!("phone{number}");
        let code = StatusCode::new(code).expect("a code");
        let invite = &self.invites[&self.flow];
        let reply = Reply { code, to_tag: Some(&tag), source: None, record_route: true, extra: &[] };
        let mut out = Vec::new();
        proxy::write_reply(invite, &reply, &mut out).expect("an answer");
        let response = Message::parse_datagram(out).expect("SIP");
        let branch = response.top_via().expect("a Via").branch().expect("a branch").to_owned();
        let branch = BranchId::from_branch(branch.as_bytes()).expect("ours");
        assert!(self.with(|calls, desk, now| calls.handle_response(branch, &response, desk, now)));
    }

    /// The steps of a device since the last look.
    fn steps(&mut self, number: u8) -> Vec<Step> {
        let (of, others) = self.steps.iter().partition(|(it, _)| *it == instance(number));
        self.steps = others;
        let of: Vec<(InstanceId, Step)> = of;
        of.into_iter().map(|(_, step)| step).collect()
    }
}

fn instance(number: u8) -> InstanceId {
    InstanceId::mint(ShardId(0), [number; 16])
}

fn policy(limits: Limits) -> Policy {
    Policy {
        domain: "edge.example.net".to_owned(),
        listeners: vec![Listener {
            transport: Transport::Udp,
            local: "0.0.0.0:5060".parse().expect("an address"),
            advertise: "192.0.2.5:5060".to_owned(),
        }],
        register_wait: Duration::from_secs(3),
        registrars: RegistrarPolicy {
            allow: Vec::new(),
            allow_special_ranges: Vec::new(),
            ports: Vec::new(),
            rate: 50,
            rate_max: 1_000,
            drain_rate: 100,
        },
        lease_default: Duration::from_secs(3600),
        lease_maximum: Duration::from_secs(3600),
        hold: Duration::from_secs(45),
        silence: Duration::from_millis(500),
        early_response: None,
        erasure_grace: Duration::from_secs(2),
        drain_calls: Duration::from_secs(10),
        messages_keep: Duration::from_secs(3600),
        tenants: Vec::new(),
        limits,
    }
}

#[test]
fn every_end_of_a_call_is_among_those_that_are_told() {
    use super::super::output::Step;
    use super::callee::Why;
    let ends: BTreeSet<_> = Why::ENDS.map(Why::as_str).into_iter().chain(["hung-up"]).collect();
    assert_eq!(ends, Step::ENDS.into_iter().collect());
    let told: BTreeSet<_> = Why::ENDS.into_iter().filter(|why| why.is_told()).map(Why::as_str).collect();
    assert_eq!(told, Step::TOLD_ENDS.into_iter().collect());
}
