//! One REGISTER exchange: from the request to its final answer, challenges included.
//!
//! Shared by `bindings` (keeping a registration) and `erasures` (removing it); it decides how challenges are answered,
//! not when to register.

mod identity;
mod others;
mod signing;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

pub(crate) use identity::Identity;
use identity::{Answered, Wanted};
pub(crate) use signing::ha1_of;

use super::account::TrunkHost;
use super::challenges::{Admission, Challenges};
use super::ids::{BranchId, ListenerId, ShardId};
use super::input::Located;
use super::output::{DestinationKey, Hop, RegistrationReason, TlsIdentity, TrunkKey};
use super::policy::Policy;
use super::random::Random;
use super::tally::Tally;
use crate::clock::Instant;
use crate::sip::answering::Obstacle;
use crate::sip::registration;
use crate::sip::transaction::{NonInviteClient, Timeout, Verdict};
use crate::sip::{Message, Transport};
use crate::vault::Vault;

/// The longest expiry that is asked for because a 423 demands it (RFC 3261 §10.2.8). It may outlast the lease: the un-REGISTER
/// at its end removes the binding.
const EXPIRES_MAX: Duration = registration::GRANTED_MAX;
/// How often one exchange asks for a longer expiry: a proxy and the registrar behind it may each have a minimum.
const LONGER_MAX: u8 = 2;

/// What an exchange borrows from its shard.
pub(crate) struct Desk<'a> {
    pub(crate) shard: ShardId,
    pub(crate) policy: &'a Policy,
    pub(crate) random: &'a mut Random,
    pub(crate) vault: &'a mut Vault,
    pub(crate) tally: &'a mut Tally,
}

/// Where a REGISTER goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) hop: Hop,
    pub(crate) transport: Transport,
    pub(crate) listener: ListenerId,
    pub(crate) address: std::net::SocketAddr,
}

/// A registration that holds, for whoever else speaks to the registrar.
#[derive(Clone, Copy)]
pub(crate) struct Registered<'a> {
    pub(crate) identity: &'a Identity,
    /// Where it is registered: the pinned destination.
    pub(crate) target: &'a Target,
    pub(crate) lease_ends: Instant,
}

impl Target {
    /// The destination it belongs to, for permits.
    pub(crate) fn destination(&self) -> DestinationKey {
        DestinationKey { transport: self.transport, address: self.address }
    }

    /// The way to an address that was found for `host`; `None` where we have no listener for it.
    pub(crate) fn at(
        located: Located,
        host: &TrunkHost,
        spki_sha256: Option<[u8; 32]>,
        policy: &Policy,
    ) -> Option<Self> {
        let Located { transport, address } = located;
        let listener = policy.trunk_listener(transport, address.is_ipv6())?;
        let hop = match transport {
            Transport::Udp => {
                let own = policy.listener(listener)?;
                if own.transport != Transport::Udp || own.local.is_ipv6() != address.is_ipv6() {
                    return None;
                }
                Hop::Datagram { listener, peer: address }
            }
            Transport::Tcp => Hop::Trunk(Arc::new(TrunkKey { transport, remote: address, listener, identity: None })),
            Transport::Tls => {
                let host = match host {
                    TrunkHost::Name(name) => name.clone(),
                    TrunkHost::Address(literal) => literal.to_string(),
                };
                let identity = Some(TlsIdentity { host, spki_sha256 });
                Hop::Trunk(Arc::new(TrunkKey { transport, remote: address, listener, identity }))
            }
            Transport::Ws | Transport::Wss => return None,
        };
        Some(Self { hop, transport, listener, address })
    }
}

/// What is left of a binding that will never register again.
pub(crate) struct Leaving {
    pub(crate) identity: Identity,
    /// Where the registrar may hold our Contact.
    pub(crate) bound_at: Option<Target>,
}

/// How strict one exchange is.
#[derive(Clone, Copy)]
pub(crate) struct Terms {
    /// The expiry to ask for; zero removes the binding.
    pub(crate) expires: Duration,
    /// Refusals that end the exchange.
    pub(crate) refusals_max: u8,
    /// Most datagrams for one request; `None`: by the RFC.
    pub(crate) datagrams_max: Option<u8>,
}

