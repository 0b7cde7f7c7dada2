//! Effects of one shard, with a network side that nobody calls.

use std::future::Future;
use std::sync::Mutex;

use tokio::sync::mpsc;
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

use super::*;
use crate::clock::{PATIENCE, WallTime};
use crate::engine::audit::{AuditRecord, LifeEvent, Receipt};
use crate::engine::ids::{FlowId, InstanceId, ListenerId, RecordId, ReplyTo, WakeId};
use crate::engine::input::{Arrival, Malformed, PushPurpose, TrunkFault};
use crate::engine::output::{Answer, DestinationKey, Hop, ReceiptJob, Refusal, TrunkKey, WakeDetail, WakeKind};
use crate::engine::permits::{Class, PermitMessage, Want};
use crate::engine::policy::Provider;
use crate::net::{ClientTls, ListenEntry, Net, Settings, Timings, Upward, plan_listeners};
use crate::sip::{Message, Transport};

const OWN: ShardId = ShardId(0);
const OTHER: ShardId = ShardId(1);

#[tokio::test]
async fn bytes_leave_by_their_range_and_a_dead_flow_is_reported_at_once() {
    let mut world = World::start(4);
    let phone = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
    phone.set_read_timeout(Some(PATIENCE)).expect("a span");
    let hop = Hop::Datagram { listener: ListenerId(0), peer: phone.local_addr().expect("bound") };
    assert!(world.effects.run(Output::Send(hop, 2..5), b"..one..").is_none());
    let mut buffer = [0; 16];
    assert_eq!(phone.recv(&mut buffer).expect("a datagram"), 3);
    assert_eq!(&buffer[..3], b"one");

    let dead = FlowId(77);
    let refusal = world.effects.run(Output::Send(Hop::Flow(dead), 0..1), b"x");
    assert!(matches!(refusal, Some(Input::FlowClosed(flow)) if flow == dead));
}

#[tokio::test]
async fn a_push_is_answered_once_whether_it_is_called_back_or_forgotten() {
    let mut world = World::start(2);
    assert!(world.effects.run(Output::Push(push(1)), b"").is_none());
    assert!(world.effects.run(Output::Push(push(2)), b"").is_none());
    let refusal = world.effects.run(Output::Push(push(3)), b"");
    assert!(matches!(refusal, Some(Input::Pushed(WakeId(3), PushOutcome::NotSent))), "no place is left");

    let mut pushed = world.pushed();
    drop(pushed.pop());
    pushed.pop().expect("the first")(PushOutcome::Accepted);
    assert!(matches!(world.own.try_recv(), Ok(Input::Pushed(WakeId(2), PushOutcome::NotSent))));
    assert!(matches!(world.own.try_recv(), Ok(Input::Pushed(WakeId(1), PushOutcome::Accepted))));
    assert!(world.own.try_recv().is_err());
}

#[tokio::test]
async fn an_erasures_record_waits_for_its_place_and_others_need_none() {
    let mut world = World::start(1);
    world.effects.run(Output::Record(record(None)), b"");
    world.effects.run(Output::Record(record(Some(1))), b"");
    world.effects.run(Output::Record(record(Some(2))), b"");
    assert_eq!(world.recorded().len(), 2, "the second erasure has no place for its receipt yet");
    assert!(world.effects.holds_back());

    let done = world.recorded().pop().flatten().expect("the first erasure wants its receipt");
    done(receipt());
    assert!(matches!(world.own.recv().await, Some(Input::Recorded(RecordId(1), _))));
    world.effects.retry();
    assert!(!world.effects.holds_back());
    assert_eq!(world.recorded().len(), 2);
}

#[tokio::test]
async fn words_to_a_full_shard_are_kept_in_order() {
    let mut world = World::start(1);
    for count in 1..=3 {
        assert!(world.effects.run(Output::Peer(OTHER, wanted(count)), b"").is_none());
    }
    for count in 1..=3 {
        let heard = world.other.try_recv();
        assert!(matches!(heard, Ok(Input::Peer(OWN, message)) if message == wanted(count)), "{count}");
        world.effects.retry();
    }
    assert!(!world.effects.holds_back());

    let to_itself = world.effects.run(Output::Peer(OWN, wanted(4)), b"");
    assert!(matches!(to_itself, Some(Input::Peer(OWN, message)) if message == wanted(4)));
}

