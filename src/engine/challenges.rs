//! Who asks us to prove who we are, how often within one exchange, and what we answer later requests with.
//!
//! Shared by REGISTER (`register`) and SUBSCRIBE (`mailboxes`). A request may pass a proxy and reach a registrar that both ask,
//! each under a realm of its own, so there is a set of answers, and a further realm is progress (RFC 3261 §22.3). The same realm
//! that asks again is none: a wrong password must not be tried until the account is locked.

use crate::sip::answering::{Asked, Demand, Obstacle};
use crate::sip::digest::Session;
use crate::sip::{HeaderName, Message};

/// Protection spaces that one registrant answers. A further one takes the place of the one that asked longest ago, which may
/// ask again.
const SESSIONS_MAX: usize = 4;

/// Challenges that are answered within one exchange: each protection space, and as many second thoughts. More of them, and the
/// registrar is one that cannot be registered at.
const ROUNDS_MAX: u8 = 8;

/// How often a protection space may call our nonce stale within one exchange (RFC 7616 §3.3) before it counts as a refusal.
const STALE_MAX: u8 = 1;

/// What a registrant answers with: a session for each protection space, the one that asked longest ago first.
#[derive(Default)]
pub(crate) struct Sessions(Vec<Session>);

/// The challenges of one exchange so far.
#[derive(Default)]
pub(crate) struct Challenges {
    /// The protection spaces for which the request on the wire has an answer that is fresh in this exchange.
    answered: Vec<Answered>,
    rounds: u8,
    refusals: u8,
}

struct Answered {
    proxy: bool,
    realm: Vec<u8>,
    stale: u8,
}

/// What becomes of a challenge.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// The sessions have answers; the request goes out again.
    Answered,
    /// What we answered with is refused.
    Refused,
    /// Nothing held here answers it.
    Unsignable(Obstacle),
}

impl Challenges {
    /// Another 401 or 407 came. `refusals_max` refusals of fresh answers, or too many challenges, end the exchange.
    #[must_use]
    pub(crate) fn admit(&mut self, asked: Asked, sessions: &mut Sessions, refusals_max: u8) -> Admission {
        self.rounds += 1;
        if self.rounds > ROUNDS_MAX {
            return Admission::Unsignable(Obstacle::TooMany);
        }
        let signable = |demand: &&Demand| demand.session.is_some();
        let goes_on = asked.demands.iter().filter(signable).any(|demand| match self.of(demand) {
            None => true,
            Some(answered) => demand.stale && answered.stale < STALE_MAX,
        });
        if !goes_on {
            let repeated = asked.demands.iter().any(|demand| self.of(demand).is_some());
            // A last word without any challenge is about what was answered last.
            let last_word = asked.demands.is_empty() && self.answered.iter().any(|it| it.proxy == asked.proxy);
            if !repeated && !last_word {
                return Admission::Unsignable(asked.into_obstacle());
            }
            self.refusals += 1;
            if self.refusals >= refusals_max || !asked.demands.iter().any(|demand| demand.session.is_some()) {
                return Admission::Refused;
            }
        }
        for demand in asked.demands {
            self.answer(demand, sessions);
        }
        Admission::Answered
    }

    fn answer(&mut self, demand: Demand, sessions: &mut Sessions) {
        let Demand { proxy, realm, session: Some(session), stale } = demand else { return };
        match self.answered.iter_mut().find(|it| it.is(proxy, &realm)) {
            Some(answered) => answered.stale += u8::from(stale),
            None => {
                // A server that changed its realm asks in the place of the one it had. If both are there, the other asks again.
                if !sessions.0.iter().any(|held| held.is_for(proxy, &realm)) {
                    sessions.0.retain(|held| held.proxy != proxy || self.has_answered(held));
                }
                self.answered.push(Answered { proxy, realm, stale: 0 });
            }
        }
        if let Some(gone) = sessions.put(session) {
            self.answered.retain(|it| !gone.is_for(it.proxy, &it.realm));
        }
    }

    fn of(&self, demand: &Demand) -> Option<&Answered> {
        self.answered.iter().find(|it| it.is(demand.proxy, &demand.realm))
    }

    fn has_answered(&self, session: &Session) -> bool {
        self.answered.iter().any(|it| session.is_for(it.proxy, &it.realm))
    }
}

impl Answered {
    fn is(&self, proxy: bool, realm: &[u8]) -> bool {
        self.proxy == proxy && self.realm == realm
    }
}

