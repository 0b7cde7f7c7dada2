//! A phone made of nothing but the guide: it writes each message as the guide shows it, and reads what comes.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use md5::{Digest, Md5};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::process::PATIENCE;
use crate::world::EDGE_DOMAIN;

/// The session description of each answer.
const SDP: &str =
    "v=0\r\no=- 1 1 IN IP4 192.168.7.23\r\ns=-\r\nc=IN IP4 192.168.7.23\r\nt=0 0\r\nm=audio 40000 RTP/AVP 0\r\n";

/// One connection to the edge.
pub(super) struct RawPhone {
    stream: StreamOwned<ClientConnection, TcpStream>,
    read: Vec<u8>,
    instance: String,
    token: String,
    /// Its own address, as in its Contact.
    pub(super) address: String,
    call_id: String,
    cseq: u32,
}

/// REGISTER, 401, REGISTER, 200.
pub(super) type Registered = [String; 4];

impl RawPhone {
    #[track_caller]
    pub(super) fn connect(port: u16, ca_file: &Path, instance: &str, token: &str) -> Self {
        let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the daemon listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("the time is not zero");
        let address = socket.local_addr().expect("it is connected").to_string();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca_file).expect("the authority was written")).expect("it is one");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider knows TLS 1.2 and 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::from(std::net::IpAddr::from(Ipv4Addr::LOCALHOST));
        let tls = ClientConnection::new(Arc::new(config), name).expect("the configuration is complete");
        let call_id = format!("registration-{}", uuid::Uuid::new_v4());
        let (instance, token) = (instance.to_owned(), token.to_owned());
        Self { stream: StreamOwned::new(tls, socket), read: Vec::new(), instance, token, address, call_id, cseq: 0 }
    }

    /// Registers for `expires` seconds and returns the four messages.
    #[track_caller]
    pub(super) fn register(&mut self, expires: u32) -> Registered {
        let first = self.register_request(expires, "");
        self.send(&first);
        let challenge = self.receive();
        assert!(challenge.starts_with("SIP/2.0 401 "), "{challenge}");
        let authorization = self.authorization(&challenge);
        let second = self.register_request(expires, &authorization);
        self.send(&second);
        let answer = self.receive();
        assert!(answer.starts_with("SIP/2.0 200 "), "{answer}");
        [first, challenge, second, answer]
    }

    fn register_request(&mut self, expires: u32, authorization: &str) -> String {
        self.cseq += 1;
        let Self { instance, address, call_id, cseq, .. } = self;
        format!(
            "REGISTER sip:{EDGE_DOMAIN} SIP/2.0\r\nVia: SIP/2.0/TLS {address};branch=z9hG4bK{cseq};rport\r\n\
             Max-Forwards: 70\r\nFrom: <sip:{instance}@{EDGE_DOMAIN}>;tag=phone\r\nTo: <sip:{instance}@{EDGE_DOMAIN}>\r\n\
             Call-ID: {call_id}\r\nCSeq: {cseq} REGISTER\r\nContact: <sip:phone@{address};transport=tls>\r\n\
             Expires: {expires}\r\n{authorization}Content-Length: 0\r\n\r\n"
        )
    }

    fn authorization(&self, challenge: &str) -> String {
        let nonce = challenge.split("nonce=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a nonce");
        let (user, uri) = (&self.instance, format!("sip:{EDGE_DOMAIN}"));
        let ha1 = md5(&format!("{user}:{EDGE_DOMAIN}:{}", self.token));
        let ha2 = md5(&format!("REGISTER:{uri}"));
        let response = md5(&format!("{ha1}:{nonce}:00000001:0a4f113b:auth:{ha2}"));
        format!(
            "Authorization: Digest username=\"{user}\",realm=\"{EDGE_DOMAIN}\",nonce=\"{nonce}\",uri=\"{uri}\",\
             algorithm=MD5,qop=auth,nc=00000001,cnonce=\"0a4f113b\",response=\"{response}\"\r\n"
        )
    }

    /// Answers a request; `body` of a 200 to an INVITE is its SDP.
    pub(super) fn answer(&mut self, request: &str, status: &str) -> String {
        let mut answer = format!("SIP/2.0 {status}\r\n");
        for line in request.lines().take_while(|line| !line.is_empty()) {
            let name = line.split(':').next().unwrap_or_default();
            if !["Via", "From", "To", "Call-ID", "CSeq", "Record-Route"].contains(&name) {
                continue;
            }
            let tag = if name == "To" && !line.contains(";tag=") && status != "100 Trying" { ";tag=phone" } else { "" };
            answer += &format!("{line}{tag}\r\n");
        }
        let body = if request.starts_with("INVITE ") && status.starts_with("200") { SDP } else { "" };
        if request.starts_with("INVITE ") && status != "100 Trying" {
            answer += &format!("Contact: <sip:phone@{};transport=tls>\r\n", self.address);
        }
        if !body.is_empty() {
            answer += "Content-Type: application/sdp\r\n";
        }
        answer += &format!("Content-Length: {}\r\n\r\n{body}", body.len());
        self.send(&answer);
        answer
    }

    pub(super) fn send(&mut self, message: &str) {
        self.stream.write_all(message.as_bytes()).expect("the connection is up");
        self.stream.flush().expect("the connection is up");
    }

    /// The next message that is `what`: a method or `SIP/2.0 CODE`; fails on any other.
    #[track_caller]
    pub(super) fn expect(&mut self, what: &str) -> String {
        let message = self.receive();
        assert!(message.starts_with(what), "expected {what}, came {message}");
        message
    }

    /// The next message.
    #[track_caller]
    fn receive(&mut self) -> String {
        loop {
            while self.read.starts_with(b"\r\n") {
                self.read.drain(..2);
            }
            if let Some(length) = complete(&self.read) {
                return String::from_utf8(self.read.drain(..length).collect()).expect("all of it is UTF-8");
            }
            let mut chunk = [0; 4096];
            let count = self.stream.read(&mut chunk).expect("the daemon has something to say");
            assert_ne!(count, 0, "the daemon closed the connection");
            self.read.extend_from_slice(&chunk[..count]);
        }
    }
}

/// How long the first message is, once it is there.
fn complete(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let text = String::from_utf8_lossy(&bytes[..head]);
    let body = text.lines().find_map(|line| line.strip_prefix("Content-Length: "))?.trim().parse::<usize>().ok()?;
    let length = head + 4 + body;
    (bytes.len() >= length).then_some(length)
}

fn md5(text: &str) -> String {
    Md5::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}
