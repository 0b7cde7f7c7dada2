//! INVITEs that were refused and never became calls. Their repetitions get the same answer, whatever has changed since:
//! else a caller whose 480 was lost would make a phone ring for a call that is over for him, or nearly.
//!
//! RFC 3261 §8.2.7 lets a server keep no transaction only if its answer stays the same; ours hangs on what we hold.

use std::collections::VecDeque;

use ahash::HashMap;
use bytes::Bytes;

use super::allowance::Allowance;
use super::{Calls, Desk, Event};
use crate::clock::Instant;
use crate::engine::input::Arrival;
use crate::engine::output::Hop;
use crate::sip::proxy::{self, Reply};
use crate::sip::timers::TRANSACTION_TIMEOUT;
use crate::sip::transaction::ServerKey;
use crate::sip::{Message, Method, StatusCode};

/// The refusals of one shard.
pub(super) struct Refused {
    answers: HashMap<ServerKey, Bytes>,
    /// The oldest first: all are kept for the same time.
    order: VecDeque<(Instant, ServerKey)>,
    most: usize,
}

impl Refused {
    /// Keeps at most `most` answers; above it the oldest is forgotten, and its repetition judged anew.
    pub(super) fn new(most: usize) -> Self {
        Self { answers: HashMap::default(), order: VecDeque::new(), most: most.max(1) }
    }

    /// Remembers an answer for as long as its INVITE may be repeated.
    pub(super) fn add(&mut self, key: ServerKey, answer: Bytes, now: Instant) {
        if self.answers.contains_key(&key) {
            return;
        }
        if self.answers.len() >= self.most
            && let Some((_, oldest)) = self.order.pop_front()
        {
            self.answers.remove(&oldest);
        }
        self.answers.insert(key.clone(), answer);
        self.order.push_back((now + TRANSACTION_TIMEOUT, key));
    }

    /// The answer an INVITE got.
    pub(super) fn answer(&self, key: &ServerKey) -> Option<&Bytes> {
        self.answers.get(key)
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        while let Some((_, key)) = self.order.pop_front_if(|(until, _)| *until <= now) {
            self.answers.remove(&key);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.order.front().map(|(until, _)| *until)
    }

    pub(super) fn len(&self) -> usize {
        self.answers.len()
    }
}

impl Calls {
    /// Answers an INVITE that never becomes a call. Its ACK ends here, and a datagram's repetition gets the answer again.
    pub(crate) fn refuse_outright(
        &mut self,
        invite: &Message,
        arrival: &Arrival,
        back: &Hop,
        (code, extra): (StatusCode, &[(&str, String)]),
        desk: &mut Desk<'_>,
        now: Instant,
    ) {
        let Some(answer) = write(invite, arrival, code, extra, desk) else { return };
        if let (Ok(key), false) = (ServerKey::of(invite), arrival.transport.is_reliable()) {
            self.refused.add(key, answer.clone(), now);
        }
        self.send_paid(invite, arrival, back, answer);
    }

    /// A request that belongs to an INVITE which was refused. `false`: it does not.
    pub(super) fn handle_refused(
        &mut self,
        key: &ServerKey,
        request: &Message,
        arrival: &Arrival,
        back: &Hop,
        desk: &mut Desk<'_>,
    ) -> bool {
        let Some(answer) = self.refused.answer(key).cloned() else { return false };
        let answer = match request.method() {
            Some(Method::Ack) => None,
            // "If the UAS has already sent a final response, the CANCEL has no effect" (RFC 3261 §9.2).
            Some(Method::Cancel) => write(request, arrival, StatusCode::OK, &[], desk),
            _ => Some(answer),
        };
        if let Some(answer) = answer {
            self.send_paid(request, arrival, back, answer);
        }
        true
    }

    /// Sends an answer, if it is no longer than its source has paid for.
    fn send_paid(&mut self, request: &Message, arrival: &Arrival, back: &Hop, answer: Bytes) {
        if Allowance::of(request, arrival).spend(answer.len()) {
            self.events.push_back(Event::Send(back.clone(), answer));
        }
    }
}

fn write(
    request: &Message,
    arrival: &Arrival,
    code: StatusCode,
    extra: &[(&str, String)],
    desk: &Desk<'_>,
) -> Option<Bytes> {
    let tag = desk.tags.of(request);
    let reply = Reply { code, to_tag: Some(&tag), source: Some(arrival.peer), record_route: false, extra };
    let mut out = Vec::with_capacity(384);
    proxy::write_reply(request, &reply, &mut out).ok()?;
    Some(Bytes::from(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(branch: u32) -> ServerKey {
        let invite = format!(
            "INVITE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP c;branch=z9hG4bK{branch}\r\nFrom: <sip:c@d>;tag=1\r\nTo: <sip:a@b>\r\n\
             Call-ID: 1\r\nCSeq: 1 INVITE\r\n\r\n"
        );
        ServerKey::of(&Message::parse_datagram(invite.into_bytes()).expect("SIP")).expect("a key")
    }

    #[test]
    fn answers_are_kept_while_an_invite_may_be_repeated_and_the_oldest_goes_when_there_are_too_many() {
        let start = Instant::from_nanos(0);
        let mut refused = Refused::new(2);
        for (number, text) in [(1, "one"), (2, "two"), (2, "another"), (3, "three")] {
            refused.add(key(number), Bytes::from_static(text.as_bytes()), start);
        }
        assert_eq!(refused.len(), 2);
        assert!(refused.answer(&key(1)).is_none());
        assert_eq!(refused.answer(&key(2)).map(|answer| &answer[..]), Some(&b"two"[..]));
        assert_eq!(refused.poll_timeout(), Some(start + TRANSACTION_TIMEOUT));
        refused.handle_timeout(start + TRANSACTION_TIMEOUT / 2);
        assert_eq!(refused.len(), 2);
        refused.handle_timeout(start + TRANSACTION_TIMEOUT);
        assert_eq!((refused.len(), refused.poll_timeout()), (0, None));
    }
}
