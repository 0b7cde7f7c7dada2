//! One slot: a secret of any length, sealed, in a block of one length.
//!
//! All slots are of one size, so that neither the block nor the allocator's lists tell how long a password is.

use zeroize::Zeroize;

use super::process_key::{ProcessKey, TAG_LEN};
use super::scrub::erase_array;

/// Bytes of plaintext in every slot: a password of [`super::PASSWORD_BYTES_MAX`] and its length, or [`super::HA1S_MAX`]
/// hashes.
pub(super) const ROOM: usize = 258;

/// A sealed secret.
pub(super) struct Slot {
    nonce: u64,
    bytes: Box<[u8; ROOM + TAG_LEN]>,
}

impl Slot {
    /// Seals what `fill` writes, and binds it to the owner. Call it within `scrubbed`.
    pub(super) fn seal(key: &ProcessKey, owner: u64, fill: impl FnOnce(&mut [u8])) -> Self {
        // The one place where the plaintext stands becomes the ciphertext.
        let mut slot = Self { nonce: 0, bytes: Box::new([0; ROOM + TAG_LEN]) };
        fill(&mut slot.bytes[..ROOM]);
        slot.nonce = key.seal(&mut slot.bytes[..], &owner.to_be_bytes());
        slot
    }

    /// Opens it on the stack for as long as `use_it` runs. Call it within `scrubbed`.
    pub(super) fn open<R>(&self, key: &ProcessKey, owner: u64, use_it: impl FnOnce(&[u8]) -> R) -> R {
        let mut open = Erased(*self.bytes);
        let plain = key.open(self.nonce, &mut open.0, &owner.to_be_bytes());
        use_it(plain.expect("a slot is opened by the vault that sealed it, for the owner it has"))
    }

    /// The block as it lies in memory.
    #[cfg(test)]
    pub(super) fn sealed(&self) -> &[u8] {
        &self.bytes[..]
    }
}

/// An opened block, overwritten as a whole: a store for each byte would take longer than the cipher.
struct Erased([u8; ROOM + TAG_LEN]);

impl Drop for Erased {
    fn drop(&mut self) {
        erase_array(&mut self.0);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}
