//! Stand-ins for what Reveille talks to, over real sockets, TLS and HTTP/2: as strict as the real ones, and able to fail
//! the way those do.
//!
//! They are code with an owner, not test helpers: the demo, `reveille sandbox` and the tests run the same ones. They
//! know `sip` and `clock` and nothing of the daemon they face, so that a mistake cannot be made on both sides at once.

pub(crate) mod agent;
pub mod apns;
pub mod caller;
mod certificate;
pub(crate) mod deadlines;
pub mod demo;
pub mod fault;
pub mod fcm;
mod goaway;
pub(crate) mod https;
mod inbox;
mod inside;
pub(crate) mod interrupts;
mod jwt;
pub mod mailbox;
pub mod phone;
#[cfg(test)]
mod probe;
pub mod registrar;
mod serve;
mod server;
pub mod trust;
pub(crate) mod wire;

pub use serve::serve;
