//! A service account: the key file Google hands out, read once.

use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

use super::super::jwt::SigningKey;
use crate::clock::WallTime;

/// What our tokens are for.
const SCOPE: &str = "https://www.googleapis.com/auth/firebase.messaging";
/// How long an assertion is good for; Google allows an hour at most.
const ASSERTION_SECONDS: u64 = 3600;

/// Who we are to Google.
pub(crate) struct ServiceAccount {
    pub(crate) project_id: String,
    pub(crate) token_uri: String,
    client_email: String,
    key_id: String,
    key: SigningKey,
}

#[derive(Deserialize)]
struct KeyFile {
    #[serde(rename = "type")]
    kind: String,
    project_id: String,
    private_key_id: String,
    private_key: Zeroized,
    client_email: String,
    token_uri: String,
}

/// A JSON string that is wiped when dropped.
struct Zeroized(Zeroizing<String>);

impl<'de> Deserialize<'de> for Zeroized {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Zeroizing::new(text)))
    }
}

impl ServiceAccount {
    /// Reads a key file.
    pub(crate) fn parse(file: &str) -> Result<Self, String> {
        // serde's own words may quote a value, and one of them is the key.
        let file: KeyFile = serde_json::from_str(file).map_err(|error| {
            format!("not a service account key file (JSON, line {}, column {})", error.line(), error.column())
        })?;
        if file.kind != "service_account" {
            return Err("its type is not service_account".to_owned());
        }
        let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte));
        if file.project_id.is_empty() || !plain(&file.project_id) {
            return Err("its project_id is not one".to_owned());
        }
        let key = SigningKey::rs256(&file.private_key.0).map_err(|problem| format!("its private_key is {problem}"))?;
        Ok(Self {
            project_id: file.project_id,
            token_uri: file.token_uri,
            client_email: file.client_email,
            key_id: file.private_key_id,
            key,
        })
    }

    /// Asks for an access token (RFC 7523 §2.1), signed now.
    pub(crate) fn assertion(&self, now: WallTime) -> Option<Zeroizing<String>> {
        let issued = now.unix_seconds();
        let claims = json!({
            "iss": self.client_email, "scope": SCOPE, "aud": self.token_uri,
            "iat": issued, "exp": issued + ASSERTION_SECONDS,
        });
        self.key.sign(&self.key_id, &claims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_key_file_is_refused_without_repeating_its_key() {
        let wrong_key = json!({
            "type": "service_account", "project_id": "p", "private_key_id": "1", "private_key": "planted",
            "client_email": "a@b", "token_uri": "https://c",
        });
        let wrong_type = r#"{"type": "service_account", "private_key": {"planted": 1}}"#;
        for file in [wrong_key.to_string().as_str(), wrong_type, "planted"] {
            let problem = ServiceAccount::parse(file).err().expect("no key file");
            assert!(!problem.contains("planted"), "{problem}");
        }
    }
}
