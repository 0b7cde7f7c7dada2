//! Called names: which binding bears an account's own name at which registrar.
//!
//! Some PBXs call the account's name instead of the Contact we registered. What tells the instance then is the called name
//! together with the connection or the address the call comes from; each such pair has a home shard, which passes the
//! request on to the shard that holds the binding. This room never guesses: where two bindings fit, none does.

mod placed;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ahash::HashMap;
use placed::Placed;

use super::ids::{BindingId, ShardId};
use super::input::PeerMessage;
use super::output::TrunkKey;
use super::placement::Placement;
use crate::clock::Instant;
use crate::sip::transaction::ServerKey;
use crate::sip::{Message, Method};

/// What this room asks of the engine.
pub(crate) enum Event {
    /// Tell another shard.
    Peer(ShardId, PeerMessage),
}

/// Who is meant by a called name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meant {
    /// Nobody here bears it.
    Nobody,
    /// This binding of this shard.
    Binding(ShardId, BindingId),
    /// More than one fits.
    Several,
}

/// A binding that bears a name at a source.
struct Bearer {
    shard: ShardId,
    binding: BindingId,
    trunk: Option<Arc<TrunkKey>>,
}

/// What a binding of this shard bears, and where.
#[derive(Clone, PartialEq, Eq)]
struct Bearing {
    user: Vec<u8>,
    address: IpAddr,
    trunk: Option<Arc<TrunkKey>>,
}

/// The room.
pub(crate) struct Names {
    shard: ShardId,
    placement: Placement,
    /// What the bindings of this shard bear.
    own: HashMap<BindingId, Bearing>,
    /// The pairs whose home is here. At most one bearer for each binding there is.
    homes: HashMap<(Vec<u8>, IpAddr), Vec<Bearer>>,
    placed: Placed,
    events: VecDeque<Event>,
}

impl Names {
    /// Remembers where at most `placed_max` requests went.
    pub(crate) fn new(shard: ShardId, placement: Placement, placed_max: usize) -> Self {
        Self {
            shard,
            placement,
            own: HashMap::default(),
            homes: HashMap::default(),
            placed: Placed::new(placed_max),
            events: VecDeque::new(),
        }
    }

    /// The shard of a request that calls nobody of ours, by who sent it.
    pub(crate) fn home_of_sender(&self, request: &Message, peer: &SocketAddr) -> ShardId {
        self.placement.nameless(request, peer)
    }

    /// A binding bears a name at an address from now on, and nowhere else.
    pub(crate) fn bear(&mut self, binding: BindingId, user: Vec<u8>, address: IpAddr, trunk: Option<Arc<TrunkKey>>) {
        let news = Bearing { user, address, trunk };
        if self.own.get(&binding) == Some(&news) {
            return;
        }
        self.lay_down(binding);
        let Bearing { user, address, trunk } = news.clone();
        self.own.insert(binding, news);
        let home = self.placement.called(&user, address);
        self.tell(home, PeerMessage::NameBorne { user, address, trunk, binding });
    }

    /// It bears none any more.
    pub(crate) fn lay_down(&mut self, binding: BindingId) {
        let Some(Bearing { user, address, .. }) = self.own.remove(&binding) else { return };
        let home = self.placement.called(&user, address);
        self.tell(home, PeerMessage::NameLaidDown { user, address, binding });
    }

    /// Another shard speaks.
    pub(crate) fn handle_peer(&mut self, from: ShardId, message: PeerMessage) {
        match message {
            PeerMessage::NameBorne { user, address, trunk, binding } => {
                self.homes.entry((user, address)).or_default().push(Bearer { shard: from, binding, trunk });
            }
            PeerMessage::NameLaidDown { user, address, binding } => {
                let key = (user, address);
                let Some(bearers) = self.homes.get_mut(&key) else { return };
                bearers.retain(|bearer| (bearer.shard, bearer.binding) != (from, binding));
                if bearers.is_empty() {
                    self.homes.remove(&key);
                }
            }
            // Words of others; the engine never routes them here.
            _ => {}
        }
    }

    /// Who is meant by a request that calls `user`: whoever its transaction went to before, else who bears the name.
    pub(crate) fn meant_by(
        &mut self,
        request: &Message,
        user: &[u8],
        address: IpAddr,
        trunk: Option<&Arc<TrunkKey>>,
        now: Instant,
    ) -> Meant {
        let key = match request.method() {
            Some(Method::Cancel) => ServerKey::of_cancelled(request),
            _ => ServerKey::of(request),
        };
        let Ok(key) = key else { return self.meant(user, address, trunk) };
        if let Some((shard, binding)) = self.placed.of(&key) {
            return Meant::Binding(shard, binding);
        }
        let meant = self.meant(user, address, trunk);
        // Nothing else that is answered by what we hold is repeated or cancelled.
        let followed = matches!(request.method(), Some(Method::Invite | Method::Message));
        if let (Meant::Binding(shard, binding), true) = (meant, followed) {
            self.placed.add(key, (shard, binding), now);
        }
        meant
    }

