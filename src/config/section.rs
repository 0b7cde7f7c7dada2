//! One table of the configuration while it is read: typed access by key, with every mistake noted and read past.

use std::path::{Path, PathBuf};
use std::time::Duration;

use config::{Map, Value, ValueKind};

use super::environment::variable;
use super::report::{Place, Report};
use super::suggest::nearest;

/// The keys a table may have.
#[derive(Debug)]
pub(super) struct Keys {
    /// The section's name.
    pub(super) section: &'static str,
    /// Its keys, except tables in it.
    pub(super) keys: &'static [&'static str],
}

/// All sections whose keys can be set by the environment too.
pub(super) const SECTIONS: &[Keys] = &[
    Keys { section: "api", keys: &["listen", "tls_certificate", "tls_key", "register_wait"] },
    Keys { section: "sip", keys: &["domain", "tls_certificate", "tls_key"] },
    Keys {
        section: "registrars",
        keys: &["allow", "allow_special_ranges", "ports", "rate", "rate_max", "drain_rate", "tls_ca_file"],
    },
    Keys { section: "lease", keys: &["default", "maximum"] },
    Keys { section: "calls", keys: &["hold", "silence", "early_response", "apns_expiry"] },
    Keys { section: "messages", keys: &["keep"] },
    Keys { section: "erasure", keys: &["grace"] },
    Keys { section: "audit", keys: &["path", "segment_records", "signing_key", "sync_wait"] },
    Keys { section: "drain", keys: &["calls", "deadline"] },
    Keys { section: "vault", keys: &["allow_plain_memory", "keep_a_copy"] },
    Keys { section: "process", keys: &["dumpable", "landlock", "seccomp", "debug_faults"] },
    Keys { section: "ops", keys: &["listen", "token_sha256", "tls_certificate", "tls_key", "client_ca_file"] },
    Keys { section: "log", keys: &["format", "level"] },
    Keys {
        section: "limits",
        keys: &[
            "instances",
            "held_calls",
            "held_calls_per_instance",
            "flows",
            "flows_per_source",
            "dialog_max",
            "dialogs",
            "instances_per_device",
            "accounts_per_device",
            "refusals_per_account",
            "devices_per_account",
            "messages",
            "messages_per_instance",
            "message_bytes",
            "edge_bindings",
            "stories",
            "traces",
            "trace_bytes",
            "posts_per_source",
            "posts_per_tenant",
            "wakes_per_minute",
            "wake_burst",
            "other_wakes_per_hour",
            "pushes_queued",
            "traffic_queued",
            "api_connections",
            "tombstones",
        ],
    },
];

/// The keys of a `[[sip.listen]]`.
pub(super) const SIP_LISTEN: &Keys =
    &Keys { section: "sip.listen", keys: &["transport", "address", "advertise", "proxy_protocol_from"] };

/// The keys of a `[[tenant]]`.
pub(super) const TENANT: &Keys = &Keys {
    section: "tenant",
    keys: &[
        "id",
        "app_key_sha256",
        "jwt_public_key",
        "jwt_required",
        "caller_in_push",
        "keep_password",
        "prove_push_token",
        "wakes_off",
        "edge_registrars",
        "registrars_allow",
        "modes",
        "lease_maximum",
        "tls_trunks_only",
        "instances_max",
    ],
};

/// The keys of a `[tenant.texts]`: the kinds of wake that the user is shown.
pub(super) const TEXTS: &Keys = &Keys {
    section: "tenant.texts",
    keys: &["missed-call", "message", "voicemail", "expiring", "reprovision", "test"],
};

/// The keys of a `[[tenant.app]]`.
pub(super) const APP: &Keys = &Keys {
    section: "tenant.app",
    keys: &[
        "id",
        "provider",
        "team_id",
        "key_id",
        "key_file",
        "environment",
        "service_account_file",
        "endpoint",
        "ca_file",
    ],
};

