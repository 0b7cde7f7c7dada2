//! The random walk: people, phones, PBX, wire and providers do anything at any time; after each move the engines must
//! still keep their word.
//!
//! `REVEILLE_WALKS=1000` walks more seeds than CI does, `REVEILLE_WALK_FROM=500` begins there and leaves out those that
//! failed once, `REVEILLE_WALK_SEED=7` walks one. A seed that ever failed is listed in `FAILED_BEFORE`.

use std::collections::BTreeMap;

use reveille::engine::account::ContactStyle;
use reveille::engine::ids::ShardId;
use reveille::engine::input::{
    CallHandOver, Command, Decline, DeclineReason, HandOver, Mode, Parting, Preferences, Rectification, Whom,
};
use reveille::engine::output::PushOutcome;
use reveille::sip::{Method, Transport};

use crate::pbx::{Call, Dials, Invite, NonceLife, Text, Verdict};
use crate::phone::Manner;
use crate::sip_text::call_id;
use crate::transactions::Path;
use crate::wire::{Dice, Wire};
use crate::world::build::{PBX, TENANT, account, address, password, password_of, registrar, targets};
use crate::world::{PushMode, World, hours, millis, minutes, secs, seed};

/// Walks in CI.
const WALKS: u64 = 16;
/// Moves of one walk.
const MOVES: u32 = 120;
/// Seeds that found a bug once.
const FAILED_BEFORE: [u64; 8] = [19, 93, 190, 195, 243, 271, 565, 1017];

/// Tables that are empty when everyone has been gone for days.
const EMPTY_AT_LAST: [&str; 27] = [
    "leases.accounts",
    "leases.benches",
    "leases.capabilities",
    "leases.ways",
    "names",
    "stories.private_media",
    "calls.late",
    "calls.ended",
    "vault",
    "leases",
    "bindings",
    "bindings.trunks",
    "wakes.budgets",
    "wakes.notices",
    "wakes.tests",
    "wakes.suspects",
    "devices",
    "erasures.graves",
    "calls.dialogs",
    "edge",
    "destinations",
    "vault.sealed",
    "texts.held",
    "texts.inboxes",
    "texts.transits",
    "mailboxes",
    "mailboxes.leaving",
];

/// The phones.
const NAMES: [&str; 7] = ["alice", "bob", "carol", "dave", "tablet", "watch", "desk"];
/// The accounts.
const USERS: [&str; 4] = ["alice", "bob", "carol", "dave"];
const ELSEWHERE: &str = "SIP;cause=200;text=\"Call completed elsewhere\"";

/// Whose account a phone has.
fn user_of(phone: &str) -> &'static str {
    match phone {
        "alice" | "tablet" | "watch" => "alice",
        "bob" | "desk" => "bob",
        "carol" => "carol",
        _ => "dave",
    }
}

#[test]
fn whatever_happens_the_engines_keep_their_word() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(one) = number("REVEILLE_WALK_SEED") {
        walk(one);
        return;
    }
    let walks = number("REVEILLE_WALKS").unwrap_or(WALKS);
    if let Some(from) = number("REVEILLE_WALK_FROM") {
        (from..from + walks).for_each(|seed| _ = walk(seed));
        return;
    }
    for seed in FAILED_BEFORE.into_iter().chain(0..walks) {
        walk(seed);
    }
}

#[test]
fn two_runs_of_one_seed_give_the_same_transcript() {
    for seed in [3, 1000] {
        assert_eq!(walk(seed), walk(seed));
    }
    assert_ne!(walk(3), walk(4));
}

/// Walks one seed and returns the fingerprint of everything that happened.
fn walk(number: u64) -> u64 {
    let mut walk = Walk::new(number);
    walk.world.entitle(&format!("walk {number}"));
    for _ in 0..MOVES {
        walk.make_move();
        walk.check();
    }
    walk.end();
    walk.world.transcript()
}

struct Walk {
    world: World,
    dice: Dice,
    /// The password each account has at the PBX.
    passwords: BTreeMap<&'static str, String>,
    asked: Vec<u64>,
}

