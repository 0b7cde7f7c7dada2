//! The API over real TLS on loopback, with an engine that answers by script.

mod authentication;
mod contract;
mod faults;
mod hand_over;
mod jwt;
mod policy;
mod push_proof;
mod transport;
mod world;
