//! Story (b), races: everything that may happen to a call of two devices, in every order.

use std::time::Duration;

use reveille::engine::output::WakeKind;
use reveille::sip::Transport;

use crate::call_fork::{NAMES, decline, finals, successes, talking, two_devices};
use crate::pbx::Call;
use crate::phone::Manner;
use crate::world::{PushMode, World, millis, secs, seed};

/// What may happen to a call of two devices, in any order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Do {
    Attach(usize),
    Lose(usize),
    Answer(usize),
    Decline(usize),
    Erase(usize),
    /// The provider takes the device's wake.
    Taken(usize),
    Cancel,
}

#[test]
fn whatever_the_order_one_answer_wins_nobody_rings_for_a_dead_call_and_nobody_is_woken_for_none() {
    use Do::{Answer, Attach, Cancel, Decline, Erase, Lose, Taken};
    let sets = [
        [Attach(0), Cancel, Taken(0), Answer(0), Lose(0)],
        [Attach(0), Attach(1), Taken(0), Cancel, Answer(0)],
        [Attach(0), Attach(1), Answer(0), Answer(1), Cancel],
        [Attach(0), Attach(1), Lose(0), Answer(0), Cancel],
        [Attach(0), Lose(0), Attach(1), Answer(1), Taken(0)],
        [Attach(0), Attach(1), Decline(0), Answer(1), Lose(1)],
        [Attach(0), Attach(1), Erase(0), Answer(1), Cancel],
    ];
    let ways = [
        (Transport::Udp, millis(7)),
        (Transport::Tcp, millis(7)),
        (Transport::Udp, millis(300)),
        (Transport::Tcp, millis(300)),
    ];
    // Every order in one way or another; before a release in all of them.
    let all = std::env::var_os("REVEILLE_WALKS").is_some();
    for (number, order) in sets.into_iter().flat_map(permutations).enumerate() {
        let chosen = if all { &ways[..] } else { &ways[number % 4..=number % 4] };
        for (transport, gap) in chosen {
            play(&order, *transport, *gap);
        }
    }
}

fn play(order: &[Do], transport: Transport, gap: Duration) {
    let mut world = two_devices(17);
    world.entitle(&format!("{order:?} {transport:?} {gap:?}"));
    for (place, name) in NAMES.into_iter().enumerate() {
        let taken = order.iter().position(|it| *it == Do::Taken(place)).unwrap_or(1);
        let delay = gap * u32::try_from(taken).expect("few") + millis(1);
        world.push_modes.insert(name.to_owned(), PushMode::Swallow(delay));
        world.phone(name).transport = transport;
        world.phone(name).manner = Manner::Ring;
        world.phone(name).stubborn = false;
    }
    let call = world.pbx().invite("alice");
    world.run_for(millis(11));
    let mut erased = [false; 2];
    for event in order {
        happen(&mut world, call, *event, &mut erased);
        world.run_for(gap);
    }
    world.run_for(secs(1));
    for (place, name) in NAMES.into_iter().enumerate() {
        if !erased[place] {
            world.phone(name).reattach();
        }
    }
    // The REGISTER, its challenge, and one round trip.
    world.run_for(millis(90));
    let over = world.pbx().final_response(call).is_some();
    for (place, name) in NAMES.into_iter().enumerate() {
        let rings = world.phone(name).calls.iter().any(|it| it.ended.is_none() && it.dialog.is_none());
        // An erased device cannot attach, but its leg was cancelled; only a broken flow keeps it from hearing so.
        let unreachable = erased[place] && order.contains(&Do::Lose(place));
        assert!(!(over && rings) || unreachable, "{name} rings for a dead call");
    }
    world.run_until_quiet();
    judge(&mut world, call);
}

fn happen(world: &mut World, call: Call, event: Do, erased: &mut [bool; 2]) {
    match event {
        Do::Attach(place) if !erased[place] => world.phone(NAMES[place]).reattach(),
        Do::Lose(place) => world.phone(NAMES[place]).lose_flow(),
        Do::Answer(place) => {
            let calls = &world.phone(NAMES[place]).calls;
            if let Some(ringing) = calls.iter().position(|it| it.ended.is_none() && it.dialog.is_none()) {
                world.phone(NAMES[place]).answer(ringing);
            }
        }
        Do::Decline(place) => drop(decline(world, NAMES[place], false)),
        Do::Erase(place) => {
            erased[place] = true;
            world.delete(NAMES[place]);
        }
        Do::Cancel if world.pbx().final_response(call).is_none() => world.pbx().cancel(call),
        Do::Attach(_) | Do::Taken(_) | Do::Cancel => {}
    }
}

fn judge(world: &mut World, call: Call) {
    assert!(world.pbx().final_response(call).is_some(), "no final");
    assert!(successes(world) <= 1, "two answers for one caller");
    let up = world.pbx().call(call).is_up();
    assert_eq!(talking(world).len(), usize::from(up), "who talks to whom?");
    assert_eq!(world.outcomes().len(), 1);
    let ended = finals(world).first().map(|(at, _)| *at).expect("a final");
    let wakes = world.pushes.iter().filter(|push| push.kind == WakeKind::Call);
    assert!(wakes.map(|push| push.at).all(|at| at <= ended), "woken for no call");
    if up {
        world.pbx().hang_up(call);
    }
    world.assert_nothing_left();
}

#[test]
fn a_phone_that_signs_off_while_the_invite_is_on_its_way_rings_no_longer_than_its_caller_waits() {
    for transport in [Transport::Udp, Transport::Tcp] {
        // The INVITE is at the phone after 20 ms, its 180 at us after 30; what it and the caller do takes 10 to reach us.
        for signed_off in [5, 15, 19, 21, 29].map(millis) {
            for cancelled in [12, 18, 22, 25, 31, 60].map(millis) {
                let mut world = World::new(seed(18)).with_sleeping_phone("alice");
                world.entitle(&format!("{transport:?}: off at {signed_off:?}, cancelled at {cancelled:?}"));
                world.phone("alice").transport = transport;
                world.phone("alice").attach();
                world.run_until_quiet();
                world.phone("alice").wakes = false;
                world.phone("alice").manner = Manner::Ring;
                let call = world.pbx().invite("alice");
                let first = signed_off.min(cancelled);
                world.run_for(first);
                for at in [first, signed_off.max(cancelled)] {
                    world.run_for(at - first);
                    if at == signed_off {
                        world.phone("alice").detach();
                    } else {
                        world.pbx().cancel(call);
                    }
                }
                world.run_for(millis(50));
                let rings = world.phone("alice").calls.iter().any(|it| it.ended.is_none());
                assert!(!rings, "alice rings for a dead call");
                world.run_until_quiet();
                assert_eq!(world.pbx().final_response(call), Some(487));
                world.assert_nothing_left();
            }
        }
    }
}

fn permutations<const N: usize>(of: [Do; N]) -> Vec<Vec<Do>> {
    let mut all = vec![Vec::new()];
    for _ in 0..N {
        let longer = |order: &Vec<Do>| {
            let order = order.clone();
            of.into_iter().filter(move |it| !order.contains(it)).collect::<Vec<_>>()
        };
        all =
            all.iter().flat_map(|order| longer(order).into_iter().map(|next| [&order[..], &[next]].concat())).collect();
    }
    all
}
