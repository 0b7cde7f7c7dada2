//! Phones that register through us: what of their messages goes to `pass`, and what to `calls`.

use std::time::Duration;

use super::caller::caller_of;
use super::calls::{self, Incoming, Outside, Passing, Towards};
use super::device::Device;
use super::engine::{Drain, Effect, Engine};
use super::ids::InstanceId;
use super::input::{Arrival, CallHandOver};
use super::messages::ALLOWED;
use super::output::{Hop, Output, WakeDetail, WakeKind};
use super::pass::{self, Callee, Pass, Waiting};
use super::policy::CallerInPush;
use super::wakes::Reason;
use crate::clock::{Instant, Now};
use crate::sip::proxy;
use crate::sip::rewrite::{Rewrite, rewritten};
use crate::sip::{Message, Method, StatusCode, push_params};

/// How long a phone may take to come back after a shutdown.
const FAREWELL: Duration = Duration::from_secs(600);

impl Engine {
    /// A request that names nothing of ours: taken, if it is a phone's that registers through us, or for one; given back
    /// if not.
    pub(super) fn pass_through(
        &mut self,
        request: Message,
        arrival: &Arrival,
        back: &Hop,
        now: Now,
    ) -> Option<Message> {
        let registers = self.pass.concerns(&request, &self.policy);
        let callee = self.pass.callee(&request);
        let outside = request.to().is_ok_and(|to| to.tag().is_none());
        let own = outside && !matches!(request.method(), Some(Method::Register | Method::Ack | Method::Cancel));
        let sender = if own && callee.is_none() { self.pass.sender(&request, arrival, now.boot) } else { None };
        if !registers && callee.is_none() && sender.is_none() {
            return Some(request);
        }
        if let Err(fault) = proxy::validate(&request) {
            self.answer_unforwardable(&request, arrival, fault);
        } else if registers {
            let incoming = pass::Incoming { request, arrival, back: back.clone() };
            let (pass, mut desk) = self.for_pass();
            pass.handle_register(incoming, &mut desk, now.boot);
        } else if let Some(callee) = callee {
            self.handle_to_handle(request, arrival, back, callee, now);
        } else if let Some((instance, target)) =
            sender.and_then(|id| self.pass.target(id).map(|target| (id, target.clone())))
        {
            let request = push_params::without(&request).unwrap_or(request);
            let to = Towards::Registrar(target);
            let outside = Outside { request, arrival, back: back.clone(), instance, to };
            let (calls, mut desk) = self.for_calls();
            calls.handle_outside(outside, &mut desk, now.boot);
        }
        None
    }

    /// A request outside a dialog for a phone that registers through us.
    fn handle_to_handle(&mut self, request: Message, arrival: &Arrival, back: &Hop, callee: Callee, now: Now) {
        let inside = request.to().is_ok_and(|to| to.tag().is_some());
        let device = self.pass.device(callee.instance, now.boot).cloned();
        match (request.method(), device) {
            (Some(Method::Ack), _) => {}
            (Some(Method::Cancel), _) => self.answer(&request, arrival, StatusCode::CALL_DOES_NOT_EXIST, &[]),
            _ if inside => self.answer(&request, arrival, StatusCode::CALL_DOES_NOT_EXIST, &[]),
            (Some(Method::Invite), _) => self.handle_invite_to_handle(request, arrival, back, callee, now),
            // Deliberately without a wake: PBXs qualify their contacts with it every minute.
            (Some(Method::Options), _) => {
                self.answer(&request, arrival, StatusCode::OK, &[("Allow", ALLOWED.to_owned())]);
            }
            (_, Some(device)) => {
                let to = Towards::Phone(device);
                let outside = Outside { request, arrival, back: back.clone(), instance: callee.instance, to };
                let (calls, mut desk) = self.for_calls();
                calls.handle_outside(outside, &mut desk, now.boot);
            }
            (Some(Method::Notify), None) => self.answer_notify(&request, arrival, &[], now),
            (Some(Method::Message), None) => {
                self.handle_text(request, arrival, back.clone(), &[callee.instance], now);
            }
            _ => self.answer(&request, arrival, StatusCode::TEMPORARILY_UNAVAILABLE, &[]),
        }
    }

    fn handle_invite_to_handle(&mut self, request: Message, arrival: &Arrival, back: &Hop, callee: Callee, now: Now) {
        // As if the handle had been its Contact, also where our Path brought it here.
        let routes = request.routes().count();
        let uri = format!("sip:{}@{}", callee.handle, self.policy.domain);
        let change = Rewrite { request_uri: Some(uri.as_bytes()), routes_dropped: routes, ..Rewrite::default() };
        let request = if routes == 0 { request } else { rewritten(&request, &change).unwrap_or(request) };
        let Callee { instance, handle } = callee;
        let tenant = self.pass.push(instance).and_then(|(tenant, _)| self.policy.tenant(tenant));
        let clear = tenant.is_some_and(|tenant| tenant.caller_in_push == CallerInPush::Clear);
        let called = calls::Callee {
            instance,
            platform_ios: false,
            hand_over: CallHandOver::Relay,
            caller: if clear { caller_of(&request) } else { None },
            device: self.pass.device(instance, now.boot).cloned(),
            returns_until: self.pass.returns_until(instance),
        };
        let incoming = Incoming {
            request,
            arrival,
            back: back.clone(),
            capability: handle,
            early: self.policy.early_response,
            callees: vec![called],
            draining: self.draining != Drain::No,
        };
        let (calls, mut desk) = self.for_calls();
        calls.handle_invite(incoming, &mut desk, now.boot);
    }

