//! SKELETON. Locating a server (RFC 3263): a machine that asks DNS questions and yields an ordered list. A port or transport in the URI is honoured.
//! NAPTR is not asked; without transport: SRV for _sip._udp, _sip._tcp, _sips._tcp in the order of `supported`, then A/AAAA with UDP.
use super::via::Transport;
use std::net::{IpAddr, SocketAddr};
/// One question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question { Srv(String), Addresses(String) }
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SrvRecord { pub priority: u16, pub weight: u16, pub port: u16, pub target: String }
/// An answer; an empty list means the name has no such record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer { Srv(Vec<SrvRecord>), Addresses(Vec<IpAddr>), /// no resolver answered
    Unanswered }
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step { Ask(Question), Done(Vec<(Transport, SocketAddr)>), /// nothing found; `true`: because resolvers did not answer
    Failed { unanswered: bool } }
pub struct Locator { _p: () }
impl Locator {
    /// `supported`: transports we can use, most wanted first. `seed` orders equal weights (RFC 2782).
    pub fn new(_host: &str, _address: Option<IpAddr>, _port: Option<u16>, _transport: Option<Transport>, _supported: &[Transport], _seed: u64) -> Self { todo!() }
    pub fn step(&mut self) -> Step { todo!() }
    pub fn handle_answer(&mut self, _question: &Question, _answer: Answer) { todo!() }
}
