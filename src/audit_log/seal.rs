//! The seal: the line that a segment begins with which continues another.
//!
//! It holds the tree so far as its peaks, so that neither the daemon nor a reader needs the segments before. It is not
//! signed: the checkpoint behind it is, with the size and root that only these peaks have.

use serde::{Deserialize, Serialize};

use super::encoding::{base64, unbase64};
use super::merkle::{Frontier, Hash};

/// How a seal's line begins; a record's or a checkpoint's never does.
pub(super) const SEAL_START: &str = r#"{"records":"#;

/// So much of it tells it apart from a checkpoint.
pub(super) const SEAL_BEGUN: &str = r#"{"r"#;

/// The tree at the beginning of a segment.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Seal {
    records: u64,
    peaks: Vec<String>,
}

impl Seal {
    pub(super) fn of(tree: &Frontier) -> Self {
        Self { records: tree.size(), peaks: tree.peaks().iter().map(|peak| base64(peak)).collect() }
    }

    /// Reads a line of the log, without its line end. One seal has one line only.
    pub(super) fn parse_line(line: &[u8]) -> Option<Self> {
        let seal: Self = serde_json::from_slice(line).ok()?;
        (seal.line().as_bytes() == line).then_some(seal)
    }

    /// The line of the log, without its line end.
    pub(super) fn line(&self) -> String {
        serde_json::to_string(self).expect("a struct of a number and strings becomes JSON")
    }

    /// The tree, if there can be such a one.
    pub(super) fn tree(&self) -> Option<Frontier> {
        let peaks: Option<Vec<Hash>> = self.peaks.iter().map(|peak| unbase64(peak)).collect();
        Frontier::from_peaks(self.records, peaks?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit_log::merkle::leaf_hash;

    #[test]
    fn a_tree_goes_on_from_its_seal() {
        let mut tree = Frontier::default();
        for number in 0..13_u8 {
            tree.append(leaf_hash(&[number]));
        }
        let line = Seal::of(&tree).line();
        assert!(line.starts_with(SEAL_START) && line.starts_with(SEAL_BEGUN));
        let mut read = Seal::parse_line(line.as_bytes()).expect("its own line").tree().expect("a tree");
        for tree in [&mut tree, &mut read] {
            tree.append(leaf_hash(b"next"));
        }
        assert_eq!((read.size(), read.root()), (tree.size(), tree.root()));
        assert!(Seal { records: 14, peaks: vec![] }.tree().is_none());
        assert!(Seal::parse_line(line.replace(':', ": ").as_bytes()).is_none());
    }
}
