//! What no log line, metric or record may show, and the search for it.
//!
//! Every daemon of these tests logs at `trace`, and when it has ended its log, metrics and records are searched for the people,
//! numbers, tokens, passwords and addresses it was given: so every path that any test drives is a canary's path.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// What stands in SIP messages and URIs and in nothing that we write, with the people and passwords that all tests share.
const NEVER: [&str; 13] = [
    "sip:",
    "sips:",
    "z9hg4bk",
    "application/sdp",
    "authorization",
    "bearer",
    "alice",
    "bob@",
    "carol",
    "dave",
    "pbx.test",
    crate::kamailio::PASSWORD,
    "app-key",
];

/// A stem that the canary test puts into everything it sends.
pub(crate) const STEM: &str = "xyzzyq";

/// From this length on a value is found by chance nowhere.
const LONG: usize = 8;

/// The shortest base64 of a hash: 32 bytes, less what the alphabet of a word may cut off.
const DIGEST: usize = 40;

/// What one daemon was given.
pub(crate) struct Canaries {
    planted: Mutex<BTreeSet<String>>,
    /// The sockets that the operator named: they may be shown.
    own: Vec<String>,
}

impl Canaries {
    /// For a daemon whose own and configured sockets are these.
    pub(crate) fn new(own: impl IntoIterator<Item = u16>) -> Self {
        let own = own.into_iter().map(|port| format!("127.0.0.1:{port}")).collect();
        Self { planted: Mutex::default(), own }
    }

    /// The daemon is about to learn this.
    pub(crate) fn plant(&self, value: &str) {
        assert!(value.len() >= 4, "{value} would be found by chance");
        self.planted.lock().unwrap_or_else(PoisonError::into_inner).insert(value.to_ascii_lowercase());
    }

    /// Fails the test if `text`, which the daemon wrote as `what`, shows somebody.
    #[track_caller]
    pub(crate) fn assert_none_in(&self, what: &str, text: &str) {
        let found = self.found(text);
        assert!(found.is_empty(), "{what} shows {found:#?}");
    }

    /// The lines that show somebody, with what they show.
    fn found(&self, text: &str) -> Vec<String> {
        let planted = self.planted.lock().unwrap_or_else(PoisonError::into_inner);
        let forms: Vec<String> =
            planted.iter().map(String::as_str).chain(NEVER).chain([STEM]).flat_map(forms).collect();
        let mut found = Vec::new();
        for line in text.lines() {
            let lower = line.to_ascii_lowercase();
            let words = without_digests(line).to_ascii_lowercase();
            let base64 = forms.iter().filter(|form| form.bytes().any(|byte| byte.is_ascii_uppercase()));
            let shown = base64.filter(|form| line.contains(form.as_str()));
            let is_in = |form: &&String| if form.len() < LONG { &words } else { &lower }.contains(form.as_str());
            let shown = shown.chain(forms.iter().filter(is_in));
            found.extend(shown.map(|form| format!("{form:?}: {line}")));
            found.extend(self.addresses(line).map(|address| format!("the address {address}: {line}")));
        }
        found
    }

    /// Addresses with ports that are neither ours nor the operator's.
    fn addresses<'l>(&'l self, line: &'l str) -> impl Iterator<Item = &'l str> + use<'l> {
        let words = line.split(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | ':')));
        words.filter(|word| {
            let is_address = word.parse::<std::net::SocketAddr>().is_ok();
            is_address && !self.own.iter().any(|own| own == word)
        })
    }
}

/// A line without its signatures and hashes, in which a short name would be found by chance.
fn without_digests(line: &str) -> String {
    let is_base64 = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=');
    let is_digest = |word: &&str| {
        let has = |test: fn(&u8) -> bool| word.as_bytes().iter().any(test);
        word.len() >= DIGEST && has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase) && has(u8::is_ascii_digit)
    };
    let digests: Vec<&str> = line.split(|c| !is_base64(c)).filter(is_digest).collect();
    digests.into_iter().fold(line.to_owned(), |line, digest| line.replace(digest, ""))
}

/// A value as it stands, and in the encodings it could slip out in.
fn forms(value: &str) -> Vec<String> {
    let hex = value.bytes().map(|byte| format!("{byte:02x}")).collect();
    let mut forms = vec![value.to_ascii_lowercase(), hex];
    // Base64 shows the same text in three ways, as it begins at one of three places; the ends depend on the neighbours.
    for shift in 0..3_usize {
        let mut bytes = vec![0; shift];
        bytes.extend_from_slice(value.as_bytes());
        let text = STANDARD.encode(&bytes);
        let (first, last) = ((shift * 8).div_ceil(6), bytes.len() * 8 / 6);
        // Shorter ones would be found by chance.
        if last - first >= 8 {
            forms.push(text[first..last].to_owned());
        }
    }
    forms
}

#[test]
fn the_search_finds_what_it_looks_for_in_every_form() {
    let canaries = Canaries::new([5060]);
    canaries.plant("grace-hopper");
    let shows = |line: &str| !canaries.found(line).is_empty();

    for form in ["grace-hopper", "a Grace-Hopper", "67726163652d686f70706572"] {
        assert!(shows(form), "{form}");
    }
    for before in ["", "x", "xy", "xyz"] {
        let text = STANDARD.encode(format!("{before}grace-hopper and more"));
        assert!(shows(&text), "{text}");
    }
    canaries.plant("dave");
    assert!(shows("to dave") && shows("DAVE/voicemail"));
    assert!(!shows("cHNyZXZlaWxsZQ2hydaVEcfL9CXxR2iTW3499hchYdaVERgt/RcX4tI9uZDr="), "a signature");
    assert!(shows("peer=127.0.0.1:4711") && !shows("address=127.0.0.1:5060") && !shows("at 12:30:01.5 all is well"));
}
