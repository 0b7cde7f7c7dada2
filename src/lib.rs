//! Reveille: keeps softphones registered while they sleep, wakes them for calls, erases their credentials on time.

pub mod api;
pub mod audit_log;
pub mod clock;
pub mod engine;
pub mod sip;
pub mod vault;
