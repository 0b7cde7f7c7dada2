//! Stand-ins for what Reveille talks to, over real sockets, TLS and HTTP/2: as strict as the real ones, and able to fail
//! the way those do.
//!
//! They are code with an owner, not test helpers: the demo, `reveille sandbox` and the tests run the same ones. They
//! know `sip` and `clock` and nothing of the daemon they face, so that a mistake cannot be made on both sides at once.

pub mod apns;
mod certificate;
pub mod fault;
pub mod fcm;
mod goaway;
mod inbox;
mod jwt;
pub mod mailbox;
#[cfg(test)]
mod probe;
mod server;
