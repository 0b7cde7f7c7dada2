//! Story (b), INVITEs that are refused at once: whoever repeats one gets the same answer, whatever has changed since, and no
//! phone rings for it.

use reveille::engine::input::{Command, Mode, Parting};
use reveille::engine::output::WakeKind;

use crate::pbx::Call;
use crate::phone::Manner;
use crate::world::{World, millis, secs, seed};

/// What happens between a refused INVITE and its repetition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// The refusal is lost.
    Lost,
    /// The reason for it is gone.
    Gone,
}

const ORDERS: [&[Then]; 3] = [&[Then::Gone], &[Then::Lost, Then::Gone], &[Then::Gone, Then::Lost]];

#[test]
fn a_call_above_the_limit_is_refused_for_good_though_the_one_before_it_ends() {
    for order in ORDERS {
        let mut world = World::new(seed(601)).with_policy(|policy| policy.limits.held_calls_per_instance = 1);
        world = world.with_attached_phone("alice").with("alice", |phone| phone.manner = Manner::Ring);
        let first = world.pbx().invite("alice");
        world.run_for(secs(1));
        let refused = world.pbx().invite("alice");
        go_on(&mut world, order, |world| world.pbx().cancel(first));
        assert_eq!(world.pbx().heard(first).last(), Some(&487), "{order:?}");
        judge(&mut world, refused, 480, 1, order);
    }
}

#[test]
fn a_copy_is_refused_for_good_though_the_call_it_copies_ends() {
    let mut world = World::new(seed(602)).with_attached_phone("alice");
    world.phone("alice").manner = Manner::Ring;
    let first = world.pbx().invite("alice");
    world.run_for(secs(1));
    let copy = world.pbx().invite_copy(first);
    world.run_for(millis(11));
    world.pbx().cancel(first);
    // Longer than the call stays for its ACK (Timer I).
    for _ in 0..1200 {
        world.drop_datagrams_starting(b"SIP/2.0 482");
        world.run_for(millis(5));
    }
    assert!(world.pbx().heard(copy).is_empty());
    world.run_until_quiet();
    judge(&mut world, copy, 482, 1, &[]);
}

#[test]
fn a_call_to_an_app_in_the_foreground_is_refused_for_good_though_the_app_comes_back() {
    for order in ORDERS {
        let mut world = World::new(seed(603)).with_phone("alice").with("alice", |phone| phone.manner = Manner::Ring);
        hand_over(&mut world);
        let (id, token) = world.key_of("alice");
        world.pbx().registrar.nonces = crate::pbx::NonceLife::OneRequest;
        world.command(Command::Foreground(id, token, Parting::Release));
        world.run_for(secs(1));
        let refused = world.pbx().invite("alice");
        go_on(&mut world, order, hand_over);
        judge(&mut world, refused, 480, 0, order);
    }
}

#[test]
fn the_cancel_of_a_refused_invite_finds_it() {
    let mut world = World::new(seed(604)).with_policy(|policy| policy.limits.held_calls_per_instance = 0);
    world = world.with_sleeping_phone("alice");
    let refused = world.pbx().invite("alice");
    world.run_for(millis(11));
    world.drop_datagrams_starting(b"SIP/2.0 480");
    world.pbx().cancel(refused);
    world.run_until_quiet();
    assert_eq!(world.pbx().call(refused).answers, [("CANCEL".to_owned(), 200)]);
    assert_eq!(world.pbx().heard(refused), [480]);
    world.assert_nothing_left();
}

fn hand_over(world: &mut World) {
    let mut offer = world.offer("alice");
    offer.preferences.mode = Mode::Background;
    world.hand_over_this("alice", offer);
    world.run_for(millis(200));
}

/// The INVITE placed last is refused by now; it is repeated after half a second.
fn go_on(world: &mut World, order: &[Then], end: impl Fn(&mut World)) {
    if order[0] == Then::Gone {
        end(world);
    }
    world.run_for(millis(11));
    for then in order {
        match then {
            Then::Lost => world.drop_datagrams_starting(b"SIP/2.0 48"),
            Then::Gone if order[0] != Then::Gone => end(world),
            Then::Gone => {}
        }
    }
    world.run_until_quiet();
}

/// The caller heard one final, and nobody was called or woken for it.
fn judge(world: &mut World, refused: Call, code: u16, calls: usize, order: &[Then]) {
    assert_eq!(world.pbx().heard(refused), [code], "{order:?}");
    assert_eq!(world.phone("alice").calls.len(), calls, "{order:?}");
    assert_eq!(world.pushed(WakeKind::Call), 0, "{order:?}");
    world.assert_nothing_left();
}
