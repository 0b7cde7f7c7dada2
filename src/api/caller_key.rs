//! `caller_key`: what a device's caller is sealed to.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::problem::Problem;
use crate::engine::caller_key::{CallerKey, CallerSuite};

/// A public key of the device (HPKE, RFC 9180). The private one never leaves it.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CallerKey)]
pub(crate) struct CallerKeyBody {
    #[schema(schema_with = super::openapi::words::suite)]
    suite: String,
    /// The X25519 public key: 32 bytes, base64url without padding.
    #[schema(min_length = 43, max_length = 43, example = "hSDwCYkwp1R0i33ctD73Wg2_Og0mOBr066SpjqqbTmo")]
    public: String,
}

impl CallerKeyBody {
    /// The key, if callers can be sealed to it. `path`: where the member stands.
    pub(crate) fn check(&self, path: &str) -> Result<CallerKey, Problem> {
        let fail = |member: &str, wrong: &str| Problem::request(format!("{path}.{member}"), wrong);
        let Some(suite) = CallerSuite::named(&self.suite) else {
            let names = CallerSuite::ALL.map(|suite| format!("\"{}\"", suite.as_str())).join(" or ");
            return Err(fail("suite", &format!("must be {names}")));
        };
        let public = URL_SAFE_NO_PAD.decode(&self.public).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        let public = public.ok_or_else(|| {
            fail("public", "must be the 32 bytes of an X25519 public key in base64url without padding")
        })?;
        CallerKey::new(suite, public).ok_or_else(|| {
            fail("public", "is a point of low order: whatever is sealed to it anyone can open; make a key pair anew")
        })
    }
}

/// The public key that is held of the device.
#[derive(Serialize, ToSchema)]
#[schema(as = HeldCallerKey)]
pub(crate) struct HeldCallerKeyBody {
    #[schema(schema_with = super::openapi::words::held_suites)]
    suite: &'static str,
    /// The X25519 public key: 32 bytes, base64url without padding.
    public: String,
}

impl From<&CallerKey> for HeldCallerKeyBody {
    fn from(key: &CallerKey) -> Self {
        Self { suite: key.suite().as_str(), public: URL_SAFE_NO_PAD.encode(key.public()) }
    }
}
