//! Un-REGISTERs whose turn did not come within the grace: written before the wipe, sent when it comes, with nothing behind them
//! that is worth keeping. No secret waits for a slow registrar.

use std::time::Duration;

use ahash::HashMap;
use bytes::Bytes;

use crate::clock::Instant;
use crate::engine::output::{DestinationKey, Hop};
use crate::engine::permits::Asker;
use crate::engine::schedule::Schedule;

/// What could not go by then does not go at all: the registration lapses by itself, and what names an account is not kept
/// for long.
const PUT_OFF_MAX: Duration = Duration::from_secs(30);
/// Requests that wait in one shard, for all destinations: some 16 MB. Further ones are not sent.
const WAITING_MAX: usize = 16 * 1024;

/// The requests that wait.
#[derive(Default)]
pub(super) struct PutOff {
    requests: HashMap<Asker, (DestinationKey, Hop, Bytes)>,
    schedule: Schedule<Asker>,
}

impl PutOff {
    pub(super) fn is_full(&self) -> bool {
        self.requests.len() >= WAITING_MAX
    }

    /// Keeps a request until its turn.
    pub(super) fn put(&mut self, asker: Asker, destination: DestinationKey, hop: Hop, request: Bytes, now: Instant) {
        self.requests.insert(asker, (destination, hop, request));
        self.schedule.set(asker, Some(now + PUT_OFF_MAX));
    }

    /// Its turn has come, or it is not to be sent any more.
    pub(super) fn take(&mut self, asker: Asker) -> Option<(DestinationKey, Hop, Bytes)> {
        self.schedule.remove(asker);
        self.requests.remove(&asker)
    }

    /// One that waited too long.
    pub(super) fn pop_expired(&mut self, now: Instant) -> Option<(DestinationKey, Asker)> {
        let asker = self.schedule.pop_due(now)?;
        self.requests.remove(&asker).map(|(destination, ..)| (destination, asker))
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.schedule.next()
    }

    pub(super) fn len(&self) -> usize {
        self.requests.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ids::{BindingId, ListenerId};
    use crate::sip::Transport;

    #[test]
    fn a_request_goes_when_its_turn_comes_or_not_at_all_and_only_so_many_wait() {
        let peer = "198.51.100.7:5060".parse().expect("a socket address");
        let (destination, hop) = (
            DestinationKey { transport: Transport::Udp, address: peer },
            Hop::Datagram { listener: ListenerId(0), peer },
        );
        let (mut put_off, now, mut number) = (PutOff::default(), Instant::from_nanos(1), 0);
        while !put_off.is_full() {
            put_off.put(Asker::Departure(BindingId(number)), destination, hop.clone(), Bytes::new(), now);
            number += 1;
        }
        assert_eq!(put_off.len(), WAITING_MAX);
        assert!(put_off.take(Asker::Departure(BindingId(3))).is_some());
        assert!(put_off.take(Asker::Departure(BindingId(3))).is_none());
        assert!(put_off.pop_expired(now).is_none());
        while put_off.pop_expired(now + PUT_OFF_MAX).is_some() {}
        assert_eq!((put_off.len(), put_off.poll_timeout()), (0, None));
    }
}
