//! The bodies of a hand-over, a rectification and a decline, and their checks.
//!
//! The order of the checks is a promise: shape, push targets, device, lease, account, and only then the secret. Whoever
//! cannot be woken keeps the secret to himself.

use std::time::Duration;

use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::account::{AccountBody, AccountChange, given, leads_elsewhere};
use super::caller_key::CallerKeyBody;
use super::preferences::{mode_allowed, preferences};
use super::problem::{Kind, Problem};
use super::push_targets::{PushBody, usable_targets};
use super::tenants::{Authority, Caller};
use crate::engine::account::Account;
use crate::engine::input::{Decline, DeclineReason, HandOver, Preferences, Rectification};
use crate::engine::limits::LEASE_CEILING;
use crate::engine::policy::{Policy, TenantPolicy};

/// Longest platform name.
const PLATFORM_BYTES_MAX: usize = 32;
/// Shortest lease: below it an instance would end before its first refresh.
const LEASE_MIN_SECONDS: u64 = 60;

/// An account on one device, handed over.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = HandOver)]
pub(crate) struct HandOverBody<'a> {
    #[serde(borrow)]
    account: AccountBody<'a>,
    device: DeviceBody,
    /// How long the instance may be held; the service's default if left out. Never more than six days.
    #[schema(minimum = 60, maximum = 518400)]
    lease_seconds: Option<u64>,
    #[schema(schema_with = super::openapi::words::mode)]
    mode: Option<String>,
    #[schema(schema_with = super::openapi::words::hand_over)]
    hand_over: Option<String>,
    #[schema(schema_with = super::openapi::words::voicemail)]
    voicemail: Option<String>,
}

/// One installation of the app.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Device)]
pub(crate) struct DeviceBody {
    /// A random UUID that the app keeps, as a URN.
    #[schema(example = "urn:uuid:4b1682a8-f968-4701-83fc-7c6741dc6697")]
    id: String,
    #[schema(schema_with = super::openapi::words::platforms)]
    platform: String,
    /// Where its pushes go. One at least must be for calls, with a provider and app that the service knows for the tenant;
    /// others whose app it does not know are left aside.
    #[schema(min_items = 1, max_items = 8)]
    push: Vec<PushBody>,
    /// What the caller is sealed to, where the service seals it (`caller_in_push`).
    #[schema(nullable = false)]
    caller_key: Option<CallerKeyBody>,
}

/// Changes of an instance; one member at least.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Rectification)]
pub(crate) struct RectificationBody<'a> {
    /// New push targets in place of all present ones.
    #[schema(min_items = 1, max_items = 8, nullable = false)]
    push: Option<Vec<PushBody>>,
    #[serde(default, deserialize_with = "given")]
    #[schema(schema_with = super::openapi::shape::caller_key_change)]
    caller_key: Option<Option<CallerKeyBody>>,
    /// Changes of the account.
    #[serde(borrow)]
    #[schema(nullable = false)]
    account: Option<AccountChange<'a>>,
    #[schema(schema_with = super::openapi::words::mode)]
    mode: Option<String>,
    #[schema(schema_with = super::openapi::words::hand_over)]
    hand_over: Option<String>,
    #[schema(schema_with = super::openapi::words::voicemail)]
    voicemail: Option<String>,
}

/// A decline before SIP is up.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Decline)]
pub(crate) struct DeclineBody {
    /// `busy` and `decline` answer the caller 486, `unavailable` 480.
    reason: ReasonBody,
    /// Decline for all devices of the callee: the caller gets 603.
    #[serde(default)]
    everywhere: bool,
}

#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = DeclineReason)]
enum ReasonBody {
    Busy,
    Decline,
    Unavailable,
}

impl HandOverBody<'_> {
    /// Checks everything and, last of all, looks into the secret.
    pub(crate) fn check(self, caller: Caller, policy: &Policy) -> Result<HandOver, Problem> {
        let push = usable_targets("device.push", self.device.push, policy.tenant(&caller.tenant))?;
        let device = device_urn(&self.device.id).ok_or_else(|| {
            Problem::request("device.id", "must be a URN such as urn:uuid:4b1682a8-f968-4701-83fc-7c6741dc6697")
        })?;
        speaks_for(&caller.authority, &device)?;
        let platform = platform(self.device.platform)?;
        let caller_key = self.device.caller_key.map(|key| key.check("device.caller_key")).transpose()?;
        let tenant = policy.tenant(&caller.tenant);
        let lease = lease(self.lease_seconds, policy, tenant)?;
        let (mode, way, news) = (self.mode.as_deref(), self.hand_over.as_deref(), self.voicemail.as_deref());
        let preferences = preferences(Preferences::default(), mode, way, news)?;
        mode_allowed(preferences.mode, tenant)?;
        let sealed = self
            .account
            .sealed()
            .one()?
            .ok_or_else(|| Problem::account("password", "is missing; send password or ha1"))?;
        let account = self.account.check()?;
        let material = sealed.open()?;
        Ok(HandOver {
            tenant: caller.tenant,
            device,
            platform,
            account,
            material,
            push,
            caller_key,
            lease,
            preferences,
        })
    }
}

