//! Every check APNs makes on a request, in the order of its own answers.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::{ApnsPush, Apple, Refusal, TEAM_ID};
use crate::sandbox::jwt::Invalid;
use crate::sandbox::server::Peer;

/// An older provider token is refused.
const TOKEN_AGE_MAX: u64 = 3600;
/// How far the clocks of client and Apple may be apart.
const SKEW: u64 = 300;
/// A provider token may not be replaced sooner.
const RENEWAL_MIN: Duration = Duration::from_secs(20 * 60);
/// How long a VoIP push may be stored (seconds): no call is held for longer.
const VOIP_STORED_MAX: u64 = 180;
/// Largest body of a VoIP push.
const VOIP_BODY_MAX: usize = 5120;
/// Largest body of any other push.
const BODY_MAX: usize = 4096;
/// Longest `apns-collapse-id`.
const COLLAPSE_ID_MAX: usize = 64;
/// Longest device token we know of is 100 bytes; Apple fixes none, so this only bounds.
const DEVICE_TOKEN_MAX: usize = 400;
/// A UUID with its hyphens.
const UUID_LEN: usize = 36;

const VOIP: &str = "voip";
const BACKGROUND: &str = "background";
const ALERT: &str = "alert";

/// The headers that may come once only.
const SINGLE: [&str; 7] = [
    "authorization",
    "apns-id",
    "apns-expiration",
    "apns-priority",
    "apns-topic",
    "apns-collapse-id",
    "apns-push-type",
];

#[derive(Clone, Deserialize)]
struct Claims {
    iss: String,
    iat: u64,
}

fn refuse(status: u16, reason: &'static str) -> Refusal {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    Refusal { status, reason, since: None }
}

/// Says what is wrong with a request, or what it is if nothing is.
pub(super) fn check(apple: &Apple, request: &Request<Bytes>, peer: &Peer) -> Result<ApnsPush, Refusal> {
    let headers = request.headers();
    if request.method() != Method::POST {
        return Err(refuse(405, "MethodNotAllowed"));
    }
    let token = request.uri().path().strip_prefix("/3/device/").ok_or_else(|| refuse(404, "BadPath"))?;
    if token.is_empty() {
        return Err(refuse(400, "MissingDeviceToken"));
    }
    if SINGLE.iter().any(|name| headers.get_all(*name).iter().nth(1).is_some()) {
        return Err(refuse(400, "DuplicateHeaders"));
    }
    provider_token(apple, headers, peer)?;
    let id = id(headers)?;
    let push_type = push_type(headers)?;
    let topic = topic(apple, headers, push_type)?;
    let priority = priority(headers, push_type)?;
    let expiration = expiration(apple, headers, push_type)?;
    let collapse_id = header(headers, "apns-collapse-id").map(str::to_owned);
    if collapse_id.as_ref().is_some_and(|id| id.len() > COLLAPSE_ID_MAX) {
        return Err(refuse(400, "BadCollapseId"));
    }
    let payload = payload(request.body(), push_type)?;
    device_token(apple, token, &topic)?;
    let (token, push_type) = (token.to_owned(), push_type.to_owned());
    Ok(ApnsPush { token, id, topic, push_type, priority, expiration, collapse_id, payload, connection: peer.number })
}

/// A header's value; one that is not text is as good as a wrong one.
fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).map(|value| value.to_str().unwrap_or(""))
}

fn provider_token(apple: &Apple, headers: &HeaderMap, peer: &Peer) -> Result<(), Refusal> {
    let authorization = header(headers, "authorization").ok_or_else(|| refuse(403, "MissingProviderToken"))?;
    let (scheme, token) = authorization.split_once(' ').ok_or_else(|| refuse(403, "InvalidProviderToken"))?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(refuse(403, "InvalidProviderToken"));
    }
    same_key(token, peer)?;
    let claims: Claims = apple.key.claims(token).map_err(|invalid| match invalid {
        Invalid::Form | Invalid::KeyId | Invalid::Signature => refuse(403, "InvalidProviderToken"),
    })?;
    let now = (apple.time)();
    let seconds = now.wall.unix_seconds();
    if claims.iss != TEAM_ID || claims.iat > seconds + SKEW {
        return Err(refuse(403, "InvalidProviderToken"));
    }
    if claims.iat + TOKEN_AGE_MAX < seconds {
        return Err(refuse(403, "ExpiredProviderToken"));
    }
    let mut state = apple.state();
    let renewed = state.newest.filter(|(iat, _)| *iat != claims.iat);
    if renewed.is_some_and(|(_, since)| now.boot.saturating_since(since.boot) < RENEWAL_MIN) {
        return Err(refuse(429, "TooManyProviderTokenUpdates"));
    }
    if renewed.is_some() || state.newest.is_none() {
        state.newest = Some((claims.iat, now));
    }
    state.provider_tokens.insert(token.to_owned());
    Ok(())
}

