//! Which tenant and app a phone means by its push parameters (RFC 8599 §4, §10, §11), and what we tell of ourselves.

use crate::engine::account::TenantId;
use crate::engine::edge_registrar::EdgeRegistrar;
use crate::engine::input::{PushPurpose, PushTarget};
use crate::engine::policy::{Policy, Provider, TenantPolicy};
use crate::engine::push_token::PushToken;
use crate::sip::StatusCode;
use crate::sip::address::Address;
use crate::sip::push_params::{asked_provider, push_params};
use crate::sip::uri::{self, Uri};

/// What a topic of Apple's may have behind the bundle id.
const SERVICES: [&str; 2] = ["voip", "remote"];

/// A tenant that lists a registrar, and its entry.
#[derive(Clone, Copy)]
pub(super) struct Listing<'p> {
    pub(super) tenant: &'p TenantPolicy,
    pub(super) registrar: &'p EdgeRegistrar,
}

/// The tenants that list the registrar of a Request-URI.
pub(super) fn listings<'p>(policy: &'p Policy, uri: &Uri<'_>) -> Vec<Listing<'p>> {
    let of = |tenant: &'p TenantPolicy| {
        let registrar = tenant.edge_registrars.iter().find(|registrar| registrar.is_named_by(uri))?;
        Some(Listing { tenant, registrar })
    };
    policy.tenants.iter().filter_map(of).collect()
}

/// What a Contact wants of us.
pub(super) enum Wish {
    /// Nothing about pushes.
    Plain,
    /// To know which providers there are (RFC 8599 §4.1.1).
    Query(Vec<Provider>),
    /// To be woken.
    Push(Choice),
}

/// Who wakes a phone.
pub(super) struct Choice {
    pub(super) tenant: TenantId,
    pub(super) provider: Provider,
    pub(super) push: Vec<PushTarget>,
    pub(super) path: bool,
}