impl RectificationBody<'_> {
    /// Checks the changes against what is held now and, last of all, looks into the secret.
    pub(crate) fn check(
        self,
        present: &Account,
        wishes: Preferences,
        tenant: Option<&TenantPolicy>,
    ) -> Result<Rectification, Problem> {
        let (mode, way, news) = (self.mode.as_deref(), self.hand_over.as_deref(), self.voicemail.as_deref());
        let wishing = mode.or(way).or(news).is_some();
        if self.push.is_none() && self.caller_key.is_none() && self.account.is_none() && !wishing {
            return Err(Problem::new(
                Kind::InvalidRequest,
                "Send \"push\", \"caller_key\", \"account\", \"mode\", \"hand_over\" or \"voicemail\": there is nothing to change.",
                "empty rectification",
            ));
        }
        let push = self.push.map(|push| usable_targets("push", push, tenant)).transpose()?;
        let preferences = wishing.then(|| preferences(wishes, mode, way, news)).transpose()?;
        preferences.map_or(Ok(()), |preferences| mode_allowed(preferences.mode, tenant))?;
        let caller_key = self.caller_key.map(|key| key.map(|key| key.check("caller_key")).transpose()).transpose()?;
        let Some(change) = self.account else {
            return Ok(Rectification { push, caller_key, preferences, ..Rectification::default() });
        };
        let sealed = change.sealed().one()?;
        let account = change.apply(present)?;
        if sealed.is_none() && account.as_ref().is_some_and(|after| leads_elsewhere(present, after)) {
            return Err(Problem::account(
                "password",
                "is needed again (or ha1): where the credentials go, or whose they are, changes",
            ));
        }
        let material = sealed.map(|sealed| sealed.open()).transpose()?;
        Ok(Rectification { push, caller_key, account, material, preferences })
    }
}

impl From<DeclineBody> for Decline {
    fn from(body: DeclineBody) -> Self {
        let reason = match body.reason {
            ReasonBody::Busy => DeclineReason::Busy,
            ReasonBody::Decline => DeclineReason::Decline,
            ReasonBody::Unavailable => DeclineReason::Unavailable,
        };
        Self { reason, everywhere: body.everywhere }
    }
}

/// `urn:uuid:…` in its one lower-case form.
pub(crate) fn device_urn(text: &str) -> Option<String> {
    const PREFIX: &str = "urn:uuid:";
    let (prefix, uuid) = text.split_at_checked(PREFIX.len())?;
    // The hyphenated form only: `Uuid` itself would also take braces and bare digits.
    let uuid = Uuid::try_parse(uuid).ok().filter(|_| uuid.len() == uuid::fmt::Hyphenated::LENGTH)?;
    prefix.eq_ignore_ascii_case(PREFIX).then(|| format!("{PREFIX}{uuid}"))
}

/// A backend's token speaks for one device only.
fn speaks_for(authority: &Authority, device: &str) -> Result<(), Problem> {
    match authority {
        Authority::AppKey => Ok(()),
        Authority::Backend { device: sub, .. } if device_urn(sub).as_deref() == Some(device) => Ok(()),
        Authority::Backend { .. } => Err(Problem::new(
            Kind::Forbidden,
            "The JWT's sub must be the device.id of the body (urn:uuid:…).",
            "a JWT for another device",
        )
        .at_path("device.id")),
    }
}

fn platform(name: String) -> Result<String, Problem> {
    if name.is_empty() || name.len() > PLATFORM_BYTES_MAX || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
        let wrong = format_args!("must be a name of 1 to {PLATFORM_BYTES_MAX} visible characters, such as ios");
        return Err(Problem::request("device.platform", wrong));
    }
    Ok(name)
}

fn lease(seconds: Option<u64>, policy: &Policy, tenant: Option<&TenantPolicy>) -> Result<Duration, Problem> {
    let own = tenant.and_then(|tenant| tenant.lease_maximum).unwrap_or(LEASE_CEILING);
    let maximum = policy.lease_maximum.min(own).min(LEASE_CEILING);
    let Some(seconds) = seconds else { return Ok(policy.lease_default.min(maximum)) };
    if seconds < LEASE_MIN_SECONDS {
        return Err(Problem::request("lease_seconds", format_args!("must be {LEASE_MIN_SECONDS} at least")));
    }
    let lease = Duration::from_secs(seconds);
    if lease > maximum {
        let detail =
            format!("lease_seconds: this service holds an instance for {} seconds at most.", maximum.as_secs());
        return Err(Problem::new(Kind::LeaseTooLong, detail, "lease above the maximum").at_path("lease_seconds"));
    }
    Ok(lease)
}
