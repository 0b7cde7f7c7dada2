//! One REGISTER exchange: from the request to its final answer, challenges included.
//!
//! Shared by `bindings` (keeping a registration) and `erasures` (removing it); it decides how challenges are answered,
//! not when to register.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::account::{Account, TrunkHost};
use super::ids::{BranchId, Capability, InstanceId, ListenerId, ShardId};
use super::input::Located;
use super::output::{Hop, TlsIdentity, TrunkKey};
use super::policy::Policy;
use super::random::Random;
use super::tally::Tally;
use crate::clock::Instant;
use crate::sip::auth::Algorithm;
use crate::sip::digest::{self, Secret, Session};
use crate::sip::proxy::OwnVia;
use crate::sip::registration::{self, Register};
use crate::sip::transaction::{NonInviteClient, Timeout, Verdict};
use crate::sip::{HeaderName, Message, Transport};
use crate::vault::{CredentialId, Ha1, Ha1Algorithm, Lent, Vault};

/// How often we answer a challenge within one exchange: the first 401, and once more on the new nonce of a second one.
const CHALLENGE_ANSWERS_MAX: u8 = 2;

/// How often a registrar may call our nonce stale within one exchange (RFC 7616 §3.3) before it counts as a refusal.
const STALE_MAX: u8 = 1;

/// What an exchange borrows from its shard.
pub(crate) struct Desk<'a> {
    pub(crate) shard: ShardId,
    pub(crate) policy: &'a Policy,
    pub(crate) random: &'a mut Random,
    pub(crate) vault: &'a mut Vault,
    pub(crate) tally: &'a mut Tally,
}

/// What we are at the registrar: all that stays the same for a binding's whole life, and its counters.
pub(crate) struct Identity {
    pub(crate) instance: InstanceId,
    pub(crate) capability: Capability,
    pub(crate) credential: CredentialId,
    aor: String,
    request_uri: String,
    username: String,
    call_id: String,
    from_tag: String,
    urn: String,
    cseq: u32,
    contact: Option<(ListenerId, String)>,
    session: Option<Session>,
}

/// Where a REGISTER goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) hop: Hop,
    pub(crate) transport: Transport,
    pub(crate) listener: ListenerId,
    pub(crate) address: std::net::SocketAddr,
}

impl Target {
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
    /// The longest expiry a 423 may talk us into.
    pub(crate) expires_max: Duration,
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
    /// Whether the request on the wire answers a nonce that is fresh in this exchange.
    answers_fresh: bool,
    answers: u8,
    stale: u8,
    refusals: u8,
    bumped: bool,
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
    /// 2xx, with the expiry granted.
    Granted { expires: Duration, verdict: String },
    /// The credentials were refused.
    Refused { verdict: String },
    /// Another final answer.
    Failed { code: u16, verdict: String, retry_after: Option<Duration> },
    /// No final answer.
    Silent,
}

impl Identity {
    /// A new identity at the registrar of `account`.
    pub(crate) fn new(
        instance: InstanceId,
        capability: Capability,
        credential: CredentialId,
        account: &Account,
        random: &mut Random,
    ) -> Self {
        let urn = uuid::Builder::from_random_bytes(random.bytes()).into_uuid();
        Self {
            instance,
            capability,
            credential,
            aor: account.aor.clone(),
            request_uri: account.registrar.text.clone(),
            username: account.auth_username.clone(),
            call_id: random.text::<16>(),
            from_tag: random.text::<8>(),
            urn: format!("urn:uuid:{urn}"),
            cseq: 0,
            contact: None,
            session: None,
        }
    }

    /// The same registrant with other credentials, for trying them out: same Call-ID and Contact.
    pub(crate) fn with_credential(&self, credential: CredentialId, username: &str) -> Self {
        Self {
            instance: self.instance,
            capability: self.capability,
            credential,
            aor: self.aor.clone(),
            request_uri: self.request_uri.clone(),
            username: username.to_owned(),
            call_id: self.call_id.clone(),
            from_tag: self.from_tag.clone(),
            urn: self.urn.clone(),
            cseq: self.cseq,
            contact: self.contact.clone(),
            session: None,
        }
    }

    /// Takes over the sequence number of a twin that spoke for the same binding, so that CSeq only grows.
    pub(crate) fn catch_up(&mut self, twin: &Self) {
        self.cseq = self.cseq.max(twin.cseq);
        if self.contact.is_none() {
            self.contact.clone_from(&twin.contact);
        }
    }

