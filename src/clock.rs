//! Time, read in one place.
//!
//! Timers run on the boot clock (`CLOCK_BOOTTIME`), which goes on while the machine is suspended; dates come from the
//! wall clock. Everything above receives a [`Now`] and never asks by itself, so that a simulation can jump.

use std::ops::Add;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// How long a test with real sockets waits for what must happen. It ends a hang on a loaded machine, and measures nothing.
#[cfg(test)]
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A moment on the boot clock, in nanoseconds since the machine started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The moment `nanoseconds` after boot.
    #[must_use]
    pub const fn from_nanos(nanoseconds: u64) -> Self {
        Self(nanoseconds)
    }

    /// Nanoseconds since boot.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long ago `earlier` was; zero if it lies ahead.
    #[must_use]
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// A date: milliseconds since the Unix epoch, by the wall clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallTime(u64);

impl WallTime {
    /// The date `milliseconds` after the Unix epoch.
    #[must_use]
    pub const fn from_unix_millis(milliseconds: u64) -> Self {
        Self(milliseconds)
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn unix_millis(self) -> u64 {
        self.0
    }

    /// Whole seconds since the Unix epoch.
    #[must_use]
    pub const fn unix_seconds(self) -> u64 {
        self.0 / 1000
    }

    /// The date as RFC 3339 text in UTC, to the second: `2026-11-24T20:00:00Z`.
    #[must_use]
    pub fn rfc3339(self) -> String {
        let date = std::time::UNIX_EPOCH + Duration::from_secs(self.unix_seconds());
        humantime::format_rfc3339_seconds(date).to_string()
    }
}

impl Add<Duration> for WallTime {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// For timers.
    pub boot: Instant,
    /// For dates that people and other machines see.
    pub wall: WallTime,
}

/// Reads both clocks. Logic never calls this; the shell does, and hands the reading down.
#[must_use]
pub fn now() -> Now {
    let boot = clock_gettime(ClockId::Boottime);
    let wall = clock_gettime(ClockId::Realtime);
    let whole = |seconds: i64| u64::try_from(seconds).unwrap_or(0);
    Now {
        boot: Instant(whole(boot.tv_sec) * 1_000_000_000 + whole(boot.tv_nsec)),
        wall: WallTime(whole(wall.tv_sec) * 1000 + whole(wall.tv_nsec) / 1_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_rfc_3339_in_utc() {
        assert_eq!(WallTime::from_unix_millis(1_795_550_400_999).rfc3339(), "2026-11-24T20:00:00Z");
    }

    #[test]
    fn the_boot_clock_does_not_go_back() {
        let (first, second) = (now(), now());
        assert!(second.boot >= first.boot);
    }
}
