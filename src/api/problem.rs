//! Errors as the client sees them: problem details (RFC 9457), one type each, and a second text for our own log.
//!
//! This is its own room so that the list of problem types and the one exhaustive map from the engine's refusals stand
//! side by side. It refuses to repeat anything a client sent other than the name of a JSON member: a value may be a
//! secret in the wrong place.

use std::borrow::Cow;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use super::views::ReceiptBody;
use crate::engine::account::AccountError;
use crate::engine::audit::{Cause, Receipt};
use crate::engine::output::{Refusal, RegistrationReason};

/// What stands before every problem type.
const URN: &str = "urn:reveille:problem:";
/// The media type of problem details.
pub(crate) const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/problem+json");
/// When to come again after a fault of ours that has no better time.
const RETRY_SOON: Duration = Duration::from_secs(1);

/// The problem types of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    InvalidRequest,
    InvalidAccount,
    NoUsablePushTarget,
    LeaseTooLong,
    RegistrarNotAllowed,
    RegistrarRefused,
    RegistrarUnreachable,
    Unauthorized,
    Forbidden,
    NotFound,
    CallOver,
    TestOver,
    NoTrace,
    InstanceErased,
    TooLarge,
    RateLimited,
    TooManyDevices,
    Busy,
}

impl Kind {
    /// All types, in the order of the documentation.
    pub(crate) const ALL: [Self; 18] = [
        Self::InvalidRequest,
        Self::InvalidAccount,
        Self::NoUsablePushTarget,
        Self::LeaseTooLong,
        Self::RegistrarNotAllowed,
        Self::RegistrarRefused,
        Self::RegistrarUnreachable,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::CallOver,
        Self::TestOver,
        Self::NoTrace,
        Self::InstanceErased,
        Self::TooLarge,
        Self::RateLimited,
        Self::TooManyDevices,
        Self::Busy,
    ];

