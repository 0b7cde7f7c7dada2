//! The process key: everything the vault keeps is sealed under it, and it lies in one page that is never swapped or dumped.
//!
//! One for the process, made at start from the operating system's randomness, never written anywhere, gone with the
//! process. The cipher's own form of it (its key schedule) exists while something is sealed or opened, and is overwritten
//! before that ends.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hmac;

use super::page::Page;
use super::scrub::scrubbed;

/// Bytes that sealing adds.
pub(super) const TAG_LEN: usize = 16;

/// Bytes of a key.
pub(super) const KEY_LEN: usize = 32;

/// Seals and opens what vaults keep. Shared by all shards.
pub struct ProcessKey {
    page: Page,
    /// The next nonce. All that is ever sealed under this key counts here, so none comes twice.
    nonce: AtomicU64,
    /// Why there is no secret memory, if there is none.
    shortfall: Option<String>,
}

/// What keeps the process key from those who may look at memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// `memfd_secret`: neither swap nor dump nor another process nor the kernel's own map holds it.
    SecretMemory,
    /// A locked page: neither swap nor dump nor a child holds it.
    LockedMemory,
    /// Nothing.
    Plain,
}

impl Protection {
    /// All there are, best first.
    pub const ALL: [Self; 3] = [Self::SecretMemory, Self::LockedMemory, Self::Plain];

    /// The name used in metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SecretMemory => "memfd_secret",
            Self::LockedMemory => "mlock",
            Self::Plain => "plain",
        }
    }
}

/// Why there is no process key.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The kernel gives no memory that stays out of swap and core dumps.
    #[error(
        "the key of the vault would lie in memory that can be swapped out or dumped (memfd_secret: {secret}; mlock: \
         {locked}). Allow one locked page (RLIMIT_MEMLOCK, LimitMEMLOCK= of the unit) and the calls memfd_secret or mlock, \
         or set vault.allow_plain_memory = true"
    )]
    Unprotected {
        /// What `memfd_secret` said.
        secret: io::Error,
        /// What `mlock` or `madvise` said.
        locked: io::Error,
    },
    /// The operating system gives no random bytes.
    #[error("the system gives no randomness")]
    NoRandomness,
}

impl ProcessKey {
    /// Makes a key in the best memory to be had; in plain memory only if that is allowed. Call it once, before the first
    /// thread starts.
    ///
    /// # Errors
    /// There is no protected memory (and `allow_plain` is false), or no randomness.
    pub fn new(allow_plain: bool) -> Result<(Arc<Self>, Protection), VaultError> {
        let (page, shortfall) = match Page::secret() {
            Ok(page) => (page, None),
            Err(secret) => match Page::locked() {
                Ok(page) => (page, Some(format!("memfd_secret: {secret}"))),
                Err(locked) if allow_plain => {
                    (Page::plain(KEY_LEN), Some(format!("memfd_secret: {secret}; mlock: {locked}")))
                }
                Err(locked) => return Err(VaultError::Unprotected { secret, locked }),
            },
        };
        let key = Self::within(page, shortfall)?;
        let protection = key.protection();
        Ok((Arc::new(key), protection))
    }

    /// A key in plain memory, for tests and simulations: it needs nothing of the kernel but randomness.
    ///
    /// # Panics
    /// If the operating system has no randomness.
    #[must_use]
    pub fn plain() -> Arc<Self> {
        Arc::new(Self::within(Page::plain(KEY_LEN), None).expect("a machine that runs tests has randomness"))
    }

    /// What keeps it.
    #[must_use]
    pub fn protection(&self) -> Protection {
        self.page.kind()
    }

    /// Why it is not in secret memory, in the kernel's words.
    #[must_use]
    pub fn shortfall(&self) -> Option<&str> {
        self.shortfall.as_deref()
    }

    /// Encrypts all but the last [`TAG_LEN`] bytes in place, puts the tag there, and binds both to what they are `about`.
    /// The nonce comes back. Call it within [`scrubbed`].
    pub(super) fn seal(&self, bytes: &mut [u8], about: &[u8]) -> u64 {
        let number = self.nonce.fetch_add(1, Ordering::Relaxed);
        let (plain, room) = bytes.split_at_mut(bytes.len() - TAG_LEN);
        let tag = cipher(self.bytes())
            .seal_in_place_separate_tag(nonce(number), Aad::from(about), plain)
            .expect("the cipher takes messages up to 64 GiB");
        room.copy_from_slice(tag.as_ref());
        number
    }

    /// Decrypts in place. `None`: it was not sealed here, not as this, or was changed. Call it within
    /// [`scrubbed`].
    pub(super) fn open<'a>(&self, number: u64, bytes: &'a mut [u8], about: &[u8]) -> Option<&'a mut [u8]> {
        cipher(self.bytes()).open_in_place(nonce(number), Aad::from(about), bytes).ok()
    }

    /// A fingerprint of `parts` that nothing outside of this process can make or try guesses with; one for each purpose. Equal
    /// parts have equal fingerprints.
    #[must_use]
    pub fn fingerprint(&self, purpose: &str, parts: &[&[u8]]) -> [u8; 32] {
        scrubbed(|| {
            let own = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, self.bytes()), purpose.as_bytes());
            let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, own.as_ref()));
            for part in parts {
                context.update(&(part.len() as u64).to_be_bytes());
                context.update(part);
            }
            let mut fingerprint = [0; 32];
            fingerprint.copy_from_slice(context.sign().as_ref());
            fingerprint
        })
    }

    fn within(mut page: Page, shortfall: Option<String>) -> Result<Self, VaultError> {
        aws_lc_rs::rand::fill(&mut page.bytes_mut()[..KEY_LEN]).map_err(|_| VaultError::NoRandomness)?;
        Ok(Self { page, nonce: AtomicU64::new(0), shortfall })
    }

    fn bytes(&self) -> &[u8] {
        &self.page.bytes()[..KEY_LEN]
    }
}

/// The cipher with a key. The library keeps the key schedule in a block of its own, which it overwrites when it is dropped:
/// keep it no longer than one use.
pub(super) fn cipher(key: &[u8]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM_SIV, key).expect("the key has the cipher's length"))
}

/// The nonce with this number.
pub(super) fn nonce(number: u64) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[NONCE_LEN - 8..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

#[cfg(test)]
mod tests;
