//! A stand-in for Firebase Cloud Messaging (HTTP v1) and for Google's token endpoint that refuses what Google refuses.

mod grant;
mod message;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::KeyPair;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::certificate::Certificate;
use super::fault::{Fault, Faults};
use super::inbox::Inbox;
use super::jwt::{VerifyingKey, private_key_pem};
use super::server::{self, Peer, Server, Service};
use crate::clock::{self, Instant, Now};

/// The account whose key [`FcmStandIn::credentials`] hands out.
const CLIENT_EMAIL: &str = "reveille@sandbox.iam.gserviceaccount.com";
/// The name of that key.
const KEY_ID: &str = "5a4db0c0ffee";
/// The path of the token endpoint.
const TOKEN_PATH: &str = "/token";
/// Refusals remembered; the oldest are kept.
const REFUSALS_MAX: usize = 10_000;
/// Google's usual `expires_in`.
const GRANT_SECONDS: u64 = 3599;

const FCM_ERROR: &str = "type.googleapis.com/google.firebase.fcm.v1.FcmError";
const BAD_REQUEST: &str = "type.googleapis.com/google.rpc.BadRequest";
const ERROR_INFO: &str = "type.googleapis.com/google.rpc.ErrorInfo";
/// What `FcmError.errorCode` may be.
const FCM_CODES: [&str; 8] = [
    "UNSPECIFIED_ERROR",
    "INVALID_ARGUMENT",
    "UNREGISTERED",
    "SENDER_ID_MISMATCH",
    "QUOTA_EXCEEDED",
    "UNAVAILABLE",
    "INTERNAL",
    "THIRD_PARTY_AUTH_ERROR",
];

/// How a stand-in is set up.
pub struct FcmOptions {
    /// Where it listens; port 0 for any.
    pub address: SocketAddr,
    /// The project messages are sent to.
    pub project_id: String,
    /// How long an access token is good for.
    pub grant: Duration,
    /// The clocks by which it judges tokens.
    pub time: Arc<dyn Fn() -> Now + Send + Sync>,
}

impl Default for FcmOptions {
    fn default() -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            project_id: "reveille-sandbox".to_owned(),
            grant: Duration::from_secs(GRANT_SECONDS),
            time: Arc::new(clock::now),
        }
    }
}

/// A message that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FcmPush {
    /// The device's registration token, or its installation id.
    pub token: String,
    /// Whether it was an installation id (`message.fid`).
    pub fid: bool,
    /// `data`.
    pub data: HashMap<String, String>,
    /// Whether `android.priority` is HIGH.
    pub high_priority: bool,
    /// `android.ttl`.
    pub ttl: Duration,
    /// On which connection it came, counted from 1.
    pub connection: u64,
}

/// A running stand-in; it ends when dropped.
pub struct FcmStandIn {
    server: Server,
    ca_pem: String,
    key_pem: Zeroizing<String>,
    google: Arc<Google>,
}

impl FcmStandIn {
    /// Starts one. Makes an RSA key, which takes a moment.
    ///
    /// # Errors
    /// The address cannot be bound, or keys cannot be made.
    pub async fn start(options: FcmOptions) -> io::Result<Self> {
        let key = tokio::task::spawn_blocking(make_key).await.map_err(io::Error::other)?;
        let (key_pem, verifying) = key?;
        let certificate = Certificate::make(&[b"h2", b"http/1.1"])?;
        let google = Arc::new(Google {
            key: verifying,
            project_id: options.project_id,
            grant: options.grant,
            time: options.time,
            token_uri: Mutex::default(),
            state: Mutex::default(),
            inbox: Inbox::new(),
            message_faults: Faults::default(),
            grant_faults: Faults::default(),
        });
        let server = Server::start(options.address, Some(certificate.server), Arc::clone(&google)).await?;
        let stand_in = Self { server, ca_pem: certificate.ca_pem, key_pem, google };
        // The port is known only now; nobody knows it before us.
        *stand_in.google.token_uri.lock().unwrap_or_else(PoisonError::into_inner) = stand_in.token_uri();
        Ok(stand_in)
    }

