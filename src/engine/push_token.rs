//! What a provider calls a device: the one check that every push token passes, from wherever it comes.
//!
//! Its own file because tokens come in by HTTPS (`api`) and in Contacts (`pass`), and leave through `wakes` and `push`. A
//! token is as personal as a telephone number: no `Debug`, no `Serialize`.

use super::policy::Provider;

/// Longest token taken, in bytes: many times what providers hand out today.
pub const TOKEN_BYTES_MAX: usize = 4096;
/// Longest token of APNs, in hexadecimal digits. Apple fixes no length; those of today have 64 digits, the longest ever seen
/// 200.
pub const APNS_DIGITS_MAX: usize = 400;
/// Characters of a Firebase installation id: 17 bytes in base64url, its last character left out.
pub const FID_CHARACTERS: usize = 22;

/// The name by which a provider knows a device.
#[derive(Clone, PartialEq, Eq)]
pub enum PushToken {
    /// A device token of APNs, a registration token of FCM, or any name in the sandbox.
    Registration(String),
    /// A Firebase installation id.
    InstallationId(String),
}

/// Why a text is no token of its provider. Repeats nothing of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenFault {
    /// There is nothing.
    Empty,
    /// Longer than any token.
    TooLong,
    /// APNs: something else than pairs of hexadecimal digits.
    NotHex,
    /// A character that no token has.
    Characters,
    /// FCM: an installation id in the place of a registration token.
    IsInstallationId,
    /// Not an installation id.
    NotInstallationId,
    /// An installation id for a provider that knows none.
    NoInstallationIds,
}

impl PushToken {
    /// A token as the provider gave it to the app.
    ///
    /// # Errors
    /// It cannot be one of that provider.
    pub fn registration(provider: Provider, text: &str) -> Result<Self, TokenFault> {
        if text.is_empty() {
            return Err(TokenFault::Empty);
        }
        if text.len() > TOKEN_BYTES_MAX {
            return Err(TokenFault::TooLong);
        }
        match provider {
            Provider::Apns => device_token(text)?,
            Provider::Fcm if is_installation_id(text) => return Err(TokenFault::IsInstallationId),
            Provider::Fcm if !text.bytes().all(is_fcm) => return Err(TokenFault::Characters),
            Provider::Sandbox if !text.bytes().all(|byte| byte.is_ascii_graphic()) => {
                return Err(TokenFault::Characters);
            }
            Provider::Fcm | Provider::Sandbox => {}
        }
        Ok(Self::Registration(text.to_owned()))
    }

    /// A Firebase installation id.
    ///
    /// # Errors
    /// It is none, or the provider knows none.
    pub fn installation_id(provider: Provider, text: &str) -> Result<Self, TokenFault> {
        if provider != Provider::Fcm {
            return Err(TokenFault::NoInstallationIds);
        }
        if is_installation_id(text) {
            Ok(Self::InstallationId(text.to_owned()))
        } else {
            Err(TokenFault::NotInstallationId)
        }
    }

    /// A token as SIP carries it, which has one parameter for both forms (RFC 8599 §4): their shapes tell them apart.
    ///
    /// # Errors
    /// As for [`Self::registration`].
    pub fn prid(provider: Provider, text: &str) -> Result<Self, TokenFault> {
        match Self::registration(provider, text) {
            Err(TokenFault::IsInstallationId) => Self::installation_id(provider, text),
            read => read,
        }
    }

    /// The characters, whatever they are.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let (Self::Registration(text) | Self::InstallationId(text)) = self;
        text
    }

    /// What sort of name it is; with the characters it names the device.
    #[must_use]
    pub fn form(&self) -> &'static str {
        match self {
            Self::Registration(_) => "token",
            Self::InstallationId(_) => "fid",
        }
    }
}

/// A registration token, unchecked.
impl From<String> for PushToken {
    fn from(text: String) -> Self {
        Self::Registration(text)
    }
}

/// A registration token, unchecked.
impl From<&str> for PushToken {
    fn from(text: &str) -> Self {
        Self::Registration(text.to_owned())
    }
}

impl TokenFault {
    /// What is wrong, for the app's developer.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "is empty",
            Self::TooLong => "is longer than any push token",
            Self::NotHex => {
                "is no device token of APNs: send its bytes as hexadecimal digits, two for each byte, not in base64 and not \
                 the token of another push service"
            }
            Self::Characters => "holds characters that no push token has: send it as the provider gave it to the app",
            Self::IsInstallationId => {
                "is a Firebase installation id and no registration token: send it as \"fid\" in place of \"token\""
            }
            Self::NotInstallationId => {
                "is no Firebase installation id (22 characters of base64url): send a registration token as \"token\""
            }
            Self::NoInstallationIds => "is for provider \"fcm\" alone: send \"token\"",
        }
    }
}

