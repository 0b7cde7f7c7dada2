//! The vault: the only room where SIP credentials live.
//!
//! A credential enters by value, lies sealed in slots of one size, is *lent* to a closure and leaves by being *wiped*;
//! nothing returns it. The room is its own so that a few short files answer "where can a password be?", and so that
//! hardening the memory behind a slot changes nothing outside. Its types have no `Debug`, `Clone` or `Serialize`: a
//! credential cannot be logged, copied or stored by accident.
//!
//! Everything is sealed under the process key (`process_key`), which lies in a page of its own (`page`) and nowhere else;
//! what is opened for a moment, and what the ciphers and hashes leave on the stack, is overwritten (`slot`, `scrub`), and so is
//! whatever Rust frees (`allocator`). Texts that wait for their devices are sealed here too (`sealing`).
//!
//! It refuses to interpret: it knows no SIP and computes no digest. Whoever needs an HA1 of a password brings the
//! function along.
//!
//! With a key in plain memory ([`ProcessKey::plain`]) no system call is made but for randomness, so that the room could run
//! under Miri; that is unverified, as Miri was not at hand, and its crypto library is C.

mod allocator;
mod material;
mod page;
mod process_key;
mod scrub;
mod sealing;
mod slot;

use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use zeroize::Zeroizing;

pub use allocator::WipingAllocator;
pub use material::{HA1S_MAX, Ha1, Ha1Algorithm, Keep, Material, PASSWORD_BYTES_MAX, Password};
use material::{HASH_ROOM, HEX_ROOM, Label, hex_into, read_password, unhex_into, write_password};
pub use process_key::{ProcessKey, Protection, VaultError};
use scrub::scrubbed;
pub use scrub::scrubbed_task;
use sealing::Sealer;
pub use sealing::{SEAL_OVERHEAD, Sealed};
use slot::Slot;

/// Copies that the debug switch keeps; then the oldest go.
const COPIES_MAX: usize = 1024;

/// Names a credential. Not `Clone`: whoever holds it may lend or wipe, and nobody can lend what was wiped.
///
/// Dropping it does not wipe: the slot would stay filled until the vault itself goes.
#[must_use = "a credential without its id can be neither lent nor wiped"]
pub struct CredentialId(usize);

/// Proof that a credential was wiped. Only [`Vault::wipe`] makes one, and it cannot be copied.
#[must_use = "the record of an erasure is made from this proof"]
pub struct WipeReceipt(());

