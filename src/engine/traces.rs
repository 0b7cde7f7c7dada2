//! Traces: what a device has consented to have written down about its instance, for troubleshooting.
//!
//! Nothing of the kind exists without a consent. One names its scope and its end, and is withdrawn at any moment; what was
//! written is redacted before it is kept, stands in a bounded ring in memory, and is overwritten when it goes. This room decides
//! what may be kept and for how long; whose message something is, the engine finds out.

mod redact;

use std::collections::{BTreeMap, VecDeque};

use zeroize::Zeroizing;

use super::ids::InstanceId;
use super::limits::{Limits, TRACE_CEILING, share};
use super::output::{Consent, ConsentView, TraceEntry, TraceKind, TraceView};
use super::schedule::Schedule;
use crate::clock::{Instant, Now, WallTime};
use crate::sip::Message;

/// Longest entry, in bytes; the rest of a longer one is left out.
const ENTRY_BYTES_MAX: usize = 4096;
/// What an entry costs beside its text.
const ENTRY_COST: usize = 64;
/// Transactions of one trace that are recognised by their branch; the oldest is forgotten first.
const KNOWN_MAX: usize = 64;

/// A transaction that concerns the instance: its Call-ID, and the branch it came in with.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Transaction {
    call_id: Vec<u8>,
    branch: String,
}

impl Transaction {
    /// The one a message's Via of this place (from 0) names.
    pub(crate) fn at(message: &Message, place: usize) -> Option<Self> {
        let branch = message.vias().nth(place)?.ok()?.branch()?.to_ascii_lowercase();
        Some(Self { call_id: message.call_id().ok()?.to_vec(), branch })
    }
}

/// Where a transaction began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// At a registrar or PBX.
    Trunk,
    /// At the instance's own device.
    Device,
}

struct Trace {
    consent: Consent,
    since: WallTime,
    until: Now,
    entries: VecDeque<TraceEntry>,
    bytes: usize,
    omitted: u64,
    known: VecDeque<(Transaction, Side)>,
}

/// The room.
pub(crate) struct Traces {
    traces: BTreeMap<InstanceId, Trace>,
    schedule: Schedule<InstanceId>,
    /// When the last input came: outputs are told apart by it.
    present: WallTime,
    /// This shard's share of `limits.traces`.
    traces_max: usize,
    /// `limits.trace_bytes`.
    bytes_max: usize,
}

impl Traces {
    pub(crate) fn new(limits: &Limits, shards: u16) -> Self {
        Self {
            traces: BTreeMap::new(),
            schedule: Schedule::default(),
            present: WallTime::from_unix_millis(0),
            traces_max: share(limits.traces, shards),
            bytes_max: usize::try_from(limits.trace_bytes).unwrap_or(usize::MAX),
        }
    }

    /// A consent: an earlier one ends with what was written under it. `false`: no further trace may be kept.
    pub(crate) fn begin(&mut self, instance: InstanceId, consent: Consent, now: Now) -> bool {
        if self.traces.len() >= self.traces_max && !self.traces.contains_key(&instance) {
            return false;
        }
        let span = consent.span.min(TRACE_CEILING);
        let until = Now { boot: now.boot + span, wall: now.wall + span };
        let trace = Trace {
            consent,
            since: now.wall,
            until,
            entries: VecDeque::new(),
            bytes: 0,
            omitted: 0,
            known: VecDeque::new(),
        };
        self.traces.insert(instance, trace);
        self.schedule.set(instance, Some(until.boot));
        self.present = now.wall;
        true
    }

    /// The consent is withdrawn, or the instance is gone: everything is forgotten. `false`: there was nothing.
    pub(crate) fn end(&mut self, instance: InstanceId) -> bool {
        self.schedule.remove(instance);
        self.traces.remove(&instance).is_some()
    }

