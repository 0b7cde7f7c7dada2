//! One call on an attached line, from the INVITE its push promised to its end.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{sleep, timeout};

use super::{Deed, Manners, Outcome, PhoneError, Reaction, Told, say};
use crate::sandbox::caller::Side;
use crate::sandbox::phone::line::{CallId, CallNotice, Line, LineEvent, Offer};
use crate::sandbox::registrar::canned_sdp;
use crate::sip::StatusCode;

/// How long an attached phone waits for the INVITE its push promised.
pub(super) const INVITE_TIMEOUT: Duration = Duration::from_secs(10);
/// One call on an attached line.
pub(super) struct Talk<'a> {
    pub(super) call: &'a str,
    pub(super) manners: Manners,
    pub(super) tell: &'a dyn Fn(Told),
}

impl Talk<'_> {
    /// `notices` is what the daemon told of calls when the phone attached.
    pub(super) async fn run(&self, line: &mut Line, notices: &[CallNotice]) -> Result<Outcome, PhoneError> {
        let ended = notices.iter().find(|notice| notice.call == self.call && notice.state.as_deref() == Some("ended"));
        if let Some(notice) = ended {
            return Ok(self.missed(notice.reason.as_deref().unwrap_or("ended")));
        }
        let offer = timeout(INVITE_TIMEOUT, offered(line)).await.map_err(|_| PhoneError::NoInvite)??;
        if offer.reveille_call.as_deref() != Some(self.call) {
            line.refuse(offer.call, StatusCode::BUSY_HERE);
            return Err(PhoneError::WrongCall);
        }
        self.say(Deed::Invited);
        line.ring(offer.call);
        self.say(Deed::Rings);
        let pause = match self.manners.reaction {
            Reaction::Ring => None,
            Reaction::Answer | Reaction::Decline => Some(self.manners.ring_for),
        };
        if let Some(end) = until_end(line, offer.call, pause).await? {
            return Ok(self.over_before_answer(end));
        }
        line.answer(offer.call, phone_sdp());
        self.say(Deed::Answered);
        self.talk(line, offer.call).await
    }

    async fn talk(&self, line: &mut Line, call: CallId) -> Result<Outcome, PhoneError> {
        let by = match until_end(line, call, None).await? {
            Some(End::Confirmed) => {
                self.say(Deed::Talks);
                if until_end(line, call, self.manners.talk_for).await?.is_some() {
                    Side::Caller
                } else {
                    line.hang_up(call);
                    until_end(line, call, None).await?;
                    Side::Callee
                }
            }
            _ => Side::Caller,
        };
        self.say(Deed::HungUp(by));
        Ok(Outcome::Talked)
    }

    fn over_before_answer(&self, end: End) -> Outcome {
        match end {
            End::Cancelled => self.missed("the caller hung up while it rang"),
            End::Elsewhere => self.missed("it was answered on another device"),
            End::Confirmed | End::Over => self.missed("ended"),
        }
    }

    fn missed(&self, why: &str) -> Outcome {
        self.say(Deed::Missed(why.to_owned()));
        Outcome::Missed
    }

    fn say(&self, what: Deed) {
        say(self.tell, what);
    }
}

/// What ends a wait on a line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Confirmed,
    Cancelled,
    Elsewhere,
    Over,
}

/// Waits until something happens to the call, or the pause is over (`None`).
async fn until_end(line: &mut Line, call: CallId, pause: Option<Duration>) -> Result<Option<End>, PhoneError> {
    let waited = async {
        match pause {
            Some(pause) => sleep(pause).await,
            None => std::future::pending().await,
        }
    };
    let mut waited = std::pin::pin!(waited);
    loop {
        tokio::select! {
            event = line.next() => match event {
                LineEvent::Confirmed(of) if of == call => return Ok(Some(End::Confirmed)),
                LineEvent::Cancelled(of) if of == call => return Ok(Some(End::Cancelled)),
                LineEvent::AnsweredElsewhere(of) if of == call => return Ok(Some(End::Elsewhere)),
                LineEvent::HungUp(of) | LineEvent::Over(of) if of == call => return Ok(Some(End::Over)),
                LineEvent::Closed => return Err(PhoneError::Closed),
                // Someone else calls meanwhile: this phone has one ear.
                LineEvent::Offered(Offer { call: other, .. }) => line.refuse(other, StatusCode::BUSY_HERE),
                _ => {}
            },
            () = &mut waited => return Ok(None),
        }
    }
}

async fn offered(line: &mut Line) -> Result<Offer, PhoneError> {
    loop {
        match line.next().await {
            LineEvent::Offered(offer) => return Ok(offer),
            LineEvent::Closed => return Err(PhoneError::Closed),
            _ => {}
        }
    }
}

/// The session description a phone answers with.
pub(crate) fn phone_sdp() -> Bytes {
    canned_sdp("phone", 41_000)
}
