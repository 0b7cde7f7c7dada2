//! What a response asks to be signed, for each protection space, and what stands in the way.
//!
//! Its own room between reading challenges (`auth`) and signing (`digest`), because a request may pass several that ask: proxies
//! and the registrar, each under a realm of its own (RFC 3261 §22.2, §22.3). It refuses to count: how often an answer may be
//! given is its caller's.

use std::fmt;

use super::auth::{self, Algorithm, Challenge, Qop};
use super::digest::Session;
use super::message::{HeaderName, Message, StatusCode};
use super::registration::cut;

/// Protection spaces of one response that are looked at; further ones can ask again.
const DEMANDS_MAX: usize = 8;
/// Longest text of a server within the words for an obstacle, in bytes.
const QUOTE_MAX: usize = 64;

/// What a 401 or 407 asks for.
pub struct Asked {
    /// Each protection space, as far as its challenges could be read.
    pub demands: Vec<Demand>,
    /// The worst that stands in the way, where a challenge cannot be signed.
    pub obstacle: Option<Obstacle>,
    /// A proxy asks (407).
    pub proxy: bool,
}

/// What one protection space asks for.
pub struct Demand {
    /// Whether a proxy asks.
    pub proxy: bool,
    /// As it stands between the quotes.
    pub realm: Vec<u8>,
    /// The strongest answer we have.
    pub session: Option<Session>,
    /// It calls the nonce we used too old.
    pub stale: bool,
}

/// Why a challenge cannot be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// There is no Digest challenge, or none that can be read.
    NoDigest,
    /// Realm, nonce or opaque are longer than what is kept, or could not be sent back.
    Unusable,
    /// More realms than one exchange answers.
    TooMany,
    /// An option we do not know.
    Qop(String),
    /// An algorithm we do not know.
    Algorithm(String),
    /// We could sign it, but hold nothing for this realm and algorithm.
    NoSecret {
        /// As text.
        realm: String,
        /// The name, -sess included.
        algorithm: String,
    },
}

impl Asked {
    /// Reads a 401 or 407. An answer is given only where `usable(realm, algorithm)` holds.
    #[must_use]
    pub fn of(response: &Message, usable: impl Fn(&[u8], Algorithm) -> bool) -> Self {
        let proxy = response.status() == Some(StatusCode::PROXY_AUTHENTICATION_REQUIRED);
        let mut asked = Self { demands: Vec::new(), obstacle: None, proxy };
        for challenge in response.challenges() {
            asked.take(&challenge, &usable);
        }
        asked
    }

    /// What stands in the way, where nothing else does: there was nothing to be signed.
    #[must_use]
    pub fn into_obstacle(self) -> Obstacle {
        self.obstacle.unwrap_or(Obstacle::NoDigest)
    }

    fn take(&mut self, challenge: &Challenge<'_>, usable: &impl Fn(&[u8], Algorithm) -> bool) {
        let of = |demand: &Demand| demand.proxy == challenge.proxy && demand.realm == *challenge.realm;
        let at = self.demands.iter().position(of).unwrap_or(self.demands.len());
        if at == DEMANDS_MAX {
            return;
        }
        if at == self.demands.len() {
            let realm = challenge.realm.to_vec();
            self.demands.push(Demand { proxy: challenge.proxy, realm, session: None, stale: false });
        }
        let demand = &mut self.demands[at];
        demand.stale |= challenge.stale;
        let answer = Session::answering(challenge);
        match answer.filter(|session| usable(&session.realm, session.algorithm)) {
            Some(session) => {
                let strength = |session: &Session| (session.algorithm, session.qop);
                if demand.session.as_ref().is_none_or(|best| strength(&session) > strength(best)) {
                    demand.session = Some(session);
                }
            }
            None => self.stumble(Obstacle::of(challenge)),
        }
    }

    fn stumble(&mut self, obstacle: Obstacle) {
        if self.obstacle.as_ref().is_none_or(|former| obstacle.rank() > former.rank()) {
            self.obstacle = Some(obstacle);
        }
    }
}

impl Session {
    /// The header field that bears its answers.
    #[must_use]
    pub fn header(&self) -> HeaderName {
        if self.proxy { HeaderName::ProxyAuthorization } else { HeaderName::Authorization }
    }

    /// Whether it answers that protection space.
    #[must_use]
    pub fn is_for(&self, proxy: bool, realm: &[u8]) -> bool {
        self.proxy == proxy && self.realm == realm
    }
}

impl Obstacle {
    /// Of a challenge that was not signed.
    fn of(challenge: &Challenge<'_>) -> Self {
        let quote = |text: &str| cut(text, QUOTE_MAX);
        if challenge.algorithm.is_none() {
            Self::Algorithm(quote(&challenge.algorithm_text))
        } else if challenge.qop == Qop::Unsupported {
            Self::Qop(quote(&challenge.qop_text))
        } else if Session::answering(challenge).is_none() {
            Self::Unusable
        } else {
            let named = Some(&*challenge.algorithm_text).filter(|name| !name.is_empty());
            let algorithm = quote(named.unwrap_or(Algorithm::Md5.as_str()));
            Self::NoSecret { realm: quote(&auth::text_of(&challenge.realm)), algorithm }
        }
    }

