//! What a search found: how much was searched, how many windows of whose secret, and where, with the secret masked.

use std::collections::HashMap;
use std::fmt;

use crate::needles::Piece;
use crate::secrets::Kind;

/// Bytes shown on each side of a residue.
const AROUND: usize = 48;

/// Residues kept for showing; further ones are only counted.
const RESIDUES_MAX: usize = 200;

/// The outcome of one search, or of several added up.
#[derive(Default)]
pub(crate) struct Tally {
    /// Bytes searched.
    pub(crate) bytes: usize,
    /// Bytes that the kernel gives to nobody: secret memory.
    pub(crate) withheld: usize,
    windows: HashMap<(usize, Kind), usize>,
    residues: Vec<Residue>,
}

/// A piece of a secret and what lies around it.
#[derive(Clone)]
pub(crate) struct Residue {
    secret: usize,
    kind: Kind,
    form: String,
    address: usize,
    length: usize,
    windows: usize,
    region: String,
    before: String,
    after: String,
}

impl Tally {
    pub(crate) fn add(&mut self, residue: Residue) {
        *self.windows.entry((residue.secret, residue.kind)).or_default() += residue.windows;
        if self.residues.len() < RESIDUES_MAX {
            self.residues.push(residue);
        }
    }

    /// Takes in what another search found.
    pub(crate) fn join(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.withheld += other.withheld;
        for (key, windows) in other.windows {
            *self.windows.entry(key).or_default() += windows;
        }
        self.residues.extend(other.residues);
        self.residues.truncate(RESIDUES_MAX);
    }

    /// Windows of a kind, of any of these secrets.
    pub(crate) fn hits(&self, secrets: &[usize], kind: Kind) -> usize {
        secrets.iter().filter_map(|secret| self.windows.get(&(*secret, kind))).sum()
    }

    /// Windows of both kinds.
    pub(crate) fn all_hits(&self, secrets: &[usize]) -> usize {
        self.hits(secrets, Kind::Password) + self.hits(secrets, Kind::Ha1)
    }

    /// Where pieces of these secrets lie.
    pub(crate) fn residues(&self, secrets: &[usize]) -> impl Iterator<Item = &Residue> {
        self.residues.iter().filter(move |residue| secrets.contains(&residue.secret))
    }
}

impl Residue {
    pub(crate) fn around(bytes: &[u8], piece: &Piece, address: usize, region: String) -> Self {
        let end = piece.position + piece.length;
        Self {
            secret: piece.secret,
            kind: piece.kind,
            form: piece.form.clone(),
            address,
            length: piece.length,
            windows: piece.windows(),
            region,
            before: visible(&bytes[piece.position.saturating_sub(AROUND)..piece.position]),
            after: visible(&bytes[end..bytes.len().min(end + AROUND)]),
        }
    }
}

impl fmt::Display for Residue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { form, address, length, region, before, after, kind, .. } = self;
        write!(f, "{kind:?}: {length} bytes of the {form}, at {address:#x} in {region}: {before}")?;
        write!(f, "[{}]{after}", "*".repeat(*length))
    }
}

fn visible(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| if byte.is_ascii_graphic() || *byte == b' ' { char::from(*byte) } else { '.' }).collect()
}
