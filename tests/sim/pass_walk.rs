//! A random walk of phones that register through us (RFC 8599): they come, sleep, are woken, refresh, sign off, move and
//! crash in any order, while callers ring, cancel and hang up and the registrar has its moods. Nothing of them is kept but
//! what their registrar confirmed.
//!
//! `seeds` tells how to walk others than CI does.

use reveille::engine::edge_registrar::EdgeRegistrar;
use reveille::engine::output::PushOutcome;
use reveille::sip::{Method, Transport};

use crate::pbx::{Call, Invite, NonceLife, Text, Verdict};
use crate::phone::Manner;
use crate::random_walk::not_now;
use crate::seeds::walk_each;
use crate::sip_text::call_id;
use crate::transactions::Path;
use crate::wire::{Dice, Wire};
use crate::world::build::{DOMAIN, PBX, address, password_of};
use crate::world::{PushMode, World, hours, millis, minutes, secs, seed};

const WALKS: u64 = 200;
const MOVES: u32 = 100;
/// Seeds that found a bug once.
const FAILED_BEFORE: [u64; 1] = [1876];
const NAMES: [&str; 4] = ["alice", "bob", "carol", "dave"];

/// Tables that are empty when every phone has signed off for hours.
const EMPTY_AT_LAST: [&str; 20] = [
    "vault",
    "leases",
    "bindings",
    "pass.bindings",
    "pass.lingering",
    "pass.transits",
    "pass.inside",
    "calls.relays",
    "calls.held",
    "calls.keys",
    "calls.branches",
    "calls.merges",
    "calls.instances",
    "calls.wakes",
    "calls.refused",
    "calls.ended",
    "calls.orphans",
    "calls.dialogs",
    "texts.held",
    "vault.sealed",
];

#[test]
fn phones_that_register_through_us_come_and_go_in_any_order_and_nothing_is_left_of_them() {
    walk_each(&FAILED_BEFORE, WALKS, walk);
}

fn walk(number: u64) {
    let mut walk = Walk::new(number);
    walk.world.entitle(&format!("pass walk {number}"));
    for _ in 0..MOVES {
        walk.make_move();
        walk.check();
    }
    walk.end();
}

struct Walk {
    world: World,
    dice: Dice,
}

impl Walk {
    fn new(number: u64) -> Self {
        let mut dice = Dice::new(number.wrapping_mul(29) + 11);
        let shards = u16::try_from(dice.below(3) + 1).expect("few shards");
        let mut world = World::new(seed(number)).with_shards(shards).with_policy(|policy| {
            policy.limits.dialog_max = hours(2);
            policy.tenants[0].edge_registrars = vec![EdgeRegistrar::parse(DOMAIN).expect("a registrar")];
        });
        for name in NAMES {
            world.add_phone(name);
            let transport = *dice.pick(&[Transport::Udp, Transport::Tcp, Transport::Tls]);
            let phone = world.phone(name);
            phone.go_through(password_of(name));
            phone.transport = transport;
            phone.stubborn = false;
        }
        world.pbx().registrar.one_contact = dice.chance(20);
        for name in NAMES {
            world.phone(name).attach();
        }
        world.run_for(secs(1));
        Self { world, dice }
    }

    fn make_move(&mut self) {
        match self.dice.below(100) {
            0..24 => self.pass_time(),
            24..42 => self.place_call(),
            42..56 => self.caller_acts(),
            56..80 => self.phone_acts(),
            80..86 => self.provider_changes(),
            86..92 => self.registrar_changes(),
            92..96 => self.wire_changes(),
            _ => self.sender_acts(),
        }
    }

    fn pass_time(&mut self) {
        let span = match self.dice.below(10) {
            0..6 => millis(self.dice.below(400)),
            6..9 => secs(self.dice.below(40)),
            _ => minutes(self.dice.below(12)),
        };
        self.world.run_for(span);
    }

