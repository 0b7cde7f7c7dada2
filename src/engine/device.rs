//! How a device is reached, and where answers go: what `edge` learns and `calls` uses.

use std::net::SocketAddr;
use std::sync::Arc;

use super::ids::ListenerId;
use super::input::Arrival;
use super::output::Hop;
use crate::sip::{Message, Transport, proxy};

/// How a device is reached.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) hop: Hop,
    pub(crate) listener: ListenerId,
    pub(crate) transport: Transport,
    pub(crate) peer: SocketAddr,
    /// The device's own Contact URI: the Request-URI of what we forward.
    pub(crate) contact: Vec<u8>,
}

/// Where the answer to a request goes: down its connection, or to the address its top Via asks for.
pub(crate) fn reply_hop(request: &Message, arrival: &Arrival) -> Hop {
    match (arrival.flow, &arrival.trunk) {
        (_, Some(trunk)) => Hop::Trunk(Arc::clone(trunk)),
        (Some(flow), None) => Hop::Flow(flow),
        (None, None) => {
            Hop::Datagram { listener: arrival.listener, peer: proxy::response_target(request, arrival.peer) }
        }
    }
}
