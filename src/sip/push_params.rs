//! Push parameters of a Contact (RFC 8599 §4, §14): `pn-provider`, `pn-param`, `pn-prid`, `pn-purr`.
//!
//! They belong into the URI; some phones write them behind it as header parameters, which is tolerated. Their own room
//! because a Contact at the edge may carry them whoever sent it. What they mean is not decided here.

use super::address::Address;

/// What a Contact says about pushes to its phone. The values are as written, escapes included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PushParams<'a> {
    /// Who carries the push: `apns`, `fcm`, …
    pub provider: &'a str,
    /// What the provider needs beside the token (team and topic, or project).
    pub param: Option<&'a str>,
    /// The device token.
    pub prid: Option<&'a str>,
    /// Names an earlier registration in a request (RFC 8599 §6.1).
    pub purr: Option<&'a str>,
}

/// Reads them; `None` where no provider is named.
#[must_use]
pub fn push_params<'a>(contact: &Address<'a>) -> Option<PushParams<'a>> {
    let uri = contact.uri();
    let read = |name: &str| {
        let in_uri = uri.param(name).flatten();
        in_uri.or_else(|| contact.param(name).flatten()).filter(|value| !value.is_empty())
    };
    let provider = read("pn-provider")?;
    Some(PushParams { provider, param: read("pn-param"), prid: read("pn-prid"), purr: read("pn-purr") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_read_from_the_uri() {
        let text =
            "<sip:alice@192.0.2.1;pn-provider=apns;pn-param=ABC.com.example.app.voip;pn-prid=00fc13%3aX>;expires=9";
        let expected = PushParams {
            provider: "apns",
            param: Some("ABC.com.example.app.voip"),
            prid: Some("00fc13%3aX"),
            purr: None,
        };
        assert_eq!(read(text), Some(expected));
    }

    #[test]
    fn header_parameters_are_tolerated_but_the_uri_wins() {
        let text = "<sip:alice@192.0.2.1;pn-provider=fcm>;pn-provider=apns;pn-prid=\"token\";pn-purr=p";
        let expected = PushParams { provider: "fcm", param: None, prid: Some("token"), purr: Some("p") };
        assert_eq!(read(text), Some(expected));
    }

    #[test]
    fn without_a_provider_there_are_none() {
        for text in ["<sip:a@b>", "<sip:a@b;pn-prid=token>", "<sip:a@b;pn-provider>", "<tel:+15550100>"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    fn read(text: &str) -> Option<PushParams<'_>> {
        push_params(&Address::parse(text.as_bytes()).expect("a Contact"))
    }
}
