//! The token that says to APNs who we are: minted rarely, shared by all pushes of a team's key.
//!
//! APNs refuses a token older than an hour and a server that changes its token within twenty minutes. `iat` is rounded
//! down to a slot, so that several nodes with one key claim the same.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::HeaderValue;
use serde_json::json;
use zeroize::Zeroizing;

use super::super::jwt::SigningKey;
use crate::clock::{Instant, Now};

/// Length of a slot in seconds: a token is used for one slot, and for [`RENEWAL_MIN`] at least.
const SLOT_SECONDS: u64 = 30 * 60;
/// APNs answers 429 TooManyProviderTokenUpdates to a token changed sooner.
const RENEWAL_MIN: Duration = Duration::from_secs(20 * 60);

/// A key and the token last minted with it.
pub(crate) struct ProviderToken {
    key: SigningKey,
    team_id: String,
    key_id: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    current: Option<Arc<Minted>>,
    serial: u64,
    forced: Option<Instant>,
}

/// A token, ready to be sent.
pub(crate) struct Minted {
    serial: u64,
    issued_at: u64,
    minted: Instant,
    /// The value of `authorization`, marked sensitive.
    pub(crate) header: HeaderValue,
}

impl ProviderToken {
    pub(crate) fn new(key: SigningKey, team_id: String, key_id: String) -> Self {
        Self { key, team_id, key_id, state: Mutex::default() }
    }

    /// The token to use now. Minting is a signature under the lock: whoever comes meanwhile waits for it, not mints too.
    pub(crate) fn current(&self, now: Now) -> Option<Arc<Minted>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = now.wall.unix_seconds() / SLOT_SECONDS * SLOT_SECONDS;
        if let Some(token) = &state.current {
            let young = now.boot.saturating_since(token.minted) < RENEWAL_MIN;
            // A wall clock set back leaves us with a token of the future, which APNs refuses.
            if token.issued_at >= slot && token.issued_at <= now.wall.unix_seconds() || young {
                return Some(Arc::clone(token));
            }
        }
        self.mint(&mut state, slot, now)
    }

    /// APNs called the token `stale` expired: mints one of this very second, unless another push did so already. `false`
    /// if one was forced so lately that another would only earn a 429.
    pub(crate) fn renew(&self, stale: &Minted, now: Now) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.current.as_ref().is_some_and(|token| token.serial != stale.serial) {
            return true;
        }
        if state.forced.is_some_and(|forced| now.boot.saturating_since(forced) < RENEWAL_MIN) {
            return false;
        }
        state.forced = Some(now.boot);
        self.mint(&mut state, now.wall.unix_seconds(), now).is_some()
    }

    fn mint(&self, state: &mut State, issued_at: u64, now: Now) -> Option<Arc<Minted>> {
        let token = self.key.sign(&self.key_id, &json!({ "iss": self.team_id, "iat": issued_at }))?;
        let bearer = Zeroizing::new(format!("bearer {}", *token));
        let mut header = HeaderValue::from_str(&bearer).ok()?;
        header.set_sensitive(true);
        state.serial += 1;
        let minted = Arc::new(Minted { serial: state.serial, issued_at, minted: now.boot, header });
        state.current = Some(Arc::clone(&minted));
        Some(minted)
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};

    use super::*;
    use crate::clock::WallTime;

    const HOUR: u64 = 3600;

    fn token() -> ProviderToken {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        ProviderToken::new(SigningKey::Es256(Box::new(pair)), "TEAM".to_owned(), "KEY".to_owned())
    }

    /// `seconds` after a moment that begins a slot on the wall clock.
    fn at(seconds: u64) -> Now {
        let wall = 1_000_000 * SLOT_SECONDS + seconds;
        Now { boot: Instant::from_nanos(seconds * 1_000_000_000), wall: WallTime::from_unix_millis(wall * 1000) }
    }

    fn mint(token: &ProviderToken, seconds: u64) -> Arc<Minted> {
        token.current(at(seconds)).expect("a token")
    }

    #[test]
    fn one_token_serves_a_slot_and_the_next_slot_has_its_own() {
        let token = token();
        let first = mint(&token, 10);
        assert_eq!(first.issued_at, at(0).wall.unix_seconds());
        assert!(Arc::ptr_eq(&first, &mint(&token, SLOT_SECONDS - 1)));
        let second = mint(&token, SLOT_SECONDS + 1);
        assert_eq!(second.issued_at, at(SLOT_SECONDS).wall.unix_seconds());
    }

    #[test]
    fn over_a_day_no_token_is_renewed_too_soon_or_used_too_long() {
        let token = token();
        let mut last: Option<Arc<Minted>> = None;
        // An offset that makes the first token a late one of its slot.
        for minute in 29..24 * 60 {
            let now = at(minute * 60);
            let current = token.current(now).expect("a token");
            assert!(now.wall.unix_seconds() - current.issued_at < HOUR);
            if let Some(last) = last.filter(|last| last.serial != current.serial) {
                assert!(current.minted.saturating_since(last.minted) >= RENEWAL_MIN);
            }
            last = Some(current);
        }
    }

    #[test]
    fn a_token_called_expired_is_renewed_once_for_all_who_used_it() {
        let token = token();
        let stale = mint(&token, 600);
        assert!(token.renew(&stale, at(600)));
        let fresh = mint(&token, 600);
        assert_eq!(fresh.issued_at, at(600).wall.unix_seconds());
        assert!(token.renew(&stale, at(601)), "the second one that used it just takes the fresh one");
        assert!(Arc::ptr_eq(&fresh, &mint(&token, 601)));
    }

    #[test]
    fn a_fresh_token_that_is_refused_too_is_not_replaced_again_at_once() {
        let token = token();
        assert!(token.renew(&mint(&token, 600), at(600)));
        assert!(!token.renew(&mint(&token, 601), at(601)));
        assert!(token.renew(&mint(&token, 600 + 20 * 60), at(600 + 20 * 60)));
    }

    #[test]
    fn a_wall_clock_set_back_does_not_keep_a_token_of_the_future() {
        let token = token();
        mint(&token, 5 * HOUR);
        let back = Now { boot: at(6 * HOUR).boot, wall: at(HOUR).wall };
        assert_eq!(token.current(back).expect("a token").issued_at, at(HOUR).wall.unix_seconds());
    }
}
