//! Credentials on their way into the vault, and the form they have inside a slot.

use zeroize::Zeroizing;

use super::slot::ROOM;

/// Longest password: what fits a slot.
pub const PASSWORD_BYTES_MAX: usize = ROOM - LENGTH_BYTES;

/// Hashes of one account: what fits a slot.
pub const HA1S_MAX: usize = ROOM / HASH_ROOM;

/// Bytes a hash takes in a slot, whatever its algorithm.
pub(super) const HASH_ROOM: usize = 32;

/// Its digits.
pub(super) const HEX_ROOM: usize = 2 * HASH_ROOM;

/// Stand before a password in its slot.
const LENGTH_BYTES: usize = 2;

/// A password. Overwritten when dropped.
pub struct Password(Zeroizing<Vec<u8>>);

impl Password {
    /// Takes the bytes over; no copy is made. `None`: there are more than [`PASSWORD_BYTES_MAX`].
    #[must_use]
    pub fn new(bytes: Zeroizing<Vec<u8>>) -> Option<Self> {
        (bytes.len() <= PASSWORD_BYTES_MAX).then_some(Self(bytes))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// H(username:realm:password) as handed over or computed. The value is overwritten when dropped.
pub struct Ha1 {
    label: Label,
    /// In hex, as long as the algorithm makes it.
    value: Zeroizing<String>,
}

impl Ha1 {
    /// A hash in hex digits, good for this realm and algorithm and no other. `None`: it is not of that form.
    #[must_use]
    pub fn new(realm: impl Into<Vec<u8>>, algorithm: Ha1Algorithm, mut value: Zeroizing<String>) -> Option<Self> {
        value.make_ascii_lowercase();
        let fits = value.len() == 2 * algorithm.hash_len() && value.bytes().all(|digit| digit.is_ascii_hexdigit());
        fits.then(|| Self { label: Label { realm: realm.into().into_boxed_slice(), algorithm }, value })
    }

    /// The protection realm, in the registrar's bytes.
    #[must_use]
    pub fn realm(&self) -> &[u8] {
        &self.label.realm
    }

    /// The hash it was made with.
    #[must_use]
    pub fn algorithm(&self) -> Ha1Algorithm {
        self.label.algorithm
    }

    /// The digits, in lower case.
    pub(crate) fn value(&self) -> &str {
        &self.value
    }

    pub(super) fn label(&self) -> Label {
        let Label { realm, algorithm } = &self.label;
        Label { realm: realm.clone(), algorithm: *algorithm }
    }

    pub(super) fn is_for(&self, label: &Label) -> bool {
        self.label == *label
    }
}

/// What a hash is good for.
#[derive(PartialEq, Eq)]
pub(super) struct Label {
    pub(super) realm: Box<[u8]>,
    pub(super) algorithm: Ha1Algorithm,
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

impl Ha1Algorithm {
    /// Bytes of a hash.
    #[must_use]
    pub fn hash_len(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Sha256 | Self::Sha512256 => 32,
        }
    }
}

/// Credentials on their way into the vault.
pub enum Material {
    /// Good for every realm and algorithm.
    Password(Password),
    /// Good for the realms and algorithms that stand there. Of more than [`HA1S_MAX`] the last ones are taken.
    Ha1(Vec<Ha1>),
}

/// How long a password is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// Until HA1s take its place.
    #[default]
    UntilAccepted,
    /// Beside the HA1s, as long as the credential.
    Always,
}

/// Writes a password as it lies in a slot: its length, then its bytes, then zeros.
pub(super) fn write_password(password: &[u8], plain: &mut [u8]) {
    let (length, room) = plain.split_at_mut(LENGTH_BYTES);
    let known = u16::try_from(password.len()).expect("a password fits a slot");
    length.copy_from_slice(&known.to_le_bytes());
    room[..password.len()].copy_from_slice(password);
}

/// The password in an open slot.
pub(super) fn read_password(plain: &[u8]) -> &[u8] {
    let (length, room) = plain.split_at(LENGTH_BYTES);
    let length = u16::from_le_bytes([length[0], length[1]]);
    &room[..usize::from(length)]
}

/// Writes a hash in lower-case digits and shows them.
pub(super) fn hex_into<'a>(hash: &[u8], digits: &'a mut [u8; HEX_ROOM]) -> &'a str {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in digits.chunks_exact_mut(2).zip(hash) {
        pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
    std::str::from_utf8(&digits[..2 * hash.len()]).expect("digits are ASCII")
}

/// Writes the bytes of a hash, of which the digits were checked.
pub(super) fn unhex_into(digits: &str, hash: &mut [u8]) {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => 0,
    };
    for (byte, pair) in hash.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        *byte = value(pair[0]) << 4 | value(pair[1]);
    }
}
