//! What may be sent to a source that has not proven itself: never more bytes out than came in.
//!
//! The capability proves that the caller knows whom to call, not that it sits where its datagrams say. Answers of our own
//! stay within what the source has paid for; answers of the phone pass, a 2xx a few times.

use crate::engine::input::Arrival;
use crate::sip::Message;

/// Non-2xx finals sent, or 2xx passed on, to a source that has not proven itself: a forged source is not worth more.
pub(super) const FINALS_TO_UNPROVEN_MAX: u8 = 3;

/// Bytes that came and bytes still allowed; `None`: as many as there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Allowance(Option<Account>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Account {
    paid: usize,
    left: usize,
}

impl Allowance {
    /// What a request outside any dialog brings along.
    pub(super) fn of(request: &Message, arrival: &Arrival) -> Self {
        let proven = arrival.is_reachable();
        let paid = request.bytes().len();
        Self((!proven).then_some(Account { paid, left: paid }))
    }

    /// For a source that holds something only we could have sent it.
    pub(super) const PROVEN: Self = Self(None);

    pub(super) fn is_proven(self) -> bool {
        self.0.is_none()
    }

    /// The source sent more.
    pub(super) fn earn(&mut self, message: &Message) {
        if let Some(account) = &mut self.0 {
            account.paid = account.paid.saturating_add(message.bytes().len());
            account.left = account.left.saturating_add(message.bytes().len());
        }
    }

    /// Takes what an answer costs; `false`: it must not be sent.
    pub(super) fn spend(&mut self, bytes: usize) -> bool {
        match &mut self.0 {
            None => true,
            Some(account) if bytes <= account.left => {
                account.left -= bytes;
                true
            }
            Some(_) => false,
        }
    }

    /// Takes the cost of our final. What the phone said meanwhile does not count against it: without it the caller would
    /// wait for ever.
    pub(super) fn spend_on_final(&mut self, bytes: usize) -> bool {
        let payable = self.0.is_none_or(|account| bytes <= account.paid);
        self.charge(bytes);
        payable
    }

    /// Takes the cost of something that was not ours to withhold.
    pub(super) fn charge(&mut self, bytes: usize) {
        if let Some(account) = &mut self.0 {
            account.left = account.left.saturating_sub(bytes);
        }
    }

    /// Whether a provisional answer leaves enough for a final of about its length.
    pub(super) fn spares(self, bytes: usize) -> bool {
        self.0.is_none_or(|account| bytes.saturating_mul(2) <= account.left)
    }
}
