//! Calls that we place, and the requests and answers of ours within any call.

use std::collections::hash_map::Entry;

use bytes::Bytes;

use super::dialog::{InDialog, MAX_FORWARDS, via_value};
use super::{
    Agent, CALLS_MAX, Call, CallEvent, CallId, Calling, Cancel, Dialog, Happening, Stage, Talk, TransactionId,
    Unacknowledged, own_via, random_branch, random_token,
};
use crate::clock::{self, Instant};
use crate::sandbox::wire::Path;
use crate::sip::encode::Encoder;
use crate::sip::timers::{T1, T2, TRANSACTION_TIMEOUT};
use crate::sip::{HeaderName, Message, Method, StatusCode, proxy, registration};

/// Whom to call, in whose name, and with what.
pub(crate) struct Invitation<'a> {
    pub(crate) request_uri: &'a str,
    /// Name-addr without tag.
    pub(crate) from: &'a str,
    pub(crate) to: &'a str,
    pub(crate) path: Path,
    pub(crate) sdp: Bytes,
}

impl Agent {
    /// Sends an INVITE. `None`: too many calls.
    pub(crate) fn place(&mut self, invitation: &Invitation<'_>) -> Option<CallId> {
        if self.calls.len() >= CALLS_MAX {
            return None;
        }
        let (tag, call_id, path) = (random_token(), random_token(), invitation.path);
        let request = self.write_invite(invitation, &tag, &call_id);
        let reliable = self.wire.transport(path).is_reliable();
        let invite = self.transactions.send(request, path, reliable, clock::now().boot)?;
        let request = self.transactions.about(invite)?.0.clone();
        let calling = Calling { invite, request, path, last: None, cancel: Cancel::No };
        let call = self.enter((call_id.into_bytes(), tag), Stage::Calling(calling));
        self.by_transaction.insert(invite, call);
        self.flush();
        Some(call)
    }

    /// Ends a call from our side, whatever stage it is in: CANCEL, a refusal, or BYE.
    pub(crate) fn hang_up(&mut self, call: CallId) {
        let now = clock::now().boot;
        match self.calls.get_mut(&call).map(|call| &mut call.stage) {
            Some(Stage::Calling(calling)) => {
                if calling.cancel == Cancel::No {
                    calling.cancel = Cancel::Wanted;
                }
                self.send_cancel(call, now);
            }
            Some(Stage::Offered { .. }) => self.refuse(call, StatusCode::TEMPORARILY_UNAVAILABLE),
            Some(Stage::Talking(_)) => self.send_bye(call, None),
            Some(Stage::HangingUp(_)) | None => {}
        }
        self.flush();
    }

    pub(super) fn handle_response(&mut self, id: TransactionId, response: Message, now: Instant) {
        let Some(code) = response.status() else { return };
        let Some(&call) = self.by_transaction.get(&id) else {
            if !code.is_provisional() {
                self.happenings.push_back(Happening::Response(id, Some(response)));
            }
            return;
        };
        match self.calls.get_mut(&call).map(|call| &mut call.stage) {
            Some(Stage::Calling(calling)) if code.is_provisional() => {
                let news = calling.last != Some(code);
                calling.last = Some(code);
                if news {
                    self.tell(call, CallEvent::Progress(code));
                }
                self.send_cancel(call, now);
            }
            Some(Stage::Calling(_)) if code.is_success() => self.handle_answer(call, &response),
            Some(Stage::Calling(_)) => {
                let phrase = registration::verdict(&response);
                self.end(call, CallEvent::Refused { code, phrase });
            }
            // Our BYE's answer, or the INVITE's 2xx once more.
            Some(Stage::Talking(_) | Stage::HangingUp(_)) if is_invite(&response) => {
                self.handle_answer_again(call, &response)
            }
            Some(Stage::HangingUp(_)) if !code.is_provisional() => self.end(call, CallEvent::Over),
            _ => {}
        }
    }

