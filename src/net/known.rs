//! Sources of which the engine knows something, each for a time: registrars, attached devices, and places it just asked.
//!
//! Registrars and devices are two tables, because strangers may sit behind a device's address (one NAT for a whole network):
//! a registrar is an address, from which INVITEs may come over any port and transport; a device is a socket address. Refuses to
//! guess: only what the engine says or sends enters a source here.

use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use dashmap::DashMap;

use super::bounds::{ASKED_MAX, ASKED_SPAN, DEVICES_MAX, REGISTRARS_MAX};
use crate::clock::Instant;

/// All that is known of sources.
pub(super) struct Sources {
    /// Addresses that granted a REGISTER.
    registrars: Known<IpAddr>,
    /// Where devices attached from.
    devices: Known<SocketAddr>,
    /// Addresses that a REGISTER was just sent to: their responses may be as long as a registrar's.
    asked: Known<IpAddr>,
}

/// Keys, each until its time.
struct Known<K: Hash + Eq> {
    until: DashMap<K, Instant, ahash::RandomState>,
    most: usize,
}

impl Default for Sources {
    fn default() -> Self {
        Self { registrars: Known::new(REGISTRARS_MAX), devices: Known::new(DEVICES_MAX), asked: Known::new(ASKED_MAX) }
    }
}

impl Sources {
    /// Remembers an address that granted a REGISTER for `span`, if that is longer than what is known.
    pub(super) fn remember_registrar(&self, address: IpAddr, span: Duration, now: Instant) {
        self.registrars.remember(address.to_canonical(), now + span);
    }

    /// Remembers where a device attached from.
    pub(super) fn remember_device(&self, peer: SocketAddr, span: Duration, now: Instant) {
        self.devices.remember(canonical(peer), now + span);
    }

    /// Remembers that a REGISTER was sent to `address`.
    pub(super) fn remember_asked(&self, address: IpAddr, now: Instant) {
        if !self.is_registrar(address, now) {
            self.asked.remember(address.to_canonical(), now + ASKED_SPAN);
        }
    }

    pub(super) fn is_registrar(&self, address: IpAddr, now: Instant) -> bool {
        self.registrars.contains(&address.to_canonical(), now)
    }

    pub(super) fn is_device(&self, peer: SocketAddr, now: Instant) -> bool {
        self.devices.contains(&canonical(peer), now)
    }

    /// Whether a response of a registrar's length may come from `address`.
    pub(super) fn is_asked(&self, address: IpAddr, now: Instant) -> bool {
        self.asked.contains(&address.to_canonical(), now) || self.is_registrar(address, now)
    }

    /// Forgets what is over.
    pub(super) fn sweep(&self, now: Instant) {
        self.registrars.sweep(now);
        self.devices.sweep(now);
        self.asked.sweep(now);
    }
}

impl<K: Hash + Eq> Known<K> {
    fn new(most: usize) -> Self {
        Self { until: DashMap::default(), most }
    }

    fn remember(&self, key: K, until: Instant) {
        if let Some(mut known) = self.until.get_mut(&key) {
            *known = (*known).max(until);
            return;
        }
        if self.until.len() < self.most {
            self.until.insert(key, until);
        }
    }

    fn contains(&self, key: &K, now: Instant) -> bool {
        self.until.get(key).is_some_and(|until| *until > now)
    }

    fn sweep(&self, now: Instant) {
        self.until.retain(|_, until| *until > now);
    }
}

fn canonical(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant::from_nanos(0);

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("a literal")
    }

    #[test]
    fn a_registrar_is_known_for_the_longest_span_it_granted() {
        let sources = Sources::default();
        sources.remember_registrar(ip("192.0.2.7"), Duration::from_secs(60), START);
        sources.remember_registrar(ip("192.0.2.7"), Duration::from_secs(10), START);

        assert!(sources.is_registrar(ip("::ffff:192.0.2.7"), START + Duration::from_secs(59)));
        assert!(!sources.is_registrar(ip("192.0.2.7"), START + Duration::from_secs(60)));

        sources.sweep(START + Duration::from_secs(60));
        assert!(sources.registrars.until.is_empty());
    }

    #[test]
    fn behind_the_address_of_a_device_everything_else_is_a_stranger() {
        let sources = Sources::default();
        let phone: SocketAddr = "203.0.113.9:4711".parse().expect("a literal");
        let neighbour: SocketAddr = "203.0.113.9:4712".parse().expect("a literal");
        sources.remember_device(phone, Duration::from_secs(60), START);

        assert!(sources.is_device(phone, START));
        assert!(!sources.is_device(neighbour, START));
        assert!(!sources.is_registrar(phone.ip(), START) && !sources.is_asked(phone.ip(), START));
    }

    #[test]
    fn a_place_that_is_asked_may_respond_and_is_no_registrar() {
        let sources = Sources::default();
        sources.remember_asked(ip("192.0.2.7"), START);
        assert!(sources.is_asked(ip("192.0.2.7"), START) && !sources.is_registrar(ip("192.0.2.7"), START));
        assert!(!sources.is_asked(ip("192.0.2.7"), START + ASKED_SPAN));
    }
}