    /// What can be mended by other credentials is named before what cannot.
    fn rank(&self) -> u8 {
        match self {
            Self::NoDigest => 0,
            Self::Unusable => 1,
            Self::TooMany => 2,
            Self::Qop(_) => 3,
            Self::Algorithm(_) => 4,
            Self::NoSecret { .. } => 5,
        }
    }
}

/// In words; what the server said in them is cut and holds nothing that could disturb a terminal or a page.
impl fmt::Display for Obstacle {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDigest => out.write_str("the registrar sent no digest challenge that can be answered"),
            Self::Unusable => out.write_str("the registrar's challenge is too long, or malformed, to be answered"),
            Self::TooMany => out.write_str("the registrar asks for credentials under ever more realms"),
            Self::Qop(list) => write!(out, "the registrar asks for qop {list}, which is not supported"),
            Self::Algorithm(name) => write!(out, "the registrar asks for algorithm {name}, which is not supported"),
            Self::NoSecret { realm, algorithm } => {
                write!(out, "the registrar asks for realm {realm}, algorithm {algorithm}; no ha1 for it")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(fields: &str) -> Message {
        let text = format!(
            "SIP/2.0 401 Unauthorized\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\n\
             To: <sip:a@b>;tag=2\r\nCall-ID: x\r\nCSeq: 1 REGISTER\r\n{fields}Content-Length: 0\r\n\r\n"
        );
        Message::parse_datagram(text.into_bytes()).expect("a response")
    }

    fn asked(fields: &str) -> Asked {
        Asked::of(&response(fields), |realm, algorithm| realm != b"foreign" && algorithm != Algorithm::Sha512256)
    }

    #[test]
    fn each_protection_space_is_answered_with_the_strongest_we_can() {
        let asked = asked(
            "WWW-Authenticate: Digest realm=\"a\",nonce=\"1\", Digest realm=\"a\",nonce=\"2\",algorithm=SHA-256,qop=auth\r\n\
             WWW-Authenticate: Digest realm=\"a\",nonce=\"3\",algorithm=SHA-512-256, Basic realm=\"a\"\r\n\
             Proxy-Authenticate: Digest realm=\"a\",nonce=\"4\",stale=TRUE\r\n",
        );
        let found: Vec<_> = asked.demands.iter().map(|it| (it.proxy, it.stale, &it.session)).collect();
        let nonces: Vec<_> = found.iter().map(|(_, _, session)| &*session.as_ref().expect("signed").nonce).collect();
        assert_eq!(nonces, [b"2", b"4"]);
        assert_eq!((found[0].0, found[0].1, found[1].0, found[1].1), (false, false, true, true));
    }

    #[test]
    fn what_stands_in_the_way_is_named_and_what_other_credentials_mend_first() {
        let digest = "WWW-Authenticate: Digest nonce=\"1\"";
        for (fields, words) in [
            (String::new(), "the registrar sent no digest challenge that can be answered"),
            (
                "WWW-Authenticate: Basic realm=\"a\"\r\n".to_owned(),
                "the registrar sent no digest challenge that can be answered",
            ),
            (
                format!("{digest},realm=\"{}\"\r\n", "r".repeat(300)),
                "the registrar's challenge is too long, or malformed, to be answered",
            ),
            (
                format!("{digest},realm=\"a\",algorithm=SHA-512\r\n"),
                "the registrar asks for algorithm SHA-512, which is not supported",
            ),
            (
                format!("{digest},realm=\"a\",qop=\"auth-conf\"\r\n"),
                "the registrar asks for qop auth-conf, which is not supported",
            ),
            (
                format!("{digest},realm=\"a\",algorithm=X\r\n{digest},realm=\"foreign\",algorithm=md5-SESS\r\n"),
                "the registrar asks for realm foreign, algorithm md5-SESS; no ha1 for it",
            ),
        ] {
            let asked = asked(&fields);
            assert!(asked.demands.iter().all(|demand| demand.session.is_none()), "{fields}");
            assert_eq!(asked.into_obstacle().to_string(), words, "{fields}");
        }
    }

    #[test]
    fn words_of_a_registrar_are_cut_and_cleaned() {
        let long = format!(
            "WWW-Authenticate: Digest nonce=\"1\",realm=\"foreign\",algorithm=\"\u{202e}{}\"\r\n",
            "x".repeat(99)
        );
        let words = asked(&long).into_obstacle().to_string();
        assert_eq!(
            words,
            format!("the registrar asks for algorithm {}, which is not supported", "x".repeat(QUOTE_MAX))
        );
    }
}
