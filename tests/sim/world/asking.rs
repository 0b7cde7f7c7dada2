//! Asking the engines as the API does, and what they answer.

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
        if self.foreground && matches!(command, Command::HandOver(_) | Command::Resume(..)) {
            self.critic.forgive();
        }
        self.asked += 1;
        let asked = self.asked;
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
    }
}
