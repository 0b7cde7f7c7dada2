//! How often a registrar may ask who we are within one exchange, whatever was asked of it.
//!
//! Shared by REGISTER (`register`) and SUBSCRIBE (`mailboxes`): a wrong password must not be tried until the account is
//! locked.

/// How often we answer a challenge within one exchange: the first 401, and once more on the new nonce of a second one.
const ANSWERS_MAX: u8 = 2;

/// How often a registrar may call our nonce stale within one exchange (RFC 7616 §3.3) before it counts as a refusal.
const STALE_MAX: u8 = 1;

/// The challenges of one exchange so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Challenges {
    /// Whether the request on the wire answers a nonce that is fresh in this exchange.
    answers_fresh: bool,
    answers: u8,
    stale: u8,
    refusals: u8,
}

impl Challenges {
    /// Another 401 or 407 came; `stale`: it says our nonce was too old. `false`: it is a refusal, and `refusals_max` of
    /// them, or too many challenges, end the exchange.
    #[must_use]
    pub(crate) fn admit(&mut self, stale: bool, refusals_max: u8) -> bool {
        if self.answers_fresh {
            if stale && self.stale < STALE_MAX {
                self.stale += 1;
            } else {
                self.refusals += 1;
            }
        }
        self.refusals < refusals_max && self.answers < ANSWERS_MAX + self.stale
    }

    /// The challenge is being answered.
    pub(crate) fn answer(&mut self) {
        self.answers += 1;
        self.answers_fresh = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_nonce_is_answered_and_its_refusal_is_one() {
        let mut challenges = Challenges::default();
        assert!(challenges.admit(false, 1), "the cached nonce was too old, or there was none");
        challenges.answer();
        assert!(!challenges.admit(false, 1), "the answer to a fresh nonce was refused");
    }

    #[test]
    fn one_stale_nonce_is_forgiven() {
        let mut challenges = Challenges::default();
        assert!(challenges.admit(false, 1));
        challenges.answer();
        assert!(challenges.admit(true, 1));
        challenges.answer();
        assert!(!challenges.admit(true, 1), "not for ever");
    }
}