#[tokio::test]
async fn everything_else_goes_where_it_belongs() {
    let mut world = World::start(4);
    let mut place = world.replies.place().expect("a place");
    world.effects.run(Output::Reply(place.id(), Box::new(Answer::Stories(Vec::new()))), b"");
    assert!(matches!(place.answer().await, Some(Answer::Stories(_))));
    world.effects.run(Output::Reply(ReplyTo(999), Box::new(Answer::Refused(Refusal::NotFound))), b"");

    let registrar = TrunkUri::parse("registrar", "sip:192.0.2.1:5061;transport=tcp").expect("a trunk URI");
    assert!(world.effects.run(Output::Locate(QueryId(5), registrar), b"").is_none());
    let located = timeout(PATIENCE, world.own.recv()).await.expect("a literal needs no server");
    assert!(matches!(located, Some(Input::Located(QueryId(5), Ok(found))) if found.len() == 1));

    assert!(!world.effects.take_drained());
    world.effects.run(Output::Drained, b"");
    assert!(world.effects.take_drained());
    assert!(!world.effects.take_drained(), "said once");
}

type Pushed = Arc<Mutex<Vec<PushDone>>>;
type Recordings = Arc<Mutex<Vec<Option<RecordDone>>>>;

struct World {
    effects: Effects,
    replies: Arc<Replies>,
    own: Receiver<Input>,
    other: Receiver<Input>,
    pushed: Pushed,
    recorded: Recordings,
    _net: Net,
}

impl World {
    /// Two shards with `places` for answers each.
    fn start(places: usize) -> Self {
        let entry = ListenEntry {
            transport: Transport::Udp,
            address: "127.0.0.1:0".parse().expect("a literal"),
            advertise: None,
        };
        let settings = Settings {
            server_tls: None,
            client_tls: ClientTls::new(None).expect("the public roots"),
            flows_max: 10,
            flows_per_source_max: 10,
            timings: Timings::default(),
            names: Arc::default(),
        };
        let net = Net::start(plan_listeners(&[entry]).expect("a free port"), settings, Nobody).expect("a runtime");
        let (own_sender, own) = mpsc::channel(places);
        let (other_sender, other) = mpsc::channel(places);
        let (pushed, recorded, replies) = (Pushed::default(), Recordings::default(), Arc::<Replies>::default());
        let (pushes, records) = (Arc::clone(&pushed), Arc::clone(&recorded));
        let sinks = Sinks {
            push: Box::new(move |_, done| pushes.lock().expect("no panic").push(done)),
            record: Box::new(move |_, done| records.lock().expect("no panic").push(done)),
            note: Box::new(|_, _| {}),
        };
        let answers = Answers::new(vec![own_sender, other_sender]);
        let effects = Effects::new(OWN, net.handle(), answers, Arc::clone(&replies), Arc::new(sinks));
        Self { effects, replies, own, other, pushed, recorded, _net: net }
    }

    fn pushed(&self) -> Vec<PushDone> {
        std::mem::take(&mut *self.pushed.lock().expect("no panic"))
    }

    fn recorded(&self) -> std::sync::MutexGuard<'_, Vec<Option<RecordDone>>> {
        self.recorded.lock().expect("no panic")
    }
}

#[derive(Clone)]
struct Nobody;

impl Upward for Nobody {
    async fn deliver(&self, _message: Message, _arrival: Arrival) -> Option<ShardId> {
        None
    }

    fn deliver_malformed(&self, _malformed: Malformed, _arrival: Arrival) {}

    async fn flow_closed(&self, _flow: FlowId, _shard: ShardId) {}

    fn trunk_down(&self, _shard: ShardId, _key: Arc<TrunkKey>, _fault: TrunkFault) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
}

fn instance() -> InstanceId {
    InstanceId::mint(OWN, [7; 16])
}

fn push(wake: u64) -> Box<PushJob> {
    Box::new(PushJob {
        wake: WakeId(wake),
        tenant: "acme".into(),
        provider: Provider::Sandbox,
        app: "com.example.phone".to_owned(),
        token: "token".into(),
        purpose: PushPurpose::Call,
        kind: WakeKind::Call,
        call: None,
        instance: instance(),
        expires_at: WallTime::default(),
        deadline: crate::clock::Instant::default(),
        attach: "sip:edge.test".to_owned(),
        caller: None,
        detail: WakeDetail::None,
    })
}

fn record(id: Option<u64>) -> Box<RecordJob> {
    let subject = "00".to_owned();
    let record = AuditRecord::life(LifeEvent::LeasedOn, subject, &"acme".into(), WallTime::default());
    let receipt = id.map(|id| ReceiptJob { id: RecordId(id), instance: instance(), salt: [0; 32] });
    Box::new(RecordJob { record, receipt })
}

fn receipt() -> Recorded {
    let receipt = Receipt {
        v: 1,
        instance: instance().to_string(),
        salt: String::new(),
        record: String::new(),
        inclusion: None,
        key: String::new(),
        signature: String::new(),
    };
    Recorded { receipt: Box::new(receipt), logged: true }
}

fn wanted(count: u32) -> PeerMessage {
    let address = "192.0.2.1:5060".parse().expect("a literal");
    let want = Want { class: Class::Refresh, tenant: 0, due: count };
    PeerMessage::Permit(DestinationKey { transport: Transport::Udp, address }, PermitMessage::Wanted(want))
}
