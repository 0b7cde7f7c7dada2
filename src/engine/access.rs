//! Access: everything that is held about an instance, put together from all rooms. Secrets appear only as present or absent.

use std::collections::BTreeSet;

use super::engine::Engine;
use super::ids::{CallUuid, InstanceId, ReplyTo};
use super::input::TokenHash;
use super::instance::Instance;
use super::output::{Answer, DataView, HeldView};
use crate::clock::Now;
use crate::sip::auth::text_of;
use crate::sip::push_params;
use crate::sip::uri::Uri;
use crate::vault::Ha1Algorithm;

impl Engine {
    /// `GET /v1/instances/{id}/data`.
    pub(super) fn data(&mut self, id: InstanceId, token: &TokenHash, reply: ReplyTo, now: Now) {
        let Some(()) = self.check(id, token, reply) else { return };
        let Some(view) = self.instance_view(id, now) else { return };
        let Some(instance) = self.leases.get(id) else { return };
        let held = self.held_view(instance);
        let secrets = self.bindings.copy_of(instance.binding, id).map(|credential| {
            let (password, ha1) = self.vault.holds(credential);
            (password, ha1.map(|(realm, algorithm)| (text_of(realm).into_owned(), algorithm_name(algorithm))).collect())
        });
        let (password, ha1) = secrets.unwrap_or_default();
        let data = DataView {
            view,
            tenant: instance.tenant.clone(),
            device: instance.device.clone(),
            platform: instance.platform.clone(),
            account: instance.account.clone(),
            preferences: instance.preferences,
            password,
            ha1,
            push: instance
                .push
                .iter()
                .map(|target| (target.purpose, target.provider, target.app.clone(), target.token.form()))
                .collect(),
            caller_key: instance.caller_key,
            handed_over: instance.handed_over,
            held,
        };
        self.reply(reply, Answer::Data(Box::new(data)));
    }

    fn held_view(&self, instance: &Instance) -> HeldView {
        let id = instance.id;
        let calls: BTreeSet<CallUuid> = self.calls.uuids(id).into_iter().chain(self.stories.calls_of(id)).collect();
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let device = self.edge.device(id);
        HeldView {
            registered_at: self.bindings.bound_at(instance.binding),
            lease: instance.lease,
            targets_since: instance.push_since,
            pushes_sent: self.wakes.counts(id),
            restricted_since: instance.restricted,
            sharing: count(self.leases.members(instance.binding).count().saturating_sub(1)),
            attached_from: device.map(|it| (it.peer, without_push_token(&it.contact))),
            texts_waiting: count(self.texts.waiting(id)),
            mailbox: self.mailboxes.view(id),
            calls: calls.into_iter().filter_map(|call| Some((call, self.call_view(id, call)?))).collect(),
            pushes_under_way: count(self.wakes.under_way(id)),
            test: self.wakes.last_test(id),
            trace: self.traces.consent(id),
        }
    }
}

/// A Contact as its device gave it, but for the push token it may bear (RFC 8599): that is told as present alone.
fn without_push_token(contact: &[u8]) -> String {
    let bare = Uri::parse(contact).map(|uri| push_params::stripped_uri(&uri, false));
    String::from_utf8_lossy(&bare.unwrap_or_default()).into_owned()
}

fn algorithm_name(algorithm: Ha1Algorithm) -> &'static str {
    match algorithm {
        Ha1Algorithm::Md5 => "MD5",
        Ha1Algorithm::Sha256 => "SHA-256",
        Ha1Algorithm::Sha512256 => "SHA-512-256",
    }
}
