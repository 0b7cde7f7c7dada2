//! The `account` member: parsed once, checked member by member, and then an [`Account`] that cannot be wrong.
//!
//! What stands here ends up in SIP requests, so each text is also checked for what could break out of a header. Whether
//! the registrar may be registered at is not decided here.

use std::net::IpAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::problem::Problem;
use super::secret::{Ha1Body, Sealed};
use crate::engine::account::{Account, ContactStyle, TrunkSources, TrunkUri};
use crate::sip::StatusCode;
use crate::sip::uri::{Host, Uri, unescape};

/// From where calls may be taken.
pub(crate) const TRUNK_SOURCES: [&str; 2] = ["any", "registrar"];
/// What the user part of our Contact may be.
pub(crate) const CONTACT_STYLES: [&str; 2] = ["capability", "username"];
/// Longest URI of an account.
const URI_BYTES_MAX: usize = 512;
/// Longest user name.
const USERNAME_BYTES_MAX: usize = 256;
/// Shortest expiry we ask a registrar for: below it refreshing costs more than it keeps alive.
const REGISTER_EXPIRES_MIN_SECONDS: u64 = 60;
/// Longest expiry we ask a registrar for: what it still holds of us after a crash is gone a day later.
const REGISTER_EXPIRES_MAX_SECONDS: u64 = 24 * 3600;
/// The expiry we ask for when the app names none.
const REGISTER_EXPIRES_DEFAULT: Duration = Duration::from_secs(600);

/// A SIP address of record with its registrar and credentials.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Account)]
pub(crate) struct AccountBody<'a> {
    /// The address of record. `;user=phone` is allowed and left off.
    #[schema(example = "sip:alice@example.com", max_length = 512)]
    aor: String,
    /// Where REGISTER is addressed: `sip:HOST[:PORT][;transport=udp|tcp|tls]`. A missing port or transport is found by
    /// DNS (RFC 3263). `sips:` is refused: use `transport=tls`.
    #[schema(example = "sip:example.com;transport=tls", max_length = 512)]
    registrar: String,
    /// Where REGISTER is sent instead, in the same form.
    #[schema(max_length = 512)]
    outbound_proxy: Option<String>,
    /// The user name of the credentials; the user part of `aor` if left out.
    #[schema(max_length = 256)]
    auth_username: Option<String>,
    /// The password. Either this or `ha1`.
    #[serde(borrow)]
    #[schema(value_type = Option<String>, format = Password, write_only, max_length = 256)]
    password: Option<&'a RawValue>,
    /// Hashes instead of the password, one for each realm and algorithm.
    #[serde(borrow)]
    #[schema(value_type = Option<Vec<Ha1Body<'a>>>, write_only, max_items = 8)]
    ha1: Option<&'a RawValue>,
    /// The expiry in seconds that we ask the registrar for; 600 if left out.
    #[schema(minimum = 60, maximum = 86400)]
    register_expires: Option<u64>,
    #[schema(schema_with = super::openapi::words::trunk_sources)]
    trunk_sources: Option<String>,
    #[schema(schema_with = super::openapi::words::contact_style)]
    contact_style: Option<String>,
    /// Our own provisional answer while the device wakes: 180 or 183, 0 for none; the service's default if left out.
    early_response: Option<u16>,
    /// SHA-256 of the registrar's public key (SubjectPublicKeyInfo), in hexadecimal or base64, for a PBX whose
    /// certificate no public authority signed.
    tls_spki_sha256: Option<String>,
}

/// Changes of an account: members left out stay as they are.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AccountChange<'a> {
    /// A new address of record; needs the credentials again.
    #[schema(max_length = 512, nullable = false)]
    aor: Option<String>,
    /// A new registrar; needs the credentials again.
    #[schema(max_length = 512, nullable = false)]
    registrar: Option<String>,
    /// A new outbound proxy, `null` for none; needs the credentials again.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>, max_length = 512)]
    outbound_proxy: Option<Option<String>>,
    /// A new user name; needs the credentials again.
    #[schema(max_length = 256, nullable = false)]
    auth_username: Option<String>,
    /// A new password. Either this or `ha1`.
    #[serde(borrow)]
    #[schema(value_type = Option<String>, format = Password, write_only, max_length = 256, nullable = false)]
    password: Option<&'a RawValue>,
    /// New hashes instead of a password.
    #[serde(borrow)]
    #[schema(value_type = Option<Vec<Ha1Body<'a>>>, write_only, max_items = 8, nullable = false)]
    ha1: Option<&'a RawValue>,
    /// As at hand-over.
    #[schema(minimum = 60, maximum = 86400, nullable = false)]
    register_expires: Option<u64>,
    #[schema(schema_with = super::openapi::words::trunk_sources)]
    trunk_sources: Option<String>,
    #[schema(schema_with = super::openapi::words::contact_style)]
    contact_style: Option<String>,
    /// As at hand-over; `null` for the service's default.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<u16>)]
    early_response: Option<Option<u16>>,
    /// As at hand-over; `null` for none. Needs the credentials again.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    tls_spki_sha256: Option<Option<String>>,
}

