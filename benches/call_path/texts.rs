//! What a PBX and a phone say, of common size.

use std::fmt::Write as _;
use std::net::SocketAddr;

use reveille::sip::digest::{Secret, Session, Signed};
use reveille::sip::{Message, Transport};

const SDP: &str = "v=0\r\no=- 20518 0 IN IP4 198.51.100.7\r\ns=-\r\nc=IN IP4 198.51.100.7\r\nt=0 0\r\n\
    m=audio 18432 RTP/AVP 8 0 9 101\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:9 G722/8000\r\n\
    a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na=ptime:20\r\na=sendrecv\r\n";

/// Who attaches, and how.
pub(crate) struct Phone {
    pub(crate) instance: String,
    pub(crate) token: String,
    pub(crate) realm: String,
    pub(crate) transport: Transport,
    pub(crate) own: SocketAddr,
}

/// The PBX's INVITE to a capability.
pub(crate) fn invite(callee: &str, transport: Transport, own: SocketAddr, number: usize) -> String {
    let via = transport.as_param().to_uppercase();
    format!(
        "INVITE sip:{callee}@127.0.0.1:5060;transport=udp SIP/2.0\r\n\
         Via: SIP/2.0/{via} {own};branch=z9hG4bKinvite{number};rport\r\n\
         Max-Forwards: 70\r\n\
         From: \"Bob Example\" <sip:+15550100@pbx.example.net>;tag=as5f1e2d3c{number}\r\n\
         To: <sip:{callee}@127.0.0.1:5060>\r\n\
         Contact: <sip:+15550100@{own};transport={}>\r\n\
         Call-ID: {number}-7f3d2c1b0a998877665544332211ffee@pbx.example.net\r\n\
         CSeq: 102 INVITE\r\n\
         User-Agent: Example PBX 20.5\r\n\
         Allow: INVITE, ACK, CANCEL, OPTIONS, BYE, REFER, SUBSCRIBE, NOTIFY, INFO, PUBLISH, MESSAGE\r\n\
         Supported: replaces, timer\r\n\
         Session-Expires: 1800\r\n\
         P-Asserted-Identity: \"Bob Example\" <sip:+15550100@pbx.example.net>\r\n\
         Content-Type: application/sdp\r\n\
         Content-Length: {}\r\n\r\n{SDP}",
        transport.as_param(),
        SDP.len()
    )
}

/// The phone's REGISTER at the edge; with a session it answers the challenge.
pub(crate) fn register(phone: &Phone, session: Option<&mut Session>, cseq: usize, expires: u32) -> String {
    let Phone { instance, token, realm, transport, own } = phone;
    let target = format!("sip:{realm}");
    let mut text = format!(
        "REGISTER {target} SIP/2.0\r\n\
         Via: SIP/2.0/{} {own};branch=z9hG4bKregister{cseq}x{expires};rport\r\n\
         Max-Forwards: 70\r\n\
         From: <sip:{instance}@{realm}>;tag=phone{cseq}\r\n\
         To: <sip:{instance}@{realm}>\r\n\
         Call-ID: register-{instance}\r\n\
         CSeq: {cseq} REGISTER\r\n\
         Contact: <sip:phone@{own};transport={}>\r\n\
         Expires: {expires}\r\n\
         Allow: INVITE, ACK, BYE, CANCEL, OPTIONS, NOTIFY, REFER, MESSAGE, UPDATE, PRACK\r\n\
         User-Agent: A softphone with a name of some length/4.2\r\n",
        transport.as_param().to_uppercase(),
        transport.as_param(),
    );
    if let Some(session) = session {
        let secret = Secret::Password(token.as_bytes());
        let value = session.authorize(instance, secret, Signed::bare("REGISTER", &target), "cn0nce");
        let value = String::from_utf8(value).expect("made of texts");
        write!(text, "Authorization: {value}\r\n").expect("a String never refuses");
    }
    text.push_str("Content-Length: 0\r\n\r\n");
    text
}

/// The session that answers a 401.
pub(crate) fn session(challenge: &Message) -> Session {
    Session::choose(challenge.challenges(), |_, _| true).expect("a challenge that can be answered")
}

/// The phone's answer to an INVITE.
pub(crate) fn response(invite: &Message, line: &str, own: SocketAddr) -> String {
    let mut text = format!("SIP/2.0 {line}\r\n");
    copy(&mut text, invite, &["Via", "Record-Route", "From", "Call-ID", "CSeq"]);
    let to = value(invite, "To");
    write!(text, "To: {to};tag=phone\r\nContact: <sip:phone@{own}>\r\nContent-Length: 0\r\n\r\n")
        .expect("a String never refuses");
    text
}

/// The ACK to a final other than 2xx: the INVITE's own transaction.
pub(crate) fn ack(invite: &Message, last: &Message) -> String {
    let uri = String::from_utf8_lossy(invite.request_uri().expect("a request")).into_owned();
    let mut text = format!("ACK {uri} SIP/2.0\r\n");
    copy(&mut text, invite, &["Via", "Max-Forwards", "From", "Call-ID"]);
    write!(text, "To: {}\r\nCSeq: 102 ACK\r\nContent-Length: 0\r\n\r\n", value(last, "To"))
        .expect("a String never refuses");
    text
}

/// The PBX's 200 to a REGISTER.
pub(crate) fn registered(register: &Message) -> String {
    let mut text = "SIP/2.0 200 OK\r\n".to_owned();
    copy(&mut text, register, &["Via", "From", "Call-ID", "CSeq"]);
    let (to, contact) = (value(register, "To"), value(register, "Contact"));
    write!(text, "To: {to};tag=pbx\r\nContact: {contact};expires=600\r\nContent-Length: 0\r\n\r\n")
        .expect("a String never refuses");
    text
}

fn copy(text: &mut String, from: &Message, names: &[&str]) {
    let wanted = |name: &[u8]| names.iter().any(|wanted| wanted.as_bytes().eq_ignore_ascii_case(name));
    for header in from.headers().filter(|header| wanted(header.raw_name)) {
        let (name, value) = (String::from_utf8_lossy(header.raw_name), String::from_utf8_lossy(header.value));
        write!(text, "{name}: {value}\r\n").expect("a String never refuses");
    }
}

fn value(from: &Message, name: &str) -> String {
    let header = from.headers().find(|header| name.as_bytes().eq_ignore_ascii_case(header.raw_name));
    String::from_utf8_lossy(header.expect("each has it").value).into_owned()
}
