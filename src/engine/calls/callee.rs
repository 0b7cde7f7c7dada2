//! A callee: one of the devices a call rings at, and how far it is.
//!
//! Each is woken, rings, fails and comes back by itself; what becomes of the call is `fork`'s business.

use crate::clock::Instant;
use crate::engine::device::Device;
use crate::engine::ids::{CallUuid, InstanceId, WakeId};
use crate::engine::input::CallHandOver;
use crate::engine::output::{CallOutcome, CallState, Caller};
use crate::engine::route_token::DialogId;

/// How often an INVITE is sent to one device anew because it came back on another flow. Above it only the CANCEL and the
/// requests inside the call follow the device: a flow that flaps multiplies nothing.
pub(super) const INVITE_SENDS_MAX: u8 = 8;

/// A device that a call is for, as the engine knows it when the INVITE comes in.
#[derive(Clone)]
pub(crate) struct Callee {
    pub(crate) instance: InstanceId,
    /// Its system shows a call screen for each call wake, and only SIP can close it.
    pub(crate) platform_ios: bool,
    pub(crate) hand_over: CallHandOver,
    /// The caller, if the tenant wants it in the push.
    pub(crate) caller: Option<Caller>,
    /// How it is reached, if it is attached.
    pub(crate) device: Option<Device>,
    /// Until when it may come back by itself, if its flow died lately.
    pub(crate) returns_until: Option<Instant>,
}

/// A callee of a call that has no final yet.
pub(super) struct Called {
    pub(super) instance: InstanceId,
    /// What the call is called there.
    pub(super) uuid: CallUuid,
    pub(super) ios: bool,
    pub(super) hand_over: CallHandOver,
    pub(super) caller: Option<Caller>,
    pub(super) stage: Progress,
    pub(super) wake: Wake,
    pub(super) wake_id: Option<WakeId>,
    /// A wake went out, whatever the provider made of it.
    pub(super) woken: bool,
    /// Pushes that went out for it.
    pub(super) wake_sends: u8,
    /// One was sent again with a fresh proof of who we are.
    pub(super) renewed: bool,
    /// One of them may have been delivered, or was.
    pub(super) in_doubt: bool,
    /// When one that was not taken goes out again.
    pub(super) wake_again: Option<Instant>,
    /// Until when it may come back by itself, since its flow died.
    pub(super) returns_until: Option<Instant>,
    /// It came for the call at least once.
    pub(super) attached: bool,
    /// A second wake was asked for, after its flow died.
    pub(super) rewoken: bool,
    /// A second wake is due, but the provider has not answered the first one yet.
    pub(super) rewake_due: bool,
    /// It rang at least once.
    pub(super) rang: bool,
    /// Its user declined.
    pub(super) declined: bool,
    /// How often the INVITE was sent to it, repetitions on one flow left out.
    pub(super) sends: u8,
    /// When it counts as silent, if it was attached when the INVITE came.
    pub(super) silence: Option<Instant>,
    /// The dialog it will have, and by whose token.
    pub(super) dialog: Option<DialogId>,
}

/// How far a callee is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Waiting,
    Forwarded,
    Ringing,
    Answered,
    /// It takes no part any more.
    Out,
}

/// How far its wake is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wake {
    No,
    /// On its way to the room that sends it.
    Wanted,
    Sent,
    Accepted,
    /// The last one was not taken, or could not be sent.
    Failed,
}

/// Why a callee's part in a call is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// It answered.
    Answered,
    /// The caller hung up.
    Cancelled,
    /// Another device answered, ours or not.
    Elsewhere,
    /// Its app went to its PBX by itself, and our branch was cancelled.
    SteppedAside,
    /// Its user declined.
    Declined,
    /// The user declined at another device, for all of them.
    DeclinedElsewhere,
    /// It did not come in time.
    NoDevice,
    /// It rang, and nobody answered.
    NoAnswer,
    /// It refused for another reason.
    Failed,
    /// It has used up its wakes.
    Limited,
    /// Its push token is not proven to be its own.
    Unproven,
    /// Its instance was erased.
    Erased,
}

impl Called {
    pub(super) fn new(callee: Callee, uuid: CallUuid) -> Self {
        let Callee { instance, platform_ios, hand_over, caller, device: _, returns_until } = callee;
        Self {
            instance,
            uuid,
            ios: platform_ios,
            hand_over,
            caller,
            stage: Progress::Waiting,
            wake: Wake::No,
            wake_id: None,
            woken: false,
            wake_sends: 0,
            renewed: false,
            in_doubt: false,
            wake_again: None,
            returns_until,
            attached: false,
            rewoken: false,
            rewake_due: false,
            rang: false,
            declined: false,
            sends: 0,
            silence: None,
            dialog: None,
        }
    }

