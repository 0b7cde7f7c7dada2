//! Which server transaction a request belongs to (RFC 3261 §17.2.3), and which INVITE a CANCEL means (§9.2).

use super::super::message::{FieldError, HeaderName, Message, Method};

/// What every branch made by RFC 3261 begins with (§8.1.1.7).
const MAGIC_COOKIE: &str = "z9hG4bK";

/// Names a server transaction: two requests with equal keys belong to one. An ACK has the key of its INVITE.
///
/// Made of branch, sent-by and method; for clients older than RFC 3261 (no magic cookie) of Request-URI, From tag,
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

    fn build(request: &Message, method: Method<'_>) -> Result<Self, FieldError> {
        let via = request.top_via()?;
        let mut key = Key::default();
        match via.branch().filter(|branch| has_cookie(branch)) {
            Some(branch) => {
                key.part(b"3261");
                key.part(branch.as_bytes());
                key.part(via.sent_by().to_ascii_lowercase().as_bytes());
                key.part(&via.sent_by_port().unwrap_or(0).to_be_bytes());
            }
            None => {
                key.part(b"2543");
                key.part(request.request_uri().unwrap_or_default());
                key.part(request.from()?.tag().unwrap_or_default().as_bytes());
                key.part(request.call_id()?);
                key.part(&request.cseq()?.number.to_be_bytes());
                key.part(via.raw());
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
            && cancel.from()?.tag() == invite.from()?.tag()
            && cancel.cseq()?.number == invite.cseq()?.number)
    };
    same().unwrap_or(false)
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
    fn branch_sent_by_and_method_each_make_another_transaction() {
        let invite = key("INVITE", BRANCH, 1, "");
        for other in [
            key("CANCEL", BRANCH, 1, ""),
            key("OPTIONS", BRANCH, 1, ""),
            key("INVITE", &BRANCH.replace("abc", "abd"), 1, ""),
            key("INVITE", &BRANCH.replace(":5060", ":5061"), 1, ""),
            key("INVITE", &BRANCH.replace(":5060", ""), 1, ""),
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
