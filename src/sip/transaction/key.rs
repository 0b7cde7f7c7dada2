//! Which server transaction a request belongs to (RFC 3261 §17.2.3), and which INVITE a CANCEL means (§9.2).

use super::super::message::{FieldError, Message, Method};

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
    /// A field that the key is made of is missing or malformed.
    pub fn of(request: &Message) -> Result<Self, FieldError> {
        let method = match request.cseq()?.method {
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

/// RFC 3261 §17.2.3: the cookie alone names nothing (RFC 4475 §3.3.? has such a request), so it counts as absent.
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
