//! What came to be held about an instance while it was served, as JSON.

use serde::Serialize;
use utoipa::ToSchema;

use super::{CallBody, TestBody};
use crate::api::traces::ConsentBody;
use crate::engine::audit::WakeCounts;
use crate::engine::output::{HeldView, MailboxView};

/// What is held beside what the app handed over. Contents of texts and traces are not in it: the one are sealed until their
/// device has them, the others have a call of their own.
#[derive(Serialize, ToSchema)]
#[schema(as = Held)]
pub(crate) struct HeldBody {
    /// The registrar's address and port that holds the registration, or may.
    registered_at: Option<String>,
    /// How long the lease is whenever it starts anew.
    lease_seconds: u64,
    /// Since when the push targets are as they are, RFC 3339 in UTC.
    #[schema(format = DateTime)]
    push_targets_since: String,
    /// Pushes sent since the hand-over, by kind; kinds that were not sent are left out.
    #[schema(value_type = std::collections::BTreeMap<String, u32>)]
    pushes_sent: WakeCounts,
    /// Since when the processing is restricted, RFC 3339 in UTC.
    #[schema(format = DateTime)]
    restricted_since: Option<String>,
    /// Other devices that share the registration.
    devices_sharing: u32,
    /// Where the device is attached right now; absent where it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    attached: Option<AttachedData>,
    /// Texts that wait for the device, sealed.
    texts_waiting: u32,
    /// What is known of its mailbox; absent where nothing is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    mailbox: Option<MailboxData>,
    /// Calls under way and those remembered for two minutes after their end.
    calls: Vec<CallData>,
    /// Pushes whose outcome is awaited.
    pushes_under_way: u32,
    /// The self-test that is remembered, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    self_test: Option<TestBody>,
    /// The trace the device has consented to, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    trace: Option<ConsentBody>,
}

/// How a device is attached.
#[derive(Serialize, ToSchema)]
struct AttachedData {
    /// Its address and port.
    address: String,
    /// The Contact it gave.
    contact: String,
}

/// What is known of the mailbox.
#[derive(Serialize, ToSchema)]
struct MailboxData {
    /// Whether a subscription to it is kept.
    subscribed: bool,
    /// New messages, as the PBX told last.
    new: u32,
    /// Old messages, as the PBX told last.
    old: u32,
}

/// A call under way, or remembered.
#[derive(Serialize, ToSchema)]
#[schema(as = HeldCall)]
struct CallData {
    /// Its name.
    #[schema(format = "uuid")]
    call: String,
    #[serde(flatten)]
    view: CallBody,
}

impl From<HeldView> for HeldBody {
    fn from(held: HeldView) -> Self {
        let HeldView {
            registered_at,
            lease,
            targets_since,
            pushes_sent,
            restricted_since,
            sharing,
            attached_from,
            texts_waiting,
            mailbox,
            calls,
            pushes_under_way,
            test,
            trace,
        } = held;
        let attached = attached_from.map(|(address, contact)| AttachedData { address: address.to_string(), contact });
        let mailbox = mailbox.map(|MailboxView { subscribed, new, old }| MailboxData { subscribed, new, old });
        let calls = calls.into_iter().map(|(call, view)| CallData { call: call.to_string(), view: view.into() });
        Self {
            registered_at: registered_at.map(|address| address.to_string()),
            lease_seconds: lease.as_secs(),
            push_targets_since: targets_since.rfc3339(),
            pushes_sent,
            restricted_since: restricted_since.map(|since| since.rfc3339()),
            devices_sharing: sharing,
            attached,
            texts_waiting,
            mailbox,
            calls: calls.collect(),
            pushes_under_way,
            self_test: test.map(Into::into),
            trace: trace.map(Into::into),
        }
    }
}
