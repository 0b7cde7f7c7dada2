//! The caller, sealed to a key of its device: HPKE (RFC 9180), base mode, one message for each push.
//!
//! Whoever carries a push, or stores it, learns nothing of who calls, not even how long the name is. The key schedule is
//! rustls's, over aws-lc; the ephemeral key lives as long as one call of `seal` and is wiped with it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::crypto::aws_lc_rs::hpke::{DH_KEM_X25519_HKDF_SHA256_AES_128, DH_KEM_X25519_HKDF_SHA256_CHACHA20_POLY1305};
use rustls::crypto::hpke::{Hpke, HpkePublicKey};
use serde_json::json;
use zeroize::Zeroizing;

use crate::engine::account::TenantId;
use crate::engine::caller_key::{CallerKey, CallerSuite};
use crate::engine::ids::{CallUuid, InstanceId};
use crate::engine::output::Caller;

/// Bytes of what is sealed, whoever calls: JSON, filled up with spaces.
pub(crate) const PLAIN_BYTES: usize = 256;
/// Bytes of a number as JSON text, at most; no telephone number is as long.
const NUMBER_BYTES_MAX: usize = 128;
/// JSON around name and number.
const FRAME_BYTES: usize = r#"{"name":"","number":""}"#.len();
/// What is sealed here is good for this and for nothing else.
const PURPOSE: &str = "reveille caller v1";

/// What a sealed caller is bound to.
#[derive(Clone, Copy)]
pub(crate) struct Bound<'a> {
    pub(crate) tenant: &'a TenantId,
    pub(crate) instance: InstanceId,
    pub(crate) call: CallUuid,
}

impl Bound<'_> {
    /// The `info` of RFC 9180: purpose, tenant, instance and call, a line feed between each. None of them holds one. The
    /// `aad` is empty, since not every library takes one.
    pub(crate) fn info(&self) -> String {
        format!("{PURPOSE}\n{}\n{}\n{}", self.tenant, self.instance, self.call)
    }
}

/// The `caller` of a push: the encapsulated key and the ciphertext, base64url without padding. `None`: it cannot be sealed.
pub(crate) fn seal(key: &CallerKey, caller: &Caller, bound: Bound<'_>) -> Option<String> {
    let plain = plain(caller);
    let receiver = HpkePublicKey(key.public().to_vec());
    let (encapsulated, sealed) = suite(key.suite()).seal(bound.info().as_bytes(), &[], &plain, &receiver).ok()?;
    let mut message = encapsulated.0;
    message.extend_from_slice(&sealed);
    Some(URL_SAFE_NO_PAD.encode(message))
}

pub(crate) fn suite(suite: CallerSuite) -> &'static dyn Hpke {
    match suite {
        CallerSuite::ChaCha20Poly1305 => DH_KEM_X25519_HKDF_SHA256_CHACHA20_POLY1305,
        CallerSuite::Aes128Gcm => DH_KEM_X25519_HKDF_SHA256_AES_128,
    }
}

/// What is sealed: always of one length.
fn plain(caller: &Caller) -> Zeroizing<Vec<u8>> {
    let number = cut(&caller.number, NUMBER_BYTES_MAX);
    let name = caller.name.as_deref().map(|name| {
        let room = PLAIN_BYTES - FRAME_BYTES - json_bytes(number);
        cut(name, room)
    });
    let told = match name {
        Some(name) => json!({ "name": name, "number": number }),
        None => json!({ "number": number }),
    };
    let mut plain = Zeroizing::new(Vec::with_capacity(PLAIN_BYTES));
    plain.extend_from_slice(told.to_string().as_bytes());
    plain.resize(PLAIN_BYTES, b' ');
    plain
}

/// As much of a text as `room` bytes of JSON hold, whole characters only.
fn cut(text: &str, room: usize) -> &str {
    let mut used = 0;
    for (at, character) in text.char_indices() {
        used += json_len(character);
        if used > room {
            return &text[..at];
        }
    }
    text
}

fn json_bytes(text: &str) -> usize {
    text.chars().map(json_len).sum()
}

/// Bytes of a character in a JSON text as serde_json writes it.
fn json_len(character: char) -> usize {
    match character {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\0'..='\u{1f}' => 6,
        _ => character.len_utf8(),
    }
}

#[cfg(test)]
mod tests;
