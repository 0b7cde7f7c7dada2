//! Apple Push Notification service: one connection for a team's key, a topic for each app.
//!
//! PushKit kills an app that gets a VoIP push and shows no call, so a VoIP push leaves here only for a call, and every
//! other kind is refused on a token meant for calls, whatever the caller asks.

pub(crate) mod provider_token;
pub(crate) mod reason;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request};
use http_body_util::Full;
use serde_json::{Value, json};
use uuid::Uuid;

use super::channel::{Channel, LinkRules, Lost, PING, Trail};
use super::config::{ApnsConfig, Fault, PushSettings, TimeSource};
use super::crew::Crew;
use super::endpoint::{ALPN_H2, Endpoint};
use super::jwt::SigningKey;
use super::payload::{Texts, is_shown, members, within};
use crate::engine::input::PushPurpose;
use crate::engine::output::{PushJob, PushOutcome, WakeKind};
use crate::engine::push_token::PushToken;
use provider_token::{Minted, ProviderToken};
use reason::{Verdict, verdict};

/// With a token, APNs allows one stream until it has seen a valid one; then what its SETTINGS say, of which we use this
/// much at most.
const STREAMS: LinkRules = LinkRules { unproved: 1, proved: 1000, ping: PING };
/// How often a push the provider never processed is sent again. Each time needs a connection that went away.
const REPLAYS_MAX: u32 = 8;
/// APNs counts in seconds: for less a call push is now or never.
const EXPIRY_MIN: Duration = Duration::from_secs(1);
/// Largest body of a VoIP push.
const VOIP_BODY_MAX: usize = 5120;
/// Largest body of any other push.
const BODY_MAX: usize = 4096;
/// Characters of team and key ids.
const ID_LEN: usize = 10;

/// The client of one team's key in one environment.
pub(crate) struct Apns {
    channel: Channel,
    token: ProviderToken,
    time: TimeSource,
    /// How long APNs may keep a call push for a phone that it does not reach at once.
    call_expiry: Duration,
}

/// One push as APNs wants it: all that stays the same when it is sent again.
struct Prepared {
    uri: String,
    id: String,
    topic: String,
    push_type: &'static str,
    priority: &'static str,
    collapse_id: Option<String>,
    body: Bytes,
}

impl Apns {
    pub(crate) fn new(config: &ApnsConfig, settings: &PushSettings, crew: &Crew) -> Result<Self, Fault> {
        for (member, id) in [("team_id", &config.team_id), ("key_id", &config.key_id)] {
            if id.len() != ID_LEN || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
                return Err((member, format!("must be {ID_LEN} letters and digits")));
            }
        }
        let key = SigningKey::es256(&config.key_pem).map_err(|problem| ("key_file", problem))?;
        let url = config.endpoint.as_deref().unwrap_or(config.environment.endpoint());
        let endpoint = Endpoint::https("endpoint", url, config.ca_pem.as_deref(), ALPN_H2, &settings.names)?;
        let channel = Channel::new(endpoint, STREAMS, Arc::clone(&settings.time), crew);
        let token = ProviderToken::new(key, config.team_id.clone(), config.key_id.clone());
        Ok(Self { channel, token, time: Arc::clone(&settings.time), call_expiry: settings.apns_expiry })
    }

    /// Lets the connection go.
    pub(crate) fn close(&self) {
        self.channel.close();
    }

    /// Why nothing can be sent at present, if it is known.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.channel.trouble()
    }

    /// Sends a push and says what became of it. A call is sent once: whether it is worth another send, the engine knows.
    /// Safe to drop at the deadline.
    pub(crate) async fn deliver(&self, job: &PushJob, texts: &Texts, trail: &mut Trail) -> PushOutcome {
        let push = match self.prepare(job, texts) {
            Ok(push) => push,
            Err(outcome) => return outcome,
        };
        let once = job.kind == WakeKind::Call;
        let (mut retried, mut renewed, mut replays) = (once, once, REPLAYS_MAX);
        loop {
            let outcome = self.send(job, &push, &mut replays, trail).await;
            match &outcome {
                PushOutcome::Unauthenticated(_) if !renewed => renewed = true,
                PushOutcome::Theirs(why) | PushOutcome::Unavailable { why, after: None } if !retried => {
                    retried = true;
                    trail.last = Some(why.clone());
                }
                _ => return outcome,
            }
            trail.in_flight = false;
        }
    }

    async fn send(&self, job: &PushJob, push: &Prepared, replays: &mut u32, trail: &mut Trail) -> PushOutcome {
        let Some(token) = self.token.current((self.time)()) else {
            return PushOutcome::OurFault("the provider token cannot be signed".to_owned());
        };
        let build = || request(push, &token, self.expiration(job));
        let (link, reply) = match self.channel.exchange(build, replays, trail).await {
            Ok(answered) => answered,
            Err(Lost::Unknown(why) | Lost::Unprocessed(why)) => return PushOutcome::Theirs(why),
            Err(Lost::Unbuilt) => return PushOutcome::OurFault("the request cannot be built".to_owned()),
        };
        match verdict(&reply, (self.time)().wall) {
            Verdict::Settled(outcome) => {
                if outcome == PushOutcome::Accepted {
                    link.prove();
                }
                outcome
            }
            Verdict::StaleProviderToken => {
                let said = "403 ExpiredProviderToken".to_owned();
                let renewed = self.token.renew(&token, (self.time)());
                if renewed { PushOutcome::Unauthenticated(said) } else { PushOutcome::OurFault(said) }
            }
            Verdict::Ailing(outcome) => {
                self.channel.renew(&link);
                outcome
            }
        }
    }

    /// Until when APNs keeps a push for a phone that it does not reach at once; 0: now or never. A stored VoIP push cannot be
    /// withdrawn, and shows a call whose caller may have hung up: it is kept for a phone that reconnects, not for longer.
    fn expiration(&self, job: &PushJob) -> u64 {
        if job.kind != WakeKind::Call {
            return job.expires_at.unix_seconds();
        }
        let now = (self.time)().wall;
        let rest = Duration::from_millis(job.expires_at.unix_millis().saturating_sub(now.unix_millis()));
        let kept = rest.min(self.call_expiry);
        if kept < EXPIRY_MIN { 0 } else { (now + kept).unix_seconds() }
    }

    fn prepare(&self, job: &PushJob, texts: &Texts) -> Result<Prepared, PushOutcome> {
        // It becomes part of the path. What comes in is checked; this only keeps a mistake of ours from reaching Apple.
        let token = match &job.token {
            PushToken::Registration(token)
                if !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_hexdigit()) =>
            {
                token
            }
            PushToken::Registration(_) | PushToken::InstallationId(_) => {
                return Err(PushOutcome::TokenRejected("not a device token".to_owned()));
            }
        };
        let plan = plan(job, texts)?;
        let build = |detail| {
            let mut body = members(job, detail);
            body.insert("aps".to_owned(), plan.aps.clone());
            Value::Object(body).to_string().into_bytes()
        };
        let Some(body) = within(plan.body_max, build) else {
            return Err(PushOutcome::OurFault("the payload is too large".to_owned()));
        };
        Ok(Prepared {
            uri: self.channel.uri(&format!("/3/device/{token}")),
            id: Uuid::new_v4().to_string(),
            topic: if plan.voip { format!("{}.voip", job.app) } else { job.app.clone() },
            push_type: plan.push_type,
            priority: plan.priority,
            collapse_id: collapse_id(job),
            body: Bytes::from(body),
        })
    }
}

