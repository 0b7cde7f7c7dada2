//! The vault: the only room where SIP credentials live.
//!
//! A credential enters by value, stays in a slot, is *lent* to a closure and leaves by being *wiped*; nothing returns it.
//! The room is its own so that one short file answers "where can a password be?", and so that hardening the memory
//! behind a slot changes nothing outside. Its types have no `Debug`, `Clone` or `Serialize`: a credential cannot be
//! logged, copied or stored by accident.
//!
//! Texts that wait for their devices are sealed here too (`sealing`): their key is a secret like any other.
//!
//! It refuses to interpret: it knows no SIP and computes no digest. Whoever needs an HA1 of a password brings the
//! function along.

mod allocator;
mod scrub;
mod sealing;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use zeroize::Zeroizing;

pub use allocator::WipingAllocator;
use scrub::scrubbed;
pub use scrub::scrubbed_task;
use sealing::Sealer;
pub use sealing::{SEAL_OVERHEAD, Sealed};

/// A password. Overwritten when dropped.
pub struct Password(Zeroizing<Vec<u8>>);

impl Password {
    /// Takes the bytes over; no copy is made.
    #[must_use]
    pub fn new(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(bytes)
    }
}

/// H(username:realm:password) in hex, as handed over or computed. The value is overwritten when dropped.
pub struct Ha1 {
    /// The protection realm it is good for, and no other.
    pub realm: String,
    /// The hash it was made with.
    pub algorithm: Ha1Algorithm,
    /// The hash in hex; in the vault always lower-case, as RFC 7616 §3.4 wants it.
    pub value: Zeroizing<String>,
}

impl Ha1 {
    fn is_for(&self, other: &Self) -> bool {
        self.realm == other.realm && self.algorithm == other.algorithm
    }
}

/// The vault's own name of an algorithm (it does not know `sip`), weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ha1Algorithm {
    /// RFC 2617.
    Md5,
    /// RFC 7616.
    Sha256,
    /// RFC 7616, SHA-512/256.
    Sha512256,
}

