//! Who asks: app keys and backend tokens of tenants, bearer tokens of instances.
//!
//! Everything here is decided from the request's head alone, so that a stranger's body is never read. App keys are kept
//! and compared as SHA-256 in constant time; all of them are compared, whichever matches. Instance tokens are only
//! hashed here: the engine alone knows which are right.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::jwt::{Claims, JwtFault, JwtKey, Replays, Unverified, Use};
use super::problem::{Kind, Problem};
use crate::clock::Now;
use crate::engine::account::TenantId;
use crate::engine::input::TokenHash;
use crate::vault::ProcessKey;

/// What the fingerprints of bodies are for.
const BODY_PURPOSE: &str = "reveille body of a JWT v1";
/// Longest credential looked at; the longest legitimate one is a JWT with a few claims.
const BEARER_BYTES_MAX: usize = 4096;

/// What a tenant's requests are checked against.
pub struct Tenant {
    /// Its name; the `iss` of its backend's tokens.
    pub id: TenantId,
    /// SHA-256 of each live app key; two while one replaces the other.
    pub app_key_sha256: Vec<[u8; 32]>,
    /// Verifies the tokens of its backend, if it has one.
    pub jwt_key: Option<JwtKey>,
    /// Whether hand-overs take a token of its backend alone, and no app key.
    pub jwt_required: bool,
}

/// All tenants.
pub struct Tenants {
    list: Vec<(Tenant, Replays)>,
    audience: String,
}

/// An authenticated tenant and what its credential allows.
pub(crate) struct Caller {
    pub(crate) tenant: TenantId,
    pub(crate) authority: Authority,
}

/// What a tenant's credential allows.
pub(crate) enum Authority {
    /// It sits in a shipped app: hand-overs only.
    AppKey,
    /// The tenant's backend spoke for one device.
    Backend { device: String, token: UsedToken },
}

/// A backend token in use for a hand-over.
pub(crate) struct UsedToken {
    used: Use,
    sha256: [u8; 32],
}

impl Tenants {
    /// The tenants of this service; `audience` is `sip.domain`, which every backend token must name as its `aud`.
    #[must_use]
    pub fn new(list: Vec<Tenant>, audience: String) -> Self {
        Self { list: list.into_iter().map(|tenant| (tenant, Replays::default())).collect(), audience }
    }

    /// As if a tenant had as many tokens in use as are remembered.
    #[cfg(test)]
    pub(crate) fn fill_replays(&self, tenant: &str, now: u64) {
        self.list.iter().filter(|(it, _)| &*it.id == tenant).for_each(|(_, replays)| replays.fill(now));
    }

    /// Authenticates a hand-over by app key or backend token. A backend token is in use from now on; whether it may be used for
    /// this, [`settle`](Self::settle) tells when the body is there.
    pub(crate) fn authenticate(&self, headers: &HeaderMap, now: Now) -> Result<Caller, Problem> {
        let bearer = bearer(headers)?;
        match self.app_key(bearer) {
            Some(tenant) if tenant.jwt_required => Err(takes_no_app_key()),
            Some(tenant) => Ok(Caller { tenant: tenant.id.clone(), authority: Authority::AppKey }),
            None if bearer.contains('.') => self.backend(bearer, now),
            None => Err(unknown_credential("unknown app key")),
        }
    }

    /// Whether the caller may hand over with this body: a backend token that was used before is good for the same body alone.
    pub(crate) fn settle(&self, caller: &Caller, body: &[u8], key: &ProcessKey) -> Result<(), Problem> {
        let Authority::Backend { token, .. } = &caller.authority else { return Ok(()) };
        let request = key.fingerprint(BODY_PURPOSE, &[&token.sha256, body]);
        let own = self.list.iter().find(|(tenant, _)| tenant.id == caller.tenant);
        own.map_or(Err(JwtFault::Replayed), |(_, replays)| replays.settle(&token.used, request)).map_err(refuse_jwt)
    }

    /// Authenticates a call that is about a whole tenant.
    pub(crate) fn administrator(&self, headers: &HeaderMap, now: Now) -> Result<TenantId, Problem> {
        let bearer = bearer(headers)?;
        match self.app_key(bearer) {
            Some(tenant) if tenant.jwt_required => return Err(takes_no_app_key()),
            Some(_) => return Err(app_key_may_only_hand_over()),
            None if !bearer.contains('.') => return Err(unknown_credential("unknown app key")),
            None => {}
        }
        let (claims, (tenant, replays)) = self.checked(bearer, now)?;
        // A repeated order is no harm, but no use either: an administrator makes a token for each.
        replays.spend(&claims, now.wall.unix_seconds()).map_err(refuse_jwt)?;
        if claims.is_admin() {
            return Ok(tenant.id.clone());
        }
        Err(Problem::new(
            Kind::Forbidden,
            "Calls about a whole tenant need a JWT with \"scope\": \"admin\".",
            "a JWT without scope admin asked for a tenant-wide call",
        ))
    }

    /// The hash of the instance token a call carries. Whether it is right is the engine's to say.
    pub(crate) fn instance_token(&self, headers: &HeaderMap) -> Result<TokenHash, Problem> {
        let bearer = bearer(headers)?;
        if bearer.contains('.') {
            return Err(Problem::new(
                Kind::Unauthorized,
                "Calls about an instance take the instance token that POST /v1/instances returned, not a JWT.",
                "a JWT where an instance token belongs",
            ));
        }
        if self.app_key(bearer).is_some() {
            return Err(app_key_may_only_hand_over());
        }
        Ok(TokenHash(sha256(bearer.as_bytes())))
    }

