//! Firebase Cloud Messaging, HTTP v1: one connection for a service account.
//!
//! FCM watches how often it is asked to hurry a phone and what comes of it, so only what the user is to see at once is sent
//! with priority HIGH. A call is kept by FCM as long as it is held, and sent once: whether it is worth another send, the
//! engine knows. Everything else is sent again here where FCM failed over it, with pauses.

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
use super::config::{Fault, FcmConfig, PushSettings, TimeSource};
use super::crew::Crew;
use super::endpoint::{ALPN_H2, ALPN_HTTP11, Endpoint};
use super::payload::{Detail, Texts, text_members};
use crate::engine::output::{PushJob, PushOutcome, WakeKind};
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
/// How often a call is replayed that FCM never processed, because a connection went away.
const CALL_REPLAYS_MAX: u32 = 3;
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
    pub(crate) fn new(config: &FcmConfig, settings: &PushSettings, crew: &Crew) -> Result<Self, Fault> {
        let (time, names) = (Arc::clone(&settings.time), &settings.names);
        const FILE: &str = "service_account_file";
        const TOKEN_URI: &str = "token_uri in service_account_file";
        let account = ServiceAccount::parse(&config.service_account_json).map_err(|problem| (FILE, problem))?;
        let ca = config.ca_pem.as_deref();
        let url = config.endpoint.as_deref().unwrap_or(ENDPOINT);
        let endpoint = Endpoint::https("endpoint", url, ca, ALPN_H2, names)?;
        let token_endpoint = Endpoint::https(TOKEN_URI, &account.token_uri, ca, ALPN_HTTP11, names)?;
        let channel = Channel::new(endpoint, STREAMS, Arc::clone(&settings.time), crew);
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
        let Some(data) = data(job, texts) else {
            return PushOutcome::OurFault("the payload is too large".to_owned());
        };
        let call = job.kind == WakeKind::Call;
        let mut left = if call { CALL_REPLAYS_MAX } else { RETRIES_MAX };
        let (mut failures, mut renewed) = (0, false);
        loop {
            let outcome = self.send(job, &data, &mut left, trail).await;
            if call {
                return outcome;
            }
            let pause = match &outcome {
                PushOutcome::Unauthenticated(_) if !std::mem::replace(&mut renewed, true) => Duration::ZERO,
                PushOutcome::Theirs(_) => RETRY.pause(failures + 1),
                PushOutcome::Unavailable { after, .. } => after.unwrap_or_else(|| RETRY.pause(failures + 1)),
                _ => return outcome,
            };
            trail.in_flight = false;
            if left == 0 || (self.time)().boot + pause >= job.deadline {
                return outcome;
            }
            left -= 1;
            failures += 1;
            if let PushOutcome::Theirs(why) | PushOutcome::Unavailable { why, .. } = outcome {
                trail.last = Some(why);
            }
            sleep(pause).await;
        }
    }

    async fn send(
        &self,
        job: &PushJob,
        data: &Map<String, Value>,
        replays: &mut u32,
        trail: &mut Trail,
    ) -> PushOutcome {
        let token = match self.tokens.current(trail).await {
            Ok(token) => token,
            Err(outcome) => return outcome,
        };
        let build = || self.request(&token.header, self.body(job, data));
        match self.channel.exchange(build, replays, trail).await {
            Ok((link, reply)) => match verdict(&reply, (self.time)().wall) {
                Verdict::Settled(outcome) => {
                    link.prove();
                    outcome
                }
                Verdict::BadAccessToken(said) => {
                    self.tokens.discard(&token, &said);
                    PushOutcome::Unauthenticated(said)
                }
                Verdict::Ailing(outcome) => {
                    self.channel.renew(&link);
                    outcome
                }
            },
            Err(Lost::Unprocessed(why) | Lost::Unknown(why)) => PushOutcome::Theirs(why),
            Err(Lost::Unbuilt) => PushOutcome::OurFault("the request cannot be built".to_owned()),
        }
    }

    /// The message as it is sent now: FCM keeps it for as long as it is worth something from now on.
    fn body(&self, job: &PushJob, data: &Map<String, Value>) -> Bytes {
        let priority = if is_urgent(job.kind) { "HIGH" } else { "NORMAL" };
        let left = job.expires_at.unix_millis().saturating_sub((self.time)().wall.unix_millis());
        let ttl = Duration::from_millis(left).min(TTL_MAX).as_secs();
        let message = json!({
            (job.token.form()): job.token.as_str(),
            "data": data,
            "android": { "priority": priority, "ttl": format!("{ttl}s") },
        });
        Bytes::from(json!({ "message": message }).to_string())
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

/// What the push tells, without the caller if it is too much; `None` if it is too much all the same.
fn data(job: &PushJob, texts: &Texts) -> Option<Map<String, Value>> {
    let size = |data: &Map<String, Value>| -> usize {
        data.iter().map(|(name, value)| name.len() + value.as_str().map_or(0, str::len)).sum()
    };
    [Detail::Full, Detail::NoCaller]
        .into_iter()
        .map(|detail| text_members(job, texts, detail))
        .find(|data| size(data) <= DATA_MAX)
}