    /// Whether its part is over, by an answer or without.
    pub(super) fn is_out(&self) -> bool {
        matches!(self.stage, Progress::Out | Progress::Answered)
    }

    /// Whether it is certain that no push was or will be delivered.
    pub(super) fn is_unreachable(&self) -> bool {
        self.wake == Wake::Failed && !self.in_doubt && self.wake_again.is_none()
    }

    /// Whether nothing brings it to the call any more: no push reaches it, and no flow of it died just now.
    pub(super) fn is_out_of_reach(&self, now: Instant) -> bool {
        self.is_unreachable() && self.returns_until.is_none_or(|until| until <= now)
    }

    pub(super) fn state(&self) -> CallState {
        match self.stage {
            // Forwarded is not ringing: the device has not said a word yet.
            Progress::Waiting | Progress::Forwarded => CallState::Waking,
            Progress::Ringing => CallState::Ringing,
            Progress::Answered => CallState::Answered,
            Progress::Out => CallState::Ended,
        }
    }

    /// Why its part ends when the caller's side has cancelled. An app that was sent to its own PBX answers there as a
    /// contact of its own, and our branch is cancelled with or without a word about it: that is no missed call.
    pub(super) fn why_cancelled(&self, why: Why) -> Why {
        let sent_away = self.hand_over == CallHandOver::Reregister && self.wake == Wake::Accepted && !self.attached;
        if sent_away { Why::SteppedAside } else { why }
    }
}

impl Why {
    /// All that end a call without an answer.
    #[cfg(test)]
    pub(super) const ENDS: [Self; 11] = [
        Self::Cancelled,
        Self::Elsewhere,
        Self::SteppedAside,
        Self::Declined,
        Self::DeclinedElsewhere,
        Self::NoDevice,
        Self::NoAnswer,
        Self::Failed,
        Self::Limited,
        Self::Unproven,
        Self::Erased,
    ];

    /// The name used in the API, the push and the call's story.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "",
            Self::Cancelled => "cancelled",
            Self::Elsewhere => "answered-elsewhere",
            Self::SteppedAside => "stepped-aside",
            Self::Declined | Self::DeclinedElsewhere => "declined",
            Self::NoDevice => "no-device",
            Self::NoAnswer => "no-answer",
            Self::Failed => "failed",
            Self::Limited => "limited",
            Self::Unproven => "unproven",
            Self::Erased => "erased",
        }
    }

    /// The Reason (RFC 3326) of our CANCEL to the device.
    pub(super) fn cancel_reason(self) -> Option<&'static str> {
        match self {
            Self::Elsewhere => Some("SIP;cause=200;text=\"Call completed elsewhere\""),
            Self::DeclinedElsewhere => Some("SIP;cause=603;text=\"Declined elsewhere\""),
            _ => None,
        }
    }

    /// Whether a device that was woken and has not heard of the call by SIP is told that it is over: its call screen may
    /// stand.
    pub(super) fn is_told(self) -> bool {
        matches!(self, Self::Cancelled | Self::Elsewhere | Self::DeclinedElsewhere)
    }

    /// Whether the user missed it, as far as the device knows nothing of it.
    pub(super) fn is_missed(self) -> bool {
        matches!(self, Self::Cancelled | Self::NoDevice | Self::Limited)
    }

    /// Whether a call screen that stands for it has to be closed by SIP when the device comes after all.
    pub(super) fn is_shown_late(self) -> bool {
        self.is_told() || matches!(self, Self::NoDevice | Self::NoAnswer | Self::Failed)
    }

    /// What a call comes to that ends by this.
    pub(super) fn outcome(self) -> CallOutcome {
        match self {
            Self::Answered => CallOutcome::Answered,
            Self::Cancelled | Self::Elsewhere | Self::SteppedAside => CallOutcome::Cancelled,
            Self::Declined | Self::DeclinedElsewhere => CallOutcome::Declined,
            Self::NoDevice => CallOutcome::NoDevice,
            Self::NoAnswer | Self::Failed => CallOutcome::Failed,
            Self::Limited => CallOutcome::Limited,
            Self::Unproven => CallOutcome::NoPush,
            Self::Erased => CallOutcome::Erased,
        }
    }
}
