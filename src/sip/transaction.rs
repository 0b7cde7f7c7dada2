//! SKELETON. The four machines of RFC 3261 §17 with RFC 6026, sans-IO. The owner sends the bytes.
//! Deadlines: each machine has `poll_timeout() -> Option<Instant>` and `handle_timeout(now) -> Timeout`.
use bytes::Bytes;
use super::message::StatusCode;
use crate::clock::Instant;

/// What a due timer asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Timeout { /// Nothing was due.
    Idle, /// Send `last()` again.
    Retransmit, /// Client: no final response (timer B/F). Server: no ACK came (timer H). The machine is over.
    TimedOut, /// Over, quietly (timers D, I, J, K, L, M).
    Terminated }

/// What to do with a response.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict { /// Give it to the transaction user.
    Deliver, /// Final non-2xx to INVITE: send `ack` (build with `proxy::write_ack`) and give it to the user.
    DeliverAndAck, /// Retransmission of a final: send the ACK again, do not deliver.
    Ack, /// Ignore.
    Absorb }

pub struct InviteClient { _p: () }
impl InviteClient {
    /// The owner sends `request` now. `retransmissions_max` caps datagrams sent in all (None: by the RFC).
    pub fn new(_request: Bytes, _reliable: bool, _now: Instant) -> Self { todo!() }
    pub fn handle_response(&mut self, _code: StatusCode, _now: Instant) -> Verdict { todo!() }
    pub fn handle_timeout(&mut self, _now: Instant) -> Timeout { todo!() }
    pub fn poll_timeout(&self) -> Option<Instant> { todo!() }
    /// The request, for retransmission, CANCEL and ACK.
    pub fn request(&self) -> &Bytes { todo!() }
    /// A provisional response came (CANCEL may be sent, RFC 3261 §9.1).
    pub fn is_proceeding(&self) -> bool { todo!() }
    /// A final response came.
    pub fn is_over(&self) -> bool { todo!() }
}
pub struct NonInviteClient { _p: () }
impl NonInviteClient {
    /// `datagrams_max`: at most so many sendings in all over UDP (for unproven destinations); `None`: by the RFC.
    pub fn new(_request: Bytes, _reliable: bool, _datagrams_max: Option<u8>, _now: Instant) -> Self { todo!() }
    pub fn handle_response(&mut self, _code: StatusCode, _now: Instant) -> Verdict { todo!() }
    pub fn handle_timeout(&mut self, _now: Instant) -> Timeout { todo!() }
    pub fn poll_timeout(&self) -> Option<Instant> { todo!() }
    pub fn request(&self) -> &Bytes { todo!() }
    pub fn is_over(&self) -> bool { todo!() }
}
pub struct InviteServer { _p: () }
impl InviteServer {
    /// `finals_max`: at most so many sendings of a non-2xx final while the source is unproven; `None`: by the RFC.
    pub fn new(_reliable: bool, _finals_max: Option<u8>, _now: Instant) -> Self { todo!() }
    /// The owner sends `response` now. A proxy's 2xx moves to Accepted (RFC 6026 §7.1): retransmitted 2xx pass through again.
    pub fn respond(&mut self, _code: StatusCode, _response: Bytes, _now: Instant) { todo!() }
    /// The same INVITE again: what to send again, if anything.
    pub fn handle_retransmission(&self) -> Option<&Bytes> { todo!() }
    /// The ACK to a non-2xx final. `false`: no final was sent or it is an ACK to a 2xx; treat it as a request of its own.
    pub fn handle_ack(&mut self, _now: Instant) -> bool { todo!() }
    pub fn handle_timeout(&mut self, _now: Instant) -> Timeout { todo!() }
    pub fn poll_timeout(&self) -> Option<Instant> { todo!() }
    /// The last response sent.
    pub fn last(&self) -> Option<&Bytes> { todo!() }
    pub fn final_code(&self) -> Option<StatusCode> { todo!() }
    pub fn is_terminated(&self) -> bool { todo!() }
}
pub struct NonInviteServer { _p: () }
impl NonInviteServer {
    pub fn new(_reliable: bool, _now: Instant) -> Self { todo!() }
    pub fn respond(&mut self, _code: StatusCode, _response: Bytes, _now: Instant) { todo!() }
    pub fn handle_retransmission(&self) -> Option<&Bytes> { todo!() }
    pub fn handle_timeout(&mut self, _now: Instant) -> Timeout { todo!() }
    pub fn poll_timeout(&self) -> Option<Instant> { todo!() }
    pub fn final_code(&self) -> Option<StatusCode> { todo!() }
    pub fn is_terminated(&self) -> bool { todo!() }
}
