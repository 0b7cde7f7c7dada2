//! A stand-in for Apple Push Notification service that refuses what Apple refuses.
//!
//! Where Apple's pages leave a choice it takes the stricter one, and it holds clients to the one rule Apple does not
//! check but punishes later: a VoIP push is never stored for longer than a call is held.

mod request;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::certificate::Certificate;
use super::fault::{Fault, Faults};
use super::inbox::Inbox;
use super::jwt::VerifyingKey;
use super::server::{self, Peer, Server, Service};
use crate::clock::{self, Now, WallTime};

/// The team whose key [`ApnsStandIn::credentials`] hands out.
const TEAM_ID: &str = "SANDBOX001";
/// The name of that key.
const KEY_ID: &str = "SANDBOXKEY";
/// Refusals remembered; the oldest are kept.
const REFUSALS_MAX: usize = 10_000;

/// How a stand-in is set up.
pub struct ApnsOptions {
    /// Where it listens; port 0 for any.
    pub address: SocketAddr,
    /// The bundle ids the key may push to; none: any.
    pub bundles: Vec<String>,
    /// The clocks by which it judges tokens.
    pub time: Arc<dyn Fn() -> Now + Send + Sync>,
}

impl Default for ApnsOptions {
    fn default() -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self { address, bundles: Vec::new(), time: Arc::new(clock::now) }
    }
}

/// What a client needs to push through the stand-in. No `Debug`: it holds a key.
pub struct ApnsCredentials {
    /// The team.
    pub team_id: String,
    /// The key's name.
    pub key_id: String,
    /// The `.p8` file.
    pub key_pem: Zeroizing<String>,
}

/// A push that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApnsPush {
    /// The device's token.
    pub token: String,
    /// `apns-id`, as sent or made up.
    pub id: String,
    /// `apns-topic`.
    pub topic: String,
    /// `apns-push-type`.
    pub push_type: String,
    /// `apns-priority`.
    pub priority: u8,
    /// `apns-expiration`.
    pub expiration: u64,
    /// `apns-collapse-id`.
    pub collapse_id: Option<String>,
    /// The body.
    pub payload: Value,
    /// On which connection it came, counted from 1.
    pub connection: u64,
}

/// A running stand-in; it ends when dropped.
pub struct ApnsStandIn {
    server: Server,
    ca_pem: String,
    key_pem: Zeroizing<String>,
    apple: Arc<Apple>,
}

impl ApnsStandIn {
    /// Starts one.
    ///
    /// # Errors
    /// The address cannot be bound, or keys cannot be made.
    pub async fn start(options: ApnsOptions) -> io::Result<Self> {
        let (key_pem, verifying) = make_key()?;
        // Apple speaks nothing but HTTP/2.
        let certificate = Certificate::make(&[b"h2"])?;
        let apple = Arc::new(Apple {
            key: verifying,
            bundles: options.bundles,
            time: options.time,
            state: Mutex::default(),
            inbox: Inbox::new(),
            faults: Faults::default(),
        });
        let server = Server::start(options.address, Some(certificate.server), Arc::clone(&apple)).await?;
        Ok(Self { server, ca_pem: certificate.ca_pem, key_pem, apple })
    }

