//! Proof of a push token, as rooms, shards and the API speak of it. The room that keeps proofs is `proofs`.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{Context, SHA256};

use super::account::TenantId;
use super::ids::{InstanceId, base32, from_base32};
use super::input::{PeerMessage, PushTarget};

/// How far the proof of an instance's push token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProofState {
    /// The tenant asks for none.
    NotRequired,
    /// The challenge has not come back yet: no push is sent.
    Pending,
    /// The device that handed the token over is the one that gets its pushes.
    Proven,
    /// The token for calls is another device's: no call push is sent.
    Contested,
}

impl ProofState {
    /// All states.
    pub const ALL: [Self; 4] = [Self::NotRequired, Self::Pending, Self::Proven, Self::Contested];

    /// The name used in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotRequired => "not-required",
            Self::Pending => "pending",
            Self::Proven => "proven",
            Self::Contested => "contested",
        }
    }
}

/// 128 random bits that only the holder of a push token gets to see.
#[derive(Clone, Copy)]
pub struct Challenge([u8; 16]);

impl Challenge {
    /// A challenge of these bits.
    #[must_use]
    pub const fn new(random: [u8; 16]) -> Self {
        Self(random)
    }

    /// Reads the text of a push; `None` if it cannot be one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        from_base32(text.as_bytes()).map(Self)
    }

    /// As it stands in the push.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::with_capacity(26);
        base32(&self.0, &mut text);
        text
    }
}

/// In constant time.
impl PartialEq for Challenge {
    fn eq(&self, other: &Self) -> bool {
        verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl Eq for Challenge {}

/// Not the bits: who has them has the proof.
impl fmt::Debug for Challenge {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Challenge(…)")
    }
}

/// A push token of a tenant's app, by its hash: the name under which shards speak of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenKey([u8; 16]);

impl TokenKey {
    pub(crate) fn of(tenant: &TenantId, target: &PushTarget) -> Self {
        let mut context = Context::new(&SHA256);
        for part in [tenant, target.provider.as_str(), &target.app, target.token.form(), target.token.as_str()] {
            context.update(&part.len().to_be_bytes());
            context.update(part.as_bytes());
        }
        let mut key = [0; 16];
        key.copy_from_slice(&context.finish().as_ref()[..16]);
        Self(key)
    }
}

/// Nothing of it: it tells devices from one another.
impl fmt::Debug for TokenKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("TokenKey(…)")
    }
}

/// What an instance's shard and a token's home shard say to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenMessage {
    /// The token.
    pub token: TokenKey,
    /// The instance.
    pub instance: InstanceId,
    /// What about them.
    pub word: TokenWord,
}

impl From<TokenMessage> for PeerMessage {
    fn from(message: TokenMessage) -> Self {
        Self::Token(message)
    }
}

/// What is said of a token and an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenWord {
    /// To the home: a challenge wants to be pushed there.
    ChallengeWanted,
    /// From the home: it may, or not for so long.
    ChallengeAnswered(Option<Duration>),
    /// To the home: the instance's device has proven a token, and this one goes with it, or is that very one.
    Claimed {
        /// The token that was proven.
        proven: TokenKey,
        /// The device.
        device: String,
    },
    /// From the home: whether it is the instance's.
    ClaimAnswered(bool),
    /// From the home: another device has proven it since.
    Lost,
    /// To the home: the instance claims it no more.
    LaidDown,
}

impl TokenWord {
    /// Whether it goes to the token's home.
    pub(crate) fn is_for_home(&self) -> bool {
        match self {
            Self::ChallengeWanted | Self::Claimed { .. } | Self::LaidDown => true,
            Self::ChallengeAnswered(_) | Self::ClaimAnswered(_) | Self::Lost => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_survives_its_text_and_is_not_printed() {
        let challenge = Challenge::new(*b"0123456789abcdef");
        assert_eq!(Challenge::parse(&challenge.text()), Some(challenge));
        assert_ne!(Challenge::parse(&Challenge::new([0; 16]).text()), Some(challenge));
        assert_eq!(Challenge::parse("short"), None);
        assert_eq!(format!("{challenge:?}"), "Challenge(…)");
    }
}
