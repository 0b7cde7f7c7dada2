//! What a tenant's administrator asks: erasing by order. `orders` keeps count; the erasures are those of any other trigger.

use super::audit::{AuditEvent, Cause};
use super::engine::Engine;
use super::ids::{InstanceId, RecordId, ReplyTo};
use super::input::Whom;
use super::orders::{Event, Found};
use super::output::{Answer, RecordJob, Refusal};
use crate::clock::Now;
use crate::engine::account::TenantId;

impl Engine {
    /// `DELETE /v1/tenants/self/instances`, whole, for one device, or for one instance.
    pub(super) fn erase_by_order(&mut self, tenant: &TenantId, whom: &Whom, reply: ReplyTo, now: Now) {
        let instances = match whom {
            Whom::Tenant => self.leases.of_tenant(tenant, None),
            Whom::Device(device) => self.leases.of_tenant(tenant, Some(device)),
            Whom::Instance(id) => {
                let own = self.leases.get(*id).filter(|instance| instance.tenant == *tenant);
                own.map(|instance| instance.id).into_iter().collect()
            }
        };
        let leaving = self.erasures.leaving_of(tenant, whom);
        // Another tenant's instance and none at all are the same.
        let nothing = instances.is_empty() && leaving.is_empty();
        if matches!(whom, Whom::Instance(_)) && nothing && !self.orders.knows(tenant, whom) {
            return self.reply(reply, Answer::Refused(Refusal::NotFound));
        }
        let passed = if *whom == Whom::Tenant { self.end_passes_of(tenant) } else { 0 };
        let grace = self.policy.erasure_grace;
        let found = Found { instances: instances.clone(), leaving, passed };
        self.orders.give(tenant, whom, found, grace, reply, now);
        self.condemn(instances, whom.cause(), now);
        self.begin_endings(now);
    }

    /// Tells the orders of an erasure's record. An instance whose app came to the foreground stays, and its turn comes.
    pub(super) fn count_record(&mut self, job: &RecordJob) {
        if let (Some(receipt), AuditEvent::Erased { cause, unregister, .. }) = (&job.receipt, &job.record.event)
            && *cause != Cause::Foreground
        {
            self.orders.handle_wiped(receipt.instance, *unregister, receipt.id);
        }
    }

    pub(super) fn count_recorded(&mut self, record: RecordId, logged: bool, now: Now) {
        self.orders.handle_recorded(record, logged, now);
    }

    pub(super) fn route_orders(&mut self) -> bool {
        let Some(Event::Reply(reply, answer)) = self.orders.poll_event() else { return false };
        self.reply(reply, *answer);
        true
    }

    /// Ends the registrations of a tenant's phones that pass through us; how many there were.
    fn end_passes_of(&mut self, tenant: &TenantId) -> u32 {
        let of_tenant = |id: &InstanceId| self.pass.push(*id).is_some_and(|(owner, _)| owner == tenant);
        let ids: Vec<InstanceId> = self.pass.all().into_iter().filter(of_tenant).collect();
        for id in &ids {
            self.pass.end(*id);
        }
        u32::try_from(ids.len()).unwrap_or(u32::MAX)
    }
}