    /// Ends what is over, by either clock.
    pub(crate) fn handle_timeout(&mut self, now: Now) {
        self.tick(now);
        let over = |(id, trace): (&InstanceId, &Trace)| {
            (trace.until.boot <= now.boot || trace.until.wall <= now.wall).then_some(*id)
        };
        let over: Vec<InstanceId> = self.traces.iter().filter_map(over).collect();
        for instance in over {
            self.end(instance);
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.schedule.next()
    }

    /// What comes next happens at this time.
    pub(crate) fn tick(&mut self, now: Now) {
        self.present = now.wall;
    }

    /// Whether nobody has consented to anything: then nothing has to be looked at.
    pub(crate) fn is_empty(&self) -> bool {
        self.traces.is_empty()
    }

    /// The instances that are traced.
    pub(crate) fn instances(&self) -> impl Iterator<Item = InstanceId> {
        self.traces.keys().copied()
    }

    /// Takes note of a decision. `words` are ours: no name, number, address or secret stands in them.
    pub(crate) fn decide(&mut self, instance: InstanceId, words: impl FnOnce() -> String) {
        let Some(trace) = self.traces.get_mut(&instance).filter(|trace| trace.consent.decisions) else { return };
        let entry = TraceEntry { at: self.present, kind: TraceKind::Decision, text: Zeroizing::new(words()) };
        trace.add(entry, self.bytes_max);
    }

    /// Takes note of a message, redacted; `whole`: with names and places, where the consent says so.
    pub(crate) fn note(&mut self, instance: InstanceId, kind: TraceKind, message: &Message, whole: bool) {
        let Some(trace) = self.traces.get_mut(&instance).filter(|trace| trace.consent.sip) else { return };
        let text = redact::redacted(message, whole && trace.consent.identities, ENTRY_BYTES_MAX);
        trace.add(TraceEntry { at: self.present, kind, text }, self.bytes_max);
    }

    /// A request concerns the instance: its transaction is recognised from now on. `false`: it was known.
    pub(crate) fn learn(&mut self, instance: InstanceId, transaction: Transaction, side: Side) -> bool {
        let Some(trace) = self.traces.get_mut(&instance) else { return false };
        if trace.known.iter().any(|(known, _)| *known == transaction) {
            return false;
        }
        if trace.known.len() >= KNOWN_MAX {
            trace.known.pop_front();
        }
        trace.known.push_back((transaction, side));
        true
    }

    /// Whether a transaction of that side concerns the instance.
    pub(crate) fn knows(&self, instance: InstanceId, transaction: Option<&Transaction>, side: Side) -> bool {
        let Some((trace, wanted)) = self.traces.get(&instance).zip(transaction) else { return false };
        trace.known.iter().any(|(known, from)| known == wanted && *from == side)
    }

    /// What the device has consented to.
    pub(crate) fn consent(&self, instance: InstanceId) -> Option<ConsentView> {
        self.traces.get(&instance).map(Trace::consent)
    }

    /// All that was written, in order.
    pub(crate) fn view(&self, instance: InstanceId) -> Option<TraceView> {
        let trace = self.traces.get(&instance)?;
        let entries = trace.entries.iter().cloned().collect();
        Some(TraceView { consent: trace.consent(), entries, omitted: trace.omitted })
    }

    /// How full each table is.
    pub(crate) fn tables(&self, out: &mut Vec<(&'static str, usize)>) {
        let bytes = self.traces.values().map(|trace| trace.bytes).sum();
        out.extend([("traces", self.traces.len()), ("traces.bytes", bytes)]);
    }
}

impl Trace {
    fn consent(&self) -> ConsentView {
        ConsentView { consent: self.consent, since: self.since, until: self.until.wall }
    }

    /// The oldest entries give way.
    fn add(&mut self, entry: TraceEntry, bytes_max: usize) {
        self.bytes += entry.text.len() + ENTRY_COST;
        self.entries.push_back(entry);
        while self.bytes > bytes_max
            && let Some(oldest) = self.entries.pop_front()
        {
            self.bytes -= oldest.text.len() + ENTRY_COST;
            self.omitted += 1;
        }
    }
}
