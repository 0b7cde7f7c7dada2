//! Reveille: keeps softphones registered while they sleep, wakes them for calls, erases their credentials on time.
//!
//! The map, one line a room; a module uses lower levels only (`tests/architecture.rs` checks it):

pub mod clock; // 1: the only reader of clocks
pub mod sip; // 1: SIP as the RFCs have it
pub mod vault; // 1: the only room where credentials live

pub mod engine; // 2: the product as one state machine; no IO

pub mod audit_log; // 3: records, receipts and their proofs
pub mod cli; // 3: arguments and exit codes
pub mod config; // 3: what was typed and what it means
pub mod net; // 3: sockets, flows, trunks, DNS
pub mod push; // 3: APNs, FCM and the sandbox provider
pub mod telemetry; // 3: logs and metrics

pub mod effects; // 4: carries out what an engine asks for
pub mod router; // 4: finds the shard
pub mod shard; // 4: drives an engine

pub mod api; // 5: HTTPS for devices
pub mod ops; // 5: metrics and health

pub mod app; // 6: wiring
pub mod confine; // 6: what the process gives up once everything is opened
mod drain; // 6: shutdown
mod systemd; // 6: service manager and signals

pub mod sandbox; // fakes with an owner: APNs, FCM, registrar, phone
