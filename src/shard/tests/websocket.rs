//! A call to a phone on WebSocket, through everything there is: a real client, the network side, shards, a registrar on UDP.

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Message as Sent, http::HeaderValue};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::*;
use crate::sip::digest::{Secret, Session, Signed};

/// The Contact of a script that knows no address of its own (RFC 7118 §5.1).
const CONTACT: &str = "sip:kq0j2s9h@df7jal23ls0d.invalid;transport=ws";

#[tokio::test]
async fn a_phone_attaches_over_websocket_takes_a_call_and_hangs_up() {
    let world = World::start(PATIENCE, Arc::new(|_| {}));
    let registrar = Registrar::bind().await;
    let (answer, register) = tokio::join!(world.hand_over(registrar.address), registrar.grant());
    let handed = handed_over(answer);
    let mut phone = Phone::attach(&handed).await;

    let callee = register.contacts().find_map(Result::ok).expect("a Contact").uri().raw().to_vec();
    let callee = String::from_utf8(callee).expect("text");
    let edge = literal(callee.split(['@', ';']).nth(1).expect("our own address"));
    registrar.send(&invite(&callee, registrar.address), edge).await;
    let invite = phone.receive().await;
    assert_eq!((invite.method(), invite.body()), (Some(Method::Invite), &b"offer"[..]));
    assert_eq!(invite.request_uri(), Some(CONTACT.as_bytes()));
    phone.answer(&invite, &[("Contact", format!("<{CONTACT}>"))]).await;
    let answered = registrar.receive(StatusCode::OK).await;
    assert_eq!(answered.list(HeaderName::RecordRoute).count(), 2, "RFC 5658");

    // Without Content-Length here, with it on the trunk.
    let routes = text(&invite, HeaderName::RecordRoute).join(", ");
    let (from, to) = (&text(&invite, HeaderName::To)[0], &text(&invite, HeaderName::From)[0]);
    phone
        .send(&format!(
            "BYE sip:bob@{address} SIP/2.0\r\nVia: SIP/2.0/WS df7jal23ls0d.invalid;branch=z9hG4bKbye\r\nMax-Forwards: 70\r\n\
             Route: {routes}\r\nFrom: {from};tag=phone\r\nTo: {to}\r\nCall-ID: call-1\r\nCSeq: 2 BYE\r\n\r\n",
            address = registrar.address,
        ))
        .await;
    let bye = registrar.request(Method::Bye).await;
    assert_eq!(text(&bye, HeaderName::ContentLength), ["0"]);
    registrar.send(&reply(&bye, StatusCode::OK, &[]), edge).await;
    assert_eq!(phone.receive().await.status(), Some(StatusCode::OK));
}

/// A phone on WebSocket.
struct Phone(WebSocketStream<TcpStream>);

impl Phone {
    /// Connects where the hand-over says, and registers with the instance's token.
    async fn attach(handed: &HandedOver) -> Self {
        let [uri] = &handed.attach.alternatives[..] else { unreachable!("one WebSocket listener") };
        let mut request = uri.into_client_request().expect("a URI as clients take it");
        request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static("sip"));
        let address = uri.strip_prefix("ws://").expect("without TLS");
        let stream = within(TcpStream::connect(address)).await.expect("it listens");
        let (stream, _) = within(client_async(request, stream)).await.expect("an upgrade");
        let mut phone = Self(stream);

        phone.send(&registration(handed, 1, None)).await;
        let challenged = phone.receive().await;
        assert_eq!(challenged.status(), Some(StatusCode::UNAUTHORIZED));
        let mut session = Session::choose(challenged.challenges(), |_, _| true).expect("a challenge");
        let secret = Secret::Password(handed.token.as_bytes());
        let uri = format!("sip:{}", handed.attach.realm);
        let signed = Signed::bare("REGISTER", &uri);
        let authorization = session.authorize(&handed.attach.username, secret, signed, "cn0nce");
        let authorization = String::from_utf8(authorization).expect("made of texts");
        phone.send(&registration(handed, 2, Some(&authorization))).await;
        assert_eq!(phone.receive().await.status(), Some(StatusCode::OK));
        phone
    }

    async fn send(&mut self, message: &str) {
        within(self.0.send(Sent::text(message))).await.expect("it is open");
    }

    async fn receive(&mut self) -> Message {
        let sent = within(self.0.next()).await.expect("more comes").expect("a frame");
        Message::parse_datagram(sent.into_text().expect("text").as_bytes().to_vec()).expect("SIP")
    }

    async fn answer(&mut self, request: &Message, extra: &[(&str, String)]) {
        let bytes = reply(request, StatusCode::OK, extra);
        self.send(std::str::from_utf8(&bytes).expect("text")).await;
    }
}

impl Registrar {
    async fn send(&self, bytes: &[u8], to: SocketAddr) {
        self.socket.send_to(bytes, to).await.expect("sent");
    }

    async fn receive(&self, code: StatusCode) -> Message {
        self.await_message(|message| message.status() == Some(code)).await
    }

    async fn request(&self, method: Method<'_>) -> Message {
        self.await_message(|message| message.method() == Some(method)).await
    }

    async fn await_message(&self, wanted: impl Fn(&Message) -> bool) -> Message {
        let mut buffer = [0; 4096];
        loop {
            let length = within(self.socket.recv(&mut buffer)).await.expect("a datagram");
            let message = Message::parse_datagram(buffer[..length].to_vec()).expect("SIP");
            if wanted(&message) {
                return message;
            }
        }
    }
}

fn registration(handed: &HandedOver, cseq: u32, authorization: Option<&str>) -> String {
    let (realm, aor) = (&handed.attach.realm, &handed.attach.aor);
    let credentials = authorization.map(|value| format!("Authorization: {value}\r\n")).unwrap_or_default();
    format!(
        "REGISTER sip:{realm} SIP/2.0\r\nVia: SIP/2.0/WS df7jal23ls0d.invalid;branch=z9hG4bKr{cseq}\r\nMax-Forwards: 69\r\n\
         To: <{aor}>\r\nFrom: <{aor}>;tag=p\r\nCall-ID: register-1\r\nCSeq: {cseq} REGISTER\r\n{credentials}\
         Contact: <{CONTACT}>;expires=600\r\n\r\n"
    )
}

fn invite(callee: &str, from: SocketAddr) -> Vec<u8> {
    format!(
        "INVITE {callee} SIP/2.0\r\nVia: SIP/2.0/UDP {from};branch=z9hG4bKinvite;rport\r\nMax-Forwards: 70\r\n\
         From: <sip:bob@pbx.test>;tag=b\r\nTo: <sip:alice@pbx.test>\r\nCall-ID: call-1\r\nCSeq: 1 INVITE\r\n\
         Contact: <sip:bob@{from}>\r\nContent-Type: application/sdp\r\nContent-Length: 5\r\n\r\noffer"
    )
    .into_bytes()
}

fn reply(request: &Message, code: StatusCode, extra: &[(&str, String)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let reply = Reply { code, to_tag: Some("phone"), source: None, record_route: true, extra };
    write_reply(request, &reply, &mut bytes).expect("its fields are there");
    bytes
}

fn text(message: &Message, name: HeaderName) -> Vec<String> {
    message.list(name).map(|value| String::from_utf8_lossy(value).into_owned()).collect()
}
