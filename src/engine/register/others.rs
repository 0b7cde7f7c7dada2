//! Other contacts under the same address of record: what a registrar told of them, which it dropped, and whose place we
//! took.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use crate::clock::Instant;
use crate::sip::Message;
use crate::sip::address::Address;
use crate::sip::outbound;
use crate::sip::registration::{self, OwnContact};

/// Contacts watched for one binding; further ones are counted as present only.
const WATCHED_MAX: usize = 16;
/// Contacts remembered as other people's for one binding. When there are more, none that is listed in the place of ours is taken
/// for ours any more.
const SEEN_MAX: usize = 64;
/// Contacts whose place is taken for one binding; further ones stay where they are.
const REPLACED_MAX: usize = 4;
/// Longest contact URI whose place is taken: it stands in our REGISTER twice.
const URI_BYTES_MAX: usize = 512;

/// What we know of them.
#[derive(Clone, Default)]
pub(crate) struct Others {
    /// Ours takes their place (RFC 3261 §10.2.2) and gives it back when it ends.
    takeover: Option<Takeover>,
    /// Their URIs' hashes, and when they lapse by themselves.
    watched: Vec<(u64, Instant)>,
    /// The hashes of all that were ever listed as other people's.
    seen: Vec<u64>,
    /// The hash of the one that is ours under another URI.
    rewritten: Option<u64>,
    hasher: RandomState,
    listed: u32,
    dropped: u32,
}

#[derive(Clone, Default)]
struct Takeover {
    stage: Stage,
    replaced: Vec<Replaced>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// The registrar has to be asked who is there.
    #[default]
    Asking,
    /// They are removed by the request that registers us.
    Taking,
    /// The place is ours.
    Taken,
}

/// A contact whose place we took.
#[derive(Clone)]
struct Replaced {
    uri: String,
    instance: Option<String>,
    until: Instant,
}

/// Counts as the app may know them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) other: u32,
    pub(crate) dropped: u32,
    pub(crate) replaced: u32,
}

impl Others {
    /// Whether ours is to take their place, from the next REGISTER on.
    pub(crate) fn set_takeover(&mut self, wanted: bool) {
        if wanted != self.takeover.is_some() {
            self.takeover = wanted.then(Takeover::default);
        }
    }

    /// A registration that begins anew begins with a look at who is there.
    pub(crate) fn begin_anew(&mut self) {
        self.watched.clear();
        (self.listed, self.dropped) = (0, 0);
        if let Some(takeover) = &mut self.takeover {
            *takeover = Takeover::default();
        }
    }

    pub(super) fn wants_query(&self) -> bool {
        self.takeover.as_ref().is_some_and(|takeover| takeover.stage == Stage::Asking)
    }

    /// The answer to the query; `None` where the registrar does not answer such.
    pub(super) fn handle_query(&mut self, response: Option<&Message>, own: &OwnContact<'_>, now: Instant) {
        let Some(takeover) = &mut self.takeover else { return };
        takeover.stage = Stage::Taking;
        let Some(response) = response else { return };
        takeover.replaced = registration::others(response, own)
            .filter_map(|(contact, remaining)| Replaced::of(&contact, now + remaining))
            .take(REPLACED_MAX)
            .collect();
        self.watch(response, own, now);
    }

    /// The 200 to our registration: who is there beside us, and who is not any more.
    pub(super) fn handle_granted(&mut self, response: &Message, own: &OwnContact<'_>, now: Instant) {
        let former = std::mem::take(&mut self.watched);
        self.watch(response, own, now);
        let gone = |(hash, until): &&(u64, Instant)| *until > now && !self.watched.iter().any(|(it, _)| it == hash);
        let ours: Vec<u64> = match &mut self.takeover {
            Some(takeover) => {
                let taking = std::mem::replace(&mut takeover.stage, Stage::Taken) == Stage::Taking;
                let replaced = takeover.replaced.iter().filter(|_| taking);
                replaced.map(|it| self.hasher.hash_one(it.uri.as_bytes())).collect()
            }
            None => Vec::new(),
        };
        let dropped = former.iter().filter(gone).filter(|(hash, _)| !ours.contains(hash)).count();
        self.dropped = self.dropped.saturating_add(u32::try_from(dropped).unwrap_or(u32::MAX));
    }

