//! Summaries: what a tenant's administrator gets for an order that erased many instances, signed like a receipt.
//!
//! A summary names no instance beyond the one it may have been about; the log has a record of each, and each app gets the
//! receipt of its own. The signature covers text lines that anyone can put together; `docs/receipts.md` shows them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::encoding::{base64, unbase64};
use super::key::{PublicKey, Signer};
use crate::engine::account::TenantId;
use crate::engine::input::Whom;
use crate::engine::output::OrderView;

/// The version of the summary's form and of what is signed.
const SUMMARY_VERSION: u8 = 1;

/// Signed proof of what an order erased, verifiable offline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// Version of this form.
    pub v: u8,
    /// The tenant.
    pub tenant: String,
    /// `all`, the device, or the instance.
    pub whom: String,
    /// The cause that the records of the erasures name.
    pub cause: String,
    /// The version of the operator's policy, as in records.
    pub policy: String,
    /// When the order was given, RFC 3339 in UTC.
    pub begun: String,
    /// When its last instance was wiped and recorded, RFC 3339 in UTC.
    pub ended: String,
    /// Instances whose credentials were wiped.
    pub erased: u32,
    /// The same by what their registrars said, as in records; what never happened is left out.
    pub unregister: BTreeMap<String, u32>,
    /// Of those: whose record was on disk before the receipt was made.
    pub logged: u32,
    /// Registrations that passed through the service and were ended; no credentials are held for them.
    pub passed_through: u32,
    /// The log's public key (Ed25519, 32 bytes), base64.
    pub key: String,
    /// Ed25519 signature over the summary's lines, base64.
    pub signature: String,
}

/// Signs summaries with the log's key.
#[derive(Clone)]
pub struct Notary {
    pub(super) signer: Arc<Signer>,
    pub(super) policy: String,
}

impl Notary {
    /// The summary of an order that is done; `None` while it is not.
    ///
    /// The same order gets the same summary, signature included.
    #[must_use]
    pub fn summarize(&self, tenant: &TenantId, whom: &Whom, view: &OrderView) -> Option<Summary> {
        let ended = view.ended?;
        let mut summary = Summary {
            v: SUMMARY_VERSION,
            tenant: tenant.to_string(),
            whom: match whom {
                Whom::Tenant => "all".to_owned(),
                Whom::Device(device) => device.clone(),
                Whom::Instance(id) => id.to_string(),
            },
            cause: whom.cause().as_str().to_owned(),
            policy: self.policy.clone(),
            begun: view.begun.rfc3339(),
            ended: ended.rfc3339(),
            erased: view.erased(),
            unregister: view.unregister.iter().map(|(said, count)| (said.as_str().to_owned(), *count)).collect(),
            logged: view.logged,
            passed_through: view.passed,
            key: base64(&self.signer.public().0),
            signature: String::new(),
        };
        summary.signature = base64(&self.signer.sign(signed_text(&summary).as_bytes()));
        Some(summary)
    }

    /// The public key as PEM.
    #[must_use]
    pub fn public_key_pem(&self) -> String {
        self.signer.public().pem()
    }

    /// One with a key that nobody keeps.
    #[cfg(test)]
    pub(crate) fn of_nobody() -> Self {
        Self { signer: Arc::new(Signer::generate().expect("random bytes")), policy: "5eed".to_owned() }
    }
}

/// What the signature covers: every member but itself, a line each.
fn signed_text(summary: &Summary) -> String {
    let Summary {
        v,
        tenant,
        whom,
        cause,
        policy,
        begun,
        ended,
        erased,
        unregister,
        logged,
        passed_through,
        key,
        signature: _,
    } = summary;
    let mut text = format!(
        "reveille-summary/v{v}\n{tenant}\n{whom}\n{cause}\n{policy}\n{begun}\n{ended}\nerased {erased}\nlogged {logged}\n\
         passed-through {passed_through}\n"
    );
    for (said, count) in unregister {
        text.push_str(&format!("unregister {said} {count}\n"));
    }
    text.push_str(&format!("{key}\n"));
    text
}

/// Why a summary is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SummaryFault {
    Version,
    Form,
    OtherKey,
    Signature,
    Sum,
}

impl fmt::Display for SummaryFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Version => "the summary has a version this program does not know",
            Self::Form => "a member of the summary is not in its form",
            Self::OtherKey => "the summary was signed with another key",
            Self::Signature => "the summary's signature does not fit its content",
            Self::Sum => "the summary's counts do not add up",
        })
    }
}

