//! Texts that stand for something: each function reads one kind and says in its error what is allowed.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use super::settings::{AppKeyHash, OpsListen};
use super::suggest::nearest;
use crate::engine::output::WakeKind;

/// The longest name of a tenant or app.
const ID_MAX: usize = 155;

/// The longest text of a push, in characters: what a lock screen shows of one.
const PUSH_TEXT_MAX: usize = 180;

/// The longest path of a Unix socket (unix(7): 108 bytes with the zero at the end).
const SOCKET_PATH_MAX: usize = 107;

/// The longest host name (RFC 1035 §2.3.4) and label.
const HOST_MAX: usize = 253;
const LABEL_MAX: usize = 63;

pub(super) fn socket_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "must be an address with its port, such as \"0.0.0.0:8443\" or \"[::]:8443\"".to_owned())
}

/// Where operators ask: an address, or `unix:` with a path.
pub(super) fn ops_listen(text: &str) -> Result<OpsListen, String> {
    let problem = || {
        format!(
            "must be an address with its port, such as \"127.0.0.1:9464\", or \"unix:\" with an absolute path of at most \
             {SOCKET_PATH_MAX} bytes, such as \"unix:/run/reveille/ops.sock\""
        )
    };
    match text.strip_prefix("unix:") {
        Some(path) if path.starts_with('/') && !path.ends_with('/') && path.len() <= SOCKET_PATH_MAX => {
            Ok(OpsListen::Unix(path.into()))
        }
        Some(_) => Err(problem()),
        None => text.parse().map(OpsListen::Tcp).map_err(|_| problem()),
    }
}

/// A host name or IPv4 address, in lower case.
pub(super) fn domain(text: &str) -> Result<String, String> {
    let is_host = is_host_name(text) && text.parse::<Ipv6Addr>().is_err();
    let domain = text.to_ascii_lowercase();
    is_host.then_some(domain).ok_or_else(|| "must be a host name such as \"edge.example.net\"".to_owned())
}

/// `host:port` as it stands in Via and Contact.
pub(super) fn advertise(text: &str) -> Result<String, String> {
    let problem =
        || "must be host:port such as \"203.0.113.5:5060\", \"edge.example.net:5061\" or \"[2001:db8::5]:5060\"";
    let (host, port) = text.rsplit_once(':').ok_or_else(problem)?;
    if !matches!(port.parse::<u16>(), Ok(port) if port > 0) || !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(problem().to_owned());
    }
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let address = match bracketed {
        Some(inner) => Some(IpAddr::V6(inner.parse().map_err(|_| problem())?)),
        None if is_host_name(host) => host.parse().ok(),
        None => return Err(problem().to_owned()),
    };
    match address {
        Some(address) if address.is_unspecified() || address.is_multicast() => {
            Err("must be an address that others can reach".to_owned())
        }
        _ => Ok(text.to_ascii_lowercase()),
    }
}

/// `*`, `*.example.com`, a whole name or a literal address; in lower case.
pub(super) fn host_pattern(text: &str) -> Result<String, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.to_string());
    }
    let name = text.strip_prefix("*.").unwrap_or(text);
    if text == "*" || is_host_name(name) {
        return Ok(text.to_ascii_lowercase());
    }
    Err("must be \"*\", a host name, or \"*.\" with a domain, such as \"*.example.com\"".to_owned())
}

pub(super) fn network(text: &str) -> Result<IpNet, String> {
    text.parse().map_err(|_| "must be a range of addresses such as \"192.168.0.0/16\" or \"fd00::/8\"".to_owned())
}

pub(super) fn port(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err("must be a port between 1 and 65535".to_owned()),
    }
}

/// The name of a tenant or app.
pub(super) fn id(text: &str) -> Result<String, String> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if !text.is_empty() && text.len() <= ID_MAX && text.bytes().all(is_allowed) {
        return Ok(text.to_owned());
    }
    Err(format!("must be 1 to {ID_MAX} letters, digits, \".\", \"-\" or \"_\""))
}

/// The SHA-256 of an app key. The error never repeats the text: it may be the key itself.
pub(super) fn app_key_sha256(text: &str) -> Result<AppKeyHash, String> {
    let wanted =
        "must be the SHA-256 of the app key, 64 hex digits (printf %s \"$KEY\" | sha256sum), never the key itself";
    something(sha256(text).ok_or(wanted)?).map(AppKeyHash)
}

/// The SHA-256 of a token for operators. The error never repeats the text: it may be the token itself.
pub(super) fn token_sha256(text: &str) -> Result<[u8; 32], String> {
    let wanted =
        "must be the SHA-256 of the token, 64 hex digits (printf %s \"$TOKEN\" | sha256sum), never the token itself";
    something(sha256(text).ok_or(wanted)?)
}

/// Refuses the hash that comes of a variable nobody has set.
fn something(hash: [u8; 32]) -> Result<[u8; 32], String> {
    let nothing = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"");
    if hash == nothing.as_ref() {
        return Err("is the SHA-256 of an empty text: the variable was not set when it was made".to_owned());
    }
    Ok(hash)
}

