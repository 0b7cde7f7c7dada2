//! The table that is shown, and the verdict.

use std::fmt::Write as _;

use crate::parts::{Group, Part};
use crate::secrets::Kind;
use crate::tally::{Residue, Tally};

/// What became of one part.
pub(crate) struct Row {
    pub(crate) part: &'static Part,
    pub(crate) accounts: Vec<usize>,
    pub(crate) windows: usize,
    /// Bytes of memory searched after the end.
    pub(crate) bytes: usize,
    /// While the account was held, five seconds after its first 200: of the password and of HA1.
    pub(crate) live: Option<[usize; 2]>,
    /// After the end, in memory: of the password and of HA1.
    pub(crate) after: Option<[usize; 2]>,
    /// In the core.
    pub(crate) core: Option<usize>,
    /// In every file.
    pub(crate) files: Option<usize>,
    pub(crate) residues: Vec<Residue>,
}

impl Row {
    pub(crate) fn new(part: &'static Part, accounts: Vec<usize>, windows: usize) -> Self {
        let (live, after, core, files) = (None, None, None, None);
        Self { part, accounts, windows, bytes: 0, live, after, core, files, residues: Vec::new() }
    }

    /// The accounts of which nothing may be found.
    pub(crate) fn to_be_gone(&self) -> &[usize] {
        if self.part.group == Group::Control { &[] } else { &self.accounts }
    }

    pub(crate) fn note_live(&mut self, tally: &Tally) {
        self.live = Some(self.both(tally));
        self.keep_residues(tally);
    }

    pub(crate) fn note_after(&mut self, tally: &Tally) {
        self.bytes = self.bytes.max(tally.bytes);
        // The worst of several looks counts.
        let now = self.both(tally);
        let before = self.after.unwrap_or_default();
        self.after = Some([now[0].max(before[0]), now[1].max(before[1])]);
        self.keep_residues(tally);
    }

    pub(crate) fn note_core(&mut self, tally: &Tally) {
        self.core = Some(self.core.unwrap_or(0).max(tally.all_hits(&self.accounts)));
        self.keep_residues(tally);
    }

    pub(crate) fn note_files(&mut self, tally: &Tally) {
        self.files = Some(self.files.unwrap_or(0) + tally.all_hits(&self.accounts));
        self.keep_residues(tally);
    }

    /// Hits at all points together.
    pub(crate) fn hits(&self) -> usize {
        let pairs = [self.live, self.after].into_iter().flatten().flatten();
        pairs.sum::<usize>() + self.core.unwrap_or(0) + self.files.unwrap_or(0)
    }

    fn both(&self, tally: &Tally) -> [usize; 2] {
        [tally.hits(&self.accounts, Kind::Password), tally.hits(&self.accounts, Kind::Ha1)]
    }

    fn keep_residues(&mut self, tally: &Tally) {
        self.residues.extend(tally.residues(&self.accounts).cloned());
    }
}

/// The table as text.
pub(crate) fn render(rows: &[Row]) -> String {
    let mut out = String::new();
    let heads = ["held:", "held:", "after:", "after:", "in the", "in all"];
    let _ = writeln!(out, "{:<11} {:<44} {:>9} {:>6} {}", "", "", "windows", "MB", cells(&heads));
    let heads = ["password", "HA1", "password", "HA1", "core", "files"];
    let _ = writeln!(out, "{:<11} {:<44} {:>9} {:>6} {}", "", "", "searched", "", cells(&heads));
    for row in rows {
        let both = |pair: Option<[usize; 2]>, which: usize| shown(pair.map(|pair| pair[which]));
        let values = [
            both(row.live, 0),
            both(row.live, 1),
            both(row.after, 0),
            both(row.after, 1),
            shown(row.core),
            shown(row.files),
        ];
        let group = row.part.group.name();
        let megabytes = row.bytes / 1_000_000;
        let cells = cells(&values.each_ref().map(String::as_str));
        let _ = writeln!(out, "{group:<11} {:<44} {:>9} {megabytes:>6} {cells}", row.part.name, row.windows);
    }
    out
}

fn cells(values: &[&str]) -> String {
    values.iter().map(|value| format!("{value:>8}")).collect::<Vec<_>>().join(" ")
}

/// A point that does not exist is no zero.
fn shown(hits: Option<usize>) -> String {
    hits.map_or_else(|| "–".to_owned(), |hits| hits.to_string())
}
