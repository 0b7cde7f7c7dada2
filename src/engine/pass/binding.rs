//! One registration that passed through us and that its registrar confirmed.

use super::*;
use crate::engine::input::PushTarget;
use crate::sip::timers::TRANSACTION_TIMEOUT;

/// A datagram reaches a phone behind its NAT for about so long after the phone's last one.
const DATAGRAM_AWAKE: Duration = Duration::from_secs(30);

/// A phone that listens no more may come back by itself for so long: as long as its own transactions live.
const RETURN: Duration = TRANSACTION_TIMEOUT;

/// What stands for one Contact of a phone, on both sides.
#[derive(Clone)]
pub(super) struct Named {
    pub(super) id: InstanceId,
    pub(super) handle: Capability,
    pub(super) purr: Capability,
    /// The Contact's URI as the phone wrote it.
    pub(super) uri: Vec<u8>,
    /// The same without push parameters.
    pub(super) stripped: Vec<u8>,
    /// Its header parameters as they go to the registrar.
    pub(super) params: Vec<u8>,
    /// `+sip.instance`.
    pub(super) urn: Option<String>,
    pub(super) tenant: TenantId,
    /// Where its pushes go; empty: it asked for none.
    pub(super) push: Vec<PushTarget>,
    /// The expiry it asks for.
    pub(super) asked: Duration,
    /// The registrar learns of us by Path, and sees the phone's own Contact.
    pub(super) path: bool,
}

/// Whether a phone listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Awake {
    /// Its connection is gone, or it left datagrams unanswered, since then.
    Gone(Instant),
    /// As long as its connection is there.
    OnFlow,
    /// Datagrams reach it until then.
    Until(Instant),
}

/// A confirmed registration.
pub(super) struct Binding {
    pub(super) named: Named,
    pub(super) aor: Aor,
    pub(super) registrar: TrunkHost,
    pub(super) device: Device,
    pub(super) awake: Awake,
    /// Where its registrar was reached.
    pub(super) target: Target,
    pub(super) expires: Instant,
    pub(super) confirmed: Instant,
    /// Call-ID and CSeq of the REGISTER that made it.
    pub(super) made_by: (Vec<u8>, u32),
}

impl Binding {
    pub(super) fn is_awake(&self, now: Instant) -> bool {
        match self.awake {
            Awake::Gone(_) => false,
            Awake::OnFlow => true,
            Awake::Until(until) => until > now,
        }
    }

    /// Until when it may come back by itself.
    pub(super) fn returns_until(&self) -> Option<Instant> {
        match self.awake {
            Awake::OnFlow => None,
            Awake::Gone(since) | Awake::Until(since) => Some(since + RETURN),
        }
    }

    /// It said something on its way to us.
    pub(super) fn stir(&mut self, now: Instant) {
        self.awake = awake_by(&self.device, now);
    }

    /// Whether `arrival` is where the phone registered from.
    pub(super) fn is_from(&self, arrival: &Arrival) -> bool {
        match (&self.device.hop, arrival.flow) {
            (Hop::Flow(own), Some(flow)) => *own == flow,
            (Hop::Datagram { .. }, None) => self.device.peer == arrival.peer,
            _ => false,
        }
    }
}

/// A phone that was just heard.
pub(super) fn awake_by(device: &Device, now: Instant) -> Awake {
    match device.hop {
        Hop::Datagram { .. } => Awake::Until(now + DATAGRAM_AWAKE),
        Hop::Flow(_) | Hop::Trunk(_) => Awake::OnFlow,
    }
}

/// What is left of a registration that is over while its phone is in a call.
pub(super) struct Lingering {
    pub(super) device: Option<Device>,
    pub(super) target: Target,
}

/// The registrations of one shard.
#[derive(Default)]
pub(super) struct Table {
    bindings: HashMap<InstanceId, Box<Binding>>,
    by_handle: HashMap<Capability, InstanceId>,
    by_aor: HashMap<Aor, BTreeSet<InstanceId>>,
    by_flow: HashMap<FlowId, BTreeSet<InstanceId>>,
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.bindings.len()
    }

    pub(super) fn get(&self, id: InstanceId) -> Option<&Binding> {
        self.bindings.get(&id).map(Box::as_ref)
    }

    pub(super) fn get_mut(&mut self, id: InstanceId) -> Option<&mut Binding> {
        self.bindings.get_mut(&id).map(Box::as_mut)
    }

    /// All, in the order of their ids.
    pub(super) fn all(&self) -> BTreeSet<InstanceId> {
        self.bindings.keys().copied().collect()
    }

    pub(super) fn by_handle(&self, handle: &Capability) -> Option<&Binding> {
        self.get(*self.by_handle.get(handle)?)
    }

    /// All of an address of record, in the order of their ids.
    pub(super) fn of_aor(&self, aor: &Aor) -> impl Iterator<Item = &Binding> {
        self.by_aor.get(aor).into_iter().flatten().filter_map(|id| self.get(*id))
    }

    /// Those of an address of record that this registrar confirmed. Another registrar's word says nothing about them.
    pub(super) fn of_account(&self, aor: &Aor, registrar: &TrunkHost) -> impl Iterator<Item = &Binding> {
        self.of_aor(aor).filter(move |binding| binding.registrar == *registrar)
    }

    /// Puts a registration in, in the place of its former self.
    pub(super) fn insert(&mut self, binding: Binding) {
        let id = binding.named.id;
        self.remove(id);
        self.by_handle.insert(binding.named.handle, id);
        self.by_aor.entry(binding.aor.clone()).or_default().insert(id);
        if let Hop::Flow(flow) = binding.device.hop {
            self.by_flow.entry(flow).or_default().insert(id);
        }
        self.bindings.insert(id, Box::new(binding));
    }

    pub(super) fn remove(&mut self, id: InstanceId) -> Option<Binding> {
        let binding = *self.bindings.remove(&id)?;
        self.by_handle.remove(&binding.named.handle);
        take_from(&mut self.by_aor, &binding.aor, id);
        if let Hop::Flow(flow) = binding.device.hop {
            take_from(&mut self.by_flow, &flow, id);
        }
        Some(binding)
    }

    /// The registrations whose connection this was, in the order of their ids: they are asleep now.
    pub(super) fn lose_flow(&mut self, flow: FlowId, now: Instant) -> Vec<InstanceId> {
        let lost: Vec<InstanceId> = self.by_flow.get(&flow).into_iter().flatten().copied().collect();
        for id in &lost {
            if let Some(binding) = self.get_mut(*id) {
                binding.awake = Awake::Gone(now);
            }
        }
        lost
    }
}

fn take_from<K: std::hash::Hash + Eq>(index: &mut HashMap<K, BTreeSet<InstanceId>>, key: &K, id: InstanceId) {
    if let Some(ids) = index.get_mut(key) {
        ids.remove(&id);
        if ids.is_empty() {
            index.remove(key);
        }
    }
}
