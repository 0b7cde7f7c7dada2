//! Requests that come in: calls offered to us, and what the other end does within a call.

use bytes::Bytes;

use super::{ALLOW, Agent, CALLS_MAX, CallEvent, CallId, Dialog, Happening, Stage, Talk, TransactionId, random_token};
use crate::clock;
use crate::sandbox::wire::Path;
use crate::sip::encode::Encoder;
use crate::sip::{FieldError, HeaderName, Message, Method, StatusCode};

impl Agent {
    /// Says that we ring.
    pub(crate) fn ring(&mut self, call: CallId) {
        self.respond_to_offer(call, StatusCode::RINGING);
    }

    /// Says no. The call is over; nothing more is told of it.
    pub(crate) fn refuse(&mut self, call: CallId, code: StatusCode) {
        self.respond_to_offer(call, code);
        if let Some(ended) = self.calls.remove(&call) {
            self.by_dialog.remove(&ended.name);
            self.by_transaction.retain(|_, of| *of != call);
        }
    }

    /// Takes the call.
    pub(crate) fn answer(&mut self, call: CallId, sdp: Bytes) {
        let now = clock::now().boot;
        let Some(offered) = self.calls.get(&call) else { return };
        let (Stage::Offered { invite }, tag) = (&offered.stage, offered.name.1.clone()) else { return };
        let invite = *invite;
        let Some((request, path)) = self.transactions.about(invite).map(|(request, path)| (request.clone(), path))
        else {
            return;
        };
        let Ok(dialog) = Dialog::of_callee(&request, &tag) else { return };
        let Some(response) = self.write_answer(&request, path, &tag, &sdp) else { return };
        let number = request.cseq().map_or(0, |cseq| cseq.number);
        self.transactions.respond(invite, StatusCode::OK, response.clone(), now);
        if let Some(call) = self.calls.get_mut(&call) {
            call.stage = Stage::Talking(Talk { dialog, ack: None, unacknowledged: None, sdp });
        }
        self.await_ack(call, response, path, number, now);
        self.flush();
    }

    pub(super) fn handle_request(&mut self, id: TransactionId) {
        let Some((request, _)) = self.transactions.about(id) else { return };
        let request = request.clone();
        let Some(method) = request.method() else { return };
        let tag = request.to().ok().and_then(|to| to.tag().map(str::to_owned));
        if method == Method::Cancel {
            self.handle_cancel(id, &request);
            return;
        }
        if let Some(tag) = tag {
            let name = (request.call_id().unwrap_or_default().to_vec(), tag);
            self.handle_in_dialog(id, &request, self.by_dialog.get(&name).copied());
            return;
        }
        match method {
            Method::Invite => self.handle_invite(id, &request),
            Method::Options => self.reply_tagged(id, StatusCode::OK, &random_token(), &[("Allow", ALLOW.to_owned())]),
            Method::Register | Method::Message => self.happenings.push_back(Happening::Request(id)),
            _ => {
                let allow = [("Allow", ALLOW.to_owned())];
                self.reply_tagged(id, StatusCode::METHOD_NOT_ALLOWED, &random_token(), &allow);
            }
        }
    }

    /// An ACK to a 2xx of ours.
    pub(super) fn handle_ack(&mut self, ack: &Message) {
        let (Ok(call_id), Ok(to), Ok(cseq)) = (ack.call_id(), ack.to(), ack.cseq()) else { return };
        let name = (call_id.to_vec(), to.tag().unwrap_or_default().to_owned());
        let Some(&call) = self.by_dialog.get(&name) else { return };
        if let Some(Stage::Talking(talk)) = self.calls.get_mut(&call).map(|call| &mut call.stage)
            && talk.unacknowledged.as_ref().is_some_and(|waiting| waiting.number == cseq.number)
        {
            talk.unacknowledged = None;
            self.deadlines.set(call, None);
            self.tell(call, CallEvent::Confirmed);
        }
    }