/// What `DELETE /v1/tenants/self/instances` answers; only the summary is signed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answered {
    erased: u32,
    left: u32,
    summary: Summary,
}

/// Reads a summary, alone or as it was answered. `None`: it is something else.
pub(super) fn parse(bytes: &[u8]) -> Option<Summary> {
    if let Ok(Answered { erased, left, summary }) = serde_json::from_slice(bytes) {
        return (left == 0 && erased == summary.erased).then_some(summary);
    }
    serde_json::from_slice(bytes).ok()
}

/// Checks all a summary says; against `expected`, if given, else against the key it names itself.
pub(super) fn check(summary: &Summary, expected: Option<&PublicKey>) -> Result<PublicKey, SummaryFault> {
    if summary.v != SUMMARY_VERSION {
        return Err(SummaryFault::Version);
    }
    let key = PublicKey(unbase64(&summary.key).ok_or(SummaryFault::Form)?);
    if expected.is_some_and(|expected| *expected != key) {
        return Err(SummaryFault::OtherKey);
    }
    let Summary { tenant, whom, cause, policy, begun, ended, .. } = summary;
    let lines = [tenant, whom, cause, policy, begun, ended].into_iter().chain(summary.unregister.keys());
    if lines.into_iter().any(|member| member.contains('\n')) {
        return Err(SummaryFault::Form);
    }
    let signature = unbase64(&summary.signature).ok_or(SummaryFault::Form)?;
    if !key.verifies(signed_text(summary).as_bytes(), &signature) {
        return Err(SummaryFault::Signature);
    }
    let sum = summary.unregister.values().try_fold(0u32, |sum, count| sum.checked_add(*count));
    if sum != Some(summary.erased) || summary.logged > summary.erased {
        return Err(SummaryFault::Sum);
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::WallTime;
    use crate::engine::audit::Unregister;

    fn view() -> OrderView {
        OrderView {
            begun: WallTime::from_unix_millis(1_795_291_200_000),
            ended: Some(WallTime::from_unix_millis(1_795_291_202_000)),
            left: 0,
            unregister: BTreeMap::from([(Unregister::Confirmed, 2), (Unregister::Unanswered, 1)]),
            logged: 2,
            passed: 4,
        }
    }

    fn summary(notary: &Notary) -> Summary {
        notary.summarize(&"acme".into(), &Whom::Tenant, &view()).expect("it is done")
    }

    #[test]
    fn the_same_order_gets_the_same_summary_and_it_verifies_alone_and_as_answered() {
        let notary = Notary::of_nobody();
        let signed = summary(&notary);
        assert_eq!(signed, summary(&notary));
        assert_eq!((signed.erased, signed.whom.as_str(), signed.cause.as_str()), (3, "all", "off-boarded"));

        let alone = serde_json::to_vec(&signed).expect("JSON");
        let answered = serde_json::json!({"erased": 3, "left": 0, "summary": signed}).to_string();
        for bytes in [alone.as_slice(), answered.as_bytes()] {
            let read = parse(bytes).expect("a summary");
            assert_eq!(check(&read, None).as_ref(), Ok(notary.signer.public()));
        }
        let unfinished = OrderView { ended: None, ..view() };
        assert_eq!(notary.summarize(&"acme".into(), &Whom::Tenant, &unfinished), None);
    }

    #[test]
    fn every_changed_member_and_every_other_key_is_refused() {
        let notary = Notary::of_nobody();
        let signed = summary(&notary);
        assert_eq!(check(&signed, Some(Notary::of_nobody().signer.public())), Err(SummaryFault::OtherKey));
        let good = serde_json::to_value(&signed).expect("JSON");
        for member in good.as_object().expect("an object").keys() {
            let mut changed = good.clone();
            let value = &mut changed[member];
            *value = match value.take() {
                serde_json::Value::Number(number) => (number.as_u64().expect("a count") + 1).into(),
                serde_json::Value::String(text) => text.replacen(|_: char| true, "B", 1).into(),
                _ => serde_json::json!({"confirmed": 3}),
            };
            let read = parse(changed.to_string().as_bytes()).expect("still the form of one");
            assert!(check(&read, None).is_err(), "{member}");
        }
        let cut = serde_json::json!({"erased": 4, "left": 0, "summary": signed}).to_string();
        assert!(parse(cut.as_bytes()).is_none(), "the answer says otherwise than its summary");
    }
}
