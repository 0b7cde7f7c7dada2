//! The API over real TLS on loopback, with an engine that answers by script.

mod administration;
mod authentication;
mod contract;
mod faults;
mod frames;
mod hand_over;
mod jwt;
mod openapi;
mod policy;
mod push_proof;
mod push_targets;
mod silence;
mod traces;
mod transport;
mod world;
