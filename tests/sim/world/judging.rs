//! Looking at everything that happened, and at what is left of it.

use reveille::engine::story::Story;
use reveille::engine::tally::Tally;

use super::*;
use reveille::engine::tally::TextOutcome;

impl World {
    /// The engines sent no request since they had sent `count` messages.
    pub fn assert_no_request_since(&self, count: usize) {
        let requests = self.sent[count..].iter().filter(|(_, _, bytes)| !bytes.starts_with(b"SIP/2.0 "));
        let lines: Vec<_> = requests.map(|(_, to, bytes)| (to, first_line(bytes))).collect();
        assert!(lines.is_empty(), "{lines:?}");
    }

    /// How full all tables are, over all shards.
    pub fn tables(&self) -> BTreeMap<&'static str, usize> {
        let mut tables = BTreeMap::new();
        for engine in &self.engines {
            for (name, size) in engine.tables() {
                *tables.entry(name).or_default() += size;
            }
        }
        tables
    }

    pub(super) fn filled_and_busy(&self) -> (BTreeMap<&'static str, usize>, Vec<String>) {
        let phones = self.phones.values().filter(|phone| !phone.is_quiet() || phone.transactions.len() > 0);
        let pbxs = self.pbxs.iter().filter(|pbx| !pbx.is_quiet() || pbx.transactions.len() > 0);
        let phones = phones.flat_map(|phone| phone.transactions.describe());
        let pbxs = pbxs.flat_map(|pbx| pbx.transactions.describe());
        (self.filled(), phones.chain(pbxs).collect())
    }

    /// The tables that are not empty.
    pub(super) fn filled(&self) -> BTreeMap<&'static str, usize> {
        self.tables().into_iter().filter(|(_, size)| *size > 0).collect()
    }

    pub fn table(&self, name: &str) -> usize {
        *self.tables().get(name).unwrap_or_else(|| panic!("no table {name}"))
    }

    /// The `call` ids of calls placed to a phone's account so far, by the INVITEs of the PBX.
    pub fn calls_of(&mut self, user: &str) -> Vec<CallUuid> {
        self.calls_at(user, user)
    }

    /// The `call` ids that a phone has for the calls placed to an account.
    pub fn calls_at(&mut self, phone: &str, user: &str) -> Vec<CallUuid> {
        let instance = self.phone(phone).instance();
        let calls = self.pbx().calls().filter(|(_, call)| call.user == user);
        calls.map(|(_, call)| ringing::uuid_of(&call.invite, instance)).collect()
    }

    /// Every message the engines sent to an address, in order.
    pub fn sent_to(&self, address: &str) -> Vec<Message> {
        let there = self.sent.iter().filter(|(_, to, _)| to == address);
        there.map(|(_, _, bytes)| Message::parse_datagram(bytes.clone()).expect("SIP")).collect()
    }

    /// How often that became of a text, over all shards so far.
    pub fn texts_counted(&mut self, outcome: TextOutcome) -> u64 {
        for engine in &mut self.engines {
            for (sum, count) in self.texts.iter_mut().zip(engine.take_tally().texts) {
                *sum += count;
            }
        }
        self.texts[outcome as usize]
    }

    /// How the calls ended, by the engines' own words.
    pub fn outcomes(&self) -> Vec<CallOutcome> {
        let of = |note: &Note| match note {
            Note::CallEnded(_, _, outcome) => Some(*outcome),
            _ => None,
        };
        self.notes.iter().filter_map(of).collect()
    }

    /// The stories of the calls that are over, as the log has them.
    pub fn stories(&self) -> Vec<&Story> {
        fn of(note: &Note) -> Option<&Story> {
            if let Note::CallStory(story) = note { Some(story) } else { None }
        }
        self.notes.iter().filter_map(of).collect()
    }

    /// What the engines counted since they were last asked.
    pub fn take_tallies(&mut self) -> Vec<Tally> {
        self.engines.iter_mut().map(Engine::take_tally).collect()
    }

    /// Everything that has to end by itself has ended: no transaction, held call, dialog, wake, waiting command, erasure
    /// or permit is left, and the peers are content too.
    pub fn assert_nothing_left(&mut self) {
        self.run_until_quiet();
        // Dialogs linger for a transaction's life, ended calls for two minutes.
        self.run_for(minutes(3));
        self.run_until_quiet();
        let resting = [
            "vault",
            "vault.sealed",
            "texts.held",
            "texts.inboxes",
            "leases",
            "leases.accounts",
            "leases.benches",
            "leases.capabilities",
            "leases.ways",
            "edge",
            "bindings",
            "bindings.trunks",
            "destinations",
            "destinations.loaded",
            "places",
            "places.tried",
            "guesses",
            "guesses.paid",
            "hand_overs.unjudged",
            "hand_overs.failed_moves",
            "mailboxes",
            "wakes.budgets",
            "wakes.notices",
            "wakes.suspects",
            "wakes.tests",
            "stories.private_media",
            "erasures.graves",
            "erasures.asides",
            "names",
            "names.bearers",
            "names.placed",
            "orders",
        ];
        let left: BTreeMap<_, _> =
            self.tables().into_iter().filter(|(name, size)| *size > 0 && !resting.contains(name)).collect();
        assert!(left.is_empty(), "left: {left:?}");
        let tables = self.tables();
        assert_eq!(tables["vault"], tables["leases"], "a secret for each instance and none besides");
        assert_eq!(tables["vault.sealed"], tables["texts.held"], "what waits is sealed, and nothing else is");
        assert_eq!(tables["bindings"], tables["leases.benches"], "a registration for each binding");
        assert_eq!(tables["leases.capabilities"], tables["leases.benches"]);
        let alone: Vec<_> = self.phones.values().filter(|it| !it.transactions.unacknowledged.is_empty()).collect();
        assert!(alone.is_empty(), "{} waits for an ACK", alone[0].name);
    }

    /// Nothing of anybody is held any more.
    pub fn assert_empty(&mut self) {
        self.assert_nothing_left();
        let tables = self.tables();
        let sealed = ["vault.sealed", "texts.held", "texts.inboxes", "mailboxes"];
        assert!(sealed.iter().all(|name| tables[name] == 0), "{tables:?}");
        let held = [
            "vault",
            "bindings",
            "destinations.loaded",
            "bindings.trunks",
            "stories.private_media",
            "places",
            "erasures.asides",
            "names",
            "proofs",
            "proofs.claims",
        ];
        let leases = tables.keys().filter(|name| name.starts_with("leases"));
        for name in leases.copied().chain(held) {
            assert_eq!(tables[name], 0, "{name}");
        }
        for (name, size) in tables.iter().filter(|(name, _)| name.starts_with("wakes.")) {
            assert_eq!(*size, 0, "{name}");
        }
    }

    /// A fingerprint of everything that happened.
    pub fn transcript(&self) -> u64 {
        self.story.fingerprint()
    }

    /// What a failing test prints above its story.
    pub fn entitle(&mut self, title: &str) {
        self.story.entitle(title);
    }

    pub(super) fn is_quiet(&self) -> bool {
        let is_open = |stream| self.connections.get(&stream).is_some_and(|it| it.open);
        let peers_rest = self.events.is_empty()
            && self.pbxs.iter().all(|pbx| pbx.is_quiet() && pbx.transactions.len() == 0)
            && self.phones.values().all(|phone| phone.is_quiet() && !phone.transactions.are_under_way(is_open));
        if !peers_rest {
            return false;
        }
        let tables = self.tables();
        TRANSIENT.iter().all(|name| tables[name] == 0)
    }
}
