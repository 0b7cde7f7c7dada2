use super::home::UNPROVEN_OUTSTANDING_MAX;
use super::*;
use crate::engine::ids::InstanceId;
use crate::engine::limits::Limits;
use crate::engine::permits::{PermitOutcome, load_of};
use crate::sip::Transport;

fn room(rate: u32) -> (Destinations, Random, DestinationKey) {
    let placement = Placement::new(1, [1, 2]);
    let key =
        DestinationKey { transport: Transport::Udp, address: "198.51.100.7:5060".parse().expect("a socket address") };
    let mut policy = Policy::bare(Limits::default());
    (policy.registrars.rate, policy.registrars.rate_max, policy.registrars.drain_rate) = (rate, rate.max(1_000), 100);
    (Destinations::new(ShardId(0), placement, &policy), Random::new([7; 32]), key)
}

fn binding(number: u16) -> Asker {
    Asker::Binding(BindingId(number.into()))
}

fn first(now: Instant) -> Want {
    Want::new(Class::First, 0, now)
}

fn answered(class: Class, requests: u8) -> Used {
    Used { class, outcome: PermitOutcome::Answered, requests }
}

fn granted(room: &mut Destinations) -> Vec<(Asker, Class)> {
    std::iter::from_fn(|| room.poll_event())
        .filter_map(|event| match event {
            Event::Permit(asker, permit) => Some((asker, permit.class)),
            _ => None,
        })
        .collect()
}

fn permits(room: &mut Destinations) -> usize {
    granted(room).len()
}

/// A room with a destination that has answered, and an empty burst.
fn busy(rate: u32) -> (Destinations, Random, DestinationKey, Instant) {
    let (mut room, mut random, key) = room(rate);
    let now = Instant::from_nanos(1_000_000_000);
    room.want(key, binding(999), first(now), &mut random, now);
    room.report(key, answered(Class::First, 2), &mut random, now);
    room.charge(key, 100, &mut random, now);
    permits(&mut room);
    (room, random, key, now)
}

#[test]
fn a_destination_that_never_answered_gets_few_exchanges_at_once() {
    let (mut room, mut random, key) = room(50);
    let now = Instant::from_nanos(1);
    for number in 0..20 {
        room.want(key, binding(number), first(now), &mut random, now);
    }
    assert_eq!(permits(&mut room), UNPROVEN_OUTSTANDING_MAX as usize);
}

#[test]
fn a_dead_destination_is_probed_by_one_exchange_and_its_answer_frees_all() {
    let (mut room, mut random, key) = room(500);
    let mut now = Instant::from_nanos(1);
    room.want(key, binding(0), first(now), &mut random, now);
    assert_eq!(permits(&mut room), 1);
    room.report(key, answered(Class::First, 2), &mut random, now);
    room.want(key, binding(0), first(now), &mut random, now);
    assert_eq!(permits(&mut room), 1);
    let silent = Used { class: Class::First, outcome: PermitOutcome::Silent(Duration::from_secs(32)), requests: 1 };
    now = now + Duration::from_secs(32);
    room.report(key, silent, &mut random, now);
    for number in 0..10 {
        room.want(key, binding(number), first(now), &mut random, now);
    }
    assert_eq!(permits(&mut room), 0, "the destination is down");
    assert!(room.is_withheld(&key));

    now = room.poll_timeout().expect("a probe is due");
    room.handle_timeout(&mut random, now);
    assert_eq!(permits(&mut room), 1, "one probe");

    room.report(key, answered(Class::First, 2), &mut random, now);
    assert_eq!(permits(&mut room), 9);
}

#[test]
fn a_full_table_forgets_what_never_answered_and_is_not_used() {
    let (mut room, mut random, proven) = room(50);
    let now = Instant::from_nanos(1);
    let other = |number: usize| {
        let address = std::net::Ipv4Addr::from_bits(u32::try_from(number).expect("few"));
        DestinationKey { transport: Transport::Udp, address: (address, 5060).into() }
    };
    room.want(proven, binding(0), first(now), &mut random, now);
    room.report(proven, answered(Class::First, 2), &mut random, now);
    room.want(other(0), binding(0), first(now), &mut random, now);
    for number in 1..HOMES_MAX + 10 {
        room.want(other(number), binding(0), first(now), &mut random, now);
        room.report(other(number), Used::unused(Class::First), &mut random, now);
    }
    assert_eq!(room.homes.len(), HOMES_MAX);
    assert!(room.homes.contains_key(&proven) && room.homes.contains_key(&other(0)), "proven, in use");
    assert!(!room.homes.contains_key(&other(1)) && room.homes.contains_key(&other(HOMES_MAX)));
    assert_eq!((room.schedule.next().is_some(), room.idle_unproven.has(other(1))), (true, false));
}

