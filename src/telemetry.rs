//! What the daemon tells about itself: logs, metrics, whether it is ready, and where it panicked.
//!
//! The room that sees that nothing personal gets out: a label comes from a closed set, an address appears only inside
//! [`Redacted`], other crates' log lines are left out, a panic tells its place and not its message. It counts nothing by
//! itself; engines and effects count, this room publishes.

mod logs;
mod meters;
mod metric;
mod panics;
mod readiness;
mod redacted;

pub use logs::{StartError, start};
pub use meters::Meters;
pub use metric::{Metric, MetricKind};
pub use panics::tell_only_the_place;
pub use readiness::Readiness;
pub use redacted::{Redacted, forget_old_log_keys, log_names};
