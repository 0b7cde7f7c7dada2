//! The caller: places calls, cancels, hangs up, and asks odd things.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use reveille::sip::proxy::write_cancel;
use reveille::sip::{Message, Method, Transport};

use super::{Call, Dials, Invite, PATIENCE, Pbx, Todo, transport};
use crate::pbx::CallState;
use crate::sip_text::{Dialog, Request, call_id, code};
use crate::transactions::{Out, Path};

impl Pbx {
    /// Places a call.
    pub fn invite(&mut self, invite: impl Into<Invite>) -> Call {
        let invite = invite.into();
        let binding = self.bindings.iter().rev().find(|it| it.user == invite.user);
        let capability = invite.capability.clone().or_else(|| Some(binding?.capability.clone()));
        let capability = capability.expect("a capability: nobody is registered");
        let bound_path = binding.map(|it| it.path);
        let bound = binding.map(|it| it.uri.clone()).filter(|_| invite.capability.is_none());
        let own = invite.own.unwrap_or(self.address);
        let path = match bound_path {
            _ if invite.connects => self.connect(),
            Some(Path::Stream(stream)) if invite.own.is_none() => Path::Stream(stream),
            _ => Path::Datagram { own, peer: self.edge },
        };
        let uri = match (self.registrar.dials, bound) {
            (Dials::Contact, Some(uri)) => uri,
            (Dials::Bare, Some(uri)) => uri.split(';').next().expect("a URI").to_owned(),
            _ => format!("sip:{capability}@{};transport={}", self.edge, transport(path).as_param()),
        };
        let minted = self.mint();
        let call_id = invite.call_id.clone().unwrap_or_else(|| format!("call-{minted}@{}", self.domain));
        let tag = invite.from_tag.clone().unwrap_or_else(|| format!("caller{minted}"));
        let contact_at = invite.contact.unwrap_or(own);
        let mut extra =
            vec![("Contact".to_owned(), format!("<sip:caller@{contact_at};transport={}>", transport(path).as_param()))];
        extra.push(("User-Agent".to_owned(), "a PBX that tells who it is".to_owned()));
        extra.push(("Allow".to_owned(), "INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, INFO, NOTIFY, REFER".to_owned()));
        if invite.record_route {
            extra.push(("Record-Route".to_owned(), format!("<sip:{own};transport={};lr>", transport(path).as_param())));
        }
        extra.extend(invite.require.map(|option| ("Require".to_owned(), option.to_owned())));
        extra.extend(invite.replaces.map(|dialog| ("Replaces".to_owned(), dialog)));
        extra.extend(invite.expires.map(|seconds| ("Expires".to_owned(), seconds.to_string())));
        if !invite.body.is_empty() {
            extra.push(("Content-Type".to_owned(), "application/sdp".to_owned()));
        }
        let request = Request {
            method: Method::Invite,
            uri: &uri,
            transport: transport(path),
            sent_by: own.to_string(),
            branch: format!("z9hG4bKpbx{minted}"),
            routes: &[],
            from: format!("\"Carol\" <sip:carol@{}>;tag={tag}", self.domain),
            to: format!("<sip:{}@{}>", invite.user, self.domain),
            call_id: &call_id,
            cseq: 1,
            extra,
            body: &invite.body,
        };
        let message = request.write();
        self.transactions.request(&message, path, self.now);
        self.calls.push(CallState {
            user: invite.user,
            invite: message,
            path,
            heard: Vec::new(),
            responses: Vec::new(),
            dialog: None,
            early: None,
            tags: Vec::new(),
            cancelled: false,
            ended: None,
            received: Vec::new(),
            answers: Vec::new(),
            acks: BTreeMap::new(),
        });
        let call = Call(self.calls.len() - 1);
        self.later.push((self.now + PATIENCE, Todo::GiveUp(call)));
        call
    }

