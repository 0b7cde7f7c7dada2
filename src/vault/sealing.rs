//! Sealing: texts that wait for their devices, encrypted under a key that never leaves this room.
//!
//! What is sealed lies in ordinary memory as ciphertext (AES-256-GCM-SIV); only who holds the vault can read it, and only for
//! as long as a closure runs. The key comes from the operating system when the first text is sealed, lies in a slot like any
//! credential, and is forgotten with the last text: what may be left of ciphertexts in freed memory is worth nothing then.

use aws_lc_rs::aead::Aad;
use zeroize::{Zeroize, Zeroizing};

use super::Vault;
use super::process_key::{KEY_LEN, ProcessKey, cipher, nonce};
use super::scrub::scrubbed;
use super::slot::Slot;

/// Bytes that sealing adds.
pub const SEAL_OVERHEAD: usize = 16;

/// A sealed text. Cannot be copied, printed or stored; [`Vault::discard`] takes it back.
#[must_use = "a sealed text that is dropped keeps its key alive"]
pub struct Sealed {
    number: u64,
    bytes: Vec<u8>,
}

impl Sealed {
    /// How much memory it takes, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len()
    }
}

/// The key, sealed under the process key, and what it was used for.
#[derive(Default)]
pub(super) struct Sealer {
    key: Option<Slot>,
    /// Counts what was sealed, over all keys: a nonce never comes twice.
    number: u64,
    /// Sealed texts that are out.
    out: usize,
}

/// Stands for the sealer where a slot is bound to its owner: no place of a credential has this number.
const OWNER: u64 = u64::MAX;

impl Vault {
    /// Encrypts a text in place and binds it to what it is `about`. Give it [`SEAL_OVERHEAD`] bytes of spare capacity, or
    /// a copy is made (and the original overwritten). `None`: the operating system has no random bytes for us.
    pub fn seal(&mut self, mut plain: Zeroizing<Vec<u8>>, about: &[u8]) -> Option<Sealed> {
        let Self { sealer, key: process_key, .. } = self;
        let key = match &mut sealer.key {
            Some(key) => key,
            none => none.insert(fresh_key(process_key)?),
        };
        let number = sealer.number.checked_add(1)?;
        sealer.number = number;
        if plain.capacity() < plain.len() + SEAL_OVERHEAD {
            let mut roomy = Vec::with_capacity(plain.len() + SEAL_OVERHEAD);
            roomy.extend_from_slice(&plain);
            plain = Zeroizing::new(roomy);
        }
        let sealed = scrubbed(|| {
            key.open(process_key, OWNER, |key| {
                cipher(&key[..KEY_LEN]).seal_in_place_append_tag(nonce(number), Aad::from(about), &mut *plain)
            })
        });
        sealed.ok()?;
        sealer.out += 1;
        // It is ciphertext now.
        Some(Sealed { number, bytes: std::mem::take(&mut *plain) })
    }

    /// Shows a sealed text to `use_it` for as long as that runs. `None`: it is not one of ours, or not about that.
    pub fn lend_sealed<R>(&self, sealed: &Sealed, about: &[u8], use_it: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let key = self.sealer.key.as_ref()?;
        let mut open = Zeroizing::new(sealed.bytes.clone());
        scrubbed(|| {
            let plain = key.open(&self.key, OWNER, |key| {
                cipher(&key[..KEY_LEN]).open_in_place(nonce(sealed.number), Aad::from(about), &mut open).ok()
            })?;
            Some(use_it(plain))
        })
    }

    /// Overwrites a sealed text; with the last one the key goes.
    pub fn discard(&mut self, mut sealed: Sealed) {
        sealed.bytes.zeroize();
        self.sealer.out = self.sealer.out.saturating_sub(1);
        if self.sealer.out == 0 {
            // A slot overwrites itself when dropped.
            self.sealer.key = None;
        }
    }

    /// How many sealed texts are out.
    #[must_use]
    pub fn sealed(&self) -> usize {
        self.sealer.out
    }
}

fn fresh_key(process_key: &ProcessKey) -> Option<Slot> {
    let mut made = Ok(());
    let slot = scrubbed(|| Slot::seal(process_key, OWNER, |plain| made = aws_lc_rs::rand::fill(&mut plain[..KEY_LEN])));
    made.ok()?;
    Some(slot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_text_can_be_read_only_in_here_and_only_for_what_it_is_about() {
        let mut vault = Vault::plain();
        let sealed = vault.seal(text("see you at nine"), b"alice").expect("sealed");

        assert!(!contains(&sealed.bytes, b"nine"));
        assert_eq!(vault.lend_sealed(&sealed, b"alice", <[u8]>::to_vec).as_deref(), Some(&b"see you at nine"[..]));
        assert!(vault.lend_sealed(&sealed, b"bob", <[u8]>::to_vec).is_none());
        assert!(Vault::plain().lend_sealed(&sealed, b"alice", <[u8]>::to_vec).is_none());
        vault.discard(sealed);
    }

    #[test]
    fn equal_texts_seal_to_different_bytes() {
        let mut vault = Vault::plain();
        let (a, b) = (vault.seal(text("yes"), b"").expect("sealed"), vault.seal(text("yes"), b"").expect("sealed"));
        assert_ne!(a.bytes, b.bytes);
        vault.discard(a);
        vault.discard(b);
    }

    #[test]
    fn the_key_is_forgotten_with_the_last_text() {
        let mut vault = Vault::plain();
        let first = vault.seal(text("one"), b"").expect("sealed");
        let second = vault.seal(text("two"), b"").expect("sealed");
        let copy = Sealed { number: first.number, bytes: first.bytes.clone() };

        vault.discard(first);
        assert!(vault.lend_sealed(&copy, b"", <[u8]>::len).is_some());
        vault.discard(second);

        assert_eq!(vault.sealed(), 0);
        assert!(vault.lend_sealed(&copy, b"", <[u8]>::len).is_none());
        let third = vault.seal(text("three"), b"").expect("sealed");
        assert!(vault.lend_sealed(&copy, b"", <[u8]>::len).is_none(), "another key");
        vault.discard(third);
    }

    #[test]
    fn sealing_in_place_leaves_no_copy_behind() {
        let mut vault = Vault::plain();
        let mut plain = Vec::with_capacity(64);
        plain.extend_from_slice(b"in place");
        let place = plain.as_ptr();
        let sealed = vault.seal(Zeroizing::new(plain), b"").expect("sealed");
        assert_eq!(sealed.bytes.as_ptr(), place);
        assert_eq!(sealed.size(), b"in place".len() + SEAL_OVERHEAD);
        vault.discard(sealed);
    }

    fn text(text: &str) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(text.as_bytes().to_vec())
    }

    fn contains(bytes: &[u8], part: &[u8]) -> bool {
        bytes.windows(part.len()).any(|window| window == part)
    }
}