    pub(super) fn handle_unanswered(&mut self, id: TransactionId) {
        let Some(&call) = self.by_transaction.get(&id) else {
            self.happenings.push_back(Happening::Response(id, None));
            return;
        };
        match self.calls.get(&call).map(|call| &call.stage) {
            Some(Stage::Calling(_)) => self.end(call, CallEvent::Lost),
            Some(Stage::HangingUp(_)) => self.end(call, CallEvent::Over),
            Some(Stage::Talking(_) | Stage::Offered { .. }) | None => {}
        }
    }

    /// Repeats our 2xx, or gives up what has waited too long.
    pub(super) fn handle_call_deadline(&mut self, call: CallId, now: Instant) {
        match self.calls.get_mut(&call).map(|call| &mut call.stage) {
            Some(Stage::Calling(_)) => self.end(call, CallEvent::Lost),
            Some(Stage::Talking(Talk { unacknowledged: Some(waiting), .. })) => {
                if waiting.until <= now {
                    // RFC 3261 §13.3.1.4: without an ACK for 64·T1 "the session SHOULD be terminated".
                    self.send_bye(call, None);
                    return;
                }
                waiting.pause = (waiting.pause * 2).min(T2);
                waiting.due = now + waiting.pause;
                let (due, bytes, path) = (waiting.next_due(), waiting.response.clone(), waiting.path);
                self.transactions.send_bare(bytes, path);
                self.deadlines.set(call, Some(due));
            }
            _ => {}
        }
    }

    /// Keeps our 2xx until its ACK comes.
    pub(super) fn await_ack(&mut self, call: CallId, response: Bytes, path: Path, number: u32, now: Instant) {
        let waiting =
            Unacknowledged { response, path, number, due: now + T1, pause: T1, until: now + TRANSACTION_TIMEOUT };
        self.deadlines.set(call, Some(waiting.next_due()));
        if let Some(Stage::Talking(talk)) = self.calls.get_mut(&call).map(|call| &mut call.stage) {
            talk.unacknowledged = Some(waiting);
        }
    }

    /// A 2xx to our INVITE: the dialog stands, and is acknowledged.
    fn handle_answer(&mut self, call: CallId, response: &Message) {
        let Entry::Occupied(entry) = self.calls.entry(call) else { return };
        let Stage::Calling(calling) = &entry.get().stage else { return };
        let Ok(dialog) = Dialog::of_caller(&calling.request, response) else {
            self.end(call, CallEvent::Lost);
            return;
        };
        let (invite, cancelled) = (calling.request.clone(), calling.cancel != Cancel::No);
        let ack = self.write_ack(&dialog, &invite);
        if let Some((bytes, path)) = &ack {
            self.transactions.send_bare(bytes.clone(), *path);
        }
        let sdp = Bytes::copy_from_slice(invite.body());
        let talk = Talk { dialog, ack, unacknowledged: None, sdp };
        if let Some(call) = self.calls.get_mut(&call) {
            call.stage = Stage::Talking(talk);
        }
        self.deadlines.set(call, None);
        if cancelled {
            // CANCEL and 2xx crossed on the way: the call stands, so it takes a BYE to end it.
            self.send_bye(call, None);
        } else {
            self.tell(call, CallEvent::Answered { sdp: Bytes::copy_from_slice(response.body()) });
        }
    }

    /// The 2xx again wants its ACK again; a 2xx of another fork is acknowledged and hung up.
    fn handle_answer_again(&mut self, call: CallId, response: &Message) {
        if !response.status().is_some_and(StatusCode::is_success) {
            return;
        }
        let Some(Call { stage: Stage::Talking(talk) | Stage::HangingUp(talk), .. }) = self.calls.get(&call) else {
            return;
        };
        if response.to().is_ok_and(|to| talk.dialog.is_remote(to.tag())) {
            if let Some((bytes, path)) = talk.ack.clone() {
                self.transactions.send_bare(bytes, path);
            }
            return;
        }
        let Some(invite) = self.sent_invite(call) else { return };
        let Ok(mut stray) = Dialog::of_caller(&invite, response) else { return };
        if let Some((bytes, path)) = self.write_ack(&stray, &invite) {
            self.transactions.send_bare(bytes, path);
        }
        self.send_in_dialog(&mut stray, Method::Bye, None);
    }

