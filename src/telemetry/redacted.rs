//! Addresses, numbers, tokens and names in logs: a keyed hash in their place.
//!
//! Equal values look equal within a day of one process, so that log lines can be told to belong together. The key is
//! random and never leaves memory: a plain hash of a phone number can be undone by trying them all.

use std::fmt::{self, Write as _};
use std::sync::OnceLock;

use aws_lc_rs::{hmac, rand};
use zeroize::Zeroizing;

use crate::clock;

const DAY_SECONDS: u64 = 24 * 3600;
/// Bytes of the hash that are shown.
const SHOWN: usize = 6;

/// Shows a keyed hash of what is inside.
pub struct Redacted<T>(pub T);

impl<T: fmt::Display> fmt::Display for Redacted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hash(&self.0, clock::now().wall.unix_seconds() / DAY_SECONDS, f)
    }
}

impl<T: fmt::Display> fmt::Debug for Redacted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn write_hash(value: &dyn fmt::Display, day: u64, f: &mut dyn fmt::Write) -> fmt::Result {
    let Some(key) = key() else { return f.write_char('…') };
    let mut text = Zeroizing::new(String::new());
    write!(text, "{value}")?;
    let mut context = hmac::Context::with_key(key);
    context.update(&day.to_be_bytes());
    context.update(text.as_bytes());
    f.write_char('~')?;
    for byte in &context.sign().as_ref()[..SHOWN] {
        write!(f, "{byte:02x}")?;
    }
    Ok(())
}

/// The key of this process; `None` where the operating system had no randomness.
fn key() -> Option<&'static hmac::Key> {
    static KEY: OnceLock<Option<hmac::Key>> = OnceLock::new();
    let make = || {
        let mut seed = Zeroizing::new([0; 32]);
        rand::fill(&mut *seed).ok()?;
        Some(hmac::Key::new(hmac::HMAC_SHA256, &*seed))
    };
    KEY.get_or_init(make).as_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redacted_value_does_not_show() {
        let shown = format!("{} {:?}", Redacted("sip:alice@example.com"), Redacted("sip:alice@example.com"));
        assert!(!shown.contains("alice") && !shown.contains("example"), "{shown}");
    }

    #[test]
    fn equal_values_look_equal_on_one_day_and_no_other() {
        let hash = |value: &str, day: u64| {
            let mut text = String::new();
            write_hash(&value, day, &mut text).expect("a String takes everything");
            text
        };
        assert_eq!(hash("+15550100", 1), hash("+15550100", 1));
        assert_ne!(hash("+15550100", 1), hash("+15550100", 2));
        assert_ne!(hash("+15550100", 1), hash("+15550101", 1));
        assert_eq!(hash("+15550100", 1).len(), 1 + 2 * SHOWN);
    }
}
