//! The challenge that an attaching device meets, and what is right of its answer.
//!
//! Beside the edge because a nonce is checked without anything remembered: it is a time and its MAC. It attaches nothing.

use aws_lc_rs::hmac;

use super::{Duration, Edge, Event, InstanceId, Instant, Policy, short};
use crate::engine::device::reply_hop;
use crate::engine::ids::{base32, from_base32};
use crate::engine::input::Arrival;
use crate::engine::token::{Tokens, Which};
use crate::sip::auth::Algorithm;
use crate::sip::proxy::Reply;
use crate::sip::uri::{Host, Uri};
use crate::sip::{HeaderName, Message, StatusCode, digest};

/// How long a nonce of ours may be used.
const NONCE_LIFE: Duration = Duration::from_secs(120);
/// Bytes of the time in a nonce, in seconds, and of its MAC: each byte counts where a REGISTER is short. A guessed
/// MAC gives an attacker a nonce, and no answer to it.
const TIME_BYTES: usize = 4;
const MAC_BYTES: usize = 8;

/// How a challenge is written, the shortest at last: in which form, with which `qop`, and whether the Via says where the
/// request came from. Without `algorithm` it is MD5 (RFC 7616 §3.3), without `qop` the digest of RFC 2069, which RFC 3261 §22.4
/// keeps. What `received` and `rport` say, the device learns from the answer to its credentials.
const CHALLENGES: [(short::Form, &str, bool); 5] = [
    (short::Form::Long, QOP, true),
    (short::Form::Compact, QOP, true),
    (short::Form::Bare, QOP, true),
    (short::Form::Bare, "", true),
    (short::Form::Bare, "", false),
];
const QOP: &str = ",qop=\"auth\"";

impl Edge {
    /// Checks the credentials, and tells which token they show; `Err(stale)` asks for a (new) challenge.
    pub(super) fn check(
        &self,
        request: &Message,
        arrival: &Arrival,
        instance: InstanceId,
        tokens: &Tokens,
        now: Instant,
    ) -> Result<Which, bool> {
        let credentials = request.credentials(HeaderName::Authorization, &self.realm).ok_or(false)?;
        if InstanceId::parse(credentials.username.as_bytes()) != Some(instance)
            || !matches!(credentials.algorithm, None | Some(Algorithm::Md5))
        {
            return Err(false);
        }
        let verify = |(ha1, which)| digest::verify(&credentials, ha1, Algorithm::Md5, "REGISTER").then_some(which);
        let [current, former] = tokens.edge_ha1s().map(verify);
        let which = current.or(former).ok_or(false)?;
        let fresh = self.nonce_age(&credentials.nonce, arrival, instance, now).is_some_and(|age| age <= NONCE_LIFE);
        if fresh { Ok(which) } else { Err(true) }
    }

    /// A nonce is a time and its MAC under source and instance: nothing is stored, and one seen on the way is useless from
    /// elsewhere.
    fn nonce(&self, arrival: &Arrival, instance: InstanceId, now: Instant) -> String {
        let time = u32::try_from(now.as_nanos() / 1_000_000_000).unwrap_or(u32::MAX).to_be_bytes();
        let mut bytes = [0u8; TIME_BYTES + MAC_BYTES];
        bytes[..TIME_BYTES].copy_from_slice(&time);
        bytes[TIME_BYTES..].copy_from_slice(&self.nonce_mac(arrival, instance, time));
        let mut text = String::with_capacity(20);
        base32(&bytes, &mut text);
        text
    }

    fn nonce_age(&self, nonce: &str, arrival: &Arrival, instance: InstanceId, now: Instant) -> Option<Duration> {
        let bytes: [u8; TIME_BYTES + MAC_BYTES] = from_base32(nonce.as_bytes())?;
        let mut time = [0u8; TIME_BYTES];
        time.copy_from_slice(&bytes[..TIME_BYTES]);
        let mac = self.nonce_mac(arrival, instance, time);
        aws_lc_rs::constant_time::verify_slices_are_equal(&mac, &bytes[TIME_BYTES..]).ok()?;
        let at = Instant::from_nanos(u64::from(u32::from_be_bytes(time)) * 1_000_000_000);
        (at <= now).then(|| now.saturating_since(at))
    }

