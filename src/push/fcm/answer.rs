//! What FCM says when it refuses a push, and what each code means for us.

use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;

use super::super::answer::{fault, retry_after, word};
use super::super::channel::Reply;
use crate::engine::output::PushOutcome;

/// What 429 means where it does not say how long.
const QUOTA_PAUSE: Duration = Duration::from_secs(60);

/// What an answer asks us to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing more.
    Settled(PushOutcome),
    /// Our access token is not taken: this is the outcome, and the next push needs another one.
    BadAccessToken(PushOutcome),
    /// 500, or 503 with or without Retry-After.
    Ailing {
        /// The status said 503: nothing was done.
        unavailable: bool,
        after: Option<Duration>,
        reason: String,
    },
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Body {
    error: Status,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    status: String,
    details: Vec<Detail>,
}

/// A member of `google.rpc.Status.details`; which members it has depends on its type.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Detail {
    #[serde(rename = "@type")]
    kind: String,
    #[serde(rename = "errorCode")]
    code: String,
    #[serde(rename = "fieldViolations")]
    violations: Vec<Violation>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Violation {
    field: String,
}

/// Reads an answer.
pub(crate) fn verdict(reply: &Reply) -> Verdict {
    if reply.status == StatusCode::OK {
        return Verdict::Settled(PushOutcome::Accepted);
    }
    let error = serde_json::from_slice::<Body>(&reply.body).unwrap_or_default().error;
    let of_type = |name: &str| error.details.iter().find(|detail| detail.kind.ends_with(name));
    let code = of_type("google.firebase.fcm.v1.FcmError").map(|detail| detail.code.as_str());
    let bad_request = of_type("google.rpc.BadRequest");
    let said = fault(reply.status, &word(code.unwrap_or(&error.status)));
    let dead = Verdict::Settled(PushOutcome::TokenDead { since: None });
    match (reply.status.as_u16(), code) {
        (404, Some("UNREGISTERED")) => dead,
        // FcmError alone blames the token, BadRequest the field it names.
        (400, Some("INVALID_ARGUMENT")) if bad_request.is_none_or(blames_token) => dead,
        (401, Some("THIRD_PARTY_AUTH_ERROR")) => Verdict::Settled(PushOutcome::OurFault(said)),
        (401, _) => Verdict::BadAccessToken(PushOutcome::OurFault(said)),
        (429, _) => Verdict::Settled(PushOutcome::Later { after: Some(retry_after(reply).unwrap_or(QUOTA_PAUSE)) }),
        (400..=499, _) => Verdict::Settled(PushOutcome::OurFault(said)),
        (status, _) => Verdict::Ailing { unavailable: status == 503, after: retry_after(reply), reason: said },
    }
}

fn blames_token(bad_request: &Detail) -> bool {
    !bad_request.violations.is_empty()
        && bad_request.violations.iter().all(|violation| violation.field == "message.token")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, HeaderValue};
    use serde_json::{Value, json};

    use super::*;

    const FCM_ERROR: &str = "type.googleapis.com/google.firebase.fcm.v1.FcmError";
    const BAD_REQUEST: &str = "type.googleapis.com/google.rpc.BadRequest";

    fn reply(status: u16, error: &Value) -> Reply {
        let body = Bytes::from(json!({ "error": error }).to_string());
        Reply { status: StatusCode::from_u16(status).expect("a status"), headers: HeaderMap::new(), body }
    }

    fn said(status: u16, rpc: &str, code: &str) -> Verdict {
        let details = json!([{ "@type": FCM_ERROR, "errorCode": code }]);
        verdict(&reply(status, &json!({ "code": status, "status": rpc, "details": details })))
    }

    fn ours(text: &str) -> Verdict {
        Verdict::Settled(PushOutcome::OurFault(text.to_owned()))
    }

    #[test]
    fn unregistered_and_malformed_tokens_are_dead() {
        let dead = Verdict::Settled(PushOutcome::TokenDead { since: None });
        assert_eq!(said(404, "NOT_FOUND", "UNREGISTERED"), dead);
        assert_eq!(said(400, "INVALID_ARGUMENT", "INVALID_ARGUMENT"), dead);
        let blamed = json!([
            { "@type": FCM_ERROR, "errorCode": "INVALID_ARGUMENT" },
            { "@type": BAD_REQUEST, "fieldViolations": [{ "field": "message.token", "description": "…" }] },
        ]);
        assert_eq!(verdict(&reply(400, &json!({ "status": "INVALID_ARGUMENT", "details": blamed }))), dead);
    }

    #[test]
    fn a_field_of_ours_that_is_wrong_does_not_kill_the_token() {
        let details = json!([
            { "@type": FCM_ERROR, "errorCode": "INVALID_ARGUMENT" },
            { "@type": BAD_REQUEST, "fieldViolations": [{ "field": "message.data[0].value" }] },
        ]);
        let refused = reply(400, &json!({ "status": "INVALID_ARGUMENT", "details": details }));
        assert_eq!(verdict(&refused), ours("400 INVALID_ARGUMENT"));
        let bare = reply(400, &json!({ "status": "INVALID_ARGUMENT" }));
        assert_eq!(verdict(&bare), ours("400 INVALID_ARGUMENT"));
    }

    #[test]
    fn a_missing_project_is_no_dead_token() {
        assert_eq!(verdict(&reply(404, &json!({ "status": "NOT_FOUND" }))), ours("404 NOT_FOUND"));
    }

    #[test]
    fn refusals_of_our_identity_are_our_fault() {
        assert_eq!(said(403, "PERMISSION_DENIED", "SENDER_ID_MISMATCH"), ours("403 SENDER_ID_MISMATCH"));
        assert_eq!(said(401, "UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR"), ours("401 THIRD_PARTY_AUTH_ERROR"));
        let refused = verdict(&reply(401, &json!({ "status": "UNAUTHENTICATED" })));
        assert_eq!(refused, Verdict::BadAccessToken(PushOutcome::OurFault("401 UNAUTHENTICATED".to_owned())));
    }

    #[test]
    fn quota_waits_as_long_as_it_says_else_a_minute() {
        let later = |seconds| Verdict::Settled(PushOutcome::Later { after: Some(Duration::from_secs(seconds)) });
        assert_eq!(said(429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"), later(60));
        let mut reply = reply(429, &json!({}));
        reply.headers.insert("retry-after", HeaderValue::from_static("5"));
        assert_eq!(verdict(&reply), later(5));
    }

    #[test]
    fn what_is_neither_ours_nor_the_tokens_is_theirs() {
        let ailing =
            |unavailable, reason: &str| Verdict::Ailing { unavailable, after: None, reason: reason.to_owned() };
        assert_eq!(said(503, "UNAVAILABLE", "UNAVAILABLE"), ailing(true, "503 UNAVAILABLE"));
        assert_eq!(said(500, "INTERNAL", "INTERNAL"), ailing(false, "500 INTERNAL"));
        let page = Reply { body: Bytes::from_static(b"<html>"), ..reply(502, &json!({})) };
        assert_eq!(verdict(&page), ailing(false, "502"));
    }
}
