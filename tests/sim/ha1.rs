//! What answers a challenge once the password has become HA1: the same realm, no weaker algorithm, and nothing else,
//! unless the tenant keeps the password.

use reveille::engine::audit::{AuditEvent, Cause};
use reveille::engine::input::Command;
use reveille::engine::output::{Answer, WakeKind};
use reveille::sip::auth::Algorithm;

use crate::pbx::Pbx;
use crate::world::{World, hours, minutes, seed};

#[test]
fn another_realm_later_is_not_answered_and_needs_the_app_again() {
    needs_the_app_again(seed(601), to_another_realm);
}

#[test]
fn a_weaker_algorithm_later_is_not_answered_and_needs_the_app_again() {
    needs_the_app_again(seed(602), to_md5);
}

#[test]
fn another_realm_later_is_answered_where_the_tenant_keeps_the_password() {
    let held = goes_on(seed(603), to_another_realm);
    assert_eq!(
        held,
        ["pbx SHA-256", "pbx SHA-512-256", "elsewhere SHA-256", "elsewhere SHA-512-256"],
        "HA1 of the new realm beside the former one's"
    );
}

#[test]
fn a_weaker_algorithm_later_is_answered_where_the_tenant_keeps_the_password() {
    assert_eq!(goes_on(seed(604), to_md5), ["pbx SHA-256", "pbx SHA-512-256", "pbx MD5"]);
}

#[test]
fn a_stronger_algorithm_later_is_answered_and_the_weaker_one_forgotten() {
    let mut world = World::new(seed(605)).with_sleeping_phone("alice");
    world.pbx().forget_nonces();
    world.pbx().registrar.algorithms = vec![Algorithm::Md5, Algorithm::Sha256];
    world.run_for(hours(1));
    assert_eq!(*world.pbx().verdicts().last().expect("a refresh"), 200);
    assert_eq!(held(&mut world), (false, vec!["pbx SHA-256".to_owned(), "pbx SHA-512-256".to_owned()]));
}

fn to_another_realm(pbx: &mut Pbx) {
    pbx.registrar.realm = "elsewhere".to_owned();
}

fn to_md5(pbx: &mut Pbx) {
    pbx.registrar.algorithms = vec![Algorithm::Md5];
}

fn needs_the_app_again(seed: u64, change: fn(&mut Pbx)) {
    let mut world = registered(World::new(seed), change);
    assert_eq!(held(&mut world), (false, vec!["pbx SHA-256".to_owned(), "pbx SHA-512-256".to_owned()]));
    let before = world.pbx().registers.len();

    world.run_until(hours(2), |world| world.pbx().registers.len() > before);
    world.run_for(minutes(4));
    assert_eq!(world.pushed(WakeKind::Reprovision), 0, "a PBX in reload challenges everyone: not at the first time");
    world.run_for(minutes(30));
    assert_eq!(world.pushed(WakeKind::Reprovision), 1);
    world.run_until(hours(13), |world| world.table("leases") == 0);
    world.run_until_quiet();

    let seen = &world.pbx().registers[before..];
    let nonces: Vec<_> = seen.iter().filter_map(|register| register.nonce.as_deref()).collect();
    assert!(seen.iter().all(|register| register.code == 401));
    assert!(nonces.iter().all(|nonce| *nonce == nonces[0]), "no new challenge was answered: {nonces:?}");
    assert_eq!(world.pushed(WakeKind::Reprovision), 2, "and once more when it is over");
    let last = world.records.last().expect("a record");
    assert!(matches!(last.event, AuditEvent::Erased { cause: Cause::Unregistrable, .. }), "erased for it");
    world.assert_empty();
}

fn goes_on(seed: u64, change: fn(&mut Pbx)) -> Vec<String> {
    let keeping = World::new(seed).with_policy(|policy| policy.tenants[0].keep_password = true);
    let mut world = registered(keeping, change);
    assert!(held(&mut world).0, "the password is kept beside");
    world.run_for(hours(3));
    assert_eq!(*world.pbx().verdicts().last().expect("refreshes"), 200);
    assert_eq!(world.pbx().contacts("alice").len(), 1);
    assert_eq!(world.pushed(WakeKind::Reprovision), 0);
    let (password, hashes) = held(&mut world);
    assert!(password);
    world.delete("alice");
    world.run_until_quiet();
    assert_eq!(world.table("vault"), 0, "and goes with the instance");
    hashes
}

/// Registered by SHA-256; then the PBX forgets its nonces and changes.
fn registered(world: World, change: fn(&mut Pbx)) -> World {
    let strong = |pbx: &mut Pbx| pbx.registrar.algorithms = vec![Algorithm::Md5, Algorithm::Sha256];
    let mut world = world.with_pbx(strong).with_sleeping_phone("alice");
    world.pbx().forget_nonces();
    change(world.pbx());
    world
}

/// Whether the password is held, and which hashes.
fn held(world: &mut World) -> (bool, Vec<String>) {
    let (id, token) = world.key_of("alice");
    let asked = world.command(Command::Data(id, token));
    let Some(Answer::Data(data)) = world.answer(asked) else { panic!("data") };
    (data.password, data.ha1.iter().map(|(realm, algorithm)| format!("{realm} {algorithm}")).collect())
}
