//! What callers, phones and those who send texts do.

use reveille::sip::Method;

use super::{Walk, user_of};
use crate::pbx::{Call, Invite, Text};
use crate::phone::Manner;
use crate::world::{millis, secs};

const ELSEWHERE: &str = "SIP;cause=200;text=\"Call completed elsewhere\"";

impl Walk {
    pub(super) fn place_call(&mut self) {
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

    pub(super) fn caller_acts(&mut self) {
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

    pub(super) fn phone_acts(&mut self) {
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

    /// Texts, and news of mailboxes.
    pub(super) fn senders_act(&mut self) {
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
}
