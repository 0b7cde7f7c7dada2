//! Every check FCM makes on a message.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use serde_json::{Map, Value};

use super::{FcmPush, Google, Refusal};
use crate::sandbox::server::Peer;

/// Largest sum of the names and values of `data`.
const DATA_MAX: usize = 4096;
/// Longest time a message is stored.
const TTL_MAX: Duration = Duration::from_secs(28 * 24 * 3600);
/// What `ttl` is where nothing is said.
const TTL_DEFAULT: Duration = TTL_MAX;
/// Characters of an installation id.
const FID_LEN: usize = 22;
/// Longest registration token we take for one.
const TOKEN_MAX: usize = 4096;

fn refuse(status: u16, code: &'static str, fcm: Option<&'static str>, message: &'static str) -> Refusal {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    Refusal { status, code, fcm, field: None, message }
}

/// A member that is not what it should be.
fn violation(field: impl Into<String>, message: &'static str) -> Refusal {
    let refusal = refuse(400, "INVALID_ARGUMENT", Some("INVALID_ARGUMENT"), message);
    Refusal { field: Some(field.into()), ..refusal }
}

/// A member the message type does not have, or one of the wrong JSON type: the parser's own words.
fn unparsable(field: impl Into<String>) -> Refusal {
    let refusal = refuse(400, "INVALID_ARGUMENT", None, "Invalid JSON payload received.");
    Refusal { field: Some(field.into()), ..refusal }
}

/// Says what is wrong with a message, or what it is if nothing is.
pub(super) fn check(google: &Google, request: &Request<Bytes>, peer: &Peer) -> Result<FcmPush, Refusal> {
    let path = request.uri().path();
    let project = path.strip_prefix("/v1/projects/").and_then(|rest| rest.strip_suffix("/messages:send"));
    let Some(project) = project.filter(|_| request.method() == Method::POST) else {
        return Err(refuse(404, "NOT_FOUND", None, "Not found."));
    };
    authorized(google, request)?;
    if project != google.project_id {
        return Err(refuse(403, "PERMISSION_DENIED", None, "Permission denied on resource project."));
    }
    let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if !content_type.is_some_and(|kind| kind.starts_with("application/json")) {
        return Err(unparsable("content-type"));
    }
    let body: Value = serde_json::from_slice(request.body()).map_err(|_| unparsable(""))?;
    let body = object(&body, "", &["message", "validate_only"])?;
    let message = body.get("message").ok_or_else(|| violation("message", "Message is missing."))?;
    let message = object(message, "message", &["token", "fid", "data", "android"])?;
    let data = data(message)?;
    let (high_priority, ttl) = android(message)?;
    let (token, fid) = recipient(google, message)?;
    Ok(FcmPush { token, fid, data, high_priority, ttl, connection: peer.number })
}

fn authorized(google: &Google, request: &Request<Bytes>) -> Result<(), Refusal> {
    let message = "Request had invalid authentication credentials. Expected OAuth 2 access token.";
    let refused = || refuse(401, "UNAUTHENTICATED", None, message);
    let value = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = value.and_then(|value| value.strip_prefix("Bearer ")).ok_or_else(refused)?;
    let now = (google.time)().boot;
    google.state().grants.get(token).filter(|ends| **ends > now).map(|_| ()).ok_or_else(refused)
}

/// An object that has no members but the `known` ones.
fn object<'v>(value: &'v Value, name: &str, known: &[&str]) -> Result<&'v Map<String, Value>, Refusal> {
    let object = value.as_object().ok_or_else(|| unparsable(name))?;
    match object.keys().find(|key| !known.contains(&key.as_str())) {
        Some(unknown) => Err(unparsable(format!("{name}.{unknown}"))),
        None => Ok(object),
    }
}

fn data(message: &Map<String, Value>) -> Result<HashMap<String, String>, Refusal> {
    let Some(data) = message.get("data") else { return Ok(HashMap::new()) };
    let data = data.as_object().ok_or_else(|| unparsable("message.data"))?;
    let mut texts = HashMap::new();
    for (key, value) in data {
        let Value::String(value) = value else {
            return Err(unparsable(format!("message.data[{key}].value")));
        };
        if key == "from" || key.starts_with("gcm") || key.starts_with("google") {
            return Err(violation(format!("message.data[{key}]"), "Invalid data payload key."));
        }
        texts.insert(key.clone(), value.clone());
    }
    if texts.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() > DATA_MAX {
        return Err(violation("message.data", "Android message is too big."));
    }
    Ok(texts)
}

fn android(message: &Map<String, Value>) -> Result<(bool, Duration), Refusal> {
    let Some(android) = message.get("android") else { return Ok((false, TTL_DEFAULT)) };
    let android = object(android, "message.android", &["priority", "ttl", "collapse_key", "restricted_package_name"])?;
    let high = match android.get("priority").map(Value::as_str) {
        None | Some(Some("NORMAL")) => false,
        Some(Some("HIGH")) => true,
        Some(_) => return Err(unparsable("message.android.priority")),
    };
    let ttl = match android.get("ttl") {
        None => TTL_DEFAULT,
        Some(ttl) => ttl.as_str().and_then(duration).ok_or_else(|| unparsable("message.android.ttl"))?,
    };
    if ttl > TTL_MAX {
        return Err(violation("message.android.ttl", "Invalid ttl: must be between 0 and 2419200 seconds."));
    }
    Ok((high, ttl))
}

/// `google.protobuf.Duration` in JSON: seconds, up to nine decimals, then `s`.
fn duration(text: &str) -> Option<Duration> {
    let number = text.strip_suffix('s')?;
    let (seconds, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if seconds.is_empty() || !digits(seconds) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let nanoseconds = format!("{fraction:0<9}").parse().ok()?;
    Some(Duration::new(seconds.parse().ok()?, nanoseconds))
}

/// The recipient, and whether it is an installation id: one of the two members, never both.
fn recipient(google: &Google, message: &Map<String, Value>) -> Result<(String, bool), Refusal> {
    let (name, value) = match (message.get("token"), message.get("fid")) {
        (Some(token), None) => ("token", token),
        (None, Some(fid)) => ("fid", fid),
        (None, None) => return Err(violation("message", "Recipient of the message is not set.")),
        (Some(_), Some(_)) => return Err(unparsable("message")),
    };
    let text = value.as_str().ok_or_else(|| unparsable(format!("message.{name}")))?;
    let fid = name == "fid";
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte) || (!fid && byte == b':');
    let shaped = text.bytes().all(plain);
    let looks_like_fid = shaped && text.len() == FID_LEN && !text.contains(':');
    if text.is_empty() || text.len() > TOKEN_MAX || !shaped || looks_like_fid != fid {
        let message = "The registration token is not a valid FCM registration token";
        return Err(refuse(400, "INVALID_ARGUMENT", Some("INVALID_ARGUMENT"), message));
    }
    let state = google.state();
    if state.unregistered.contains(text) {
        return Err(refuse(404, "NOT_FOUND", Some("UNREGISTERED"), "Requested entity was not found."));
    }
    if state.foreign.contains(text) {
        return Err(refuse(403, "PERMISSION_DENIED", Some("SENDER_ID_MISMATCH"), "SenderId mismatch"));
    }
    Ok((text.to_owned(), fid))
}
