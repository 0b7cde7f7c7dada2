//! The guide's examples: what was seen on the wire, with what varies replaced, against what the guide shows.
//!
//! An example is a fenced block below a comment `<!-- checked: NAME -->`. `UPDATE_GUIDE=1` writes what was seen into the guide.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde_json::{Map, Value};

/// The widest line of JSON.
const WIDTH: usize = 118;

/// Members that are told first.
const ORDER: [&str; 24] = [
    "v",
    "kind",
    "account",
    "aor",
    "device",
    "id",
    "platform",
    "mode",
    "push",
    "instance",
    "call",
    "test",
    "for",
    "provider",
    "app",
    "token",
    "state",
    "reason",
    "event",
    "ms",
    "at",
    "registrar",
    "uri",
    "receipt",
];

/// What happens in a call and when, in milliseconds.
const STORY: [(&str, u64); 8] = [
    ("invited", 0),
    ("wake-sent", 1),
    ("wake-accepted", 93),
    ("attached", 1180),
    ("forwarded", 1181),
    ("ringing", 1320),
    ("answered", 4210),
    ("ended", 4980),
];

/// The times of a self-test.
const ACCEPTED_MS: u64 = 180;
const ARRIVED_MS: u64 = 1740;

const LEASE_ENDS: &str = "2026-11-27T20:00:00Z";
const DEADLINE: u64 = 1_795_550_445;

/// What was seen so far, by the name of its example.
#[derive(Default)]
pub(super) struct Book {
    words: Vec<(String, String)>,
    seen: BTreeMap<String, String>,
}

impl Book {
    /// From now on `found` stands as `shown`. Longer words have to be told before those they contain.
    pub(super) fn word(&mut self, found: impl Into<String>, shown: impl Into<String>) {
        let found = found.into();
        self.words.retain(|(known, _)| *known != found);
        self.words.push((found, shown.into()));
    }

    /// One request of the API and its answer.
    pub(super) fn http(&mut self, name: &str, request: &str, body: Option<&Value>, status: u16, answer: &str) {
        let phrase = hyper::StatusCode::from_u16(status).ok().and_then(|code| code.canonical_reason());
        let mut text = format!("{request}\n");
        if let Some(body) = body {
            text += &format!("{}\n", self.json(body));
        }
        text += &format!("\nHTTP/1.1 {status} {}\n", phrase.unwrap_or_default());
        if let Ok(answer) = serde_json::from_str::<Value>(answer) {
            text += &format!("{}\n", self.json(&answer));
        }
        self.put(name, &text);
    }

    /// A push.
    pub(super) fn push(&mut self, name: &str, payload: &Value) {
        let text = self.json(payload) + "\n";
        self.put(name, &text);
    }

    /// SIP messages in their order, those without a body cut at its empty line.
    pub(super) fn sip(&mut self, name: &str, messages: &[&str]) {
        let shown = messages.iter().map(|message| sip(message)).collect::<Vec<_>>();
        self.put(name, &shown.join("\n"));
    }

    fn put(&mut self, name: &str, text: &str) {
        let text = self.words.iter().fold(text.to_owned(), |text, (found, shown)| text.replace(found, shown));
        self.seen.insert(name.to_owned(), text);
    }

    fn json(&self, value: &Value) -> String {
        lay_out(&settled(value.clone(), ""), 0)
    }

    /// Fails if an example of the guide differs from what was seen, was not seen, or is missing.
    #[track_caller]
    pub(super) fn compare(&self) {
        let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/client-guide.md");
        let guide = fs::read_to_string(&file).expect("the guide is there");
        let mut shown = BTreeMap::new();
        let rewritten = self.rewrite(&guide, &mut shown);
        if std::env::var_os("UPDATE_GUIDE").is_some() {
            fs::write(&file, rewritten).expect("the guide can be written");
        } else {
            for (name, text) in &self.seen {
                let example =
                    shown.get(name).unwrap_or_else(|| panic!("no example {name} in the guide; seen:\n{text}"));
                assert_eq!(
                    example, text,
                    "example {name}: left the guide, right what happens (UPDATE_GUIDE=1 takes it over)"
                );
            }
        }
        let unseen: Vec<_> = shown.keys().filter(|name| !self.seen.contains_key(*name)).collect();
        assert!(unseen.is_empty(), "examples that nobody checks: {unseen:?}");
    }

    /// The guide with what was seen in its examples; the present ones go to `shown`.
    fn rewrite(&self, guide: &str, shown: &mut BTreeMap<String, String>) -> String {
        let mut parts = guide.split("<!-- checked: ");
        let mut rewritten = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let (name, rest) = part.split_once(" -->\n").expect("the comment ends with its line");
            let (fence, rest) = rest.split_once('\n').expect("a fence follows the comment");
            assert!(fence.starts_with("```"), "a fence follows the comment of {name}");
            let (text, rest) = rest.split_once("```").expect("the fence is closed");
            let seen = self.seen.get(name).map_or(text, String::as_str);
            rewritten += &format!("<!-- checked: {name} -->\n{fence}\n{seen}```{rest}");
            shown.insert(name.to_owned(), text.to_owned());
        }
        rewritten
    }
}

