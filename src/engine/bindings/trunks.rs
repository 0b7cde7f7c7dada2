//! Connections to registrars that break, and what it means for the bindings that use them.

use std::net::SocketAddr;
use std::sync::Arc;

use super::binding::Phase;
use super::{Bindings, Timer};
use crate::clock::Instant;
use crate::engine::ids::BindingId;
use crate::engine::input::TrunkFault;
use crate::engine::output::TrunkKey;
use crate::engine::register::{Desk, End, Step};

impl Bindings {
    /// The address that holds our Contact, or may: for telling whom it concerns.
    pub(crate) fn bound_at(&self, id: BindingId) -> Option<SocketAddr> {
        self.bindings.get(&id)?.bound_at.as_ref().map(|target| target.address)
    }

    /// A trunk connection could not be opened, or is gone.
    pub(crate) fn handle_trunk_down(
        &mut self,
        trunk: &Arc<TrunkKey>,
        fault: TrunkFault,
        desk: &mut Desk<'_>,
        now: Instant,
    ) {
        let users: Vec<BindingId> =
            self.by_trunk.get(trunk).map(|users| users.iter().copied().collect()).unwrap_or_default();
        for id in users {
            let tried = self.bindings.get(&id).and_then(|binding| binding.trial.as_ref());
            if tried.is_some_and(|trial| trial.exchange.is_some()) {
                self.finish_trial(id, End::Silent, desk, now);
            }
            self.handle_cut(id, fault, desk, now);
        }
    }

    /// The connection of one binding is gone.
    fn handle_cut(&mut self, id: BindingId, fault: TrunkFault, desk: &mut Desk<'_>, now: Instant) {
        let Some(binding) = self.bindings.get_mut(&id) else { return };
        let again = binding.disconnected;
        binding.disconnected |= binding.is_registered(now);
        self.count(id, now);
        let Some(binding) = self.bindings.get_mut(&id) else { return };
        match &binding.phase {
            Phase::Exchanging(exchange) => {
                let branch = exchange.branch;
                let idle = fault == TrunkFault::Closed && binding.is_registered(now);
                // An idle connection that broke under a refresh says nothing about the registrar: once more at once.
                if idle && !std::mem::replace(&mut binding.cut_off, true) {
                    self.cease(id);
                    self.register_again(id, now);
                } else {
                    self.advance(id, branch, Step::Done(End::Silent), desk, now);
                }
            }
            // Told twice where something else was sent on it meanwhile: one break, and its pause runs.
            Phase::Resting if fault == TrunkFault::Closed && binding.is_content(now) && !again => {
                let pause = binding.cuts.handle_cut(now);
                self.schedule.set((id, Timer::Next), Some(now + pause));
            }
            Phase::Resting | Phase::Locating(_) | Phase::Waiting(_) => {}
        }
    }
}