    /// The INVITE of a call that we placed, while its transaction lives.
    fn sent_invite(&self, call: CallId) -> Option<Message> {
        let of_call = self.by_transaction.iter().filter(|(_, of)| **of == call).map(|(id, _)| *id);
        let mut requests = of_call.filter_map(|id| self.transactions.about(id));
        requests.find(|(request, _)| request.method() == Some(Method::Invite)).map(|(request, _)| request.clone())
    }

    fn send_cancel(&mut self, call: CallId, now: Instant) {
        let Some(Stage::Calling(calling)) = self.calls.get_mut(&call).map(|call| &mut call.stage) else { return };
        if calling.cancel != Cancel::Wanted || !self.transactions.is_proceeding(calling.invite) {
            return;
        }
        let mut cancel = Vec::new();
        if proxy::write_cancel(&calling.request, None, &mut cancel).is_ok() {
            calling.cancel = Cancel::Sent;
            let reliable = self.wire.transport(calling.path).is_reliable();
            // Its response says nothing that the INVITE's 487 does not.
            let _ = self.transactions.send(cancel, calling.path, reliable, now);
            self.deadlines.set(call, Some(now + TRANSACTION_TIMEOUT));
        }
    }

    pub(super) fn send_bye(&mut self, call: CallId, reason: Option<&str>) {
        let Some(mut entry) = self.calls.remove(&call) else { return };
        self.deadlines.set(call, None);
        let Stage::Talking(mut talk) = entry.stage else { return };
        talk.unacknowledged = None;
        let bye = self.send_in_dialog(&mut talk.dialog, Method::Bye, reason);
        entry.stage = Stage::HangingUp(talk);
        self.calls.insert(call, entry);
        match bye {
            Some(bye) => drop(self.by_transaction.insert(bye, call)),
            None => self.end(call, CallEvent::Over),
        }
    }

    fn send_in_dialog(
        &mut self,
        dialog: &mut Dialog,
        method: Method<'_>,
        reason: Option<&str>,
    ) -> Option<TransactionId> {
        let path = self.route(dialog)?;
        let (transport, sent_by) = self.sent_by(path);
        let (branch, number) = (random_branch(), dialog.next_number());
        let mut request = Vec::with_capacity(512);
        dialog.write(&InDialog { method, number, via: own_via(transport, &sent_by, &branch), reason }, &mut request);
        self.transactions.send(request, path, transport.is_reliable(), clock::now().boot)
    }

    fn write_ack(&mut self, dialog: &Dialog, invite: &Message) -> Option<(Bytes, Path)> {
        let path = self.route(dialog)?;
        let (transport, sent_by) = self.sent_by(path);
        let (branch, number) = (random_branch(), invite.cseq().ok()?.number);
        let via = own_via(transport, &sent_by, &branch);
        let mut ack = Vec::with_capacity(512);
        dialog.write(&InDialog { method: Method::Ack, number, via, reason: None }, &mut ack);
        Some((ack.into(), path))
    }

    fn write_invite(&self, invitation: &Invitation<'_>, tag: &str, call_id: &str) -> Vec<u8> {
        let (transport, sent_by) = self.sent_by(invitation.path);
        let branch = random_branch();
        let mut out = Vec::with_capacity(1024);
        let mut message = Encoder::request(&mut out, Method::Invite, invitation.request_uri.as_bytes());
        message.header(HeaderName::Via, via_value(own_via(transport, &sent_by, &branch)));
        message.header(HeaderName::MaxForwards, MAX_FORWARDS);
        message.header(HeaderName::From, format_args!("{};tag={tag}", invitation.from));
        message.header(HeaderName::To, invitation.to);
        message.header(HeaderName::CallId, call_id);
        message.header(HeaderName::CSeq, "1 INVITE");
        message.header(HeaderName::Contact, format_args!("<{}>", self.contact(invitation.path)));
        message.header(HeaderName::Allow, super::ALLOW);
        message.header(HeaderName::ContentType, "application/sdp");
        message.finish(&invitation.sdp);
        out
    }
}

fn is_invite(response: &Message) -> bool {
    response.cseq().is_ok_and(|cseq| cseq.method == Method::Invite)
}