    /// What stands in an app's `endpoint`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("https://{}", self.server.address)
    }

    fn token_uri(&self) -> String {
        format!("{}{TOKEN_PATH}", self.endpoint())
    }

    /// What stands in the file an app's `ca_file` names.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The key file of a service account the stand-in accepts, its `token_uri` here.
    #[must_use]
    pub fn credentials(&self) -> Zeroizing<String> {
        let file = json!({
            "type": "service_account",
            "project_id": self.google.project_id,
            "private_key_id": KEY_ID,
            "private_key": *self.key_pem,
            "client_email": CLIENT_EMAIL,
            "client_id": "100000000000000000001",
            "token_uri": self.token_uri(),
        });
        Zeroizing::new(file.to_string())
    }

    /// Takes the oldest accepted message, waiting for one if need be.
    pub async fn next_push(&self, within: Duration) -> Option<FcmPush> {
        self.google.inbox.next(within, |_| true).await
    }

    /// Takes the oldest accepted message to a token, waiting for one if need be.
    pub async fn next_push_to(&self, token: &str, within: Duration) -> Option<FcmPush> {
        self.google.inbox.next(within, |push| push.token == token).await
    }

    /// The app was removed from the device: the token gets 404 UNREGISTERED.
    pub fn revoke(&self, token: &str) {
        self.google.state().unregistered.insert(token.to_owned());
    }

    /// The token belongs to another project: it gets 403 SENDER_ID_MISMATCH.
    pub fn estrange(&self, token: &str) {
        self.google.state().foreign.insert(token.to_owned());
    }

    /// Access tokens handed out so far are no good any more.
    pub fn revoke_grants(&self) {
        self.google.state().grants.clear();
    }

    /// Lets `passing` messages through and applies `fault` to the one after them, once what was planned before is done.
    pub fn fail_after(&self, passing: usize, fault: Fault) {
        self.google.message_faults.plan(passing, fault);
    }

    /// Applies a fault to every message until told otherwise.
    pub fn fail_always(&self, fault: Option<Fault>) {
        self.google.message_faults.last(fault);
    }

    /// As [`Self::fail_after`], for requests to the token endpoint.
    pub fn fail_grant_after(&self, passing: usize, fault: Fault) {
        self.google.grant_faults.plan(passing, fault);
    }

    /// As [`Self::fail_always`], for requests to the token endpoint.
    pub fn fail_grants_always(&self, fault: Option<Fault>) {
        self.google.grant_faults.last(fault);
    }

    /// How many messages were ever accepted.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.google.inbox.count()
    }

    /// How many access tokens were ever handed out.
    #[must_use]
    pub fn grants(&self) -> u64 {
        self.google.state().granted
    }

    /// How many connections were ever made, those to the token endpoint included.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.server.connections()
    }

    /// Waits until so many requests have ever arrived, those to the token endpoint included.
    pub async fn requests_reached(&self, count: u64) {
        self.server.requests_reached(count).await;
    }

    /// Status and code of every refusal, planned ones left out.
    #[must_use]
    pub fn refusals(&self) -> Vec<(u16, &'static str)> {
        self.google.state().refusals.clone()
    }
}

/// What the stand-in knows.
struct Google {
    key: VerifyingKey,
    project_id: String,
    grant: Duration,
    time: Arc<dyn Fn() -> Now + Send + Sync>,
    token_uri: Mutex<String>,
    state: Mutex<State>,
    inbox: Inbox<FcmPush>,
    message_faults: Faults,
    grant_faults: Faults,
}

#[derive(Default)]
struct State {
    /// Access tokens and when they end.
    grants: HashMap<String, Instant>,
    granted: u64,
    unregistered: HashSet<String>,
    foreign: HashSet<String>,
    refusals: Vec<(u16, &'static str)>,
}

/// A refusal as Google documents it.
struct Refusal {
    status: StatusCode,
    /// `google.rpc.Code` for messages, the OAuth error for grants.
    code: &'static str,
    /// `FcmError.errorCode`.
    fcm: Option<&'static str>,
    /// `BadRequest.fieldViolations[].field`.
    field: Option<String>,
    message: &'static str,
}

impl Google {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, refusal: &Refusal) {
        let mut state = self.state();
        if state.refusals.len() < REFUSALS_MAX {
            state.refusals.push((refusal.status.as_u16(), refusal.fcm.unwrap_or(refusal.code)));
        }
    }

