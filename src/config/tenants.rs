//! `[[tenant]]` and `[[tenant.app]]`: whose apps may use us, and how their devices are woken.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use super::report::Report;
use super::section::{APP, Entry, Raw, Section, TENANT, TEXTS, tables};
use super::sections::Tree;
use super::settings::{APP_KEYS_MAX, ApnsAccess, ApnsEnvironment, App, AppKeyHash, FcmAccess, PushAccess, Tenant};
use super::tenant_accounts::{self, Within};
use super::{files, material, values};
use crate::engine::edge_registrar::EdgeRegistrar;
use crate::engine::output::WakeKind;
use crate::engine::policy::{CallerInPush, Provider};
use crate::sip::Transport;

/// Stands in the file we ship until it is replaced. Nobody knows a key with this hash.
const PLACEHOLDER: AppKeyHash = AppKeyHash([0; 32]);

/// What must be unique among all tenants.
#[derive(Default)]
struct Seen {
    ids: HashSet<String>,
    app_keys: HashSet<AppKeyHash>,
}

pub(super) fn read(tree: &mut Tree, within: &Within<'_>, report: &mut Report) -> Vec<Tenant> {
    let raws = tree.take("tenant").map(|value| tables(value, "tenant", report)).unwrap_or_default();
    if raws.is_empty() {
        let problem = "is missing; at least one [[tenant]] is needed, as nobody else may use the API";
        report.mistake(tree.place("tenant"), "tenant", problem);
    }
    let mut seen = Seen::default();
    raws.into_iter().filter_map(|raw| tenant(raw, tree.base(), within, &mut seen, report)).collect()
}

fn tenant(raw: Raw, base: &Path, within: &Within<'_>, seen: &mut Seen, report: &mut Report) -> Option<Tenant> {
    let mut section = Section::new(raw, TENANT, base, report);
    let id = id(&mut section, "its name, such as \"acme\"");
    if let Some(Entry { place, value }) = &id
        && !seen.ids.insert(value.clone())
    {
        section.mistake(place, "id", "is the id of a tenant above");
    }
    let (with_app_keys, with_jwts) = (section.has("app_key_sha256"), section.has("jwt_public_key"));
    let app_keys = app_keys(&mut section, seen);
    let jwt_key = files::load(&mut section, "jwt_public_key", material::jwt_public_key).map(|entry| entry.value);
    if !with_app_keys && !with_jwts {
        let place = section.place();
        let problem = "is missing, and so is jwt_public_key: with neither nobody could hand an account over";
        section.mistake(&place, "app_key_sha256", problem);
    }
    let jwt_required = jwt_required(&mut section, with_app_keys, with_jwts);
    let caller_in_push = caller_in_push(&mut section);
    let prove_push_token = section.flag("prove_push_token", false);
    let wakes_off = section.list("wakes_off", values::wake_off, None).unwrap_or_default();
    let texts = section.table("texts").map(|raw| texts(Section::new(raw, TEXTS, base, section.report)));
    let keep_password = section.flag("keep_password", false);
    let accounts = tenant_accounts::read(&mut section, within);
    let edge_registrars = edge_registrars(&mut section, accounts.tls_trunks_only);
    if prove_push_token && !edge_registrars.is_empty() {
        let (place, path) = (section.place(), section.path("edge_registrars"));
        let problem =
            "is beside prove_push_token: phones that register through us prove no token, and are woken without";
        section.report.warning(place, path, problem);
    }
    let raws = section.tables("app");
    if raws.is_empty() {
        section.missing("app", "at least one [[tenant.app]] is needed, as devices are woken through apps");
    }
    let mut apps_seen = HashSet::new();
    let mut apps = Vec::new();
    for raw in raws {
        apps.extend(app(Section::new(raw, APP, base, section.report), &mut apps_seen));
    }
    section.finish();
    Some(Tenant {
        id: Arc::from(id?.value),
        app_keys,
        jwt_key,
        jwt_required,
        caller_in_push,
        keep_password,
        prove_push_token,
        wakes_off: wakes_off.into_iter().map(|entry| entry.value).collect(),
        texts: texts.unwrap_or_default(),
        apps,
        edge_registrars,
        accounts,
    })
}

/// The texts that are written, each with its kind.
fn texts(mut section: Section<'_>) -> Vec<(WakeKind, String)> {
    let kinds = TEXTS.keys.iter().filter_map(|key| Some((*key, WakeKind::named(key)?)));
    let written = kinds.filter_map(|(key, kind)| Some((kind, section.parse(key, values::push_text)?.value)));
    let texts = written.collect();
    section.finish();
    texts
}

fn id(section: &mut Section<'_>, what: &str) -> Option<Entry<String>> {
    if !section.has("id") {
        section.missing("id", what);
    }
    section.parse("id", values::id)
}

fn app_keys(section: &mut Section<'_>, seen: &mut Seen) -> Vec<AppKeyHash> {
    let empty = "is empty; leave it out where only JWTs may hand over";
    let entries = section.list("app_key_sha256", values::app_key_sha256, Some(empty)).unwrap_or_default();
    if let Some(entry) = entries.get(APP_KEYS_MAX) {
        let problem = format!("has more than {APP_KEYS_MAX} keys: the present one and the one it is rotated with");
        section.mistake(&entry.place, "app_key_sha256", problem);
    }
    for entry in &entries {
        if entry.value == PLACEHOLDER {
            let path = section.path("app_key_sha256");
            let problem = "is the placeholder of the file we ship: no app key fits it";
            section.report.warning(entry.place.clone(), path, problem);
        }
        if !seen.app_keys.insert(entry.value) {
            section.mistake(&entry.place, "app_key_sha256", "stands twice; a key must tell its tenant");
        }
    }
    entries.into_iter().map(|entry| entry.value).collect()
}

