//! The story of a call, as it is told: what happened when, and in one sentence why the phone did not ring.
//!
//! Its own file because the room that keeps stories (`stories`) is not the only one that tells them: the API, the
//! operators' endpoint and the log do too. Free of personal data: ids, steps and times.

use std::fmt;
use std::time::Duration;

use super::ids::{CallUuid, InstanceId};
use super::output::{CallOutcome, Step};
use crate::clock::WallTime;

/// What became of one call at one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Story {
    /// Whose device.
    pub instance: InstanceId,
    /// The call.
    pub call: CallUuid,
    /// When the first step was, by the wall clock.
    pub began: WallTime,
    /// What happened, in order; the first and the last steps are always there.
    pub moments: Vec<Moment>,
    /// Steps that are not there: repetitions, and those of the middle where there were too many.
    pub omitted: u32,
    /// How the call was counted, once it was.
    pub outcome: Option<CallOutcome>,
    /// Further calls to the instance that ended for the same reason, one soon after the other: they are only counted.
    pub repeated: u32,
}

/// One step with its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// What happened.
    pub step: Step,
    /// How long after the first step.
    pub after: Duration,
}

impl Story {
    /// When a moment of it was, by the wall clock.
    #[must_use]
    pub fn at(&self, moment: &Moment) -> WallTime {
        self.began + moment.after
    }

    /// Whether the device answered, or the call ended without it.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.moments.iter().any(|moment| matches!(moment.step, Step::Answered | Step::Ended(_)))
    }

    /// Whether its device never heard of the call: it was neither woken for it nor sent its INVITE.
    pub(crate) fn is_untouched(&self) -> bool {
        self.first(|step| matches!(step, Step::WakeSent | Step::Attached | Step::Forwarded)).is_none()
    }

    /// How long after the first step something of this kind happened first.
    #[must_use]
    pub fn first(&self, kind: impl Fn(Step) -> bool) -> Option<Duration> {
        self.moments.iter().find(|moment| kind(moment.step)).map(|moment| moment.after)
    }

    /// The last word of the call: how it ended, or the last reason something failed.
    #[must_use]
    pub fn reason(&self) -> Option<&'static str> {
        let of = |ends: bool| {
            self.moments.iter().rev().find(|it| matches!(it.step, Step::Ended(_)) == ends && it.step.reason().is_some())
        };
        of(true).or_else(|| of(false)).and_then(|moment| moment.step.reason())
    }

    /// Why the phone did not ring, or what it does, in one plain sentence without a full stop.
    #[must_use]
    pub fn why(&self) -> String {
        let happened = Happened::of(self);
        if let Some(after) = happened.answered {
            return format!("the phone answered after {}", Span(after));
        }
        match happened.ended {
            Some((reason, at)) => happened.told_after(reason, at),
            None => happened.told_meanwhile(),
        }
    }
}

/// A story, read once.
#[derive(Default)]
struct Happened {
    woken: Option<Duration>,
    accepted: bool,
    /// Why the last wake failed, if none was accepted after it.
    unwoken: Option<&'static str>,
    attached: bool,
    refused: Option<&'static str>,
    forwarded: bool,
    lost: bool,
    ringing: bool,
    answered: Option<Duration>,
    ended: Option<(&'static str, Duration)>,
}

impl Happened {
    fn of(story: &Story) -> Self {
        let mut it = Self::default();
        for Moment { step, after } in &story.moments {
            match *step {
                Step::Invited | Step::PrivateMediaAddress => {}
                Step::WakeSent => it.woken = it.woken.or(Some(*after)),
                Step::WakeAccepted => (it.accepted, it.unwoken) = (true, None),
                Step::WakeFailed(reason) => it.unwoken = Some(reason),
                Step::Attached => it.attached = true,
                Step::AttachRefused(reason) => it.refused = Some(reason),
                Step::Forwarded => (it.forwarded, it.lost) = (true, false),
                Step::Ringing => it.ringing = true,
                Step::FlowLost => it.lost = true,
                Step::Answered => it.answered = it.answered.or(Some(*after)),
                Step::Ended(reason) => it.ended = it.ended.or(Some((reason, *after))),
            }
        }
        it
    }

