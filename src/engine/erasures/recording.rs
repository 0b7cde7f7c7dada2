//! What is written down of an instance: the record of its erasure, and those of any other event of its life.
//!
//! A record names its instance by an HMAC under the instance's salt, which ends with it; no credential comes here, only the
//! proof that one was wiped.

use std::fmt::Write as _;

use aws_lc_rs::hmac;

use crate::clock::Now;
use crate::engine::account::TenantId;
use crate::engine::audit::{AuditRecord, Cause, Ending, LifeEvent, Unregister, WakeCounts};
use crate::engine::ids::{InstanceId, RecordId};
use crate::engine::instance::Instance;
use crate::engine::output::{ReceiptJob, RecordJob};
use crate::vault::WipeReceipt;

/// What the record needs of the instance.
pub(super) struct Subject {
    pub(super) instance: InstanceId,
    pub(super) tenant: TenantId,
    pub(super) salt: [u8; 32],
    pub(super) wakes: WakeCounts,
}

impl Subject {
    pub(super) fn record(
        self,
        proof: WipeReceipt,
        cause: Cause,
        unregister: Unregister,
        id: RecordId,
        now: Now,
    ) -> RecordJob {
        let Self { instance, tenant, salt, wakes } = self;
        let end = Ending { cause, unregister, wakes };
        RecordJob {
            record: AuditRecord::erased(proof, end, subject(instance, &salt), &tenant, now.wall),
            receipt: Some(ReceiptJob { id, instance, salt }),
        }
    }
}

/// How an instance appears in records: an HMAC of its id under its salt.
fn subject(instance: InstanceId, salt: &[u8; 32]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, salt);
    let tag = hmac::sign(&key, instance.to_string().as_bytes());
    tag.as_ref().iter().fold(String::with_capacity(64), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String never refuses");
        text
    })
}

/// A record of any other life event.
pub(crate) fn life_record(instance: &Instance, event: LifeEvent, now: Now) -> RecordJob {
    let subject = subject(instance.id, &instance.salt);
    RecordJob { record: AuditRecord::life(event, subject, &instance.tenant, now.wall), receipt: None }
}