    /// Forgets the Contact, so that the next target may choose the listener. Only before the first 200.
    pub(crate) fn forget_contact(&mut self) {
        self.contact = None;
    }

    /// Puts HA1 in the place of the password: for the realm met (the AOR's domain where there was no challenge), for the
    /// algorithm answered and the stronger ones, so that a later downgrade cannot be answered.
    pub(crate) fn distill(&self, vault: &mut Vault) {
        let domain = self.aor.rsplit_once('@').map_or("", |(_, domain)| domain);
        let (realm, weakest) = match &self.session {
            Some(session) => (session.realm.as_str(), session.algorithm),
            None => (domain.split(['>', ';', '?']).next().unwrap_or(domain), Algorithm::Md5),
        };
        let derived = vault.lend(&self.credential, |lent| match lent {
            Lent::Ha1(_) => Vec::new(),
            Lent::Password(password) => ALGORITHMS
                .into_iter()
                .filter(|&(algorithm, _)| algorithm >= weakest)
                .map(|(algorithm, kept)| Ha1 {
                    realm: realm.to_owned(),
                    algorithm: kept,
                    value: digest::ha1(algorithm, &self.username, realm, password),
                })
                .collect(),
        });
        if !derived.is_empty() {
            vault.distill(&self.credential, derived);
        }
        if let Some(session) = &self.session {
            vault.forget_weaker(&self.credential, &session.realm, kept(session.algorithm));
        }
    }

    fn contact_for(&mut self, target: &Target, policy: &Policy) -> &str {
        let (_, contact) = self.contact.get_or_insert_with(|| {
            let advertise = policy.listener(target.listener).map_or("", |listener| listener.advertise.as_str());
            let transport = target.transport.as_param();
            let text =
                format!("<sip:{}@{advertise};transport={transport}>;+sip.instance=\"<{}>\"", self.capability, self.urn);
            (target.listener, text)
        });
        contact
    }

    /// Whether we can answer for this realm and algorithm.
    fn can_answer(&self, vault: &Vault, realm: &str, algorithm: Algorithm) -> bool {
        vault.lend(&self.credential, |lent| match lent {
            Lent::Password(_) => true,
            Lent::Ha1(held) => held.iter().any(|ha1| ha1.realm == realm && ha1.algorithm == kept(algorithm)),
        })
    }

    fn authorize(&mut self, vault: &Vault, random: &mut Random) -> Option<(&'static str, String)> {
        let session = self.session.as_mut()?;
        let name = if session.proxy { "Proxy-Authorization" } else { "Authorization" };
        let cnonce = random.text::<10>();
        let (username, uri) = (&self.username, &self.request_uri);
        let value = vault.lend(&self.credential, |lent| match lent {
            Lent::Password(password) => {
                Some(session.authorize(username, Secret::Password(password), "REGISTER", uri, &cnonce))
            }
            Lent::Ha1(held) => held
                .iter()
                .find(|ha1| ha1.realm == session.realm && ha1.algorithm == kept(session.algorithm))
                .map(|ha1| session.authorize(username, Secret::Ha1(&ha1.value), "REGISTER", uri, &cnonce)),
        })?;
        Some((name, value))
    }

    fn write(&mut self, target: &Target, branch: BranchId, expires: Duration, desk: &mut Desk<'_>) -> Bytes {
        self.cseq += 1;
        let authorization = self.authorize(desk.vault, desk.random);
        let contact = self.contact_for(target, desk.policy).to_owned();
        let sent_by = desk.policy.listener(target.listener).map_or("", |listener| listener.advertise.as_str());
        let mut out = Vec::with_capacity(1024);
        registration::write_register(
            &Register {
                request_uri: &self.request_uri,
                aor: &self.aor,
                from_tag: &self.from_tag,
                call_id: &self.call_id,
                cseq: self.cseq,
                via: OwnVia { transport: target.transport, sent_by, branch: &branch.branch() },
                contact: &contact,
                expires: u32::try_from(expires.as_secs()).unwrap_or(u32::MAX),
                authorization: authorization.as_ref().map(|(name, value)| (*name, value.as_str())),
                route: None,
            },
            &mut out,
        );
        Bytes::from(out)
    }
}

/// Each algorithm in the words of `sip` and of the vault, weakest first.
const ALGORITHMS: [(Algorithm, Ha1Algorithm); 3] = [
    (Algorithm::Md5, Ha1Algorithm::Md5),
    (Algorithm::Sha256, Ha1Algorithm::Sha256),
    (Algorithm::Sha512256, Ha1Algorithm::Sha512256),
];

