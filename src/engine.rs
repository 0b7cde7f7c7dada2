//! The product as one state machine; no IO.

pub mod account;
pub mod audit;
#[expect(clippy::module_inception, reason = "the room that joins the others")]
pub mod engine;
pub mod ids;
pub mod input;
pub mod limits;
pub mod output;
pub mod placement;
pub mod policy;
pub mod tally;

pub use engine::{Engine, Start};
