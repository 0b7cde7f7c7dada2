//! What surrounds the daemon, over real sockets, TLS and HTTP/2: as strict as the real ones, and able to fail the way
//! those do.
//!
//! They are code with an owner, not test helpers: the demo, `reveille phone`, `reveille sandbox` and the tests run the
//! same ones. The stand-ins (`apns`, `fcm`, `mailbox`, `registrar`, `phone`) know `sip` and `clock` and nothing of the
//! daemon they face, so that a mistake cannot be made on both sides at once. Only what puts them on a stage with it
//! (`demo`, `inside`, `serve` and the phone's command) knows the daemon, and only from outside.

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
