//! Which shard owns what: pure functions, used by the daemon and the simulated world alike.

use std::hash::{BuildHasher, Hasher};
use std::net::IpAddr;

use ahash::RandomState;

use super::aor::Aor;
use super::ids::{BranchId, Capability, InstanceId, ShardId};
use super::input::Arrival;
use super::output::DestinationKey;
use super::proof::TokenKey;
use super::route_token;
use crate::sip::uri::{self, Uri};
use crate::sip::{Message, Method};

/// Places things on `shards` shards by a hash keyed at start.
#[derive(Clone)]
pub struct Placement {
    shards: u16,
    key: RandomState,
}

impl Placement {
    /// A placement over `shards` shards (at least one), keyed by `seed`.
    #[must_use]
    pub fn new(shards: u16, seed: [u64; 2]) -> Self {
        Self { shards: shards.max(1), key: RandomState::with_seeds(seed[0], seed[1], !seed[0], !seed[1]) }
    }

    /// How many shards there are.
    #[must_use]
    pub fn shards(&self) -> u16 {
        self.shards
    }

    /// The shard of an account: two devices of one account meet in one shard.
    #[must_use]
    pub fn account(&self, tenant: &str, aor: &str, registrar: &str) -> ShardId {
        let mut hasher = self.key.build_hasher();
        for part in [tenant, aor, registrar] {
            hasher.write(part.as_bytes());
            hasher.write_u8(0xff);
        }
        self.shard(hasher.finish())
    }

    /// The shard of an address of record that we hold no instance for: its phone's registrations and requests meet there.
    #[must_use]
    pub fn aor(&self, aor: &Aor) -> ShardId {
        self.account("", aor.as_str(), "")
    }

    /// The home shard of a destination.
    #[must_use]
    pub fn destination(&self, destination: &DestinationKey) -> ShardId {
        self.shard(self.key.hash_one(destination))
    }

    /// The home shard of a device.
    #[must_use]
    pub fn device(&self, tenant: &str, device: &str) -> ShardId {
        self.account(tenant, device, "")
    }

    /// The home shard of a push token.
    #[must_use]
    pub fn token(&self, token: &TokenKey) -> ShardId {
        self.shard(self.key.hash_one(token))
    }

    /// The shard written into an instance id, if it exists here.
    #[must_use]
    pub fn instance(&self, id: &InstanceId) -> Option<ShardId> {
        self.existing(id.shard())
    }

    /// The shard written into a capability, if it exists here.
    #[must_use]
    pub fn capability(&self, capability: &Capability) -> Option<ShardId> {
        self.existing(capability.shard())
    }

    /// The shard written into a branch, if it exists here.
    #[must_use]
    pub fn branch(&self, branch: &BranchId) -> Option<ShardId> {
        self.existing(branch.shard())
    }

    /// The shard a SIP message belongs to: by the branch of a response's top Via, by a route token, by the capability in
    /// the top Route or the Request-URI, by the instance in a REGISTER's To; else, from a registrar, by the called name and
    /// the source; a request that names nothing of ours by the address of record in From; else by its source.
    #[must_use]
    pub fn message(&self, message: &Message, arrival: &Arrival) -> ShardId {
        let named = if message.status().is_some() { response_shard(message) } else { request_shard(message) };
        named
            .and_then(|shard| self.existing(shard))
            .or_else(|| called_user(message, arrival).map(|user| self.called(&user, arrival.peer.ip())))
            .unwrap_or_else(|| self.nameless(message, &arrival.peer))
    }

    /// The home shard of a name called from an address.
    #[must_use]
    pub fn called(&self, user: &[u8], address: IpAddr) -> ShardId {
        self.shard(self.key.hash_one((user, address)))
    }

    /// The shard of a message that names nothing of ours: the phone whose registration passed through us is known by From.
    #[must_use]
    pub fn nameless(&self, message: &Message, peer: &std::net::SocketAddr) -> ShardId {
        let aor = if message.status().is_none() { Aor::of_sender(message) } else { None };
        aor.map_or_else(|| self.source(peer), |aor| self.aor(&aor))
    }

    /// The shard of a source, for messages that name nothing of ours.
    #[must_use]
    pub fn source(&self, peer: &std::net::SocketAddr) -> ShardId {
        self.shard(self.key.hash_one(peer.ip()))
    }

    /// `shard`, if there are that many.
    #[must_use]
    pub fn existing(&self, shard: ShardId) -> Option<ShardId> {
        (shard.0 < self.shards).then_some(shard)
    }

    fn shard(&self, hash: u64) -> ShardId {
        ShardId(u16::try_from(hash % u64::from(self.shards)).unwrap_or(0))
    }
}

fn response_shard(response: &Message) -> Option<ShardId> {
    let via = response.top_via().ok()?;
    Some(BranchId::from_branch(via.branch()?.as_bytes())?.shard())
}

/// Whether a request says by itself where it belongs: by a route token, a capability or an instance.
pub(super) fn names_a_shard(request: &Message) -> bool {
    request_shard(request).is_some()
}

fn request_shard(request: &Message) -> Option<ShardId> {
    if let Some(Ok(route)) = request.routes().next()
        && let Some(user) = route.uri().user()
    {
        if let Some((shard, ..)) = route_token::read(user) {
            return Some(shard);
        }
        // Our Path (RFC 3327) comes back as a Route.
        if let Some(capability) = Capability::parse(user) {
            return Some(capability.shard());
        }
    }
    if request.method() == Some(Method::Register) {
        return Some(InstanceId::parse(request.to().ok()?.uri().user()?)?.shard());
    }
    Some(capability_of(request)?.shard())
}

/// The capability in the Request-URI: its user part, or the parameter `cap` beside an account's own name.
pub(super) fn capability_of(request: &Message) -> Option<Capability> {
    let uri = Uri::parse(request.request_uri()?).ok()?;
    let named = || Capability::parse(uri.param("cap").flatten()?.as_bytes());
    uri.user().and_then(Capability::parse).or_else(named)
}

/// The name a registrar or PBX calls, unescaped. Others call nobody by name.
pub(super) fn called_user(request: &Message, arrival: &Arrival) -> Option<Vec<u8>> {
    let known = arrival.registrar || arrival.trunk.is_some();
    if !known || request.method() == Some(Method::Register) || capability_of(request).is_some() {
        return None;
    }
    Uri::parse(request.request_uri()?).ok()?.user().map(uri::unescape)
}
