//! Reveille: keeps softphones registered while they sleep, wakes them for calls, erases their credentials on time.

pub mod clock;
pub mod effects;
pub mod engine;
pub mod net;
pub mod router;
pub mod shard;
pub mod sip;
pub mod vault;
