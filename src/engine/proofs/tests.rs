use super::*;
use crate::engine::input::PushPurpose;
use crate::engine::policy::Provider;

const NOW: Instant = Instant::from_nanos(1_000_000_000_000);

/// Two shards, and what is on its way to each, in order.
struct Pair {
    rooms: [Proofs; 2],
    mail: [VecDeque<TokenMessage>; 2],
    challenged: Vec<InstanceId>,
    settled: Vec<ReplyTo>,
}

impl Pair {
    fn new() -> Self {
        let room = || Proofs::new(Placement::new(2, [5, 6]), 10);
        Self {
            rooms: [room(), room()],
            mail: [VecDeque::new(), VecDeque::new()],
            challenged: Vec::new(),
            settled: Vec::new(),
        }
    }

    fn room(&mut self, id: InstanceId) -> &mut Proofs {
        &mut self.rooms[usize::from(id.shard().0)]
    }

    /// Puts what the rooms say on its way.
    fn post(&mut self) {
        for room in &mut self.rooms {
            while let Some(event) = room.poll_event() {
                match event {
                    Event::Peer(to, message) => self.mail[usize::from(to.0)].push_back(message),
                    Event::Challenge(id) => self.challenged.push(id),
                    Event::Settled(_, reply) => self.settled.push(reply),
                    Event::Proven(_) | Event::Later(..) => {}
                }
            }
        }
    }

    /// Delivers one message to a shard, if there is one.
    fn deliver(&mut self, to: usize) -> bool {
        self.post();
        let Some(message) = self.mail[to].pop_front() else { return false };
        self.rooms[to].handle_peer(message, NOW);
        true
    }

    fn run(&mut self) {
        while self.deliver(0) || self.deliver(1) {}
    }

    /// Hands over, and returns the challenge.
    fn prove(&mut self, id: InstanceId, device: &str, tokens: Tokens) {
        self.room(id).review(id, device, tokens, NOW);
        self.run();
        self.answer(id);
        self.run();
    }

    fn answer(&mut self, id: InstanceId) {
        let challenge = Challenge::new([3; 16]);
        self.room(id).challenged(id, Some(challenge), NOW);
        assert_eq!(self.room(id).answer(id, Some(challenge), ReplyTo(9), NOW), Said::Waits);
    }
}

fn instance(shard: u16, number: u8) -> InstanceId {
    InstanceId::mint(ShardId(shard), [number; 16])
}

fn tokens(other: &str, call: &str) -> Tokens {
    let target = |purpose, token: &str| PushTarget {
        purpose,
        provider: Provider::Apns,
        app: "app".to_owned(),
        token: token.into(),
    };
    let tenant = "acme".into();
    Tokens::new(&tenant, &target(PushPurpose::Other, other), &target(PushPurpose::Call, call))
}

#[test]
fn a_claim_made_while_word_of_a_loss_is_under_way_has_its_own_answer() {
    let (alice, bob) = (instance(0, 1), instance(1, 2));
    let mut pair = Pair::new();
    let both = tokens("other", "call");
    pair.prove(alice, "alice", both);
    pair.room(bob).review(bob, "bob", both, NOW);
    pair.run();
    pair.answer(bob);
    // The homes have heard of bob, and alice has not.
    pair.post();
    let word: Vec<_> = pair.mail.iter_mut().flat_map(|mail| mail.drain(..)).collect();
    for message in word {
        let home = usize::from(pair.rooms[0].placement.token(&message.token).0);
        pair.rooms[home].handle_peer(message, NOW);
    }
    // She claims once more, of her own accord, before the word comes.
    pair.room(alice).claim(alice);
    pair.run();
    assert_eq!(pair.rooms[0].state(alice), ProofState::Proven, "the newest word counts");
    assert_eq!(pair.rooms[1].state(bob), ProofState::Pending);
    for id in [alice, bob] {
        let _ = pair.room(id).forget(id);
    }
    pair.run();
    let mut tables = Vec::new();
    pair.rooms.iter().for_each(|room| room.tables(&mut tables));
    let left: Vec<_> = tables.iter().filter(|(name, size)| *name != "proofs.challenged" && *size > 0).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn an_instance_whose_tokens_changed_while_it_claimed_keeps_no_claim_of_the_former_ones() {
    let alice = instance(0, 1);
    let mut pair = Pair::new();
    pair.room(alice).review(alice, "alice", tokens("a", "b"), NOW);
    pair.run();
    pair.answer(alice);
    pair.room(alice).review(alice, "alice", tokens("c", "d"), NOW);
    pair.run();
    assert_eq!(pair.rooms[0].state(alice), ProofState::Pending);
    assert_eq!((pair.settled.len(), pair.challenged.len()), (1, 2), "answered, and challenged anew");
    let mut tables = Vec::new();
    pair.rooms.iter().for_each(|room| room.tables(&mut tables));
    assert!(tables.iter().all(|(name, size)| *name != "proofs.claims" || *size == 0), "{tables:?}");
}

#[test]
fn an_instance_that_names_one_token_after_another_is_challenged_at_its_pace() {
    let alice = instance(0, 1);
    let mut pair = Pair::new();
    let mut change = |number: u32, at: Duration| {
        let token = number.to_string();
        pair.room(alice).review(alice, "alice", tokens(&token, &token), NOW + at);
        pair.run();
        pair.challenged.len()
    };
    let told: Vec<usize> = (0..10).map(|number| change(number, Duration::ZERO)).collect();
    assert_eq!(told, [1, 2, 3, 3, 3, 3, 3, 3, 3, 3], "the first ones at once, as apps do");
    assert_eq!(change(10, PAUSE), 4);
    assert_eq!(change(11, PAUSE), 4);
    // It may be asked for once its time has come, as ever.
    let room = pair.room(alice);
    assert!(matches!(room.ask(alice, ReplyTo(1), NOW + PAUSE), Said::Later(wait) if wait == PAUSE * 3));
    assert_eq!(room.ask(alice, ReplyTo(1), NOW + PAUSE * 4), Said::Waits);
}

#[test]
fn a_device_that_changes_its_other_token_keeps_its_voip_token_account_by_account() {
    let (one, two) = (instance(0, 1), instance(1, 2));
    let mut pair = Pair::new();
    for id in [one, two] {
        pair.prove(id, "phone", tokens("old", "voip"));
    }
    pair.prove(one, "phone", tokens("new", "voip"));
    assert_eq!((pair.rooms[0].state(one), pair.rooms[1].state(two)), (ProofState::Proven, ProofState::Proven));
}