    /// The `type` member.
    pub(crate) const fn urn(self) -> &'static str {
        match self {
            Self::InvalidRequest => "urn:reveille:problem:invalid-request",
            Self::InvalidAccount => "urn:reveille:problem:invalid-account",
            Self::NoUsablePushTarget => "urn:reveille:problem:no-usable-push-target",
            Self::LeaseTooLong => "urn:reveille:problem:lease-too-long",
            Self::RegistrarNotAllowed => "urn:reveille:problem:registrar-not-allowed",
            Self::RegistrarRefused => "urn:reveille:problem:registrar-refused",
            Self::RegistrarUnreachable => "urn:reveille:problem:registrar-unreachable",
            Self::Unauthorized => "urn:reveille:problem:unauthorized",
            Self::Forbidden => "urn:reveille:problem:forbidden",
            Self::NotFound => "urn:reveille:problem:not-found",
            Self::CallOver => "urn:reveille:problem:call-over",
            Self::TestOver => "urn:reveille:problem:test-over",
            Self::NoTrace => "urn:reveille:problem:no-trace",
            Self::InstanceErased => "urn:reveille:problem:instance-erased",
            Self::TooLarge => "urn:reveille:problem:too-large",
            Self::RateLimited => "urn:reveille:problem:rate-limited",
            Self::TooManyDevices => "urn:reveille:problem:too-many-devices",
            Self::Busy => "urn:reveille:problem:busy",
        }
    }

    /// The type without what all types share, for logs.
    pub(crate) fn name(self) -> &'static str {
        &self.urn()[URN.len()..]
    }

    /// The `title` member: the same for every problem of the type (RFC 9457 §3.1.3).
    const fn title(self) -> &'static str {
        match self {
            Self::InvalidRequest => "The request cannot be understood",
            Self::InvalidAccount => "The account cannot be used as given",
            Self::NoUsablePushTarget => "No push target could wake this device",
            Self::LeaseTooLong => "The lease is longer than allowed",
            Self::RegistrarNotAllowed => "This registrar may not be registered at",
            Self::RegistrarRefused => "The registrar refused",
            Self::RegistrarUnreachable => "The registrar cannot be reached",
            Self::Unauthorized => "Authentication is missing or wrong",
            Self::Forbidden => "These credentials may not do this",
            Self::NotFound => "Nothing here",
            Self::CallOver => "The call is over",
            Self::TestOver => "The self-test is over",
            Self::NoTrace => "There is no trace",
            Self::InstanceErased => "The instance is erased",
            Self::TooLarge => "The body is too large",
            Self::RateLimited => "Too many requests",
            Self::TooManyDevices => "The account has as many devices as it may",
            Self::Busy => "Not now",
        }
    }

    /// The HTTP status of the type.
    pub(crate) const fn status(self) -> StatusCode {
        match self {
            Self::InvalidRequest => StatusCode::BAD_REQUEST,
            Self::InvalidAccount
            | Self::NoUsablePushTarget
            | Self::LeaseTooLong
            | Self::RegistrarNotAllowed
            | Self::RegistrarRefused
            | Self::RegistrarUnreachable => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound | Self::CallOver | Self::TestOver | Self::NoTrace => StatusCode::NOT_FOUND,
            Self::InstanceErased => StatusCode::GONE,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::RateLimited | Self::TooManyDevices => StatusCode::TOO_MANY_REQUESTS,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// Problem details (RFC 9457).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemBody {
    /// Which problem; the only member to branch on.
    #[serde(rename = "type")]
    #[schema(schema_with = super::openapi::words::problem_types)]
    kind: &'static str,
    /// The type in words; the same for every problem of the type.
    title: &'static str,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What is wrong this time and what to do about it; absent in the answer to a fault of the service.
    #[schema(value_type = String, required = false)]
    detail: Cow<'static, str>,
    /// `invalid-request`, `invalid-account`, `no-usable-push-target`: the JSON member concerned, such as
    /// `account.register_expires` or `device.push[0].token`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, nullable = false)]
    path: Option<Cow<'static, str>>,
    /// `invalid-request`: the line of the body, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>, nullable = false)]
    line: Option<usize>,
    /// `invalid-request`: the column in that line, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>, nullable = false)]
    column: Option<usize>,
    /// `registrar-refused`: the registrar's verdict, verbatim.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    verdict: Option<String>,
    /// `registrar-refused`: why.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, schema_with = super::openapi::words::refusal_reasons)]
    reason: Option<&'static str>,
    /// `instance-erased`: why it was erased.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, schema_with = super::openapi::words::causes)]
    cause: Option<&'static str>,
    /// `instance-erased`: the receipt of the erasure, once there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    receipt: Option<ReceiptBody>,
}

/// One error, with the text for the client and the text for our log.
pub(crate) struct Problem(Box<Inner>);

struct Inner {
    kind: Kind,
    body: ProblemBody,
    log: Cow<'static, str>,
    retry_after: Option<Duration>,
}

/// What our log says of a problem; travels as a response extension to the layer that writes it.
#[derive(Clone)]
pub(crate) struct LogLine {
    pub(crate) kind: Kind,
    pub(crate) text: Cow<'static, str>,
}

impl Problem {
    /// A problem with its two texts. Neither may repeat a value the client sent.
    pub(crate) fn new(kind: Kind, detail: impl Into<Cow<'static, str>>, log: impl Into<Cow<'static, str>>) -> Self {
        let body = ProblemBody {
            kind: kind.urn(),
            title: kind.title(),
            status: kind.status().as_u16(),
            detail: detail.into(),
            path: None,
            line: None,
            column: None,
            verdict: None,
            reason: None,
            cause: None,
            receipt: None,
        };
        Self(Box::new(Inner { kind, body, log: log.into(), retry_after: None }))
    }

    /// Which type it is of.
    #[cfg(test)]
    pub(crate) fn kind(&self) -> Kind {
        self.0.kind
    }

    /// A member outside `account` has a value that cannot be used.
    pub(crate) fn request(path: impl Into<Cow<'static, str>>, wrong: impl std::fmt::Display) -> Self {
        let path = path.into();
        Self::new(Kind::InvalidRequest, format!("{path}: {wrong}"), "a member has an unusable value").at_path(path)
    }

    /// A member of `account` has a value that cannot be used.
    pub(crate) fn account(member: &'static str, wrong: impl std::fmt::Display) -> Self {
        let path = format!("account.{member}");
        let log = format!("{path} has an unusable value");
        Self::new(Kind::InvalidAccount, format!("{path}: {wrong}"), log).at_path(path)
    }

    /// No such instance for that token: the same bytes whether it is unknown, foreign or malformed.
    pub(crate) fn unknown_instance() -> Self {
        Self::new(
            Kind::NotFound,
            "No instance or call of this name belongs to this token. If the instance was erased more than a day ago, \
             its traces are gone too: hand the account over again.",
            "unknown or foreign instance",
        )
    }

    /// The path exists, the method does not: 405 instead of the type's own status.
    pub(crate) fn wrong_method() -> Self {
        let detail = "This path does not take this method; the Allow header names those it takes.";
        let mut problem = Self::new(Kind::InvalidRequest, detail, "method not allowed");
        problem.0.body.status = StatusCode::METHOD_NOT_ALLOWED.as_u16();
        problem
    }

    /// A bound of ours is reached, or a part of us does not answer as it must.
    pub(crate) fn busy(log: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Busy, "The service cannot take this request at the moment; try again.", log)
            .come_again(RETRY_SOON)
    }

    /// A challenge that is not the one of the push.
    fn wrong_challenge(tries: u8) -> Self {
        let detail = match tries {
            0 => "challenge: there is none to be returned any more (it is older than five minutes, or was tried five \
                  times); ask for another one with an empty body."
                .to_owned(),
            left => format!("challenge: is not the one that was pushed last; tries left: {left}."),
        };
        Self::new(Kind::InvalidRequest, detail, "not the challenge of the push").at_path("challenge")
    }

    /// A push to a token that was not proven.
    fn unproven() -> Self {
        Self::new(
            Kind::Forbidden,
            "The push token is not proven yet: return the challenge of the push \"proof\" (POST …/push-proof).",
            "a push to a token that is not proven",
        )
    }

    /// A call that the instance has no more; the instance is as it was.
    fn call_over() -> Self {
        Self::new(
            Kind::CallOver,
            "The call is over or answered, or it ended more than two minutes ago and is forgotten. The instance is held as before.",
            "a call that is over",
        )
    }

    /// A self-test that the instance has no more.
    fn test_over() -> Self {
        Self::new(
            Kind::TestOver,
            "There is no such self-test, or it began more than ten minutes ago and is forgotten. The instance is held as before.",
            "a self-test that is over",
        )
    }

    /// A trace that the instance does not have.
    fn no_trace() -> Self {
        Self::new(
            Kind::NoTrace,
            "The device has consented to no trace, or the time it consented to is over. The instance is held as before.",
            "a trace that is not kept",
        )
    }

    /// An account that is held for as many devices as it may be.
    fn too_many_devices(after: Duration) -> Self {
        Self::new(
            Kind::TooManyDevices,
            "The account is held for as many devices as it may be, and all of them were used within a day. Erase one of them \
             (DELETE), or come again when the first lease ends, as Retry-After says.",
            "an account with as many devices as it may have",
        )
        .come_again(after)
    }

    pub(crate) fn at_path(mut self, path: impl Into<Cow<'static, str>>) -> Self {
        self.0.body.path = Some(path.into());
        self
    }

    pub(crate) fn at_line(mut self, line: usize, column: usize) -> Self {
        (self.0.body.line, self.0.body.column) = (Some(line), Some(column));
        self
    }

    pub(crate) fn come_again(mut self, after: Duration) -> Self {
        self.0.retry_after = Some(after);
        self
    }
}

