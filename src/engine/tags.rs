//! To tags of answers that keep no transaction.
//!
//! "A stateless UAS must generate the same tag for the same request consistently" (RFC 3261 §8.2.7): a tag is a MAC over
//! what stays the same in a repetition, so that nothing has to be remembered and nobody can foresee it.

use aws_lc_rs::hmac;

use super::ids::base32;
use crate::sip::transaction::ServerKey;
use crate::sip::{HeaderName, Message};

/// Bytes of a tag before encoding; RFC 3261 §19.3 asks for at least 32 random bits.
const TAG_BYTES: usize = 5;

/// Makes the tags of one shard.
pub(crate) struct Tags(hmac::Key);

impl Tags {
    pub(crate) fn new(key: [u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, &key))
    }

    /// The tag for the answers to `request`. The ACK to one of them has it too: a hop's ACK shares the top Via, From,
    /// Call-ID and CSeq number of its INVITE (RFC 3261 §17.1.1.3).
    pub(crate) fn of(&self, request: &Message) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        // The transaction, which is the same however its Via is written; what has none of a malformed Via.
        let transaction = ServerKey::of(request);
        let via = transaction.as_ref().map(ServerKey::as_bytes).ok().or_else(|| request.list(HeaderName::Via).next());
        for part in [via, request.header(HeaderName::From), request.header(HeaderName::CallId)] {
            context.update(part.unwrap_or_default());
            context.update(b"\n");
        }
        context.update(&request.cseq().map_or(0, |cseq| cseq.number).to_be_bytes());
        let mut tag = String::with_capacity(13);
        base32(&context.sign().as_ref()[..TAG_BYTES], &mut tag);
        tag
    }
}
