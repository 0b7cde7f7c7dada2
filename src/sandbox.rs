//! Stand-ins with an owner, on real sockets: what surrounds the daemon when there is no PBX, no Apple, no Google and no
//! phone at hand.

pub(crate) mod agent;
pub mod caller;
pub(crate) mod deadlines;
pub(crate) mod https;
pub mod phone;
pub mod registrar;
pub mod trust;
pub(crate) mod wire;
