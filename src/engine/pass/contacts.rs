//! Contacts: a phone's own towards the phone, a handle of ours towards its registrar, and back.

use super::select::{Listing, Wish, wish};
use super::*;
use crate::engine::policy::Provider;
use crate::sip::address::Address;
use crate::sip::registration::GRANTED_MAX;
use crate::sip::uri::equivalent;
use crate::sip::{StatusCode, outbound, push_params};

/// Contacts of one REGISTER; a phone has one or two.
const CONTACTS_MAX: usize = 8;
/// RFC 3261 §10.3 step 6: what a registrar grants where nothing is asked for is its own affair; this is only what we
/// believe where it does not say.
const ASKED_DEFAULT: Duration = Duration::from_secs(3600);

/// The Contacts of a REGISTER, and the providers its 200 tells of.
pub(super) struct Naming {
    pub(super) contacts: Vec<Named>,
    pub(super) providers: Vec<Provider>,
}

impl Pass {
    /// Gives each Contact of a REGISTER its names.
    ///
    /// # Errors
    /// 555 where a push service is asked for that we do not offer, 400 for what cannot be read.
    pub(super) fn name_contacts(
        &self,
        request: &Message,
        aor: &Aor,
        listings: &[Listing<'_>],
        shard: ShardId,
    ) -> Result<Naming, StatusCode> {
        let mut named = Naming { contacts: Vec::new(), providers: Vec::new() };
        let otherwise = request.expires().ok().flatten().map(u64::from).map_or(ASKED_DEFAULT, Duration::from_secs);
        for contact in request.contacts() {
            let contact = contact.map_err(|_| StatusCode::BAD_REQUEST)?;
            if named.contacts.len() == CONTACTS_MAX
                || contact.uri().user().is_some_and(|user| Capability::parse(user).is_some())
            {
                return Err(StatusCode::BAD_REQUEST);
            }
            let first = listings.first().ok_or(StatusCode::FORBIDDEN)?;
            let (tenant, push, path, providers) = match wish(listings, &contact)? {
                Wish::Plain => (first.tenant.id.clone(), Vec::new(), first.registrar.path, Vec::new()),
                Wish::Query(providers) => (first.tenant.id.clone(), Vec::new(), first.registrar.path, providers),
                Wish::Push(choice) => (choice.tenant, choice.push, choice.path, vec![choice.provider]),
            };
            named.providers.extend(providers);
            let asked = expires_of(&contact).unwrap_or(otherwise);
            // One Path names one phone (RFC 3327 §5.2); with several Contacts each has to name itself.
            let path = path && request.supports("path") && request.contacts().count() == 1;
            named.contacts.push(self.name(&contact, aor, first, Wanted { tenant, push, path, asked }, shard));
        }
        named.providers.sort_unstable();
        named.providers.dedup();
        Ok(named)
    }

    /// The names of one Contact: by its push token, so that another address of the same phone is the same registration;
    /// else the one its URI already has; else by its URI.
    fn name(&self, contact: &Address<'_>, aor: &Aor, listing: &Listing<'_>, wanted: Wanted, shard: ShardId) -> Named {
        let Wanted { tenant, push, path, asked } = wanted;
        let uri = contact.uri();
        let stripped = push_params::stripped_uri(&uri, false);
        let registrar = &listing.registrar.host;
        let known = self.table.of_account(aor, registrar).find(|it| push.is_empty() && it.named.stripped == stripped);
        let (id, handle, purr) = match known {
            Some(binding) => (binding.named.id, binding.named.handle, binding.named.purr),
            None => {
                let mint = |label: &[u8]| self.digest(label, aor, registrar, &push, &stripped);
                (
                    InstanceId::mint(shard, mint(b"id")),
                    Capability::mint(shard, mint(b"handle")),
                    Capability::mint(shard, mint(b"purr")),
                )
            }
        };
        // Without a flow of its own the registrar must not look for one (RFC 5626 §6).
        let params = push_params::header_params(contact, if path { &[] } else { &["reg-id"] });
        let urn = outbound::instance(contact).map(str::to_owned);
        Named { id, handle, purr, uri: uri.raw().to_vec(), stripped, params, urn, tenant, push, asked, path }
    }

    /// 128 bits that only we can make, of what stays the same for a registration.
    fn digest(&self, label: &[u8], aor: &Aor, registrar: &TrunkHost, push: &[PushTarget], stripped: &[u8]) -> [u8; 16] {
        let mut context = hmac::Context::with_key(&self.key);
        let mut part = |bytes: &[u8]| {
            context.update(&bytes.len().to_be_bytes());
            context.update(bytes);
        };
        part(label);
        part(aor.as_str().as_bytes());
        match registrar {
            TrunkHost::Name(name) => part(name.as_bytes()),
            TrunkHost::Address(address) => part(address.to_string().as_bytes()),
        }
        for target in push {
            for text in [target.provider.as_str(), &target.app, target.token.form(), target.token.as_str()] {
                part(text.as_bytes());
            }
        }
        if push.is_empty() {
            part(stripped);
        }
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&context.sign().as_ref()[..16]);
        bytes
    }

