//! For operators: metrics and health over plain HTTP, and `reveille status` that asks for them.
//!
//! Its own room because it must work when everything else does not: it shares no listener, no limit and no code with the
//! API. It changes nothing and knows nothing of instances; what it tells is made in `telemetry`.

mod overview;
mod server;
mod status;
#[cfg(test)]
mod tests;

pub use overview::Overview;
pub use server::{Endpoints, bind, serve};
pub use status::{StatusError, ask, status};