/// A message with nothing left but its first line and some headers.
pub(super) fn excerpt(message: &str, headers: &[&str]) -> String {
    let mut lines = message.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let mut kept =
        lines.filter(|line| headers.iter().any(|name| line.starts_with(&format!("{name}: ")))).collect::<Vec<_>>();
    // Several calls are named in any order.
    kept.sort_by_key(|line| line.starts_with("Reveille-Call").then(|| line.rsplit(';').next()));
    let kept: Vec<_> = std::iter::once(first).chain(kept).chain(["…"]).collect();
    kept.join("\r\n")
}

/// A message with what varies in it replaced.
fn sip(message: &str) -> String {
    let (head, body) = message.split_once("\r\n\r\n").unwrap_or((message, ""));
    let mut text = String::new();
    for line in head.lines() {
        text += &scrubbed(line);
        text.push('\n');
    }
    if !body.is_empty() {
        // The first line of an SDP stands for all of it.
        let first = body.lines().next().unwrap_or_default();
        let more = if body.lines().count() > 1 { "\n…" } else { "" };
        text += &format!("\n{first}{more}\n");
    }
    text
}

fn scrubbed(line: &str) -> String {
    match line.split_once(": ") {
        Some(("Date", _)) => return "Date: Tue, 24 Nov 2026 20:00:00 GMT".to_owned(),
        Some((name @ ("Call-ID" | "Reveille-Message"), _)) => return format!("{name}: …"),
        _ => {}
    }
    let mut line = line.to_owned();
    if let (true, Some(at), Some(host)) = (line.starts_with("Record-Route: "), line.find("sip:"), line.find('@')) {
        line.replace_range(at + 4..host, "…");
    }
    for key in [";branch=", ";tag=", "nonce=\"", "cnonce=\"", "response=\"", ";rport=", ";received="] {
        let mut from = 0;
        while let Some(at) = line[from..].find(key) {
            let start = from + at + key.len();
            let end = line[start..].find([';', ',', '>', '"']).map_or(line.len(), |end| start + end);
            line.replace_range(start..end, "…");
            from = start;
        }
    }
    line
}

/// Times, milliseconds and signatures replaced by those of all examples.
fn settled(value: Value, key: &str) -> Value {
    match (key, value) {
        (_, Value::Null) => Value::Null,
        ("requested_at" | "accepted_at", _) => at(0),
        ("arrived_at", _) => at(ARRIVED_MS),
        ("accepted_ms", _) => ACCEPTED_MS.into(),
        ("arrived_ms", _) => ARRIVED_MS.into(),
        ("lease_ends", _) => LEASE_ENDS.into(),
        ("expires_at", _) => DEADLINE.into(),
        ("receipt", _) => serde_json::json!({ "…": "…" }),
        ("story", Value::Array(events)) => events.into_iter().map(timed).collect(),
        (_, Value::Array(items)) => items.into_iter().map(|item| settled(item, "")).collect(),
        (_, Value::Object(members)) => {
            let settle = |(key, value): (String, Value)| (key.clone(), settled(value, &key));
            Value::Object(members.into_iter().map(settle).collect())
        }
        (_, value) => value,
    }
}

/// An event of a story with the time it has in all examples.
fn timed(mut event: Value) -> Value {
    let known = STORY.iter().find(|(name, _)| event["event"] == *name);
    let (_, ms) = known.unwrap_or_else(|| panic!("an event that has no time yet: {event}"));
    event["ms"] = (*ms).into();
    event["at"] = at(*ms);
    event
}

fn at(ms: u64) -> Value {
    format!("2026-11-24T20:00:{:02}Z", ms / 1000).into()
}

/// What fits into a line stays in one; of what does not, each line takes as many members as it can.
fn lay_out(value: &Value, depth: usize) -> String {
    let whole = inline(value);
    let (open, close) = match value {
        Value::Object(_) if depth + whole.chars().count() > WIDTH => ("{", "}"),
        Value::Array(_) if depth + whole.chars().count() > WIDTH => ("[", "]"),
        _ => return whole,
    };
    let parts: Vec<String> = match value {
        Value::Object(members) => {
            let parts = ordered(members).into_iter();
            parts.map(|(key, value)| format!("\"{key}\": {}", lay_out(value, depth + 2 + key.len() + 4))).collect()
        }
        Value::Array(items) => items.iter().map(|item| lay_out(item, depth + 2)).collect(),
        _ => Vec::new(),
    };
    let mut lines: Vec<String> = Vec::new();
    for part in parts {
        match lines.last_mut() {
            Some(line)
                if part.starts_with(['"', '{'])
                    && !part.contains('\n')
                    && !line.contains('\n')
                    && depth + line.chars().count() + part.chars().count() < WIDTH =>
            {
                *line += &format!(", {part}");
            }
            _ => lines.push(part),
        }
    }
    let margin = " ".repeat(depth + 2);
    format!("{open} {} {close}", lines.join(&format!(",\n{margin}")))
}

/// In the order in which one would tell them.
fn ordered(members: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut members: Vec<_> = members.iter().collect();
    members.sort_by_key(|(key, _)| ORDER.iter().position(|known| known == key).unwrap_or(ORDER.len()));
    members
}

fn inline(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let members: Vec<_> =
                ordered(members).into_iter().map(|(key, value)| format!("\"{key}\": {}", inline(value))).collect();
            format!("{{ {} }}", members.join(", "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(inline).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}
