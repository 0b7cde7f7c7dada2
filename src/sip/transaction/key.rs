//! Which server transaction a request belongs to (RFC 3261 §17.2.3), and which INVITE a CANCEL means (§9.2).

use super::super::message::{FieldError, HeaderName, Message, Method};
use super::super::uri::Host;
use super::super::via::{Transport, Via};

/// What every branch made by RFC 3261 begins with (§8.1.1.7).
const MAGIC_COOKIE: &str = "z9hG4bK";

/// Names a server transaction: two requests with equal keys belong to one. An ACK has the key of its INVITE.
///
/// Made of branch (in any case, §7.3.1), sent-by and method; for clients older than RFC 3261 (no magic cookie) of Request-URI, From tag,
/// Call-ID, CSeq and top Via. Has no `Debug`: the old form holds addresses of people.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerKey(Box<[u8]>);

impl ServerKey {
    /// The key of the transaction that `request` creates or belongs to.
    ///
    /// # Errors
    /// A field that the key is made of is missing or malformed, or it is a response.
    pub fn of(request: &Message) -> Result<Self, FieldError> {
        let method = match request.method().ok_or(FieldError { name: HeaderName::CSeq })? {
            Method::Ack => Method::Invite,
            method => method,
        };
        Self::build(request, method)
    }

    /// The key of the INVITE that `cancel` wants to end.
    ///
    /// # Errors
    /// A field that the key is made of is missing or malformed.
    pub fn of_cancelled(cancel: &Message) -> Result<Self, FieldError> {
        Self::build(cancel, Method::Invite)
    }

    /// The bytes that all requests of one transaction share.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn build(request: &Message, method: Method<'_>) -> Result<Self, FieldError> {
        let via = request.top_via()?;
        let mut key = Key::default();
        match via.branch().filter(|branch| has_cookie(branch)) {
            Some(branch) => {
                key.part(b"3261");
                key.part(branch.to_ascii_lowercase().as_bytes());
                key.sent_by(&via);
            }
            None => {
                key.part(b"2543");
                key.part(request.request_uri().unwrap_or_default());
                key.part(request.from()?.tag().unwrap_or_default().to_ascii_lowercase().as_bytes());
                key.part(request.call_id()?);
                key.part(&request.cseq()?.number.to_be_bytes());
                key.part(via.transport_name().to_ascii_lowercase().as_bytes());
                key.part(via.branch().unwrap_or_default().to_ascii_lowercase().as_bytes());
                key.sent_by(&via);
            }
        }
        key.part(method.as_str().as_bytes());
        Ok(Self(key.0.into_boxed_slice()))
    }
}

/// Whether `cancel` means `invite`: same transaction, and same Call-ID, From tag and CSeq number as well, so that a
/// guessed branch alone ends no call.
#[must_use]
pub fn cancels(cancel: &Message, invite: &Message) -> bool {
    let same = || -> Result<bool, FieldError> {
        Ok(cancel.method() == Some(Method::Cancel)
            && invite.method() == Some(Method::Invite)
            && ServerKey::of_cancelled(cancel)? == ServerKey::of(invite)?
            && cancel.call_id()? == invite.call_id()?
            && same_tag(cancel.from()?.tag(), invite.from()?.tag())
            && cancel.cseq()?.number == invite.cseq()?.number)
    };
    same().unwrap_or(false)
}

/// A tag is a token, and has no case (RFC 3261 §7.3.1).
fn same_tag(a: Option<&str>, b: Option<&str>) -> bool {
    a.unwrap_or_default().eq_ignore_ascii_case(b.unwrap_or_default())
}

/// The cookie alone names nothing (RFC 4475 §3.2.1), so it counts as absent.
fn has_cookie(branch: &str) -> bool {
    branch.len() > MAGIC_COOKIE.len()
        && branch.get(..MAGIC_COOKIE.len()).is_some_and(|cookie| cookie.eq_ignore_ascii_case(MAGIC_COOKIE))
}

/// Parts with their lengths in front, so that no two lists of parts give one key.
#[derive(Default)]
struct Key(Vec<u8>);

impl Key {
    fn part(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(&bytes.len().to_be_bytes());
        self.0.extend_from_slice(bytes);
    }

