//! Phones that register through us (RFC 8599): registration, calls in both directions, renewal, requests inside calls.

mod calls;
mod inside;
mod registering;
mod registrations;
mod rig;