    /// Opens a connection to our TCP listener.
    fn connect(&mut self) -> Path {
        self.streams += 1;
        let stream = (1 << 48) | self.streams;
        let own = SocketAddr::new(self.address.ip(), 30_000 + u16::try_from(self.streams).expect("few streams"));
        self.transactions.out.push_back(Out::Open { stream, own, transport: Transport::Tcp });
        Path::Stream(stream)
    }

    /// The same INVITE over another branch, as a proxy that forked it would send it.
    pub fn invite_copy(&mut self, call: Call) -> Call {
        let user = self.call(call).user.clone();
        self.invite_copy_to(call, &user)
    }

    /// The same INVITE to somebody else, as a ring group sends it.
    pub fn invite_copy_to(&mut self, call: Call, user: &str) -> Call {
        let known = self.call(call);
        let tag = known.invite.from().expect("From").tag().expect("a tag").to_owned();
        let copy = Invite::to(user).forked(&call_id(&known.invite), &tag);
        self.invite(copy)
    }

    /// The caller hangs up before anyone answered.
    pub fn cancel(&mut self, call: Call) {
        self.cancel_because(call, None);
    }

    pub fn cancel_because(&mut self, call: Call, reason: Option<&str>) {
        let now = self.now;
        let state = &mut self.calls[call.0];
        state.cancelled = true;
        let mut out = Vec::new();
        write_cancel(&state.invite, reason, &mut out).expect("a CANCEL of an INVITE of ours");
        let cancel = Message::parse_datagram(out).expect("a CANCEL");
        self.transactions.request(&cancel, state.path, now);
    }

    /// Ends an answered call.
    pub fn hang_up(&mut self, call: Call) {
        self.inside(call, Method::Bye, b"");
        self.calls[call.0].ended = Some("pbx");
    }

    /// Sends the ACK of the 2xx once more.
    pub fn acknowledge_again(&mut self, call: Call) {
        let state = &self.calls[call.0];
        let ack = state.acks.get(&1).expect("an ACK").clone();
        self.transactions.request(&ack, state.path, self.now);
    }

    /// A request inside an answered call.
    pub fn inside(&mut self, call: Call, method: Method<'_>, body: &[u8]) {
        let request = self.write_inside(call, method, body, None);
        let path = self.calls[call.0].path;
        self.transactions.request(&request, path, self.now);
        self.later.push((self.now + PATIENCE, Todo::GiveUpInside(request)));
    }

    /// A request outside any dialog, to a capability or whatever URI, from `own`.
    pub fn outside(&mut self, method: Method<'_>, uri: &str, extra: &[(&str, &str)]) -> Call {
        self.outside_from(method, uri, extra, self.address)
    }

    pub fn outside_to(&mut self, method: Method<'_>, uri: &str, to: &str) -> Call {
        self.odd(method, uri, to, &[], self.address)
    }

    pub fn outside_from(&mut self, method: Method<'_>, uri: &str, extra: &[(&str, &str)], own: SocketAddr) -> Call {
        self.odd(method, uri, &format!("<{uri}>"), extra, own)
    }

