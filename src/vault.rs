//! SKELETON. The only room where credentials live.
use zeroize::Zeroizing;
/// A password. No Debug, Clone, Serialize; wiped on drop.
pub struct Password(Zeroizing<Vec<u8>>);
impl Password {
    pub fn new(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(bytes)
    }
}
/// H(username:realm:password) in lower-case hex, as handed over or computed. No Debug, Clone, Serialize.
pub struct Ha1 {
    pub realm: String,
    pub algorithm: Ha1Algorithm,
    pub value: Zeroizing<String>,
}
/// The vault's own name of an algorithm (it does not know `sip`), weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ha1Algorithm {
    Md5,
    Sha256,
    Sha512256,
}
/// Credentials on their way into the vault.
pub enum Material {
    Password(Password),
    Ha1(Vec<Ha1>),
}
/// Names a credential. Not Clone: whoever holds it may lend or wipe.
pub struct CredentialId(u64);
/// Proof that a credential was wiped. Only `wipe` makes one; not Clone.
pub struct WipeReceipt(());
/// What `lend` shows.
pub enum Lent<'a> {
    Password(&'a [u8]),
    Ha1(&'a [Ha1]),
}
pub struct Vault {
    _p: (),
}
impl Vault {
    pub fn new() -> Self {
        todo!()
    }
    pub fn admit(&mut self, _material: Material) -> CredentialId {
        todo!()
    }
    pub fn lend<R>(&self, _id: &CredentialId, _use_it: impl FnOnce(Lent<'_>) -> R) -> R {
        todo!()
    }
    /// Puts HA1s in the place of the password (or adds realms/algorithms to the HA1s there), wiping what they replace.
    pub fn distill(&mut self, _id: &CredentialId, _ha1: Vec<Ha1>) {
        todo!()
    }
    /// Whether both hold the same password, or share an equal HA1 for a realm and algorithm; constant time. A password against HA1 needs `sip`: see the closure, which computes HA1 of a password.
    pub fn matches(
        &self,
        _a: &CredentialId,
        _b: &CredentialId,
        _ha1_of: impl Fn(&[u8], &str, Ha1Algorithm) -> Zeroizing<String>,
    ) -> bool {
        todo!()
    }
    /// Overwrites and frees it.
    pub fn wipe(&mut self, _id: CredentialId) -> WipeReceipt {
        todo!()
    }
    pub fn len(&self) -> usize {
        todo!()
    }
}