impl Walk {
    fn new(number: u64) -> Self {
        let mut dice = Dice::new(number.wrapping_mul(31) + 5);
        let shards = u16::try_from(dice.below(3) + 1).expect("few shards");
        let mut world = World::new(seed(number)).with_shards(shards).with_policy(|policy| {
            policy.limits.dialog_max = hours(2);
            policy.limits.devices_per_account = 2;
        });
        for name in NAMES {
            world.add_phone(name);
            let transport = *dice.pick(&[Transport::Udp, Transport::Udp, Transport::Tcp, Transport::Tls]);
            let phone = world.phone(name);
            phone.transport = transport;
            // A token may be replaced while its last REGISTER is on its way.
            phone.stubborn = false;
            phone.platform = if matches!(name, "alice" | "carol" | "watch" | "desk") { "ios" } else { "android" };
        }
        world.pbx().mailbox.state = Some("Messages-Waiting: yes\r\nVoice-Message: 1/0\r\n".to_owned());
        world.run_for(millis(1));
        world.pbx().registrar.one_contact = dice.chance(15);
        let passwords = USERS.map(|name| (name, password_of(name))).into_iter().collect();
        Self { world, dice, passwords, asked: Vec::new() }
    }

    fn make_move(&mut self) {
        match self.dice.below(100) {
            0..24 => self.pass_time(),
            24..38 => self.place_call(),
            38..48 => self.caller_acts(),
            48..62 => self.phone_acts(),
            62..74 => self.app_acts(),
            74..82 => self.provider_changes(),
            82..90 => self.registrar_changes(),
            90..95 => self.wire_changes(),
            95..98 => self.strangers_act(),
            _ => self.senders_act(),
        }
    }

    fn pass_time(&mut self) {
        let span = match self.dice.below(12) {
            0..5 => millis(self.dice.below(300)),
            5..9 => secs(self.dice.below(20)),
            9 => secs(self.dice.below(120)),
            10 => minutes(self.dice.below(30)),
            _ => {
                let span = minutes(self.dice.below(240));
                if self.dice.chance(20) {
                    return self.world.suspend(span);
                }
                span
            }
        };
        self.world.run_for(span);
    }

