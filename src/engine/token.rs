//! The tokens of one instance: the one its last hand-over was answered with and, while that may never have arrived, the one its
//! app used last.
//!
//! A file of its own because two rooms check them, `leases` and `erasures`, and a third asks for their digests. It decides what
//! a use of each means, and keeps no time: the owner says when a former token has lived long enough.

use std::time::Duration;

use zeroize::Zeroizing;

use super::input::TokenHash;

/// How long the token that was used last goes on working after another one was minted, unless the other is used before.
pub(crate) const FORMER_LIFE: Duration = Duration::from_secs(600);

/// The hash of nothing that anybody has.
const NOBODYS: TokenHash = TokenHash([0; 32]);

/// One bearer token, as it is kept.
pub(crate) struct Token {
    hash: TokenHash,
    /// Its digest HA1, for the edge.
    edge_ha1: Zeroizing<String>,
}

/// Which of an instance's tokens was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// The newest: it has arrived, so no other is needed.
    Current,
    /// The one that was used before.
    Former,
}

/// The tokens of one instance: two at most.
pub(crate) struct Tokens {
    current: Token,
    /// The one before, while the current one was never shown.
    former: Option<Token>,
}

impl Token {
    pub(crate) fn new(hash: TokenHash, edge_ha1: Zeroizing<String>) -> Self {
        Self { hash, edge_ha1 }
    }
}

impl Tokens {
    pub(crate) fn new(token: Token) -> Self {
        Self { current: token, former: None }
    }

    /// A newer token; with `keeps` the one before goes on working beside it. A current one that was never shown, and has one
    /// before it, goes: its answer seems to be lost. Whether there is a former one now.
    pub(crate) fn replace(&mut self, token: Token, keeps: bool) -> bool {
        let replaced = std::mem::replace(&mut self.current, token);
        self.former = if keeps { self.former.take().or(Some(replaced)) } else { None };
        self.former.is_some()
    }

    /// The current token was shown.
    pub(crate) fn use_current(&mut self) {
        self.former = None;
    }

    /// The former one has lived long enough.
    pub(crate) fn forget_former(&mut self) {
        self.former = None;
    }

    /// The digest HA1 of the current one and of the former; where there is none, the current one's again, so that both are
    /// always tried.
    pub(crate) fn edge_ha1s(&self) -> [(&str, Which); 2] {
        let current = self.current.edge_ha1.as_str();
        let former = self.former.as_ref().map(|former| (former.edge_ha1.as_str(), Which::Former));
        [(current, Which::Current), former.unwrap_or((current, Which::Current))]
    }
}

/// What was found, if the token is one of its own, and which. The time tells neither where they differ, nor which of them it
/// is, nor whether anything was found.
pub(crate) fn owned_by<T>(
    found: Option<T>,
    tokens_of: impl FnOnce(&T) -> &Tokens,
    presented: &TokenHash,
) -> Option<(T, Which)> {
    let tokens = found.as_ref().map(tokens_of);
    let current = tokens.map_or(&NOBODYS, |tokens| &tokens.current.hash);
    let former = tokens.and_then(|tokens| tokens.former.as_ref());
    let has_former = former.is_some();
    let former = former.map_or(&NOBODYS, |former| &former.hash);
    let equals = |known: &TokenHash| aws_lc_rs::constant_time::verify_slices_are_equal(&known.0, &presented.0).is_ok();
    let (is_current, is_former) = (equals(current), equals(former) && has_former);
    let which = if is_current { Which::Current } else { Which::Former };
    found.filter(|_| is_current || is_former).map(|found| (found, which))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(number: u8) -> Token {
        Token::new(TokenHash([number; 32]), Zeroizing::new(format!("ha1-{number}")))
    }

    fn shown(tokens: &Tokens, number: u8) -> Option<Which> {
        owned_by(Some(tokens), |tokens| tokens, &TokenHash([number; 32])).map(|(_, which)| which)
    }

    #[test]
    fn the_token_that_was_used_last_stays_until_the_newest_is_used() {
        let mut tokens = Tokens::new(token(1));
        assert!(tokens.replace(token(2), true));
        assert_eq!((shown(&tokens, 1), shown(&tokens, 2)), (Some(Which::Former), Some(Which::Current)));
        // That answer was lost, and the next one too.
        assert!(tokens.replace(token(3), true));
        assert_eq!([1, 2, 3].map(|it| shown(&tokens, it)), [Some(Which::Former), None, Some(Which::Current)]);
        tokens.use_current();
        assert_eq!([1, 2, 3].map(|it| shown(&tokens, it)), [None, None, Some(Which::Current)]);
    }

    #[test]
    fn other_credentials_and_the_end_of_its_time_leave_the_newest_alone() {
        let mut tokens = Tokens::new(token(1));
        tokens.use_current();
        assert!(!tokens.replace(token(2), false));
        assert_eq!((shown(&tokens, 1), shown(&tokens, 2)), (None, Some(Which::Current)));
        tokens.use_current();
        assert!(tokens.replace(token(3), true));
        tokens.forget_former();
        assert_eq!((shown(&tokens, 2), shown(&tokens, 3)), (None, Some(Which::Current)));
        assert_eq!(tokens.edge_ha1s(), [("ha1-3", Which::Current); 2]);
    }

    #[test]
    fn a_token_of_zeros_opens_nothing() {
        let tokens = Tokens::new(token(1));
        assert_eq!(shown(&tokens, 0), None);
        assert!(owned_by(None::<&Tokens>, |tokens| tokens, &TokenHash([1; 32])).is_none());
    }
}