fn kept(algorithm: Algorithm) -> Ha1Algorithm {
    match algorithm {
        Algorithm::Md5 => Ha1Algorithm::Md5,
        Algorithm::Sha256 => Ha1Algorithm::Sha256,
        Algorithm::Sha512256 => Ha1Algorithm::Sha512256,
    }
}

/// HA1 of a password, for comparing credentials in the vault.
pub(crate) fn ha1_of(username: &str) -> impl Fn(&[u8], &str, Ha1Algorithm) -> zeroize::Zeroizing<String> {
    move |password, realm, algorithm| {
        let algorithm = match algorithm {
            Ha1Algorithm::Md5 => Algorithm::Md5,
            Ha1Algorithm::Sha256 => Algorithm::Sha256,
            Ha1Algorithm::Sha512256 => Algorithm::Sha512256,
        };
        digest::ha1(algorithm, username, realm, password)
    }
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
        let request = identity.write(&target, branch, terms.expires, desk);
        let transaction =
            NonInviteClient::new(request.clone(), target.transport.is_reliable(), terms.datagrams_max, now);
        let exchange = Self {
            branch,
            target,
            transaction,
            terms,
            answers_fresh: false,
            answers: 0,
            stale: 0,
            refusals: 0,
            bumped: false,
        };
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
            200..=299 => {
                if let (Some(session), Some(info)) =
                    (identity.session.as_mut(), response.header(HeaderName::AuthenticationInfo))
                {
                    session.handle_authentication_info(info);
                }
                let user = identity.capability.to_string();
                let granted = registration::granted_expiry(response, &user, self.terms.expires);
                match granted {
                    Some(expires) => Step::Done(End::Granted { expires, verdict }),
                    // Removed: the Contacts that are listed are other people's.
                    None if self.terms.expires.is_zero() => {
                        Step::Done(End::Granted { expires: Duration::ZERO, verdict })
                    }
                    // A 200 that lists other Contacts and not ours grants nothing we could rely on.
                    None => Step::Done(End::Failed { code: status.code(), verdict, retry_after: None }),
                }
            }
            401 | 407 => self.answer(response, verdict, identity, desk, now),
            423 => self.ask_longer(response, verdict, identity, desk, now),
            code => Step::Done(End::Failed { code, verdict, retry_after: response.retry_after() }),
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
        let stale = response.challenges().any(|challenge| challenge.stale);
        if self.answers_fresh {
            if stale && self.stale < STALE_MAX {
                self.stale += 1;
            } else {
                self.refusals += 1;
            }
        }
        if self.refusals >= self.terms.refusals_max || self.answers >= CHALLENGE_ANSWERS_MAX + self.stale {
            return Step::Done(End::Refused { verdict });
        }
        let vault = &*desk.vault;
        let chosen =
            Session::choose(response.challenges(), |realm, algorithm| identity.can_answer(vault, realm, algorithm));
        if chosen.is_none() {
            // Nothing here that we could sign: an unknown algorithm, a weaker one than before, or another realm.
            return Step::Done(End::Refused { verdict });
        }
        identity.session = chosen;
        self.answers += 1;
        self.answers_fresh = true;
        self.resend(identity, desk, now)
    }

    fn ask_longer(
        &mut self,
        response: &Message,
        verdict: String,
        identity: &mut Identity,
        desk: &mut Desk<'_>,
        now: Instant,
    ) -> Step {
        let least = response.min_expires().ok().flatten().map(|seconds| Duration::from_secs(u64::from(seconds)));
        match least {
            Some(least) if !self.bumped && least > self.terms.expires && least <= self.terms.expires_max => {
                self.bumped = true;
                self.terms.expires = least;
                self.resend(identity, desk, now)
            }
            _ => Step::Done(End::Failed { code: 423, verdict, retry_after: response.retry_after() }),
        }
    }

    fn resend(&mut self, identity: &mut Identity, desk: &mut Desk<'_>, now: Instant) -> Step {
        self.branch = BranchId::mint(desk.shard, desk.random.bytes());
        let request = identity.write(&self.target, self.branch, self.terms.expires, desk);
        self.transaction =
            NonInviteClient::new(request.clone(), self.target.transport.is_reliable(), self.terms.datagrams_max, now);
        Step::Send(request)
    }
}