/// A REGISTER under way.
pub(crate) struct Exchange {
    pub(crate) branch: BranchId,
    pub(crate) target: Target,
    transaction: NonInviteClient,
    terms: Terms,
    /// Boxed: a binding has an exchange only now and then, and room for one always.
    challenges: Box<Challenges>,
    /// How often a 423 was followed.
    longer: u8,
    /// The request on the wire asks who is there; the registration follows it.
    querying: bool,
    /// Requests that were sent; retransmissions do not count.
    pub(crate) requests: u8,
    /// When the last of them was sent.
    pub(crate) asked: Instant,
}

/// What came of a response or a timer.
pub(crate) enum Step {
    /// Nothing yet.
    Wait,
    /// Send these bytes to the target.
    Send(Bytes),
    /// The exchange is over.
    Done(End),
}

/// How an exchange ended.
#[derive(Debug)]
pub(crate) enum End {
    /// 2xx, and our Contact holds.
    Granted(Grant),
    /// The credentials were refused.
    Refused { verdict: String },
    /// Nothing that is held can sign the challenge. It tells nothing of the credentials.
    Unsignable(Unsigned),
    /// Another final answer, or a 2xx that grants us nothing.
    Failed { code: u16, reason: RegistrationReason, verdict: String, retry_after: Option<Duration> },
    /// No final answer.
    Silent,
}

/// What a registrar granted.
#[derive(Debug)]
pub(crate) struct Grant {
    pub(crate) expires: Duration,
    pub(crate) verdict: String,
    /// Our Contact is listed under another URI.
    pub(crate) rewritten: bool,
}

/// A challenge that cannot be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unsigned {
    /// The registrar's verdict, and what stands in the way.
    pub(crate) words: String,
    /// Whether other credentials would help.
    pub(crate) reason: RegistrationReason,
}

impl Exchange {
    /// Starts an exchange; the returned bytes go to the target now. The cached nonce is used, if there is one.
    pub(crate) fn start(
        identity: &mut Identity,
        target: Target,
        terms: Terms,
        desk: &mut Desk<'_>,
        now: Instant,
    ) -> (Self, Bytes) {
        let branch = BranchId::mint(desk.shard, desk.random.bytes());
        let removing = terms.expires.is_zero();
        let terms = Terms { expires: if removing { terms.expires } else { identity.at_least(terms.expires) }, ..terms };
        let querying = !removing && identity.wants_query();
        let wanted = if querying { Wanted::Query } else { Wanted::Binding(terms.expires) };
        let request = identity.write(&target, branch, wanted, desk, now);
        let transaction =
            NonInviteClient::new(request.clone(), target.transport.is_reliable(), terms.datagrams_max, now);
        let challenges = Box::default();
        let exchange =
            Self { branch, target, transaction, terms, challenges, longer: 0, querying, requests: 1, asked: now };
        (exchange, request)
    }

    /// Takes a response to the request on the wire.
    pub(crate) fn handle_response(
        &mut self,
        response: &Message,
        identity: &mut Identity,
        desk: &mut Desk<'_>,
        now: Instant,
    ) -> Step {
        let Some(status) = response.status() else { return Step::Wait };
        if self.transaction.handle_response(status, now) != Verdict::Deliver || status.is_provisional() {
            return Step::Wait;
        }
        let verdict = registration::verdict(response);
        match status.code() {
            401 | 407 => self.answer(response, verdict, identity, desk, now),
            // A registrar that does not answer such a question may register us all the same.
            code if self.querying => {
                identity.handle_query((200..=299).contains(&code).then_some(response), now);
                self.begin_binding(identity, desk, now)
            }
            code @ 200..=299 => {
                Step::Done(conclude(code, identity.handle_granted(response, self.terms.expires, now), verdict))
            }
            423 => self.ask_longer(response, verdict, identity, desk, now),
            code => {
                let (reason, retry_after) = (RegistrationReason::Rejected, response.retry_after());
                Step::Done(End::Failed { code, reason, verdict, retry_after })
            }
        }
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Step {
        match self.transaction.handle_timeout(now) {
            Timeout::Idle | Timeout::Terminated => Step::Wait,
            Timeout::Retransmit => Step::Send(self.transaction.request().clone()),
            Timeout::TimedOut => Step::Done(End::Silent),
        }
    }

    /// When `handle_timeout` is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.transaction.poll_timeout()
    }

