//! Leave to hand over: what other shards have to grant before credentials are tried or an instance is opened.
//!
//! First a guess at the account, so that nothing tells a right password from a wrong one once too many were wrong; then, for
//! what replaces nothing, a place among the device's instances and one among the tenant's. An instance that becomes another
//! account's keeps its place; that account counts among those its device tries, as if it were handed over.

use std::time::Duration;

use super::seats::Compared;
use crate::clock::Now;
use crate::engine::account::{Account, TenantId, TrunkHost};
use crate::engine::audit::Cause;
use crate::engine::bindings::Spoken;
use crate::engine::engine::Engine;
use crate::engine::ids::{InstanceId, ReplyTo};
use crate::engine::input::{HandOver, Holder, Rectification, TokenHash};
use crate::engine::output::{
    Answer, MoveView, Output, Refusal, RegistrationReason, RegistrationState, RegistrationView,
};
use crate::engine::{guesses, places};

/// A guess that is paid for.
pub(super) struct Guess {
    ticket: u64,
    /// The credentials were compared with others that are held of the account. Its answer tells that they are not those, so
    /// it is a wrong guess, whatever the registrar says, unless they register.
    differs: bool,
}

/// Somebody who waits for leave.
pub(super) struct Asking {
    wish: Wish,
    reply: ReplyTo,
}

/// What is waited for, and for what.
enum Wish {
    /// A guess, for a hand-over, and whose place it would take.
    Guess(Box<HandOver>, Option<Former>),
    /// A guess, for other credentials of an instance.
    Rectify(InstanceId, TokenHash, Box<Rectification>),
    /// Another account on the instance's device, before the guess at it.
    Move(InstanceId, TokenHash, Box<Rectification>),
    /// A place among the device's instances.
    DevicePlace(Box<HandOver>),
    /// A place among the tenant's instances; there is one among the device's.
    TenantPlace(Box<HandOver>),
}

/// An instance as it was when a newer hand-over of it came.
struct Former {
    id: InstanceId,
    restricted: bool,
}

impl Engine {
    pub(in crate::engine) fn hand_over(&mut self, hand_over: Box<HandOver>, reply: ReplyTo, now: Now) {
        if let Err(refusal) = self.may_hand_over(&hand_over) {
            return self.reply(reply, Answer::Refused(refusal));
        }
        let account = self.fingerprint(&hand_over.tenant, &hand_over.account);
        let predecessor = self.leases.predecessor(&hand_over);
        let former = predecessor.map(|id| Former { id, restricted: self.is_restricted(id) });
        let ticket = self.wait_for_leave(Wish::Guess(hand_over, former), reply);
        self.guesses.ask(account, ticket, now.boot);
    }

    /// Other credentials for an instance are a guess as well; another account is one more that its device tries.
    pub(in crate::engine) fn ask_to_rectify(
        &mut self,
        id: InstanceId,
        token: TokenHash,
        change: Box<Rectification>,
        reply: ReplyTo,
        now: Now,
    ) {
        let Some((present, wanted)) = self.fingerprints(id, &change) else { return };
        if present == wanted {
            return self.guess_to_rectify(id, token, change, reply, now);
        }
        let Some(instance) = self.leases.get(id) else { return };
        let holder = Holder::Moving(instance.tenant.clone(), instance.device.clone());
        if let Some(Err(refusal)) = change.account.as_ref().map(|account| self.may_register(&instance.tenant, account))
        {
            return self.reply(reply, Answer::Refused(refusal));
        }
        let ticket = self.wait_for_leave(Wish::Move(id, token, change), reply);
        self.places.ask(holder, wanted, ticket, now.boot);
    }

    fn guess_to_rectify(
        &mut self,
        id: InstanceId,
        token: TokenHash,
        change: Box<Rectification>,
        reply: ReplyTo,
        now: Now,
    ) {
        // It may have ended meanwhile.
        let Some(()) = self.check(id, &token, reply) else { return };
        let Some((_, account)) = self.fingerprints(id, &change) else { return };
        let ticket = self.wait_for_leave(Wish::Rectify(id, token, change), reply);
        self.guesses.ask(account, ticket, now.boot);
    }

    /// Of the account an instance has, and of the one it is to have.
    fn fingerprints(&self, id: InstanceId, change: &Rectification) -> Option<(u64, u64)> {
        let instance = self.leases.get(id)?;
        let of = |account| self.fingerprint(&instance.tenant, account);
        Some((of(&instance.account), of(change.account.as_ref().unwrap_or(&instance.account))))
    }

    pub(in crate::engine) fn route_places(&mut self, now: Now) -> bool {
        let Some(event) = self.places.poll_event() else { return false };
        match event {
            places::Event::Peer(shard, message) => self.emit(Output::Peer(shard, message)),
            places::Event::Answered { ticket, wait } => self.handle_leave(ticket, wait, now),
        }
        true
    }

