//! The `call` id: one name for an attempt to reach one device, which push, INVITE, log and API share.
//!
//! Its own room because the name must be the same for each retransmission, after a restart and in another process, so it is
//! computed from the INVITE alone, without random numbers or state. It is no secret. The caller chooses most of its parts,
//! therefore the instance id, which callers do not know, is one of them: a caller can neither foresee nor choose the name
//! of its call at a device. This room does not find calls by their names.

use super::callee::{Called, Callee};
use crate::engine::ids::{CallUuid, InstanceId};
use crate::sip::Message;

/// Name-based UUIDs (RFC 9562 §5.5): the namespace of `call` ids, itself a random UUID. It never changes.
const NAMESPACE: uuid::Uuid = uuid::uuid!("6d1a7c1e-52a5-4b8f-9a6e-3c0e2f7b9d41");

/// What all names of one INVITE have in common.
pub(super) struct Naming(Vec<u8>);

impl Naming {
    /// Call-ID, From tag and CSeq number tell an attempt of the caller from its others; the branch of the topmost Via, in
    /// lower case, tells a proxy that tries again from one that repeats itself.
    pub(super) fn of(invite: &Message) -> Self {
        let mut parts = Self(Vec::with_capacity(160));
        parts.add(invite.call_id().unwrap_or_default());
        parts.add(invite.from().ok().and_then(|from| from.tag()).unwrap_or_default().as_bytes());
        let number = invite.cseq().map_or(0, |cseq| cseq.number);
        parts.add(number.to_string().as_bytes());
        let branch = invite.top_via().ok().and_then(|via| via.branch()).unwrap_or_default();
        parts.add(branch.to_ascii_lowercase().as_bytes());
        parts
    }

    /// The name at a device.
    pub(super) fn at(&self, instance: InstanceId) -> CallUuid {
        let mut parts = Self(self.0.clone());
        parts.add(instance.to_string().as_bytes());
        CallUuid(uuid::Uuid::new_v5(&NAMESPACE, &parts.0))
    }

    /// A callee, under its own name.
    pub(super) fn called(&self, callee: Callee) -> Called {
        let uuid = self.at(callee.instance);
        Called::new(callee, uuid)
    }

    /// With its length in front (32 bits, big-endian), so that no two lists of parts give one name.
    fn add(&mut self, part: &[u8]) {
        let length = u32::try_from(part.len()).unwrap_or(u32::MAX);
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ids::ShardId;

    fn instance(number: u8) -> InstanceId {
        InstanceId::mint(ShardId(0), [number; 16])
    }

    fn name(call_id: &str, tag: &str, cseq: u32, branch: &str, at: u8) -> String {
        let invite = format!(
            "INVITE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP c;branch={branch}\r\nFrom: <sip:c@d>;tag={tag}\r\nTo: <sip:a@b>\r\n\
             Call-ID: {call_id}\r\nCSeq: {cseq} INVITE\r\n\r\n"
        );
        let invite = Message::parse_datagram(invite.into_bytes()).expect("SIP");
        Naming::of(&invite).at(instance(at)).to_string()
    }

    #[test]
    fn an_attempt_has_one_name_for_ever_and_any_other_has_another() {
        let first = name("1", "2", 3, "z9hG4bKa", 1);
        assert_eq!(first, "a0a34fee-2c70-5e5e-96f9-8576cfb5734c", "the same in every process and release");
        assert_eq!(first, name("1", "2", 3, "Z9HG4BKA", 1), "the case of a branch says nothing");
        for other in [
            name("2", "2", 3, "z9hG4bKa", 1),
            name("1", "3", 3, "z9hG4bKa", 1),
            name("1", "2", 4, "z9hG4bKa", 1),
            name("1", "2", 3, "z9hG4bKb", 1),
            name("1", "2", 3, "z9hG4bKa", 2),
            name("12", "3", 3, "z9hG4bKa", 1),
            name("1", "23", 3, "z9hG4bKa", 1),
        ] {
            assert_ne!(first, other);
        }
    }
}
