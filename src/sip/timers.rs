//! SKELETON. Timer values of RFC 3261 §17, table 4 and RFC 6026.
use std::time::Duration;
pub const T1: Duration = Duration::from_millis(500);
pub const T2: Duration = Duration::from_secs(4);
pub const T4: Duration = Duration::from_secs(5);
/// Timers B, F, H, J, L, M.
pub const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(32);
