//! A random walk of several devices with one account: they join, leave, move, come to the foreground and back, in any order,
//! while the registrar has its moods. After each move everybody has one copy of the credentials and one binding.
//!
//! `seeds` tells how to walk others than CI does.

use reveille::engine::account::ContactStyle;
use reveille::engine::ids::ShardId;
use reveille::engine::input::{Command, HandOver, Mode, Parting, Preferences, Rectification, Whom};

use crate::pbx::{Dials, NonceLife, Verdict};
use crate::seeds::walk_each;
use crate::wire::{Dice, Wire};
use crate::world::build::{TENANT, account, password, registrar};
use crate::world::{World, hours, millis, minutes, secs, seed};

const WALKS: u64 = 300;
const MOVES: u32 = 80;
/// Seeds that found a bug once.
const FAILED_BEFORE: [u64; 11] = [197, 668, 1184, 1271, 1308, 1441, 1582, 1640, 1885, 1968, 4351];
const DEVICES: [&str; 4] = ["alice", "tablet", "watch", "desk"];

#[test]
fn devices_of_one_account_come_and_go_in_any_order_and_nothing_is_left_of_them() {
    walk_each(&FAILED_BEFORE, WALKS, walk);
}

fn walk(number: u64) {
    let mut dice = Dice::new(number.wrapping_mul(17) + 3);
    let shards = u16::try_from(dice.below(3) + 1).expect("few shards");
    let mut world = World::new(seed(number)).with_shards(shards).with_policy(|policy| {
        policy.limits.devices_per_account = 3;
        policy.limits.dialog_max = hours(2);
    });
    world.entitle(&format!("share walk {number}"));
    for name in DEVICES {
        world.add_phone(name);
        // A token may be replaced while its last REGISTER is on its way.
        world.phone(name).stubborn = false;
    }
    world.pbx().registrar.one_contact = dice.chance(20);
    world.run_for(millis(1));
    let mut walk = Walk {
        world,
        dice,
        password: crate::world::build::password_of("alice"),
        changes: 0,
        installations: (number % 3 == 2 && !FAILED_BEFORE.contains(&number)).then_some(0),
        asked: Vec::new(),
    };
    for _ in 0..MOVES {
        walk.make_move();
        walk.check();
    }
    walk.end();
}

struct Walk {
    world: World,
    dice: Dice,
    /// What the PBX has.
    password: String,
    changes: u32,
    /// How often apps were installed anew, in walks where they are.
    installations: Option<u32>,
    asked: Vec<u64>,
}

impl Walk {
    fn make_move(&mut self) {
        match self.dice.below(20) {
            0..6 => self.pass_time(),
            6..11 => self.hand_over(),
            11..16 => self.app_acts(),
            16..18 => self.registrar_changes(),
            18 => self.wire_changes(),
            _ => self.call(),
        }
    }

    fn pass_time(&mut self) {
        let span = match self.dice.below(6) {
            0..2 => millis(self.dice.below(400)),
            2..4 => secs(self.dice.below(30)),
            4 => minutes(self.dice.below(30)),
            _ => minutes(self.dice.below(300)),
        };
        self.world.run_for(span);
    }

    fn offer(&mut self, name: &str) -> HandOver {
        let mut offer = self.world.offer(name);
        offer.account = account("alice");
        offer.material = password(if self.dice.chance(25) { "a guess" } else { &self.password });
        offer.preferences.mode = *self.dice.pick(&[Mode::Always, Mode::Background, Mode::Background, Mode::Takeover]);
        if self.dice.chance(15) {
            offer.account.outbound_proxy = Some(registrar("sip:pbx.example.com;transport=udp"));
        }
        if self.dice.chance(15) {
            offer.account.contact_style = ContactStyle::Username;
        }
        if self.dice.chance(20) {
            offer.lease = minutes(self.dice.below(600) + 1);
        }
        if let Some(count) = &mut self.installations
            && self.dice.chance(40)
        {
            *count += 1;
            offer.device = format!("{}-again-{count}", offer.device);
        }
        offer
    }

    fn hand_over(&mut self) {
        let name = *self.dice.pick(&DEVICES);
        let offer = self.offer(name);
        let asked = self.world.hand_over_this(name, offer);
        self.asked.push(asked);
    }

