//! A phone without a phone.
pub mod line;
