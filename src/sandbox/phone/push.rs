//! Where a phone's pushes come from, and what they say.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Map, Value};

use crate::sandbox::apns::ApnsStandIn;
use crate::sandbox::fcm::FcmStandIn;
use crate::sandbox::https::{HttpsError, Question, Site};
use crate::sandbox::mailbox::Mailbox;

/// A push as the app sees it, whoever carried it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push {
    /// `call`, `call-ended` and so on.
    pub kind: String,
    /// The call, for the kinds about one.
    pub call: Option<String>,
    /// The instance it is for.
    pub instance: String,
    /// Where to attach.
    pub attach: String,
    /// Who calls, as far as it is told: JSON, or sealed.
    pub caller: Option<String>,
    /// A proof's challenge.
    pub challenge: Option<String>,
    /// Who carried it, in words.
    pub carrier: &'static str,
}

/// Where the pushes of one device arrive.
#[derive(Clone)]
pub enum PushSource {
    /// A stand-in for Apple in this process.
    Apns(Arc<ApnsStandIn>),
    /// A stand-in for Google in this process.
    Fcm(Arc<FcmStandIn>),
    /// A mailbox in this process.
    Mailbox(Arc<Mailbox>),
    /// A mailbox elsewhere, asked over HTTP.
    Remote(RemoteMailbox),
}

/// A mailbox elsewhere.
#[derive(Clone)]
pub struct RemoteMailbox {
    pub(crate) site: Site,
    pub(crate) token: String,
}

/// How long a remote mailbox is asked to wait for a push at once.
const POLL_SECONDS: u64 = 25;

impl PushSource {
    /// The next push, waiting `within` for one. `None`: none came.
    ///
    /// # Errors
    /// A mailbox elsewhere cannot be asked.
    pub async fn next(&self, within: Duration) -> Result<Option<Push>, HttpsError> {
        Ok(match self {
            Self::Apns(apple) => {
                let push = apple.next_push(within).await;
                push.and_then(|push| Push::read(push.payload.as_object()?, "Apple"))
            }
            Self::Fcm(google) => {
                let push = google.next_push(within).await;
                let members = push.map(|push| push.data.into_iter().map(|(name, text)| (name, Value::String(text))));
                members.and_then(|members| Push::read(&members.collect(), "Google"))
            }
            Self::Mailbox(mailbox) => {
                let push = mailbox.next_push(within).await;
                push.and_then(|push| Push::read(&push.payload, "the mailbox"))
            }
            Self::Remote(mailbox) => mailbox.next(within).await?,
        })
    }
}

impl RemoteMailbox {
    async fn next(&self, within: Duration) -> Result<Option<Push>, HttpsError> {
        let wait = within.as_secs().min(POLL_SECONDS);
        let path = format!("/pushes/{}?wait={wait}", self.token);
        let question = Question { method: Method::GET, path: &path, bearer: None, body: None };
        let reply = self.site.ask(question).await?;
        let payload = reply.body.get("payload").and_then(Value::as_object);
        Ok(payload.filter(|_| reply.status == StatusCode::OK).and_then(|payload| Push::read(payload, "the mailbox")))
    }
}

impl Push {
    /// Reads a payload; `None` if it is none of Reveille's.
    fn read(payload: &Map<String, Value>, carrier: &'static str) -> Option<Self> {
        let text = |name: &str| payload.get(name).and_then(Value::as_str).map(str::to_owned);
        Some(Self {
            kind: text("kind")?,
            call: text("call"),
            instance: text("instance")?,
            attach: text("attach")?,
            caller: text("caller").or_else(|| payload.get("caller").map(Value::to_string)),
            challenge: text("challenge"),
            carrier,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_payload_is_read_and_a_stranger_is_not() {
        let payload = json!({ "v": 1, "kind": "call", "call": "c", "instance": "i", "attach": "sip:e", "aps": {} });
        let push = Push::read(payload.as_object().expect("an object"), "Apple").expect("a push");
        assert_eq!((push.kind.as_str(), push.call.as_deref(), push.instance.as_str()), ("call", Some("c"), "i"));
        assert_eq!(Push::read(json!({ "kind": "call" }).as_object().expect("an object"), "Apple"), None);
    }
}
