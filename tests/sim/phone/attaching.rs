//! Attaching: a phone's REGISTER at the edge, and the flows it comes and goes on.

use std::net::SocketAddr;
use std::time::Duration;

use reveille::sip::digest::{Secret, Session, Signed};
use reveille::sip::{HeaderName, Message, Method, Transport};

use super::{Phone, Todo};
use crate::sip_text::{Request, code};
use crate::transactions::{Out, Path};

impl Phone {
    /// Attaches now, on the flow it has or on a new one.
    pub fn attach(&mut self) {
        if self.transport != Transport::Udp && self.stream.is_none() {
            self.streams += 1;
            let stream = (self.number + 1) << 32 | self.streams;
            self.stream = Some(stream);
            let own = SocketAddr::new(self.address.ip(), 50_000 + u16::try_from(self.streams).expect("few streams"));
            self.address = own;
            self.transactions.out.push_back(Out::Open { stream, own, transport: self.transport });
        }
        self.register(self.expires);
    }

    /// Tries once with what credentials it has, and takes a refusal for an answer.
    pub fn attach_once(&mut self) {
        self.stubborn = false;
        self.attach();
    }

    /// Leaves the edge in order.
    pub fn detach(&mut self) {
        self.register(0);
        self.until = None;
    }

    /// The connection breaks, or for UDP: the NAT forgets it.
    pub fn lose_flow(&mut self) {
        self.until = None;
        match self.stream.take() {
            Some(stream) => self.transactions.out.push_back(Out::Close(stream)),
            None => self.reachable = false,
        }
    }

    /// The app is suspended: its connection is closed, and what datagrams come to it is as before.
    pub fn sleep(&mut self) {
        self.until = None;
        if let Some(stream) = self.stream.take() {
            self.transactions.out.push_back(Out::Close(stream));
        }
    }

    /// Comes back from another port (UDP) or over a new connection.
    pub fn reattach(&mut self) {
        self.reachable = true;
        if self.transport == Transport::Udp {
            self.address.set_port(self.address.port() + 1);
        }
        self.attach();
    }

    /// Crashes: it knows no call and no transaction any more.
    pub fn crash(&mut self) {
        self.lose_flow();
        self.transactions.clear();
        self.later.clear();
        for call in &mut self.calls {
            call.ended.get_or_insert("crashed");
        }
    }

    pub(super) fn handle_register_answer(&mut self, response: &Message, request: &Message) {
        let code = code(response);
        self.verdicts.push(code);
        let expires = request.expires().ok().flatten().unwrap_or(0);
        match code {
            401 => {
                let again = request.header(HeaderName::Authorization).is_some()
                    && response.challenges().all(|challenge| !challenge.stale);
                if again && !self.stubborn {
                    return;
                }
                assert!(!again, "the edge refuses the right credentials");
                self.session = Session::choose(response.challenges(), |_, _| true);
                assert!(self.session.is_some(), "a challenge that can be answered");
                self.register(expires);
            }
            200 => {
                self.news.extend(
                    response
                        .headers()
                        .filter(|header| header.raw_name.eq_ignore_ascii_case(b"Reveille-Call"))
                        .map(|header| String::from_utf8_lossy(header.value).into_owned()),
                );
                if expires > 0 {
                    let span = Duration::from_secs(expires.into());
                    self.until = Some(self.now + span);
                    self.later.retain(|(_, todo)| !matches!(todo, Todo::Refresh));
                    self.later.push((self.now + span / 2, Todo::Refresh));
                }
            }
            _ => self.until = None,
        }
    }

    pub(super) fn register(&mut self, expires: u32) {
        self.cseq += 1;
        self.minted += 1;
        if self.through.is_some() {
            return self.register_through(expires);
        }
        let account = self.account.as_ref().expect("handed over");
        let target = format!("sip:{}", account.realm);
        let username = account.instance.to_string();
        let mut extra = vec![
            ("Contact".to_owned(), format!("<{}>", self.contact())),
            ("Expires".to_owned(), expires.to_string()),
            ("User-Agent".to_owned(), "A softphone with a name of some length/4.2".to_owned()),
            ("Allow".to_owned(), "INVITE, ACK, BYE, CANCEL, OPTIONS, NOTIFY, REFER, MESSAGE, UPDATE, PRACK".to_owned()),
        ];
        if let Some(session) = &mut self.session {
            let secret = Secret::Password(account.token.as_bytes());
            let value = session.authorize(&username, secret, Signed::bare("REGISTER", &target), "cn0nce");
            extra.push(("Authorization".to_owned(), String::from_utf8(value).expect("made of texts")));
        }
        let request = Request {
            method: Method::Register,
            uri: &target,
            transport: self.transport,
            sent_by: self.host().to_owned(),
            branch: format!("z9hG4bKreg{}x{}", self.number, self.minted),
            routes: &[],
            from: format!("<{}>;tag=phone{}", account.aor, self.minted),
            to: format!("<{}>", account.aor),
            call_id: &format!("register-{}", self.name),
            cseq: self.cseq,
            extra,
            body: b"",
        };
        let message = request.write();
        self.transactions.request(&message, self.path(), self.now);
    }

    pub fn path(&self) -> Path {
        match self.stream {
            Some(stream) => Path::Stream(stream),
            None => Path::Datagram { own: self.address, peer: self.edge },
        }
    }

    pub(super) fn contact(&self) -> String {
        let plain = format!("sip:{}@{};transport={}", self.name, self.host(), self.transport.as_uri_param());
        if self.through.is_some() { format!("{plain};{}", self.push_params()) } else { plain }
    }

    /// Where it says it is; a script in a browser does not know (RFC 7118 §5.1).
    pub(super) fn host(&self) -> &'static str {
        if self.transport.is_websocket() { "df7jal23ls0d.invalid" } else { "192.168.1.5:5060" }
    }
}
