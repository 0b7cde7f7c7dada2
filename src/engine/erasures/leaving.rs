//! Who still has credentials here on the way out: whoever erases a tenant's instances waits for these too.

use std::collections::BTreeSet;

use super::{Deregistering, Erasure, Erasures};
use crate::engine::account::TenantId;
use crate::engine::ids::InstanceId;
use crate::engine::input::Whom;
use crate::engine::register::Identity;

impl Erasures {
    /// What an instance on its way out still is at its registrar: until its credential is wiped.
    pub(crate) fn identity(&self, id: InstanceId) -> Option<&Identity> {
        match &self.graves.get(&id)?.erasure {
            Erasure::Deregistering(leaving) => Some(&leaving.identity),
            Erasure::Recording | Erasure::Buried { .. } => None,
        }
    }

    /// The tenant's instances that are being erased and are not wiped yet, as far as `whom` is about them; in the order of
    /// their ids.
    pub(crate) fn leaving_of(&self, tenant: &TenantId, whom: &Whom) -> BTreeSet<InstanceId> {
        let is_meant = |leaving: &Deregistering| {
            leaving.subject.tenant == *tenant
                && match whom {
                    Whom::Tenant => true,
                    Whom::Device(device) => leaving.device == *device,
                    Whom::Instance(id) => leaving.subject.instance == *id,
                }
        };
        let of = |erasure: &Erasure| match erasure {
            Erasure::Deregistering(leaving) if is_meant(leaving) => Some(leaving.subject.instance),
            Erasure::Deregistering(_) | Erasure::Recording | Erasure::Buried { .. } => None,
        };
        if self.under_way == 0 {
            return BTreeSet::new();
        }
        self.graves.values().filter_map(|grave| of(&grave.erasure)).collect()
    }
}