/// Tells a member that is `null` from one that is not there.
pub(crate) fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl<'a> AccountBody<'a> {
    /// The secret members, not looked into.
    pub(crate) fn sealed(&self) -> Sealed<'a> {
        Sealed { password: self.password, ha1: self.ha1 }
    }

    /// Checks every member but the secret.
    pub(crate) fn check(self) -> Result<Account, Problem> {
        let (aor, user) = address_of_record(&self.aor)?;
        Ok(Account {
            aor,
            registrar: trunk("registrar", &self.registrar)?,
            outbound_proxy: self.outbound_proxy.map(|uri| trunk("outbound_proxy", &uri)).transpose()?,
            auth_username: username(self.auth_username.unwrap_or(user))?,
            register_expires: self.register_expires.map_or(Ok(REGISTER_EXPIRES_DEFAULT), register_expires)?,
            contact_style: self.contact_style.as_deref().map(contact_style).transpose()?.unwrap_or_default(),
            trunk_sources: self.trunk_sources.as_deref().map(trunk_sources).transpose()?.unwrap_or_default(),
            early_response: self.early_response.map(early_response).transpose()?,
            tls_spki_sha256: self.tls_spki_sha256.as_deref().map(pin).transpose()?,
        })
    }
}

impl<'a> AccountChange<'a> {
    /// The secret members, not looked into.
    pub(crate) fn sealed(&self) -> Sealed<'a> {
        Sealed { password: self.password, ha1: self.ha1 }
    }

    /// The account after the change, or `None` if nothing but the secret changes.
    pub(crate) fn apply(self, present: &Account) -> Result<Option<Account>, Problem> {
        let mut account = present.clone();
        if let Some(aor) = self.aor {
            account.aor = address_of_record(&aor)?.0;
        }
        if let Some(registrar) = self.registrar {
            account.registrar = trunk("registrar", &registrar)?;
        }
        if let Some(proxy) = self.outbound_proxy {
            account.outbound_proxy = proxy.map(|uri| trunk("outbound_proxy", &uri)).transpose()?;
        }
        if let Some(name) = self.auth_username {
            account.auth_username = username(name)?;
        }
        if let Some(seconds) = self.register_expires {
            account.register_expires = register_expires(seconds)?;
        }
        if let Some(sources) = self.trunk_sources {
            account.trunk_sources = trunk_sources(&sources)?;
        }
        if let Some(style) = self.contact_style {
            account.contact_style = contact_style(&style)?;
        }
        if let Some(code) = self.early_response {
            account.early_response = code.map(early_response).transpose()?;
        }
        if let Some(key) = self.tls_spki_sha256 {
            account.tls_spki_sha256 = key.as_deref().map(pin).transpose()?;
        }
        Ok((account != *present).then_some(account))
    }
}

/// Whether credentials given for `before` would go elsewhere, or be for someone else, after a change to `after`.
pub(crate) fn leads_elsewhere(before: &Account, after: &Account) -> bool {
    let destination = |account: &Account| (account.registrar.clone(), account.outbound_proxy.clone());
    destination(before) != destination(after)
        || before.aor != after.aor
        || before.auth_username != after.auth_username
        || before.tls_spki_sha256 != after.tls_spki_sha256
}

/// The address of record with its host in lower case and without parameters, and its user part.
fn address_of_record(text: &str) -> Result<(String, String), Problem> {
    let fail = |wrong| Problem::account("aor", wrong);
    header_safe("aor", text)?;
    let uri = Uri::parse(text.as_bytes()).map_err(|_| fail("not a SIP URI such as sip:alice@example.com"))?;
    if uri.is_sips() {
        return Err(fail("sips: is not supported; use sip: here, and transport=tls in the registrar"));
    }
    let user = uri.user().filter(|user| uri.is_sip() && !user.is_empty());
    let Some(user) = user.and_then(|user| std::str::from_utf8(user).ok()) else {
        return Err(fail("must be a sip: URI with a user part, such as sip:alice@example.com"));
    };
    if uri.password().is_some() {
        return Err(fail("must not hold a password; that is what password and ha1 are for"));
    }
    if !uri.headers().is_empty() {
        return Err(fail("must not have headers"));
    }
    harmless_parameters(&uri)?;
    let host = match uri.host() {
        Host::Name(name) => name.to_ascii_lowercase(),
        Host::Address(IpAddr::V4(address)) => address.to_string(),
        Host::Address(IpAddr::V6(address)) => format!("[{address}]"),
    };
    let port = uri.port().map(|port| format!(":{port}")).unwrap_or_default();
    let name = String::from_utf8(unescape(user.as_bytes())).unwrap_or_else(|_| user.to_owned());
    if name.contains(char::is_control) {
        return Err(fail("must not hold escaped control characters"));
    }
    Ok((format!("sip:{user}@{host}{port}"), name))
}

