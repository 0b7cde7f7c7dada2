//! Calls whose phones certainly hear nothing: the caller is answered at once, so that a mailbox can take over; and those
//! where a phone may come all the same.

use reveille::engine::output::{CallOutcome, PushOutcome, WakeKind};
use reveille::sip::Transport;

use crate::call_fork::{NAMES, two_devices};
use crate::phone::Manner;
use crate::world::{PushMode, World, millis, secs, seed};

fn later(seconds: u64) -> PushOutcome {
    PushOutcome::Later { after: Some(secs(seconds)) }
}

fn failed() -> PushOutcome {
    PushOutcome::Theirs("503".to_owned())
}

fn misconfigured() -> PushOutcome {
    PushOutcome::OurFault("403 InvalidProviderToken".to_owned())
}

fn refused() -> [PushOutcome; 5] {
    [
        misconfigured(),
        PushOutcome::TokenRejected("400 BadDeviceToken".to_owned()),
        PushOutcome::NotSent,
        later(45),
        later(3600),
    ]
}

#[test]
fn a_caller_is_answered_at_once_where_the_provider_certainly_delivers_nothing() {
    for outcome in refused() {
        let mut world =
            World::new(seed(601)).with_push_outcomes(std::slice::from_ref(&outcome)).with_sleeping_phone("alice");
        let call = world.pbx().invite("alice");
        world.run_for(secs(1));
        assert_eq!(world.pbx().heard(call), [100, 480], "{outcome:?}");
        assert_eq!(world.outcomes(), [CallOutcome::NoPush]);
        assert_eq!(world.pushed(WakeKind::MissedCall), 1, "the other token may still be good");
        assert!(world.stories()[0].why().starts_with("no wake: "), "{}", world.stories()[0].why());
        world.assert_nothing_left();
    }
}

#[test]
fn a_provider_that_refuses_thrice_has_delivered_nothing() {
    let outcomes = [later(1), later(2), later(1)];
    let mut world = World::new(seed(602)).with_push_outcomes(&outcomes).with_sleeping_phone("alice");
    let call = world.pbx().invite("alice");
    world.run_for(secs(2));
    assert_eq!(world.pbx().heard(call), [100]);
    world.run_for(secs(3));
    assert_eq!(world.pbx().heard(call), [100, 480]);
    assert_eq!(world.pushed(WakeKind::Call), 3);
}

#[test]
fn what_may_have_been_delivered_is_waited_for() {
    for second in [misconfigured(), later(3600), PushOutcome::NotSent] {
        let mut world = World::new(seed(603)).with_push_outcomes(&[failed(), second]).with_sleeping_phone("alice");
        let call = world.pbx().invite("alice");
        world.run_for(secs(40));
        assert_eq!(world.pbx().heard(call), [100]);
        world.phone("alice").attach();
        world.run_until_quiet();
        assert_eq!(world.pbx().final_response(call), Some(200));
    }
}

#[test]
fn one_device_that_cannot_be_woken_leaves_the_call_to_the_others() {
    let mut world = two_devices(604).with("tablet", |phone| phone.manner = Manner::Ring);
    world.push_modes.insert("alice".to_owned(), PushMode::Answer(misconfigured()));
    let call = world.pbx().invite("alice");
    world.run_for(secs(40));
    assert_eq!(world.pbx().final_response(call), None, "the tablet rings");
    assert!(world.pbx().heard(call).contains(&180));
    // It may come by itself, as long as somebody else is waited for.
    world.phone("alice").attach();
    world.run_until_quiet();
    assert_eq!(world.pbx().final_response(call), Some(200));
}

