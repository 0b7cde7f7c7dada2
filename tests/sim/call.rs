//! Story (b): the call.

use crate::world::{World, seed};

#[test]
fn a_sleeping_phone_is_woken_rings_and_answers() {
    let mut world = World::new(seed(2)).with_sleeping_phone("alice");
    let call = world.pbx().invite("alice");
    world.run_until_quiet();
    assert_eq!(world.pbx().heard(call), [100, 180, 180, 200]);
    world.pbx().hang_up(call);
    world.assert_nothing_left();
}
