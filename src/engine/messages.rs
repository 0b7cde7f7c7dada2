//! SIP messages into the engine: what each one is, and which room it belongs to.

use bytes::Bytes;

use super::account::TrunkSources;
use super::caller::caller_of;
use super::calls::{Callee, Incoming, Inside, Passing};
use super::device::reply_hop;
use super::edge::{Known, Refusal, Standing};
use super::engine::{Drain, Effect, Engine};
use super::foreground::takes_calls;
use super::ids::{BindingId, BranchId, Capability, InstanceId};
use super::input::{Arrival, CalledByName, PeerMessage};
use super::instance::Instance;
use super::names::Meant;
use super::output::{Output, WakeKind};
use super::placement::{called_user, capability_of, names_a_shard};
use super::policy::CallerInPush;
use super::tally::Shed;
use super::texting::event_package;
use super::token::Which;
use crate::clock::Now;
use crate::sip::proxy::{self, Reply, Unforwardable};
use crate::sip::{Message, Method, StatusCode, push_params};

/// Events a registrar or PBX sends to a Contact by itself, harmless without a subscription.
const KNOWN_EVENTS: [&str; 5] = ["message-summary", "keep-alive", "check-sync", "reg", "presence"];
/// Methods a capability answers, for Allow.
pub(super) const ALLOWED: &str = "INVITE, ACK, CANCEL, BYE, OPTIONS, NOTIFY, MESSAGE";

impl Engine {
    pub(super) fn handle_message(&mut self, message: Message, arrival: &Arrival, now: Now) {
        self.trace_in(&message, arrival, now);
        if message.status().is_some() {
            self.handle_response(&message, now);
        } else {
            self.handle_request(message, arrival, now);
        }
    }

    pub(super) fn handle_response(&mut self, response: &Message, now: Now) {
        let Ok(via) = response.top_via() else { return };
        let Some(branch) = via.branch().and_then(|branch| BranchId::from_branch(branch.as_bytes())) else { return };
        let (bindings, mut desk) = self.for_bindings();
        if bindings.handle_response(branch, response, &mut desk, now.boot) {
            return;
        }
        let (pass, mut desk) = self.for_pass();
        if pass.handle_response(branch, response, &mut desk, now.boot) {
            return;
        }
        // A phone that puts its push token into every Contact tells it to no one but its registrar's neighbour: us.
        let bare = push_params::without(response);
        let response = bare.as_ref().unwrap_or(response);
        let (calls, mut desk) = self.for_calls();
        if calls.handle_response(branch, response, &mut desk, now.boot) {
            return;
        }
        if self.handle_text_response(branch, response, now) {
            return;
        }
        let (erasures, mut desk) = self.for_erasures();
        let _ = erasures.handle_response(branch, response, &mut desk, now);
    }

    fn handle_request(&mut self, request: Message, arrival: &Arrival, now: Now) {
        let back = reply_hop(&request, arrival);
        self.cancel_waiting(&request, now);
        let (calls, mut desk) = self.for_calls();
        if calls.handle_known(&request, arrival, &back, &mut desk, now.boot) || self.pass.handle_known(&request) {
            return;
        }
        let inside = self.calls.inside(&request);
        let callee = capability_of(&request);
        let known = callee.and_then(|callee| self.leases.by_capability(&callee));
        let attaching =
            registering(&request).filter(|&id| self.leases.get(id).is_some() || self.erasures.tokens(id).is_some());
        if inside.is_none() && known.is_none() && attaching.is_none() {
            return self.handle_unnamed(request, arrival, now);
        }
        let fault = proxy::validate(&request).err();
        if let Some(inside) = inside {
            self.trace_request(&request, &[inside.instance]);
            let request = match fault {
                None => self.let_wait(inside.instance, request, arrival, &back, now),
                Some(_) => Some(request),
            };
            let Some(request) = request else { return };
            let request = push_params::without(&request).unwrap_or(request);
            let device = self.device_in_call(inside.instance, now.boot);
            let binding = self.leases.get(inside.instance).map(|instance| instance.binding);
            let bound = binding.and_then(|binding| self.bindings.trunk(binding));
            let trunk = bound.or_else(|| self.pass.target(inside.instance)).cloned();
            let passing = Passing { request, arrival, back, device, trunk };
            self.handle_inside(&inside, passing, fault, now);
        } else if let Some(fault) = fault {
            self.answer_unforwardable(&request, arrival, fault);
        } else if let Some(instance) = attaching {
            self.handle_attach(&request, arrival, instance, now);
        } else if let (Some(binding), Some(callee)) = (known, callee) {
            self.handle_to_capability(request, arrival, back, binding, callee, now);
        }
    }