    /// A request inside a call: it waits where its phone sleeps and wants to be woken for it, or has just lost its
    /// connection. Given back if not.
    pub(super) fn let_wait(
        &mut self,
        id: InstanceId,
        request: Message,
        arrival: &Arrival,
        back: &Hop,
        now: Now,
    ) -> Option<Message> {
        let to_device = self.calls.inside(&request).is_some_and(|inside| inside.is_to_device(&self.calls, &request));
        let returns = self.edge.returns_until(id).filter(|until| *until > now.boot);
        let waits = returns.is_some() || self.pass.must_wait(id, &request, now.boot);
        if !to_device || !waits || !self.pass.may_wait(id, &request, returns) {
            return Some(request);
        }
        let waiting = Waiting { instance: id, request, arrival: arrival.clone(), back: back.clone() };
        let (pass, mut desk) = self.for_pass();
        pass.let_wait(waiting, returns, &mut desk, now.boot);
        None
    }

    /// The caller gives up a request that waits: it is answered first, and its CANCEL after it.
    pub(super) fn cancel_waiting(&mut self, cancel: &Message, now: Now) {
        if let Some(waiting) = self.pass.take_cancelled(cancel) {
            self.go_on(waiting, now);
        }
    }

    /// A request inside a call has waited long enough.
    fn go_on(&mut self, waiting: Waiting, now: Now) {
        let Waiting { instance, request, arrival, back } = waiting;
        let Some(inside) = self.calls.inside(&request) else { return };
        let device = self.device_in_call(instance, now.boot);
        let trunk = self.pass.target(instance).cloned();
        let passing = Passing { request, arrival: &arrival, back, device, trunk };
        let (calls, mut desk) = self.for_calls();
        calls.handle_inside(&inside, passing, &mut desk, now.boot);
    }

    /// Where requests inside the calls of an instance, or of a phone that registers through us, go.
    pub(super) fn device_in_call(&self, id: InstanceId, now: Instant) -> Option<Device> {
        self.edge.device(id).or_else(|| self.pass.device_in_call(id, now)).cloned()
    }

    pub(super) fn for_pass(&mut self) -> (&mut Pass, pass::Desk<'_>) {
        let Self { shard, policy, random, tags, pass, draining, .. } = self;
        (pass, pass::Desk { draining: *draining != Drain::No, shard: *shard, policy, random, tags })
    }

    pub(super) fn route_pass(&mut self, now: Now) -> bool {
        use pass::Event;
        let Some(event) = self.pass.poll_event() else { return false };
        match event {
            Event::Send(hop, bytes) => self.outputs.push_back(Effect::Send(hop, bytes)),
            Event::Locate(query, uri) => self.emit(Output::Locate(query, uri)),
            Event::Registrar(address, span) => self.emit(Output::Registrar(address, span)),
            Event::Device(peer, span) => self.emit(Output::Device(peer, span)),
            Event::Attached(id) => {
                let Some(device) = self.pass.device(id, now.boot).cloned() else { return true };
                let (calls, mut desk) = self.for_calls();
                calls.handle_attached(id, &device, &mut desk, now.boot);
                let (texts, mut desk) = self.for_texts();
                texts.handle_attached(id, &device, &mut desk, now.boot);
                self.wakes.handle_attached(id);
            }
            Event::Detached(id) => {
                let (calls, mut desk) = self.for_calls();
                calls.handle_detached(id, &mut desk, now.boot);
                let (texts, mut desk) = self.for_texts();
                texts.handle_detached(id, &mut desk, now.boot);
            }
            Event::Ended(id) => self.end_pass(id, now),
            Event::Refresh(id, until) => self.send_refresh(id, until, now),
            Event::Release(waiting) => self.go_on(*waiting, now),
        }
        true
    }

    fn end_pass(&mut self, id: InstanceId, now: Now) {
        let (calls, mut desk) = self.for_calls();
        calls.end_instance(id, &mut desk, now.boot);
        let (texts, mut desk) = self.for_texts();
        texts.forget(id, &mut desk, now.boot);
        self.wakes.forget(id);
        if !self.calls.has_dialogs(id) {
            self.pass.release(id);
        }
    }

    /// The process ends: each phone is told to register anew, and whoever waits for it is answered.
    pub(super) fn end_passes(&mut self, now: Now) {
        for id in self.pass.all() {
            self.send_refresh(id, now.boot + FAREWELL, now);
            self.pass.end(id);
        }
    }

    fn send_refresh(&mut self, id: InstanceId, until: Instant, now: Now) {
        let kind = WakeKind::Refresh;
        let reason = Reason { until: Some(until), ..Reason::plain(kind, WakeDetail::None) };
        // No target for it is no fault: the registration ends by itself.
        let _ = self.send_wake(id, reason, now);
    }
}