    pub(super) fn odd(
        &mut self,
        method: Method<'_>,
        uri: &str,
        to: &str,
        extra: &[(&str, &str)],
        own: SocketAddr,
    ) -> Call {
        let minted = self.mint();
        let path = Path::Datagram { own, peer: self.edge };
        let call_id = format!("out-{minted}@{}", self.domain);
        let mut fields = vec![
            ("Contact".to_owned(), format!("<sip:pbx@{own}>")),
            ("User-Agent".to_owned(), "a PBX that tells who it is, at some length".to_owned()),
            ("Accept".to_owned(), "application/sdp, application/dialog-info+xml, text/plain".to_owned()),
        ];
        fields.extend(extra.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let request = Request {
            method,
            uri,
            transport: Transport::Udp,
            sent_by: own.to_string(),
            branch: format!("z9hG4bKout{minted}"),
            routes: &[],
            from: format!("<sip:pbx@{}>;tag=out{minted}", self.domain),
            to: to.to_owned(),
            call_id: &call_id,
            cseq: 1,
            extra: fields,
            body: b"",
        };
        let message = request.write();
        self.transactions.request(&message, path, self.now);
        self.calls.push(CallState {
            user: String::new(),
            invite: message,
            path,
            heard: Vec::new(),
            responses: Vec::new(),
            dialog: None,
            early: None,
            tags: Vec::new(),
            cancelled: false,
            ended: None,
            received: Vec::new(),
            answers: Vec::new(),
            acks: BTreeMap::new(),
        });
        Call(self.calls.len() - 1)
    }

    /// The URI of `user`'s capability at our edge.
    pub fn capability_uri(&self, user: &str) -> String {
        format!("sip:{}@{}", self.capability(user).expect("a registration"), self.edge)
    }

    /// Sends bytes as they stand.
    pub fn send_raw(&mut self, own: SocketAddr, bytes: &[u8]) {
        let path = Path::Datagram { own, peer: self.edge };
        self.transactions.out.push_back(Out::Send(path, bytes.to_vec().into()));
    }

    /// An answer to the request that began it.
    pub(super) fn handle_answer(&mut self, call: Call, response: &Message) {
        let code = code(response);
        let state = &mut self.calls[call.0];
        let again = code >= 200 && state.heard.contains(&code);
        if !again {
            state.heard.push(code);
            state.responses.push(response.clone());
        }
        if state.invite.method() != Some(Method::Invite) {
            return;
        }
        if let Some(tag) = response.to().expect("To").tag()
            && !state.tags.iter().any(|known| known == tag)
        {
            state.tags.push(tag.to_owned());
        }
        if code > 100 && code < 200 {
            state.early = Some(Dialog::of_caller(&state.invite, response));
        }
        if !(200..300).contains(&code) {
            return;
        }
        if state.dialog.is_none() {
            let dialog = Dialog::of_caller(&state.invite, response);
            state.dialog = Some(dialog);
            // Who made no offer answers the one of the 2xx (RFC 3261 §13.2.2.4).
            let answer = if state.invite.body().is_empty() { super::SDP_OFFER } else { b"" };
            let ack = self.write_inside(call, Method::Ack, answer, Some(1));
            self.calls[call.0].acks.insert(1, ack);
        }
        let state = &self.calls[call.0];
        let ack = state.acks.get(&1).expect("the ACK of the first 2xx").clone();
        let (path, cancelled, ended) = (state.path, state.cancelled, state.ended);
        self.transactions.request(&ack, path, self.now);
        if cancelled && ended.is_none() {
            self.hang_up(call);
        } else if let (false, Some(talk)) = (again, self.talk) {
            self.later.push((self.now + talk, Todo::HangUp(call)));
        }
    }

    pub(super) fn write_inside(&mut self, call: Call, method: Method<'_>, body: &[u8], number: Option<u32>) -> Message {
        let minted = self.mint();
        let state = &mut self.calls[call.0];
        let dialog = state.dialog.as_mut().or(state.early.as_mut()).expect("a dialog, be it early");
        let cseq = number.unwrap_or_else(|| {
            dialog.cseq += 1;
            dialog.cseq
        });
        let own = match state.path {
            Path::Datagram { own, .. } => own,
            Path::Stream(_) => self.address,
        };
        // Its own proxy's Record-Route is not a hop for it.
        let here = format!("sip:{own};");
        let routes: Vec<String> = dialog.routes.iter().filter(|route| !route.contains(&here)).cloned().collect();
        let mut extra = vec![("Contact".to_owned(), format!("<sip:caller@{own}>"))];
        if !body.is_empty() {
            extra.push(("Content-Type".to_owned(), "application/sdp".to_owned()));
        }
        let request = Request {
            method,
            uri: &dialog.target,
            transport: transport(state.path),
            sent_by: own.to_string(),
            branch: format!("z9hG4bKin{minted}"),
            routes: &routes,
            from: dialog.local.clone(),
            to: dialog.remote.clone(),
            call_id: &dialog.call_id,
            cseq,
            extra,
            body,
        };
        request.write()
    }
}