impl From<AccountError> for Problem {
    fn from(error: AccountError) -> Self {
        Self::account(error.member, error.problem)
    }
}

impl Problem {
    fn refused(verdict: String) -> Self {
        let detail = format!(
            "The registrar answered \"{verdict}\". Check user name and password, and whether the account may register one \
             more contact."
        );
        let is_401 = ["401", "407"].iter().any(|code| verdict.starts_with(code));
        let reason = if is_401 { RegistrationReason::Refused } else { RegistrationReason::Rejected };
        let mut problem = Self::new(Kind::RegistrarRefused, detail, "refused by the registrar");
        (problem.0.body.verdict, problem.0.body.reason) = (Some(verdict), Some(reason.as_str()));
        problem
    }

    /// The credentials were not even shown to the registrar: neither they nor the user are to blame.
    fn unsignable(verdict: String, reason: RegistrationReason) -> Self {
        let help = if reason == RegistrationReason::NoMatchingHa1 {
            "Send an ha1 for that realm and algorithm, or the password."
        } else {
            "No password would help: the registrar has to offer Digest with MD5, SHA-256 or SHA-512-256, and qop auth, \
             auth-int or none."
        };
        let detail = format!("The registrar answered \"{verdict}\". {help}");
        let mut problem = Self::new(Kind::RegistrarRefused, detail, "a challenge that cannot be signed");
        (problem.0.body.verdict, problem.0.body.reason) = (Some(verdict), Some(reason.as_str()));
        problem
    }

