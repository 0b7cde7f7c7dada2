//! A device's key for the caller: what a sealed caller is sealed to (RFC 9180). The engine carries it; `push` seals.

use std::fmt;

use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};

/// How a caller is sealed: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, and one of two ciphers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallerSuite {
    /// ChaCha20-Poly1305.
    ChaCha20Poly1305,
    /// AES-128-GCM.
    Aes128Gcm,
}

impl CallerSuite {
    /// All suites.
    pub const ALL: [Self; 2] = [Self::ChaCha20Poly1305, Self::Aes128Gcm];

    /// The name used in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ChaCha20Poly1305 => "x25519-hkdf-sha256-chacha20poly1305",
            Self::Aes128Gcm => "x25519-hkdf-sha256-aes128gcm",
        }
    }

    /// The suite of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|suite| suite.as_str() == name)
    }
}

/// A public key that callers can be sealed to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CallerKey {
    suite: CallerSuite,
    public: [u8; 32],
}

impl CallerKey {
    /// A key, if what is sealed to it is a secret. `None`: the point is of low order, and everybody could open it
    /// (RFC 9180 §7.1.4, RFC 7748 §6.1).
    #[must_use]
    pub fn new(suite: CallerSuite, public: [u8; 32]) -> Option<Self> {
        // Every private key gives zero with a point of low order, so any private key finds it out.
        let probe = PrivateKey::from_private_key(&X25519, &[1; 32]).ok()?;
        agree(&probe, UnparsedPublicKey::new(&X25519, public), (), |_| Ok(())).ok()?;
        Some(Self { suite, public })
    }

    /// How to seal.
    #[must_use]
    pub fn suite(&self) -> CallerSuite {
        self.suite
    }

    /// The point, as RFC 7748 encodes it.
    #[must_use]
    pub fn public(&self) -> &[u8; 32] {
        &self.public
    }
}

/// Not the key: it tells devices from one another.
impl fmt::Debug for CallerKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("CallerKey").field("suite", &self.suite).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(low: u8) -> [u8; 32] {
        let mut point = [0; 32];
        point[0] = low;
        point
    }

    #[test]
    fn points_of_low_order_are_no_keys_however_they_are_written() {
        let of_order_eight = [
            0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda, 0x09,
            0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
        ];
        // The field's prime, and the same with the bit set that implementations ignore: zero, written in other ways.
        let mut prime = [0xff; 32];
        (prime[0], prime[31]) = (0xed, 0x7f);
        let mut with_top_bit = prime;
        with_top_bit[31] = 0xff;
        for bad in [point(0), point(1), of_order_eight, prime, with_top_bit] {
            assert!(CallerKey::new(CallerSuite::ChaCha20Poly1305, bad).is_none(), "{bad:?}");
        }
        assert!(CallerKey::new(CallerSuite::Aes128Gcm, point(9)).is_some(), "the base point");
    }
}
