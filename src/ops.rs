//! For operators: metrics, health and the stories of calls over HTTP, and `reveille status` and `reveille calls` that ask for
//! them.
//!
//! Its own room because it must work when everything else does not: it shares no listener, no limit and no code with the
//! API. It changes nothing and knows nothing of instances; what it tells is made in `telemetry`.

mod access;
pub(crate) mod calls;
mod client;
mod listener;
mod overview;
mod server;
mod status;
#[cfg(test)]
mod tests;
mod trust;

pub use access::{Access, Tls, TlsError};
pub use calls::{AskStories, CALLS_MAX, Calls, calls};
pub use client::AskError;
pub use listener::{Bound, Listener, bind};
pub use overview::Overview;
pub use server::{Endpoints, serve};
pub use status::status;
