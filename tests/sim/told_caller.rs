//! Who calls, as pushes tell it: not at all, in clear, or sealed to a key of the device.

use reveille::engine::caller_key::{CallerKey, CallerSuite};
use reveille::engine::input::{Command, Rectification};
use reveille::engine::output::{ToldCaller, WakeKind};
use reveille::engine::policy::{CallerInPush, Policy};

use crate::world::build::TENANT;
use crate::world::{PushMode, World, millis, minutes, secs, seed};

#[test]
fn the_caller_is_in_the_push_only_where_the_tenant_wants_it() {
    let mut silent = World::new(seed(9)).with_sleeping_phone("alice");
    silent.pbx().invite("alice");
    silent.run_for(secs(1));
    assert!(silent.pushes[0].caller.is_none());

    let mut clear = World::new(seed(9))
        .with_policy(|policy| {
            let tenant = policy.tenants.iter_mut().find(|it| &*it.id == TENANT).expect("the tenant");
            tenant.caller_in_push = CallerInPush::Clear;
        })
        .with_sleeping_phone("alice");
    clear.pbx().invite("alice");
    clear.run_for(secs(1));
    let Some(ToldCaller::Clear(caller)) = clear.pushes[0].caller.clone() else { panic!("the caller in clear") };
    assert_eq!((caller.name.as_deref(), caller.number.as_str()), (Some("Carol"), "carol"));
}

#[test]
fn a_number_is_told_as_an_address_book_has_it_and_none_where_none_is_told() {
    for (from, name, number) in [
        (&b"<tel:+4930123456;phone-context=example.com>"[..], None, "+4930123456"),
        (b"<sip:%2B4930%23@x.example>", None, "+4930#"),
        (b"<sip:+1555;phone-context=y@x.example>", None, "+1555"),
        (b"\"Anonymous\" <sip:anonymous@anonymous.invalid>", Some("Anonymous"), ""),
        (b"\"J\xfcrgen\" <sip:+1-555-0100@x.example>", Some("J\u{fc}rgen"), "+15550100"),
    ] {
        let mut world = World::new(seed(110))
            .with_policy(|policy| policy.tenants[0].caller_in_push = CallerInPush::Clear)
            .with_push(PushMode::Swallow(millis(50)))
            .with_sleeping_phone("alice");
        let capability = world.pbx().capability("alice").expect("registered");
        let head =
            "Via: SIP/2.0/UDP 203.0.113.77:5060;branch=z9hG4bK1\r\nMax-Forwards: 70\r\nCall-ID: 1\r\nCSeq: 1 INVITE";
        let mut invite =
            format!("INVITE sip:{capability}@192.0.2.5 SIP/2.0\r\n{head}\r\nTo: <sip:alice@x>\r\nFrom: ").into_bytes();
        invite.extend_from_slice(from);
        invite.extend_from_slice(b";tag=1\r\nContact: <sip:203.0.113.77:5060>\r\nContent-Length: 0\r\n\r\n");
        world.stranger_sends("203.0.113.77:5060", &invite);
        world.run_for(secs(1));
        let Some(ToldCaller::Clear(caller)) = world.pushes[0].caller.clone() else { panic!("the caller in clear") };
        assert_eq!((caller.name.as_deref(), caller.number.as_str()), (name, number));
    }
}

#[test]
fn a_sealed_caller_goes_to_devices_with_a_key_and_to_no_others() {
    let sealed = |policy: &mut Policy| {
        policy.tenants[0].caller_in_push = CallerInPush::Sealed;
    };
    let key = |byte| CallerKey::new(CallerSuite::Aes128Gcm, [byte; 32]).expect("a key");
    let mut world = World::new(seed(109))
        .with_policy(sealed)
        .with_push(PushMode::Swallow(millis(50)))
        .with_phone("alice")
        .with_sleeping_phone("bob");
    let mut offer = world.offer("alice");
    offer.caller_key = Some(key(9));
    let asked = world.hand_over_this("alice", offer);
    world.run_until_quiet();
    assert_eq!(world.handed_over(asked).caller_in_push, CallerInPush::Sealed);
    let told = |world: &mut World, name: &str| {
        let before = world.pushes.len();
        let call = world.pbx().invite(name);
        world.run_for(secs(1));
        world.pbx().cancel(call);
        world.run_for(secs(10));
        let pushes: Vec<_> = world.pushes[before..].iter().map(|push| (push.kind, push.caller.clone())).collect();
        assert!(pushes.iter().any(|(kind, _)| *kind == WakeKind::CallEnded));
        let (with, without): (Vec<_>, Vec<_>) = pushes.into_iter().partition(|(_, caller)| caller.is_some());
        assert!(without.iter().all(|(kind, _)| *kind == WakeKind::CallEnded) || with.is_empty());
        with.into_iter().filter_map(|(_, caller)| caller).collect::<Vec<_>>()
    };
    for now in [key(9), key(10)] {
        let sealed = told(&mut world, "alice");
        assert_eq!(sealed.len(), 2, "the call and the missed call");
        for caller in sealed {
            let ToldCaller::Sealed(to, caller) = caller else { panic!("in clear") };
            assert!(to == now && caller.number == "carol");
        }
        let (id, token) = world.key_of("alice");
        let change = Rectification { caller_key: Some(Some(key(10))), ..Rectification::default() };
        world.command(Command::Rectify(id, token, Box::new(change)));
        world.run_for(minutes(1));
    }
    assert!(told(&mut world, "bob").is_empty(), "no key, no caller");
    let (id, token) = world.key_of("alice");
    let change = Rectification { caller_key: Some(None), ..Rectification::default() };
    world.command(Command::Rectify(id, token, Box::new(change)));
    assert!(told(&mut world, "alice").is_empty(), "taken back");
}