    /// Host and port as they are compared: an address by its value, a name in any case, and where no port is written the
    /// one that the transport has by default (RFC 3261 §19.1.2).
    fn sent_by(&mut self, via: &Via<'_>) {
        match via.host() {
            Host::Address(address) => self.part(address.to_canonical().to_string().as_bytes()),
            Host::Name(name) => self.part(name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase().as_bytes()),
        }
        let default = via.transport().unwrap_or(Transport::Udp).default_port();
        self.part(&via.sent_by_port().unwrap_or(default).to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BRANCH: &str = "SIP/2.0/UDP pbx.example.com:5060;branch=z9hG4bKabc";

    #[test]
    fn the_ack_of_a_refusal_belongs_to_its_invite() {
        let invite = key("INVITE", BRANCH, 1, "");
        assert!(invite == key("ACK", BRANCH, 1, ";tag=ours"));
        assert!(invite == key("INVITE", &BRANCH.replace("pbx", "PBX"), 1, ""), "hosts have no case");
    }

    #[test]
    fn a_branch_has_no_case_and_a_port_that_is_the_transports_own_need_not_be_written() {
        let via = |sent: &str, branch: &str| format!("SIP/2.0/{sent};branch={branch}");
        for (first, again) in [
            ("UDP pbx.example.com:5060", "UDP PBX.Example.com"),
            ("UDP pbx.example.com", "udp pbx.example.com. : 5060"),
            ("TCP 192.0.2.1", "TCP 192.0.2.1:5060"),
            ("TLS pbx.example.com", "TLS pbx.example.com:5061"),
            ("WS pbx.example.com", "WS pbx.example.com:80"),
            ("UDP [2001:db8::1]", "UDP [2001:DB8:0:0:0:0:0:1]:5060"),
            ("UDP [::ffff:192.0.2.1]", "UDP 192.0.2.1:5060"),
            ("SCTP pbx.example.com", "SCTP pbx.example.com:5060"),
        ] {
            let invite = request("INVITE", &via(first, "z9hG4bKaBc"), 1, "", "c1", "f1");
            let cancel = request("CANCEL", &via(again, "Z9HG4BKAbC"), 1, "", "c1", "F1");
            assert!(cancels(&cancel, &invite), "{first} {again}");
            let ack = key("ACK", &via(again, "z9hg4bkabc;rport=5060;received=192.0.2.1"), 1, ";tag=ours");
            assert!(ServerKey::of(&invite).expect("a key") == ack, "{first} {again}");
        }
        for (first, other) in
            [("UDP h", "UDP h:5061"), ("TLS h", "TLS h:5060"), ("UDP [2001:db8::1]", "UDP [2001:db8::2]")]
        {
            let invite = key("INVITE", &via(first, "z9hG4bKa"), 1, "");
            assert!(invite != key("INVITE", &via(other, "z9hG4bKa"), 1, ""), "{other}");
        }
    }

    #[test]
    fn branch_sent_by_and_method_each_make_another_transaction() {
        let invite = key("INVITE", BRANCH, 1, "");
        for other in [
            key("CANCEL", BRANCH, 1, ""),
            key("OPTIONS", BRANCH, 1, ""),
            key("INVITE", &BRANCH.replace("abc", "abd"), 1, ""),
            key("INVITE", &BRANCH.replace(":5060", ":5061"), 1, ""),
            key("INVITE", &BRANCH.replace("pbx", "pby"), 1, ""),
        ] {
            assert!(invite != other);
        }
    }

    #[test]
    fn without_the_cookie_the_fields_of_rfc_2543_decide() {
        for via in ["SIP/2.0/UDP h;branch=1", "SIP/2.0/UDP h", "SIP/2.0/UDP h;branch=z9hG4bK"] {
            let invite = key("INVITE", via, 1, "");
            assert!(invite == key("ACK", via, 1, ";tag=ours"));
            assert!(invite != key("INVITE", via, 2, ""));
            assert!(invite != key("INVITE", &via.replace(" h", " i"), 1, ""));
            let odd = via.replace("SIP/2.0/UDP h", "sip/2.0/udp H:5060").replace("z9hG4bK", "Z9HG4BK");
            assert!(invite == key("INVITE", &odd, 1, ""), "{odd}");
            assert!(invite != key("CANCEL", via, 1, ""));
            assert!(invite == ServerKey::of_cancelled(&request("CANCEL", via, 1, "", "c1", "f1")).expect("a key"));
        }
    }

    #[test]
    fn a_cancel_ends_only_the_invite_it_names() {
        let invite = request("INVITE", BRANCH, 7, "", "c1", "f1");
        let cancel = |via: &str, cseq, call, from| cancels(&request("CANCEL", via, cseq, "", call, from), &invite);
        assert!(cancel(BRANCH, 7, "c1", "f1"));
        assert!(!cancel(&BRANCH.replace("abc", "guess"), 7, "c1", "f1"));
        assert!(!cancel(&BRANCH.replace("pbx", "evil"), 7, "c1", "f1"));
        assert!(!cancel(BRANCH, 8, "c1", "f1"));
        assert!(!cancel(BRANCH, 7, "c2", "f1"));
        assert!(!cancel(BRANCH, 7, "c1", "f2"));
        assert!(!cancels(&invite, &invite));
        let options = request("OPTIONS", BRANCH, 7, "", "c1", "f1");
        assert!(!cancels(&request("CANCEL", BRANCH, 7, "", "c1", "f1"), &options), "only INVITEs are cancelled");
    }

    #[test]
    fn a_response_has_no_key() {
        let text = format!("SIP/2.0 200 OK\r\nVia: {BRANCH}\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n");
        let response = Message::parse_datagram(text.into_bytes()).expect("a response");
        assert!(ServerKey::of(&response).is_err());
    }

    fn key(method: &str, via: &str, cseq: u32, to: &str) -> ServerKey {
        ServerKey::of(&request(method, via, cseq, to, "c1", "f1")).expect("a key")
    }

    fn request(method: &str, via: &str, cseq: u32, to: &str, call_id: &str, from_tag: &str) -> Message {
        let text = format!(
            "{method} sip:cap@edge.example SIP/2.0\r\nVia: {via}\r\nFrom: <sip:a@b>;tag={from_tag}\r\n\
             To: <sip:c@d>{to}\r\nCall-ID: {call_id}\r\nCSeq: {cseq} {method}\r\nContent-Length: 0\r\n\r\n"
        );
        Message::parse_datagram(text.into_bytes()).expect("a request")
    }
}