fn jwt_required(section: &mut Section<'_>, with_app_keys: bool, with_jwts: bool) -> bool {
    let required = section.flag("jwt_required", false);
    if required && !with_jwts {
        let place = section.place();
        section.mistake(&place, "jwt_required", "needs jwt_public_key, or nobody could hand an account over");
    } else if required && with_app_keys {
        let (place, path) = (section.place(), section.path("app_key_sha256"));
        section.report.warning(place, path, "has no effect beside jwt_required: the app key is refused everywhere");
    }
    required
}

fn edge_registrars(section: &mut Section<'_>, tls_only: bool) -> Vec<EdgeRegistrar> {
    let entries = section.list("edge_registrars", EdgeRegistrar::parse, None).unwrap_or_default();
    let mut registrars: Vec<EdgeRegistrar> = Vec::new();
    for Entry { place, value } in entries {
        if registrars.iter().any(|known| known.host == value.host) {
            section.mistake(&place, "edge_registrars", "is listed twice");
        }
        if tls_only && value.transport != Some(Transport::Tls) {
            let problem = "must name TLS, as tls_trunks_only is set: add \";transport=tls\"";
            section.mistake(&place, "edge_registrars", problem);
        }
        registrars.push(value);
    }
    registrars
}

fn caller_in_push(section: &mut Section<'_>) -> CallerInPush {
    let words = [CallerInPush::None, CallerInPush::Clear, CallerInPush::Sealed].map(|it| (it.as_str(), it));
    section.choice("caller_in_push", &words).map(|entry| entry.value).unwrap_or_default()
}

fn app(mut section: Section<'_>, seen: &mut HashSet<(Provider, String)>) -> Option<App> {
    let id = id(&mut section, "the bundle id or package name, such as \"com.example.phone\"");
    if !section.has("provider") {
        section.missing("provider", "it must be one of \"apns\", \"fcm\", \"sandbox\"");
    }
    let providers = [("apns", Provider::Apns), ("fcm", Provider::Fcm), ("sandbox", Provider::Sandbox)];
    let provider = section.choice("provider", &providers);
    if let (Some(Entry { place, value: id }), Some(provider)) = (&id, &provider) {
        if !seen.insert((provider.value, id.clone())) {
            section.mistake(place, "id", "is the id of an app above with the same provider");
        }
        if provider.value == Provider::Apns && id.ends_with(".voip") {
            section.mistake(place, "id", "must be the bundle id itself; \".voip\" is added for calls");
        }
    }
    let provider = provider.map(|entry| entry.value);
    let push = access(&mut section, provider);
    if provider == Some(Provider::Sandbox) && !section.has("endpoint") {
        section.missing("endpoint", "it is where pushes are posted, such as \"https://127.0.0.1:8444/push\"");
    }
    let endpoint = section.parse("endpoint", values::endpoint);
    if let Some(Entry { place, value }) = &endpoint
        && provider.is_some_and(|provider| provider != Provider::Sandbox)
        && !value.starts_with("https://")
    {
        section.mistake(place, "endpoint", "must be https; only provider sandbox may use plain http");
    }
    let endpoint = endpoint.map(|entry| entry.value);
    let ca_pem = files::roots(&mut section, "ca_file");
    section.finish();
    Some(App { id: id?.value, push: push?, endpoint, ca_pem })
}

/// What the provider asks of us. Keys of the other providers are refused, so that none is silently without effect.
fn access(section: &mut Section<'_>, provider: Option<Provider>) -> Option<PushAccess> {
    let apns = if provider == Some(Provider::Apns) { apns(section) } else { None };
    let fcm = if provider == Some(Provider::Fcm) { fcm(section) } else { None };
    for (key, owner) in [
        ("team_id", Provider::Apns),
        ("key_id", Provider::Apns),
        ("key_file", Provider::Apns),
        ("environment", Provider::Apns),
        ("service_account_file", Provider::Fcm),
    ] {
        if provider != Some(owner) {
            section.refuse(key, provider.is_some(), &format!("is only for provider {}", owner.as_str()));
        }
    }
    match provider? {
        Provider::Apns => apns.map(PushAccess::Apns),
        Provider::Fcm => fcm.map(PushAccess::Fcm),
        Provider::Sandbox => Some(PushAccess::Sandbox),
    }
}

fn apns(section: &mut Section<'_>) -> Option<ApnsAccess> {
    for (key, what) in [
        ("team_id", "it is the id of the developer team, shown in Apple's developer account"),
        ("key_id", "it is the id of the token signing key"),
        ("key_file", "it is the token signing key, AuthKey_….p8"),
    ] {
        if !section.has(key) {
            section.missing(key, what);
        }
    }
    let team_id = section.parse("team_id", values::apple_id);
    let key_id = section.parse("key_id", values::apple_id);
    let key_pem = files::secret(section, "key_file", material::apns_key);
    let environments = [("production", ApnsEnvironment::Production), ("sandbox", ApnsEnvironment::Sandbox)];
    let environment = section.choice("environment", &environments).map(|entry| entry.value).unwrap_or_default();
    Some(ApnsAccess { team_id: team_id?.value, key_id: key_id?.value, key_pem: key_pem?.value, environment })
}

fn fcm(section: &mut Section<'_>) -> Option<FcmAccess> {
    if !section.has("service_account_file") {
        section.missing("service_account_file", "it is the service account's key file from the Firebase console");
    }
    let service_account = files::secret(section, "service_account_file", material::service_account);
    Some(FcmAccess { service_account_json: service_account?.value })
}
