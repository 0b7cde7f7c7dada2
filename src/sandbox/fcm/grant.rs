//! Google's token endpoint: the JWT-bearer grant (RFC 7523) for a service account.

use std::sync::PoisonError;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{CLIENT_EMAIL, Google, Refusal};
use crate::sandbox::jwt::Invalid;

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const SCOPE: &str = "https://www.googleapis.com/auth/firebase.messaging";
/// An assertion may be good for this long at most.
const ASSERTION_SECONDS_MAX: u64 = 3600;
/// How far the clocks of client and Google may be apart.
const SKEW: u64 = 300;
/// Access tokens kept at once; above it no more are handed out.
const GRANTS_MAX: usize = 10_000;

#[derive(Clone, Deserialize)]
struct Claims {
    iss: String,
    scope: String,
    aud: String,
    iat: u64,
    exp: u64,
}

fn refuse(code: &'static str, message: &'static str) -> Refusal {
    Refusal { status: StatusCode::BAD_REQUEST, code, fcm: None, field: None, message }
}

/// Says what is wrong with a request for an access token, or hands one out.
pub(super) fn check(google: &Google, request: &Request<Bytes>) -> Result<Value, Refusal> {
    let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if content_type != Some("application/x-www-form-urlencoded") {
        return Err(refuse("invalid_request", "Content-Type must be application/x-www-form-urlencoded."));
    }
    let form = std::str::from_utf8(request.body()).map_err(|_| refuse("invalid_request", "Not a form."))?;
    if field(form, "grant_type").as_deref() != Some(GRANT_TYPE) {
        return Err(refuse("unsupported_grant_type", "Invalid grant_type."));
    }
    let assertion = field(form, "assertion").ok_or_else(|| refuse("invalid_request", "Missing assertion."))?;
    let claims: Claims = google.key.claims(&assertion).map_err(|invalid| match invalid {
        Invalid::Form => refuse("invalid_grant", "Invalid JWT: Token must be a signed JWT."),
        Invalid::KeyId => refuse("invalid_grant", "Invalid JWT: unknown key."),
        Invalid::Signature => refuse("invalid_grant", "Invalid JWT Signature."),
    })?;
    judge(google, &claims)?;
    let now = (google.time)().boot;
    let token = format!("ya29.{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    let mut state = google.state();
    state.grants.retain(|_, ends| *ends > now);
    if state.grants.len() >= GRANTS_MAX {
        return Err(Refusal { status: StatusCode::TOO_MANY_REQUESTS, ..refuse("rate_limited", "Too many tokens.") });
    }
    state.grants.insert(token.clone(), now + google.grant);
    state.granted += 1;
    Ok(json!({ "access_token": token, "expires_in": google.grant.as_secs(), "token_type": "Bearer" }))
}

fn judge(google: &Google, claims: &Claims) -> Result<(), Refusal> {
    if claims.iss != CLIENT_EMAIL {
        return Err(refuse("invalid_grant", "Invalid grant: account not found"));
    }
    if claims.aud != *google.token_uri.lock().unwrap_or_else(PoisonError::into_inner) {
        return Err(refuse("invalid_grant", "Invalid JWT: Failed audience check."));
    }
    if !claims.scope.split(' ').any(|scope| scope == SCOPE) {
        return Err(refuse("invalid_scope", "Invalid OAuth scope or ID token audience provided."));
    }
    let now = (google.time)().wall.unix_seconds();
    let lived = claims.exp.saturating_sub(claims.iat);
    if claims.exp <= claims.iat || lived > ASSERTION_SECONDS_MAX || claims.iat > now + SKEW || claims.exp < now {
        return Err(refuse(
            "invalid_grant",
            "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe.",
        ));
    }
    Ok(())
}

/// A field of a form (application/x-www-form-urlencoded).
fn field(form: &str, name: &str) -> Option<String> {
    let value = form.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'+' => bytes.push(b' '),
            b'%' => {
                let (hex, after) = rest.split_at_checked(2)?;
                bytes.push(u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()?);
                rest = after;
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8(bytes).ok()
}
