//! What FCM says when it refuses a push, and what each code means for us.

use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;

use super::super::answer::{fault, retry_after, word};
use super::super::channel::Reply;
use crate::clock::WallTime;
use crate::engine::output::PushOutcome;

/// What 429 means where it does not say how long.
const QUOTA_PAUSE: Duration = Duration::from_secs(60);

/// What an answer asks us to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing more.
    Settled(PushOutcome),
    /// Our access token is not taken; the next send needs another one.
    BadAccessToken(String),
    /// This, and what is sent next goes over a fresh connection if there may be one.
    Ailing(PushOutcome),
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
pub(crate) fn verdict(reply: &Reply, now: WallTime) -> Verdict {
    if reply.status == StatusCode::OK {
        return Verdict::Settled(PushOutcome::Accepted);
    }
    let error = serde_json::from_slice::<Body>(&reply.body).unwrap_or_default().error;
    let of_type = |name: &str| error.details.iter().find(|detail| detail.kind.ends_with(name));
    let code = of_type("google.firebase.fcm.v1.FcmError").map(|detail| detail.code.as_str());
    let bad_request = of_type("google.rpc.BadRequest");
    let said = fault(reply.status, &word(code.unwrap_or(&error.status)));
    match (reply.status.as_u16(), code) {
        (404, Some("UNREGISTERED")) => Verdict::Settled(PushOutcome::TokenDead { since: None }),
        // FcmError alone blames the token, BadRequest the field it names. It may also be of another project, or sent in the
        // wrong member: one answer does not prove it dead.
        (400, Some("INVALID_ARGUMENT")) if bad_request.is_none_or(blames_token) => {
            Verdict::Settled(PushOutcome::TokenRejected(said))
        }
        (401, Some("THIRD_PARTY_AUTH_ERROR")) => Verdict::Settled(PushOutcome::OurFault(said)),
        (401, _) => Verdict::BadAccessToken(said),
        (429, _) => {
            let after = Some(retry_after(reply, now).unwrap_or(QUOTA_PAUSE));
            Verdict::Settled(PushOutcome::Later { after })
        }
        (400..=499, _) => Verdict::Settled(PushOutcome::OurFault(said)),
        _ => Verdict::Ailing(PushOutcome::Unavailable { why: said, after: retry_after(reply, now) }),
    }
}

