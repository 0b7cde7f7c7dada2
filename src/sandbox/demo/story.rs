//! How the demo is told: lines for people, or JSON lines for programs.

use std::cell::RefCell;
use std::io::Write;
use std::time::Duration;

use serde_json::{Value, json};

use super::acts::Failure;
use crate::sandbox::caller::{Heard, Side};
use crate::sandbox::phone::handset::Deed;

/// Writes what happens. A reader that has gone away stops nothing.
///
/// Two sides of a call tell their own part, each a moment after it happened; the lines of an act are therefore written
/// together, in the order of their times.
pub(super) struct Story {
    out: RefCell<Box<dyn Write>>,
    json: bool,
    lines: RefCell<Vec<(Duration, String)>>,
}

/// One line.
pub(super) struct Entry<'a> {
    pub(super) step: &'static str,
    pub(super) call: Option<u32>,
    pub(super) who: &'a str,
    pub(super) event: &'static str,
    /// Since the call, or the act, began.
    pub(super) at: Duration,
    pub(super) words: String,
}

impl Story {
    pub(super) fn new(out: Box<dyn Write>, json: bool) -> Self {
        Self { out: RefCell::new(out), json, lines: RefCell::default() }
    }

    pub(super) fn opening(&self) {
        self.text(
            "Reveille keeps a softphone reachable while it sleeps.\n\
             In this process, over real sockets: the daemon itself; an office PBX; Bob, who calls; Alice's iPhone and her\n\
             Android tablet; Carol's Android phone; and stand-ins for the push services of Apple and Google that are as strict as these.",
        );
    }

    /// The heading of an act.
    pub(super) fn act(&self, number: u32, title: &str) {
        self.text(&format!("\n{number}. {title}"));
    }

    /// Words for people alone.
    pub(super) fn text(&self, words: &str) {
        if !self.json {
            self.write(words);
        }
    }

    pub(super) fn line(&self, entry: &Entry<'_>) {
        let milliseconds = entry.at.as_secs_f64() * 1000.0;
        if self.json {
            let at = (milliseconds * 10.0).round() / 10.0;
            let call = entry.call.map_or(Value::Null, Value::from);
            let line = json!({ "step": entry.step, "call": call, "event": entry.event, "at_ms": at, "ok": true });
            self.lines.borrow_mut().push((entry.at, line.to_string()));
        } else {
            let line = format!("{milliseconds:8.0} ms  {:<14} {}", entry.who, entry.words);
            self.lines.borrow_mut().push((entry.at, line));
        }
    }

    /// The act is over: writes its lines.
    pub(super) fn close_act(&self) {
        let mut lines = self.lines.take();
        lines.sort_by_key(|(at, _)| *at);
        lines.iter().for_each(|(_, line)| self.write(line));
    }

    pub(super) fn failure(&self, failure: &Failure) {
        self.close_act();
        let Failure { step, sentence } = failure;
        if self.json {
            let line = json!({ "step": step, "call": null, "event": "failed", "at_ms": null, "ok": false });
            self.write(&line.to_string());
            self.write(&json!({ "result": "failed", "step": step, "reason": sentence }).to_string());
        } else {
            self.write(&format!("\nThe demo failed at step \"{step}\": {sentence}."));
        }
    }

    pub(super) fn ending(&self, receipt: &Value) {
        if self.json {
            self.write(&json!({ "result": "ok", "receipt": receipt }).to_string());
        } else {
            self.write("\nAll of it worked.");
        }
    }

    pub(super) fn json(&self, value: &Value) {
        if self.json {
            self.write(&value.to_string());
        }
    }

    fn write(&self, line: &str) {
        let mut out = self.out.borrow_mut();
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    }
}

/// What Bob hears: event and words.
pub(super) fn heard(what: &Heard, callee: &str) -> (&'static str, String) {
    match what {
        Heard::Trying => ("held", "the call is with Reveille, which holds it (100 Trying)".to_owned()),
        Heard::Ringing(code) => ("ringing", format!("hears it ring ({} {})", code.code(), code.reason())),
        Heard::Answered { .. } => ("talking", format!("hears {callee}: they talk (200 OK)")),
        Heard::Refused { code, phrase } if code.code() == 487 => {
            ("cancelled", format!("is out of the call ({phrase})"))
        }
        Heard::Refused { phrase, .. } => ("refused", format!("hears that the call is declined ({phrase})")),
        Heard::Lost => ("lost", "hears nothing at all".to_owned()),
        Heard::Ended { by: Side::Caller } => ("hung-up", "has hung up (BYE)".to_owned()),
        Heard::Ended { by: Side::Callee } => ("hung-up", format!("hears that {callee} has hung up (BYE)")),
    }
}

/// What a device of `owner` does: who tells it, event and words.
pub(super) fn did(deed: &Deed, owner: &str, device: &str) -> (String, &'static str, String) {
    let phone = format!("{owner}'s {device}");
    match deed {
        Deed::Pushed(push) => {
            (push.carrier.to_owned(), "pushed", format!("delivers a push to {phone}: \"{}\"", push.kind))
        }
        Deed::Shown(text) => (phone, "shown", format!("shows the message: \"{}\"", text.body)),
        Deed::Attached(transport) => {
            (phone, "attached", format!("is awake and has connected to Reveille over {}", transport.as_via()))
        }
        Deed::Invited => (phone, "invited", "gets the call, the very one of the push".to_owned()),
        Deed::Rings => (phone, "rings", "rings".to_owned()),
        Deed::Answered => (owner.to_owned(), "answered", "answers".to_owned()),
        Deed::Talks => (phone, "talks", "the call stands, from end to end".to_owned()),
        Deed::HungUp(Side::Caller) => (phone, "over", "hears that the call is over, and goes back to sleep".to_owned()),
        Deed::HungUp(Side::Callee) => {
            (owner.to_owned(), "over", "hangs up, and the phone goes back to sleep".to_owned())
        }
        Deed::Declined => {
            (owner.to_owned(), "declined", "declines, before the phone needs SIP at all (HTTPS)".to_owned())
        }
        Deed::Missed(reason) => (phone, "missed", format!("learns that the call is over ({reason})")),
    }
}
