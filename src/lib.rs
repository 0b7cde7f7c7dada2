//! Reveille: keeps softphones registered while they sleep, wakes them for calls, erases their credentials on time.

pub mod clock;
pub mod engine;
pub mod sandbox;
pub mod sip;
pub mod vault;