    fn erased(cause: Cause, receipt: Option<Box<Receipt>>) -> Self {
        let detail = format!(
            "The instance is erased ({}); its credentials are gone. Hand the account over again to be woken.",
            cause.as_str()
        );
        let mut problem = Self::new(Kind::InstanceErased, detail, "asked for an erased instance");
        problem.0.body.cause = Some(cause.as_str());
        problem.0.body.receipt = receipt.map(|receipt| (*receipt).into());
        problem
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotFound => Self::unknown_instance(),
            Refusal::Gone { cause, receipt } => Self::erased(cause, receipt),
            Refusal::InvalidAccount(detail) => {
                Self::new(Kind::InvalidAccount, detail, "the engine refuses the account")
            }
            Refusal::RegistrarNotAllowed(detail) => {
                Self::new(Kind::RegistrarNotAllowed, detail, "registrar outside registrars.allow or its ports")
            }
            Refusal::RegistrarRefused(verdict) => Self::refused(verdict),
            Refusal::ChallengeUnsignable { verdict, reason } => Self::unsignable(verdict, reason),
            Refusal::RegistrarUnreachable => Self::new(
                Kind::RegistrarUnreachable,
                "No answer from the registrar. Check its name, port and transport, that it is reachable from the public \
                 internet, and for TLS its certificate.",
                "no verdict from the registrar",
            ),
            Refusal::WrongMode => Self::new(
                Kind::InvalidRequest,
                "mode: the instance's mode is \"always\", which keeps the credentials in the foreground too; change it to \
                 \"background\" or \"takeover\" with PATCH.",
                "foreground in mode always",
            )
            .at_path("mode"),
            Refusal::Restricted => Self::new(
                Kind::Forbidden,
                "The processing of this instance is restricted; DELETE /v1/instances/{id}/restrict ends that.",
                "asked of a restricted instance",
            ),
            Refusal::CallOver => Self::call_over(),
            Refusal::TestOver => Self::test_over(),
            Refusal::NoTrace => Self::no_trace(),
            Refusal::NoPushTarget => Self::new(
                Kind::NoUsablePushTarget,
                "The device has no push target for this: on iOS it needs one \"for\": \"other\" beside the one for calls.",
                "no push target for a kind of wake",
            ),
            Refusal::SwitchedOff => {
                Self::new(Kind::Forbidden, "The operator has switched this off.", "a kind of wake that is off")
            }
            Refusal::WrongChallenge { tries } => Self::wrong_challenge(tries),
            Refusal::Unproven => Self::unproven(),
            Refusal::TooManyDevices { after } => Self::too_many_devices(after),
            Refusal::RateLimited { after } => Self::new(
                Kind::RateLimited,
                "Too many requests for this device or tenant; come again when Retry-After says.",
                "a bound of the device or tenant is reached",
            )
            .come_again(after),
            Refusal::Busy { after } => Self::busy("the engine takes no more for now").come_again(after),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Inner { kind, body, log, retry_after } = *self.0;
        let json = serde_json::to_vec(&body).expect("a struct of texts and numbers always serialises");
        let mut response = Response::new(json.into());
        *response.status_mut() = StatusCode::from_u16(body.status).unwrap_or(kind.status());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, MEDIA_TYPE);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(after) = retry_after {
            // Whole seconds, rounded up: who comes when we say so must not be too early.
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        if kind == Kind::Unauthorized {
            // RFC 9110 §15.5.2: a 401 "MUST send a WWW-Authenticate header field".
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response.extensions_mut().insert(LogLine { kind, text: log });
        response
    }
}