    /// Who is meant by a name called from `address`, over this connection of ours if it is one.
    fn meant(&self, user: &[u8], address: IpAddr, trunk: Option<&Arc<TrunkKey>>) -> Meant {
        let Some(bearers) = self.homes.get(&(user.to_vec(), address)) else { return Meant::Nobody };
        let over_it = bearers.iter().filter(|bearer| trunk.is_some() && bearer.trunk.as_ref() == trunk);
        let mut by_connection = over_it.map(|bearer| Meant::Binding(bearer.shard, bearer.binding));
        match (by_connection.next(), by_connection.next(), bearers.as_slice()) {
            (Some(one), None, _) => one,
            (None, _, [only]) => Meant::Binding(only.shard, only.binding),
            _ => Meant::Several,
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.placed.handle_timeout(now);
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.placed.poll_timeout()
    }

    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// How full each table is.
    pub(crate) fn tables(&self, out: &mut Vec<(&'static str, usize)>) {
        let bearers: usize = self.homes.values().map(Vec::len).sum();
        out.extend([("names", self.own.len()), ("names.bearers", bearers), ("names.placed", self.placed.len())]);
    }

    fn tell(&mut self, to: ShardId, message: PeerMessage) {
        if to == self.shard {
            self.handle_peer(to, message);
        } else {
            self.events.push_back(Event::Peer(to, message));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ids::ListenerId;
    use crate::sip::Transport;

    const PBX: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 10));

    fn trunk(port: u16) -> Arc<TrunkKey> {
        let remote = SocketAddr::new(PBX, port);
        Arc::new(TrunkKey { transport: Transport::Tcp, remote, listener: ListenerId(0), identity: None })
    }

    #[test]
    fn a_name_is_found_at_its_source_alone_and_two_bearers_are_none_unless_the_connection_tells() {
        let mut room = Names::new(ShardId(0), Placement::new(1, [1, 2]), 2);
        let own = |number| Meant::Binding(ShardId(0), BindingId(number));
        room.bear(BindingId(1), b"alice".to_vec(), PBX, Some(trunk(1)));
        assert_eq!(room.meant(b"alice", PBX, None), own(1));
        assert_eq!(room.meant(b"Alice", PBX, None), Meant::Nobody);
        assert_eq!(room.meant(b"alice", "192.0.2.1".parse().expect("an address"), None), Meant::Nobody);

        room.bear(BindingId(2), b"alice".to_vec(), PBX, Some(trunk(2)));
        assert_eq!(room.meant(b"alice", PBX, None), Meant::Several);
        assert_eq!(room.meant(b"alice", PBX, Some(&trunk(2))), own(2));
        assert_eq!(room.meant(b"alice", PBX, Some(&trunk(3))), Meant::Several);

        room.bear(BindingId(2), b"alice".to_vec(), PBX, Some(trunk(1)));
        assert_eq!(room.meant(b"alice", PBX, Some(&trunk(1))), Meant::Several);
        room.lay_down(BindingId(1));
        assert_eq!(room.meant(b"alice", PBX, None), own(2));
        room.lay_down(BindingId(2));
        let mut tables = Vec::new();
        room.tables(&mut tables);
        assert!(tables.iter().all(|(_, size)| *size == 0));
    }

    #[test]
    fn what_belongs_to_a_request_follows_it_whoever_bears_the_name_by_then_and_the_oldest_is_forgotten_first() {
        let mut room = Names::new(ShardId(0), Placement::new(1, [1, 2]), 2);
        let start = Instant::from_nanos(0);
        let own = |number| Meant::Binding(ShardId(0), BindingId(number));
        let request = |method: &str, branch: u32| {
            let text = format!(
                "{method} sip:alice@b SIP/2.0\r\nVia: SIP/2.0/UDP c;branch=z9hG4bK{branch}\r\nFrom: <sip:c@d>;tag=1\r\n\
                 To: <sip:alice@b>\r\nCall-ID: 1\r\nCSeq: 1 {method}\r\n\r\n"
            );
            Message::parse_datagram(text.into_bytes()).expect("SIP")
        };
        let meant = |room: &mut Names, method: &str, branch: u32, at: Instant| {
            room.meant_by(&request(method, branch), b"alice", PBX, None, at)
        };
        room.bear(BindingId(1), b"alice".to_vec(), PBX, None);
        assert_eq!(meant(&mut room, "INVITE", 1, start), own(1));
        assert_eq!(meant(&mut room, "OPTIONS", 9, start), own(1));
        room.bear(BindingId(2), b"alice".to_vec(), PBX, None);
        for method in ["INVITE", "CANCEL", "ACK"] {
            assert_eq!(meant(&mut room, method, 1, start), own(1), "{method}");
            assert_eq!(meant(&mut room, method, 2, start), Meant::Several, "{method} of another");
        }
        assert_eq!(meant(&mut room, "OPTIONS", 9, start), Meant::Several, "not followed");
        room.lay_down(BindingId(1));
        assert_eq!(meant(&mut room, "CANCEL", 1, start), own(1), "the call is there still");
        for branch in [3, 4] {
            assert_eq!(meant(&mut room, "INVITE", branch, start), own(2));
        }
        assert_eq!(meant(&mut room, "CANCEL", 1, start), own(2), "forgotten, and looked up anew");
        room.lay_down(BindingId(2));
        assert_eq!(meant(&mut room, "CANCEL", 4, start), own(2));
        let end = room.poll_timeout().expect("an end");
        room.handle_timeout(end);
        assert_eq!((meant(&mut room, "CANCEL", 4, end), room.poll_timeout()), (Meant::Nobody, None));
    }
}
