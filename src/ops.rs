//! For operators: metrics, health, the stories of calls and the names of ids in the log over HTTP, and `reveille status`,
//! `reveille calls` and `reveille log-names` that ask for them.
//!
//! Its own room because it must work when everything else does not: it shares no listener, no limit and no code with the
//! API. It changes nothing and knows nothing of instances; what it tells is made in `telemetry`.

mod access;
pub(crate) mod calls;
mod client;
mod listener;
mod log_names;
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
pub use log_names::log_names;
pub use overview::Overview;
pub use server::{Endpoints, serve};
pub use status::status;