fn blames_token(bad_request: &Detail) -> bool {
    !bad_request.violations.is_empty()
        && bad_request.violations.iter().all(|it| matches!(it.field.as_str(), "message.token" | "message.fid"))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, HeaderValue};
    use serde_json::{Value, json};

    use super::*;

    const NOW: WallTime = WallTime::from_unix_millis(784_111_777_000);
    const FCM_ERROR: &str = "type.googleapis.com/google.firebase.fcm.v1.FcmError";
    const BAD_REQUEST: &str = "type.googleapis.com/google.rpc.BadRequest";

    fn reply(status: u16, error: &Value) -> Reply {
        let body = Bytes::from(json!({ "error": error }).to_string());
        Reply { status: StatusCode::from_u16(status).expect("a status"), headers: HeaderMap::new(), body }
    }

    fn said(status: u16, rpc: &str, code: &str) -> Verdict {
        let details = json!([{ "@type": FCM_ERROR, "errorCode": code }]);
        verdict(&reply(status, &json!({ "code": status, "status": rpc, "details": details })), NOW)
    }

    fn ours(text: &str) -> Verdict {
        Verdict::Settled(PushOutcome::OurFault(text.to_owned()))
    }

    #[test]
    fn an_unregistered_token_is_dead_and_one_that_is_blamed_may_be() {
        assert_eq!(said(404, "NOT_FOUND", "UNREGISTERED"), Verdict::Settled(PushOutcome::TokenDead { since: None }));
        let rejected = Verdict::Settled(PushOutcome::TokenRejected("400 INVALID_ARGUMENT".to_owned()));
        assert_eq!(said(400, "INVALID_ARGUMENT", "INVALID_ARGUMENT"), rejected);
        for field in ["message.token", "message.fid"] {
            let blamed = json!([
                { "@type": FCM_ERROR, "errorCode": "INVALID_ARGUMENT" },
                { "@type": BAD_REQUEST, "fieldViolations": [{ "field": field, "description": "…" }] },
            ]);
            let reply = reply(400, &json!({ "status": "INVALID_ARGUMENT", "details": blamed }));
            assert_eq!(verdict(&reply, NOW), rejected, "{field}");
        }
    }

    #[test]
    fn a_field_of_ours_that_is_wrong_does_not_kill_the_token() {
        let details = json!([
            { "@type": FCM_ERROR, "errorCode": "INVALID_ARGUMENT" },
            { "@type": BAD_REQUEST, "fieldViolations": [{ "field": "message.data[0].value" }] },
        ]);
        let refused = reply(400, &json!({ "status": "INVALID_ARGUMENT", "details": details }));
        assert_eq!(verdict(&refused, NOW), ours("400 INVALID_ARGUMENT"));
        let alone = json!([{ "@type": BAD_REQUEST, "fieldViolations": [{ "field": "message.token" }] }]);
        let alone = reply(400, &json!({ "status": "INVALID_ARGUMENT", "details": alone }));
        assert_eq!(verdict(&alone, NOW), ours("400 INVALID_ARGUMENT"), "without FcmError it is the form that is wrong");
        let bare = reply(400, &json!({ "status": "INVALID_ARGUMENT" }));
        assert_eq!(verdict(&bare, NOW), ours("400 INVALID_ARGUMENT"));
    }

    #[test]
    fn a_missing_project_is_no_dead_token() {
        assert_eq!(verdict(&reply(404, &json!({ "status": "NOT_FOUND" })), NOW), ours("404 NOT_FOUND"));
    }

    #[test]
    fn refusals_of_our_identity_are_our_fault() {
        assert_eq!(said(403, "PERMISSION_DENIED", "SENDER_ID_MISMATCH"), ours("403 SENDER_ID_MISMATCH"));
        assert_eq!(said(401, "UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR"), ours("401 THIRD_PARTY_AUTH_ERROR"));
        let refused = verdict(&reply(401, &json!({ "status": "UNAUTHENTICATED" })), NOW);
        assert_eq!(refused, Verdict::BadAccessToken("401 UNAUTHENTICATED".to_owned()));
    }

    #[test]
    fn quota_waits_as_long_as_it_says_else_a_minute() {
        let later = |seconds| Verdict::Settled(PushOutcome::Later { after: Some(Duration::from_secs(seconds)) });
        assert_eq!(said(429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"), later(60));
        let mut reply = reply(429, &json!({}));
        reply.headers.insert("retry-after", HeaderValue::from_static("5"));
        assert_eq!(verdict(&reply, NOW), later(5));
        reply.headers.insert("retry-after", HeaderValue::from_static("Sun, 06 Nov 1994 08:49:40 GMT"));
        assert_eq!(verdict(&reply, NOW), later(3));
    }

    #[test]
    fn what_is_neither_ours_nor_the_tokens_is_theirs() {
        let ailing = |why: &str, after| Verdict::Ailing(PushOutcome::Unavailable { why: why.to_owned(), after });
        assert_eq!(said(503, "UNAVAILABLE", "UNAVAILABLE"), ailing("503 UNAVAILABLE", None));
        assert_eq!(said(500, "INTERNAL", "INTERNAL"), ailing("500 INTERNAL", None));
        let mut page = Reply { body: Bytes::from_static(b"<html>"), ..reply(502, &json!({})) };
        assert_eq!(verdict(&page, NOW), ailing("502", None));
        page.headers.insert("retry-after", HeaderValue::from_static("2"));
        assert_eq!(verdict(&page, NOW), ailing("502", Some(Duration::from_secs(2))));
    }
}