    fn app_acts(&mut self) {
        let name = *self.dice.pick(&DEVICES);
        if self.world.phone(name).account.is_none() {
            return self.hand_over();
        }
        let (id, token) = self.world.key_of(name);
        let command = match self.dice.below(8) {
            0 => Command::Erase(id, token),
            1 => Command::Refresh(id, token),
            2 => Command::Data(id, token),
            3..6 => Command::Foreground(id, token, *self.dice.pick(&[Parting::Release, Parting::Keep])),
            6 => {
                let mode = *self.dice.pick(&[Mode::Always, Mode::Background, Mode::Takeover]);
                let preferences = Some(Preferences { mode, ..Preferences::default() });
                Command::Rectify(id, token, Box::new(Rectification { preferences, ..Rectification::default() }))
            }
            _ => {
                let offer = self.offer(name);
                let material = self.dice.chance(70).then_some(offer.material);
                let change = Rectification { account: Some(offer.account), material, ..Rectification::default() };
                Command::Rectify(id, token, Box::new(change))
            }
        };
        let asked = self.world.command(command);
        self.asked.push(asked);
    }

    fn registrar_changes(&mut self) {
        let nonces = *self.dice.pick(&[NonceLife::Forever, NonceLife::For(secs(32)), NonceLife::OneRequest]);
        let verdict =
            self.dice.pick(&[Verdict::Fair, Verdict::Fair, Verdict::Silent, Verdict::Code(403, None)]).clone();
        let dials = *self.dice.pick(&[Dials::Contact, Dials::Bare]);
        match self.dice.below(5) {
            0 => self.world.pbx().registrar.nonces = nonces,
            1 => self.world.pbx().registrar.verdict = verdict,
            2 => self.world.pbx().registrar.dials = dials,
            3 => self.world.pbx().add_desk("alice", "sip:alice@10.0.0.9:5062", minutes(20)),
            _ => {
                self.changes += 1;
                self.password = format!("secret {}", self.changes);
                let fresh = self.password.clone();
                self.world.pbx().set_password("alice", &fresh);
            }
        }
    }

    fn wire_changes(&mut self) {
        self.world.wire = match self.dice.below(2) {
            0 => Wire::default(),
            _ => Wire { latency: millis(20), jitter: millis(300), loss: 10, doubled: 10 },
        };
    }

    fn call(&mut self) {
        if self.world.pbx().capability("alice").is_some() {
            let call = self.world.pbx().invite("alice");
            let span = millis(self.dice.below(3000));
            self.world.run_for(span);
            if self.world.pbx().final_response(call).is_none() {
                self.world.pbx().cancel(call);
            } else if self.world.pbx().call(call).is_up() {
                self.world.pbx().hang_up(call);
            }
        }
    }

    fn check(&self) {
        let tables = self.world.tables();
        let (leases, vault) = (tables["leases"], tables["vault"]);
        let (moves, left) = (tables["hand_overs.candidates"], tables["erasures.departing"]);
        assert!(moves <= leases && tables["hand_overs.failed_moves"] <= leases, "{tables:?}");
        assert!(vault >= leases, "an instance without its slot: {tables:?}");
        assert!(
            vault <= leases + tables["erasures.under_way"] + tables["hand_overs.trials"] + moves + left,
            "a secret too many: {tables:?}"
        );
        assert_eq!(tables["bindings"], tables["leases.benches"], "{tables:?}");
        assert_eq!(tables["leases.capabilities"], tables["leases.benches"], "{tables:?}");
        assert_eq!(tables["leases.accounts"], leases, "{tables:?}");
        assert!(
            tables["leases.benches"] <= leases + moves && tables["leases.ways"] <= tables["leases.benches"],
            "{tables:?}"
        );
        assert!(tables["names"] <= tables["bindings"] && tables["erasures.asides"] <= leases, "{tables:?}");
    }

    fn end(&mut self) {
        let world = &mut self.world;
        world.wire = Wire::default();
        world.pbx().registrar.verdict = Verdict::Fair;
        for name in DEVICES {
            let phone = world.phone(name);
            phone.wakes = false;
            phone.give_up();
        }
        world.run_until_quiet();
        for asked in &self.asked {
            assert!(world.answer(*asked).is_some(), "command {asked} was never answered");
        }
        for shard in 0..world.shards() {
            let command = Command::EraseAll { tenant: TENANT.into(), whom: Whom::Tenant };
            world.command_at(ShardId(shard), command);
        }
        world.run_for(hours(3));
        let tables = world.tables();
        let kept = ["destinations", "erasures.graves", "calls.dialogs", "edge", "places.tried", "guesses", "orders"];
        let left: Vec<_> = tables.iter().filter(|(name, size)| **size > 0 && !kept.contains(name)).collect();
        assert!(left.is_empty(), "{left:?}");
        assert!(world.pbx().contacts("alice").is_empty(), "{:?}", world.pbx().contacts("alice"));
    }
}
