//! Rectifications: what a device may change about its instance, all of it or nothing.
//!
//! Credentials for the same destination are tried before they replace anything. For another destination the former
//! secret is wiped first.

use std::time::Duration;

use super::hand_over::{Change, Kind};
use crate::clock::Now;
use crate::engine::account::Account;
use crate::engine::audit::LifeEvent;
use crate::engine::engine::{Effect, Engine};
use crate::engine::ids::{Capability, InstanceId, ReplyTo};
use crate::engine::input::{PushTarget, Rectification, TokenHash};
use crate::engine::output::{Answer, Refusal};
use crate::engine::register;
use crate::vault::Material;

impl Engine {
    pub(super) fn rectify(
        &mut self,
        id: InstanceId,
        token: &TokenHash,
        change: Rectification,
        reply: ReplyTo,
        now: Now,
    ) {
        let Some(()) = self.check(id, token, reply) else { return };
        let Rectification { push, account, material } = change;
        if self.hand_overs.concerns(id) {
            return self.reply(reply, Answer::Refused(Refusal::RateLimited { after: self.policy.register_wait }));
        }
        if let Some(Err(refusal)) = account.as_ref().map(|account| self.may_register(account)) {
            return self.reply(reply, Answer::Refused(refusal));
        }
        let Some(present) = self.leases.get(id).map(|instance| instance.account.clone()) else { return };
        let account = account.unwrap_or_else(|| present.clone());
        let moved = leads_elsewhere(&present, &account)
            || present.aor != account.aor
            || present.auth_username != account.auth_username;
        if moved && material.is_none() {
            let needed = "account: another destination or user needs the credentials again".to_owned();
            return self.reply(reply, Answer::Refused(Refusal::InvalidAccount(needed)));
        }
        match material {
            None => {
                self.retarget(id, push, now);
                self.leases.rectify(id, account);
                self.finish_rectify(id, reply, now);
            }
            Some(material) if moved => {
                self.retarget(id, push, now);
                self.move_binding(id, account, material, now);
                self.wait_for(id, reply, Kind::Rectify, now);
            }
            Some(material) => {
                let username = account.auth_username.clone();
                let credential = self.vault.admit(material);
                let change = Change::Rectify(Box::new(account), push);
                self.begin_trial(id, credential, &username, change, reply, now);
            }
        }
    }

    /// Another destination: the secret for the former one is wiped before anything else happens. The registrar is told
    /// with the nonce at hand; a challenge to that finds nobody who could answer it.
    fn move_binding(&mut self, id: InstanceId, account: Account, material: Material, now: Now) {
        if let Some(binding) = self.bindings.take(id) {
            let mut identity = binding.identity;
            let mut desk = register::Desk {
                shard: self.shard,
                policy: &self.policy,
                random: &mut self.random,
                vault: &mut self.vault,
                tally: &mut self.tally,
            };
            if let Some(target) = binding.bound_at {
                let terms = register::Terms {
                    expires: Duration::ZERO,
                    expires_max: Duration::ZERO,
                    refusals_max: 1,
                    datagrams_max: Some(1),
                };
                let hop = target.hop.clone();
                let (_, request) = register::Exchange::start(&mut identity, target, terms, &mut desk, now.boot);
                self.outputs.push_back(Effect::Send(hop, request));
            }
            let _ = self.vault.wipe(identity.credential);
        }
        let capability = Capability::mint(self.shard, self.random.bytes());
        self.leases.replace_capability(id, capability);
        self.open_binding(id, capability, &account, material, now);
        self.leases.rectify(id, account);
    }

    pub(super) fn retarget(&mut self, id: InstanceId, push: Option<Vec<PushTarget>>, now: Now) {
        if let Some(push) = push {
            self.leases.retarget(id, push, now);
        }
    }

    pub(super) fn finish_rectify(&mut self, id: InstanceId, reply: ReplyTo, now: Now) {
        self.adjust_binding(id, now);
        self.record(id, LifeEvent::Rectified, now);
        self.reply_instance(id, reply, now);
    }
}

/// Whether REGISTERs of the two accounts go to different places.
pub(super) fn leads_elsewhere(a: &Account, b: &Account) -> bool {
    a.registrar != b.registrar || a.outbound_proxy != b.outbound_proxy || a.tls_spki_sha256 != b.tls_spki_sha256
}
