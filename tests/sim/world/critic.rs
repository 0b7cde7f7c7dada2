//! What must hold of everything the engines send, whoever asked for it.

use std::collections::{BTreeMap, BTreeSet};

use reveille::engine::ids::{InstanceId, ShardId, WakeId};
use reveille::engine::input::PushPurpose;
use reveille::engine::output::{PushJob, WakeKind};
use reveille::engine::policy::Provider;
use reveille::sip::{HeaderName, Message, Method};

use crate::phone::through::OWN_REGISTER;
use crate::sip_text::{call_id, field};

/// A call and the instance it rings at.
type Ringing = (InstanceId, String);

/// Watches the engines.
#[derive(Default)]
pub(super) struct Critic {
    /// By Call-ID: the last CSeq of a REGISTER and its branch.
    registers: BTreeMap<String, (u32, String)>,
    /// Call-IDs under which we have un-registered.
    leaving: BTreeSet<String>,
    /// Call wakes that wait for their outcome.
    outstanding: BTreeMap<(ShardId, WakeId), Ringing>,
    /// Call wakes so far.
    wakes: BTreeMap<Ringing, u32>,
}

impl Critic {
    pub(super) fn judge_sent(&mut self, message: &Message) {
        assert!(message.extension("Server").is_none(), "tells what it is");
        if message.method() == Some(Method::Register) {
            // A phone's own that passes through us is as the phone made it.
            if !call_id(message).starts_with(OWN_REGISTER) {
                self.judge_register(message);
            }
        } else if message.method().is_some() && message.method() != Some(Method::Subscribe) {
            let ours = [HeaderName::Authorization, HeaderName::ProxyAuthorization];
            assert!(ours.iter().all(|name| message.header(*name).is_none()), "credentials outside a REGISTER");
        }
    }

    /// An account that an app took to the foreground gets its credentials again: its registrant comes back.
    pub(super) fn forgive(&mut self) {
        self.leaving.clear();
    }

    /// CSeq grows with each new request, and nothing follows an un-REGISTER but its own repetition or another one.
    fn judge_register(&mut self, register: &Message) {
        let id = call_id(register);
        let number = register.cseq().expect("CSeq").number;
        let branch = register.top_via().expect("a Via").branch().expect("a branch").to_owned();
        let expires = field(register, HeaderName::Expires);
        if let Some((last, known)) = self.registers.get(&id) {
            assert!(number > *last || (number == *last && branch == *known), "CSeq {number} after {last}");
        }
        assert!(expires == "0" || !self.leaving.contains(&id), "registers again after its erasure began");
        if expires == "0" {
            self.leaving.insert(id.clone());
        }
        self.registers.insert(id, (number, branch));
    }

    /// At most one call wake is outstanding for a call and device, and there are never more than three. A VoIP token
    /// carries nothing but calls.
    pub(super) fn judge_push(&mut self, shard: ShardId, job: &PushJob) {
        let voip = job.provider == Provider::Apns && job.purpose == PushPurpose::Call;
        assert!(!voip || job.kind == WakeKind::Call, "{:?} on a VoIP token", job.kind);
        let about_a_call = matches!(job.kind, WakeKind::Call | WakeKind::CallEnded | WakeKind::MissedCall);
        assert_eq!(job.call.is_some(), about_a_call, "{:?}", job.kind);
        let (WakeKind::Call, Some(call)) = (job.kind, job.call) else { return };
        let ringing = (job.instance, call.to_string());
        assert!(!self.outstanding.values().any(|other| *other == ringing), "two wakes at once for one call");
        let wakes = self.wakes.entry(ringing.clone()).or_default();
        *wakes += 1;
        assert!(*wakes <= 3, "a fourth wake for one call");
        self.outstanding.insert((shard, job.wake), ringing);
    }

    /// Whether a call wake of that call went to that instance.
    pub(super) fn woke(&self, instance: InstanceId, call: &str) -> bool {
        self.wakes.contains_key(&(instance, call.to_owned()))
    }

    pub(super) fn forget_push(&mut self, shard: ShardId, wake: WakeId) {
        self.outstanding.remove(&(shard, wake));
    }
}