fn sha256(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut hash = [0; 32];
    for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |character: u8| char::from(character).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(hash)
}

/// A kind of wake that a tenant may do without.
pub(super) fn wake_off(text: &str) -> Result<WakeKind, String> {
    let needed = |kind: &WakeKind| matches!(kind, WakeKind::Call | WakeKind::Refresh | WakeKind::Proof);
    let others = || WakeKind::ALL.into_iter().filter(|kind| !needed(kind)).map(WakeKind::as_str);
    match WakeKind::named(text) {
        Some(WakeKind::Refresh) => {
            Err("cannot have \"refresh\" in it: without it registrations through this server would end".to_owned())
        }
        Some(WakeKind::Proof) => {
            Err("cannot have \"proof\" in it: without it no push token could be proven (prove_push_token)".to_owned())
        }
        Some(WakeKind::Call) => Err("cannot have \"call\" in it: without it no phone would ring".to_owned()),
        Some(kind) => Ok(kind),
        None => {
            let allowed: Vec<String> = others().map(|kind| format!("\"{kind}\"")).collect();
            let meant = nearest(text, others()).map(|kind| format!("; did you mean \"{kind}\"?")).unwrap_or_default();
            Err(format!("must be kinds of wake: {}{meant}", allowed.join(", ")))
        }
    }
}

/// What users read in a push.
pub(super) fn push_text(text: &str) -> Result<String, String> {
    let length = text.chars().count();
    if text.trim().is_empty() || length > PUSH_TEXT_MAX || text.chars().any(char::is_control) {
        return Err(format!("must be plain text of 1 to {PUSH_TEXT_MAX} characters on one line"));
    }
    Ok(text.to_owned())
}

/// An identifier of Apple's: ten capital letters and digits.
pub(super) fn apple_id(text: &str) -> Result<String, String> {
    let is_allowed = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
    if text.len() == 10 && text.bytes().all(is_allowed) {
        return Ok(text.to_owned());
    }
    Err("must be the ten capital letters and digits that Apple shows, such as \"ABCDE12345\"".to_owned())
}

/// Where pushes go instead of the provider's own host.
pub(super) fn endpoint(text: &str) -> Result<String, String> {
    let problem = || "must be a URL such as \"https://push.example.net:8443\", without user or query".to_owned();
    let uri: http::Uri = text.parse().map_err(|_| problem())?;
    let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(problem)?;
    if uri.query().is_some() || uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(problem());
    }
    match uri.scheme_str() {
        Some("https") => Ok(text.to_owned()),
        Some("http") if is_loopback(host) => Ok(text.to_owned()),
        Some("http") => {
            Err("must be https; plain http carries push tokens in clear and is only for this host itself".to_owned())
        }
        _ => Err(problem()),
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// Letters, digits and hyphens between dots (RFC 1123 §2.1); IPv4 addresses are of that form too.
fn is_host_name(text: &str) -> bool {
    let is_label = |label: &str| {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        (1..=LABEL_MAX).contains(&label.len())
            && label.bytes().all(is_allowed)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= HOST_MAX && text.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_advertised_address_names_a_host_that_can_be_reached() {
        for good in ["203.0.113.5:5060", "Edge.Example.net:5061", "[2001:db8::5]:5060"] {
            assert_eq!(advertise(good), Ok(good.to_ascii_lowercase()));
        }
        for bad in ["203.0.113.5", "203.0.113.5:0", "0.0.0.0:5060", "[::]:5060", "2001:db8::5:5060", "a b:1", ":5060"] {
            assert!(advertise(bad).is_err(), "{bad}");
        }
        assert!(advertise("a.example:+5060").is_err(), "a sign is no digit");
    }

    #[test]
    fn a_host_pattern_has_its_star_only_in_front() {
        for good in ["*", "*.example.com", "pbx.example.com", "192.0.2.1", "2001:db8::1"] {
            assert!(host_pattern(good).is_ok(), "{good}");
        }
        for bad in ["", "**", "pbx.*", "*example.com", "https://pbx", "-a.example"] {
            assert!(host_pattern(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn plain_http_is_taken_only_for_this_host() {
        for good in ["https://push.example.net", "http://127.0.0.1:9000", "http://[::1]:1", "http://localhost:1"] {
            assert!(endpoint(good).is_ok(), "{good}");
        }
        for bad in ["http://push.example.net", "ftp://127.0.0.1", "/pushes", "https://a@b", "https://a/?b", ""] {
            assert!(endpoint(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_app_key_hash_is_read_in_either_case() {
        let hash = app_key_sha256(&format!("{}FF", "0a".repeat(31)));
        assert_eq!(hash.map(|hash| (hash.0[0], hash.0[31])), Ok((10, 255)));
        assert!(app_key_sha256(&"g".repeat(64)).is_err());
        assert!(app_key_sha256(&"a".repeat(63)).is_err());
        let nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert!(app_key_sha256(nothing).is_err_and(|problem| problem.contains("empty text")));
        assert!(token_sha256(nothing).is_err_and(|problem| problem.contains("empty text")));
    }
}
