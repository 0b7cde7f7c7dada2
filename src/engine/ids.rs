//! Names of things, each with its shard's number written into it.
//!
//! A packet finds the shard that owns its subject by reading: the number stands in front of the random part of instance
//! ids, capabilities, Via branches and route tokens. All texts are `[a-z0-9]`, so that they survive case-folding PBXs.

use std::fmt;

/// The number of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

const RANDOM_BYTES: usize = 16;
const ID_BYTES: usize = 2 + RANDOM_BYTES;
/// Characters of an id's text: 18 bytes in base 32 without padding.
pub const ID_TEXT_LEN: usize = 29;
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Lower-case base 32 (RFC 4648 alphabet) without padding.
pub fn base32(bytes: &[u8], out: &mut String) {
    let (mut buffer, mut bits) = (0u32, 0u32);
    for &byte in bytes {
        buffer = (buffer << 8) | u32::from(byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            out.push(char::from(ALPHABET[((buffer >> bits) & 31) as usize]));
        }
    }
    if bits > 0 {
        out.push(char::from(ALPHABET[((buffer << (5 - bits)) & 31) as usize]));
    }
}

/// Reads what [`base32`] wrote, letters in either case. `None` for other characters, a wrong length for `N` bytes, or
/// padding bits that are not zero (each value has one text).
#[must_use]
pub fn from_base32<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    if text.len() != (N * 8).div_ceil(5) {
        return None;
    }
    let mut out = [0u8; N];
    let (mut buffer, mut bits, mut filled) = (0u32, 0u32, 0usize);
    for &character in text {
        let value = match character.to_ascii_lowercase() {
            letter @ b'a'..=b'z' => letter - b'a',
            digit @ b'2'..=b'7' => digit - b'2' + 26,
            _ => return None,
        };
        buffer = ((buffer << 5) | u32::from(value)) & 0xffff;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            out[filled] = ((buffer >> bits) & 0xff) as u8;
            filled += 1;
        }
    }
    (buffer & ((1 << bits) - 1) == 0).then_some(out)
}

macro_rules! sharded_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; ID_BYTES]);

        impl $name {
            /// Mints the name for a thing that lives in `shard`, from 128 random bits.
            #[must_use]
            pub fn mint(shard: ShardId, random: [u8; RANDOM_BYTES]) -> Self {
                let mut bytes = [0; ID_BYTES];
                bytes[..2].copy_from_slice(&shard.0.to_be_bytes());
                bytes[2..].copy_from_slice(&random);
                Self(bytes)
            }

            /// Reads the text form; `None` if it cannot be one of ours.
            #[must_use]
            pub fn parse(text: &[u8]) -> Option<Self> {
                from_base32(text).map(Self)
            }

            /// The shard that owns it.
            #[must_use]
            pub fn shard(&self) -> ShardId {
                ShardId(u16::from_be_bytes([self.0[0], self.0[1]]))
            }

            /// The raw bytes, for keys of a MAC.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8; ID_BYTES] {
                &self.0
            }

            /// Takes the raw bytes back.
            #[must_use]
            pub fn from_bytes(bytes: [u8; ID_BYTES]) -> Self {
                Self(bytes)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut text = String::with_capacity(ID_TEXT_LEN);
                base32(&self.0, &mut text);
                f.write_str(&text)
            }
        }
    };
}

sharded_id! {
    /// One account on one device, held under a lease.
    InstanceId
}

sharded_id! {
    /// The unguessable user part of the Contact we register: the key to an instance from the SIP side.
    Capability
}

sharded_id! {
    /// The random part of a Via branch we mint (after the magic cookie of RFC 3261 §8.1.1.7).
    BranchId
}

impl fmt::Debug for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InstanceId({self})")
    }
}

impl fmt::Debug for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Capability(…)")
    }
}

impl fmt::Debug for BranchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BranchId({self})")
    }
}

/// RFC 3261 §8.1.1.7: what every branch of a conforming element starts with.
pub const MAGIC_COOKIE: &str = "z9hG4bK";

impl BranchId {
    /// The whole branch parameter.
    #[must_use]
    pub fn branch(&self) -> String {
        let mut branch = String::with_capacity(MAGIC_COOKIE.len() + ID_TEXT_LEN);
        branch.push_str(MAGIC_COOKIE);
        base32(&self.0, &mut branch);
        branch
    }

    /// Reads a branch parameter; `None` if we did not mint it.
    #[must_use]
    pub fn from_branch(branch: &[u8]) -> Option<Self> {
        let (cookie, name) = branch.split_at_checked(MAGIC_COOKIE.len())?;
        // A branch is a token, and has no case (RFC 3261 §7.3.1).
        cookie.eq_ignore_ascii_case(MAGIC_COOKIE.as_bytes()).then(|| Self::parse(name))?
    }
}

/// A live stream connection, or none: numbers are never used twice in the life of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowId(pub u64);

/// The place of a listener in the configuration (a UDP listener's TCP twin has a number of its own).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerId(pub u16);

/// A registration we keep, for one device or several that share it: a number of its shard, never used twice in the life of
/// a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BindingId(pub u64);

/// A question to the resolver that waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueryId(pub u64);

/// One push that waits for its outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WakeId(pub u64);

/// One command of the API that waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplyTo(pub u64);

/// One record of an erasure that waits for its receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId(pub u64);

/// The `call` id that push, INVITE and API share: a UUID (version 5) of one INVITE at one instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallUuid(pub uuid::Uuid);

impl fmt::Display for CallUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_its_text_form_in_either_case() {
        let id = InstanceId::mint(ShardId(513), *b"0123456789abcdef");
        let text = id.to_string();
        assert_eq!(text.len(), ID_TEXT_LEN);
        assert_eq!(InstanceId::parse(text.as_bytes()), Some(id));
        assert_eq!(InstanceId::parse(text.to_uppercase().as_bytes()), Some(id));
        assert_eq!(id.shard(), ShardId(513));
    }

    #[test]
    fn a_branch_is_known_in_either_case() {
        let id = BranchId::mint(ShardId(513), *b"0123456789abcdef");
        let branch = id.branch();
        for text in [branch.to_uppercase(), branch.to_lowercase(), branch.replace("z9hG4bK", "Z9hg4Bk"), branch.clone()]
        {
            assert_eq!(BranchId::from_branch(text.as_bytes()), Some(id), "{text}");
        }
        for text in ["", "z9hG4b", &branch[1..], &format!("{branch}a")] {
            assert_eq!(BranchId::from_branch(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_text_that_is_no_id_is_refused() {
        let text = InstanceId::mint(ShardId(0), [0; 16]).to_string();
        assert_eq!(InstanceId::parse(&text.as_bytes()[1..]), None);
        assert_eq!(InstanceId::parse(text.replace('a', "1").as_bytes()), None);
        assert_eq!(InstanceId::parse(format!("{}b", &text[1..]).as_bytes()), None, "padding bits must be zero");
    }
}