/// What [`Vault::lend`] shows.
pub enum Lent<'a> {
    /// There is no hash for the realm and algorithm, but still (or always) the password.
    Password(&'a [u8]),
    /// The hash in lower-case hex, as RFC 7616 §3.4 wants it.
    Ha1(&'a str),
}

/// The credentials of one shard.
pub struct Vault {
    key: Arc<ProcessKey>,
    /// Invariant: a place is filled exactly while its `CredentialId` is out, and otherwise listed in `free`.
    places: Vec<Option<Credential>>,
    free: Vec<usize>,
    sealer: Sealer,
    /// The debug switch, and what it keeps.
    copies: Option<Vec<Vec<u8>>>,
}

/// What is held of one account.
struct Credential {
    keep: Keep,
    password: Option<Slot>,
    /// Which hashes there are. Realms and algorithms are no secrets: registrars send them to everyone.
    labels: Vec<Label>,
    /// The hashes, in the order of the labels. Filled exactly while there is a label.
    hashes: Option<Slot>,
}

impl Vault {
    /// An empty vault that seals under this key.
    #[must_use]
    pub fn new(key: Arc<ProcessKey>) -> Self {
        Self { key, places: Vec::new(), free: Vec::new(), sealer: Sealer::default(), copies: None }
    }

    /// An empty vault under a key in plain memory, for tests and simulations.
    #[must_use]
    pub fn plain() -> Self {
        Self::new(ProcessKey::plain())
    }

    /// From now on a plain copy of every password admitted is kept until the process ends. For whoever has to show that a
    /// search of the memory finds what is there; never for service.
    pub fn dangerously_keep_copies(&mut self) {
        self.copies.get_or_insert_default();
    }

    /// Seals a credential. The number of them is bounded by the instances a shard may hold.
    pub fn admit(&mut self, material: Material, keep: Keep) -> CredentialId {
        let index = self.free.pop().unwrap_or(self.places.len());
        let owner = index as u64;
        let mut credential = Credential { keep, password: None, labels: Vec::new(), hashes: None };
        match material {
            Material::Password(password) => {
                self.copy(&password);
                let seal = || Slot::seal(&self.key, owner, |plain| write_password(password.bytes(), plain));
                credential.password = Some(scrubbed(seal));
            }
            Material::Ha1(values) => credential.add(&values, owner, &self.key),
        }
        if index == self.places.len() {
            self.places.push(None);
        }
        self.places[index] = Some(credential);
        CredentialId(index)
    }

    /// Makes HA1s of the password for realms and algorithms, by `ha1_of(password, realm, algorithm)`, and wipes the password
    /// unless it is to be kept. Without a password nothing changes, nor where nothing is wanted.
    ///
    /// Where there are more than [`HA1S_MAX`], those made longest ago are wiped, and the first of `wanted` before the last.
    pub fn distill(
        &mut self,
        id: &CredentialId,
        wanted: &[(&[u8], Ha1Algorithm)],
        ha1_of: impl Fn(&[u8], &[u8], Ha1Algorithm) -> Zeroizing<String>,
    ) {
        let (owner, key) = (id.0 as u64, Arc::clone(&self.key));
        let credential = self.credential_mut(id);
        let is_missing = |(realm, algorithm): &&(&[u8], Ha1Algorithm)| credential.place_of(realm, *algorithm).is_none();
        let missing: Vec<(&[u8], Ha1Algorithm)> = wanted.iter().filter(is_missing).copied().collect();
        let Some(password) = credential.password.as_ref().filter(|_| !wanted.is_empty()) else { return };
        let make = |password: &[u8]| {
            let ha1 = |(realm, algorithm): &(&[u8], Ha1Algorithm)| {
                Ha1::new(*realm, *algorithm, ha1_of(password, realm, *algorithm))
            };
            missing.iter().filter_map(ha1).collect::<Vec<Ha1>>()
        };
        if !missing.is_empty() {
            let made = scrubbed(|| password.open(&key, owner, |plain| make(read_password(plain))));
            credential.add(&made, owner, &key);
        }
        if credential.keep == Keep::UntilAccepted {
            credential.password = None;
        }
    }

    /// Adds to hashes those of `other` that are not among them, as far as there is room. The caller knows that both come from
    /// one password; nothing is added to a password, which makes them all.
    pub fn complete(&mut self, id: &CredentialId, other: &CredentialId) {
        let (owner, key) = (id.0 as u64, Arc::clone(&self.key));
        let (present, further) = (self.credential(id), self.credential(other));
        let Some(hashes) = further.hashes.as_ref().filter(|_| present.password.is_none()) else { return };
        let room = HA1S_MAX.saturating_sub(present.labels.len());
        let made: Vec<Ha1> = scrubbed(|| {
            hashes.open(&key, other.0 as u64, |plain| {
                let missing = further.labels.iter().enumerate();
                let missing = missing.filter(|(_, label)| present.place_of(&label.realm, label.algorithm).is_none());
                missing.take(room).filter_map(|(place, label)| copy_of(plain, place, label)).collect()
            })
        });
        if !made.is_empty() {
            self.credential_mut(id).add(&made, owner, &key);
        }
    }

    /// A further credential that holds the same, for another registration of one account.
    pub fn duplicate(&mut self, id: &CredentialId) -> CredentialId {
        let original = self.credential(id);
        let keep = original.keep;
        let material = match (&original.password, &original.hashes) {
            (Some(password), _) => scrubbed(|| {
                password.open(&self.key, id.0 as u64, |plain| {
                    let copy = Zeroizing::new(read_password(plain).to_vec());
                    Password::new(copy).map_or_else(|| Material::Ha1(Vec::new()), Material::Password)
                })
            }),
            (None, Some(hashes)) => scrubbed(|| {
                hashes.open(&self.key, id.0 as u64, |plain| {
                    let labels = original.labels.iter().enumerate();
                    Material::Ha1(labels.filter_map(|(place, label)| copy_of(plain, place, label)).collect())
                })
            }),
            (None, None) => Material::Ha1(Vec::new()),
        };
        self.admit(material, keep)
    }

    /// Whether a password waits to become HA1s.
    #[must_use]
    pub fn is_undistilled(&self, id: &CredentialId) -> bool {
        let credential = self.credential(id);
        credential.password.is_some() && credential.keep == Keep::UntilAccepted
    }

    /// Wipes the HA1s of a realm that are weaker than `accepted`, so that a later downgrade cannot be answered.
    ///
    /// A password is left alone: [`Vault::distill`] takes its place first, and a tenant that keeps it takes the downgrade.
    pub fn forget_weaker(&mut self, id: &CredentialId, realm: &[u8], accepted: Ha1Algorithm) {
        let (owner, key) = (id.0 as u64, Arc::clone(&self.key));
        self.credential_mut(id).retain(|label| *label.realm != *realm || label.algorithm >= accepted, owner, &key);
    }

    /// Overwrites the credential and frees its slots.
    #[expect(clippy::needless_pass_by_value, reason = "taking the id is the point: nobody can lend what was wiped")]
    pub fn wipe(&mut self, id: CredentialId) -> WipeReceipt {
        // A slot overwrites itself when dropped.
        drop(self.places[id.0].take());
        self.free.push(id.0);
        WipeReceipt(())
    }

    /// Whether there is something to answer a challenge of this realm and algorithm with. Opens nothing.
    #[must_use]
    pub fn answers(&self, id: &CredentialId, realm: &[u8], algorithm: Ha1Algorithm) -> bool {
        let credential = self.credential(id);
        credential.password.is_some() || credential.place_of(realm, algorithm).is_some()
    }

    /// Shows what answers a challenge of this realm and algorithm to `use_it`, for as long as that runs: the hash, or else
    /// the password. `None`: there is neither. Overwritten before this returns, also where `use_it` panics.
    pub fn lend<R>(
        &self,
        id: &CredentialId,
        realm: &[u8],
        algorithm: Ha1Algorithm,
        use_it: impl FnOnce(Lent<'_>) -> R,
    ) -> Option<R> {
        let (owner, key, credential) = (id.0 as u64, &*self.key, self.credential(id));
        if let (Some(place), Some(hashes)) = (credential.place_of(realm, algorithm), &credential.hashes) {
            return Some(scrubbed(|| {
                hashes.open(key, owner, |plain| {
                    let mut digits = Zeroizing::new([0; HEX_ROOM]);
                    use_it(Lent::Ha1(hex_into(hash_at(plain, place, algorithm), &mut digits)))
                })
            }));
        }
        let password = credential.password.as_ref()?;
        Some(scrubbed(|| password.open(key, owner, |plain| use_it(Lent::Password(read_password(plain))))))
    }

    /// Whether two credentials come from the same password, as far as can be told.
    ///
    /// Passwords are compared; where one side (or both) is HA1s, at least one realm and algorithm must be comparable and
    /// none may differ. The time taken does not depend on where two values differ (it does on their length).
    #[must_use]
    pub fn matches(
        &self,
        a: &CredentialId,
        b: &CredentialId,
        ha1_of: impl Fn(&[u8], &[u8], Ha1Algorithm) -> Zeroizing<String>,
    ) -> bool {
        scrubbed(|| match (&self.credential(a).password, &self.credential(b).password) {
            (Some(ours), Some(theirs)) => ours.open(&self.key, a.0 as u64, |ours| {
                theirs.open(&self.key, b.0 as u64, |theirs| same(read_password(ours), read_password(theirs)))
            }),
            (Some(password), None) => self.makes(password, a, b, &ha1_of),
            (None, Some(password)) => self.makes(password, b, a, &ha1_of),
            (None, None) => self.share_hashes(a, b),
        })
    }

    /// Whether a password is held, and the realms and algorithms of the hashes held.
    pub fn holds(&self, id: &CredentialId) -> (bool, impl Iterator<Item = (&[u8], Ha1Algorithm)>) {
        let credential = self.credential(id);
        let hashes = credential.labels.iter().map(|label| (&*label.realm, label.algorithm));
        (credential.password.is_some(), hashes)
    }

    /// How many credentials are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Whether no credential is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the hashes of `hashed` are those of a password.
    fn makes(
        &self,
        password: &Slot,
        typed: &CredentialId,
        hashed: &CredentialId,
        ha1_of: &impl Fn(&[u8], &[u8], Ha1Algorithm) -> Zeroizing<String>,
    ) -> bool {
        let credential = self.credential(hashed);
        let Some(hashes) = &credential.hashes else { return false };
        password.open(&self.key, typed.0 as u64, |typed| {
            hashes.open(&self.key, hashed.0 as u64, |hashes| {
                agree(credential.labels.iter().enumerate().map(|(place, Label { realm, algorithm })| {
                    let mut made = Zeroizing::new([0; HASH_ROOM]);
                    unhex_into(&ha1_of(read_password(typed), realm, *algorithm), &mut *made);
                    same(hash_at(hashes, place, *algorithm), &made[..algorithm.hash_len()])
                }))
            })
        })
    }

    /// Whether two lists of hashes agree where they can be compared.
    fn share_hashes(&self, a: &CredentialId, b: &CredentialId) -> bool {
        let (ours, theirs) = (self.credential(a), self.credential(b));
        let (Some(our_hashes), Some(their_hashes)) = (&ours.hashes, &theirs.hashes) else { return false };
        our_hashes.open(&self.key, a.0 as u64, |our_plain| {
            their_hashes.open(&self.key, b.0 as u64, |their_plain| {
                agree(ours.labels.iter().enumerate().filter_map(|(place, label)| {
                    let other = theirs.place_of(&label.realm, label.algorithm)?;
                    let (ours, theirs) =
                        (hash_at(our_plain, place, label.algorithm), hash_at(their_plain, other, label.algorithm));
                    Some(same(ours, theirs))
                }))
            })
        })
    }

    fn copy(&mut self, password: &Password) {
        let Some(copies) = &mut self.copies else { return };
        if copies.len() == COPIES_MAX {
            copies.remove(0);
        }
        copies.push(password.bytes().to_vec());
    }

    fn credential(&self, id: &CredentialId) -> &Credential {
        self.places
            .get(id.0)
            .and_then(Option::as_ref)
            .expect("an id of this vault names a credential until `wipe` takes it")
    }

    fn credential_mut(&mut self, id: &CredentialId) -> &mut Credential {
        self.places
            .get_mut(id.0)
            .and_then(Option::as_mut)
            .expect("an id of this vault names a credential until `wipe` takes it")
    }
}

impl Credential {
    fn place_of(&self, realm: &[u8], algorithm: Ha1Algorithm) -> Option<usize> {
        self.labels.iter().position(|label| label.algorithm == algorithm && *label.realm == *realm)
    }

    /// Adds hashes in the place of equal ones, and wipes the oldest where there are too many.
    fn add(&mut self, fresh: &[Ha1], owner: u64, key: &ProcessKey) {
        let fresh = &fresh[fresh.len().saturating_sub(HA1S_MAX)..];
        let stays = |label: &Label| !fresh.iter().any(|ha1| ha1.is_for(label));
        let staying = self.labels.iter().filter(|label| stays(label)).count();
        let mut surplus = (staying + fresh.len()).saturating_sub(HA1S_MAX);
        let stays = |label: &Label| {
            let room = stays(label) && surplus == 0;
            surplus -= usize::from(stays(label) && !room);
            room
        };
        self.rewrite(stays, fresh, owner, key);
    }

    fn retain(&mut self, stays: impl Fn(&Label) -> bool, owner: u64, key: &ProcessKey) {
        if !self.labels.iter().all(&stays) {
            self.rewrite(stays, &[], owner, key);
        }
    }

    /// Seals anew what stays of the hashes, followed by further ones.
    fn rewrite(&mut self, stays: impl FnMut(&Label) -> bool, further: &[Ha1], owner: u64, key: &ProcessKey) {
        let kept: Vec<bool> = self.labels.iter().map(stays).collect();
        let former = self.hashes.take();
        let write = |old: &[u8], plain: &mut [u8]| {
            let mut places = plain.chunks_exact_mut(HASH_ROOM);
            let kept = old.chunks_exact(HASH_ROOM).zip(&kept).filter(|(_, stays)| **stays);
            for ((hash, _), place) in kept.zip(&mut places) {
                place.copy_from_slice(hash);
            }
            for (ha1, place) in further.iter().zip(&mut places) {
                unhex_into(ha1.value(), place);
            }
        };
        let count = kept.iter().filter(|stays| **stays).count() + further.len();
        self.hashes = (count > 0).then(|| {
            scrubbed(|| match &former {
                None => Slot::seal(key, owner, |plain| write(&[], plain)),
                Some(former) => former.open(key, owner, |old| Slot::seal(key, owner, |plain| write(old, plain))),
            })
        });
        let mut kept = kept.into_iter();
        self.labels.retain(|_| kept.next().unwrap_or(false));
        self.labels.extend(further.iter().map(Ha1::label));
        self.labels.shrink_to_fit();
    }
}

/// One hash of those in a slot.
fn hash_at(plain: &[u8], place: usize, algorithm: Ha1Algorithm) -> &[u8] {
    &plain[place * HASH_ROOM..][..algorithm.hash_len()]
}

/// A hash that lies open, on its way into another slot.
fn copy_of(plain: &[u8], place: usize, label: &Label) -> Option<Ha1> {
    let mut digits = Zeroizing::new([0; HEX_ROOM]);
    let text = hex_into(hash_at(plain, place, label.algorithm), &mut digits);
    Ha1::new(label.realm.clone(), label.algorithm, Zeroizing::new(text.to_owned()))
}

fn same(a: &[u8], b: &[u8]) -> bool {
    verify_slices_are_equal(a, b).is_ok()
}

/// At least one comparison, and none that failed; all of them are made, whatever the first ones say.
fn agree(comparisons: impl Iterator<Item = bool>) -> bool {
    let (made, failed) =
        comparisons.fold((0_usize, 0_usize), |(made, failed), equal| (made + 1, failed + usize::from(!equal)));
    made > 0 && failed == 0
}

#[cfg(test)]
mod tests;