struct Plan {
    voip: bool,
    push_type: &'static str,
    priority: &'static str,
    body_max: usize,
    aps: Value,
}

fn plan(job: &PushJob, texts: &Texts) -> Result<Plan, PushOutcome> {
    let alert = || json!({ "alert": { "body": texts.shown(job) }, "sound": "default", "mutable-content": 1 });
    match (job.kind, job.purpose) {
        (WakeKind::Call, PushPurpose::Call) => {
            Ok(Plan { voip: true, push_type: "voip", priority: "10", body_max: VOIP_BODY_MAX, aps: json!({}) })
        }
        (_, PushPurpose::Call) => {
            Err(PushOutcome::OurFault(format!("a {} push must not go to a VoIP token", job.kind.as_str())))
        }
        // Nobody needs to read it: it silences a phone that rings, or lets the app refresh its lease by itself. A call
        // shows by all means.
        (kind, PushPurpose::Other) if kind != WakeKind::Call && !is_shown(job) => {
            let aps = json!({ "content-available": 1 });
            Ok(Plan { voip: false, push_type: "background", priority: "5", body_max: BODY_MAX, aps })
        }
        (_, PushPurpose::Other) => {
            Ok(Plan { voip: false, push_type: "alert", priority: "10", body_max: BODY_MAX, aps: alert() })
        }
    }
}

/// Pushes with the same id show as one, the last. What the user reads of one instance's lease, messages and mailbox is
/// worth one line each; a missed call is worth one of its own.
fn collapse_id(job: &PushJob) -> Option<String> {
    match job.kind {
        WakeKind::Call | WakeKind::CallEnded | WakeKind::Refresh | WakeKind::Test | WakeKind::Proof => None,
        WakeKind::MissedCall => job.call.map(|call| call.to_string()),
        WakeKind::Message | WakeKind::Voicemail => Some(format!("{}.{}", job.kind.as_str(), job.instance)),
        WakeKind::Expiring | WakeKind::Reprovision => Some(format!("lease.{}", job.instance)),
    }
}

fn request(push: &Prepared, token: &Minted, expiration: u64) -> Option<Request<Full<Bytes>>> {
    let mut request = Request::builder();
    if let Some(id) = &push.collapse_id {
        request = request.header("apns-collapse-id", id);
    }
    request
        .method(Method::POST)
        .uri(&push.uri)
        .header("authorization", &token.header)
        .header("apns-id", &push.id)
        .header("apns-topic", &push.topic)
        .header("apns-push-type", HeaderValue::from_static(push.push_type))
        .header("apns-priority", HeaderValue::from_static(push.priority))
        .header("apns-expiration", expiration)
        .header("content-type", HeaderValue::from_static("application/json"))
        .body(Full::new(push.body.clone()))
        .ok()
}