impl Sessions {
    /// The sessions, for signing.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Session> {
        self.0.iter_mut()
    }

    /// The sessions.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Session> {
        self.0.iter()
    }

    /// The nonces that a 2xx brings along for the next request. One without a realm to it is taken where it can be for one
    /// session only.
    pub(crate) fn handle_granted(&mut self, response: &Message) {
        let infos = [
            (response.header(HeaderName::AuthenticationInfo), false),
            (response.extension("Proxy-Authentication-Info"), true),
        ];
        for (info, proxy) in infos {
            let Some(info) = info else { continue };
            let mut of_kind = self.0.iter_mut().filter(|session| session.proxy == proxy);
            if let (Some(session), None) = (of_kind.next(), of_kind.next()) {
                session.handle_authentication_info(info);
            }
        }
    }

    /// Takes up an answer; the one whose place it takes for want of room comes back.
    fn put(&mut self, mut session: Session) -> Option<Session> {
        let place = self.0.iter().position(|held| held.is_for(session.proxy, &session.realm));
        if let Some(former) = place.map(|place| self.0.remove(place)) {
            session.go_on_from(&former);
        }
        let gone = (self.0.len() >= SESSIONS_MAX).then(|| self.0.remove(0));
        // Most have one, and there are many registrants.
        self.0.reserve_exact(1);
        self.0.push(session);
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_nonce_is_answered_and_its_refusal_is_one() {
        let (mut challenges, mut sessions) = begin();
        assert_eq!(challenges.admit(asked(&[("r", "1", "")]), &mut sessions, 1), Admission::Answered);
        assert_eq!(challenges.admit(asked(&[("r", "2", "")]), &mut sessions, 1), Admission::Refused);
        let (mut challenges, _) = begin();
        assert_eq!(
            challenges.admit(asked(&[("r", "3", "")]), &mut sessions, 1),
            Admission::Answered,
            "of an earlier exchange"
        );
        assert_eq!(held(&sessions), ["r 3"]);
    }

    #[test]
    fn one_stale_nonce_is_forgiven() {
        let (mut challenges, mut sessions) = begin();
        for nonce in ["1", "2"] {
            assert_eq!(challenges.admit(asked(&[("r", nonce, ",stale=true")]), &mut sessions, 1), Admission::Answered);
        }
        assert_eq!(
            challenges.admit(asked(&[("r", "3", ",stale=true")]), &mut sessions, 1),
            Admission::Refused,
            "not for ever"
        );
    }

    #[test]
    fn a_further_realm_is_progress_and_what_was_answered_stays() {
        let (mut challenges, mut sessions) = begin();
        assert_eq!(challenges.admit(asked(&[("p", "1", "")]), &mut sessions, 1), Admission::Answered);
        assert_eq!(challenges.admit(asked(&[("r", "1", "")]), &mut sessions, 1), Admission::Answered);
        assert_eq!(challenges.admit(asked(&[("p", "2", ",stale=true")]), &mut sessions, 1), Admission::Answered);
        assert_eq!(held(&sessions), ["r 1", "p 2"]);
        assert_eq!(challenges.admit(asked(&[("r", "2", "")]), &mut sessions, 1), Admission::Refused);
    }

    #[test]
    fn a_realm_that_took_the_place_of_another_is_answered_alone() {
        let (mut challenges, mut sessions) = begin();
        assert_eq!(challenges.admit(asked(&[("old", "1", "")]), &mut sessions, 1), Admission::Answered);
        let (mut challenges, _) = begin();
        assert_eq!(challenges.admit(asked(&[("new", "1", "")]), &mut sessions, 1), Admission::Answered);
        assert_eq!(held(&sessions), ["new 1"]);
        assert_eq!(
            challenges.admit(asked(&[("old", "2", "")]), &mut sessions, 1),
            Admission::Answered,
            "it is needed too"
        );
        assert_eq!(held(&sessions), ["new 1", "old 2"]);
    }

    #[test]
    fn the_set_is_bounded_and_so_are_the_challenges() {
        let (mut challenges, mut sessions) = begin();
        for round in 0..ROUNDS_MAX {
            let realm = format!("r{round}");
            assert_eq!(challenges.admit(asked(&[(&realm, "1", "")]), &mut sessions, 1), Admission::Answered);
            assert!(sessions.0.len() <= SESSIONS_MAX);
        }
        let last = challenges.admit(asked(&[("more", "1", "")]), &mut sessions, 1);
        assert_eq!(last, Admission::Unsignable(Obstacle::TooMany));
    }

    #[test]
    fn what_cannot_be_signed_is_no_refusal_unless_it_answers_ours() {
        let (mut challenges, mut sessions) = begin();
        let unknown = || asked(&[("r", "1", ",algorithm=SHA-512")]);
        let obstacle = Obstacle::Algorithm("SHA-512".to_owned());
        assert_eq!(challenges.admit(unknown(), &mut sessions, 1), Admission::Unsignable(obstacle.clone()));
        assert_eq!(challenges.admit(asked(&[]), &mut sessions, 1), Admission::Unsignable(Obstacle::NoDigest));
        assert_eq!(challenges.admit(asked(&[("s", "1", "")]), &mut sessions, 1), Admission::Answered);
        assert_eq!(challenges.admit(unknown(), &mut sessions, 1), Admission::Unsignable(obstacle));
        assert_eq!(challenges.admit(asked(&[]), &mut sessions, 1), Admission::Refused, "a 401 without a challenge");
    }

    #[test]
    fn the_same_nonce_once_more_goes_on_with_its_count() {
        let (mut challenges, mut sessions) = begin();
        assert_eq!(challenges.admit(asked(&[("r", "1", "")]), &mut sessions, 2), Admission::Answered);
        sessions.0[0].nc = 7;
        assert_eq!(challenges.admit(asked(&[("r", "1", "")]), &mut sessions, 2), Admission::Answered);
        assert_eq!(sessions.0[0].nc, 7);
        assert_eq!(challenges.admit(asked(&[("r", "2", "")]), &mut sessions, 3), Admission::Answered);
        assert_eq!(sessions.0[0].nc, 0);
    }

    fn begin() -> (Challenges, Sessions) {
        (Challenges::default(), Sessions::default())
    }

    fn asked(challenges: &[(&str, &str, &str)]) -> Asked {
        let lines = challenges.iter().map(|(realm, nonce, rest)| {
            format!("WWW-Authenticate: Digest realm=\"{realm}\",nonce=\"{nonce}\"{rest}\r\n")
        });
        let text = format!("SIP/2.0 401 Unauthorized\r\n{}\r\n", lines.collect::<String>());
        Asked::of(&Message::parse_datagram(text.into_bytes()).expect("a response"), |_, _| true)
    }

    fn held(sessions: &Sessions) -> Vec<String> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        sessions.iter().map(|it| format!("{} {}", text(&it.realm), text(&it.nonce))).collect()
    }
}