    fn app_key(&self, key: &str) -> Option<&Tenant> {
        let presented = sha256(key.as_bytes());
        let mut found = None;
        for (tenant, _) in &self.list {
            for known in &tenant.app_key_sha256 {
                if verify_slices_are_equal(known, &presented).is_ok() && found.is_none() {
                    found = Some(tenant);
                }
            }
        }
        found
    }

    fn backend(&self, token: &str, now: Now) -> Result<Caller, Problem> {
        let (claims, (tenant, replays)) = self.checked(token, now)?;
        let used = replays.begin(&claims, now.wall.unix_seconds()).map_err(refuse_jwt)?;
        let token = UsedToken { used, sha256: sha256(token.as_bytes()) };
        Ok(Caller { tenant: tenant.id.clone(), authority: Authority::Backend { device: claims.sub, token } })
    }

    /// The claims of a token that is signed, meant for us and alive, and whose it is.
    fn checked(&self, token: &str, now: Now) -> Result<(Claims, &(Tenant, Replays)), Problem> {
        let (claims, issuing) = self.verified(token).map_err(refuse_jwt)?;
        claims.check(&self.audience, now.wall.unix_seconds()).map_err(refuse_jwt)?;
        Ok((claims, issuing))
    }

    /// The claims of a token whose signature is right, and whose it is.
    pub(super) fn verified(&self, token: &str) -> Result<(Claims, &(Tenant, Replays)), JwtFault> {
        let (key, issuing) = self.key_for(&Unverified::read(token)?).ok_or(JwtFault::Signature)?;
        let claims = key.verify(token);
        let issuing = issuing.ok_or(JwtFault::Signature)?;
        Ok((claims?, issuing))
    }

    /// The key to try a token with, and the tenant whose it is, if it is the one that the token claims. A token of an unknown
    /// tenant, or of another algorithm than its tenant's, is tried with another's key of that algorithm: how long the refusal
    /// takes names no tenant and none's algorithm.
    pub(super) fn key_for(&self, token: &Unverified) -> Option<(&JwtKey, Option<&(Tenant, Replays)>)> {
        let keys = || {
            let all = self.list.iter().filter_map(|it| Some((it.0.jwt_key.as_ref()?, it)));
            all.filter(|(key, _)| key.suits(token))
        };
        let own = keys().find(|(_, it)| *it.0.id == *token.issuer).map(|(key, it)| (key, Some(it)));
        own.or_else(|| keys().next().map(|(key, _)| (key, None)))
    }
}

/// SHA-256 of a bearer credential.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

/// The credential of `Authorization: Bearer …`; exactly one such header (RFC 6750 §2.1).
fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let wanted = || {
        Problem::new(
            Kind::Unauthorized,
            "Send exactly one header \"Authorization: Bearer CREDENTIAL\".",
            "no usable credential",
        )
    };
    let mut fields = headers.get_all(AUTHORIZATION).iter();
    let (Some(field), None) = (fields.next(), fields.next()) else { return Err(wanted()) };
    let text = field.to_str().map_err(|_| wanted())?;
    let (scheme, credential) = text.split_once(' ').ok_or_else(wanted)?;
    let credential = credential.trim_matches(' ');
    // RFC 6750 §2.1: b64token.
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
    let fits = !credential.is_empty() && credential.len() <= BEARER_BYTES_MAX && credential.bytes().all(is_token);
    if scheme.eq_ignore_ascii_case("bearer") && fits { Ok(credential) } else { Err(wanted()) }
}

fn takes_no_app_key() -> Problem {
    Problem::new(
        Kind::Forbidden,
        "This tenant takes no app key: its accounts are handed over with a JWT of its backend.",
        "an app key of a tenant that requires JWTs",
    )
}

fn app_key_may_only_hand_over() -> Problem {
    Problem::new(
        Kind::Forbidden,
        "An app key may only call POST /v1/instances. Calls about an instance take the instance token which that call \
         returned; calls about a tenant take a JWT of its backend.",
        "an app key where it may not be used",
    )
}

/// One text for everything that is wrong before a signature has verified: strangers learn nothing about tenants.
fn unknown_credential(log: &'static str) -> Problem {
    Problem::new(
        Kind::Unauthorized,
        "The credential is neither a live app key nor a JWT (iss = tenant, signed with the algorithm of the tenant's \
         configured key) whose signature verifies.",
        log,
    )
}

fn refuse_jwt(fault: JwtFault) -> Problem {
    match fault {
        JwtFault::Malformed => unknown_credential("malformed JWT"),
        JwtFault::Signature => unknown_credential("JWT of an unknown issuer, algorithm or signature"),
        JwtFault::Claim(detail) => Problem::new(Kind::Unauthorized, detail, detail),
        JwtFault::Replayed => Problem::new(
            Kind::Unauthorized,
            "This jti was used before: every request needs a JWT of its own, but for the same hand-over once more.",
            "JWT replayed",
        ),
        JwtFault::ReplaysFull(after) => Problem::new(
            Kind::RateLimited,
            "Too many JWTs of this tenant are in use at once; come again when Retry-After says.",
            "a tenant's table of spent JWTs is full",
        )
        .come_again(after),
    }
}