    fn told_after(&self, reason: &'static str, at: Duration) -> String {
        if self.ringing {
            return format!("it rang; {}", ending(reason, at));
        }
        if let Some(hindrance) = self.hindrance() {
            // The hold that ran out says nothing new; everything else does.
            return if matches!(reason, "no-device" | "no-push" | "unproven") {
                hindrance
            } else {
                format!("{hindrance}; {}", ending(reason, at))
            };
        }
        match (self.woken, reason) {
            (Some(woken), "cancelled") => {
                format!("the caller hung up {} after the wake", Span(at.saturating_sub(woken)))
            }
            (Some(_), "no-device") if self.accepted => format!("woken, never attached within {}", Span(at)),
            (Some(_), "no-device" | "no-push") => {
                format!("no wake: the provider did not answer within {}", Span(at))
            }
            (Some(_), _) => format!("woken, never attached; {}", ending(reason, at)),
            (None, "cancelled") => format!("the caller hung up after {}, before the wake was sent", Span(at)),
            (None, _) => ending(reason, at),
        }
    }

    fn told_meanwhile(&self) -> String {
        if self.ringing && !self.lost {
            return "it rings".to_owned();
        }
        match (self.hindrance(), self.woken) {
            (Some(_), _) if self.forwarded && !self.lost => "forwarded, the phone has not answered yet".to_owned(),
            (Some(_), _) if self.attached && !self.forwarded => "attached, about to be forwarded".to_owned(),
            (Some(hindrance), _) => format!("{hindrance}; the caller still waits"),
            (None, Some(_)) if self.accepted => "woken, not attached yet".to_owned(),
            (None, Some(_)) => "the wake is with the provider, which has not answered yet".to_owned(),
            (None, None) => "the caller waits".to_owned(),
        }
    }

    /// How far the call came, where it went wrong on the way to the phone.
    fn hindrance(&self) -> Option<String> {
        if self.forwarded {
            let broke = "forwarded, but the phone's connection broke";
            return Some(if self.lost { broke } else { "forwarded, the phone never answered" }.to_owned());
        }
        if self.attached {
            return Some("attached, but never forwarded".to_owned());
        }
        if let Some(reason) = self.refused {
            return Some(format!("{} (attach-refused)", refusal(reason)));
        }
        self.unwoken.map(|reason| format!("no wake: {} ({reason})", fault(reason)))
    }
}

fn refusal(reason: &str) -> String {
    match reason {
        "wrong-token" => "attached with a wrong token".to_owned(),
        "wrong-uri" => "attached with credentials for another host".to_owned(),
        "erased" => "attached to an instance that is erased".to_owned(),
        _ => format!("the phone was not let in: {reason}"),
    }
}

fn fault(reason: &str) -> &'static str {
    match reason {
        "token-dead" | "token-rejected" => "the provider refused the token",
        "misconfigured" => "the provider refuses us: a key, topic or payload is wrong",
        "provider-failed" => "the provider failed",
        "provider-busy" => "the provider asked us to come later",
        "not-sent" => "it could not be sent in time",
        "over-budget" => "the instance has used its budget of wakes",
        "no-target" => "the app gave no push target for calls",
        "unproven" => "push token not proven: the app has not returned the challenge",
        "contested" => "push token not proven: it is another device's",
        _ => "it failed",
    }
}

fn ending(reason: &str, at: Duration) -> String {
    let at = Span(at);
    match reason {
        "cancelled" => format!("the caller hung up after {at}"),
        "answered-elsewhere" => format!("it was answered elsewhere after {at}"),
        "stepped-aside" => format!("the app went to its PBX by itself after {at}"),
        "declined" => format!("the phone declined after {at}"),
        "no-device" => format!("no phone came within {at}"),
        "no-answer" => format!("nobody answered within {at}"),
        "no-push" | "unproven" => "no wake could be sent".to_owned(),
        "failed" => format!("the phone failed after {at}"),
        "limited" => "a limit was reached".to_owned(),
        "erased" => format!("the instance was erased after {at}"),
        _ => format!("it ended after {at}: {reason}"),
    }
}

