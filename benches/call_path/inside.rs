//! The calls at one shard's engine: from received bytes to bytes to send.

use std::net::SocketAddr;
use std::time::Duration;

use reveille::clock;
use reveille::engine::ids::{Capability, FlowId, ListenerId};
use reveille::engine::input::{Arrival, Input};
use reveille::engine::output::{HandedOver, Output, PushOutcome};
use reveille::sip::{Message, Method, Transport};

use crate::Samples;
use crate::memory;
use crate::texts::{self, Phone};
use crate::world::{LEASE, World};

/// One account of many.
struct Callee {
    handed_over: Box<HandedOver>,
    capability: Capability,
}

/// Times `held` calls, all held at once, and weighs them.
pub(crate) fn run(transport: Transport, held: usize) -> (Samples, usize) {
    let mut samples = Samples::default();
    let mut world = World::new();
    let callees: Vec<Callee> = (0..held).map(|_| hand_over(&mut world)).collect();
    world.bytes.clear();

    let before = memory::live();
    for (number, callee) in callees.iter().enumerate() {
        samples.invite_to_push.push(call(&mut world, callee, transport, number));
    }
    let bytes = usize::try_from(memory::live() - before).expect("a held call weighs something") / held;
    assert_eq!(usize::try_from(world.engine.census().held_calls).expect("64 bits"), held);

    for (number, callee) in callees.iter().enumerate() {
        let phone = phone(callee, transport, number);
        let (took, invite) = attach(&mut world, &phone, number);
        samples.attach_to_invite.push(took);
        let ringing = texts::response(&invite, "180 Ringing", phone.own);
        let (took, sent) = feed(&mut world, ringing, &from_phone(&phone, number));
        assert!(sent.iter().any(|message| message.status().is_some_and(|code| code.code() == 180)));
        samples.response.push(took);
    }
    (samples, bytes)
}

fn hand_over(world: &mut World) -> Callee {
    let handed_over = world.hand_over(LEASE);
    Callee { handed_over, capability: world.registrar.bound.take().expect("it registered") }
}

fn call(world: &mut World, callee: &Callee, transport: Transport, number: usize) -> Duration {
    let own = SocketAddr::from(([198, 51, 100, 7], 5060));
    let text = texts::invite(&callee.capability.to_string(), transport, own, number);
    let began = clock::now().boot;
    receive(world, text, &arrival(own, transport, flow(transport, 2 * number)));
    let push =
        world.outputs.iter().find_map(|output| if let Output::Push(job) = output { Some(job.wake) } else { None });
    let took = clock::now().boot.saturating_since(began);
    world.outputs.clear();
    world.feed(Input::Pushed(push.expect("the phone sleeps"), PushOutcome::Accepted));
    let _ = sent(world);
    took
}

/// Up to the held INVITE, without the exchange that fetches the challenge.
fn attach(world: &mut World, phone: &Phone, number: usize) -> (Duration, Message) {
    let arrival = from_phone(phone, number);
    let (_, challenge) = feed(world, texts::register(phone, None, 1, 600), &arrival);
    let mut session = texts::session(&challenge[0]);
    let text = texts::register(phone, Some(&mut session), 2, 600);
    let (took, sent) = feed(world, text, &arrival);
    let invite = sent.into_iter().find(|message| message.method() == Some(Method::Invite));
    (took, invite.expect("the call is held"))
}

fn feed(world: &mut World, text: String, arrival: &Arrival) -> (Duration, Vec<Message>) {
    let began = clock::now().boot;
    receive(world, text, arrival);
    let took = clock::now().boot.saturating_since(began);
    (took, sent(world))
}

fn receive(world: &mut World, text: String, arrival: &Arrival) {
    let message = Message::parse_datagram(text.into_bytes()).expect("well-formed");
    world.feed(Input::Sip(message, arrival.clone()));
}

/// What the engine sent since it was last looked at.
fn sent(world: &mut World) -> Vec<Message> {
    let ranges: Vec<_> = world
        .outputs
        .drain(..)
        .filter_map(|output| if let Output::Send(_, range) = output { Some(range) } else { None })
        .collect();
    let messages = ranges.into_iter().map(|range| world.bytes[range].to_vec());
    let messages = messages.map(|bytes| Message::parse_datagram(bytes).expect("the engine writes SIP")).collect();
    world.bytes.clear();
    messages
}

fn phone(callee: &Callee, transport: Transport, number: usize) -> Phone {
    let port = 20_000 + u16::try_from(number).expect("few enough");
    Phone {
        instance: callee.handed_over.instance.to_string(),
        token: callee.handed_over.token.to_string(),
        realm: callee.handed_over.attach.realm.clone(),
        transport,
        own: SocketAddr::from(([203, 0, 113, 9], port)),
    }
}

fn from_phone(phone: &Phone, number: usize) -> Arrival {
    arrival(phone.own, phone.transport, flow(phone.transport, 2 * number + 1))
}

fn flow(transport: Transport, number: usize) -> Option<FlowId> {
    (transport != Transport::Udp).then_some(FlowId(number as u64))
}

fn arrival(peer: SocketAddr, transport: Transport, flow: Option<FlowId>) -> Arrival {
    Arrival { listener: ListenerId(0), transport, peer, flow, trunk: None, registrar: false, device: false }
}
