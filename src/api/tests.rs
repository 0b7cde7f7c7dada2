//! The API over real TLS on loopback, with an engine that answers by script.

mod administration;
mod authentication;
mod contract;
mod hand_over;
mod transport;
mod world;
