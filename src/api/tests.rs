//! The API over real TLS on loopback, with an engine that answers by script.

mod authentication;
mod contract;
mod hand_over;
mod jwt;
mod policy;
mod transport;
mod world;
