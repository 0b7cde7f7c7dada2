//! What APNs says when it refuses a push, and what each reason means for us.

use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;

use super::super::answer;
use super::super::channel::Reply;
use crate::clock::WallTime;
use crate::engine::output::PushOutcome;

macro_rules! reasons {
    ($($name:ident),* $(,)?) => {
        /// A reason of Apple's table "Values for the APNs JSON reason key".
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub(crate) enum Reason {
            $(#[doc = concat!("`", stringify!($name), "`")] $name,)*
            /// One that is newer than this table.
            Other(String),
        }

        impl Reason {
            /// Every documented reason.
            #[cfg(test)]
            pub(crate) const DOCUMENTED: &[Self] = &[$(Self::$name),*];

            fn parse(text: &str) -> Self {
                match text {
                    $(stringify!($name) => Self::$name,)*
                    other => Self::Other(answer::word(other)),
                }
            }

            /// As Apple writes it.
            pub(crate) fn as_str(&self) -> &str {
                match self {
                    $(Self::$name => stringify!($name),)*
                    Self::Other(text) => text,
                }
            }
        }
    };
}

reasons! {
    BadCollapseId, BadDeviceToken, BadExpirationDate, BadMessageId, BadPriority, BadTopic, DeviceTokenNotForTopic,
    DuplicateHeaders, IdleTimeout, InvalidPushType, MissingDeviceToken, MissingTopic, PayloadEmpty, TopicDisallowed,
    BadCertificate, BadCertificateEnvironment, ExpiredProviderToken, Forbidden, InvalidProviderToken,
    MissingProviderToken, UnrelatedKeyIdInToken, BadEnvironmentKeyIdInToken, BadPath, MethodNotAllowed, ExpiredToken,
    Unregistered, PayloadTooLarge, TooManyProviderTokenUpdates, TooManyRequests, InternalServerError,
    ServiceUnavailable, Shutdown,
}

/// What an answer asks us to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing more.
    Settled(PushOutcome),
    /// The next one needs a fresh provider token.
    StaleProviderToken,
    /// This, and what is sent next goes over a fresh connection if there may be one.
    Ailing(PushOutcome),
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Refusal {
    reason: String,
    timestamp: Option<u64>,
}

/// Reads an answer.
pub(crate) fn verdict(reply: &Reply, now: WallTime) -> Verdict {
    if reply.status == StatusCode::OK {
        return Verdict::Settled(PushOutcome::Accepted);
    }
    let refusal: Refusal = serde_json::from_slice(&reply.body).unwrap_or_default();
    let reason = Reason::parse(&refusal.reason);
    let since = refusal.timestamp.map(WallTime::from_unix_millis);
    meaning(&reason, reply.status, since, answer::retry_after(reply, now))
}

fn meaning(reason: &Reason, status: StatusCode, since: Option<WallTime>, after: Option<Duration>) -> Verdict {
    let said = || answer::fault(status, reason.as_str());
    match reason {
        // Said of a made-up token, and of every token of the other environment: it proves nothing by itself.
        Reason::BadDeviceToken => Verdict::Settled(PushOutcome::TokenRejected(said())),
        Reason::Unregistered | Reason::ExpiredToken => Verdict::Settled(PushOutcome::TokenDead { since }),
        Reason::ExpiredProviderToken => Verdict::StaleProviderToken,
        Reason::TooManyRequests => Verdict::Settled(PushOutcome::Later { after }),
        Reason::InternalServerError | Reason::ServiceUnavailable | Reason::Shutdown | Reason::IdleTimeout => {
            Verdict::Ailing(PushOutcome::Unavailable { why: said(), after })
        }
        Reason::BadCollapseId
        | Reason::BadExpirationDate
        | Reason::BadMessageId
        | Reason::BadPriority
        | Reason::BadTopic
        | Reason::DeviceTokenNotForTopic
        | Reason::DuplicateHeaders
        | Reason::InvalidPushType
        | Reason::MissingDeviceToken
        | Reason::MissingTopic
        | Reason::PayloadEmpty
        | Reason::TopicDisallowed
        | Reason::BadCertificate
        | Reason::BadCertificateEnvironment
        | Reason::Forbidden
        | Reason::InvalidProviderToken
        | Reason::MissingProviderToken
        | Reason::UnrelatedKeyIdInToken
        | Reason::BadEnvironmentKeyIdInToken
        | Reason::BadPath
        | Reason::MethodNotAllowed
        | Reason::PayloadTooLarge
        | Reason::TooManyProviderTokenUpdates => Verdict::Settled(PushOutcome::OurFault(said())),
        // The status alone speaks.
        Reason::Other(_) => match status.as_u16() {
            410 => Verdict::Settled(PushOutcome::TokenDead { since }),
            429 => Verdict::Settled(PushOutcome::Later { after }),
            400..=499 => Verdict::Settled(PushOutcome::OurFault(said())),
            _ => Verdict::Ailing(PushOutcome::Unavailable { why: said(), after }),
        },
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderMap;

    use super::*;

    const NOW: WallTime = WallTime::from_unix_millis(1_795_550_400_000);

    fn reply(status: u16, body: &str) -> Reply {
        let status = StatusCode::from_u16(status).expect("a status");
        Reply { status, headers: HeaderMap::new(), body: Bytes::copy_from_slice(body.as_bytes()) }
    }

    fn said(status: u16, reason: &str) -> Verdict {
        verdict(&reply(status, &format!(r#"{{"reason":"{reason}"}}"#)), NOW)
    }

    #[test]
    fn every_documented_reason_is_read_by_its_name() {
        for reason in Reason::DOCUMENTED {
            assert_eq!(&Reason::parse(reason.as_str()), reason);
            assert!(!matches!(Reason::parse(reason.as_str()), Reason::Other(_)));
        }
    }

    #[test]
    fn dead_tokens_carry_the_providers_timestamp() {
        let dead = verdict(&reply(410, r#"{"reason":"Unregistered","timestamp":1454402113000}"#), NOW);
        let since = Some(WallTime::from_unix_millis(1_454_402_113_000));
        assert_eq!(dead, Verdict::Settled(PushOutcome::TokenDead { since }));
        let expired = verdict(&reply(410, r#"{"reason":"ExpiredToken","timestamp":1454402113000}"#), NOW);
        assert_eq!(expired, Verdict::Settled(PushOutcome::TokenDead { since }));
    }

    #[test]
    fn a_bad_token_may_be_one_of_the_other_environment() {
        let rejected = PushOutcome::TokenRejected("400 BadDeviceToken".to_owned());
        assert_eq!(said(400, "BadDeviceToken"), Verdict::Settled(rejected));
    }

    #[test]
    fn faults_of_ours_are_final() {
        for (status, reason) in [
            (400, "DeviceTokenNotForTopic"),
            (403, "InvalidProviderToken"),
            (403, "UnrelatedKeyIdInToken"),
            (413, "PayloadTooLarge"),
            (429, "TooManyProviderTokenUpdates"),
            (404, "BadPath"),
        ] {
            assert_eq!(said(status, reason), Verdict::Settled(PushOutcome::OurFault(format!("{status} {reason}"))));
        }
    }

    #[test]
    fn faults_of_theirs_are_worth_another_connection() {
        for (status, reason) in [(500, "InternalServerError"), (503, "ServiceUnavailable"), (503, "Shutdown")] {
            let outcome = PushOutcome::Unavailable { why: format!("{status} {reason}"), after: None };
            assert_eq!(said(status, reason), Verdict::Ailing(outcome));
        }
        let mut busy = reply(503, r#"{"reason":"ServiceUnavailable"}"#);
        busy.headers.insert("retry-after", http::HeaderValue::from_static("7"));
        let after = Some(Duration::from_secs(7));
        let why = "503 ServiceUnavailable".to_owned();
        assert_eq!(verdict(&busy, NOW), Verdict::Ailing(PushOutcome::Unavailable { why, after }));
    }

    #[test]
    fn only_an_expired_provider_token_asks_for_another() {
        assert_eq!(said(403, "ExpiredProviderToken"), Verdict::StaleProviderToken);
    }

    #[test]
    fn a_reason_newer_than_the_table_is_judged_by_its_status_and_its_text_is_tamed() {
        assert_eq!(said(410, "Novel"), Verdict::Settled(PushOutcome::TokenDead { since: None }));
        assert_eq!(said(429, "Novel"), Verdict::Settled(PushOutcome::Later { after: None }));
        assert_eq!(said(418, "Novel"), Verdict::Settled(PushOutcome::OurFault("418 Novel".to_owned())));
        assert_eq!(said(418, "No\\nvel!"), Verdict::Settled(PushOutcome::OurFault("418".to_owned())));
        let outcome = PushOutcome::Unavailable { why: "502".to_owned(), after: None };
        assert_eq!(verdict(&reply(502, "<html>"), NOW), Verdict::Ailing(outcome));
    }
}