/// Reads a Contact's wish.
///
/// # Errors
/// 555 for a provider or app that is not, or not only, one tenant's; 400 for a token that cannot be one.
pub(super) fn wish(listings: &[Listing<'_>], contact: &Address<'_>) -> Result<Wish, StatusCode> {
    const UNKNOWN: StatusCode = StatusCode::PUSH_NOTIFICATION_SERVICE_NOT_SUPPORTED;
    let Some(asked) = asked_provider(contact) else { return Ok(Wish::Plain) };
    let Some(asked) = asked else { return Ok(Wish::Query(providers(listings, None))) };
    let provider = provider_of(asked).ok_or(UNKNOWN)?;
    let Some((param, prid)) = push_params(contact).and_then(|params| params.prid.map(|prid| (params.param, prid)))
    else {
        let offered = providers(listings, Some(provider));
        return if offered.is_empty() { Err(UNKNOWN) } else { Ok(Wish::Query(offered)) };
    };
    let param = param.map(unescaped).unwrap_or_default();
    let prid = unescaped(prid);
    let mut found = listings.iter().flat_map(|listing| {
        let apps = listing.tenant.apps.iter().filter(|app| app.provider == provider);
        apps.filter_map(|app| services(provider, &app.id, app.owner.as_deref(), &param).map(|it| (*listing, app, it)))
    });
    let (Some((listing, app, services)), None) = (found.next(), found.next()) else { return Err(UNKNOWN) };
    let push = targets(provider, &app.id, &services, &prid).ok_or(StatusCode::BAD_REQUEST)?;
    Ok(Wish::Push(Choice { tenant: listing.tenant.id.clone(), provider, push, path: listing.registrar.path }))
}

/// `Feature-Caps` (RFC 6809) for a 200: the providers; for a registration also when a phone that wakes by itself should
/// renew it (RFC 8599 §5.5), and its name for dialogs (§6.2.1).
pub(super) fn feature_caps(providers: &[Provider], lead: Option<u64>, purr: Option<String>) -> Option<String> {
    if providers.is_empty() {
        return None;
    }
    let mut value = "*".to_owned();
    for provider in providers {
        value.push_str(&format!(";+sip.pns=\"{}\"", provider.as_str()));
    }
    if let Some(lead) = lead {
        value.push_str(&format!(";+sip.pnsreg=\"{lead}\""));
    }
    if let Some(purr) = purr {
        value.push_str(&format!(";+sip.pnspurr=\"{purr}\""));
    }
    Some(value)
}

fn provider_of(name: &str) -> Option<Provider> {
    [Provider::Apns, Provider::Fcm, Provider::Sandbox].into_iter().find(|it| it.as_str().eq_ignore_ascii_case(name))
}

/// The providers of all apps that may register there.
fn providers(listings: &[Listing<'_>], only: Option<Provider>) -> Vec<Provider> {
    let apps = listings.iter().flat_map(|listing| &listing.tenant.apps);
    let mut providers: Vec<Provider> =
        apps.map(|app| app.provider).filter(|it| only.is_none_or(|only| *it == only)).collect();
    providers.sort_unstable();
    providers.dedup();
    providers
}

/// Whether `param` names the app, and for which of Apple's services: `TEAM.topic`, where the topic may end in a service,
/// or in several as some phones write it (`TEAM.com.example.phone.voip&remote`).
fn services(provider: Provider, app: &str, owner: Option<&str>, param: &str) -> Option<Vec<String>> {
    if provider != Provider::Apns {
        let named = param.eq_ignore_ascii_case(app) || owner.is_some_and(|owner| owner == param);
        return named.then(Vec::new);
    }
    let (team, topic) = param.split_once('.')?;
    if owner.is_some_and(|owner| owner != team) {
        return None;
    }
    let suffix = topic.get(..app.len()).filter(|start| start.eq_ignore_ascii_case(app)).map(|_| &topic[app.len()..])?;
    if suffix.is_empty() {
        return Some(vec!["remote".to_owned()]);
    }
    let services: Vec<String> = suffix.strip_prefix('.')?.split('&').map(str::to_ascii_lowercase).collect();
    services.iter().all(|service| SERVICES.contains(&service.as_str())).then_some(services)
}

/// The push targets a token stands for. Some phones give two to Apple, each with its service: `A:remote&B:voip`.
fn targets(provider: Provider, app: &str, services: &[String], prid: &str) -> Option<Vec<PushTarget>> {
    let target = |purpose, token: &str| {
        let token = PushToken::prid(provider, token).ok()?;
        Some(PushTarget { purpose, provider, app: app.to_owned(), token })
    };
    if provider != Provider::Apns {
        return Some(vec![target(PushPurpose::Call, prid)?]);
    }
    let mut targets = Vec::new();
    for part in prid.split('&') {
        let (token, service) = part.split_once(':').unwrap_or((part, services.first()?));
        let purpose = if service.eq_ignore_ascii_case("voip") { PushPurpose::Call } else { PushPurpose::Other };
        if targets.iter().any(|known: &PushTarget| known.purpose == purpose) {
            return None;
        }
        targets.push(target(purpose, token)?);
    }
    Some(targets)
}

fn unescaped(text: &str) -> String {
    String::from_utf8_lossy(&uri::unescape(text.as_bytes())).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::policy::AppPolicy;

    /// Tenant; purpose, app and token of each target.
    type Chosen = (String, Vec<(PushPurpose, String, String)>);

    fn tenant(id: &str, apps: &[(Provider, &str, Option<&str>)]) -> TenantPolicy {
        let app = |&(provider, id, owner): &(Provider, &str, Option<&str>)| AppPolicy {
            id: id.to_owned(),
            provider,
            owner: owner.map(str::to_owned),
        };
        let edge_registrars = vec![EdgeRegistrar::parse("pbx.example.com").expect("a registrar")];
        TenantPolicy { id: id.into(), apps: apps.iter().map(app).collect(), edge_registrars, ..TenantPolicy::default() }
    }

    fn ask(tenants: &[TenantPolicy], contact: &str) -> Result<Wish, u16> {
        let listings: Vec<_> =
            tenants.iter().map(|tenant| Listing { tenant, registrar: &tenant.edge_registrars[0] }).collect();
        let contact = Address::parse(contact.as_bytes()).expect("a Contact");
        wish(&listings, &contact).map_err(|code| code.code())
    }

    fn chosen(tenants: &[TenantPolicy], contact: &str) -> Result<Chosen, u16> {
        match ask(tenants, contact)? {
            Wish::Push(choice) => {
                let targets =
                    choice.push.into_iter().map(|it| (it.purpose, it.app, it.token.as_str().to_owned())).collect();
                Ok((choice.tenant.to_string(), targets))
            }
            Wish::Plain | Wish::Query(_) => Err(0),
        }
    }

    #[test]
    fn an_app_is_found_by_provider_and_param_and_must_be_one_tenants_alone() {
        let team = Some("ABCDE12345");
        let tenants = [
            tenant("acme", &[(Provider::Apns, "com.acme.phone", team), (Provider::Fcm, "com.acme", Some("acme-1"))]),
            tenant("bolt", &[(Provider::Apns, "com.bolt", team), (Provider::Fcm, "com.bolt", Some("bolt-2"))]),
        ];
        let voip = "<sip:a@b;pn-provider=apns;pn-param=ABCDE12345.com.acme.phone.voip;pn-prid=00fc13>";
        let expected = vec![(PushPurpose::Call, "com.acme.phone".to_owned(), "00fc13".to_owned())];
        assert_eq!(chosen(&tenants, voip), Ok(("acme".to_owned(), expected)));
        let fcm = "<sip:a@b;pn-provider=fcm;pn-param=bolt-2;pn-prid=a:B-c_9>";
        let expected = vec![(PushPurpose::Call, "com.bolt".to_owned(), "a:B-c_9".to_owned())];
        assert_eq!(chosen(&tenants, fcm), Ok(("bolt".to_owned(), expected)));
        for unknown in [
            "<sip:a@b;pn-provider=webpush;pn-prid=1>",
            "<sip:a@b;pn-provider=apns;pn-param=ZZZZZ12345.com.acme.phone.voip;pn-prid=00>",
            "<sip:a@b;pn-provider=apns;pn-param=ABCDE12345.com.acme.phone.odd;pn-prid=00>",
            "<sip:a@b;pn-provider=apns;pn-prid=00>",
            "<sip:a@b;pn-provider=sandbox>",
        ] {
            assert_eq!(ask(&tenants, unknown).err(), Some(555), "{unknown}");
        }
        let twice = [tenants[0].clone(), tenants[0].clone()];
        assert_eq!(ask(&twice, voip).err(), Some(555), "ambiguous");
    }

    #[test]
    fn two_tokens_of_one_phone_go_to_their_services() {
        let tenants = [tenant("acme", &[(Provider::Apns, "org.phone", None)])];
        let both = "<sip:a@b;pn-provider=apns;pn-param=TEAM.org.phone.voip&remote;pn-prid=aa:remote&bb:voip>";
        let expected = vec![
            (PushPurpose::Other, "org.phone".to_owned(), "aa".to_owned()),
            (PushPurpose::Call, "org.phone".to_owned(), "bb".to_owned()),
        ];
        assert_eq!(chosen(&tenants, both), Ok(("acme".to_owned(), expected)));
        for bad in ["aa&bb", "aa/../x", "aa:voip&bb:voip", "%0d%0a", "abc", "aa:voip&b:remote", "YWJj"] {
            let text = format!("<sip:a@b;pn-provider=apns;pn-param=TEAM.org.phone.voip;pn-prid={bad}>");
            assert_eq!(ask(&tenants, &text).err(), Some(400), "{bad}");
        }
    }

    #[test]
    fn a_token_of_fcm_is_checked_as_one_that_came_by_https() {
        let tenants = [tenant("acme", &[(Provider::Fcm, "org.phone", None)])];
        let form = |prid: &str| {
            let contact = format!("<sip:a@b;pn-provider=fcm;pn-param=org.phone;pn-prid={prid}>");
            match ask(&tenants, &contact)? {
                Wish::Push(choice) => Ok(choice.push[0].token.form()),
                Wish::Plain | Wish::Query(_) => Err(0),
            }
        };
        assert_eq!(form("a:B-c_9"), Ok("token"));
        assert_eq!(form("fHx0aBcD_eFgH-iJkLmNoP"), Ok("fid"), "SIP has no other place for an installation id");
        for bad in ["a%20b", "a%0ab", "a%00", "a%25b", "ExponentPushToken%5Bx%5D"] {
            assert_eq!(form(bad), Err(400), "{bad}");
        }
    }

    #[test]
    fn a_query_is_told_all_providers_or_the_one_it_names() {
        let tenants = [tenant("acme", &[(Provider::Fcm, "x", None), (Provider::Apns, "x", None)])];
        let asked = |contact: &str| match ask(&tenants, contact) {
            Ok(Wish::Query(providers)) => feature_caps(&providers, None, None),
            _ => None,
        };
        assert_eq!(asked("<sip:a@b;pn-provider>").as_deref(), Some("*;+sip.pns=\"apns\";+sip.pns=\"fcm\""));
        assert_eq!(asked("<sip:a@b;pn-provider=fcm;pn-param=x>").as_deref(), Some("*;+sip.pns=\"fcm\""));
        assert!(matches!(ask(&tenants, "<sip:a@b>"), Ok(Wish::Plain)));
    }
}
