//! Whoever holds an app key, or an instance of his own, and makes more of it than is meant: what it costs the others.

use reveille::engine::input::Command;
use reveille::engine::output::{Answer, Refusal};

use crate::pbx::Verdict;
use crate::share::offer_of;
use crate::world::build::password;
use crate::world::{World, secs, seed};

/// Hands alice's account over from a device of its own.
fn ask_from(world: &mut World, number: usize, text: &str) -> u64 {
    let mut offer = offer_of(world, "alice");
    (offer.device, offer.material) = (format!("urn:uuid:{number}"), password(text));
    let asked = world.command(Command::HandOver(Box::new(offer)));
    world.run_for(secs(4));
    asked
}

fn is_limited(world: &World, asked: u64) -> bool {
    matches!(world.refusal(asked), Some(Refusal::RateLimited { .. }))
}

#[test]
fn credentials_that_nobody_judges_get_no_more_bindings_of_an_account_than_it_may_have_devices() {
    let mut world = World::new(seed(1201))
        .with_policy(|policy| (policy.limits.devices_per_account, policy.limits.refusals_per_account) = (3, 1000))
        .with_phone("alice");
    world.pbx().registrar.verdict = Verdict::Code(503, None);
    for number in 0..50 {
        let asked = ask_from(&mut world, number, &format!("wrong {number}"));
        assert_eq!(is_limited(&world, asked), number >= 3, "{number}");
    }
    assert_eq!((world.table("leases.benches"), world.table("vault"), world.table("places")), (3, 3, 3));
    let again = ask_from(&mut world, 50, "wrong 1");
    assert!(matches!(world.answer(again), Some(Answer::HandedOver(_))), "what is held may be shared");
}