/// Credentials on their way into the vault.
pub enum Material {
    /// Good for every realm and algorithm.
    Password(Password),
    /// Good for the realms and algorithms that stand there.
    Ha1(Vec<Ha1>),
}

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
    /// The password is still needed: no registrar has accepted it yet.
    Password(&'a [u8]),
    /// What is left of the password.
    Ha1(&'a [Ha1]),
}

/// The credentials of one shard.
#[derive(Default)]
pub struct Vault {
    /// Invariant: a slot is filled exactly while its `CredentialId` is out, and otherwise listed in `free`.
    slots: Vec<Option<Material>>,
    free: Vec<usize>,
    sealer: Sealer,
}

impl Vault {
    /// An empty vault.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a credential into a slot. The number of slots is bounded by the instances a shard may hold.
    pub fn admit(&mut self, material: Material) -> CredentialId {
        let material = match material {
            Material::Ha1(values) => Material::Ha1(normalised(values)),
            password @ Material::Password(_) => password,
        };
        if let Some(index) = self.free.pop() {
            self.slots[index] = Some(material);
            return CredentialId(index);
        }
        self.slots.push(Some(material));
        CredentialId(self.slots.len() - 1)
    }

    /// Puts HA1s in the place of the password, or adds realms and algorithms to the HA1s there, and wipes what they
    /// replace. Without any HA1 nothing changes.
    pub fn distill(&mut self, id: &CredentialId, ha1: Vec<Ha1>) {
        if ha1.is_empty() {
            return;
        }
        let fresh = normalised(ha1);
        let slot = self.slot_mut(id);
        match slot {
            Material::Password(_) => *slot = Material::Ha1(fresh),
            Material::Ha1(kept) => {
                kept.retain(|old| !fresh.iter().any(|new| new.is_for(old)));
                kept.extend(fresh);
            }
        }
    }

    /// Wipes the HA1s of a realm that are weaker than `accepted`, so that a later downgrade cannot be answered.
    ///
    /// A password is left alone: [`Vault::distill`] takes its place first.
    pub fn forget_weaker(&mut self, id: &CredentialId, realm: &str, accepted: Ha1Algorithm) {
        if let Material::Ha1(kept) = self.slot_mut(id) {
            kept.retain(|ha1| ha1.realm != realm || ha1.algorithm >= accepted);
        }
    }

    /// Overwrites the credential and frees its slot.
    #[expect(clippy::needless_pass_by_value, reason = "taking the id is the point: nobody can lend what was wiped")]
    pub fn wipe(&mut self, id: CredentialId) -> WipeReceipt {
        // Dropping the material overwrites it: every secret member is `Zeroizing`.
        drop(self.slots[id.0].take());
        self.free.push(id.0);
        WipeReceipt(())
    }

    /// Shows the credential to `use_it` for as long as that runs.
    pub fn lend<R>(&self, id: &CredentialId, use_it: impl FnOnce(Lent<'_>) -> R) -> R {
        scrubbed(|| match self.slot(id) {
            Material::Password(password) => use_it(Lent::Password(&password.0)),
            Material::Ha1(values) => use_it(Lent::Ha1(values)),
        })
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
        ha1_of: impl Fn(&[u8], &str, Ha1Algorithm) -> Zeroizing<String>,
    ) -> bool {
        scrubbed(|| match (self.slot(a), self.slot(b)) {
            (Material::Password(a), Material::Password(b)) => same(&a.0, &b.0),
            (Material::Password(Password(password)), Material::Ha1(values))
            | (Material::Ha1(values), Material::Password(Password(password))) => agree(
                values
                    .iter()
                    .map(|ha1| same(ha1.value.as_bytes(), ha1_of(password, &ha1.realm, ha1.algorithm).as_bytes())),
            ),
            (Material::Ha1(a), Material::Ha1(b)) => agree(a.iter().flat_map(|ours| {
                b.iter()
                    .filter(|theirs| theirs.is_for(ours))
                    .map(|theirs| same(ours.value.as_bytes(), theirs.value.as_bytes()))
            })),
        })
    }

    /// How many credentials are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether no credential is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn slot(&self, id: &CredentialId) -> &Material {
        self.slots
            .get(id.0)
            .and_then(Option::as_ref)
            .expect("an id of this vault names a filled slot until `wipe` takes it")
    }

    fn slot_mut(&mut self, id: &CredentialId) -> &mut Material {
        self.slots
            .get_mut(id.0)
            .and_then(Option::as_mut)
            .expect("an id of this vault names a filled slot until `wipe` takes it")
    }
}

fn normalised(mut values: Vec<Ha1>) -> Vec<Ha1> {
    for ha1 in &mut values {
        ha1.value.make_ascii_lowercase();
    }
    values
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
mod tests {
    use std::fmt::Debug;

    use super::*;

    /// Does not compile if `$secret` implements `$forbidden`: the call would be ambiguous.
    macro_rules! assert_not {
        ($forbidden:path: $($secret:ty),+) => {{
            trait Unambiguous<Marker> {
                fn holds() {}
            }
            impl<T> Unambiguous<()> for T {}
            impl<T: $forbidden> Unambiguous<u8> for T {}
            $(<$secret as Unambiguous<_>>::holds();)+
        }};
    }

    #[test]
    fn secrets_cannot_be_printed_copied_or_stored() {
        assert_not!(Debug: Password, Ha1, Material, Lent<'static>, Sealed, Vault);
        assert_not!(std::fmt::Display: Password, Ha1, Material, Lent<'static>, Sealed, Vault);
        assert_not!(Clone: Password, Ha1, Material, CredentialId, WipeReceipt, Sealed, Vault);
        assert_not!(serde::Serialize: Password, Ha1, Material, Sealed, Vault);
    }

    #[test]
    fn a_wiped_slot_is_used_again_and_the_others_keep_their_content() {
        let mut vault = Vault::new();
        let first = vault.admit(password("one"));
        let second = vault.admit(password("two"));
        let _proof = vault.wipe(first);
        assert_eq!(vault.len(), 1);

        let third = vault.admit(password("three"));

        assert_eq!(vault.len(), 2);
        assert_eq!(shown(&vault, &second), ["password two"]);
        assert_eq!(shown(&vault, &third), ["password three"]);
        assert_eq!(vault.slots.len(), 2);
    }

    #[test]
    fn distilling_puts_ha1_in_the_place_of_the_password() {
        let mut vault = Vault::new();
        let id = vault.admit(password("secret"));

        vault.distill(&id, Vec::new());
        assert_eq!(shown(&vault, &id), ["password secret"], "nothing to put in its place");
        vault.distill(&id, vec![ha1("r", Ha1Algorithm::Sha256, "AB")]);

        assert_eq!(shown(&vault, &id), ["r Sha256 ab"]);
    }

    #[test]
    fn distilling_again_adds_realms_and_replaces_equal_ones() {
        let mut vault = Vault::new();
        let id = vault.admit(Material::Ha1(vec![ha1("r", Ha1Algorithm::Md5, "01")]));

        vault.distill(&id, vec![ha1("r", Ha1Algorithm::Md5, "02"), ha1("s", Ha1Algorithm::Md5, "03")]);

        assert_eq!(shown(&vault, &id), ["r Md5 02", "s Md5 03"]);
    }

    #[test]
    fn what_is_weaker_than_the_accepted_algorithm_is_forgotten_in_its_realm_only() {
        let mut vault = Vault::new();
        let id = vault.admit(Material::Ha1(vec![
            ha1("r", Ha1Algorithm::Md5, "01"),
            ha1("r", Ha1Algorithm::Sha256, "02"),
            ha1("r", Ha1Algorithm::Sha512256, "03"),
            ha1("s", Ha1Algorithm::Md5, "04"),
        ]));

        vault.forget_weaker(&id, "r", Ha1Algorithm::Sha256);

        assert_eq!(shown(&vault, &id), ["r Sha256 02", "r Sha512256 03", "s Md5 04"]);
    }

    #[test]
    fn passwords_match_when_they_are_equal() {
        let mut vault = Vault::new();
        let (a, b, c) = (vault.admit(password("same")), vault.admit(password("same")), vault.admit(password("other")));

        assert!(vault.matches(&a, &b, toy_ha1));
        assert!(!vault.matches(&a, &c, toy_ha1));
    }

    #[test]
    fn a_password_matches_ha1s_that_are_all_its_own() {
        let mut vault = Vault::new();
        let typed = vault.admit(password("pw"));
        let own = vault.admit(Material::Ha1(vec![
            ha1("r", Ha1Algorithm::Md5, &toy_ha1(b"pw", "r", Ha1Algorithm::Md5)),
            ha1("s", Ha1Algorithm::Md5, &toy_ha1(b"pw", "s", Ha1Algorithm::Md5)),
        ]));
        let half = vault.admit(Material::Ha1(vec![
            ha1("r", Ha1Algorithm::Md5, &toy_ha1(b"pw", "r", Ha1Algorithm::Md5)),
            ha1("s", Ha1Algorithm::Md5, "00"),
        ]));

        assert!(vault.matches(&typed, &own, toy_ha1));
        assert!(vault.matches(&own, &typed, toy_ha1));
        assert!(!vault.matches(&typed, &half, toy_ha1));
    }

    #[test]
    fn ha1s_match_on_a_common_realm_and_never_on_none() {
        let mut vault = Vault::new();
        let kept =
            vault.admit(Material::Ha1(vec![ha1("r", Ha1Algorithm::Md5, "0a"), ha1("s", Ha1Algorithm::Md5, "0b")]));
        let same_in_capitals = vault.admit(Material::Ha1(vec![ha1("r", Ha1Algorithm::Md5, "0A")]));
        let wrong = vault.admit(Material::Ha1(vec![ha1("r", Ha1Algorithm::Md5, "0c")]));
        let elsewhere = vault.admit(Material::Ha1(vec![ha1("t", Ha1Algorithm::Md5, "0a")]));
        let stronger = vault.admit(Material::Ha1(vec![ha1("r", Ha1Algorithm::Sha256, "0a")]));
        let empty = vault.admit(Material::Ha1(Vec::new()));

        assert!(vault.matches(&kept, &same_in_capitals, toy_ha1));
        for other in [&wrong, &elsewhere, &stronger, &empty] {
            assert!(!vault.matches(&kept, other, toy_ha1));
        }
    }

    fn password(text: &str) -> Material {
        Material::Password(Password::new(Zeroizing::new(text.as_bytes().to_vec())))
    }

    fn ha1(realm: &str, algorithm: Ha1Algorithm, value: &str) -> Ha1 {
        Ha1 { realm: realm.to_owned(), algorithm, value: Zeroizing::new(value.to_owned()) }
    }

    /// Distinguishes password, realm and algorithm; that is all a comparison needs.
    fn toy_ha1(password: &[u8], realm: &str, algorithm: Ha1Algorithm) -> Zeroizing<String> {
        Zeroizing::new(format!("{password:02x?}{realm}{algorithm:?}").to_ascii_lowercase())
    }

    fn shown(vault: &Vault, id: &CredentialId) -> Vec<String> {
        vault.lend(id, |lent| match lent {
            Lent::Password(bytes) => vec![format!("password {}", String::from_utf8_lossy(bytes))],
            Lent::Ha1(values) => {
                values.iter().map(|ha1| format!("{} {:?} {}", ha1.realm, ha1.algorithm, ha1.value.as_str())).collect()
            }
        })
    }
}