/// A span as people say it: tenths of a second, whole ones from ten seconds on.
struct Span(Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = (self.0.as_millis() + 50) / 100;
        if tenths >= 100 || tenths.is_multiple_of(10) {
            write!(f, "{} s", (tenths + 5) / 10)
        } else {
            write!(f, "{}.{} s", tenths / 10, tenths % 10)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ids::ShardId;

    const WOKEN: [(Step, u64); 3] = [(Step::Invited, 0), (Step::WakeSent, 2), (Step::WakeAccepted, 90)];

    #[test]
    fn every_way_a_phone_stays_silent_has_its_sentence() {
        use Step::{AttachRefused, Attached, Ended, FlowLost, Forwarded, WakeFailed, WakeSent};
        let forwarded = [(Attached, 900), (Forwarded, 901)];
        let cases: [(&[(Step, u64)], &str); 12] = [
            (
                &[(WakeFailed("token-dead"), 80), (Ended("no-device"), 45_000)],
                "no wake: the provider refused the token (token-dead)",
            ),
            (
                &[(WakeFailed("no-target"), 1), (Ended("no-push"), 45_000)],
                "no wake: the app gave no push target for calls (no-target)",
            ),
            (
                &[(WakeFailed("x"), 1), (Ended("cancelled"), 9_000)],
                "no wake: it failed (x); the caller hung up after 9 s",
            ),
            (&[(WakeSent, 3), (Ended("no-device"), 45_000)], "no wake: the provider did not answer within 45 s"),
            (&[(Ended("cancelled"), 40)], "the caller hung up after 0 s, before the wake was sent"),
            (&[(Ended("limited"), 0)], "a limit was reached"),
            (&with_wake(&[(Ended("no-device"), 45_000)]), "woken, never attached within 45 s"),
            (&with_wake(&[(Ended("cancelled"), 1_202)]), "the caller hung up 1.2 s after the wake"),
            (
                &with_wake(&[(AttachRefused("wrong-token"), 900), (Ended("no-device"), 45_000)]),
                "attached with a wrong token (attach-refused)",
            ),
            (
                &with_wake(&[forwarded[0], forwarded[1], (Ended("no-device"), 45_000)]),
                "forwarded, the phone never answered",
            ),
            (
                &with_wake(&[forwarded[0], forwarded[1], (FlowLost, 2_000), (Ended("no-device"), 45_000)]),
                "forwarded, but the phone's connection broke",
            ),
            (
                &with_wake(&[(Ended("answered-elsewhere"), 3_000)]),
                "woken, never attached; it was answered elsewhere after 3 s",
            ),
        ];
        for (steps, sentence) in cases {
            assert_eq!(story(steps).why(), sentence);
        }
    }

    #[test]
    fn a_phone_that_rang_has_its_sentence_too() {
        use Step::{Answered, Attached, Ended, Forwarded, Ringing};
        let ringing = [(Attached, 900), (Forwarded, 901), (Ringing, 950)];
        let and = |more: &[(Step, u64)]| story(&with_wake(&[&ringing[..], more].concat())).why();
        assert_eq!(and(&[]), "it rings");
        assert_eq!(and(&[(Answered, 3_250)]), "the phone answered after 3.3 s");
        assert_eq!(and(&[(Ended("declined"), 4_000)]), "it rang; the phone declined after 4 s");
        assert_eq!(and(&[(Ended("cancelled"), 20_400)]), "it rang; the caller hung up after 20 s");
    }

    #[test]
    fn a_call_that_goes_on_says_what_it_waits_for() {
        use Step::{Attached, FlowLost, Forwarded, WakeFailed};
        assert_eq!(story(&WOKEN[..1]).why(), "the caller waits");
        assert_eq!(story(&WOKEN[..2]).why(), "the wake is with the provider, which has not answered yet");
        assert_eq!(story(&WOKEN).why(), "woken, not attached yet");
        let forwarded = [(Attached, 900), (Forwarded, 901), (FlowLost, 950)];
        assert_eq!(story(&with_wake(&forwarded[..2])).why(), "forwarded, the phone has not answered yet");
        let broke = "forwarded, but the phone's connection broke; the caller still waits";
        assert_eq!(story(&with_wake(&forwarded)).why(), broke);
        let failed = story(&[WOKEN[0], (WakeFailed("provider-failed"), 5)]);
        assert_eq!(failed.why(), "no wake: the provider failed (provider-failed); the caller still waits");
    }

    #[test]
    fn the_reason_is_the_end_s_or_else_the_last_fault_s() {
        assert_eq!(
            story(&[(Step::WakeFailed("provider-failed"), 1), (Step::Ended("no-push"), 2)]).reason(),
            Some("no-push")
        );
        assert_eq!(
            story(&[(Step::WakeFailed("provider-failed"), 1), (Step::FlowLost, 2)]).reason(),
            Some("provider-failed")
        );
        assert_eq!(story(&WOKEN).reason(), None);
    }

    fn with_wake(steps: &[(Step, u64)]) -> Vec<(Step, u64)> {
        [&WOKEN[..], steps].concat()
    }

    fn story(steps: &[(Step, u64)]) -> Story {
        let moment = |&(step, ms)| Moment { step, after: Duration::from_millis(ms) };
        Story {
            instance: InstanceId::mint(ShardId(0), [1; 16]),
            call: CallUuid(uuid::Uuid::from_u128(1)),
            began: WallTime::from_unix_millis(1_795_550_400_000),
            moments: steps.iter().map(moment).collect(),
            omitted: 0,
            outcome: None,
            repeated: 0,
        }
    }
}
