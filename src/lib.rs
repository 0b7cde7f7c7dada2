//! Reveille: keeps softphones registered while they sleep, wakes them for calls, erases their credentials on time.

pub mod cli;
pub mod clock;
pub mod config;
pub mod engine;
pub mod ops;
pub mod sip;
pub mod telemetry;
pub mod vault;