/// A value with the place it stands in.
#[derive(Clone, Debug)]
pub(super) struct Entry<T> {
    pub(super) place: Place,
    pub(super) value: T,
}

/// A table that has not been read yet.
pub(super) struct Raw {
    pub(super) path: String,
    pub(super) place: Place,
    pub(super) values: Map<String, Value>,
}

/// A table being read.
pub(super) struct Section<'r> {
    raw: Raw,
    keys: &'static Keys,
    base: &'r Path,
    pub(super) report: &'r mut Report,
    asked: Vec<&'static str>,
}

impl<'r> Section<'r> {
    pub(super) fn new(raw: Raw, keys: &'static Keys, base: &'r Path, report: &'r mut Report) -> Self {
        Self { raw, keys, base, report, asked: Vec::new() }
    }

    /// Where the table begins.
    pub(super) fn place(&self) -> Place {
        self.raw.place.clone()
    }

    /// Directory that relative paths start from.
    pub(super) fn base(&self) -> &'r Path {
        self.base
    }

    /// Whether the key was written.
    pub(super) fn has(&self, key: &str) -> bool {
        self.raw.values.contains_key(key)
    }

    /// The whole path of a key.
    pub(super) fn path(&self, key: &str) -> String {
        format!("{}.{key}", self.raw.path)
    }

    /// Notes a mistake at a key that was read.
    pub(super) fn mistake(&mut self, place: &Place, key: &str, problem: impl Into<String>) {
        let path = self.path(key);
        self.report.mistake(place.clone(), path, problem);
    }

    /// Notes that a key that must be there is not.
    pub(super) fn missing(&mut self, key: &str, what: &str) {
        let (place, path) = (self.place(), self.path(key));
        self.report.mistake(place, path, format!("is missing; {what}"));
    }

    /// Takes a key's value out.
    fn take(&mut self, key: &'static str) -> Option<Entry<ValueKind>> {
        debug_assert!(self.keys.keys.contains(&key), "{}.{key} is not in the list of keys", self.keys.section);
        self.asked.push(key);
        let value = self.raw.values.remove(key)?;
        let place = place_of(&value, self.keys.section, key);
        Some(Entry { place, value: value.kind })
    }

    /// Reads a text with `parse`, whose error says what is allowed.
    pub(super) fn parse<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<Entry<T>> {
        let Entry { place, value } = self.take(key)?;
        let parsed = match &value {
            ValueKind::String(text) => parse(text),
            other => Err(format!("must be a text in quotes, not {}", kind_name(other))),
        };
        match parsed {
            Ok(value) => Some(Entry { place, value }),
            Err(problem) => {
                self.mistake(&place, key, problem);
                None
            }
        }
    }

    /// Reads a duration between `least` and `most`.
    pub(super) fn duration(
        &mut self,
        key: &'static str,
        default: Duration,
        least: Duration,
        most: Duration,
    ) -> Duration {
        let Some(Entry { place, value }) = self.take(key) else { return default };
        let parsed = match &value {
            ValueKind::String(text) => humantime::parse_duration(text)
                .map_err(|_| "must be a duration such as \"500ms\", \"45s\" or \"3d\"".to_owned()),
            ValueKind::I64(_) => Err("must be a duration with its unit, such as \"45s\" or \"3d\"".to_owned()),
            other => Err(format!("must be a duration such as \"45s\" or \"3d\", not {}", kind_name(other))),
        };
        let checked = parsed.and_then(|duration| {
            if (least..=most).contains(&duration) {
                return Ok(duration);
            }
            let show = |limit| humantime::format_duration(limit);
            Err(format!("must be between {} and {}", show(least), show(most)))
        });
        checked.unwrap_or_else(|problem| {
            self.mistake(&place, key, problem);
            default
        })
    }

    /// Reads a whole number between `least` and `most`.
    pub(super) fn number(&mut self, key: &'static str, default: u32, least: u32, most: u32) -> Entry<u32> {
        let absent = Entry { place: self.place(), value: default };
        let Some(Entry { place, value }) = self.take(key) else { return absent };
        let number = match &value {
            ValueKind::I64(number) => Some(*number),
            ValueKind::String(text) if matches!(place, Place::Variable(_)) => text.trim().parse().ok(),
            _ => None,
        };
        let in_range = number.and_then(|number| u32::try_from(number).ok()).filter(|n| (least..=most).contains(n));
        if in_range.is_none() {
            self.mistake(&place, key, format!("must be a whole number between {least} and {most}"));
        }
        Entry { place, value: in_range.unwrap_or(default) }
    }

    /// Reads `true` or `false`.
    pub(super) fn flag(&mut self, key: &'static str, default: bool) -> bool {
        let Some(Entry { place, value }) = self.take(key) else { return default };
        match &value {
            ValueKind::Boolean(flag) => return *flag,
            ValueKind::String(text) if matches!(place, Place::Variable(_)) => {
                if let Ok(flag) = text.parse() {
                    return flag;
                }
            }
            _ => {}
        }
        self.mistake(&place, key, "must be true or false");
        default
    }

    /// Reads one of a few words.
    pub(super) fn choice<T: Copy>(&mut self, key: &'static str, words: &[(&str, T)]) -> Option<Entry<T>> {
        self.parse(key, |text| {
            let found = words.iter().find(|(word, _)| *word == text);
            found.map(|(_, value)| *value).ok_or_else(|| {
                let allowed: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
                let meant = nearest(text, words.iter().map(|(word, _)| *word));
                let hint = meant.map(|word| format!("; did you mean \"{word}\"?")).unwrap_or_default();
                format!("must be one of {}{hint}", allowed.join(", "))
            })
        })
    }

    /// Reads a list, or a single value in its place; in a variable, values are separated by commas. An empty list is a
    /// mistake where `empty` says why. `None`: not written, or wrong.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
        empty: Option<&str>,
    ) -> Option<Vec<Entry<T>>> {
        let Entry { place, value } = self.take(key)?;
        let items: Vec<(Place, ValueKind)> = match value {
            ValueKind::String(text) if matches!(place, Place::Variable(_)) => {
                let texts = text.split(',').map(str::trim).filter(|text| !text.is_empty());
                texts.map(|text| (place.clone(), ValueKind::from(text))).collect()
            }
            ValueKind::Array(values) => {
                let section = self.keys.section;
                values.into_iter().map(|value| (place_of(&value, section, key), value.kind)).collect()
            }
            single => vec![(place.clone(), single)],
        };
        if let (true, Some(problem)) = (items.is_empty(), empty) {
            self.mistake(&place, key, problem);
            return None;
        }
        let count = items.len();
        let mut list = Vec::new();
        for (place, item) in items {
            let parsed = match &item {
                ValueKind::String(text) => parse(text),
                ValueKind::I64(number) => parse(&number.to_string()),
                other => Err(format!("must not have {} in it", kind_name(other))),
            };
            match parsed {
                Ok(value) => list.push(Entry { place, value }),
                Err(problem) => self.mistake(&place, key, problem),
            }
        }
        (list.len() == count).then_some(list)
    }

    /// Reads a path; a relative one starts at the directory of the configuration file.
    pub(super) fn file(&mut self, key: &'static str) -> Option<Entry<PathBuf>> {
        let base = self.base;
        self.parse(key, |text| match text {
            "" => Err("must name a file".to_owned()),
            text => Ok(base.join(text)),
        })
    }

    /// Takes a key that has no meaning here, and refuses it where `is_wrong` is certain.
    pub(super) fn refuse(&mut self, key: &'static str, is_wrong: bool, why: &str) {
        if let Some(Entry { place, .. }) = self.take(key)
            && is_wrong
        {
            self.mistake(&place, key, why);
        }
    }

    /// Takes the table of a key, such as `[tenant.texts]`.
    pub(super) fn table(&mut self, key: &str) -> Option<Raw> {
        let value = self.raw.values.remove(key)?;
        let (place, path) = (place_of(&value, self.keys.section, key), self.path(key));
        match value.kind {
            ValueKind::Table(values) => Some(Raw { path, place, values }),
            _ => {
                let header = header(&path_without_places(&path));
                self.report.mistake(place, path, format!("must be a table, written as {header}"));
                None
            }
        }
    }

    /// Takes the tables of a list of tables, such as `[[sip.listen]]`.
    pub(super) fn tables(&mut self, key: &str) -> Vec<Raw> {
        let Some(value) = self.raw.values.remove(key) else { return Vec::new() };
        let path = self.path(key);
        tables(value, &path, self.report)
    }

    /// Ends the reading: what is left is unknown.
    pub(super) fn finish(self) {
        debug_assert!(
            self.keys.keys.iter().all(|key| self.asked.contains(key)),
            "a key of [{}] is listed and never read",
            self.keys.section
        );
        for (key, value) in &self.raw.values {
            let place = place_of(value, self.keys.section, key);
            self.report.mistake(place, format!("{}.{key}", self.raw.path), unknown(key, self.keys));
        }
    }
}

