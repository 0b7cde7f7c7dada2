//! Locating registrars: drives the machine of RFC 3263 with a real resolver.
//!
//! Names that need no server get none asked, so a registrar on the same machine needs no DNS. At most a fixed number of locations run at once, each with a deadline. Refuses to judge addresses: the
//! engine filters them.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::proto::rr::{Name, RData, RecordType};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::bounds::{LOCATES_AT_ONCE, LOCATES_QUEUED};
use super::{Names, stopped};
use crate::engine::account::{TrunkHost, TrunkUri};
use crate::engine::input::{LocateFault, Located};
use crate::sip::Transport;
use crate::sip::locate::{Answer, Locator, QUESTIONS_MAX, Question, SrvRecord, Step};

/// Called with the answer, exactly once.
pub type LocateDone = Box<dyn FnOnce(Result<Vec<Located>, LocateFault>) + Send>;

/// Which address families and transports a trunk can use.
#[derive(Clone, Debug)]
pub(super) struct Reach {
    pub(super) ipv4: bool,
    pub(super) ipv6: bool,
    /// Most wanted first.
    pub(super) transports: Vec<Transport>,
}

/// Where questions enter.
pub(super) struct Locates {
    queue: mpsc::Sender<Locate>,
}

/// Where they are answered.
pub(super) struct Answering {
    queue: mpsc::Receiver<Locate>,
    resolver: Arc<Resolver>,
    deadline: Duration,
}

struct Locate {
    uri: TrunkUri,
    done: LocateDone,
}

struct Resolver {
    names: Arc<Names>,
    reach: Reach,
    seeds: ahash::RandomState,
}

/// Makes both ends.
pub(super) fn locates(names: Arc<Names>, reach: Reach, deadline: Duration) -> (Locates, Answering) {
    let (sender, queue) = mpsc::channel(LOCATES_QUEUED);
    let resolver = Resolver { names, reach, seeds: ahash::RandomState::new() };
    (Locates { queue: sender }, Answering { queue, resolver: Arc::new(resolver), deadline })
}

impl Locates {
    /// Asks; a full queue answers at once. `false` then.
    pub(super) fn ask(&self, uri: TrunkUri, done: LocateDone) -> bool {
        let Err(error) = self.queue.try_send(Locate { uri, done }) else { return true };
        (error.into_inner().done)(Err(LocateFault::Unanswered));
        false
    }
}

impl Answering {
    /// Answers until told to stop.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut running = JoinSet::new();
        loop {
            tokio::select! {
                () = stopped(&mut stop) => return,
                Some(_) = running.join_next() => {}
                Some(locate) = self.queue.recv(), if running.len() < LOCATES_AT_ONCE => {
                    let (resolver, deadline) = (Arc::clone(&self.resolver), self.deadline);
                    running.spawn(async move {
                        let found = timeout(deadline, resolver.locate(&locate.uri)).await;
                        (locate.done)(found.unwrap_or(Err(LocateFault::Unanswered)));
                    });
                }
            }
        }
    }
}

impl Resolver {
    async fn locate(&self, uri: &TrunkUri) -> Result<Vec<Located>, LocateFault> {
        let (host, address) = match &uri.host {
            TrunkHost::Name(name) => (name.as_str(), None),
            TrunkHost::Address(address) => ("", Some(*address)),
        };
        let seed = self.seeds.hash_one(&uri.text);
        let mut locator = Locator::new(host, address, uri.port, uri.transport, &self.reach.transports, seed);
        // The machine asks no more than that, and then is done.
        for _ in 0..=QUESTIONS_MAX {
            match locator.step() {
                Step::Ask(question) => {
                    let answer = self.answer(&question).await;
                    locator.handle_answer(&question, answer);
                }
                Step::Done(found) => {
                    return Ok(found.into_iter().map(|(transport, address)| Located { transport, address }).collect());
                }
                Step::Failed { unanswered: true } => return Err(LocateFault::Unanswered),
                Step::Failed { unanswered: false } => break,
            }
        }
        Err(LocateFault::NoSuchName)
    }

    async fn answer(&self, question: &Question) -> Answer {
        match question {
            Question::Srv(name) => self.srv(name).await,
            Question::Addresses(name) => self.addresses(name).await,
        }
    }

    async fn srv(&self, name: &str) -> Answer {
        let domain = name.splitn(3, '.').nth(2).unwrap_or_default();
        if self.names.known(domain).is_some() {
            return Answer::Srv(Vec::new());
        }
        let record = |data: &RData| match data {
            RData::SRV(srv) => Some(SrvRecord {
                priority: srv.priority,
                weight: srv.weight,
                port: srv.port,
                target: relative(&srv.target),
            }),
            _ => None,
        };
        match self.names.lookup(name, RecordType::SRV, record).await {
            Some(records) => Answer::Srv(records),
            None => Answer::Unanswered,
        }
    }

    async fn addresses(&self, name: &str) -> Answer {
        if let Some(known) = self.names.known(name) {
            return Answer::Addresses(self.reachable(known));
        }
        let (v4, v6) = tokio::join!(
            async {
                match self.reach.ipv4 {
                    true => self.names.lookup(name, RecordType::A, RData::ip_addr).await,
                    false => Some(Vec::new()),
                }
            },
            async {
                match self.reach.ipv6 {
                    true => self.names.lookup(name, RecordType::AAAA, RData::ip_addr).await,
                    false => Some(Vec::new()),
                }
            },
        );
        if v4.is_none() && v6.is_none() {
            return Answer::Unanswered;
        }
        // IPv4 first: nearly every host that listens on IPv6 has a route there, but not every one.
        let found: Vec<_> = v4.iter().chain(v6.iter()).flatten().copied().collect();
        if found.is_empty() && (v4.is_none() || v6.is_none()) {
            return Answer::Unanswered;
        }
        Answer::Addresses(found)
    }

    fn reachable(&self, addresses: Vec<IpAddr>) -> Vec<IpAddr> {
        let is_reachable = |address: &IpAddr| if address.is_ipv6() { self.reach.ipv6 } else { self.reach.ipv4 };
        addresses.into_iter().filter(is_reachable).collect()
    }
}

/// The name without its closing dot; the root, which says that there is no such service (RFC 2782), stays a dot.
fn relative(name: &Name) -> String {
    let text = name.to_ascii();
    match text.strip_suffix('.') {
        Some(relative) if !relative.is_empty() => relative.to_owned(),
        _ => text,
    }
}

#[cfg(test)]
mod tests;
