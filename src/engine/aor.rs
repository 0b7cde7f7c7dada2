//! Addresses of record in the one form in which they are compared.

use crate::sip::uri::{self, Uri};
use crate::sip::{HeaderName, Message};

/// `user@host` of a `sip:` address: escapes undone, the host in lower case, without port and parameters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Aor(String);

impl Aor {
    /// Reads it from a URI; `None` without user or host.
    #[must_use]
    pub fn of(uri: &Uri<'_>) -> Option<Self> {
        let user = uri.user().filter(|user| !user.is_empty())?;
        let user = String::from_utf8_lossy(&uri::unescape(user)).into_owned();
        let host = match uri.host() {
            uri::Host::Name("") => return None,
            uri::Host::Name(name) => name.trim_end_matches('.').to_ascii_lowercase(),
            uri::Host::Address(address) => address.to_canonical().to_string(),
        };
        Some(Self(format!("{user}@{host}")))
    }

    /// The one in From.
    #[must_use]
    pub fn of_sender(request: &Message) -> Option<Self> {
        // Read even where From stands twice: a shard has to be found for what it refuses, too.
        let from = crate::sip::address::Address::parse(request.header(HeaderName::From)?).ok()?;
        Self::of(&from.uri())
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_address_has_one_form() {
        let of = |text: &str| Uri::parse(text.as_bytes()).ok().and_then(|uri| Aor::of(&uri)).map(|aor| aor.0);
        for text in [
            "sip:a%6Cice@PBX.Example.com",
            "sip:alice@pbx.example.com.;transport=tcp",
            "sip:alice@pbx.example.com:5070",
        ] {
            assert_eq!(of(text).as_deref(), Some("alice@pbx.example.com"), "{text}");
        }
        assert_ne!(of("sip:Alice@pbx.example.com"), of("sip:alice@pbx.example.com"), "users have case");
        assert_eq!(of("sip:pbx.example.com"), None);
        assert_eq!(of("tel:+1555"), None);
    }
}