    fn handle_inside(&mut self, inside: &Inside, passing: Passing<'_>, fault: Option<Unforwardable>, now: Now) {
        let Some(fault) = fault else {
            let (calls, mut desk) = self.for_calls();
            return calls.handle_inside(inside, passing, &mut desk, now.boot);
        };
        self.tally.shed(Shed::Malformed);
        let extra = extra_of(&passing.request, fault);
        let (calls, mut desk) = self.for_calls();
        calls.refuse_inside(inside, passing, fault.status(), &extra, &mut desk, now.boot);
    }

    /// The instances a request to a binding may reach, in the order of their ids: those that take its source
    /// and whose app is not in the foreground by itself. `None`: the source is refused by all.
    pub(super) fn callees_of(&mut self, binding: BindingId, arrival: &Arrival, now: Now) -> Option<Vec<InstanceId>> {
        let pinned = arrival.trunk.is_some() || self.bindings.is_source(binding, arrival.peer.ip(), now.boot);
        let takes = |member: &&Instance| pinned || member.account.trunk_sources == TrunkSources::Any;
        let members: Vec<&Instance> = self.leases.members(binding).filter(takes).collect();
        if !members.is_empty() {
            return Some(members.into_iter().filter(|member| takes_calls(member)).map(|member| member.id).collect());
        }
        for member in self.members_of(binding) {
            self.leases.count_drop(member);
        }
        None
    }

    /// A request without a capability we hold: it may call an account by its own name.
    fn handle_unnamed(&mut self, request: Message, arrival: &Arrival, now: Now) {
        // What bears a name of ours is here because of that name, and of no other.
        let user = if names_a_shard(&request) { None } else { called_user(&request, arrival) };
        let meant =
            user.map(|user| self.names.meant_by(&request, &user, arrival.peer.ip(), arrival.trunk.as_ref(), now.boot));
        let request = CalledByName { request, arrival: arrival.clone() };
        match meant {
            Some(Meant::Binding(shard, binding)) if shard == self.shard => self.handle_called(binding, request, now),
            Some(Meant::Binding(shard, binding)) => {
                self.emit(Output::Peer(shard, PeerMessage::Called { binding, request: Box::new(request) }));
            }
            Some(Meant::Several) => {
                self.tally.shed(Shed::Ambiguous);
                if let Err(fault) = proxy::validate(&request.request) {
                    return self.answer_unforwardable(&request.request, arrival, fault);
                }
                match request.request.method() {
                    Some(Method::Invite) => {
                        self.refuse_invite(&request.request, arrival, StatusCode::TEMPORARILY_UNAVAILABLE, now);
                    }
                    _ => self.answer(&request.request, arrival, StatusCode::NOT_FOUND, &[]),
                }
            }
            // A phone behind the address of a registrar: its shard is known by From.
            Some(Meant::Nobody) => {
                let home = self.names.home_of_sender(&request.request, &arrival.peer);
                if home == self.shard {
                    self.pass_or_shut_out(request, now);
                } else {
                    self.emit(Output::Peer(home, PeerMessage::Nameless(Box::new(request))));
                }
            }
            None => self.pass_or_shut_out(request, now),
        }
    }

