//! What others may know of a registration: its state in words, how many are in which, and where each is registered.

use std::net::IpAddr;

use super::{Bindings, Event};
use crate::clock::Instant;
use crate::engine::ids::BindingId;
use crate::engine::output::{RegistrationReason, RegistrationState, RegistrationView};
use crate::engine::register::{Registered, Target};

/// The verdict on a registration that may hold at the registrar, over a connection that is gone.
const DISCONNECTED: &str = "the connection to the registrar is down, and is being opened again";
/// The verdict on a registration whose next REGISTER waits long.
const PACED: &str = "waits for its turn: others go first to the same registrar";

impl Bindings {
    /// How full each table is.
    pub(crate) fn tables(&self, out: &mut Vec<(&'static str, usize)>) {
        out.extend([
            ("bindings", self.bindings.len()),
            ("bindings.branches", self.by_branch.len()),
            ("bindings.queries", self.by_query.len()),
            ("bindings.trunks", self.by_trunk.len()),
        ]);
    }

    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// How many bindings are in which state, by `RegistrationState::ALL`; `erasing` are elsewhere already.
    pub(crate) fn census(&self, erasing: usize) -> [u64; RegistrationState::ALL.len()] {
        let mut census = self.census;
        census[RegistrationState::Erasing as usize] = erasing as u64;
        census
    }

    /// How many registrations have which reason, by `RegistrationReason::ALL`.
    pub(crate) fn reasons(&self) -> [u64; RegistrationReason::ALL.len()] {
        self.reasons
    }

    /// The registration as the app may know it.
    pub(crate) fn view(&self, id: BindingId, now: Instant) -> RegistrationView {
        let Some(binding) = self.bindings.get(&id) else {
            return RegistrationView {
                state: RegistrationState::Erasing,
                expires: None,
                reason: None,
                verdict: None,
                other_contacts: 0,
                dropped_contacts: 0,
                replaced_contacts: 0,
                moving: None,
            };
        };
        let state = binding.state(now);
        let reason = binding.reason(now);
        let counts = binding.identity.counts();
        RegistrationView {
            state,
            expires: match state {
                RegistrationState::Registered => binding.granted,
                RegistrationState::Foreground => self.kept(id, now).map(|kept| kept.expires),
                _ => None,
            },
            reason,
            verdict: match reason {
                Some(RegistrationReason::Disconnected) => Some(DISCONNECTED.to_owned()),
                Some(RegistrationReason::Pacing) if binding.judged.is_none() => Some(PACED.to_owned()),
                _ => binding.verdict.clone(),
            },
            other_contacts: counts.other,
            dropped_contacts: counts.dropped,
            replaced_contacts: counts.replaced,
            moving: None,
        }
    }

    /// Whether the address is one the registrar or its proxy resolved to (now, or one expiry ago).
    pub(crate) fn is_source(&self, id: BindingId, address: IpAddr, now: Instant) -> bool {
        self.bindings.get(&id).is_some_and(|binding| {
            let (former, until) = &binding.former_sources;
            binding.sources.contains(&address)
                || (*until > now && former.contains(&address))
                || binding.target.as_ref().is_some_and(|target| target.address.ip() == address)
        })
    }

    /// The trunk a binding is registered over, for dialogs whose own connection is gone.
    pub(crate) fn trunk(&self, id: BindingId) -> Option<&Target> {
        self.bindings.get(&id)?.target.as_ref()
    }

    /// A registration, while it holds.
    pub(crate) fn registered(&self, id: BindingId, now: Instant) -> Option<Registered<'_>> {
        let binding = self.bindings.get(&id).filter(|binding| binding.is_registered(now))?;
        let target = binding.target.as_ref()?;
        Some(Registered { identity: &binding.identity, target, lease_ends: binding.lease_ends })
    }

    /// Counts the binding as what it is now. What it was told as stays: a connection that breaks and is opened again at once is no
    /// news.
    pub(super) fn count(&mut self, id: BindingId, now: Instant) {
        let Some(binding) = self.bindings.get_mut(&id) else { return };
        let (present, members) = (binding.state(now), binding.members());
        let former = std::mem::replace(&mut binding.counted, present);
        self.census[former as usize] -= members;
        self.census[present as usize] += members;
        let reason = binding.reason(now);
        let former = std::mem::replace(&mut binding.counted_reason, reason);
        if let Some(former) = former {
            self.reasons[former as usize] -= 1;
        }
        if let Some(reason) = reason {
            self.reasons[reason as usize] += 1;
        }
    }
}
