//! Addresses, numbers, tokens and names in logs: a keyed hash in their place.
//!
//! Equal values look equal within a day of one process, so that log lines can be told to belong together. Each day has a
//! key of its own, which is random, never leaves memory and is destroyed after seven days: until then who knows an id can
//! find its lines, afterwards nobody can, whatever they know. A plain hash of a phone number can be undone by trying them
//! all.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::{self, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::{hmac, rand};
use zeroize::Zeroizing;

use crate::clock::{self, Now, WallTime};

const DAY: Duration = Duration::from_hours(24);
/// How long a day's key is kept, counted from its first use. Compiled in: a retention that cannot be raised.
const KEPT: Duration = Duration::from_hours(7 * 24);
/// Bytes of the hash that are shown.
const SHOWN: usize = 6;

/// Shows a keyed hash of what is inside.
pub struct Redacted<T>(pub T);

impl<T: fmt::Display> fmt::Display for Redacted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match with_keys(|keys, now| keys.name_today(&self.0, now)) {
            Some(name) => f.write_str(&name),
            None => f.write_char('…'),
        }
    }
}

impl<T: fmt::Display> fmt::Debug for Redacted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How a value was named in the log on each day whose key is still there, oldest first, with the day's date in UTC.
#[must_use]
pub fn log_names(value: &str) -> Vec<(String, String)> {
    with_keys(|keys, _| keys.names(&value))
}

/// Destroys the keys whose time is over; to be called every now and then, as no line need be written for that.
pub fn forget_old_log_keys() {
    with_keys(|_, _| ());
}

fn with_keys<R>(act: impl FnOnce(&mut Keys, Now) -> R) -> R {
    static KEYS: Mutex<Keys> = Mutex::new(Keys { by_day: BTreeMap::new() });
    let mut keys = KEYS.lock().unwrap_or_else(PoisonError::into_inner);
    let now = clock::now();
    keys.forget_old(now);
    act(&mut keys, now)
}

/// The keys of the last days, by the number of the day since 1970 (UTC).
struct Keys {
    by_day: BTreeMap<u64, Key>,
}

/// A day's key. Overwritten when dropped.
struct Key {
    seed: Zeroizing<[u8; 32]>,
    /// By both clocks: whichever says first that its time is over is believed.
    made: Now,
}

impl Keys {
    fn name_today(&mut self, value: &dyn fmt::Display, now: Now) -> Option<String> {
        let day = day_of(now.wall);
        let key = match self.by_day.entry(day) {
            Entry::Occupied(key) => key.into_mut(),
            Entry::Vacant(place) => place.insert(Key::new(now)?),
        };
        Some(key.name(value))
    }

    fn names(&self, value: &dyn fmt::Display) -> Vec<(String, String)> {
        let date = |day: u64| WallTime::from_unix_millis(0) + DAY * u32::try_from(day).unwrap_or(u32::MAX);
        let name = |(day, key): (&u64, &Key)| {
            let mut date = date(*day).rfc3339();
            date.truncate("2026-11-24".len());
            (date, key.name(value))
        };
        self.by_day.iter().map(name).collect()
    }

    fn forget_old(&mut self, now: Now) {
        self.by_day.retain(|_, key| !key.is_over(now));
    }
}

impl Key {
    /// `None` where the operating system has no randomness.
    fn new(now: Now) -> Option<Self> {
        let mut seed = Zeroizing::new([0; 32]);
        rand::fill(&mut *seed).ok()?;
        Some(Self { seed, made: now })
    }

    fn name(&self, value: &dyn fmt::Display) -> String {
        let mut text = Zeroizing::new(String::new());
        write!(text, "{value}").expect("a String never refuses");
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &*self.seed), text.as_bytes());
        tag.as_ref()[..SHOWN].iter().fold(String::from("~"), |mut name, byte| {
            write!(name, "{byte:02x}").expect("a String never refuses");
            name
        })
    }

    /// Neither a suspended machine nor a wall clock that was set back makes a key live longer.
    fn is_over(&self, now: Now) -> bool {
        now.boot.saturating_since(self.made.boot) >= KEPT || now.wall >= self.made.wall + KEPT
    }
}

fn day_of(wall: WallTime) -> u64 {
    wall.unix_seconds() / DAY.as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Instant;

    #[test]
    fn a_redacted_value_does_not_show() {
        let shown = format!("{} {:?}", Redacted("sip:alice@example.com"), Redacted("sip:alice@example.com"));
        assert!(!shown.contains("alice") && !shown.contains("example"), "{shown}");
    }

    #[test]
    fn what_is_written_today_can_be_found_by_who_knows_the_value() {
        let shown = Redacted("an-instance").to_string();
        assert!(log_names("an-instance").iter().any(|(_, name)| *name == shown));
        assert!(log_names("another").iter().all(|(_, name)| *name != shown));
    }

    #[test]
    fn equal_values_look_equal_on_one_day_and_no_other() {
        let mut keys = Keys { by_day: BTreeMap::new() };
        let mut name = |value: &str, after: Duration| keys.name_today(&value, at(after, after)).expect("randomness");
        let first = name("+15550100", Duration::ZERO);

        assert_eq!(name("+15550100", DAY / 2), first);
        assert_ne!(name("+15550101", DAY / 2), first);
        assert_ne!(name("+15550100", DAY), first);
        assert_eq!(first.len(), 1 + 2 * SHOWN);
        let dates: Vec<String> = keys.names(&"+15550100").into_iter().map(|(date, _)| date).collect();
        assert_eq!(dates, ["1970-01-02", "1970-01-03"]);
    }

    #[test]
    fn a_key_is_destroyed_after_seven_days_by_either_clock() {
        let short = KEPT - Duration::from_secs(1);
        for (boot, wall, kept) in [(short, short, 1), (KEPT, Duration::ZERO, 0), (Duration::ZERO, KEPT, 0)] {
            let mut keys = Keys { by_day: BTreeMap::new() };
            keys.name_today(&"x", at(Duration::ZERO, Duration::ZERO)).expect("randomness");
            keys.forget_old(at(boot, wall));
            assert_eq!(keys.by_day.len(), kept, "{boot:?} {wall:?}");
        }
    }

    /// A moment this long after the second day since 1970 began, on both clocks.
    fn at(boot: Duration, wall: Duration) -> Now {
        Now { boot: Instant::from_nanos(1) + boot, wall: WallTime::from_unix_millis(0) + DAY + wall }
    }
}
