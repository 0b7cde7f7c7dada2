//! One destination in its home shard: what wants a turn there, whether it answers, and what is held there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::budget::{Budget, EXCHANGE_COST};
use super::load::{Load, Rates};
use crate::clock::Instant;
use crate::engine::ids::ShardId;
use crate::engine::permits::{Class, PermitOutcome, Used, Want};
use crate::engine::random::Random;
use crate::engine::schedule::{BACKOFF_MAX, backoff};

/// Exchanges under way at a destination that never answered: it may be somebody's victim.
pub(super) const UNPROVEN_OUTSTANDING_MAX: u32 = 3;
/// After this long without use a destination is forgotten; it then has to prove itself again.
const IDLE_MAX: Duration = Duration::from_secs(24 * 3600);
/// One that never answered is forgotten sooner, so that naming many of them does not fill the table.
const IDLE_UNPROVEN_MAX: Duration = Duration::from_secs(3600);
/// An answer that came no longer than this after a request was sent may be older than the silence: it was on its way, or
/// answered a request that was sent before.
const ANSWER_SLACK: Duration = Duration::from_secs(2);
/// Every tenth turn goes to a class that is not the most urgent one, so that none waits for ever.
const TRICKLE: u32 = 10;
/// When a binding that found no room asks again.
pub(super) const CROWDED_RETRY: Duration = Duration::from_secs(60);
/// How often an operator is warned that a destination is full.
const WARNED_AGAIN: Duration = Duration::from_secs(3600);

/// A destination whose home is here.
#[derive(Default)]
pub(super) struct Home {
    pub(super) proven: bool,
    /// How many of each kind want a turn, the most urgent first.
    wanted: BTreeMap<(Want, ShardId), u32>,
    pub(super) outstanding: u32,
    pub(super) budget: Budget,
    pub(super) load: Load,
    down: Option<Down>,
    /// When it last answered.
    answered: Option<Instant>,
    turns: u32,
    /// The tenant that had the last turn of a first registration.
    last_tenant: u16,
    warned: Option<Instant>,
}

struct Down {
    until: Instant,
    step: u32,
    probing: bool,
    /// It did not answer; else it asked for the pause itself.
    silent: bool,
    /// The shards that wait know of it.
    told: bool,
}

impl Home {
    pub(super) fn want(&mut self, want: Want, shard: ShardId) {
        *self.wanted.entry((want, shard)).or_default() += 1;
    }

    /// One of these that wait does not want it any more.
    pub(super) fn forgo(&mut self, want: Want, shard: ShardId) {
        if let Some(count) = self.wanted.get_mut(&(want, shard)) {
            *count -= 1;
            if *count == 0 {
                self.wanted.remove(&(want, shard));
            }
        }
    }

    /// Requests a second it may get.
    pub(super) fn rate(&self, rates: &Rates, draining: bool) -> u32 {
        if draining { rates.drain_rate } else { self.load.rate(rates) }
    }

    /// Takes one permit, or tells when to look again (`None`: when something comes).
    pub(super) fn permit(
        &mut self,
        rates: &Rates,
        draining: bool,
        now: Instant,
    ) -> Result<(Want, ShardId), Option<Instant>> {
        let Some((want, shard)) = self.next(draining) else { return Err(self.idle_look(now)) };
        // An un-REGISTER goes to an address that answered once, and waits for nothing but its turn.
        let removal = want.class == Class::Removal;
        if !removal {
            self.check_answers(want.class, now)?;
        }
        self.budget.take(EXCHANGE_COST, self.rate(rates, draining), now).map_err(Some)?;
        if !removal {
            if let Some(down) = &mut self.down {
                // A shard takes any permit for a sign of life.
                (down.probing, down.told) = (true, false);
            }
            self.outstanding += 1;
        }
        self.turns = self.turns.wrapping_add(1);
        if want.class == Class::First {
            self.last_tenant = want.tenant;
        }
        self.forgo(want, shard);
        Ok((want, shard))
    }

    /// Takes out first registrations that there is no room for.
    pub(super) fn turn_away(&mut self, rates: &Rates) -> Vec<(Want, ShardId, u32)> {
        let mut away = Vec::new();
        let mut tenant = Some(0);
        while let Some((next, _)) = tenant.and_then(|from| self.at_or_after(Class::First, from)) {
            tenant = next.tenant.checked_add(1);
            if self.load.is_full(next.tenant, rates) {
                while let Some(key) = self.at_or_after(Class::First, next.tenant)
                    && key.0.tenant == next.tenant
                {
                    let count = self.wanted.remove(&key).unwrap_or(0);
                    away.push((key.0, key.1, count));
                }
            }
        }
        away
    }

    /// Whether an operator is to be warned now that it is full.
    pub(super) fn warns(&mut self, now: Instant) -> bool {
        let due = self.warned.is_none_or(|at| now.saturating_since(at) >= WARNED_AGAIN);
        if due {
            self.warned = Some(now);
        }
        due
    }

