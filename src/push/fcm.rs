//! Firebase Cloud Messaging, HTTP v1: one connection for a service account.
//!
//! FCM watches how often it is asked to hurry a phone and what comes of it, so only what the user is to see at once is
//! sent with priority HIGH, and only calls are now or never. It repeats what may have been delivered for no call: at most one retry, and only
//! where nothing was sent or FCM says it is unavailable.

pub(crate) mod account;
pub(crate) mod answer;
pub(crate) mod oauth;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request};
use http_body_util::Full;
use serde_json::{Map, Value, json};
use tokio::time::sleep;

use super::backoff::Backoff;
use super::channel::{Channel, LinkRules, Lost, PING, Trail};
use super::config::{Fault, FcmConfig, TimeSource};
use super::crew::Crew;
use super::endpoint::{ALPN_H2, ALPN_HTTP11, Endpoint};
use super::payload::{Detail, Texts, text_members};
use crate::engine::output::{PushJob, PushOutcome, WakeKind};
use crate::net::Names;
use account::ServiceAccount;
use answer::{Verdict, verdict};
use oauth::AccessTokens;

const ENDPOINT: &str = "https://fcm.googleapis.com";
/// Google's front ends allow a hundred streams; their SETTINGS count as well.
const STREAMS: LinkRules = LinkRules { unproved: 100, proved: 100, ping: PING };
/// Largest sum of the names and values of `data`.
const DATA_MAX: usize = 4096;
/// Longest time FCM stores a message.
const TTL_MAX: Duration = Duration::from_secs(28 * 24 * 3600);
/// How often a call is sent again: the phone would ring too late for more.
const CALL_RETRIES_MAX: u32 = 1;
/// How often anything else is sent again.
const RETRIES_MAX: u32 = 5;
/// Pauses before another attempt where FCM names none.
const RETRY: Backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_secs(30) };

/// The client of one service account.
pub(crate) struct Fcm {
    channel: Channel,
    tokens: AccessTokens,
    uri: String,
    time: TimeSource,
}

impl Fcm {
    pub(crate) fn new(config: &FcmConfig, time: TimeSource, names: &Arc<Names>, crew: &Crew) -> Result<Self, Fault> {
        const FILE: &str = "service_account_file";
        const TOKEN_URI: &str = "token_uri in service_account_file";
        let account = ServiceAccount::parse(&config.service_account_json).map_err(|problem| (FILE, problem))?;
        let ca = config.ca_pem.as_deref();
        let url = config.endpoint.as_deref().unwrap_or(ENDPOINT);
        let endpoint = Endpoint::https("endpoint", url, ca, ALPN_H2, names)?;
        let token_endpoint = Endpoint::https(TOKEN_URI, &account.token_uri, ca, ALPN_HTTP11, names)?;
        let channel = Channel::new(endpoint, STREAMS, crew);
        let uri = channel.uri(&format!("/v1/projects/{}/messages:send", account.project_id));
        let tokens = AccessTokens::new(Arc::new(account), token_endpoint, Arc::clone(&time), crew);
        Ok(Self { channel, tokens, uri, time })
    }

    /// Lets the connection go.
    pub(crate) fn close(&self) {
        self.channel.close();
    }

    /// Why nothing can be sent at present, if it is known.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.tokens.trouble().or_else(|| self.channel.trouble())
    }

    /// Sends a push and says what became of it. Safe to drop at the deadline.
    pub(crate) async fn deliver(&self, job: &PushJob, texts: &Texts, trail: &mut Trail) -> PushOutcome {
        let Some(body) = self.body(job, texts) else {
            return PushOutcome::OurFault("the payload is too large".to_owned());
        };
        let body = Bytes::from(body);
        let call = job.kind == WakeKind::Call;
        let mut left = if call { CALL_RETRIES_MAX } else { RETRIES_MAX };
        let mut failures = 0;
        loop {
            let token = match self.tokens.current(trail).await {
                Ok(token) => token,
                Err(outcome) => return outcome,
            };
            let Some(request) = self.request(&token.header, body.clone()) else {
                return PushOutcome::OurFault("the request cannot be built".to_owned());
            };
            let (after, outcome) = match self.channel.exchange(&request, &mut left, trail).await {
                Ok((link, reply)) => match verdict(&reply) {
                    Verdict::Settled(outcome) => {
                        link.prove();
                        return outcome;
                    }
                    Verdict::BadAccessToken(outcome) => {
                        self.tokens.discard(&token);
                        return outcome;
                    }
                    Verdict::Ailing { unavailable, after, reason } => {
                        self.channel.retire(&link);
                        let outcome = after.map_or_else(|| PushOutcome::Theirs(reason), later);
                        if call && !(unavailable && after.is_none()) {
                            return outcome;
                        }
                        (after, outcome)
                    }
                },
                // The replays it was allowed are used up.
                Err(Lost::Unprocessed(why)) => return PushOutcome::Theirs(why),
                Err(Lost::Unknown(why)) if call => return PushOutcome::Theirs(why),
                Err(Lost::Unknown(why)) => (None, PushOutcome::Theirs(why)),
            };
            trail.in_flight = false;
            let in_time = after.is_none_or(|after| (self.time)().boot + after < job.deadline);
            if left == 0 || !in_time {
                return outcome;
            }
            left -= 1;
            failures += 1;
            if let PushOutcome::Theirs(why) = outcome {
                trail.last = Some(why);
            }
            sleep(after.unwrap_or_else(|| RETRY.pause(failures))).await;
        }
    }

    fn body(&self, job: &PushJob, texts: &Texts) -> Option<Vec<u8>> {
        let size = |data: &Map<String, Value>| -> usize {
            data.iter().map(|(name, value)| name.len() + value.as_str().map_or(0, str::len)).sum()
        };
        let data = [Detail::Full, Detail::NoCaller]
            .into_iter()
            .map(|detail| text_members(job, texts, detail))
            .find(|data| size(data) <= DATA_MAX)?;
        let priority = if is_urgent(job.kind) { "HIGH" } else { "NORMAL" };
        let ttl = match job.kind {
            // Now or never, and exempt from throttling.
            WakeKind::Call => 0,
            _ => {
                let left = job.expires_at.unix_seconds().saturating_sub((self.time)().wall.unix_seconds());
                left.min(TTL_MAX.as_secs())
            }
        };
        let message = json!({
            "token": job.token, "data": data, "android": { "priority": priority, "ttl": format!("{ttl}s") },
        });
        Some(json!({ "message": message }).to_string().into_bytes())
    }

    fn request(&self, authorization: &HeaderValue, body: Bytes) -> Option<Request<Full<Bytes>>> {
        Request::builder()
            .method(Method::POST)
            .uri(&self.uri)
            .header("authorization", authorization)
            .header("content-type", HeaderValue::from_static("application/json"))
            .body(Full::new(body))
            .ok()
    }
}

/// Whether the phone must not sleep on. A call-ended push needs no hurry: a phone that rings is awake. The others may wait
/// for the phone's next waking, but for a registration that would be over by then; before Android 13 the hurried ones are counted, and calls need them all.
fn is_urgent(kind: WakeKind) -> bool {
    match kind {
        WakeKind::Call | WakeKind::Message | WakeKind::Refresh | WakeKind::Test | WakeKind::Proof => true,
        WakeKind::CallEnded
        | WakeKind::MissedCall
        | WakeKind::Voicemail
        | WakeKind::Expiring
        | WakeKind::Reprovision => false,
    }
}

fn later(after: Duration) -> PushOutcome {
    PushOutcome::Later { after: Some(after) }
}