    /// A request that names nothing of ours, from the shard of its source.
    pub(super) fn handle_nameless(&mut self, request: CalledByName, now: Now) {
        let CalledByName { request: message, arrival } = &request;
        self.cancel_waiting(message, now);
        let back = reply_hop(message, arrival);
        let (calls, mut desk) = self.for_calls();
        if !calls.handle_known(message, arrival, &back, &mut desk, now.boot) && !self.pass.handle_known(message) {
            self.pass_or_shut_out(request, now);
        }
    }

    /// A request that calls nobody of ours: a phone's that registers through us, or a stranger's.
    fn pass_or_shut_out(&mut self, request: CalledByName, now: Now) {
        let CalledByName { request, arrival } = request;
        let back = reply_hop(&request, &arrival);
        let callee = capability_of(&request);
        if let Some(request) = self.pass_through(request, &arrival, &back, now) {
            self.handle_stranger(&request, &arrival, callee, now);
        }
    }

    /// A request that calls an account of this shard by its name, as the name's home shard says.
    pub(super) fn handle_called(&mut self, binding: BindingId, called: CalledByName, now: Now) {
        let CalledByName { request, arrival } = called;
        let back = reply_hop(&request, &arrival);
        let (calls, mut desk) = self.for_calls();
        if calls.handle_known(&request, &arrival, &back, &mut desk, now.boot) {
            return;
        }
        let Some(callee) = self.leases.capability(binding) else {
            return self.handle_stranger(&request, &arrival, None, now);
        };
        match proxy::validate(&request) {
            Ok(()) => self.handle_to_capability(request, &arrival, back, binding, callee, now),
            Err(fault) => self.answer_unforwardable(&request, &arrival, fault),
        }
    }

    fn handle_attach(&mut self, request: &Message, arrival: &Arrival, id: InstanceId, now: Now) {
        let standing = match self.leases.get(id) {
            Some(instance) if instance.restricted.is_some() => Standing::Restricted,
            Some(_) => Standing::Held,
            None => Standing::Erased,
        };
        let held = self.leases.get(id).map(|instance| &instance.tokens);
        let Some(tokens) = held.or_else(|| self.erasures.tokens(id)) else { return };
        let calls = self.calls.news(id);
        let tag = self.tags.of(request);
        let known = Known { instance: id, tokens, standing, calls, policy: &self.policy };
        match self.edge.handle_register(request, arrival, known, &tag, now.boot) {
            Ok(Which::Current) => self.leases.use_token(id),
            Ok(Which::Former) | Err(Refusal::Challenged) => {}
            Err(Refusal::Told(reason)) => self.calls.handle_attach_refused(id, reason),
            Err(Refusal::Slowed) => {
                self.tally.shed(Shed::WrongTokens);
                if !arrival.flow.is_some_and(|flow| self.edge.has_flow(flow)) {
                    self.shut_out(arrival);
                }
            }
        }
    }