#[test]
fn the_last_device_that_could_come_decides_what_the_caller_hears() {
    let mut world = two_devices(605).with("tablet", |phone| phone.manner = Manner::Refuse(486, secs(1)));
    world.push_modes.insert("alice".to_owned(), PushMode::Answer(misconfigured()));
    let call = world.pbx().invite("alice");
    world.run_for(secs(10));
    assert_eq!(world.pbx().final_response(call), Some(486));

    let mut world = two_devices(606);
    for name in NAMES {
        world.push_modes.insert(name.to_owned(), PushMode::Answer(misconfigured()));
    }
    let call = world.pbx().invite("alice");
    world.run_for(secs(1));
    assert_eq!(world.pbx().heard(call), [100, 480]);
    assert_eq!(world.outcomes(), [CallOutcome::NoPush]);
}

#[test]
fn a_device_whose_flow_died_just_now_may_still_come_back() {
    let world = |number| {
        let mut world =
            World::new(seed(number)).with_phone("alice").with("alice", |phone| phone.transport = Transport::Tcp);
        world.hand_over_now("alice");
        world.phone("alice").attach();
        world.run_until_quiet();
        world.push_mode = PushMode::Answer(misconfigured());
        world.phone("alice").lose_flow();
        world.run_for(secs(5));
        assert_eq!(world.table("edge"), 0);
        world
    };
    let mut back = world(607);
    let call = back.pbx().invite("alice");
    back.run_for(secs(20));
    assert_eq!(back.pbx().heard(call), [100]);
    back.phone("alice").reattach();
    back.run_until_quiet();
    assert_eq!(back.pbx().final_response(call), Some(200));

    let mut gone = world(608);
    let call = gone.pbx().invite("alice");
    gone.run_for(secs(26));
    assert_eq!(gone.pbx().heard(call), [100]);
    gone.run_for(secs(2));
    assert_eq!(gone.pbx().heard(call), [100, 480], "and then it is certain");
    gone.assert_nothing_left();

    let mut late = world(609);
    late.run_for(secs(30));
    let call = late.pbx().invite("alice");
    late.run_for(secs(1));
    assert_eq!(late.pbx().heard(call), [100, 480], "it is away for longer");
}

#[test]
fn a_device_that_signed_off_is_not_expected_back() {
    let mut world = World::new(seed(610)).with_attached_phone("alice").with_push(PushMode::Answer(misconfigured()));
    world.phone("alice").detach();
    world.run_until_quiet();
    let call = world.pbx().invite("alice");
    world.run_for(secs(1));
    assert_eq!(world.pbx().heard(call), [100, 480]);
}

#[test]
fn a_device_whose_flow_dies_during_the_call_is_waited_for_a_while() {
    let mut world = World::new(seed(611)).with_phone("alice").with("alice", |phone| phone.transport = Transport::Tcp);
    world.hand_over_now("alice");
    world.phone("alice").attach();
    world.run_until_quiet();
    world.phone("alice").manner = Manner::Dead;
    world.push_mode = PushMode::Answer(misconfigured());
    let call = world.pbx().invite("alice");
    world.run_for(secs(3));
    world.phone("alice").lose_flow();
    world.run_for(secs(31));
    assert_eq!(world.pbx().heard(call), [100]);
    world.run_for(secs(2));
    assert_eq!(world.pbx().heard(call), [100, 480]);
}

#[test]
fn a_wake_that_was_taken_may_bring_the_phone_though_the_next_one_is_refused() {
    let mut world = World::new(seed(612)).with_phone("alice").with("alice", |phone| phone.transport = Transport::Tcp);
    world.hand_over_now("alice");
    world.push_script = [PushMode::Accept(millis(50)), PushMode::Answer(misconfigured())].into();
    world.phone("alice").manner = Manner::Dead;
    let call = world.pbx().invite("alice");
    world.run_for(secs(2));
    assert!(world.phone("alice").is_attached());
    world.phone("alice").lose_flow();
    world.run_for(secs(40));
    assert_eq!(world.pushed(WakeKind::Call), 2);
    assert_eq!(world.pbx().heard(call), [100, 180], "it knows of the call");
}
