//! A phone without a phone: hands an account over, sleeps, is woken, attaches, rings, answers, hangs up.
//!
//! `line` is its SIP side, `push` where its pushes come from, `handset` what an app makes of both. `run` is the command
//! `reveille phone`, for trying one's own PBX.

mod command;
pub mod handset;
pub mod line;
pub mod push;

pub use command::run;
