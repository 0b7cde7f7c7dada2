//! Provider `sandbox`: posts pushes to a mailbox of ours, where whoever tries things out picks them up.

use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;

use super::answer::{fault, retry_after};
use super::channel::Trail;
use super::config::{Fault, PushSettings, SandboxConfig, TimeSource};
use super::endpoint::{ALPN_HTTP11, Endpoint};
use super::oneshot;
use super::payload::{Texts, members_with_text, within};
use crate::clock::WallTime;
use crate::engine::output::{PushJob, PushOutcome};

/// Largest body, as the real providers have one.
const BODY_MAX: usize = 5120;

/// The client of one mailbox.
pub(crate) struct Mailbox {
    endpoint: Endpoint,
    time: TimeSource,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Refusal {
    timestamp: Option<u64>,
}

impl Mailbox {
    pub(crate) fn new(config: &SandboxConfig, settings: &PushSettings) -> Result<Self, Fault> {
        let (url, ca_pem) = (&config.endpoint, config.ca_pem.as_deref());
        let endpoint = Endpoint::any("endpoint", url, ca_pem, ALPN_HTTP11, &settings.names)?;
        Ok(Self { endpoint, time: Arc::clone(&settings.time) })
    }

    /// Posts a push, once.
    pub(crate) async fn deliver(&self, job: &PushJob, texts: &Texts, trail: &mut Trail) -> PushOutcome {
        let build = |detail| {
            let payload = members_with_text(job, texts, detail);
            json!({ "token": job.token.as_str(), "kind": job.kind.as_str(), "payload": payload })
                .to_string()
                .into_bytes()
        };
        let Some(body) = within(BODY_MAX, build) else {
            return PushOutcome::OurFault("the payload is too large".to_owned());
        };
        trail.in_flight = true;
        let reply = match oneshot::post(&self.endpoint, "application/json", Bytes::from(body)).await {
            Ok(reply) => reply,
            Err(why) => return PushOutcome::Theirs(why),
        };
        let now = (self.time)().wall;
        match reply.status.as_u16() {
            200..=299 => PushOutcome::Accepted,
            410 => {
                let refusal: Refusal = serde_json::from_slice(&reply.body).unwrap_or_default();
                PushOutcome::TokenDead { since: refusal.timestamp.map(WallTime::from_unix_millis) }
            }
            429 => PushOutcome::Later { after: retry_after(&reply, now) },
            500..=599 => PushOutcome::Unavailable { why: fault(reply.status, ""), after: retry_after(&reply, now) },
            _ => PushOutcome::OurFault(fault(reply.status, "")),
        }
    }
}