    fn name(&mut self) -> &'static str {
        let place = self.dice.below(NAMES.len() as u64);
        NAMES[usize::try_from(place).expect("a place")]
    }

    fn user(&mut self) -> &'static str {
        let name = self.name();
        user_of(name)
    }

    fn place_call(&mut self) {
        let name = self.user();
        if self.world.pbx().capability(name).is_none() {
            return;
        }
        let mut invite = Invite::to(name);
        if self.dice.chance(30) {
            invite = invite.record_routed();
        }
        if self.dice.chance(10) {
            invite = invite.requiring("100rel");
        }
        if self.dice.chance(15) {
            invite = invite.expiring(u32::try_from(self.dice.below(40) + 5).expect("small"));
        }
        if self.dice.chance(10) {
            invite = invite.calling_from("198.51.100.10:5070");
        }
        let call = self.world.pbx().invite(invite);
        if self.dice.chance(10) {
            self.world.pbx().invite_copy(call);
        }
    }

    fn caller_acts(&mut self) {
        let calls: Vec<(Call, bool, bool)> = {
            let of_user = self.world.pbx().calls().filter(|(_, it)| !it.user.is_empty());
            of_user
                .map(|(call, it)| (call, it.is_up(), it.cancelled || it.heard.iter().any(|&code| code >= 200)))
                .collect()
        };
        if calls.is_empty() {
            return;
        }
        let (call, up, over) = *self.dice.pick(&calls);
        match (up, over) {
            (true, _) => match self.dice.below(4) {
                0 => self.world.pbx().inside(call, Method::Info, b""),
                1 => self.world.pbx().inside(call, Method::Invite, b"v=0\r\n"),
                2 => self.world.pbx().inside(call, Method::Update, b""),
                _ => self.world.pbx().hang_up(call),
            },
            (false, false) => {
                let reason = self.dice.chance(40).then_some(ELSEWHERE);
                self.world.pbx().cancel_because(call, reason);
            }
            (false, true) => {}
        }
    }

    fn phone_acts(&mut self) {
        let name = self.name();
        let choice = self.dice.below(10);
        let manner = *self.dice.pick(&[
            Manner::Media,
            Manner::Answer(secs(2)),
            Manner::Answer(millis(10)),
            Manner::Ring,
            Manner::Refuse(486, secs(1)),
            Manner::Refuse(503, millis(5)),
            Manner::Dead,
            Manner::AnswerAtCancel,
        ]);
        let boot = millis(self.dice.below(8000));
        let phone = self.world.phone(name);
        if phone.account.is_none() {
            return;
        }
        match choice {
            0 => phone.manner = manner,
            1 => phone.attach(),
            2 => phone.detach(),
            3 => phone.lose_flow(),
            4 => phone.reattach(),
            5 => phone.crash(),
            6 => phone.boot = boot,
            7 => phone.speak(Method::Invite, b"v=0\r\n"),
            8 => phone.speak(Method::Info, b""),
            _ => {
                phone.hang_up();
                phone.merges = !phone.merges;
            }
        }
    }

    fn app_acts(&mut self) {
        let name = self.name();
        if self.world.phone(name).account.is_none() || self.dice.chance(45) {
            return self.hand_over(name);
        }
        let (id, token) = self.world.key_of(name);
        let command = match self.dice.below(12) {
            0 => Command::Erase(id, token),
            1 => Command::Refresh(id, token),
            2 | 3 => Command::Rectify(id, token, Box::new(self.rectification(name))),
            4 => Command::Data(id, token),
            5 => Command::BeginTest(id, token),
            6 => {
                let Some(test) = self.world.last_test() else { return };
                Command::TestArrived(id, token, test)
            }
            7 | 8 => Command::Foreground(id, token, *self.dice.pick(&[Parting::Release, Parting::Keep])),
            _ => {
                let Some(call) = self.world.calls_of(user_of(name)).pop() else { return };
                let reason =
                    *self.dice.pick(&[DeclineReason::Busy, DeclineReason::Decline, DeclineReason::Unavailable]);
                let decline = Decline { reason, everywhere: self.dice.chance(40) };
                Command::Decline(id, token, call, decline)
            }
        };
        let asked = self.world.command(command);
        self.asked.push(asked);
    }

    fn rectification(&mut self, name: &'static str) -> Rectification {
        let mut change = Rectification::default();
        match self.dice.below(4) {
            0 => change.push = Some(targets(&format!("push-token-{name}"))),
            1 => {
                let text = if self.dice.chance(50) { "a typo" } else { &self.passwords[user_of(name)] };
                change.material = Some(password(text));
            }
            2 => change.preferences = Some(self.preferences()),
            _ => {
                let offer = self.offer(name);
                change.account = Some(offer.account);
                change.material = self.dice.chance(70).then_some(offer.material);
            }
        }
        change
    }

    fn preferences(&mut self) -> Preferences {
        Preferences {
            mode: *self.dice.pick(&[Mode::Always, Mode::Always, Mode::Background, Mode::Takeover]),
            hand_over: if self.dice.chance(15) { CallHandOver::Reregister } else { CallHandOver::Relay },
            voicemail_subscribe: self.dice.chance(30),
        }
    }

    fn offer(&mut self, name: &'static str) -> HandOver {
        let mut offer = self.world.offer(name);
        offer.account = account(user_of(name));
        offer.material = password(if self.dice.chance(15) { "a guess" } else { &self.passwords[user_of(name)] });
        if self.dice.chance(20) {
            let port = if self.dice.chance(50) { ":5060" } else { "" };
            offer.account.registrar = registrar(&format!("sip:198.51.100.10{port};transport=tcp"));
        }
        if self.dice.chance(15) {
            offer.account.contact_style = ContactStyle::Username;
        }
        if self.dice.chance(20) {
            offer.lease = minutes(self.dice.below(2000) + 1);
        }
        offer.preferences = self.preferences();
        offer
    }

    fn hand_over(&mut self, name: &'static str) {
        let offer = self.offer(name);
        let asked = self.world.hand_over_this(name, offer);
        self.asked.push(asked);
    }

    /// Texts, and news of mailboxes.
    fn senders_act(&mut self) {
        let phone = self.name();
        let name = user_of(phone);
        if self.world.pbx().capability(name).is_none() {
            return;
        }
        let number = self.dice.below(5);
        let text = Text::to(name, &"x".repeat(usize::try_from(number * 2500).expect("small")));
        let text = match self.dice.below(6) {
            0 => Text::news(name, &format!("Messages-Waiting: yes\r\nVoice-Message: {number}/1\r\n")),
            1 => text.of_type("application/im-iscomposing+xml"),
            2 => text.of_type("message/imdn+xml").with("Expires", "30"),
            3 => text.named("always-the-same"),
            _ => text,
        };
        self.world.pbx().text(text);
        self.world.phone(phone).telling = *self.dice.pick(&[200, 200, 200, 503, 486]);
    }

    fn provider_changes(&mut self) {
        let name = self.name().to_owned();
        let delay = millis(self.dice.below(6000));
        let since = self.dice.chance(50).then_some(crate::world::WALL_START);
        let mode = match self.dice.below(9) {
            0..3 => PushMode::Accept(delay),
            3 => PushMode::Swallow(delay),
            4 => PushMode::DeliverAndFail,
            5 => PushMode::Answer(PushOutcome::Theirs("503".to_owned())),
            6 => PushMode::Answer(PushOutcome::NotSent),
            7 => PushMode::Answer(PushOutcome::TokenRejected("400 BadDeviceToken".to_owned())),
            _ => PushMode::Answer(PushOutcome::TokenDead { since }),
        };
        self.world.push_modes.insert(name, mode);
    }

    fn registrar_changes(&mut self) {
        let name = self.user();
        let verdict = match self.dice.below(10) {
            0..6 => Verdict::Fair,
            6 => Verdict::Silent,
            7 => Verdict::Code(503, Some(u32::try_from(self.dice.below(300)).expect("small"))),
            8 => Verdict::Code(403, None),
            _ => Verdict::NeverContent,
        };
        let nonces = *self.dice.pick(&[NonceLife::Forever, NonceLife::For(secs(32)), NonceLife::OneRequest]);
        let dials = *self.dice.pick(&[Dials::User, Dials::Contact, Dials::Bare]);
        let choice = self.dice.below(8);
        let changed = format!("secret {}", self.dice.below(1000));
        let pbx = self.world.pbx();
        match choice {
            0 | 1 => pbx.registrar.verdict = verdict,
            2 => pbx.registrar.nonces = nonces,
            3 => pbx.forget_bindings(),
            4 => self.world.break_connections(address(PBX)),
            5 => pbx.registrar.dials = dials,
            6 => pbx.add_desk(name, &format!("sip:{name}@10.0.0.9:5062"), minutes(20)),
            _ => {
                pbx.set_password(name, &changed);
                self.passwords.insert(name, changed);
            }
        }
    }

    fn wire_changes(&mut self) {
        self.world.wire = match self.dice.below(3) {
            0 => Wire::default(),
            1 => Wire { latency: millis(20), jitter: millis(self.dice.below(800)), loss: 10, doubled: 10 },
            _ => Wire { latency: millis(5), jitter: millis(50), loss: 30, doubled: 30 },
        };
    }

    fn strangers_act(&mut self) {
        match self.dice.below(3) {
            0 => self.world.stranger_sends("8.8.8.8:5060", b"OPTIONS sip:100@192.0.2.5 SIP/2.0\r\n\r\n"),
            1 if !self.world.sent.is_empty() => {
                // Something we once sent comes back to us.
                let place = usize::try_from(self.dice.below(self.world.sent.len() as u64)).expect("a place");
                let bytes = self.world.sent[place].2.clone();
                self.world.stranger_sends("8.8.8.8:5060", &bytes);
            }
            _ => {
                let name = self.user();
                if let Some(capability) = self.world.pbx().capability(name) {
                    let uri = format!("sip:{capability}@192.0.2.5");
                    let method = *self.dice.pick(&[Method::Options, Method::Notify, Method::Bye, Method::Update]);
                    self.world.pbx().outside(method, &uri, &[]);
                }
            }
        }
    }

    fn check(&mut self) {
        let tables = self.world.tables();
        let (leases, vault) = (tables["leases"], tables["vault"]);
        assert_eq!(tables["bindings"], tables["leases.benches"], "{tables:?}");
        assert_eq!(tables["leases.capabilities"], tables["leases.benches"], "{tables:?}");
        assert_eq!(tables["leases.accounts"], leases, "{tables:?}");
        assert!(tables["leases.benches"] <= leases && tables["leases.ways"] <= tables["leases.benches"], "{tables:?}");
        assert!(tables["names"] <= tables["bindings"] && tables["erasures.asides"] <= leases, "{tables:?}");
        assert!(vault >= leases, "an instance without its secret: {tables:?}");
        assert!(
            vault <= leases + tables["erasures.under_way"] + tables["hand_overs.trials"],
            "a secret too many: {tables:?}"
        );
        for name in ["wakes.budgets", "wakes.notices", "wakes.tests"] {
            assert!(tables[name] <= leases, "{name}: {tables:?}");
        }
        assert!(tables["calls.held"] <= tables["calls.relays"], "{tables:?}");
        assert!(tables["vault.sealed"] <= tables["texts.held"], "{tables:?}");
        assert!(tables["mailboxes"] <= leases, "{tables:?}");
    }

    /// Everything gets well again, everyone hangs up, and then nothing may be left of anything.
    fn end(&mut self) {
        let world = &mut self.world;
        world.wire = Wire::default();
        world.push_modes.clear();
        world.pbx().registrar.verdict = Verdict::Fair;
        for name in NAMES {
            let phone = world.phone(name);
            phone.wakes = false;
            phone.manner = Manner::Answer(secs(1));
            phone.give_up();
        }
        world.run_until_quiet();
        let unanswered = world.pbx().transactions.unanswered.clone();
        let open: Vec<String> = world
            .pbx()
            .calls()
            .filter(|(_, call)| call.heard.iter().all(|&code| code < 200))
            .filter(|(_, call)| !unanswered.iter().any(|it| it.bytes() == call.invite.bytes()))
            .map(|(call, _)| format!("{call:?}"))
            .collect();
        assert!(open.is_empty(), "no final: {open:?}");
        // Who heard something and then waited in vain had bad luck.
        let bad_luck = world.bad_luck.clone();
        for (call, state) in world.pbx().calls() {
            let in_vain = !state.heard.is_empty() && state.heard.iter().all(|&code| code < 200);
            let excused = matches!(state.path, Path::Stream(_)) || bad_luck.contains(&call_id(&state.invite));
            assert!(!in_vain || excused, "{call:?} was left without a final");
        }
        for asked in &self.asked {
            assert!(world.answer(*asked).is_some(), "command {asked} was never answered");
        }
        let up: Vec<Call> = world.pbx().calls().filter(|(_, call)| call.is_up()).map(|(call, _)| call).collect();
        for call in up {
            world.pbx().hang_up(call);
        }
        // Dialogs whose BYE was lost live on until their longest.
        world.run_for(hours(3));
        if self.dice.chance(50) {
            world.drain();
            world.run_until_quiet();
            assert_eq!(world.drained, usize::from(world.shards()));
        } else {
            for shard in 0..world.shards() {
                let command = Command::EraseAll { tenant: TENANT.into(), whom: Whom::Tenant };
                world.command_at(ShardId(shard), command);
            }
            world.run_until_quiet();
        }
        let sent = world.sent.len();
        world.run_for(hours(72));
        world.assert_no_request_since(sent);
        for name in USERS {
            assert!(world.pbx().contacts(name).is_empty());
        }
        for name in EMPTY_AT_LAST {
            assert_eq!(world.table(name), 0, "{name}");
        }
    }
}
