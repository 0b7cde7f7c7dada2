//! Asking the engines as the API does, and what they answer.

use reveille::engine::account::Account;

use super::*;
use reveille::engine::input::Whom;

impl World {
    /// Asks the engines; the answer comes by `answer`.
    pub fn command(&mut self, command: Command) -> u64 {
        self.start();
        let shard = match &command {
            Command::HandOver(hand_over) => {
                let account = &hand_over.account;
                self.placement.account(&hand_over.tenant, &account.aor, &account.registrar.text)
            }
            Command::Show(id, ..)
            | Command::Rectify(id, ..)
            | Command::Refresh(id, ..)
            | Command::Foreground(id, ..)
            | Command::Erase(id, ..)
            | Command::Data(id, ..)
            | Command::Restrict(id, ..)
            | Command::Resume(id, ..)
            | Command::Consent(id, ..)
            | Command::ReadTrace(id, ..)
            | Command::WithdrawTrace(id, ..)
            | Command::ReadTraceAsTenant(_, id)
            | Command::Call(id, ..)
            | Command::Decline(id, ..)
            | Command::BeginTest(id, ..)
            | Command::Test(id, ..)
            | Command::TestArrived(id, ..)
            | Command::Prove(id, ..) => id.shard(),
            Command::EraseAll { whom: Whom::Instance(id), .. } => id.shard(),
            Command::EraseAll { .. } | Command::Stories { .. } => {
                panic!("ask every shard: `erase_all`, `ask_every_shard`")
            }
        };
        self.command_at(shard, command)
    }

    pub fn command_at(&mut self, shard: ShardId, command: Command) -> u64 {
        self.start();
        self.foreground |= matches!(command, Command::Foreground(..) | Command::Restrict(..));
        let brings_credentials = match &command {
            Command::HandOver(_) | Command::Resume(..) => true,
            Command::Rectify(_, _, change) => change.material.is_some(),
            _ => false,
        };
        self.asked += 1;
        let asked = self.asked;
        if brings_credentials {
            self.bringing.insert(asked);
            self.forgive();
        }
        self.story.tell(self.now.boot, &format!("ask {asked}: {}", gist(&command)));
        self.feed(shard, Input::Command(command, ReplyTo(asked)));
        asked
    }

    /// Asks each engine the same.
    pub fn ask_every_shard(&mut self, command: impl Fn() -> Command) -> Vec<u64> {
        (0..self.shards).map(|shard| self.command_at(ShardId(shard), command())).collect()
    }

    /// The answer to a command, once there is one.
    pub fn answer(&self, asked: u64) -> Option<&Answer> {
        self.answers.get(&asked)
    }

    pub fn refusal(&self, asked: u64) -> Option<Refusal> {
        match self.answer(asked)? {
            Answer::Refused(refusal) => Some(refusal.clone()),
            _ => None,
        }
    }

    pub fn handed_over(&self, asked: u64) -> &HandedOver {
        match self.answer(asked) {
            Some(Answer::HandedOver(handed_over)) => handed_over,
            Some(Answer::Refused(refusal)) => panic!("refused: {refusal:?}"),
            Some(_) => panic!("another answer"),
            None => panic!("no answer yet"),
        }
    }

    pub fn token_hash(token: &str) -> TokenHash {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes());
        TokenHash(digest.as_ref().try_into().expect("32 bytes"))
    }

    /// The instance of a phone and the hash of its token.
    pub fn key_of(&self, name: &str) -> (InstanceId, TokenHash) {
        let account = self.phones[name].account.as_ref().expect("handed over");
        (account.instance, Self::token_hash(&account.token))
    }

    /// Turns push off.
    pub fn delete(&mut self, name: &str) -> u64 {
        let (instance, token) = self.key_of(name);
        self.command(Command::Erase(instance, token))
    }

    pub fn show(&mut self, name: &str) -> u64 {
        let (instance, token) = self.key_of(name);
        self.command(Command::Show(instance, token))
    }

    /// Shuts down.
    pub fn drain(&mut self) {
        self.start();
        for shard in 0..self.shards {
            self.feed(ShardId(shard), Input::Drain);
        }
    }

    pub fn set_audit_writable(&mut self, writable: bool) {
        self.start();
        for shard in 0..self.shards {
            self.feed(ShardId(shard), Input::AuditWritable(writable));
        }
    }

    pub(super) fn take_answer(&mut self, asked: u64, answer: Answer) {
        let text = match &answer {
            Answer::HandedOver(it) => format!("handed over {:?}", it.registration),
            Answer::Refused(refusal) => format!("refused {refusal:?}"),
            Answer::Erased { logged, .. } => format!("erased, logged {logged}"),
            _ => "answered".to_owned(),
        };
        self.story.tell(self.now.boot, &format!("answer {asked}: {text}"));
        if let (Answer::HandedOver(it), Some(name)) = (&answer, self.waiting.remove(&asked)) {
            let phone = self.phones.get_mut(&name).expect("a phone");
            phone.account = Some(crate::phone::Handed {
                instance: it.instance,
                token: it.token.clone(),
                aor: it.attach.aor.clone(),
                realm: it.attach.realm.clone(),
            });
        }
        assert!(self.answers.insert(asked, answer).is_none(), "two answers to one command");
        self.forgive();
        self.bringing.remove(&asked);
    }

    /// Lets a registration that an app took over, or had restricted, come back with the credentials that are on their way to
    /// it: a command that brings some may have been asked before the one that took them.
    pub(super) fn forgive(&mut self) {
        if self.foreground && !self.bringing.is_empty() {
            self.critic.forgive();
        }
    }
}

/// A command in a few words, for the transcript; credentials left out.
fn gist(command: &Command) -> String {
    match command {
        Command::HandOver(it) => format!("hand over {} of {}: {}", it.account.aor, it.device, form(&it.account)),
        Command::Show(id, _) => format!("show {id}"),
        Command::Rectify(id, _, change) => {
            let account = change.account.as_ref().map(form);
            let (push, material) = (change.push.is_some(), change.material.is_some());
            format!("rectify {id}: {account:?} push {push} material {material} {:?}", change.preferences)
        }
        Command::Refresh(id, _) => format!("refresh {id}"),
        Command::Foreground(id, _, parting) => format!("foreground {id}: {parting:?}"),
        Command::Erase(id, _) => format!("erase {id}"),
        Command::Data(id, _) => format!("data {id}"),
        Command::Call(id, _, call) => format!("call {call} of {id}"),
        Command::Decline(id, _, call, decline) => format!("decline {call} of {id}: {decline:?}"),
        Command::BeginTest(id, _) | Command::Test(id, ..) | Command::TestArrived(id, ..) => format!("test of {id}"),
        Command::Prove(id, _, challenge) => {
            format!("prove {id}: {}", if challenge.is_some() { "an answer" } else { "another" })
        }
        Command::Stories { .. } => "stories".to_owned(),
        Command::Restrict(id, _) => format!("restrict {id}"),
        Command::Resume(id, _) => format!("resume {id}"),
        Command::Consent(id, _, consent) => format!("consent of {id}: {consent:?}"),
        Command::ReadTrace(id, _) | Command::ReadTraceAsTenant(_, id) => format!("read the trace of {id}"),
        Command::WithdrawTrace(id, _) => format!("withdraw the trace of {id}"),
        Command::EraseAll { whom, .. } => format!("erase {whom:?}"),
    }
}

fn form(account: &Account) -> String {
    let proxy = account.outbound_proxy.as_ref().map(|proxy| proxy.text.as_str());
    format!("{} by {proxy:?}, {:?}", account.registrar.text, account.contact_style)
}