    /// A request to a capability we hold, outside a dialog.
    fn handle_to_capability(
        &mut self,
        request: Message,
        arrival: &Arrival,
        back: super::output::Hop,
        binding: BindingId,
        callee: Capability,
        now: Now,
    ) {
        let Some(callees) = self.callees_of(binding, arrival, now) else {
            self.trace_binding(binding, || "request: dropped for its source".to_owned());
            self.tally.shed(Shed::Source);
            return self.shut_out(arrival);
        };
        self.trace_request(&request, &callees);
        if matches!(request.method(), Some(Method::Options | Method::Notify)) && proxy::requires_anything(&request) {
            return self.answer_unforwardable(&request, arrival, Unforwardable::BadExtension);
        }
        let inside = request.to().is_ok_and(|to| to.tag().is_some());
        match request.method() {
            Some(Method::Ack) => {}
            Some(Method::Cancel) => {
                self.answer(&request, arrival, StatusCode::CALL_DOES_NOT_EXIST, &[]);
            }
            // The app has taken its calls over, or wants none, and the registrar has not noticed yet.
            Some(Method::Invite) if callees.is_empty() => {
                self.refuse_invite(&request, arrival, StatusCode::TEMPORARILY_UNAVAILABLE, now);
            }
            Some(Method::Message) if callees.is_empty() => {
                self.answer(&request, arrival, StatusCode::TEMPORARILY_UNAVAILABLE, &[]);
            }
            _ if callees.is_empty() => self.answer(&request, arrival, StatusCode::NOT_FOUND, &[]),
            Some(Method::Notify) => self.answer_notify(&request, arrival, &callees, now),
            _ if inside => {
                self.answer(&request, arrival, StatusCode::CALL_DOES_NOT_EXIST, &[]);
            }
            Some(Method::Invite) => self.handle_invite(request, arrival, back, &callees, callee, now),
            // Deliberately without a wake: PBXs qualify their contacts with it every minute.
            Some(Method::Options) => self.answer(&request, arrival, StatusCode::OK, &[("Allow", ALLOWED.to_owned())]),
            Some(Method::Message) => self.handle_text(request, arrival, back, &callees, now),
            _ => {
                let allow = [("Allow", ALLOWED.to_owned())];
                self.answer(&request, arrival, StatusCode::METHOD_NOT_ALLOWED, &allow);
            }
        }
    }

    fn handle_invite(
        &mut self,
        request: Message,
        arrival: &Arrival,
        back: super::output::Hop,
        callees: &[InstanceId],
        callee: Capability,
        now: Now,
    ) {
        let wished = callees.iter().find_map(|&id| self.leases.get(id)?.account.early_response);
        let early = wished.unwrap_or(self.policy.early_response);
        let mut callees: Vec<Callee> = callees.iter().filter_map(|&id| self.callee(id, &request)).collect();
        if callees.len() > self.policy.limits.devices_per_account as usize {
            // One that waits for the proof of its push token must not keep a proven one from its call.
            callees.sort_by_key(|callee| self.proofs.hindrance(callee.instance, WakeKind::Call).is_some());
        }
        let draining = self.draining != Drain::No;
        let incoming = Incoming { request, arrival, back, capability: callee, early, callees, draining };
        let (calls, mut desk) = self.for_calls();
        calls.handle_invite(incoming, &mut desk, now.boot);
    }

    /// A device as a call to it has to know it.
    fn callee(&self, id: InstanceId, request: &Message) -> Option<Callee> {
        let instance = self.leases.get(id)?;
        let told = self.caller_in_push(instance) != CallerInPush::None;
        Some(Callee {
            instance: id,
            platform_ios: instance.platform.eq_ignore_ascii_case("ios"),
            hand_over: instance.preferences.hand_over,
            caller: if told { caller_of(request) } else { None },
            device: self.edge.device(id).cloned(),
            returns_until: self.edge.returns_until(id),
        })
    }

    pub(super) fn answer_notify(&mut self, request: &Message, arrival: &Arrival, callees: &[InstanceId], now: Now) {
        if let Some(code) = self.handle_mailbox_notify(request, callees, now) {
            return self.answer(request, arrival, code, &[]);
        }
        if request.to().is_ok_and(|to| to.tag().is_some()) {
            return self.answer(request, arrival, StatusCode::CALL_DOES_NOT_EXIST, &[]);
        }
        let package = event_package(request);
        if KNOWN_EVENTS.iter().any(|known| known.as_bytes().eq_ignore_ascii_case(package)) {
            self.answer(request, arrival, StatusCode::OK, &[]);
        } else {
            let known = [("Allow-Events", KNOWN_EVENTS.join(", "))];
            self.answer(request, arrival, StatusCode::BAD_EVENT, &known);
        }
    }

