//! Who rings for whom: what must hold of every call, whoever calls and however many phones it forks to.
//!
//! Everything is judged where messages enter and leave the engines, so that no loss on the wire excuses them.

use std::collections::BTreeMap;
use std::time::Duration;

use reveille::clock::Instant;
use reveille::engine::ids::{CallUuid, InstanceId};
use reveille::sip::timers::TRANSACTION_TIMEOUT;
use reveille::sip::{HeaderName, Message, Method};

use crate::sip_text::{call_id, field};

/// One call to one account: Call-ID, From tag, whom it is for.
type Called = (String, String, String);

/// An INVITE of the PBX.
#[derive(Default)]
struct Upstream {
    /// Its CSeq number.
    cseq: u32,
    /// The engines answered it, be it with 100. Until then no CANCEL may come (RFC 3261 §9.1), and one that does finds an
    /// INVITE that was perhaps met with silence, and will be repeated.
    taken: bool,
    /// The engines had its CANCEL, or sent its final.
    over: bool,
    /// It has a refusal whose ACK did not come: where nothing was kept of it, the next repetition is answered anew.
    refused: bool,
    /// Until then its CANCEL may be on its way from the shard it reached first to the one that holds it.
    passed_on_until: Option<Instant>,
    /// The To tag of the 2xx.
    answer: Option<String>,
}

/// An INVITE of ours to a phone.
struct Leg {
    called: Called,
    phone: String,
    sent: Instant,
    ringing: bool,
    /// It has its final, or our CANCEL.
    over: bool,
    /// Its flow is gone, and the INVITE was not sent on another.
    lost: bool,
}

/// Watches calls.
#[derive(Default)]
pub(super) struct Ringing {
    upstream: BTreeMap<Called, BTreeMap<String, Upstream>>,
    /// By branch.
    legs: BTreeMap<String, Leg>,
    /// Phones that must have their CANCEL by then, by branch.
    cancels_due: BTreeMap<String, Instant>,
    /// 2xx of phones that must be passed on or hung up by then: Call-ID and tag, and the branch.
    answers_due: BTreeMap<(String, String), (Instant, String)>,
}

impl Ringing {
    /// A message of a PBX reaches the engines.
    pub(super) fn hear_pbx(&mut self, message: &Message, by: Instant) {
        let called = called(message);
        match message.method() {
            Some(Method::Invite) if tag(message).is_none() => {
                let it = self.upstream.entry(called).or_default().entry(branch(message)).or_default();
                it.cseq = message.cseq().expect("CSeq").number;
                it.over &= !std::mem::take(&mut it.refused);
            }
            Some(Method::Ack) => {
                // The ACK of a refusal has the branch of its INVITE.
                if let Some(it) = self.upstream.get_mut(&called).and_then(|it| it.get_mut(&branch(message))) {
                    it.refused = false;
                }
            }
            Some(Method::Cancel) if self.is_taken(&called, &branch(message)) => self.end(&called, &branch(message), by),
            _ => {}
        }
    }

    /// A CANCEL that calls somebody by name reaches the shard that holds the call by then.
    pub(super) fn pass_on(&mut self, cancel: &Message, until: Instant) {
        let upstream = self.upstream.get_mut(&called(cancel)).and_then(|it| it.get_mut(&branch(cancel)));
        if let Some(it) = upstream.filter(|it| it.passed_on_until.is_none()) {
            it.passed_on_until = Some(until);
        }
    }

    /// A message of a phone reaches the engines.
    pub(super) fn hear_phone(&mut self, message: &Message, by: Instant) {
        let Some(code) = message.status() else { return };
        let name = branch(message);
        // What comes by another way than its flow, which is gone, counts once it has attached again.
        let Some(leg) = self.legs.get_mut(&name).filter(|leg| is_of_invite(message) && !leg.lost) else { return };
        // An INVITE that nobody answered in time is over, and what is said about it later is nobody's business.
        if leg.sent + TRANSACTION_TIMEOUT <= by && !leg.ringing {
            leg.over = true;
        }
        if code.is_provisional() {
            leg.ringing = true;
        } else {
            let first = !leg.over || self.cancels_due.contains_key(&name);
            leg.over = true;
            self.cancels_due.remove(&name);
            if let (true, true, Some(tag)) = (first, code.is_success(), tag(message)) {
                self.answers_due.entry((call_id(message), tag)).or_insert((by, name.clone()));
            }
        }
        self.judge_leg(&name, by);
    }

    /// The engines send something to a PBX.
    pub(super) fn judge_upstream(&mut self, message: &Message, by: Instant) {
        let Some(code) = message.status().filter(|_| is_of_invite(message)) else { return };
        let (called, name) = (called(message), branch(message));
        if let Some(it) = self.upstream.get_mut(&called).and_then(|it| it.get_mut(&name)) {
            it.taken = true;
            it.refused |= !it.over && !code.is_provisional() && !code.is_success();
        }
        if code.is_provisional() {
            return;
        }
        if code.is_success() {
            let tag = tag(message).expect("a tag in a 2xx");
            self.answers_due.remove(&(call_id(message), tag.clone()));
            if let Some(it) = self.upstream.get_mut(&called).and_then(|it| it.get_mut(&name)) {
                let first = it.answer.get_or_insert_with(|| tag.clone());
                assert_eq!(*first, tag, "two answers to one INVITE");
            }
        }
        self.end(&called, &name, by);
    }

