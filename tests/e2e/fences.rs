//! What a registrar does with a REGISTER that is older than one it has seen, as it comes from a process that was believed dead.
//!
//! RFC 3261 §10.3 wants a binding kept when a request of the same Call-ID has a lower CSeq. No registrar here does so for contacts
//! like ours, which is why nothing in the daemon relies on it. When one of these tests fails, a registrar has changed.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use md5::{Digest, Md5};

use crate::asterisk::{self, Asterisk};
use crate::kamailio::{self, Kamailio, PASSWORD};
use crate::pbx::Pbx;
use crate::process::until;
use crate::world::{PBX_DOMAIN, World};

/// After how long a request that got no answer is sent again (timer T1).
const AGAIN: Duration = Duration::from_millis(500);

/// Alice's client, which counts as it is told.
struct Client {
    socket: UdpSocket,
    pbx: (Ipv4Addr, u16),
    /// What stands behind its Contact.
    instance: &'static str,
    sent: u32,
}

impl Client {
    #[track_caller]
    fn new(pbx: &dyn Pbx, instance: &'static str) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        socket.set_read_timeout(Some(AGAIN)).expect("not zero");
        Self { socket, pbx: (Ipv4Addr::LOCALHOST, pbx.port()), instance, sent: 0 }
    }

    /// A REGISTER with its digest, under a CSeq of the test's choice; the final answer's status.
    #[track_caller]
    fn register(&mut self, cseq: u32, expires: u32) -> u16 {
        let challenge = self.ask(cseq, expires, "");
        let value = |name: &str| {
            let (_, rest) = challenge.split_once(&format!("{name}=\""))?;
            rest.split('"').next().map(str::to_owned)
        };
        let [realm, nonce] = ["realm", "nonce"].map(|name| value(name).unwrap_or_else(|| panic!("{challenge}")));
        let opaque = value("opaque").map(|opaque| format!(", opaque=\"{opaque}\"")).unwrap_or_default();
        let ha1 = md5(&format!("alice:{realm}:{PASSWORD}"));
        let ha2 = md5(&format!("REGISTER:sip:{PBX_DOMAIN}"));
        let response = md5(&format!("{ha1}:{nonce}:00000001:once:auth:{ha2}"));
        let answer = self.ask(
            cseq,
            expires,
            &format!(
                "Authorization: Digest username=\"alice\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"sip:{PBX_DOMAIN}\", \
                 qop=auth, nc=00000001, cnonce=\"once\", response=\"{response}\"{opaque}\r\n"
            ),
        );
        answer.get(8..11).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{answer}"))
    }

    #[track_caller]
    fn ask(&mut self, cseq: u32, expires: u32, authorization: &str) -> String {
        let request = self.request(cseq, expires, authorization);
        let branch = format!("branch=z9hG4bK{}-{}", self.port(), self.sent);
        until("the registrar to answer", || {
            self.socket.send_to(request.as_bytes(), self.pbx).expect("loopback takes it");
            let mut buffer = vec![0; 65_536];
            // An answer to what was sent twice may come while the next one is waited for.
            while let Ok(length) = self.socket.recv(&mut buffer) {
                let answer = String::from_utf8_lossy(&buffer[..length]).into_owned();
                if answer.contains(&branch) && !answer.starts_with("SIP/2.0 1") {
                    return Some(answer);
                }
            }
            None
        })
    }

    fn port(&self) -> u16 {
        self.socket.local_addr().expect("it is bound").port()
    }

    fn request(&mut self, cseq: u32, expires: u32, authorization: &str) -> String {
        self.sent += 1;
        let port = self.port();
        format!(
            "REGISTER sip:{PBX_DOMAIN} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{port};rport;branch=z9hG4bK{port}-{sent}\r\n\
             Max-Forwards: 70\r\nFrom: <sip:alice@{PBX_DOMAIN}>;tag=one\r\nTo: <sip:alice@{PBX_DOMAIN}>\r\n\
             Call-ID: fence-{port}\r\nCSeq: {cseq} REGISTER\r\nContact: <sip:alice@127.0.0.1:{port}>{instance}\r\n\
             Expires: {expires}\r\n{authorization}Content-Length: 0\r\n\r\n",
            sent = self.sent,
            instance = self.instance,
        )
    }
}

fn md5(text: &str) -> String {
    Md5::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// As every client that has an identity sends it (RFC 5626 §4.1), and so do we.
const INSTANCE: &str = ";+sip.instance=\"<urn:uuid:4b1682a8-f968-4701-83fc-7c6741dc6697>\"";

/// What is obeyed although something newer was.
#[derive(Debug, PartialEq, Eq)]
struct Obeyed {
    /// An un-REGISTER with a lower CSeq than the REGISTER's.
    lower_un_register: bool,
    /// A REGISTER with a lower CSeq than that of the un-REGISTER before it.
    late_register: bool,
}

#[track_caller]
fn obeyed(pbx: &dyn Pbx, bindings: impl Fn() -> usize, instance: &'static str) -> Obeyed {
    let mut client = Client::new(pbx, instance);
    assert_eq!((client.register(10, 600), bindings()), (200, 1));
    client.register(5, 0);
    let lower_un_register = bindings() == 0;
    assert_eq!((client.register(20, 600), bindings()), (200, 1));
    assert_eq!((client.register(21, 0), bindings()), (200, 0));
    client.register(15, 600);
    let late_register = bindings() == 1;
    client.register(30, 0);
    Obeyed { lower_un_register, late_register }
}

/// It compares CSeq for a Contact without `+sip.instance`, and forgets it with the binding.
#[test]
fn kamailio_compares_nothing_for_a_contact_like_ours() {
    let world = World::new("fence-kamailio");
    let kamailio = Kamailio::start(&world, &kamailio::Manners::default());
    let bindings = || kamailio.bindings("alice").len();

    let ours = obeyed(&kamailio, bindings, INSTANCE);
    let plain = obeyed(&kamailio, bindings, "");

    assert_eq!(ours, Obeyed { lower_un_register: true, late_register: true });
    assert_eq!(plain, Obeyed { lower_un_register: false, late_register: true });
}

#[test]
fn asterisk_compares_nothing_at_all() {
    let world = World::new("fence-asterisk");
    let asterisk = Asterisk::start(&world, &asterisk::Manners::default());

    for instance in [INSTANCE, ""] {
        let obeyed = obeyed(&asterisk, || asterisk.bindings("alice").len(), instance);
        assert_eq!(obeyed, Obeyed { lower_un_register: true, late_register: true }, "{instance:?}");
    }
}

/// RFC 3261 §8.1.1.5: less than 2^31. A count that goes on after a restart must not come near it.
#[test]
fn asterisk_does_not_answer_a_cseq_that_is_too_large() {
    let world = World::new("fence-asterisk-cseq");
    let asterisk = Asterisk::start(&world, &asterisk::Manners::default());
    let mut client = Client::new(&asterisk, INSTANCE);
    let too_large = client.request(1 << 31, 600, "");

    client.socket.send_to(too_large.as_bytes(), client.pbx).expect("loopback takes it");
    assert_eq!(client.register((1 << 31) - 1, 600), 200, "the largest one there is");

    let answered = asterisk.trace.messages().iter().any(|message| {
        message.status().is_some() && message.header("CSeq").is_some_and(|cseq| cseq.starts_with("2147483648"))
    });
    assert!(!answered);
}