    fn handle_invite(&mut self, id: TransactionId, invite: &Message) {
        let refusal = self.objection(id, invite);
        let tag = random_token();
        if let Some((code, extra)) = refusal {
            self.reply_tagged(id, code, &tag, &extra);
            return;
        }
        self.reply_tagged(id, StatusCode::TRYING, &tag, &[]);
        let name = (invite.call_id().unwrap_or_default().to_vec(), tag);
        let call = self.enter(name, Stage::Offered { invite: id });
        self.by_transaction.insert(id, call);
        self.tell(call, CallEvent::Offered { invite: invite.clone() });
    }

    /// Why an INVITE cannot be offered to the owner.
    fn objection(&self, id: TransactionId, invite: &Message) -> Option<(StatusCode, Vec<(&'static str, String)>)> {
        let required: Vec<_> = invite.list(HeaderName::Require).map(String::from_utf8_lossy).collect();
        if !required.is_empty() {
            return Some((StatusCode::BAD_EXTENSION, vec![("Unsupported", required.join(", "))]));
        }
        if Dialog::of_callee(invite, "").is_err() {
            return Some((StatusCode::BAD_REQUEST, Vec::new()));
        }
        if self.is_merged(id, invite) {
            return Some((StatusCode::LOOP_DETECTED, Vec::new()));
        }
        (self.calls.len() >= CALLS_MAX).then(|| (StatusCode::BUSY_HERE, Vec::new()))
    }

    /// RFC 3261 §8.2.2.2: the same INVITE came another way.
    fn is_merged(&self, id: TransactionId, invite: &Message) -> bool {
        let identity = |message: &Message| -> Result<_, FieldError> {
            let tag = message.from()?.tag().map(str::to_owned);
            Ok((message.call_id()?.to_vec(), tag, message.cseq()?.number))
        };
        let Ok(wanted) = identity(invite) else { return false };
        let offered = self.calls.values().filter_map(|call| match call.stage {
            Stage::Offered { invite } if invite != id => self.transactions.about(invite),
            _ => None,
        });
        offered.into_iter().any(|(other, _)| identity(other).is_ok_and(|other| other == wanted))
    }

    fn handle_cancel(&mut self, id: TransactionId, cancel: &Message) {
        let invite = self.transactions.cancelled_by(cancel);
        let Some(invite) = invite else {
            self.reply_tagged(id, StatusCode::CALL_DOES_NOT_EXIST, &random_token(), &[]);
            return;
        };
        let call = self.by_transaction.get(&invite).copied();
        let tag = call.and_then(|call| self.calls.get(&call)).map_or_else(random_token, |call| call.name.1.clone());
        self.reply_tagged(id, StatusCode::OK, &tag, &[]);
        if let Some(call) = call
            && let Some(Stage::Offered { .. }) = self.calls.get(&call).map(|call| &call.stage)
        {
            self.reply_tagged(invite, StatusCode::REQUEST_TERMINATED, &tag, &[]);
            self.end(call, CallEvent::Cancelled { elsewhere: is_elsewhere(cancel) });
        }
    }

    fn handle_in_dialog(&mut self, id: TransactionId, request: &Message, call: Option<CallId>) {
        let with_peer = call.and_then(|call| Some((call, self.calls.get_mut(&call)?)));
        let Some((call, entry)) = with_peer else {
            self.reply_tagged(id, StatusCode::CALL_DOES_NOT_EXIST, "", &[]);
            return;
        };
        let (method, number) = (request.method(), request.cseq().map_or(0, |cseq| cseq.number));
        let talk = match &mut entry.stage {
            Stage::Talking(talk) | Stage::HangingUp(talk) => talk,
            Stage::Offered { invite } if method == Some(Method::Bye) => {
                let (invite, tag) = (*invite, entry.name.1.clone());
                self.reply_tagged(id, StatusCode::OK, &tag, &[]);
                self.reply_tagged(invite, StatusCode::REQUEST_TERMINATED, &tag, &[]);
                self.end(call, CallEvent::Cancelled { elsewhere: false });
                return;
            }
            Stage::Offered { .. } | Stage::Calling(_) => {
                self.reply_tagged(id, StatusCode::CALL_DOES_NOT_EXIST, "", &[]);
                return;
            }
        };
        if !talk.dialog.is_with(request) {
            self.reply_tagged(id, StatusCode::CALL_DOES_NOT_EXIST, "", &[]);
        } else if !talk.dialog.take_remote_number(number) {
            self.reply_tagged(id, StatusCode::SERVER_INTERNAL_ERROR, "", &[]);
        } else {
            self.handle_peer_request(id, call, request);
        }
    }

    fn handle_peer_request(&mut self, id: TransactionId, call: CallId, request: &Message) {
        match request.method() {
            Some(Method::Bye) => {
                self.reply_tagged(id, StatusCode::OK, "", &[]);
                self.end(call, CallEvent::HungUp);
            }
            Some(Method::Invite) => self.handle_reinvite(id, call, request),
            Some(Method::Options) => self.reply_tagged(id, StatusCode::OK, "", &[("Allow", ALLOW.to_owned())]),
            _ => self.reply_tagged(id, StatusCode::METHOD_NOT_ALLOWED, "", &[("Allow", ALLOW.to_owned())]),
        }
    }

    /// A changed session gets the same description of ours: there is no media to change.
    fn handle_reinvite(&mut self, id: TransactionId, call: CallId, request: &Message) {
        let now = clock::now().boot;
        let (sdp, busy) = match self.calls.get_mut(&call).map(|call| &mut call.stage) {
            Some(Stage::Talking(talk)) => {
                talk.dialog.refresh_target(request);
                (talk.sdp.clone(), talk.unacknowledged.is_some())
            }
            _ => return,
        };
        let Some(path) = self.transactions.about(id).map(|(_, path)| path) else { return };
        if busy {
            // RFC 3261 §14.2: a second INVITE before the first is through.
            self.reply_tagged(id, StatusCode::REQUEST_PENDING, "", &[]);
            return;
        }
        let Some(response) = self.write_answer(request, path, "", &sdp) else { return };
        self.transactions.respond(id, StatusCode::OK, response.clone(), now);
        self.await_ack(call, response, path, request.cseq().map_or(0, |cseq| cseq.number), now);
    }

    fn respond_to_offer(&mut self, call: CallId, code: StatusCode) {
        let Some(offered) = self.calls.get(&call) else { return };
        let Stage::Offered { invite } = offered.stage else { return };
        let tag = offered.name.1.clone();
        let path = self.transactions.about(invite).map(|(_, path)| path);
        let contact = path.map(|path| ("Contact", format!("<{}>", self.contact(path))));
        let extra: Vec<_> = contact.into_iter().filter(|_| code.is_provisional()).collect();
        self.reply_tagged(invite, code, &tag, &extra);
        self.flush();
    }

    /// A 200 with our Contact and session description.
    fn write_answer(&self, invite: &Message, path: Path, tag: &str, sdp: &[u8]) -> Option<Bytes> {
        let mut out = Vec::with_capacity(1024);
        let mut message = Encoder::response(&mut out, StatusCode::OK, StatusCode::OK.reason().as_bytes());
        for header in invite.headers() {
            match header.name {
                HeaderName::Via
                | HeaderName::RecordRoute
                | HeaderName::From
                | HeaderName::CallId
                | HeaderName::CSeq => drop(message.copy(header)),
                HeaderName::To if !tag.is_empty() => {
                    message.raw(HeaderName::To, &[header.value, b";tag=", tag.as_bytes()].concat());
                }
                HeaderName::To => drop(message.copy(header)),
                _ => {}
            }
        }
        message.header(HeaderName::Contact, format_args!("<{}>", self.contact(path)));
        message.header(HeaderName::Allow, ALLOW);
        message.header(HeaderName::ContentType, "application/sdp");
        message.finish(sdp);
        Some(out.into())
    }
}

/// RFC 3326 §2: the call was answered by another device.
fn is_elsewhere(cancel: &Message) -> bool {
    let reason = cancel.header(HeaderName::Reason).unwrap_or_default();
    let mut parts = reason.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
    parts.next().is_some_and(|protocol| protocol.eq_ignore_ascii_case(b"SIP")) && parts.any(|part| part == b"cause=200")
}
