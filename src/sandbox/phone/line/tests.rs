//! The phone's line against a server of a few lines that sends exactly what a test tells it to.

use std::future::Future;

use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::*;
use crate::clock::PATIENCE;
use crate::sandbox::registrar::canned_sdp;
use crate::sip::{HeaderName, Method};

#[tokio::test]
async fn an_answer_is_repeated_until_its_ack_comes() {
    let (mut line, server) = registered().await;
    server.send(&server.invite("one", "")).await;
    let offer = offered(&mut line).await;
    line.answer(offer.call, canned_sdp("phone", 1));
    let first = server.received_while(&mut line, is_answer).await;
    let again = server.received_while(&mut line, is_answer).await;
    assert_eq!(first.bytes(), again.bytes());
    server.send(&server.in_dialog("ACK", 1, &first)).await;
    let event = within(line.next()).await;
    assert!(matches!(event, LineEvent::Confirmed(call) if call == offer.call), "{event:?}");
}

#[tokio::test]
async fn a_changed_session_gets_the_same_description_again() {
    let (mut line, server) = registered().await;
    let (call, answer) = server.established(&mut line).await;
    let reinvite = server.in_dialog("INVITE", 2, &answer);
    server.send(&reinvite).await;
    let second = server.received_while(&mut line, is_answer).await;
    assert_eq!((second.cseq().expect("CSeq").number, second.body()), (2, answer.body()));
    server.send(&server.in_dialog("ACK", 2, &answer)).await;
    server.send(&server.in_dialog("BYE", 3, &answer)).await;
    loop {
        match within(line.next()).await {
            LineEvent::Confirmed(_) => {}
            LineEvent::HungUp(over) => break assert_eq!(over, call),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn an_older_request_in_a_dialog_is_refused() {
    let (mut line, server) = registered().await;
    let (_, answer) = server.established(&mut line).await;
    server.send(&server.in_dialog("OPTIONS", 7, &answer)).await;
    assert_eq!(server.status_while(&mut line, "OPTIONS").await, 200);
    server.send(&server.in_dialog("BYE", 6, &answer)).await;
    assert_eq!(server.status_while(&mut line, "BYE").await, 500);
}

#[tokio::test]
async fn what_belongs_to_no_dialog_or_asks_too_much_is_refused() {
    let (mut line, server) = registered().await;
    server.send(&server.invite("required", "Require: 100rel\r\n")).await;
    assert_eq!(server.status_while(&mut line, "INVITE").await, 420);
    server.send(&server.invite("no-contact", "").replace("Contact", "X-Contact")).await;
    assert_eq!(server.status_while(&mut line, "INVITE").await, 400);
    server.send(&server.invite("gone", "").replace("INVITE", "BYE").replace("@phone>", "@phone>;tag=gone")).await;
    assert_eq!(server.status_while(&mut line, "BYE").await, 481);
    server.send(&server.invite("no-invite", "").replace("INVITE", "CANCEL")).await;
    assert_eq!(server.status_while(&mut line, "CANCEL").await, 481);
}

#[tokio::test]
async fn the_same_call_by_another_way_is_refused_as_merged() {
    let (mut line, server) = registered().await;
    let invite = server.invite("merged", "");
    server.send(&invite).await;
    let offer = offered(&mut line).await;
    server.send(&invite.replace("z9hG4bKmerged", "z9hG4bKother")).await;
    let merged = |message: &Message| message.top_via().is_ok_and(|via| via.branch() == Some("z9hG4bKother"));
    let refusal = server.received_while(&mut line, merged).await;
    assert_eq!(refusal.status(), Some(StatusCode::LOOP_DETECTED));
    line.ring(offer.call);
    assert_eq!(server.status_while(&mut line, "INVITE").await, 180, "the first one goes on");
}

#[tokio::test]
async fn a_notice_of_an_ended_call_is_read() {
    let (line, server) = opened().await;
    let (registered, ()) = tokio::join!(register(line), async {
        let request = server.received().await;
        let notice = "Reveille-Call: 123e4567;state=ended;reason=cancelled\r\n";
        server.send(&server.answer(&request, "200 OK", notice)).await;
    });
    let expected = CallNotice {
        call: "123e4567".to_owned(),
        state: Some("ended".to_owned()),
        reason: Some("cancelled".to_owned()),
    };
    assert_eq!(registered.0.calls, [expected]);
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("in time")
}

async fn opened() -> (Line, Server) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
    let own = socket.local_addr().expect("bound");
    let plan = LinePlan {
        server: format!("sip:{own}"),
        aor: format!("sip:phone@{own}"),
        username: "phone".to_owned(),
        password: Zeroizing::new(String::new()),
        realm: None,
        trust: Trust::PublicRoots,
    };
    let line = within(Line::open(plan)).await.expect("opened");
    let phone = line.contact();
    (line, Server { socket, own, phone })
}

async fn register(mut line: Line) -> (Registered, Line) {
    match within(line.register(Duration::from_secs(600))).await {
        LineEvent::Registered(registered) => (registered, line),
        other => panic!("not registered: {other:?}"),
    }
}

async fn registered() -> (Line, Server) {
    let (line, server) = opened().await;
    let ((_, line), ()) = tokio::join!(register(line), async {
        let request = server.received().await;
        server.send(&server.answer(&request, "200 OK", "")).await;
    });
    (line, server)
}

async fn offered(line: &mut Line) -> Offer {
    match within(line.next()).await {
        LineEvent::Offered(offer) => offer,
        other => panic!("no call: {other:?}"),
    }
}

fn is_answer(message: &Message) -> bool {
    message.status() == Some(StatusCode::OK) && message.cseq().is_ok_and(|cseq| cseq.method == Method::Invite)
}

/// Where the phone is registered.
struct Server {
    socket: UdpSocket,
    own: SocketAddr,
    phone: String,
}

impl Server {
    async fn send(&self, message: &str) {
        let uri = Uri::parse(self.phone.as_bytes()).expect("a URI");
        let Host::Address(ip) = uri.host() else { panic!("an address") };
        let phone = SocketAddr::new(ip, uri.port().expect("a port"));
        self.socket.send_to(message.as_bytes(), phone).await.expect("sent");
    }

    async fn received(&self) -> Message {
        let mut buffer = vec![0; 65_536];
        let (length, _) = within(self.socket.recv_from(&mut buffer)).await.expect("received");
        Message::parse_datagram(buffer[..length].to_vec()).expect("SIP")
    }

    /// The next message that passes, while the phone lives on.
    async fn received_while(&self, line: &mut Line, test: impl Fn(&Message) -> bool) -> Message {
        loop {
            tokio::select! {
                message = self.received() => if test(&message) { return message },
                event = line.next() => panic!("unexpected: {event:?}"),
            }
        }
    }

    /// The next status of a response to the method, other than 100.
    async fn status_while(&self, line: &mut Line, method: &str) -> u16 {
        let counts = |message: &Message| {
            let of_method = message.cseq().is_ok_and(|cseq| cseq.method.as_str() == method);
            of_method && message.status().is_some_and(|code| code != StatusCode::TRYING)
        };
        self.received_while(line, counts).await.status().map_or(0, StatusCode::code)
    }

    fn invite(&self, name: &str, extra: &str) -> String {
        let Self { own, phone, .. } = self;
        format!(
            "INVITE {phone} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bK{name}\r\nMax-Forwards: 70\r\n\
             From: <sip:bob@{own}>;tag=bob\r\nTo: <sip:someone@phone>\r\nCall-ID: {name}\r\nCSeq: 1 INVITE\r\n\
             Contact: <sip:bob@{own}>\r\n{extra}Content-Length: 0\r\n\r\n"
        )
    }

    /// A request in the dialog that `answer` made.
    fn in_dialog(&self, method: &str, number: u32, answer: &Message) -> String {
        let text = |name| String::from_utf8_lossy(answer.header(name).unwrap_or_default()).into_owned();
        let (from, to, call_id) = (text(HeaderName::From), text(HeaderName::To), text(HeaderName::CallId));
        let Self { own, phone, .. } = self;
        format!(
            "{method} {phone} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bK{method}{number}\r\nMax-Forwards: 70\r\n\
             From: {from}\r\nTo: {to}\r\nCall-ID: {call_id}\r\nCSeq: {number} {method}\r\n\
             Contact: <sip:bob@{own}>\r\nContent-Length: 0\r\n\r\n"
        )
    }

    fn answer(&self, request: &Message, status: &str, extra: &str) -> String {
        let mut answer = format!("SIP/2.0 {status}\r\n");
        for header in request.headers() {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let (name, value) = (text(header.raw_name), text(header.value));
            match name.as_str() {
                "Via" | "From" | "Call-ID" | "CSeq" | "Contact" => answer.push_str(&format!("{name}: {value}\r\n")),
                "To" => answer.push_str(&format!("{name}: {value};tag=server\r\n")),
                _ => {}
            }
        }
        answer + extra + "Content-Length: 0\r\n\r\n"
    }

    /// An answered call and its 200.
    async fn established(&self, line: &mut Line) -> (CallId, Message) {
        self.send(&self.invite("call", "")).await;
        let offer = offered(line).await;
        line.answer(offer.call, canned_sdp("phone", 1));
        let answer = self.received_while(line, is_answer).await;
        self.send(&self.in_dialog("ACK", 1, &answer)).await;
        let event = within(line.next()).await;
        assert!(matches!(event, LineEvent::Confirmed(call) if call == offer.call), "{event:?}");
        (offer.call, answer)
    }
}
