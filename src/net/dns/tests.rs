//! Location against a DNS server on loopback.

use std::net::SocketAddr;
use std::sync::Mutex;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::{Message, OpCode, ResponseCode};
use hickory_resolver::proto::rr::Record;
use hickory_resolver::proto::rr::rdata::{A, AAAA, SRV};
use tokio::net::UdpSocket;
use tokio::sync::oneshot;

use super::*;
use crate::clock::PATIENCE;

#[tokio::test]
async fn a_domain_is_found_by_its_srv_records() {
    let server = Server::start(vec![
        ("_sip._tcp.pbx.test.", RData::SRV(SRV::new(20, 0, 5080, name("two.pbx.test.")))),
        ("_sip._tcp.pbx.test.", RData::SRV(SRV::new(10, 0, 5070, name("one.pbx.test.")))),
        ("one.pbx.test.", RData::AAAA(AAAA::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))),
        ("one.pbx.test.", RData::A(A::new(192, 0, 2, 1))),
        ("two.pbx.test.", RData::A(A::new(192, 0, 2, 2))),
    ])
    .await;
    let found = server.resolver(everything()).locate(&uri("sip:pbx.test")).await;
    let tcp = |address: &str| Located { transport: Transport::Tcp, address: literal(address) };
    let all = vec![tcp("192.0.2.1:5070"), tcp("[2001:db8::1]:5070"), tcp("192.0.2.2:5080")];
    assert_eq!(found, Ok(all));

    let only_v4 = Reach { ipv6: false, ..everything() };
    let found = server.resolver(only_v4).locate(&uri("sip:pbx.test;transport=tcp")).await;
    assert_eq!(found, Ok(vec![tcp("192.0.2.1:5070"), tcp("192.0.2.2:5080")]));
}

#[tokio::test]
async fn a_name_that_does_not_exist_differs_from_a_server_that_does_not_answer() {
    let server = Server::start(Vec::new()).await;
    let found = server.resolver(everything()).locate(&uri("sip:nowhere.test:5060")).await;
    assert_eq!(found, Err(LocateFault::NoSuchName));

    let nobody = resolver(Names::default(), everything());
    assert_eq!(nobody.locate(&uri("sip:pbx.test")).await, Err(LocateFault::Unanswered));
}

#[tokio::test]
async fn names_of_the_hosts_file_and_localhost_and_literals_need_no_server() {
    let mut names = Names::default();
    names.hosts.read_hosts_conf(&b"192.0.2.9 pbx.test\n"[..]).expect("a hosts file");
    let resolver = resolver(names, everything());

    let udp = |address: &str| Located { transport: Transport::Udp, address: literal(address) };
    assert_eq!(resolver.locate(&uri("sip:PBX.test")).await, Ok(vec![udp("192.0.2.9:5060")]));
    assert_eq!(resolver.locate(&uri("sip:[2001:db8::1]:5062")).await, Ok(vec![udp("[2001:db8::1]:5062")]));
    let local = resolver.locate(&uri("sip:localhost;transport=tls")).await.expect("found");
    assert!(local.contains(&Located { transport: Transport::Tls, address: literal("127.0.0.1:5061") }));
}

#[tokio::test]
async fn every_question_is_answered_even_where_there_is_no_room() {
    let (locates, _nobody_answers) = locates(Arc::default(), everything(), PATIENCE);
    let (sender, answer) = oneshot::channel();
    let sender = Arc::new(Mutex::new(Some(sender)));
    let asked = (0..=LOCATES_QUEUED)
        .map(|_| {
            let sender = Arc::clone(&sender);
            let tell = move |found| {
                let sender = sender.lock().ok().and_then(|mut sender| sender.take()).expect("one refusal");
                sender.send(found).expect("the test waits");
            };
            locates.ask(uri("sip:pbx.test"), Box::new(tell))
        })
        .filter(|is_queued| *is_queued)
        .count();
    assert_eq!(asked, LOCATES_QUEUED);
    assert_eq!(timeout(PATIENCE, answer).await.expect("at once"), Ok(Err(LocateFault::Unanswered)));
}

/// Answers from a list of records; everything else does not exist.
struct Server {
    address: SocketAddr,
    _task: JoinSet<()>,
}

impl Server {
    async fn start(records: Vec<(&'static str, RData)>) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
        let address = socket.local_addr().expect("bound");
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut buffer = [0; 1500];
            while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
                let reply = answer(&buffer[..length], &records);
                let _ = socket.send_to(&reply, peer).await;
            }
        });
        Self { address, _task: task }
    }

    fn resolver(&self, reach: Reach) -> Resolver {
        let mut server = NameServerConfig::udp(self.address.ip());
        for connection in &mut server.connections {
            connection.port = self.address.port();
        }
        let config = ResolverConfig::from_name_servers(vec![server]);
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        builder.options_mut().use_hosts_file = ResolveHosts::Never;
        resolver(Names { whole: Some(builder.build().expect("a resolver")), ..Names::default() }, reach)
    }
}

fn resolver(names: Names, reach: Reach) -> Resolver {
    Resolver { names: Arc::new(names), reach, seeds: ahash::RandomState::new() }
}

fn answer(query: &[u8], records: &[(&str, RData)]) -> Vec<u8> {
    let query = Message::from_vec(query).expect("a query");
    let asked = query.queries.first().expect("one question").clone();
    let mut reply = Message::response(query.metadata.id, OpCode::Query);
    let mut known = records.iter().filter(|(owner, _)| name(owner) == *asked.name()).peekable();
    if known.peek().is_none() {
        reply.metadata.response_code = ResponseCode::NXDomain;
    }
    for (owner, data) in known.filter(|(_, data)| data.record_type() == asked.query_type()) {
        reply.add_answer(Record::from_rdata(name(owner), 60, data.clone()));
    }
    reply.add_query(asked);
    reply.to_vec().expect("a reply")
}

fn everything() -> Reach {
    Reach { ipv4: true, ipv6: true, transports: vec![Transport::Udp, Transport::Tcp, Transport::Tls] }
}

fn uri(text: &str) -> TrunkUri {
    TrunkUri::parse("registrar", text).expect("a trunk URI")
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).expect("a name")
}

fn literal(text: &str) -> SocketAddr {
    text.parse().expect("a literal")
}