    fn send(&self, request: &Request<Bytes>, peer: &Peer) -> Response<Bytes> {
        match message::check(self, request, peer) {
            Ok(push) => {
                self.inbox.put(push);
                let name = format!("projects/{}/messages/{}", self.project_id, self.inbox.count());
                server::json(StatusCode::OK, &json!({ "name": name }))
            }
            Err(refusal) => {
                self.remember(&refusal);
                server::json(refusal.status, &rpc_error(&refusal))
            }
        }
    }

    fn hand_out(&self, request: &Request<Bytes>) -> Response<Bytes> {
        match grant::check(self, request) {
            Ok(answer) => server::json(StatusCode::OK, &answer),
            Err(refusal) => {
                self.remember(&refusal);
                let body = json!({ "error": refusal.code, "error_description": refusal.message });
                server::json(refusal.status, &body)
            }
        }
    }
}

impl Service for Google {
    async fn call(&self, request: Request<Bytes>, peer: &Peer) -> Response<Bytes> {
        if request.uri().path() == TOKEN_PATH && request.method() == Method::POST {
            self.hand_out(&request)
        } else {
            self.send(&request, peer)
        }
    }

    fn faults(&self, path: &str) -> &Faults {
        if path == TOKEN_PATH { &self.grant_faults } else { &self.message_faults }
    }

    fn refusal(&self, path: &str, status: StatusCode, reason: &str) -> Response<Bytes> {
        if path == TOKEN_PATH {
            return server::json(status, &json!({ "error": reason, "error_description": "As planned." }));
        }
        let details = planned_details(reason);
        let rpc = match status.as_u16() {
            400 => "INVALID_ARGUMENT",
            401 => "UNAUTHENTICATED",
            403 => "PERMISSION_DENIED",
            404 => "NOT_FOUND",
            429 => "RESOURCE_EXHAUSTED",
            503 => "UNAVAILABLE",
            _ => "INTERNAL",
        };
        let error = json!({ "code": status.as_u16(), "status": rpc, "message": reason, "details": details });
        server::json(status, &json!({ "error": error }))
    }
}

/// The details of a refusal that was planned: FCM's own codes come in an `FcmError`; what Google's front end refuses before
/// FCM has seen it does not, and neither does a field of the wrong form.
fn planned_details(reason: &str) -> Value {
    if FCM_CODES.contains(&reason) {
        json!([{ "@type": FCM_ERROR, "errorCode": reason }])
    } else if reason == "BAD_REQUEST" {
        let violation = json!({ "field": "message.android", "description": "As planned." });
        json!([{ "@type": BAD_REQUEST, "fieldViolations": [violation] }])
    } else {
        json!([{ "@type": ERROR_INFO, "reason": reason, "domain": "googleapis.com" }])
    }
}

fn rpc_error(refusal: &Refusal) -> Value {
    let mut details = Vec::new();
    if let Some(code) = refusal.fcm {
        details.push(json!({ "@type": FCM_ERROR, "errorCode": code }));
    }
    if let Some(field) = &refusal.field {
        let violation = json!({ "field": field, "description": refusal.message });
        details.push(json!({ "@type": BAD_REQUEST, "fieldViolations": [violation] }));
    }
    let (code, status) = (refusal.status.as_u16(), refusal.code);
    json!({ "error": { "code": code, "status": status, "message": refusal.message, "details": details } })
}

fn make_key() -> io::Result<(Zeroizing<String>, VerifyingKey)> {
    let failed = || io::Error::other("an RSA key cannot be made");
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(|_| failed())?;
    let document: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| failed())?;
    let public = pair.public_key();
    let (modulus, exponent) = (public.modulus(), public.exponent());
    let modulus = modulus.big_endian_without_leading_zero();
    let exponent = exponent.big_endian_without_leading_zero();
    let verifying = VerifyingKey::rs256(KEY_ID, modulus, exponent).ok_or_else(failed)?;
    Ok((private_key_pem(document.as_ref()), verifying))
}