    pub(super) fn settle(&mut self, used: Used, rate: u32, random: &mut Random, now: Instant) {
        let Used { class, outcome, requests } = used;
        let sent = u32::from(requests);
        if sent < EXCHANGE_COST {
            self.budget.refund(EXCHANGE_COST - sent, rate);
        } else {
            self.budget.charge(sent - EXCHANGE_COST, rate, now);
        }
        if class == Class::Removal {
            return;
        }
        self.outstanding = self.outstanding.saturating_sub(1);
        if class == Class::Refresh && outcome == PermitOutcome::Answered {
            self.load.learn(requests);
        }
        if matches!(outcome, PermitOutcome::Answered | PermitOutcome::RetryAfter(_)) {
            self.answered = Some(now);
        }
        match outcome {
            PermitOutcome::Answered => {
                self.proven = true;
                self.down = None;
            }
            PermitOutcome::RetryAfter(span) => {
                self.proven = true;
                let span = span.min(BACKOFF_MAX);
                self.down = Some(Down { until: now + span, step: 0, probing: false, silent: false, told: true });
            }
            // The accounts that are registered there go on, and find out by themselves if it is silent to all.
            PermitOutcome::SilentToNewcomer if !self.load.is_empty() => self.end_probe(),
            PermitOutcome::Silent(span) if self.has_answered_within(span, now) => self.end_probe(),
            PermitOutcome::Silent(_) | PermitOutcome::SilentToNewcomer => {
                let step = match &self.down {
                    Some(down) if down.probing => down.step + 1,
                    Some(_) => return,
                    None => 0,
                };
                let until = now + backoff(step, random);
                self.down = Some(Down { until, step, probing: false, silent: true, told: false });
            }
            PermitOutcome::Unused => self.end_probe(),
        }
    }

    /// Whether it answered others while a request went unanswered for so long: then it is silent to one account, not to all.
    fn has_answered_within(&self, span: Duration, now: Instant) -> bool {
        self.answered.is_some_and(|at| now.saturating_since(at) < span.saturating_sub(ANSWER_SLACK))
    }

    /// The exchange that was the probe told nothing: the next one is.
    fn end_probe(&mut self) {
        if let Some(down) = &mut self.down {
            down.probing = false;
        }
    }

    /// Whether it has answered nothing since it fell silent, the probe under way included.
    pub(super) fn is_silent(&self) -> bool {
        self.down.as_ref().is_some_and(|down| down.silent)
    }

    /// The shards that wait and have yet to be told that it is silent.
    pub(super) fn untold(&mut self) -> BTreeSet<ShardId> {
        let Some(down) = self.down.as_mut().filter(|down| down.silent && !down.told) else { return BTreeSet::new() };
        down.told = true;
        self.wanted.keys().map(|(_, shard)| *shard).collect()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.wanted.is_empty() && self.outstanding == 0 && self.load.is_empty()
    }

    /// Nothing wants anything of it, and nothing stands in the way any more.
    pub(super) fn is_forgettable(&self, now: Instant) -> bool {
        self.is_idle() && self.down.as_ref().is_none_or(|down| down.until <= now)
    }

    fn idle_look(&self, now: Instant) -> Option<Instant> {
        let from = self.down.as_ref().map_or(now, |down| down.until.max(now));
        self.is_idle().then(|| from + if self.proven { IDLE_MAX } else { IDLE_UNPROVEN_MAX })
    }

    /// Whether the destination's silence, or its own wish, stands in the way.
    fn check_answers(&self, class: Class, now: Instant) -> Result<(), Option<Instant>> {
        match &self.down {
            Some(down) if now < down.until => Err(Some(down.until)),
            // A registrar that leaves a SUBSCRIBE unanswered may be well.
            Some(down) if down.probing || class == Class::Subscription => Err(None),
            None if !self.proven && self.outstanding >= UNPROVEN_OUTSTANDING_MAX => Err(None),
            Some(_) | None => Ok(()),
        }
    }

    /// Which goes next.
    fn next(&self, draining: bool) -> Option<(Want, ShardId)> {
        let &(first, shard) = self.wanted.first_key_value()?.0;
        if draining {
            return (first.class == Class::Removal).then_some((first, shard));
        }
        if self.turns % TRICKLE == TRICKLE - 1 && self.proven && self.down.is_none() {
            let lower: Vec<Class> = Class::ALL
                .into_iter()
                .filter(|class| *class > first.class && self.at_or_after(*class, 0).is_some())
                .collect();
            let turn = usize::try_from(self.turns / TRICKLE).unwrap_or(0);
            if let Some(class) = lower.get(turn.checked_rem(lower.len()).unwrap_or(0)) {
                return self.first_of(*class);
            }
        }
        self.first_of(first.class)
    }

    /// The next of a class; tenants take turns.
    fn first_of(&self, class: Class) -> Option<(Want, ShardId)> {
        let next_tenant = self.last_tenant.checked_add(1).and_then(|tenant| self.at_or_after(class, tenant));
        next_tenant.or_else(|| self.at_or_after(class, 0))
    }

    fn at_or_after(&self, class: Class, tenant: u16) -> Option<(Want, ShardId)> {
        let from = (Want { class, tenant, due: 0 }, ShardId(0));
        self.wanted.range(from..).next().map(|(key, _)| *key).filter(|(want, _)| want.class == class)
    }
}
