//! Push targets as apps give them: at hand-over, and when they change.
//!
//! A target whose app the service does not know is left aside: it may be meant for another service. A token that cannot be
//! one is a mistake of the app, and the whole request is refused, since it would show at the first call only.

use serde::Deserialize;
use utoipa::ToSchema;

use super::problem::{Kind, Problem};
use crate::engine::input::{PushPurpose, PushTarget};
use crate::engine::policy::{Provider, TenantPolicy};
use crate::engine::push_token::{PushToken, TokenFault};

/// Push targets of one device.
const PUSH_TARGETS_MAX: usize = 8;
/// Longest app id (the limit of a bundle identifier).
const APP_BYTES_MAX: usize = 155;

/// A push target.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PushTarget)]
pub(crate) struct PushBody {
    /// What it is for.
    #[serde(rename = "for")]
    purpose: PurposeBody,
    /// Who carries it.
    provider: ProviderBody,
    /// The app's id at the provider: bundle id, package name.
    #[schema(example = "com.example.phone", max_length = 155)]
    app: String,
    /// The device's token as the provider gave it to the app: this or `fid`, one of the two. For `apns` its bytes as
    /// hexadecimal digits; for `fcm` a registration token.
    #[schema(min_length = 1, max_length = 4096, nullable = false)]
    token: Option<String>,
    /// The Firebase installation id, for apps whose SDK gives them one in place of a registration token: `fcm` only.
    #[schema(min_length = 22, max_length = 22, pattern = "^[A-Za-z0-9_-]{22}$", nullable = false)]
    fid: Option<String>,
}

#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = PushPurpose)]
enum PurposeBody {
    Call,
    Other,
}

#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = PushProvider)]
enum ProviderBody {
    Apns,
    Fcm,
    Sandbox,
}

impl From<ProviderBody> for Provider {
    fn from(body: ProviderBody) -> Self {
        match body {
            ProviderBody::Apns => Self::Apns,
            ProviderBody::Fcm => Self::Fcm,
            ProviderBody::Sandbox => Self::Sandbox,
        }
    }
}

impl From<PurposeBody> for PushPurpose {
    fn from(body: PurposeBody) -> Self {
        match body {
            PurposeBody::Call => Self::Call,
            PurposeBody::Other => Self::Other,
        }
    }
}

/// The targets that can be used; one at least for calls.
pub(super) fn usable_targets(
    path: &str,
    targets: Vec<PushBody>,
    tenant: Option<&TenantPolicy>,
) -> Result<Vec<PushTarget>, Problem> {
    if targets.len() > PUSH_TARGETS_MAX {
        return Err(Problem::request(path.to_owned(), format_args!("may hold {PUSH_TARGETS_MAX} targets at most")));
    }
    if let Some(place) = targets.iter().position(|target| target.token.is_some() == target.fid.is_some()) {
        return Err(Problem::request(format!("{path}[{place}]"), "must have either token or fid"));
    }
    let apps = tenant.map_or(&[][..], |tenant| &tenant.apps);
    let mut usable = Vec::with_capacity(targets.len());
    let mut reasons = Vec::new();
    for (place, target) in targets.into_iter().enumerate() {
        let provider = Provider::from(target.provider);
        let known = apps.iter().any(|app| app.provider == provider && app.id == target.app);
        if target.app.len() > APP_BYTES_MAX || !known {
            reasons.push(format!(
                "{path}[{place}]: this service has no such app at {} for this tenant",
                provider.as_str()
            ));
            continue;
        }
        let token = target.token(provider).map_err(|(member, fault)| malformed(path, place, member, fault))?;
        usable.push(PushTarget { purpose: target.purpose.into(), provider, app: target.app, token });
    }
    if let Some(call) = usable.iter().find(|target| target.purpose == PushPurpose::Call) {
        if tenant.is_some_and(|tenant| tenant.prove_push_token) {
            provable(path, call, usable.iter().find(|target| target.purpose == PushPurpose::Other))?;
        }
        return Ok(usable);
    }
    if reasons.is_empty() {
        reasons.push(format!("{path}: none is for calls"));
    }
    let detail = format!(
        "No target could wake this device for a call: {}. Nothing was taken from the request.",
        reasons.join("; ")
    );
    Err(Problem::new(Kind::NoUsablePushTarget, detail, "no usable push target"))
}

impl PushBody {
    /// What the provider calls the device; else the member at fault.
    fn token(&self, provider: Provider) -> Result<PushToken, (&'static str, TokenFault)> {
        match &self.fid {
            Some(fid) => PushToken::installation_id(provider, fid).map_err(|fault| ("fid", fault)),
            None => {
                let token = self.token.as_deref().unwrap_or_default();
                PushToken::registration(provider, token).map_err(|fault| ("token", fault))
            }
        }
    }
}

/// A text that is no token of its provider: it would be refused at the first call.
fn malformed(path: &str, place: usize, member: &str, fault: TokenFault) -> Problem {
    let member = format!("{path}[{place}].{member}");
    let detail = format!("{member}: {}. Nothing was taken from the request.", fault.as_str());
    Problem::new(Kind::NoUsablePushTarget, detail, "a push token that cannot be one").at_path(member)
}

/// Whether a challenge can prove the token for calls: it goes to `other`, where there is one. Only a VoIP token, which could
/// carry none, may differ from the token that is proven.
fn provable(path: &str, call: &PushTarget, other: Option<&PushTarget>) -> Result<(), Problem> {
    let is_same =
        |other: &PushTarget| (call.provider, &call.app, &call.token) == (other.provider, &other.app, &other.token);
    let (detail, log) = match (call.provider, other) {
        (Provider::Apns, Some(_)) | (Provider::Fcm | Provider::Sandbox, None) => return Ok(()),
        (_, Some(other)) if is_same(other) => return Ok(()),
        (_, None) => (
            "a VoIP token cannot carry a challenge. Give a target \"for\": \"other\" beside it",
            "no push target that a challenge could go to",
        ),
        (_, Some(_)) => (
            "the challenge would go to a token that is not the one for calls. Give the same token \"for\": \"other\", or none",
            "a token for calls that a challenge to the other one would not prove",
        ),
    };
    let detail = format!(
        "{path}: this service asks for proof of the push token, and {detail}. Nothing was taken from the request."
    );
    Err(Problem::new(Kind::NoUsablePushTarget, detail, log))
}
