//! Receipts: what is signed for whom, and how it is checked.
//!
//! The signature covers text lines that anyone can put together from the receipt's members; `docs/receipts.md` shows it
//! with common tools. A receipt says: the holder of this key wiped the credentials of this instance, and wrote this
//! record of it; with an inclusion also: the record stands in the log, at this place under this root.

use std::fmt;

use aws_lc_rs::hmac;

use super::encoding::{base64, hex, unbase64, unhex};
use super::key::{PublicKey, Signer};
use super::merkle::{Hash, leaf_hash, root_of_path};
use super::record::is_record;
use crate::engine::audit::{AuditRecord, Inclusion, Receipt};
use crate::engine::output::ReceiptJob;

/// The version of the receipt's form and of what is signed.
const RECEIPT_VERSION: u8 = 1;

/// Paths grow with the logarithm of the log; no log has more records than 2^64.
const PATH_MAX: usize = 64;

/// Makes the receipt for an erasure whose record is `line`.
pub(super) fn issue(job: &ReceiptJob, line: &str, inclusion: Option<Inclusion>, signer: &Signer) -> Receipt {
    let mut receipt = Receipt {
        v: RECEIPT_VERSION,
        instance: job.instance.to_string(),
        salt: hex(&job.salt),
        record: line.to_owned(),
        inclusion,
        key: base64(&signer.public().0),
        signature: String::new(),
    };
    receipt.signature = base64(&signer.sign(signed_text(&receipt).as_bytes()));
    receipt
}

/// The inclusion of a record as a receipt carries it.
pub(super) fn inclusion(index: u64, size: u64, root: &Hash, path: &[Hash]) -> Inclusion {
    Inclusion {
        leaf_index: index,
        tree_size: size,
        root: base64(root),
        path: path.iter().map(|hash| base64(hash)).collect(),
    }
}

/// What the signature covers: every member but itself, a line each.
///
/// No member may hold a line end, and none of ours does: a text taken apart differently would be another receipt.
fn signed_text(receipt: &Receipt) -> String {
    let Receipt { v, instance, salt, record, inclusion, key, signature: _ } = receipt;
    let mut text = format!("reveille-receipt/v{v}\n{instance}\n{salt}\n{record}\n{key}\n");
    match inclusion {
        None => text.push_str("not included\n"),
        Some(Inclusion { leaf_index, tree_size, root, path }) => {
            text.push_str(&format!("included {leaf_index} {tree_size} {root}\n"));
            path.iter().for_each(|step| {
                text.push_str(step);
                text.push('\n');
            });
        }
    }
    text
}

/// What a good receipt says.
pub(super) struct Checked {
    pub(super) record: AuditRecord,
    pub(super) key: PublicKey,
}

/// Why a receipt is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReceiptFault {
    Version,
    Form,
    OtherKey,
    Signature,
    Record,
    NotAnErasure,
    Subject,
    Path,
}

impl fmt::Display for ReceiptFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Version => "the receipt has a version this program does not know",
            Self::Form => "a member of the receipt is not in its form",
            Self::OtherKey => "the receipt was signed with another key",
            Self::Signature => "the receipt's signature does not fit its content",
            Self::Record => "the receipt's record is not a record of an audit log",
            Self::NotAnErasure => "the receipt's record is not that of an erasure",
            Self::Subject => {
                "the record is about another instance: its subject is not made from the receipt's instance and salt"
            }
            Self::Path => "the inclusion path does not lead from the record to the root",
        })
    }
}

/// Checks all a receipt says; against `expected`, if given, else against the key it names itself.
pub(super) fn check(receipt: &Receipt, expected: Option<&PublicKey>) -> Result<Checked, ReceiptFault> {
    if receipt.v != RECEIPT_VERSION {
        return Err(ReceiptFault::Version);
    }
    let key = PublicKey(unbase64(&receipt.key).ok_or(ReceiptFault::Form)?);
    if expected.is_some_and(|expected| *expected != key) {
        return Err(ReceiptFault::OtherKey);
    }
    let members = [&receipt.instance, &receipt.salt, &receipt.record];
    let steps = receipt.inclusion.iter().flat_map(|inclusion| inclusion.path.iter().chain([&inclusion.root]));
    if members.into_iter().chain(steps).any(|member| member.contains('\n')) {
        return Err(ReceiptFault::Form);
    }
    let signature = unbase64(&receipt.signature).ok_or(ReceiptFault::Form)?;
    if !key.verifies(signed_text(receipt).as_bytes(), &signature) {
        return Err(ReceiptFault::Signature);
    }
    let record = erasure_record(&receipt.record)?;
    let salt: [u8; 32] = unhex(&receipt.salt).ok_or(ReceiptFault::Form)?;
    let named = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &salt), receipt.instance.as_bytes());
    if record.subject != hex(named.as_ref()) {
        return Err(ReceiptFault::Subject);
    }
    if let Some(inclusion) = &receipt.inclusion {
        check_inclusion(inclusion, leaf_hash(receipt.record.as_bytes()))?;
    }
    Ok(Checked { record, key })
}

fn erasure_record(line: &str) -> Result<AuditRecord, ReceiptFault> {
    if !is_record(line.as_bytes()) {
        return Err(ReceiptFault::Record);
    }
    let record: AuditRecord = serde_json::from_str(line).map_err(|_| ReceiptFault::Record)?;
    if record.event.cause().is_some() { Ok(record) } else { Err(ReceiptFault::NotAnErasure) }
}

fn check_inclusion(inclusion: &Inclusion, leaf: Hash) -> Result<(), ReceiptFault> {
    if inclusion.path.len() > PATH_MAX {
        return Err(ReceiptFault::Form);
    }
    let root: Hash = unbase64(&inclusion.root).ok_or(ReceiptFault::Form)?;
    let path: Option<Vec<Hash>> = inclusion.path.iter().map(|step| unbase64(step)).collect();
    let path = path.ok_or(ReceiptFault::Form)?;
    let reached = root_of_path(leaf, inclusion.leaf_index, inclusion.tree_size, &path);
    if reached == Some(root) { Ok(()) } else { Err(ReceiptFault::Path) }
}
