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
            let Some(uuid) = self.held.get(&id).map(|held| held.uuid).filter(|_| room) else { continue };
            if self.find_call(heir.instance, uuid).is_some() {
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
            held.callees.push(Called::new(Callee { caller, ..heir.clone() }));
            self.ended.forget((heir.instance, uuid));
            self.by_instance.insert((heir.instance, id));
            self.events.push_back(Event::Step(heir.instance, uuid, Step::Invited));
            match &heir.device {
                Some(device) => self.forward_first(id, place, device, desk, now),
                None => self.want_wake(id, place),
            }
            // The caller hears nothing of it: the newer one may answer.
            self.end_callee(id, former, Why::Erased, now);
            self.settle(id);
        }
    }
}
