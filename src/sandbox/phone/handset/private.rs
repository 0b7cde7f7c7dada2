//! What an app keeps to itself: the key that callers are sealed to, and its part in the proof of its push token.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Method;
use rustls::crypto::aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_CHACHA20_POLY1305 as SUITE;
use rustls::crypto::hpke::{EncapsulatedSecret, Hpke, HpkePrivateKey};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{Handset, PhoneError, accepted};
use crate::sandbox::phone::push::Push;

/// Bytes of an encapsulated key.
const ENCAPSULATED_BYTES: usize = 32;

/// A key pair for callers.
pub(super) struct CallerLock {
    public: Vec<u8>,
    private: HpkePrivateKey,
    /// Whose app this is, where callers are sealed.
    tenant: Option<String>,
}

impl CallerLock {
    /// A fresh pair; `None` where there is no randomness.
    pub(super) fn new() -> Option<Self> {
        let (public, private) = SUITE.generate_key_pair().ok()?;
        Some(Self { public: public.0, private, tenant: None })
    }

    /// `device.caller_key`.
    pub(super) fn member(&self) -> Value {
        json!({ "suite": "x25519-hkdf-sha256-chacha20poly1305", "public": URL_SAFE_NO_PAD.encode(&self.public) })
    }

    /// The caller of a push as JSON, if it was sealed for this device and call.
    fn open(&self, push: &Push) -> Option<String> {
        let (tenant, call) = (self.tenant.as_ref()?, push.call.as_ref()?);
        let message = URL_SAFE_NO_PAD.decode(push.caller.as_ref()?).ok()?;
        let (encapsulated, sealed) = message.split_at_checked(ENCAPSULATED_BYTES)?;
        let info = format!("reveille caller v1\n{tenant}\n{}\n{call}", push.instance);
        let encapsulated = EncapsulatedSecret(encapsulated.to_vec());
        let plain = SUITE.open(&encapsulated, info.as_bytes(), &[], sealed, &self.private).ok()?;
        Some(String::from_utf8(plain).ok()?.trim_end().to_owned())
    }
}

impl Handset {
    /// Learns whose app it is, if callers are sealed: the caller is bound to it.
    pub(super) async fn learn_tenant(&mut self) -> Result<(), PhoneError> {
        if self.instance.caller_in_push == "sealed" {
            let data = accepted(self.ask(Method::GET, "/data", None).await?)?;
            self.lock.tenant = data["tenant"].as_str().map(str::to_owned);
        }
        Ok(())
    }

    /// The push with its caller in clear, if this phone can read it.
    pub(super) fn unlocked(&self, mut push: Push) -> Push {
        if self.lock.tenant.is_some() {
            push.caller = self.lock.open(&push);
        }
        push
    }

    /// Returns the challenge of a push, if it brought one.
    pub(super) async fn prove(&self, push: &Push) -> Result<(), PhoneError> {
        let Some(challenge) = &push.challenge else { return Ok(()) };
        let body = Zeroizing::new(json!({ "challenge": challenge }).to_string().into_bytes());
        accepted(self.ask(Method::POST, "/push-proof", Some(body)).await?).map(drop)
    }
}