    /// A 200 without our Contact: those it lists are other people's for good.
    pub(super) fn handle_ungranted(&mut self, response: &Message, own: &OwnContact<'_>) {
        for (contact, _) in registration::others(response, own) {
            self.remember(self.hash(&contact));
        }
    }

    /// Ours is listed under the URI that was sent.
    pub(super) fn forget_rewritten(&mut self) {
        self.rewritten = None;
    }

    /// Takes a Contact that is listed in the place of ours for ours. `false`: it was seen beside ours, or ours takes the place of
    /// others, so that it may be one of them.
    pub(super) fn take_for_ours(&mut self, contact: &Address<'_>) -> bool {
        let hash = self.hash(contact);
        if self.takeover.is_some() || self.seen.len() >= SEEN_MAX || self.seen.contains(&hash) {
            return false;
        }
        self.rewritten = Some(hash);
        true
    }

    /// What stands beside our Contact in a REGISTER that asks for `expires`: those we remove, or those whose place we give
    /// back.
    pub(super) fn beside(&self, expires: Duration, now: Instant) -> String {
        let mut text = String::new();
        let Some(takeover) = &self.takeover else { return text };
        let leaving = expires.is_zero();
        let due = if leaving { takeover.stage == Stage::Taken } else { takeover.stage == Stage::Taking };
        for it in takeover.replaced.iter().filter(|it| due && it.until > now) {
            let seconds = if leaving { it.until.saturating_since(now).as_secs() } else { 0 };
            if leaving && seconds == 0 {
                continue;
            }
            text.push_str(", <");
            text.push_str(&it.uri);
            text.push('>');
            if let Some(instance) = &it.instance {
                text.push_str(&format!(";+sip.instance=\"<{instance}>\""));
            }
            text.push_str(&format!(";expires={seconds}"));
        }
        text
    }

    pub(crate) fn counts(&self) -> Counts {
        let replaced = self.takeover.as_ref().map_or(0, |takeover| match takeover.stage {
            Stage::Taken => takeover.replaced.len(),
            Stage::Asking | Stage::Taking => 0,
        });
        Counts { other: self.listed, dropped: self.dropped, replaced: u32::try_from(replaced).unwrap_or(u32::MAX) }
    }

    fn watch(&mut self, response: &Message, own: &OwnContact<'_>, now: Instant) {
        self.watched.clear();
        self.listed = 0;
        for (contact, remaining) in registration::others(response, own) {
            let hash = self.hash(&contact);
            if self.rewritten == Some(hash) {
                continue;
            }
            self.remember(hash);
            self.listed = self.listed.saturating_add(1);
            if self.watched.len() < WATCHED_MAX {
                self.watched.push((hash, now + remaining));
            }
        }
    }

    fn remember(&mut self, hash: u64) {
        let known = self.rewritten == Some(hash) || self.seen.contains(&hash);
        if !known && self.seen.len() < SEEN_MAX {
            self.seen.push(hash);
        }
    }

    fn hash(&self, contact: &Address<'_>) -> u64 {
        self.hasher.hash_one(contact.uri().raw())
    }
}

impl Replaced {
    /// `None` for what cannot be written into a request of ours as it stands.
    fn of(contact: &Address<'_>, until: Instant) -> Option<Self> {
        let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic() && !b"<>\"\\".contains(&byte));
        let uri = std::str::from_utf8(contact.uri().raw()).ok()?;
        let fits = uri.len() <= URI_BYTES_MAX && plain(uri) && contact.uri().is_sip();
        let instance = outbound::instance(contact).filter(|it| it.len() <= URI_BYTES_MAX && plain(it));
        fits.then(|| Self { uri: uri.to_owned(), instance: instance.map(str::to_owned), until })
    }
}