/// The tables in `value`, which stands at `path`.
pub(super) fn tables(value: Value, path: &str, report: &mut Report) -> Vec<Raw> {
    let place = place_of(&value, path, "");
    let ValueKind::Array(items) = value.kind else {
        report.mistake(place, path, format!("must be written as [[{}]]", path_without_places(path)));
        return Vec::new();
    };
    let mut raws = Vec::new();
    for (index, item) in items.into_iter().enumerate() {
        let place = place_of(&item, path, "");
        let path_of_item = format!("{path}[{index}]");
        match item.kind {
            ValueKind::Table(values) => raws.push(Raw { path: path_of_item, place, values }),
            _ => report.mistake(place, path_of_item, "must be a table"),
        }
    }
    raws
}

/// Where a value stands: `document` wrote the line as its origin, the environment's layer has words there.
pub(super) fn place_of(value: &Value, section: &str, key: &str) -> Place {
    match value.origin().map(str::parse) {
        Some(Ok(line)) => Place::Line(line),
        Some(Err(_)) => Place::Variable(variable(section, key)),
        None => Place::File,
    }
}

/// What is wrong with a key nobody knows.
fn unknown(key: &str, keys: &Keys) -> String {
    if let Some(meant) = nearest(key, keys.keys.iter().copied()) {
        return format!("is not a known key; did you mean \"{meant}\"?");
    }
    let elsewhere = SECTIONS.iter().chain([SIP_LISTEN, TENANT, TEXTS, APP]).find(|other| other.keys.contains(&key));
    match elsewhere {
        Some(other) => format!("is not a known key here; it belongs into {}", header(other.section)),
        None => format!("is not a known key; allowed here: {}", keys.keys.join(", ")),
    }
}

/// A section as it is written in the file.
pub(super) fn header(section: &str) -> String {
    let is_list = [SIP_LISTEN, TENANT, APP].iter().any(|keys| keys.section == section);
    if is_list { format!("[[{section}]]") } else { format!("[{section}]") }
}

fn path_without_places(path: &str) -> String {
    let parts = path.split('.').map(|part| part.split('[').next().unwrap_or(part));
    parts.collect::<Vec<_>>().join(".")
}

fn kind_name(kind: &ValueKind) -> &'static str {
    match kind {
        ValueKind::Nil => "a date",
        ValueKind::Boolean(_) => "true or false",
        ValueKind::I64(_) | ValueKind::I128(_) | ValueKind::U64(_) | ValueKind::U128(_) => "a number",
        ValueKind::Float(_) => "a number with a fraction",
        ValueKind::String(_) => "a text",
        ValueKind::Table(_) => "a table",
        ValueKind::Array(_) => "a list",
    }
}
