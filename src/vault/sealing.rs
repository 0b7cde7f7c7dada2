//! Sealing: texts that wait for their devices, encrypted under a key that never leaves this room.
//!
//! What is sealed lies in ordinary memory as ciphertext (AES-256-GCM); only who holds the vault can read it, and only for
//! as long as a closure runs. The key comes from the operating system when the first text is sealed, and is forgotten with
//! the last one: what may be left of ciphertexts in freed memory is worth nothing then.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::{Zeroize, Zeroizing};

use super::Vault;

/// Bytes that sealing adds.
pub const SEAL_OVERHEAD: usize = 16;

const KEY_LEN: usize = 32;

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

/// The key and what it was used for.
#[derive(Default)]
pub(super) struct Sealer {
    key: Option<LessSafeKey>,
    /// Counts what was sealed, over all keys: a nonce never comes twice.
    number: u64,
    /// Sealed texts that are out.
    out: usize,
}

impl Vault {
    /// Encrypts a text in place and binds it to what it is `about`. Give it [`SEAL_OVERHEAD`] bytes of spare capacity, or
    /// a copy is made (and the original overwritten). `None`: the operating system has no random bytes for us.
    pub fn seal(&mut self, mut plain: Zeroizing<Vec<u8>>, about: &[u8]) -> Option<Sealed> {
        let sealer = &mut self.sealer;
        let key = match &mut sealer.key {
            Some(key) => key,
            none => none.insert(fresh_key()?),
        };
        let number = sealer.number.checked_add(1)?;
        sealer.number = number;
        if plain.capacity() < plain.len() + SEAL_OVERHEAD {
            let mut roomy = Vec::with_capacity(plain.len() + SEAL_OVERHEAD);
            roomy.extend_from_slice(&plain);
            plain = Zeroizing::new(roomy);
        }
        key.seal_in_place_append_tag(nonce(number), Aad::from(about), &mut *plain).ok()?;
        sealer.out += 1;
        // It is ciphertext now.
        Some(Sealed { number, bytes: std::mem::take(&mut *plain) })
    }

    /// Shows a sealed text to `use_it` for as long as that runs. `None`: it is not one of ours, or not about that.
    pub fn lend_sealed<R>(&self, sealed: &Sealed, about: &[u8], use_it: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let key = self.sealer.key.as_ref()?;
        let mut open = Zeroizing::new(sealed.bytes.clone());
        let plain = key.open_in_place(nonce(sealed.number), Aad::from(about), &mut open).ok()?;
        Some(use_it(plain))
    }

    /// Overwrites a sealed text; with the last one the key goes.
    pub fn discard(&mut self, mut sealed: Sealed) {
        sealed.bytes.zeroize();
        self.sealer.out = self.sealer.out.saturating_sub(1);
        if self.sealer.out == 0 {
            // The library overwrites it.
            self.sealer.key = None;
        }
    }

    /// How many sealed texts are out.
    #[must_use]
    pub fn sealed(&self) -> usize {
        self.sealer.out
    }
}

fn fresh_key() -> Option<LessSafeKey> {
    let mut bytes = Zeroizing::new([0; KEY_LEN]);
    aws_lc_rs::rand::fill(&mut *bytes).ok()?;
    UnboundKey::new(&AES_256_GCM, &*bytes).ok().map(LessSafeKey::new)
}

fn nonce(number: u64) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[NONCE_LEN - 8..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_text_can_be_read_only_in_here_and_only_for_what_it_is_about() {
        let mut vault = Vault::new();
        let sealed = vault.seal(text("see you at nine"), b"alice").expect("sealed");

        assert!(!contains(&sealed.bytes, b"nine"));
        assert_eq!(vault.lend_sealed(&sealed, b"alice", <[u8]>::to_vec).as_deref(), Some(&b"see you at nine"[..]));
        assert!(vault.lend_sealed(&sealed, b"bob", <[u8]>::to_vec).is_none());
        assert!(Vault::new().lend_sealed(&sealed, b"alice", <[u8]>::to_vec).is_none());
        vault.discard(sealed);
    }

    #[test]
    fn equal_texts_seal_to_different_bytes() {
        let mut vault = Vault::new();
        let (a, b) = (vault.seal(text("yes"), b"").expect("sealed"), vault.seal(text("yes"), b"").expect("sealed"));
        assert_ne!(a.bytes, b.bytes);
        vault.discard(a);
        vault.discard(b);
    }

    #[test]
    fn the_key_is_forgotten_with_the_last_text() {
        let mut vault = Vault::new();
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
        let mut vault = Vault::new();
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
