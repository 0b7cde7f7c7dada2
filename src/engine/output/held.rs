//! What is held about an instance beside what its app handed over.

use std::net::SocketAddr;
use std::time::Duration;

use super::{CallView, ConsentView, TestView};
use crate::clock::WallTime;
use crate::engine::audit::WakeCounts;
use crate::engine::ids::CallUuid;

/// Everything that came to be held while the instance was served. Contents of texts and traces are not in it: the one are
/// sealed until their device has them, the others have a call of their own.
pub struct HeldView {
    /// The registrar's address that holds our Contact, or may.
    pub registered_at: Option<SocketAddr>,
    /// How long the lease is whenever it starts anew.
    pub lease: Duration,
    /// Since when the push targets are as they are.
    pub targets_since: WallTime,
    /// Pushes sent since the hand-over, by kind.
    pub pushes_sent: WakeCounts,
    /// Since when its processing is restricted.
    pub restricted_since: Option<WallTime>,
    /// Other devices that share the registration.
    pub sharing: u32,
    /// Where its device is attached, and the Contact it gave.
    pub attached_from: Option<(SocketAddr, String)>,
    /// Texts that wait for its device.
    pub texts_waiting: u32,
    /// What is known of its mailbox.
    pub mailbox: Option<MailboxView>,
    /// Calls under way and remembered.
    pub calls: Vec<(CallUuid, CallView)>,
    /// Pushes whose outcome is awaited.
    pub pushes_under_way: u32,
    /// The self-test that is remembered.
    pub test: Option<TestView>,
    /// The trace its device has consented to.
    pub trace: Option<ConsentView>,
}

/// What is known of a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MailboxView {
    /// Whether we keep a subscription to it.
    pub subscribed: bool,
    /// New messages, as told last.
    pub new: u32,
    /// Old messages, as told last.
    pub old: u32,
}