    /// The engines send something to a phone.
    pub(super) fn judge_downstream(&mut self, message: &Message, phone: &str, now: Instant, by: Instant) {
        let name = branch(message);
        match message.method() {
            Some(Method::Invite) if tag(message).is_none() => {
                let leg = || Leg {
                    called: called(message),
                    phone: phone.to_owned(),
                    sent: now,
                    ringing: false,
                    over: false,
                    lost: false,
                };
                let leg = self.legs.entry(name.clone()).or_insert_with(leg);
                // After an attach the INVITE begins anew: its CANCEL waits for a word again (RFC 3261 section 9.1).
                (leg.lost, leg.ringing) = (false, false);
                self.cancels_due.remove(&name);
                self.judge_leg(&name, by);
            }
            Some(Method::Cancel) => {
                self.cancels_due.remove(&name);
                if let Some(leg) = self.legs.get_mut(&name) {
                    leg.over = true;
                }
            }
            Some(Method::Bye) => {
                let tag = tag(message).unwrap_or_default();
                self.answers_due.remove(&(call_id(message), tag));
            }
            _ => {}
        }
    }

    /// Whether an INVITE of that call, by its name at one of these, waits for its final.
    pub(super) fn waits(&self, instances: &[InstanceId], call: CallUuid, now: Instant) -> bool {
        self.of(instances, call).is_some_and(|it| !it.over || it.passed_on_until.is_some_and(|until| now <= until))
    }

    /// Whether that call ever came in.
    pub(super) fn knows(&self, instances: &[InstanceId], call: CallUuid) -> bool {
        self.of(instances, call).is_some()
    }

    /// A phone's flow is gone: nothing can be told on it any more.
    pub(super) fn lose(&mut self, phone: &str) {
        for (name, leg) in self.legs.iter_mut().filter(|(_, leg)| leg.phone == phone) {
            leg.lost = true;
            self.cancels_due.remove(name);
            self.answers_due.retain(|_, (_, branch)| branch != name);
        }
    }

    /// The machine slept.
    pub(super) fn sleep(&mut self, span: Duration) {
        let dues = self.cancels_due.values_mut().chain(self.answers_due.values_mut().map(|(due, _)| due));
        for due in dues {
            *due = *due + span;
        }
    }

    /// The clock is about to move on.
    pub(super) fn judge_time(&self, now: Instant) {
        for (name, due) in &self.cancels_due {
            let leg = &self.legs[name];
            assert!(*due >= now, "{} goes on ringing for a call that is over: {:?}", leg.phone, leg.called);
        }
        for ((call, tag), (due, _)) in &self.answers_due {
            assert!(*due >= now, "the answer {tag} of {call} was neither passed on nor hung up");
        }
    }

    fn is_taken(&self, called: &Called, name: &str) -> bool {
        self.upstream.get(called).and_then(|it| it.get(name)).is_some_and(|it| it.taken)
    }

    fn end(&mut self, called: &Called, name: &str, by: Instant) {
        let Some(it) = self.upstream.get_mut(called).and_then(|it| it.get_mut(name)) else { return };
        it.over = true;
        let legs: Vec<String> =
            self.legs.iter().filter(|(_, leg)| leg.called == *called).map(|(name, _)| name.clone()).collect();
        for leg in legs {
            self.judge_leg(&leg, by);
        }
    }

    /// Who rings for a call that is over must hear so.
    fn judge_leg(&mut self, name: &str, by: Instant) {
        let Some(leg) = self.legs.get(name).filter(|leg| leg.ringing && !leg.over && !leg.lost) else { return };
        let over = self.upstream.get(&leg.called).is_none_or(|it| it.values().all(|it| it.over));
        if over {
            self.cancels_due.entry(name.to_owned()).or_insert(by);
        }
    }

    fn of(&self, instances: &[InstanceId], call: CallUuid) -> Option<&Upstream> {
        let attempts = || self.upstream.iter().flat_map(|(called, it)| it.iter().map(move |it| (called, it)));
        let at = |instance: &InstanceId| {
            let is_it = |((id, tag, _), (branch, it)): &(&Called, (&String, &Upstream))| {
                name_of([id, tag, &it.cseq.to_string(), branch], *instance) == call
            };
            attempts().find(is_it)
        };
        instances.iter().find_map(at).map(|(_, (_, it))| it)
    }
}

/// The `call` id of an INVITE at an instance.
pub(super) fn uuid_of(invite: &Message, instance: InstanceId) -> CallUuid {
    let ((id, tag, _), cseq) = (called(invite), invite.cseq().expect("CSeq").number.to_string());
    name_of([&id, &tag, &cseq, &branch(invite)], instance)
}

/// As docs/api.md has it.
fn name_of([call_id, tag, cseq, branch]: [&str; 4], instance: InstanceId) -> CallUuid {
    let namespace = uuid::uuid!("6d1a7c1e-52a5-4b8f-9a6e-3c0e2f7b9d41");
    let mut name = Vec::new();
    for part in [call_id, tag, cseq, &branch.to_lowercase(), &instance.to_string()] {
        name.extend_from_slice(&u32::try_from(part.len()).expect("short").to_be_bytes());
        name.extend_from_slice(part.as_bytes());
    }
    CallUuid(uuid::Uuid::new_v5(&namespace, &name))
}

fn called(message: &Message) -> Called {
    let from = message.from().ok().and_then(|from| from.tag().map(str::to_owned)).unwrap_or_default();
    let to = field(message, HeaderName::To);
    let to = to.split(";tag=").next().unwrap_or_default().to_owned();
    (message.call_id().map(|_| call_id(message)).unwrap_or_default(), from, to)
}

fn branch(message: &Message) -> String {
    message.top_via().ok().and_then(|via| via.branch().map(str::to_owned)).unwrap_or_default()
}

fn tag(message: &Message) -> Option<String> {
    message.to().ok()?.tag().map(str::to_owned)
}

fn is_of_invite(message: &Message) -> bool {
    message.cseq().is_ok_and(|cseq| cseq.method == Method::Invite)
}
