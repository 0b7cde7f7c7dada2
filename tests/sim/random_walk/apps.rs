//! What apps ask over HTTPS, in any order: hand-overs, changes, leaving, declining.

use reveille::engine::account::ContactStyle;
use reveille::engine::input::{
    CallHandOver, Command, Decline, DeclineReason, HandOver, Mode, Parting, Preferences, Rectification,
};

use super::{Walk, user_of};
use crate::world::build::{account, password, registrar, targets};
use crate::world::minutes;

impl Walk {
    pub(super) fn app_acts(&mut self) {
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
                let Some(call) = self.world.calls_at(name, user_of(name)).pop() else { return };
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
        if let Some(count) = &mut self.installations
            && self.dice.chance(40)
        {
            *count += 1;
            offer.device = format!("{}-again-{count}", offer.device);
        }
        offer
    }

    fn hand_over(&mut self, name: &'static str) {
        let offer = self.offer(name);
        let asked = self.world.hand_over_this(name, offer);
        self.asked.push(asked);
    }
}
