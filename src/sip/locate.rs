//! Locating a server (RFC 3263): a machine that asks DNS questions and yields addresses in the order to try them.
//!
//! Its own room because the rules can be tested without a resolver. NAPTR is not asked: a registrar is configured with
//! its transport, or found by SRV in our own order of preference. The first transport with SRV records that lead
//! somewhere is the one: mixing transports would let a failing TLS server be replaced by its plain neighbour. It refuses
//! to judge addresses; whether one may be used is its owner's decision.

use std::net::{IpAddr, SocketAddr};

use super::via::Transport;

/// Most questions for one location.
pub const QUESTIONS_MAX: usize = 16;
/// Most targets that are resolved of one SRV answer.
pub const TARGETS_MAX: usize = 8;
/// Most addresses yielded.
pub const ADDRESSES_MAX: usize = 32;
/// Longest domain name, as text.
const NAME_MAX: usize = 253;

/// One question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// The SRV records of a name.
    Srv(String),
    /// The A and AAAA records of a name.
    Addresses(String),
}

/// One SRV record (RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SrvRecord {
    /// Lower is tried first.
    pub priority: u16,
    /// The share among those of one priority.
    pub weight: u16,
    /// Where it listens.
    pub port: u16,
    /// Its name; `.` means "no such service here".
    pub target: String,
}

/// An answer; an empty list means the name has no such record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To [`Question::Srv`].
    Srv(Vec<SrvRecord>),
    /// To [`Question::Addresses`], best first.
    Addresses(Vec<IpAddr>),
    /// No resolver answered.
    Unanswered,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask this and hand the answer to `handle_answer`.
    Ask(Question),
    /// Try these in this order.
    Done(Vec<(Transport, SocketAddr)>),
    /// Nothing found.
    Failed {
        /// Because resolvers did not answer: worth another try.
        unanswered: bool,
    },
}

/// One location on its way.
#[derive(Debug)]
pub struct Locator {
    host: String,
    /// Whose SRV records are asked for, in this order.
    transports: Vec<Transport>,
    /// For the host's own addresses, where there is no SRV record.
    direct: Option<(Transport, u16)>,
    stage: Stage,
    asked: Option<Question>,
    questions: usize,
    /// Names resolved so far: several records may share a target.
    known: Vec<(String, Vec<IpAddr>)>,
    found: Vec<(Transport, SocketAddr)>,
    unanswered: bool,
    /// The domain has SRV records, so its own addresses are not meant (RFC 3263 §4.2).
    has_srv: bool,
    seed: u64,
}

#[derive(Debug)]
enum Stage {
    /// Asks for the SRV records of the transport at this place.
    Srv(usize),
    /// Resolves the targets of the transport at `place`, next one first.
    Targets {
        place: usize,
        targets: std::vec::IntoIter<SrvRecord>,
        current: Option<SrvRecord>,
    },
    /// Resolves the host itself.
    Direct,
    Finished,
}

impl Locator {
    /// Locates the host of a `sip:` URI. `address`: the host, if it is a literal; a `port` rules out SRV; a `transport`
    /// rules out the others. `supported`: what we can use, most wanted first. `seed` orders equal weights (RFC 2782).
    #[must_use]
    pub fn new(
        host: &str,
        address: Option<IpAddr>,
        port: Option<u16>,
        transport: Option<Transport>,
        supported: &[Transport],
        seed: u64,
    ) -> Self {
        let host = host.trim_end_matches('.');
        let literal = || host.trim_start_matches('[').trim_end_matches(']').parse().ok();
        // "If no transport … is specified: UDP for a SIP URI" (RFC 3263 §4.1).
        let preferred =
            if supported.contains(&Transport::Udp) { Some(Transport::Udp) } else { supported.first().copied() };
        let usable = transport.map_or(preferred, |wanted| supported.contains(&wanted).then_some(wanted));
        let direct = usable.map(|usable| (usable, port.unwrap_or_else(|| usable.default_port())));
        let mut locator = Self {
            host: host.to_owned(),
            transports: transport.map_or_else(|| supported.to_vec(), |wanted| vec![wanted]),
            direct,
            stage: Stage::Srv(0),
            asked: None,
            questions: 0,
            known: Vec::new(),
            found: Vec::new(),
            unanswered: false,
            has_srv: false,
            seed,
        };
        locator.transports.retain(|transport| srv_prefix(*transport).is_some());
        match (direct, address.or_else(literal)) {
            (None, _) => locator.stage = Stage::Finished,
            (Some((transport, port)), Some(address)) => {
                locator.found.push((transport, SocketAddr::new(address, port)));
                locator.stage = Stage::Finished;
            }
            (Some(_), None) if host.is_empty() || host.len() > NAME_MAX => locator.stage = Stage::Finished,
            (Some(_), None) if port.is_some() => locator.stage = Stage::Direct,
            (Some(_), None) => {}
        }
        locator
    }

    /// What to do next. Asked again before the answer, it says the same.
    #[must_use]
    pub fn step(&mut self) -> Step {
        loop {
            if let Some(question) = &self.asked {
                return Step::Ask(question.clone());
            }
            match self.next_question() {
                Some(_) if self.questions == QUESTIONS_MAX => self.stage = Stage::Finished,
                Some(question) => {
                    self.questions += 1;
                    self.asked = Some(question);
                }
                None if self.found.is_empty() => return Step::Failed { unanswered: self.unanswered },
                None => return Step::Done(self.found.clone()),
            }
        }
    }