    /// What stands in an app's `endpoint`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("https://{}", self.server.address)
    }

    /// What stands in the file an app's `ca_file` names.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// A key the stand-in accepts.
    #[must_use]
    pub fn credentials(&self) -> ApnsCredentials {
        let (team_id, key_id) = (TEAM_ID.to_owned(), KEY_ID.to_owned());
        ApnsCredentials { team_id, key_id, key_pem: self.key_pem.clone() }
    }

    /// Takes the oldest accepted push, waiting for one if need be.
    pub async fn next_push(&self, within: Duration) -> Option<ApnsPush> {
        self.apple.inbox.next(within, |_| true).await
    }

    /// Takes the oldest accepted push to a token, waiting for one if need be.
    pub async fn next_push_to(&self, token: &str, within: Duration) -> Option<ApnsPush> {
        self.apple.inbox.next(within, |push| push.token == token).await
    }

    /// The app was removed from the device: the token gets 410 Unregistered.
    pub fn revoke(&self, token: &str, since: WallTime) {
        self.apple.state().dead.insert(token.to_owned(), ("Unregistered", since));
    }

    /// The token ran out: it gets 410 ExpiredToken.
    pub fn expire(&self, token: &str, since: WallTime) {
        self.apple.state().dead.insert(token.to_owned(), ("ExpiredToken", since));
    }

    /// The token belongs to one topic: others get 400 DeviceTokenNotForTopic.
    pub fn bind(&self, token: &str, topic: &str) {
        self.apple.state().bound.insert(token.to_owned(), topic.to_owned());
    }

    /// Lets `passing` requests through and applies `fault` to the one after them, once what was planned before is done.
    pub fn fail_after(&self, passing: usize, fault: Fault) {
        self.apple.faults.plan(passing, fault);
    }

    /// Applies a fault to every request until told otherwise.
    pub fn fail_always(&self, fault: Option<Fault>) {
        self.apple.faults.last(fault);
    }

    /// How many pushes were ever accepted.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.apple.inbox.count()
    }

    /// How many connections were ever made.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.server.connections()
    }

    /// Waits until so many requests have ever arrived, whatever becomes of them.
    pub async fn requests_reached(&self, count: u64) {
        self.server.requests_reached(count).await;
    }

    /// Status and reason of every refusal, planned ones left out.
    #[must_use]
    pub fn refusals(&self) -> Vec<(u16, &'static str)> {
        self.apple.state().refusals.clone()
    }

    /// How many different provider tokens were ever used.
    #[must_use]
    pub fn provider_tokens(&self) -> usize {
        self.apple.state().provider_tokens.len()
    }
}

/// What the stand-in knows.
struct Apple {
    key: VerifyingKey,
    bundles: Vec<String>,
    time: Arc<dyn Fn() -> Now + Send + Sync>,
    state: Mutex<State>,
    inbox: Inbox<ApnsPush>,
    faults: Faults,
}

#[derive(Default)]
struct State {
    dead: HashMap<String, (&'static str, WallTime)>,
    bound: HashMap<String, String>,
    refusals: Vec<(u16, &'static str)>,
    provider_tokens: HashSet<String>,
    /// `iat` of the newest provider token, and when it first came.
    newest: Option<(u64, Now)>,
}

/// A refusal as Apple documents it.
struct Refusal {
    status: StatusCode,
    reason: &'static str,
    since: Option<WallTime>,
}

impl Apple {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refused(&self, refusal: &Refusal) -> Response<Bytes> {
        let mut state = self.state();
        if state.refusals.len() < REFUSALS_MAX {
            state.refusals.push((refusal.status.as_u16(), refusal.reason));
        }
        let mut body = json!({ "reason": refusal.reason });
        if let Some(since) = refusal.since {
            body["timestamp"] = json!(since.unix_millis());
        }
        server::json(refusal.status, &body)
    }
}

impl Service for Apple {
    async fn call(&self, request: Request<Bytes>, peer: &Peer) -> Response<Bytes> {
        let sent_id = request.headers().get("apns-id").cloned();
        let checked = request::check(self, &request, peer);
        let id = match &checked {
            Ok(push) => HeaderValue::from_str(&push.id).ok(),
            Err(_) => sent_id,
        };
        let mut response = match checked {
            Ok(push) => {
                peer.trust();
                self.inbox.put(push);
                Response::new(Bytes::new())
            }
            Err(refusal) => self.refused(&refusal),
        };
        if let Some(id) = id {
            response.headers_mut().insert("apns-id", id);
        }
        response
    }

    fn faults(&self, _path: &str) -> &Faults {
        &self.faults
    }

    fn refusal(&self, _path: &str, status: StatusCode, reason: &str) -> Response<Bytes> {
        let mut body = json!({ "reason": reason });
        if status == StatusCode::GONE {
            body["timestamp"] = json!((self.time)().wall.unix_millis());
        }
        server::json(status, &body)
    }

    fn one_stream_until_trusted(&self) -> bool {
        true
    }
}

fn make_key() -> io::Result<(Zeroizing<String>, VerifyingKey)> {
    let failed = || io::Error::other("a P-256 key cannot be made");
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(|_| failed())?;
    let document = pair.to_pkcs8v1().map_err(|_| failed())?;
    let verifying = VerifyingKey::es256(KEY_ID, pair.public_key().as_ref()).ok_or_else(failed)?;
    Ok((super::jwt::private_key_pem(document.as_ref()), verifying))
}