    fn nonce_mac(&self, arrival: &Arrival, instance: InstanceId, time: [u8; TIME_BYTES]) -> [u8; MAC_BYTES] {
        let mut context = hmac::Context::with_key(&self.nonce_key);
        context.update(&time);
        context.update(instance.as_bytes());
        context.update(arrival.peer.to_string().as_bytes());
        context.update(arrival.transport.as_param().as_bytes());
        let mut mac = [0; MAC_BYTES];
        mac.copy_from_slice(&context.sign().as_ref()[..MAC_BYTES]);
        mac
    }

    /// Challenges the device in the first form that its source has paid for.
    pub(super) fn challenge(
        &mut self,
        request: &Message,
        arrival: &Arrival,
        instance: InstanceId,
        stale: bool,
        tag: &str,
        now: Instant,
    ) {
        let nonce = self.nonce(arrival, instance, now);
        let stale = if stale { ",stale=true" } else { "" };
        let most = if arrival.is_reachable() { usize::MAX } else { request.bytes().len() };
        let answer = CHALLENGES.into_iter().find_map(|(form, qop, source)| {
            let value = format!("Digest realm=\"{}\",nonce=\"{nonce}\"{qop}{stale}", self.realm);
            let extra = [("WWW-Authenticate", value)];
            let (code, source) = (StatusCode::UNAUTHORIZED, source.then_some(arrival.peer));
            let reply = Reply { code, to_tag: Some(tag), source, record_route: false, extra: &extra };
            short::write(request, &reply, form, most)
        });
        self.events.extend(answer.map(|answer| Event::Send(reply_hop(request, arrival), answer)));
    }
}

/// Whether the `uri` that the credentials were made for is the Request-URI's, or any of ours: phones write it with and without
/// ports, parameters and user part. RFC 7616 §3.4.6: where both differ, the server "SHOULD return a 400".
pub(super) fn is_meant_for_us(request: &Message, realm: &str, policy: &Policy) -> bool {
    let Some(credentials) = request.credentials(HeaderName::Authorization, realm) else { return false };
    let signed = credentials.uri.as_ref();
    if Some(signed.as_bytes()) == request.request_uri() {
        return true;
    }
    let with_scheme = format!("sip:{signed}");
    let Some(host) = host_of(signed).or_else(|| host_of(&with_scheme)) else { return false };
    let asked = request.request_uri().and_then(|uri| std::str::from_utf8(uri).ok()).and_then(host_of);
    let advertised: Vec<String> = policy.listeners.iter().map(|it| format!("sip:{}", it.advertise)).collect();
    let domain = format!("sip:{}", policy.domain);
    let ours = advertised.iter().map(String::as_str).chain([domain.as_str()]).filter_map(host_of);
    let bound = policy.listeners.iter().map(|it| Host::Address(it.local.ip()));
    asked.into_iter().chain(ours).chain(bound).any(|other| same(host, other))
}

fn host_of(uri: &str) -> Option<Host<'_>> {
    let uri = Uri::parse(uri.as_bytes()).ok()?;
    let is_sip = ["sip", "sips"].iter().any(|scheme| uri.scheme().eq_ignore_ascii_case(scheme));
    is_sip.then(|| uri.host())
}

fn same(a: Host<'_>, b: Host<'_>) -> bool {
    match (a, b) {
        (Host::Address(a), Host::Address(b)) => a.to_canonical() == b.to_canonical(),
        (Host::Name(a), Host::Name(b)) => a.trim_end_matches('.').eq_ignore_ascii_case(b.trim_end_matches('.')),
        _ => false,
    }
}
