//! Checkpoints: the log's signed statements of its size and root.
//!
//! The form is the signed note of C2SP (`tlog-checkpoint`): origin, size, root, and one extension line that chains the
//! checkpoint to its predecessor, so that none can be taken out. Each stands in the log as one line of JSON.

use serde::{Deserialize, Serialize};

use super::encoding::{base64, unbase64};
use super::key::{PublicKey, Signer};
use super::merkle::{Frontier, Hash, sha256_of};

/// How a checkpoint's line begins; a record's never does.
pub(super) const LINE_START: &str = r#"{"checkpoint":""#;

/// A statement of the log's size and root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Checkpoint {
    /// The log's name, and that of its key.
    pub(super) origin: String,
    pub(super) size: u64,
    pub(super) root: Hash,
    /// [`SignedNote::hash`] of the checkpoint before; zeros in the first.
    pub(super) previous: Hash,
}

impl Checkpoint {
    /// Says how far the tree has grown.
    pub(super) fn of(tree: &Frontier, origin: &str, previous: Hash) -> Self {
        Self { origin: origin.to_owned(), size: tree.size(), root: tree.root(), previous }
    }

    /// Signs it.
    pub(super) fn sign(&self, signer: &Signer) -> SignedNote {
        let key_id = signer.public().note_id(&self.origin);
        SignedNote { checkpoint: self.clone(), key_id, signature: signer.sign(self.text().as_bytes()) }
    }

    /// What is signed.
    fn text(&self) -> String {
        let Self { origin, size, root, previous } = self;
        format!("{origin}\n{size}\n{}\nprevious {}\n", base64(root), base64(previous))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.split('\n');
        let origin = lines.next()?.to_owned();
        let size = lines.next()?.parse().ok()?;
        let root = unbase64(lines.next()?)?;
        let previous = unbase64(lines.next()?.strip_prefix("previous ")?)?;
        Some(Self { origin, size, root, previous })
    }
}

/// A checkpoint with its signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SignedNote {
    pub(super) checkpoint: Checkpoint,
    key_id: [u8; 4],
    signature: [u8; 64],
}

/// A checkpoint as it stands in the log.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CheckpointLine {
    checkpoint: String,
}

impl SignedNote {
    /// Reads a line of the log, without its line end. One note has one line only: anything else is refused.
    pub(super) fn parse_line(line: &[u8]) -> Option<Self> {
        let CheckpointLine { checkpoint: note } = serde_json::from_slice(line).ok()?;
        Self::parse(&note).filter(|parsed| parsed.line().as_bytes() == line)
    }

    /// Reads a note by itself. One checkpoint has one note only: anything else is refused.
    pub(super) fn parse(note: &str) -> Option<Self> {
        let (text, signature_line) = note.split_once("\n\n")?;
        let (_name, signature) = signature_line.strip_prefix("\u{2014} ")?.strip_suffix('\n')?.split_once(' ')?;
        let signature: [u8; 68] = unbase64(signature)?;
        let (key_id, signature) = signature.split_first_chunk::<4>()?;
        let parsed =
            Self { checkpoint: Checkpoint::parse(text)?, key_id: *key_id, signature: signature.try_into().ok()? };
        (parsed.note() == note && is_key_name(&parsed.checkpoint.origin)).then_some(parsed)
    }

    /// The line of the log, without its line end.
    pub(super) fn line(&self) -> String {
        let line = CheckpointLine { checkpoint: self.note() };
        serde_json::to_string(&line).expect("a struct of one string becomes JSON")
    }

    /// What the next checkpoint carries as `previous`.
    pub(super) fn hash(&self) -> Hash {
        sha256_of(&[self.note().as_bytes()])
    }

    /// Whether `key` signed it under the name that is its origin.
    pub(super) fn is_signed_by(&self, key: &PublicKey) -> bool {
        self.key_id == key.note_id(&self.checkpoint.origin)
            && key.verifies(self.checkpoint.text().as_bytes(), &self.signature)
    }

    /// The signed note.
    pub(super) fn note(&self) -> String {
        let signature = base64(&[&self.key_id[..], &self.signature].concat());
        format!("{}\n\u{2014} {} {signature}\n", self.checkpoint.text(), self.checkpoint.origin)
    }
}

/// C2SP signed-note: "Key names MUST be non-empty and MUST NOT contain any Unicode spaces or plus (U+002B) characters",
/// and no note has control characters.
fn is_key_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|letter: char| letter.is_whitespace() || letter.is_control() || letter == '+')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_a_signed_note_on_one_line() {
        let signer = Signer::generate().expect("a key");
        let note = Checkpoint::of(&Frontier::default(), "edge.example.net/reveille-audit", [0; 32]).sign(&signer);

        let text = note.note();
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("edge.example.net/reveille-audit"));
        assert_eq!(lines.next(), Some("0"));
        assert_eq!(lines.next(), Some("47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="));
        assert_eq!(lines.next(), Some("previous AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="));
        assert_eq!(lines.next(), Some(""));
        assert!(lines.next().is_some_and(|line| line.starts_with("\u{2014} edge.example.net/reveille-audit ")));
        assert_eq!(lines.next(), None);
        assert!(!note.line().contains('\n') && note.line().starts_with(LINE_START));
    }

    #[test]
    fn a_checkpoint_is_read_back_and_only_its_own_key_confirms_it() {
        let (signer, other) = (Signer::generate().expect("a key"), Signer::generate().expect("a key"));
        let note = Checkpoint::of(&Frontier::default(), "a/b", [7; 32]).sign(&signer);

        let read = SignedNote::parse_line(note.line().as_bytes()).expect("its own line");

        assert_eq!(read, note);
        assert!(read.is_signed_by(signer.public()));
        assert!(!read.is_signed_by(other.public()));
    }

    #[test]
    fn no_flipped_bit_of_a_checkpoint_goes_unnoticed() {
        let signer = Signer::generate().expect("a key");
        let line = Checkpoint::of(&Frontier::default(), "a/b", [7; 32]).sign(&signer).line().into_bytes();
        for place in 0..line.len() * 8 {
            let mut flipped = line.clone();
            flipped[place / 8] ^= 1 << (place % 8);
            let accepted = SignedNote::parse_line(&flipped).is_some_and(|note| note.is_signed_by(signer.public()));
            assert!(!accepted, "bit {place}");
        }
    }
}