/// Parameters of an address of record are left off, since registrars remove them before they look it up (RFC 3261 §10.3). Only
/// the one may stand there that changes nothing else: which kind of name the user part is.
fn harmless_parameters(uri: &Uri<'_>) -> Result<(), Problem> {
    let kinds = ["phone", "ip"];
    let is_harmless = |(name, value): (&str, Option<&str>)| {
        name.eq_ignore_ascii_case("user")
            && value.is_some_and(|value| kinds.iter().any(|it| it.eq_ignore_ascii_case(value)))
    };
    if uri.params().all(is_harmless) {
        return Ok(());
    }
    let wrong = "must not have parameters other than user=phone; the transport belongs into the registrar";
    Err(Problem::account("aor", wrong))
}

fn trunk(member: &'static str, text: &str) -> Result<TrunkUri, Problem> {
    header_safe(member, text)?;
    if text.contains('?') {
        return Err(Problem::account(member, "must not have headers"));
    }
    Ok(TrunkUri::parse(member, text)?)
}

/// Only visible ASCII without quotes and angle brackets: nothing that could end a header or begin another.
fn header_safe(member: &'static str, text: &str) -> Result<(), Problem> {
    if text.len() > URI_BYTES_MAX {
        return Err(Problem::account(member, format_args!("may have {URI_BYTES_MAX} bytes at most")));
    }
    if text.bytes().all(|byte| byte.is_ascii_graphic() && !b"<>\"".contains(&byte)) {
        return Ok(());
    }
    Err(Problem::account(member, "must be a bare URI of visible ASCII characters, without < > and quotes"))
}

fn username(name: String) -> Result<String, Problem> {
    if name.is_empty() || name.len() > USERNAME_BYTES_MAX || name.contains(char::is_control) {
        let wrong = format_args!("must have 1 to {USERNAME_BYTES_MAX} bytes and no control character");
        return Err(Problem::account("auth_username", wrong));
    }
    Ok(name)
}

fn register_expires(seconds: u64) -> Result<Duration, Problem> {
    if !(REGISTER_EXPIRES_MIN_SECONDS..=REGISTER_EXPIRES_MAX_SECONDS).contains(&seconds) {
        let wrong = format_args!("must be {REGISTER_EXPIRES_MIN_SECONDS} to {REGISTER_EXPIRES_MAX_SECONDS} seconds");
        return Err(Problem::account("register_expires", wrong));
    }
    Ok(Duration::from_secs(seconds))
}

fn trunk_sources(text: &str) -> Result<TrunkSources, Problem> {
    match text {
        "any" => Ok(TrunkSources::Any),
        "registrar" => Ok(TrunkSources::Registrar),
        _ => Err(Problem::account("trunk_sources", "must be \"any\" or \"registrar\"")),
    }
}

fn contact_style(text: &str) -> Result<ContactStyle, Problem> {
    match text {
        "capability" => Ok(ContactStyle::Capability),
        "username" => Ok(ContactStyle::Username),
        _ => Err(Problem::account("contact_style", "must be \"capability\" or \"username\"")),
    }
}

fn early_response(code: u16) -> Result<Option<StatusCode>, Problem> {
    match code {
        0 => Ok(None),
        180 | 183 => Ok(StatusCode::new(code)),
        _ => Err(Problem::account("early_response", "must be 180, 183, or 0 for none")),
    }
}

/// 32 bytes in hexadecimal (colons allowed, as openssl prints them) or base64.
fn pin(text: &str) -> Result<[u8; 32], Problem> {
    let wrong = || Problem::account("tls_spki_sha256", "must be 32 bytes in hexadecimal or base64");
    if let Some(bytes) = hexadecimal(&text.replace(':', "")) {
        return Ok(bytes);
    }
    let bytes = STANDARD.decode(text).or_else(|_| STANDARD_NO_PAD.decode(text)).map_err(|_| wrong())?;
    bytes.try_into().map_err(|_| wrong())
}

fn hexadecimal(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 2 * bytes.len() {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        let digit = |place: usize| digits.get(place).and_then(|digit| char::from(*digit).to_digit(16));
        *byte = u8::try_from(digit(0)? * 16 + digit(1)?).ok()?;
    }
    Some(bytes)
}