    pub(in crate::engine) fn route_guesses(&mut self, now: Now) -> bool {
        let Some(event) = self.guesses.poll_event() else { return false };
        match event {
            guesses::Event::Peer(shard, message) if shard == self.shard => {
                self.guesses.handle_peer(shard, &message, now.boot);
            }
            guesses::Event::Peer(shard, message) => self.emit(Output::Peer(shard, message)),
            guesses::Event::Answered { ticket, wait } => self.handle_leave(ticket, wait, now),
        }
        true
    }

    /// An instance is gone, or was not opened after all.
    pub(in crate::engine) fn give_places_back(&mut self, tenant: &TenantId, device: &str, now: Now) {
        self.places.give_back(Holder::Device(tenant.clone(), device.to_owned()), now.boot);
        if self.counts_instances(tenant) {
            self.places.give_back(Holder::Tenant(tenant.clone()), now.boot);
        }
    }

    /// The answer to what was paid for as a guess tells whether it was a wrong one.
    pub(in crate::engine) fn settle_guess(&mut self, reply: ReplyTo, answer: &Answer) {
        let Some(guess) = self.hand_overs.guesses.remove(&reply) else { return };
        let (instance, registration) = match answer {
            Answer::HandedOver(it) => (it.instance, &it.registration),
            Answer::Instance(it) => (it.instance, &it.registration),
            Answer::Refused(refusal) => {
                return self.guesses.settle(guess.ticket, guess.differs || is_the_registrars(refusal));
            }
            _ => return self.guesses.settle(guess.ticket, guess.differs),
        };
        match registration.state {
            // The word of the place where it is now says nothing of the credentials for another.
            _ if registration.moving == Some(MoveView::Waiting) => {}
            RegistrationState::Registering | RegistrationState::Foreground | RegistrationState::Restricted => {}
            RegistrationState::Registered | RegistrationState::Failing | RegistrationState::Erasing => {
                return self.guesses.settle(guess.ticket, guess.was_wrong(registration));
            }
        }
        // The instance has brought other credentials before its registrar judged the former ones, and now never will.
        if let Some(former) = self.hand_overs.unjudged.insert(instance, guess) {
            self.guesses.settle(former.ticket, former.differs);
        }
    }

    /// What `compared` tells makes the guess that `reply` paid for a wrong one, unless its credentials register.
    pub(super) fn doubt(&mut self, compared: &Compared, reply: Option<ReplyTo>) {
        if let (Compared::Other, Some(guess)) = (compared, reply.and_then(|it| self.hand_overs.guesses.get_mut(&it))) {
            guess.differs = true;
        }
    }

    /// The credentials registered: they are no wrong guess, whatever becomes of the wish.
    pub(super) fn clear_doubt(&mut self, reply: ReplyTo) {
        if let Some(guess) = self.hand_overs.guesses.get_mut(&reply) {
            guess.differs = false;
        }
    }

    /// The registrar spoke after the hand-over was answered.
    pub(super) fn settle_late(&mut self, id: InstanceId, spoken: &Spoken, now: Now) {
        let Some(guess) = self.hand_overs.unjudged.remove(&id) else { return };
        let view = self.leases.get(id).map(|instance| self.registration_view(instance, now));
        let was_wrong = match spoken {
            Spoken::Refused(_) => true,
            Spoken::Verdict => view.map_or(guess.differs, |view| guess.was_wrong(&view)),
            Spoken::Unsignable(_) | Spoken::Unreachable | Spoken::Crowded(_) => guess.differs,
        };
        self.guesses.settle(guess.ticket, was_wrong);
    }

    /// A change of place that was answered 202 came to nothing.
    pub(super) fn settle_move(&mut self, id: InstanceId, refused: bool) {
        if let Some(guess) = self.hand_overs.unjudged.remove(&id) {
            self.guesses.settle(guess.ticket, guess.differs || refused);
        }
    }

    /// The instance is gone before its registrar spoke. One that is deleted has still to be removed at the registrar, and its
    /// receipt tells how that went: whoever wants to see it has guessed.
    pub(super) fn settle_gone(&mut self, id: InstanceId, cause: Cause) {
        if let Some(guess) = self.hand_overs.unjudged.remove(&id) {
            let was_wrong = guess.differs || matches!(cause, Cause::Refused | Cause::Deleted);
            self.guesses.settle(guess.ticket, was_wrong);
        }
    }

    fn wait_for_leave(&mut self, wish: Wish, reply: ReplyTo) -> u64 {
        self.hand_overs.tickets += 1;
        let ticket = self.hand_overs.tickets;
        self.hand_overs.asking.insert(ticket, Asking { wish, reply });
        ticket
    }