    /// The Contacts of a 200 as the phone knows them: its own of this REGISTER, and of the same address of record those of
    /// other phones that register through us.
    pub(super) fn turned_back(
        &self,
        response: &Message,
        aor: &Aor,
        registrar: &TrunkHost,
        named: &[Named],
    ) -> Option<Vec<Vec<u8>>> {
        let mut contacts = Vec::new();
        for contact in response.contacts() {
            let contact = contact.ok()?;
            let known = named.iter().chain(self.table.of_account(aor, registrar).map(|binding| &binding.named));
            let Some(own) = known.into_iter().find(|it| it.is_meant_by(&contact)) else {
                contacts.push(contact.raw().to_vec());
                continue;
            };
            let mut value = b"<".to_vec();
            value.extend_from_slice(&own.uri);
            value.push(b'>');
            value.extend_from_slice(&push_params::header_params(&contact, &[]));
            contacts.push(value);
        }
        Some(contacts)
    }
}

/// What a Contact asks for.
struct Wanted {
    tenant: TenantId,
    push: Vec<PushTarget>,
    path: bool,
    asked: Duration,
}

impl Named {
    /// The Contact as the registrar gets it.
    pub(super) fn outward(&self, target: &Target, policy: &Policy) -> Vec<u8> {
        let mut value = b"<".to_vec();
        if self.path {
            value.extend_from_slice(&self.stripped);
        } else {
            value.extend_from_slice(self.here(target, policy).as_bytes());
        }
        value.push(b'>');
        value.extend_from_slice(&self.params);
        value
    }

    /// Our own address that stands for the phone.
    pub(super) fn here(&self, target: &Target, policy: &Policy) -> String {
        let advertise = policy.listener(target.listener).map_or("", |listener| listener.advertise.as_str());
        format!("sip:{}@{advertise};transport={}", self.handle, target.transport.as_param())
    }

    /// Whether a Contact of the registrar's is this one: by its user part, as PBXs rewrite the rest; by its URI where the
    /// registrar saw the phone's own.
    fn is_meant_by(&self, contact: &Address<'_>) -> bool {
        if !self.path {
            return contact.uri().user().and_then(Capability::parse) == Some(self.handle);
        }
        Uri::parse(&self.stripped).is_ok_and(|own| equivalent(&own, &contact.uri()))
    }

    /// What a 2xx grants it; `None` where it is not listed: then it is not confirmed.
    pub(super) fn granted(&self, response: &Message) -> Option<Duration> {
        let header = || response.expires().ok().flatten().map(|seconds| Duration::from_secs(u64::from(seconds)));
        let listed = response.contacts().filter_map(Result::ok).filter(|contact| self.is_meant_by(contact));
        let granted = listed.map(|contact| expires_of(&contact).or_else(header).unwrap_or(self.asked)).max()?;
        (!granted.is_zero() && !self.asked.is_zero()).then_some(granted.min(GRANTED_MAX))
    }
}

fn expires_of(contact: &Address<'_>) -> Option<Duration> {
    let digits = contact.param("expires").flatten()?;
    let sound = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    sound.then(|| Duration::from_secs(digits.parse::<u32>().unwrap_or(u32::MAX).into()))
}