fn device_token(text: &str) -> Result<(), TokenFault> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(TokenFault::NotHex);
    }
    if text.len() > APNS_DIGITS_MAX { Err(TokenFault::TooLong) } else { Ok(()) }
}

/// Google calls its tokens opaque; those of all years are base64url with colons. What is taken is wider, and still leaves out
/// what comes of a wrong encoding: spaces, line ends, quotes, brackets, percent signs.
fn is_fcm(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_:.~+/=".contains(&byte)
}

fn is_installation_id(text: &str) -> bool {
    text.len() == FID_CHARACTERS && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FID: &str = "fHx0aBcD_eFgH-iJkLmNoP";

    fn fault(provider: Provider, text: &str) -> Option<TokenFault> {
        PushToken::registration(provider, text).err()
    }

    #[test]
    fn a_token_of_apns_is_hexadecimal_whole_bytes_and_of_any_sensible_length() {
        for length in [2, 64, 160, APNS_DIGITS_MAX] {
            assert_eq!(fault(Provider::Apns, &"aF".repeat(length / 2)), None, "{length}");
        }
        for (text, wrong) in [
            ("", TokenFault::Empty),
            ("0a1", TokenFault::NotHex),
            ("ChYgCg+/8Q==", TokenFault::NotHex),
            ("ExponentPushToken[xxxxxxxxxxxxxxxxxxxxxx]", TokenFault::NotHex),
            ("<0a1b2c3d 0a1b2c3d>", TokenFault::NotHex),
            ("0a1b\n", TokenFault::NotHex),
            ("0x0a", TokenFault::NotHex),
            ("0a%31", TokenFault::NotHex),
            ("\u{661}\u{662}", TokenFault::NotHex),
            (&"0a".repeat(APNS_DIGITS_MAX), TokenFault::TooLong),
            (&"0".repeat(TOKEN_BYTES_MAX + 1), TokenFault::TooLong),
        ] {
            assert_eq!(fault(Provider::Apns, text), Some(wrong), "{text}");
        }
    }

    #[test]
    fn a_token_of_fcm_has_no_trace_of_a_wrong_encoding() {
        for text in [&format!("{FID}:APA91bF-x_{}", "y".repeat(120)), "t:1_2-3", &"a".repeat(21), &"a".repeat(23)] {
            assert_eq!(fault(Provider::Fcm, text), None, "{text}");
        }
        for text in [" a:b", "a:b\n", "a b", "a%3Ab", "\"a:b\"", "ExponentPushToken[x]", "a\u{e9}", "a\0"] {
            assert_eq!(fault(Provider::Fcm, text), Some(TokenFault::Characters), "{text}");
        }
        assert_eq!(fault(Provider::Fcm, ""), Some(TokenFault::Empty));
        assert_eq!(fault(Provider::Fcm, &"a".repeat(TOKEN_BYTES_MAX + 1)), Some(TokenFault::TooLong));
    }

    #[test]
    fn an_installation_id_is_told_from_a_registration_token_by_its_shape() {
        assert_eq!(fault(Provider::Fcm, FID), Some(TokenFault::IsInstallationId));
        assert_eq!(fault(Provider::Sandbox, FID), None);
        let id = |provider, text: &str| PushToken::installation_id(provider, text).map(|id| id.form());
        assert_eq!(id(Provider::Fcm, FID), Ok("fid"));
        for text in ["", "short", &FID[1..], &format!("{FID}x"), "fHx0aBcD+eFgH/iJkLmNoP"] {
            assert_eq!(id(Provider::Fcm, text), Err(TokenFault::NotInstallationId), "{text}");
        }
        for provider in [Provider::Apns, Provider::Sandbox] {
            assert_eq!(id(provider, FID), Err(TokenFault::NoInstallationIds));
        }
    }

    #[test]
    fn sip_has_one_parameter_for_both_forms() {
        let form = |provider, text: &str| PushToken::prid(provider, text).map(|token| token.form());
        assert_eq!(form(Provider::Fcm, FID), Ok("fid"));
        assert_eq!(form(Provider::Fcm, "a:B-c_9"), Ok("token"));
        assert_eq!(form(Provider::Apns, "00fc13"), Ok("token"));
        assert_eq!(form(Provider::Apns, FID), Err(TokenFault::NotHex));
    }
}
