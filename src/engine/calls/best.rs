//! Which of several final responses the caller gets (RFC 3261 §16.7 step 6).

use super::callee::Why;
use crate::engine::output::CallOutcome;
use crate::sip::{Message, StatusCode};

/// A final response that may go to the caller.
pub(super) struct Best {
    pub(super) code: StatusCode,
    /// As a device gave it; else it is our own.
    pub(super) response: Option<Message>,
    pub(super) outcome: CallOutcome,
    /// Why the part of the device that gave it ended.
    pub(super) why: Why,
}

impl Best {
    /// A final of ours in the place of a device that will not answer.
    pub(super) fn own(code: StatusCode, why: Why) -> Self {
        Self { code, response: None, outcome: why.outcome(), why }
    }

    /// Takes the better one into `slot`; of two that are alike the first stays.
    pub(super) fn offer(self, slot: &mut Option<Self>) {
        if slot.as_ref().is_none_or(|known| rank(self.code) < rank(known.code)) {
            *slot = Some(self);
        }
    }
}

/// Lower is better. "If there are any 6xx class responses in the context", they come first; else "the lowest class", and
/// in it "responses that provide information affecting resubmission of this request". A device that speaks for its user
/// says more than one that is not there.
fn rank(code: StatusCode) -> (u16, u8) {
    let class = match code.code() / 100 {
        6 => 0,
        class => class,
    };
    let within = match code.code() {
        401 | 407 | 415 | 420 | 484 => 0,
        486 => 1,
        480 => 3,
        408 => 4,
        // It only says that we cancelled.
        487 => 5,
        _ => 2,
    };
    (class, within)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_telling_final_is_chosen_whatever_the_order() {
        for (codes, expected) in [
            (&[480, 486][..], 486),
            (&[486, 503, 404], 486),
            (&[408, 480], 480),
            (&[487, 408], 408),
            (&[500, 404], 404),
            (&[486, 302], 302),
            (&[302, 603, 486], 603),
            (&[486, 415], 415),
            (&[404, 488], 404),
            (&[480], 480),
        ] {
            assert_eq!(chosen(codes), expected, "{codes:?}");
        }
        assert_eq!(chosen(&[486, 480]), 486);
        assert_eq!(chosen(&[488, 404]), 488, "the first of two alike");
    }

    fn chosen(codes: &[u16]) -> u16 {
        let mut slot = None;
        for &code in codes {
            Best::own(StatusCode::new(code).expect("a code"), Why::Failed).offer(&mut slot);
        }
        slot.expect("one").code.code()
    }
}