/// A connection belongs to the key that used it first.
fn same_key(token: &str, peer: &Peer) -> Result<(), Refusal> {
    let key_id = jsonwebtoken::decode_header(token).ok().and_then(|header| header.kid);
    let key_id = key_id.ok_or_else(|| refuse(403, "InvalidProviderToken"))?;
    let mut identity = peer.identity.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    match &*identity {
        Some(known) if *known != key_id => Err(refuse(403, "UnrelatedKeyIdInToken")),
        Some(_) => Ok(()),
        None => {
            *identity = Some(key_id);
            Ok(())
        }
    }
}

fn id(headers: &HeaderMap) -> Result<String, Refusal> {
    match header(headers, "apns-id") {
        None => Ok(Uuid::new_v4().to_string()),
        Some(id) if id.len() == UUID_LEN && Uuid::try_parse(id).is_ok() => Ok(id.to_owned()),
        Some(_) => Err(refuse(400, "BadMessageId")),
    }
}

fn push_type(headers: &HeaderMap) -> Result<&'static str, Refusal> {
    [VOIP, ALERT, BACKGROUND]
        .into_iter()
        .find(|known| header(headers, "apns-push-type") == Some(known))
        .ok_or_else(|| refuse(400, "InvalidPushType"))
}

fn topic(apple: &Apple, headers: &HeaderMap, push_type: &str) -> Result<String, Refusal> {
    let topic = header(headers, "apns-topic").ok_or_else(|| refuse(400, "MissingTopic"))?;
    if topic.is_empty() || !topic.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte)) {
        return Err(refuse(400, "BadTopic"));
    }
    let bundle = topic.strip_suffix(".voip");
    if bundle.is_some() != (push_type == VOIP) {
        return Err(refuse(400, "InvalidPushType"));
    }
    let bundle = bundle.unwrap_or(topic);
    if !apple.bundles.is_empty() && !apple.bundles.iter().any(|known| known == bundle) {
        return Err(refuse(400, "TopicDisallowed"));
    }
    Ok(topic.to_owned())
}

fn priority(headers: &HeaderMap, push_type: &str) -> Result<u8, Refusal> {
    let priority = match header(headers, "apns-priority") {
        None | Some("10") => 10,
        Some("5") => 5,
        Some("1") => 1,
        Some(_) => return Err(refuse(400, "BadPriority")),
    };
    if push_type == BACKGROUND && priority != 5 {
        return Err(refuse(400, "BadPriority"));
    }
    Ok(priority)
}

fn expiration(apple: &Apple, headers: &HeaderMap, push_type: &str) -> Result<u64, Refusal> {
    let text = header(headers, "apns-expiration");
    let expiration = match text.map(str::parse) {
        Some(Ok(expiration)) => Some(expiration),
        Some(Err(_)) => return Err(refuse(400, "BadExpirationDate")),
        None => None,
    };
    // Apple takes any, and keeps a push without one for weeks; a VoIP push that is stored for longer than a call is held shows
    // a call whose caller has hung up.
    let latest = (apple.time)().wall.unix_seconds() + VOIP_STORED_MAX;
    if push_type == VOIP && expiration.is_none_or(|expiration| expiration > latest) {
        return Err(refuse(400, "BadExpirationDate"));
    }
    Ok(expiration.unwrap_or(0))
}

fn payload(body: &Bytes, push_type: &str) -> Result<Value, Refusal> {
    if body.is_empty() {
        return Err(refuse(400, "PayloadEmpty"));
    }
    if body.len() > if push_type == VOIP { VOIP_BODY_MAX } else { BODY_MAX } {
        return Err(refuse(413, "PayloadTooLarge"));
    }
    let payload: Value = serde_json::from_slice(body).map_err(|_| refuse(400, "PayloadEmpty"))?;
    let aps = payload.get("aps").and_then(Value::as_object).ok_or_else(|| refuse(400, "PayloadEmpty"))?;
    let seen = ["alert", "badge", "sound"].iter().any(|name| aps.contains_key(*name));
    let silent = aps.get("content-available").is_some_and(|flag| flag == 1);
    match push_type {
        BACKGROUND if seen || !silent => Err(refuse(400, "InvalidPushType")),
        ALERT if !seen => Err(refuse(400, "InvalidPushType")),
        _ => Ok(payload),
    }
}

fn device_token(apple: &Apple, token: &str, topic: &str) -> Result<(), Refusal> {
    let hex = token.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !hex || !token.len().is_multiple_of(2) || token.len() > DEVICE_TOKEN_MAX {
        return Err(refuse(400, "BadDeviceToken"));
    }
    let state = apple.state();
    if let Some((reason, since)) = state.dead.get(token) {
        return Err(Refusal { status: StatusCode::GONE, reason, since: Some(*since) });
    }
    if state.bound.get(token).is_some_and(|bound| bound != topic) {
        return Err(refuse(400, "DeviceTokenNotForTopic"));
    }
    Ok(())
}