    /// A request that names nothing of ours: silence or a closed door, unless we know who is asking.
    fn handle_stranger(&mut self, request: &Message, arrival: &Arrival, callee: Option<Capability>, now: Now) {
        let early = callee.is_some_and(|callee| self.calls.is_early_contact(&callee));
        let device = arrival.flow.is_some_and(|flow| self.edge.has_flow(flow));
        let proven = arrival.registrar || arrival.device || arrival.trunk.is_some() || device || early;
        if !proven {
            self.tally.shed(Shed::Stranger);
            return self.shut_out(arrival);
        }
        if request.method() == Some(Method::Ack) {
            return;
        }
        if let Err(fault) = proxy::validate(request) {
            return self.answer_unforwardable(request, arrival, fault);
        }
        let inside = request.to().is_ok_and(|to| to.tag().is_some());
        let ending = self.draining != Drain::No && matches!(request.method(), Some(Method::Invite | Method::Message));
        let code = if inside || request.method() == Some(Method::Cancel) {
            StatusCode::CALL_DOES_NOT_EXIST
        } else if ending && callee.is_some() {
            // Its registrar has yet to take note that it is gone: for the caller it is away, not unknown.
            StatusCode::TEMPORARILY_UNAVAILABLE
        } else if callee.is_some() || registering(request).is_some() || arrival.trunk.is_some() {
            StatusCode::NOT_FOUND
        } else {
            StatusCode::FORBIDDEN
        };
        match request.method() {
            // A phone that registers through us bears the same name when it is back.
            Some(Method::Invite) if callee.is_some() => self.refuse_invite(request, arrival, code, now),
            _ => self.answer(request, arrival, code, &[]),
        }
    }

    pub(super) fn answer_unforwardable(&mut self, request: &Message, arrival: &Arrival, fault: Unforwardable) {
        self.tally.shed(Shed::Malformed);
        self.answer(request, arrival, fault.status(), &extra_of(request, fault));
    }

    /// Refuses an INVITE for what we hold just now: a repetition must not meet with something else.
    pub(super) fn refuse_invite(&mut self, invite: &Message, arrival: &Arrival, code: StatusCode, now: Now) {
        let back = reply_hop(invite, arrival);
        let (calls, mut desk) = self.for_calls();
        calls.refuse_outright(invite, arrival, &back, (code, &[]), &mut desk, now.boot);
    }

    fn shut_out(&mut self, arrival: &Arrival) {
        if let (Some(flow), None, false) = (arrival.flow, &arrival.trunk, arrival.registrar) {
            self.emit(Output::CloseFlow(flow));
        }
    }

    /// Answers a request without a transaction: its retransmission gets the same answer again.
    pub(super) fn answer(&mut self, request: &Message, arrival: &Arrival, code: StatusCode, extra: &[(&str, String)]) {
        if request.method() == Some(Method::Ack) {
            return;
        }
        let tag = self.tags.of(request);
        let mut out = Vec::with_capacity(384);
        let reply = Reply { code, to_tag: Some(&tag), source: Some(arrival.peer), record_route: false, extra };
        if proxy::write_reply(request, &reply, &mut out).is_err() {
            return;
        }
        if !arrival.is_reachable() && out.len() > request.bytes().len() {
            // Never more bytes out than in before a source is proven.
            return;
        }
        self.outputs.push_back(Effect::Send(reply_hop(request, arrival), Bytes::from(out)));
    }
}

/// What the answer to a request that cannot be forwarded says besides.
fn extra_of(request: &Message, fault: Unforwardable) -> Vec<(&'static str, String)> {
    match fault {
        Unforwardable::BadExtension => vec![("Unsupported", proxy::unsupported(request))],
        Unforwardable::Malformed(_) | Unforwardable::TooManyHops | Unforwardable::Loop => Vec::new(),
    }
}

/// The instance a REGISTER names in To.
pub(super) fn registering(request: &Message) -> Option<InstanceId> {
    if request.method() != Some(Method::Register) {
        return None;
    }
    InstanceId::parse(request.to().ok()?.uri().user()?)
}