#[test]
fn the_most_urgent_go_first_and_every_tenth_turn_is_for_the_others() {
    let (mut room, mut random, key, mut now) = busy(10);
    let instance = |number: u128| InstanceId::mint(ShardId(0), number.to_be_bytes());
    room.want(key, Asker::Subscription(instance(1)), Want::new(Class::Subscription, 0, now), &mut random, now);
    room.want(key, binding(500), first(now), &mut random, now);
    room.want(key, Asker::Trial(BindingId(7)), Want::new(Class::Renewal, 0, now), &mut random, now);
    for number in 0..30_u16 {
        let ends = now + Duration::from_secs(u64::from(100 - number));
        room.want(key, binding(number), Want::new(Class::Refresh, 0, ends), &mut random, now);
    }
    room.want(key, Asker::Erasure(instance(2)), Want::new(Class::Removal, 0, now), &mut random, now);
    let mut order = Vec::new();
    while order.len() < 34 {
        now = room.poll_timeout().expect("more are due");
        room.handle_timeout(&mut random, now);
        for (asker, class) in granted(&mut room) {
            order.push((asker, class));
            room.report(key, answered(class, 1), &mut random, now);
        }
    }
    assert_eq!(order[0].1, Class::Removal);
    let refreshed: Vec<Asker> = order.iter().filter(|it| it.1 == Class::Refresh).map(|it| it.0).collect();
    assert!(refreshed.iter().eq((0..30).rev().map(binding).collect::<Vec<_>>().iter()), "the one that ends first");
    let others: Vec<usize> = (1..order.len()).filter(|place| order[*place].1 != Class::Refresh).collect();
    assert_eq!(others.len(), 3);
    assert!(others[0] <= 10 && others[1] - others[0] <= 10 && others[2] - others[1] <= 10, "{others:?}");
}

#[test]
fn a_withdrawn_want_is_passed_over_and_one_that_was_granted_meanwhile_comes_back() {
    let (mut room, mut random, key) = room(50);
    let now = Instant::from_nanos(1);
    for number in 0..5 {
        room.want(key, binding(number), first(now), &mut random, now);
    }
    assert_eq!(permits(&mut room), 3);
    // The permit is out already, and 3 and 4 wait: 0 is in no line any more.
    room.withdraw(key, binding(0), &mut random, now);
    room.withdraw(key, binding(3), &mut random, now);
    room.want(key, binding(0), first(now), &mut random, now);
    room.report(key, answered(Class::First, 1), &mut random, now);
    let order: Vec<Asker> = granted(&mut room).into_iter().map(|it| it.0).collect();
    assert_eq!(order.len(), 2);
    assert!(order == [binding(4), binding(0)]);
    // Granted, but not wanted any more when the permit comes.
    room.hand_out(key, (Class::First, 0), 1, true, &mut random, now);
    assert_eq!(room.homes[&key].outstanding, 3);
}

#[test]
fn in_a_drain_un_registers_go_alone_at_a_rate_of_their_own() {
    let (mut room, mut random, key, mut now) = busy(1);
    room.drain(&mut random, now);
    room.want(key, binding(1), Want::new(Class::Refresh, 0, now), &mut random, now);
    for number in 0..200 {
        let departure = Asker::Departure(BindingId(number));
        room.want(key, departure, Want::new(Class::Removal, 0, now), &mut random, now);
    }
    let (start, mut order) = (now, granted(&mut room));
    while order.len() < 200 {
        now = room.poll_timeout().expect("more are due");
        room.handle_timeout(&mut random, now);
        for it in granted(&mut room) {
            order.push(it);
            room.report(key, Used { class: it.1, outcome: PermitOutcome::Unused, requests: 1 }, &mut random, now);
        }
    }
    assert!(order.iter().all(|it| it.1 == Class::Removal));
    let took = now.saturating_since(start);
    // The debt of before is paid first.
    assert!(took >= Duration::from_millis(1_700) && took <= Duration::from_secs(15), "{took:?}");
}

#[test]
fn first_registrations_that_find_no_room_are_refused_with_one_warning_and_refreshes_go_on() {
    let (mut room, mut random, key, now) = busy(50);
    let load = i64::try_from(load_of(Duration::from_secs(600))).expect("small");
    room.load(key, 0, 200_000 * load, &mut random, now);
    for number in 0..3 {
        room.want(key, binding(number), first(now), &mut random, now);
    }
    room.want(key, binding(9), Want::new(Class::Refresh, 0, now), &mut random, now);
    let mut seen = (0, 0, 0);
    while let Some(event) = room.poll_event() {
        match event {
            Event::Refused(_, _, after) => {
                assert_eq!(after, CROWDED_RETRY);
                seen.0 += 1;
            }
            Event::Crowded(Crowded { need, rate_max, .. }) => {
                assert!(need > 800 && rate_max == 1_000);
                seen.1 += 1;
            }
            Event::Permit(asker, _) => {
                assert!(asker == binding(9));
                seen.2 += 1;
            }
            Event::Peer(..) | Event::Withheld(..) => {}
        }
    }
    assert_eq!((seen.0, seen.1), (3, 1));
    // Some accounts go, and there is room again.
    room.load(key, 0, -100_000 * load, &mut random, now);
    room.want(key, binding(0), first(now), &mut random, now);
    assert!(!std::iter::from_fn(|| room.poll_event()).any(|event| matches!(event, Event::Refused(..))));
}
