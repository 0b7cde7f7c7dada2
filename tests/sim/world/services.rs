//! The resolver, the push service and the audit log. Each question gets exactly one answer.

use super::*;
use crate::phone::through::OTHER_TOKEN;
use reveille::engine::account::{TrunkHost, TrunkUri};
use reveille::engine::audit::Receipt;
use reveille::engine::input::PushPurpose;
use reveille::engine::output::{PushJob, RecordJob, ToldCaller, WakeDetail, WakeKind};

/// How the push service treats what it gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushMode {
    /// Accepted after so long; the phone has it a moment later.
    Accept(Duration),
    /// Accepted, and never delivered.
    Swallow(Duration),
    /// This outcome.
    Answer(PushOutcome),
    /// Delivered, though the provider's answer is lost.
    DeliverAndFail,
}

/// A push as the service saw it.
#[derive(Clone)]
pub struct PushSeen {
    pub at: Instant,
    pub kind: WakeKind,
    pub call: Option<String>,
    pub token: String,
    pub purpose: PushPurpose,
    pub expires_at: WallTime,
    pub deadline: Instant,
    pub attach: String,
    pub caller: Option<ToldCaller>,
    pub detail: WakeDetail,
}

impl World {
    pub(super) fn locate(&mut self, shard: ShardId, query: QueryId, uri: &TrunkUri) {
        let answer = match &uri.host {
            TrunkHost::Name(name) => self.names.get(name).cloned().unwrap_or(Err(LocateFault::NoSuchName)),
            TrunkHost::Address(address) => {
                let port = uri.port.unwrap_or(5060);
                let transport = uri.transport.unwrap_or(reveille::sip::Transport::Udp);
                Ok(vec![Located { transport, address: SocketAddr::new(*address, port) }])
            }
        };
        let answer = answer.map(|found| {
            let wanted = |it: &Located| uri.transport.is_none_or(|transport| transport == it.transport);
            found.into_iter().filter(wanted).collect()
        });
        self.queries += 1;
        self.schedule(self.resolver_delay, Event::Located(shard, query, answer));
    }

    pub(super) fn push(&mut self, shard: ShardId, job: &PushJob) {
        // Handed over, or told in a Contact.
        let token = job.token.as_str().split('/').next().unwrap_or_default();
        let token = token.strip_prefix(OTHER_TOKEN).unwrap_or(token);
        let name = self.phones.values().find(|phone| token == phone.token);
        let name = name.map(|phone| phone.name.clone());
        let seen = PushSeen {
            at: self.now.boot,
            kind: job.kind,
            call: job.call.map(|call| call.to_string()),
            token: job.token.as_str().to_owned(),
            purpose: job.purpose,
            expires_at: job.expires_at,
            deadline: job.deadline,
            attach: job.attach.clone(),
            caller: job.caller.clone(),
            detail: job.detail,
        };
        self.story.tell(self.now.boot, &format!("push {:?} to {name:?}", job.kind));
        assert!(self.pushes_outstanding.insert((shard, job.wake)), "a wake id twice");
        self.critic.judge_push(shard, job);
        self.judge_cause(shard, job);
        let scripted = if job.kind == WakeKind::Call { self.push_script.pop_front() } else { None };
        let usual = || name.as_ref().and_then(|name| self.push_modes.get(name)).unwrap_or(&self.push_mode).clone();
        let mode = scripted.unwrap_or_else(usual);
        let wake = job.wake;
        match mode {
            PushMode::Accept(delay) => {
                self.schedule(delay, Event::Pushed(shard, wake, PushOutcome::Accepted));
                if let Some(name) = name {
                    self.schedule(delay + millis(40), Event::Arrived(name, seen.clone()));
                }
            }
            PushMode::Swallow(delay) => self.schedule(delay, Event::Pushed(shard, wake, PushOutcome::Accepted)),
            PushMode::Answer(outcome) => self.schedule(millis(50), Event::Pushed(shard, wake, outcome)),
            PushMode::DeliverAndFail => {
                let outcome = PushOutcome::Theirs("connection lost".to_owned());
                self.schedule(millis(100), Event::Pushed(shard, wake, outcome));
                if let Some(name) = name {
                    self.schedule(millis(40), Event::Arrived(name, seen.clone()));
                }
            }
        }
        self.pushes.push(seen);
    }

    pub(super) fn push_outcome(&mut self, shard: ShardId, wake: WakeId, outcome: PushOutcome) {
        self.pushes_outstanding.remove(&(shard, wake));
        self.critic.forget_push(shard, wake);
        self.story.tell(self.now.boot, &format!("push outcome {outcome:?}"));
        self.feed(shard, Input::Pushed(wake, outcome));
    }

    pub(super) fn record(&mut self, shard: ShardId, job: RecordJob) {
        self.story.tell(self.now.boot, &format!("record {:?}", job.record.event));
        if let Some(wanted) = job.receipt {
            let receipt = Receipt {
                v: 1,
                instance: wanted.instance.to_string(),
                salt: String::new(),
                record: serde_json::to_string(&job.record).expect("a record"),
                inclusion: None,
                key: String::new(),
                signature: format!("unsigned {}", self.records.len()),
            };
            let recorded = Recorded { receipt: Box::new(receipt), logged: self.audit_logged };
            self.records_waiting += 1;
            self.schedule(self.audit_delay, Event::Recorded(shard, wanted.id, recorded));
        }
        self.records.push(job.record);
    }

    /// The self-test that was pushed last.
    pub fn last_test(&self) -> Option<uuid::Uuid> {
        self.pushes.iter().rev().find_map(|push| match push.detail {
            WakeDetail::Test(test) => Some(test),
            _ => None,
        })
    }

    /// Pushes of that kind so far.
    pub fn pushed(&self, kind: WakeKind) -> usize {
        self.pushes.iter().filter(|push| push.kind == kind).count()
    }
}