    fn answer(
        &mut self,
        response: &Message,
        verdict: String,
        identity: &mut Identity,
        desk: &mut Desk<'_>,
        now: Instant,
    ) -> Step {
        match identity.admit(response, &mut self.challenges, self.terms.refusals_max, desk.vault) {
            Admission::Answered => self.resend(identity, desk, now),
            Admission::Refused => Step::Done(End::Refused { verdict }),
            Admission::Unsignable(obstacle) => {
                let reason = match obstacle {
                    Obstacle::NoSecret { .. } => RegistrationReason::NoMatchingHa1,
                    Obstacle::NoDigest
                    | Obstacle::Unusable
                    | Obstacle::TooMany
                    | Obstacle::Qop(_)
                    | Obstacle::Algorithm(_) => RegistrationReason::ChallengeUnsupported,
                };
                let words = format!("{verdict}; {obstacle}");
                Step::Done(End::Unsignable(Unsigned { words, reason }))
            }
        }
    }

    fn ask_longer(
        &mut self,
        response: &Message,
        verdict: String,
        identity: &mut Identity,
        desk: &mut Desk<'_>,
        now: Instant,
    ) -> Step {
        let failed = |reason, verdict| {
            Step::Done(End::Failed { code: 423, reason, verdict, retry_after: response.retry_after() })
        };
        let least = response.min_expires().ok().flatten().map(|seconds| Duration::from_secs(u64::from(seconds)));
        match least.filter(|least| *least > self.terms.expires && !self.terms.expires.is_zero()) {
            Some(least) if least > EXPIRES_MAX => {
                let words = format!("{verdict}; it demands an expiry of {} s", least.as_secs());
                failed(RegistrationReason::MinExpiresTooLong, words)
            }
            Some(least) if self.longer < LONGER_MAX => {
                self.longer += 1;
                self.terms.expires = least;
                identity.set_min_expires(least);
                self.resend(identity, desk, now)
            }
            // Nothing to follow: what an earlier 423 said does not hold either.
            _ => {
                identity.set_min_expires(Duration::ZERO);
                failed(RegistrationReason::Rejected, verdict)
            }
        }
    }

    /// The query is answered: the request it was for, with counters of its own.
    fn begin_binding(&mut self, identity: &mut Identity, desk: &mut Desk<'_>, now: Instant) -> Step {
        self.querying = false;
        *self.challenges = Challenges::default();
        self.resend(identity, desk, now)
    }

    fn resend(&mut self, identity: &mut Identity, desk: &mut Desk<'_>, now: Instant) -> Step {
        (self.requests, self.asked) = (self.requests.saturating_add(1), now);
        self.branch = BranchId::mint(desk.shard, desk.random.bytes());
        let wanted = if self.querying { Wanted::Query } else { Wanted::Binding(self.terms.expires) };
        let request = identity.write(&self.target, self.branch, wanted, desk, now);
        self.transaction =
            NonInviteClient::new(request.clone(), self.target.transport.is_reliable(), self.terms.datagrams_max, now);
        Step::Send(request)
    }
}

/// What a 2xx amounts to.
fn conclude(code: u16, answered: Answered, verdict: String) -> End {
    let failed = |reason, verdict| End::Failed { code, reason, verdict, retry_after: None };
    match answered {
        Answered::Granted(expires) => End::Granted(Grant { expires, verdict, rewritten: false }),
        Answered::Rewritten(expires) => End::Granted(Grant { expires, verdict, rewritten: true }),
        Answered::Nothing => failed(RegistrationReason::ExpiryTooShort, format!("{verdict}; it grants no time at all")),
        // Contacts that are listed in the place of ours are other people's.
        Answered::Missing => {
            failed(RegistrationReason::ContactMissing, format!("{verdict}; our Contact is not among those it lists"))
        }
    }
}
