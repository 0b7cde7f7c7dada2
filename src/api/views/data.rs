//! Everything held about an instance, as JSON.

use serde::Serialize;
use utoipa::ToSchema;

use super::InstanceBody;
use super::held::HeldBody;
use crate::api::caller_key::HeldCallerKeyBody;
use crate::api::preferences::names;
use crate::engine::account::{Account, ContactStyle, TrunkSources};
use crate::engine::input::PushPurpose;
use crate::engine::output::DataView;

/// Everything held about an instance; secrets only as present or absent.
#[derive(Serialize, ToSchema)]
#[schema(as = InstanceData)]
pub(crate) struct DataBody {
    #[serde(flatten)]
    instance: InstanceBody,
    /// Whose app handed it over.
    tenant: String,
    device: DeviceData,
    account: AccountData,
    #[schema(schema_with = crate::api::openapi::words::held_modes)]
    mode: &'static str,
    #[schema(schema_with = crate::api::openapi::words::held_hand_overs)]
    hand_over: &'static str,
    #[schema(schema_with = crate::api::openapi::words::held_voicemails)]
    voicemail: &'static str,
    /// When it was handed over, RFC 3339 in UTC.
    #[schema(format = DateTime)]
    handed_over: String,
    held: HeldBody,
}

/// What is held about the device.
#[derive(Serialize, ToSchema)]
struct DeviceData {
    id: String,
    platform: String,
    push: Vec<PushData>,
    /// Only where one is held.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    caller_key: Option<HeldCallerKeyBody>,
}

/// What is held about a push target.
#[derive(Serialize, ToSchema)]
struct PushData {
    #[serde(rename = "for")]
    #[schema(schema_with = crate::api::openapi::words::held_purposes)]
    purpose: &'static str,
    #[schema(schema_with = crate::api::openapi::words::held_providers)]
    provider: &'static str,
    app: String,
    #[schema(schema_with = crate::api::openapi::words::presences)]
    token: Presence,
    /// Only where it is held.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, schema_with = crate::api::openapi::words::presences)]
    fid: Option<Presence>,
}

/// What is held about the account.
#[derive(Serialize, ToSchema)]
struct AccountData {
    aor: String,
    registrar: String,
    outbound_proxy: Option<String>,
    auth_username: String,
    #[schema(schema_with = crate::api::openapi::words::presences)]
    password: Presence,
    ha1: Vec<Ha1Data>,
    register_expires: u64,
    #[schema(schema_with = crate::api::openapi::words::held_trunk_sources)]
    trunk_sources: &'static str,
    #[schema(schema_with = crate::api::openapi::words::held_contact_styles)]
    contact_style: &'static str,
    early_response: Option<u16>,
    tls_spki_sha256: Option<String>,
}

/// That a hash is held.
#[derive(Serialize, ToSchema)]
struct Ha1Data {
    realm: String,
    #[schema(schema_with = crate::api::openapi::words::held_algorithms)]
    algorithm: &'static str,
    #[schema(schema_with = crate::api::openapi::words::presences)]
    value: Presence,
}

/// Whether a secret is held.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "lowercase")]
enum Presence {
    Present,
    Absent,
}

impl From<DataView> for DataBody {
    fn from(data: DataView) -> Self {
        let DataView {
            view,
            tenant,
            device,
            platform,
            account,
            preferences,
            password,
            ha1,
            push,
            caller_key,
            handed_over,
            held,
        } = data;
        let (mode, hand_over, voicemail) = names(preferences);
        let push = push.into_iter().map(|(purpose, provider, app, form)| PushData {
            purpose: match purpose {
                PushPurpose::Call => "call",
                PushPurpose::Other => "other",
            },
            provider: provider.as_str(),
            app,
            token: if form == "fid" { Presence::Absent } else { Presence::Present },
            fid: (form == "fid").then_some(Presence::Present),
        });
        Self {
            instance: view.into(),
            tenant: tenant.to_string(),
            device: DeviceData {
                id: device,
                platform,
                push: push.collect(),
                caller_key: caller_key.as_ref().map(HeldCallerKeyBody::from),
            },
            account: account_data(account, password, ha1),
            mode,
            hand_over,
            voicemail,
            handed_over: handed_over.rfc3339(),
            held: held.into(),
        }
    }
}

fn account_data(account: Account, password: bool, ha1: Vec<(String, &'static str)>) -> AccountData {
    let Account {
        aor,
        registrar,
        outbound_proxy,
        auth_username,
        register_expires,
        trunk_sources,
        contact_style,
        early_response,
        tls_spki_sha256,
    } = account;
    let ha1 = ha1.into_iter().map(|(realm, algorithm)| Ha1Data { realm, algorithm, value: Presence::Present });
    AccountData {
        aor,
        registrar: registrar.text,
        outbound_proxy: outbound_proxy.map(|proxy| proxy.text),
        auth_username,
        password: if password { Presence::Present } else { Presence::Absent },
        ha1: ha1.collect(),
        register_expires: register_expires.as_secs(),
        trunk_sources: match trunk_sources {
            TrunkSources::Any => "any",
            TrunkSources::Registrar => "registrar",
        },
        contact_style: match contact_style {
            ContactStyle::Capability => "capability",
            ContactStyle::Username => "username",
        },
        early_response: early_response.map(|code| code.map_or(0, |code| code.code())),
        tls_spki_sha256: tls_spki_sha256.map(|pin| pin.iter().map(|byte| format!("{byte:02x}")).collect()),
    }
}
