//! A phone whose app was installed anew while calls were held for it.

use super::callee::{Called, Callee};
use super::*;

/// Devices of one call, those among them whose part is over. Further ones take part in the next call.
const CALLEES_MAX: usize = 32;

impl Calls {
    /// A newer instance of the same phone takes part in the calls that are held for the older one. Where the PBX has called
    /// it by itself already, it rings for that.
    pub(crate) fn pass_on(&mut self, older: InstanceId, heir: &Callee, desk: &mut Desk<'_>, now: Instant) {
        let most = desk.policy.limits.held_calls_per_instance as usize;
        let held: Vec<RelayId> = self.held_of(older).collect();
        for id in held {
            let room = self.held_of(heir.instance).count() < most;
            let Some(relay) = self.relays.get(&id).filter(|_| room) else { continue };
            if self.is_called_by(heir.instance, &relay.request) {
                continue;
            }
            let Some(held) = self.held.get_mut(&id) else { continue };
            let Some(former) = held.place_of(older) else { continue };
            let over = held.cancelled.is_some() || held.overdue || held.callees.len() >= CALLEES_MAX;
            if over || held.callees.iter().any(|called| called.instance == heir.instance) {
                continue;
            }
            let caller = held.callees[former].caller.clone();
            let place = held.callees.len();
            // It is one phone, and may show the call already: a second push under the same name is no second call there.
            let uuid = held.callees[former].uuid;
            held.callees.push(Called::new(Callee { caller, ..heir.clone() }, uuid));
            self.admit(id, (heir.instance, uuid), false);
            match &heir.device {
                Some(device) => self.forward_first(id, place, device, desk, now),
                None => self.want_wake(id, place),
            }
            // The caller hears nothing of it: the newer one may answer.
            self.end_callee(id, former, Why::Erased, now);
            self.settle(id);
        }
    }

    /// Whether the same call, or a fork of it, is held for the device.
    fn is_called_by(&self, instance: InstanceId, invite: &Message) -> bool {
        let same = |relay: &Relay| relay.request.call_id().ok() == invite.call_id().ok();
        self.held_of(instance).any(|id| self.relays.get(&id).is_some_and(same))
    }
}