    /// Takes the answer to the question that `step` asked; any other is ignored.
    pub fn handle_answer(&mut self, question: &Question, answer: Answer) {
        if self.asked.as_ref() != Some(question) {
            return;
        }
        self.asked = None;
        match (question, answer) {
            (Question::Srv(_), Answer::Srv(records)) => self.handle_records(records),
            (Question::Addresses(name), Answer::Addresses(addresses)) => self.handle_addresses(name, addresses),
            // An answer of the wrong kind is no answer.
            (Question::Srv(_), _) => {
                self.unanswered = true;
                self.handle_records(Vec::new());
            }
            (Question::Addresses(name), _) => {
                self.unanswered = true;
                self.handle_addresses(name, Vec::new());
            }
        }
    }

    fn handle_records(&mut self, records: Vec<SrvRecord>) {
        let Stage::Srv(place) = self.stage else { return };
        self.has_srv |= !records.is_empty();
        let mut targets = ordered(records, &mut self.seed);
        targets.truncate(TARGETS_MAX);
        self.stage = Stage::Targets { place, targets: targets.into_iter(), current: None };
    }

    fn handle_addresses(&mut self, name: &str, addresses: Vec<IpAddr>) {
        match &self.stage {
            Stage::Direct => {
                if let Some((transport, port)) = self.direct {
                    self.add(transport, port, &addresses);
                }
                self.stage = Stage::Finished;
            }
            Stage::Targets { .. } => self.known.push((name.to_owned(), addresses)),
            Stage::Srv(_) | Stage::Finished => {}
        }
    }

    /// Goes on until a question comes up; `None` at the end.
    fn next_question(&mut self) -> Option<Question> {
        loop {
            match &mut self.stage {
                Stage::Finished => return None,
                Stage::Direct => return Some(Question::Addresses(self.host.clone())),
                Stage::Srv(place) => match self.transports.get(*place).and_then(|t| srv_prefix(*t)) {
                    Some(prefix) => return Some(Question::Srv(format!("{prefix}.{}", self.host))),
                    None if self.has_srv => self.stage = Stage::Finished,
                    None => self.stage = Stage::Direct,
                },
                Stage::Targets { place, targets, current } => {
                    let Some(record) = current.take().or_else(|| targets.next()) else {
                        let next = *place + 1;
                        self.stage = if self.found.is_empty() { Stage::Srv(next) } else { Stage::Finished };
                        continue;
                    };
                    let transport = self.transports[*place];
                    let known = self.known.iter().position(|(name, _)| *name == record.target);
                    if let Ok(address) = record.target.parse() {
                        self.add(transport, record.port, &[address]);
                    } else if let Some(known) = known {
                        let addresses = self.known[known].1.clone();
                        self.add(transport, record.port, &addresses);
                    } else {
                        let question = Question::Addresses(record.target.clone());
                        *current = Some(record);
                        return Some(question);
                    }
                }
            }
        }
    }

    fn add(&mut self, transport: Transport, port: u16, addresses: &[IpAddr]) {
        for address in addresses {
            let place = (transport, SocketAddr::new(*address, port));
            if self.found.len() < ADDRESSES_MAX && !self.found.contains(&place) {
                self.found.push(place);
            }
        }
    }
}

/// The name in front of the domain. WebSocket has none: such servers are found by their URI (RFC 7118 §7).
fn srv_prefix(transport: Transport) -> Option<&'static str> {
    match transport {
        Transport::Udp => Some("_sip._udp"),
        Transport::Tcp => Some("_sip._tcp"),
        Transport::Tls => Some("_sips._tcp"),
        Transport::Ws | Transport::Wss => None,
    }
}

/// RFC 2782: by priority, and within one priority at random by weight. A target of `.` and what cannot be asked for
/// fall out. Sorted first, so that one seed gives one order however the resolver rotates its answer.
fn ordered(mut records: Vec<SrvRecord>, seed: &mut u64) -> Vec<SrvRecord> {
    for record in &mut records {
        record.target.truncate(record.target.trim_end_matches('.').len());
    }
    records.retain(|record| !record.target.is_empty() && record.target.len() <= NAME_MAX && record.port != 0);
    records.sort_by(|a, b| (a.priority, a.weight, &a.target, a.port).cmp(&(b.priority, b.weight, &b.target, b.port)));
    let mut out = Vec::with_capacity(records.len());
    while let Some(first) = records.first() {
        let priority = first.priority;
        let group = records.iter().take_while(|record| record.priority == priority);
        let total: u64 = group.clone().map(|record| u64::from(record.weight)).sum();
        let drawn = next_random(seed) % (total + 1);
        let mut running = 0;
        // The sum over the whole group is `total`, so a place is always found; the first one is as good as any.
        let place = group
            .map(|record| {
                running += u64::from(record.weight);
                running
            })
            .position(|sum| sum >= drawn)
            .unwrap_or(0);
        out.push(records.remove(place));
    }
    out
}

/// SplitMix64: a load-balancing draw needs spread, not secrecy.
fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut value = *state;
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests;