    /// Leave was given, or not for so long.
    fn handle_leave(&mut self, ticket: u64, wait: Option<Duration>, now: Now) {
        let Some(Asking { wish, reply }) = self.hand_overs.asking.remove(&ticket) else { return };
        if let Some(after) = wait {
            if let Wish::TenantPlace(hand_over) = wish {
                return self.take_over(hand_over, after, reply, now);
            }
            return self.reply(reply, Answer::Refused(Refusal::RateLimited { after }));
        }
        match wish {
            Wish::Guess(hand_over, former) => {
                self.hand_overs.guesses.insert(reply, Guess { ticket, differs: false });
                match former.and_then(|former| self.taken_back(&former)) {
                    Some(refusal) => self.reply(reply, Answer::Refused(refusal)),
                    None => self.seek_place(hand_over, reply, now),
                }
            }
            Wish::Rectify(id, token, change) => {
                self.hand_overs.guesses.insert(reply, Guess { ticket, differs: false });
                self.rectify_now(id, &token, *change, reply, now);
            }
            Wish::Move(id, token, change) => self.guess_to_rectify(id, token, change, reply, now),
            Wish::DevicePlace(hand_over) if self.counts_instances(&hand_over.tenant) => {
                let holder = Holder::Tenant(hand_over.tenant.clone());
                let account = self.fingerprint(&hand_over.tenant, &hand_over.account);
                let ticket = self.wait_for_leave(Wish::TenantPlace(hand_over), reply);
                self.places.ask(holder, account, ticket, now.boot);
            }
            Wish::DevicePlace(hand_over) | Wish::TenantPlace(hand_over) => self.handle_places(hand_over, reply, now),
        }
    }

    /// Somebody who may has erased the instance meanwhile, or restricted it: what came before that must not undo it.
    fn taken_back(&self, former: &Former) -> Option<Refusal> {
        if self.is_restricted(former.id) && !former.restricted {
            return Some(Refusal::Restricted);
        }
        let cause = self.erasures.cause_of(former.id)?;
        let wanted = matches!(cause, Cause::Deleted | Cause::Administrator | Cause::OffBoarded);
        wanted.then_some(Refusal::Gone { cause, receipt: None })
    }

    fn seek_place(&mut self, hand_over: Box<HandOver>, reply: ReplyTo, now: Now) {
        // Meanwhile the end of the process may have come.
        if let Err(refusal) = self.may_hand_over(&hand_over) {
            return self.reply(reply, Answer::Refused(refusal));
        }
        match self.leases.predecessor(&hand_over) {
            Some(id) => self.replace(id, hand_over, reply, now),
            None => {
                let holder = Holder::Device(hand_over.tenant.clone(), hand_over.device.clone());
                let account = self.fingerprint(&hand_over.tenant, &hand_over.account);
                let ticket = self.wait_for_leave(Wish::DevicePlace(hand_over), reply);
                self.places.ask(holder, account, ticket, now.boot);
            }
        }
    }

    /// There is a place wherever one is needed.
    fn handle_places(&mut self, hand_over: Box<HandOver>, reply: ReplyTo, now: Now) {
        // Meanwhile the same account may have come a second time, or the end of the process.
        let refusal = self.may_hand_over(&hand_over).err();
        let predecessor = self.leases.predecessor(&hand_over);
        match (refusal, predecessor) {
            (Some(refusal), _) => self.turn_away(&hand_over, refusal, reply, now),
            (None, Some(id)) => {
                self.give_places_back(&hand_over.tenant, &hand_over.device, now);
                self.replace(id, hand_over, reply, now);
            }
            (None, None) => self.take_in(hand_over, reply, now),
        }
    }

    fn counts_instances(&self, tenant: &str) -> bool {
        self.policy.tenant(tenant).is_some_and(|tenant| tenant.instances_max.is_some())
    }

    /// Whose password would be guessed: not told by the address of record, nor by how the registrar is reached.
    fn fingerprint(&self, tenant: &str, account: &Account) -> u64 {
        let host = match &account.registrar.host {
            TrunkHost::Name(name) => name.trim_end_matches('.').to_owned(),
            TrunkHost::Address(address) => address.to_canonical().to_string(),
        };
        self.placement.fingerprint(&[tenant, &host, &account.auth_username])
    }
}

impl Guess {
    /// What the registrar's word makes of it.
    fn was_wrong(&self, registration: &RegistrationView) -> bool {
        was_refused(registration) || (self.differs && registration.state != RegistrationState::Registered)
    }
}

/// Whether a registrar's verdict may mean that the credentials are wrong: some say 403 or 404 instead of asking once more.
/// Credentials that were never shown to it cannot be.
fn was_refused(registration: &RegistrationView) -> bool {
    let unsigned = [Some(RegistrationReason::ChallengeUnsupported), Some(RegistrationReason::NoMatchingHa1)];
    if unsigned.contains(&registration.reason) {
        return false;
    }
    let verdict = registration.verdict.as_deref().unwrap_or_default();
    let refuses = ["401", "403", "404", "407"].iter().any(|code| verdict.starts_with(code));
    registration.state == RegistrationState::Failing && refuses
}

fn is_the_registrars(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::RegistrarRefused(_) | Refusal::Gone { cause: Cause::Refused, .. })
}
