//! Every bound has a name here, and the place that holds to it says what happens when it is reached.

use std::time::Duration;

/// How long APNs may keep a call push for a phone that it does not reach at once, unless the operator says otherwise: as long
/// as a phone takes to change networks.
pub const APNS_EXPIRY: Duration = Duration::from_secs(10);

/// The hard ceiling of a lease. Compiled in: a configuration above it does not start.
pub const LEASE_CEILING: Duration = Duration::from_secs(6 * 24 * 3600);

/// The hard ceiling of a trace, as of its device's consent. Compiled in.
pub const TRACE_CEILING: Duration = Duration::from_secs(24 * 3600);

/// Instances of one binding beyond `limits.devices_per_account`: each has the push target of another one there, whose place
/// it takes as soon as its push token is proven.
pub(crate) const SUCCESSORS_MAX: usize = 1;

/// Bounds that an operator may set (section `[limits]`), for the whole process unless said otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Instances held at once; above it a hand-over gets `busy`.
    pub instances: u32,
    /// Held calls at once; above it the caller gets 503 with Retry-After.
    pub held_calls: u32,
    /// Held calls of one instance; above it the caller gets 480.
    pub held_calls_per_instance: u32,
    /// Attached devices and other live connections; above it new ones are closed.
    pub flows: u32,
    /// Connections from one IPv4 address or one IPv6 /64; above it new ones are closed.
    pub flows_per_source: u32,
    /// How long a dialog's route tokens stay valid.
    pub dialog_max: Duration,
    /// Dialogs remembered at once; the oldest is forgotten first.
    pub dialogs: u32,
    /// Instances of one device; above it a hand-over gets `rate-limited`.
    pub instances_per_device: u32,
    /// Different accounts that one device hands over, or moves an instance to, within a day; above it `rate-limited`.
    pub accounts_per_device: u32,
    /// Wrong credentials for one account within an hour; above it a hand-over gets `rate-limited` before its registrar is asked.
    pub refusals_per_account: u32,
    /// Devices that share one account; above it one that was idle for a day gives way to a further one, else that gets
    /// `too-many-devices`. Registrations of an account with different credentials; above it a hand-over gets `rate-limited`.
    pub devices_per_account: u32,
    /// Text messages that wait for their devices at once; above it a further one gets 480.
    pub messages: u32,
    /// Text messages that wait for one instance; above it a further one gets 480.
    pub messages_per_instance: u32,
    /// Bytes of one text message that is kept; above it the sender gets 413.
    pub message_bytes: u32,
    /// Registrations of apps that register through us; above it a further one gets 503.
    pub edge_bindings: u32,
    /// Calls whose story is remembered at once; above it the instance with most of them loses its oldest.
    pub stories: u32,
    /// Traces kept at once, each on its device's consent; above it a further one gets `busy`.
    pub traces: u32,
    /// Bytes of one trace; above it its oldest entries give way.
    pub trace_bytes: u32,
    /// Hand-overs, and refused calls about a tenant, a minute from one source address; above it `rate-limited`.
    pub posts_per_source: u32,
    /// Hand-overs a minute of one tenant; above it `rate-limited`.
    pub posts_per_tenant: u32,
    /// Call wakes a minute for one instance; above it the caller gets 480.
    pub wakes_per_minute: u32,
    /// Call wakes one instance may send at once before `wakes_per_minute` counts.
    pub wake_burst: u32,
    /// Wakes an hour of one kind for one instance, for each of the kinds missed-call, message and voicemail; above it no
    /// push is sent.
    pub other_wakes_per_hour: u32,
    /// Pushes that wait for their provider; above it a wake counts as failed and the caller gets 480.
    pub pushes_queued: u32,
    /// Messages waiting for one shard; above it datagrams are dropped and streams are read no further.
    pub traffic_queued: u32,
    /// HTTPS connections at once; above it new ones are closed.
    pub api_connections: u32,
    /// Tombstones of erased instances kept at once; the oldest is forgotten first.
    pub tombstones: u32,
}

/// A shard's share of a bound that holds for the whole process, rounded up; at least one.
pub(crate) fn share(whole: u32, shards: u16) -> usize {
    usize::try_from(whole.div_ceil(u32::from(shards.max(1)))).unwrap_or(usize::MAX).max(1)
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            instances: 1_000_000,
            held_calls: 20_000,
            held_calls_per_instance: 4,
            flows: 100_000,
            flows_per_source: 256,
            dialog_max: Duration::from_secs(24 * 3600),
            dialogs: 200_000,
            instances_per_device: 10,
            accounts_per_device: 20,
            refusals_per_account: 10,
            devices_per_account: 5,
            messages: 100_000,
            messages_per_instance: 50,
            message_bytes: 8_192,
            edge_bindings: 100_000,
            stories: 50_000,
            traces: 100,
            trace_bytes: 262_144,
            posts_per_source: 120,
            posts_per_tenant: 60_000,
            wakes_per_minute: 10,
            wake_burst: 5,
            other_wakes_per_hour: 60,
            pushes_queued: 10_000,
            traffic_queued: 8_192,
            api_connections: 4_096,
            tombstones: 200_000,
        }
    }
}
