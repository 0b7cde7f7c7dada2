//! The product as one state machine; no IO.
//!
//! `Engine` routes between rooms that never import one another: `leases` (what we hold), `bindings` and `destinations`
//! (staying registered), `edge` (attached devices), `calls`, `texts`, `mailboxes`, `wakes`, `stories`, `erasures`. The
//! contract with the outside is in
//! `input` and `output`, the operator's decisions in `policy`, the bounds in `limits`.

pub mod account;
pub mod aor;
pub mod audit;
pub mod caller_key;
pub mod edge_registrar;
pub mod ids;
pub mod input;
pub mod limits;
pub mod output;
pub mod permits;
pub mod placement;
pub mod policy;
pub mod proof;
pub mod push_token;
pub mod story;
pub mod tally;

mod access;
mod allowance;
mod bindings;
mod caller;
mod calls;
mod challenges;
mod commands;
mod destinations;
mod device;
mod edge;
mod endings;
#[expect(clippy::module_inception, reason = "the room that joins the others")]
mod engine;
mod erasures;
mod filter;
mod foreground;
mod guesses;
mod hand_over;
mod hidden;
mod instance;
mod leases;
mod mailboxes;
mod malformed;
mod messages;
mod names;
mod off_boarding;
mod orders;
mod pass;
mod places;
mod proofs;
mod proving;
mod random;
mod rectify;
mod register;
mod restriction;
mod route_token;
mod routes;
mod schedule;
mod stories;
mod tags;
mod texting;
mod texts;
mod through;
mod token;
mod traces;
mod tracing;
mod wakes;
mod waking;

pub use engine::{Engine, Start};