    fn name(&mut self) -> &'static str {
        let place = self.dice.below(NAMES.len() as u64);
        NAMES[usize::try_from(place).expect("a place")]
    }

    fn place_call(&mut self) {
        let first = self.dice.below(NAMES.len() as u64);
        let mut names = NAMES.iter().cycle().skip(usize::try_from(first).expect("a place")).take(NAMES.len());
        let Some(name) = names.find(|name| self.world.pbx().capability(name).is_some()) else { return };
        let mut invite = Invite::to(name);
        if self.dice.chance(30) {
            invite = invite.record_routed();
        }
        if self.dice.chance(15) {
            invite = invite.expiring(u32::try_from(self.dice.below(40) + 5).expect("small"));
        }
        let call = self.world.pbx().invite(invite);
        if self.dice.chance(10) {
            self.world.pbx().invite_copy(call);
        }
    }

    fn caller_acts(&mut self) {
        let of_user = |call: &crate::pbx::CallState| !call.user.is_empty();
        let open = |call: &crate::pbx::CallState| !call.cancelled && call.heard.iter().all(|&code| code < 200);
        let calls: Vec<(Call, bool, bool)> = {
            let calls = self.world.pbx().calls().filter(|(_, it)| of_user(it));
            calls.map(|(call, it)| (call, it.is_up(), open(it))).filter(|(_, up, open)| *up || *open).collect()
        };
        if calls.is_empty() {
            return;
        }
        let (call, up, _) = *self.dice.pick(&calls);
        if !up {
            return self.world.pbx().cancel(call);
        }
        match self.dice.below(4) {
            0 => self.world.pbx().inside(call, Method::Info, b""),
            1 => self.world.pbx().inside(call, Method::Invite, b"v=0\r\n"),
            _ => self.world.pbx().hang_up(call),
        }
    }

    fn phone_acts(&mut self) {
        let name = self.name();
        let choice = self.dice.below(16);
        let manner = *self.dice.pick(&[
            Manner::Answer(secs(2)),
            Manner::Answer(millis(10)),
            Manner::Ring,
            Manner::Ring,
            Manner::Media,
            Manner::Refuse(486, secs(1)),
            Manner::Dead,
            Manner::AnswerAtCancel,
        ]);
        let boot = millis(self.dice.below(8000));
        let phone = self.world.phone(name);
        match choice {
            0..2 => phone.manner = manner,
            2..6 => phone.attach(),
            6 => phone.detach(),
            7..10 => phone.sleep(),
            10 => phone.lose_flow(),
            11 => phone.reattach(),
            12 => phone.crash(),
            13 => phone.boot = boot,
            14 => phone.speak(Method::Info, b""),
            _ => phone.hang_up(),
        }
    }

    fn provider_changes(&mut self) {
        let name = self.name().to_owned();
        let delay = millis(self.dice.below(6000));
        let mode = match self.dice.below(6) {
            0..3 => PushMode::Accept(delay),
            3 => PushMode::Swallow(delay),
            4 => PushMode::Answer(not_now(delay)),
            _ => PushMode::Answer(PushOutcome::TokenDead { since: None }),
        };
        self.world.push_modes.insert(name, mode);
    }

    fn registrar_changes(&mut self) {
        let name = self.name();
        let verdict = self
            .dice
            .pick(&[Verdict::Fair, Verdict::Fair, Verdict::Silent, Verdict::Code(403, None), Verdict::NeverContent])
            .clone();
        let nonces = *self.dice.pick(&[NonceLife::Forever, NonceLife::For(secs(32)), NonceLife::OneRequest]);
        let choice = self.dice.below(5);
        match choice {
            0 | 1 => self.world.pbx().registrar.verdict = verdict,
            2 => self.world.pbx().registrar.nonces = nonces,
            3 => self.world.break_connections(address(PBX)),
            _ => self.world.pbx().add_desk(name, &format!("sip:{name}@10.0.0.9:5062"), minutes(20)),
        }
    }

    fn wire_changes(&mut self) {
        self.world.wire = match self.dice.below(3) {
            0 => Wire::default(),
            1 => Wire { latency: millis(20), jitter: millis(self.dice.below(800)), loss: 10, doubled: 10 },
            _ => Wire { latency: millis(5), jitter: millis(50), loss: 30, doubled: 30 },
        };
    }

    fn sender_acts(&mut self) {
        let name = self.name();
        if self.world.pbx().capability(name).is_some() {
            self.world.pbx().text(Text::to(name, "a word"));
        }
    }

    fn check(&mut self) {
        let tables = self.world.tables();
        assert_eq!((tables["leases"], tables["bindings"], tables["vault"]), (0, 0, 0), "credentials are not ours");
        assert!(tables["pass.bindings"] <= NAMES.len(), "{tables:?}");
        assert!(tables["calls.held"] <= tables["calls.relays"], "{tables:?}");
        assert!(tables["vault.sealed"] <= tables["texts.held"], "{tables:?}");
        for name in NAMES {
            let own = format!("register-{name}");
            let granted = |it: &crate::pbx::Registered| it.call_id == own && it.code == 200 && it.expires > 0;
            let confirmed = self.world.pbx().registers.iter().any(granted);
            assert!(confirmed || self.world.phone(name).calls.is_empty(), "{name} rings, and nobody confirmed it");
        }
    }

    /// Everything gets well again, every phone signs off, and then nothing may be left of anything.
    fn end(&mut self) {
        let world = &mut self.world;
        world.wire = Wire::default();
        world.push_modes.clear();
        world.pbx().registrar.verdict = Verdict::Fair;
        world.pbx().registrar.nonces = NonceLife::Forever;
        for name in NAMES {
            let phone = world.phone(name);
            phone.wakes = false;
            phone.manner = Manner::Answer(secs(1));
            phone.give_up();
        }
        world.run_until_quiet();
        // Who heard something and then waited in vain had bad luck.
        let bad_luck = world.bad_luck.clone();
        for (call, state) in world.pbx().calls().filter(|(_, it)| !it.user.is_empty()) {
            let in_vain = !state.heard.is_empty() && state.heard.iter().all(|&code| code < 200);
            let excused = matches!(state.path, Path::Stream(_)) || bad_luck.contains(&call_id(&state.invite));
            assert!(!in_vain || excused, "{call:?} was left without a final");
        }
        let up: Vec<Call> = world.pbx().calls().filter(|(_, call)| call.is_up()).map(|(call, _)| call).collect();
        for call in up {
            world.pbx().hang_up(call);
        }
        for name in NAMES {
            world.phone(name).reattach();
            world.run_for(secs(5));
            world.phone(name).detach();
        }
        // Dialogs whose BYE was lost live on until their longest, texts until nobody fetches them any more.
        world.run_for(hours(26));
        for name in EMPTY_AT_LAST {
            assert_eq!(world.table(name), 0, "{name}");
        }
    }
}
