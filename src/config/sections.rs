//! The sections of the file, one function each. Defaults and ranges stand here; `config/reveille.toml` explains them.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::{Config, Map, Value, ValueKind};

use super::document::Document;
use super::environment::Overrides;
use super::files;
use super::report::{Place, Report};
use super::section::{Entry, Keys, Raw, SECTIONS, Section, header};
use super::settings::{
    Api, Audit, Calls, Drain, Erasure, Lease, Log, LogFormat, LogLevel, Messages, Process, Registrars, Settings, Vault,
};
use super::suggest::nearest;
use super::tenant_accounts::Within;
use super::{ops, sip, tenants, values};
use crate::engine::limits::{LEASE_CEILING, Limits};
use crate::sip::StatusCode;

const API_PORT: u16 = 8443;
const REGISTER_WAIT: Duration = Duration::from_secs(3);
const AUDIT_PATH: &str = "/var/lib/reveille/audit.log";
const SYNC_WAIT: Duration = Duration::from_secs(1);
/// Some 300 MB, and a few seconds to read at start.
pub(super) const SEGMENT_RECORDS: u32 = 1_000_000;
/// A start reads a whole segment.
const SEGMENT_RECORDS_MAX: u32 = 100_000_000;

pub(super) const SECOND: Duration = Duration::from_secs(1);
/// No HTTPS client waits longer for one thing: a registrar's word, a farewell, a record on disk. An answer may need two, one
/// after the other.
pub(crate) const STEP_WAIT_MAX: Duration = Duration::from_secs(30);
/// RFC 3261 §16.6, timer C: proxies before us give an INVITE up after three minutes.
const HOLD_MAX: Duration = Duration::from_secs(180);
/// Service managers kill what has not ended by then.
const DRAIN_MAX: Duration = Duration::from_secs(3600);
/// Longer than the longest lease nobody waits for a message.
const MESSAGES_KEEP_MAX: Duration = LEASE_CEILING;
/// A dialog longer than this is a forgotten one.
const DIALOG_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// The most REGISTERs a second for one destination; more is an attack, whatever the file says.
const RATE_MAX: u32 = 100_000;
/// The most that any table may hold.
pub(super) const TABLE_MAX: u32 = 100_000_000;

/// The merged configuration, with what is needed to name places in it.
pub(super) struct Tree {
    values: Map<String, Value>,
    lines: HashMap<String, usize>,
    end: usize,
    base: PathBuf,
}

impl Tree {
    fn merge(document: Document, overrides: Overrides, base: PathBuf, report: &mut Report) -> Option<Self> {
        let (lines, end) = (document.lines().clone(), document.end());
        let merged = Config::builder().add_source(document).add_source(overrides.into_source()).build();
        match merged.map(|config| config.cache.kind) {
            Ok(ValueKind::Table(values)) => Some(Self { values, lines, end, base }),
            Ok(_) => None,
            Err(error) => {
                report.mistake(Place::File, "", format!("cannot be read: {error}"));
                None
            }
        }
    }

    /// Directory that relative paths start from.
    pub(super) fn base(&self) -> &Path {
        &self.base
    }

    /// The line of a section or list of tables; the end of the file for one that is not written.
    pub(super) fn place(&self, name: &str) -> Place {
        Place::Line(self.lines.get(name).copied().unwrap_or(self.end))
    }

    /// Takes a value of the top level.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.values.remove(name)
    }

    /// Opens a section; one that is not written is empty.
    pub(super) fn section<'r>(&'r mut self, name: &'static str, report: &'r mut Report) -> Section<'r> {
        let place = self.place(name);
        let values = match self.values.remove(name) {
            None => Map::new(),
            Some(Value { kind: ValueKind::Table(values), .. }) => values,
            Some(_) => {
                report.mistake(place.clone(), name, format!("must be a section, written as {}", header(name)));
                Map::new()
            }
        };
        let keys = SECTIONS.iter().find(|keys| keys.section == name).expect("every section opened is in the list");
        Section::new(Raw { path: name.to_owned(), place, values }, keys, &self.base, report)
    }

    /// Notes what is left at the top level.
    fn finish(self, report: &mut Report) {
        for name in self.values.keys() {
            let place = self.place(name);
            report.mistake(place, name.clone(), unknown(name));
        }
    }
}

/// Reads all sections. `None` if something that has no default is missing or wrong; then the report says what.
pub(super) fn read(document: Document, overrides: Overrides, base: PathBuf, report: &mut Report) -> Option<Settings> {
    let mut tree = Tree::merge(document, overrides, base, report)?;
    let api = api(tree.section("api", report));
    let sip = sip::read(tree.section("sip", report));
    let registrars = registrars(tree.section("registrars", report));
    let lease = lease(tree.section("lease", report));
    let calls = calls(tree.section("calls", report));
    let messages = messages(tree.section("messages", report));
    let erasure = erasure(tree.section("erasure", report));
    let audit = audit(tree.section("audit", report));
    let drain = drain(tree.section("drain", report), &erasure);
    let vault = vault(tree.section("vault", report));
    let process = process(tree.section("process", report));
    let (ops_listen, ops) = ops::read(tree.section("ops", report));
    let log = log(tree.section("log", report));
    let limits = limits(tree.section("limits", report));
    let within = Within { registrars_allow: &registrars.policy.allow, lease_maximum: lease.maximum };
    let tenants = tenants::read(&mut tree, &within, report);
    tree.finish(report);
    let others = [("api.listen", &api.listen), ("ops.listen", &ops_listen)];
    sip::refuse_shared_ports(&sip.listeners, &others, report);
    Some(Settings {
        file: PathBuf::new(),
        api: Api { listen: plain(api.listen), tls: api.tls, register_wait: api.register_wait },
        sip: sip.finish()?,
        registrars,
        lease,
        calls,
        messages,
        erasure,
        audit,
        drain,
        vault,
        process,
        ops,
        log,
        limits,
        tenants,
        warnings: Vec::new(),
    })
}

fn plain<T>(entries: Vec<Entry<T>>) -> Vec<T> {
    entries.into_iter().map(|entry| entry.value).collect()
}

/// Section `[api]` with the places of its addresses.
struct Listening {
    listen: Vec<Entry<SocketAddr>>,
    tls: Option<files::TlsFiles>,
    register_wait: Duration,
}

fn api(mut section: Section<'_>) -> Listening {
    let default = Entry { place: section.place(), value: SocketAddr::from((Ipv4Addr::UNSPECIFIED, API_PORT)) };
    let empty = Some("is empty; the API needs at least one address");
    let listen = section.list("listen", values::socket_address, empty).unwrap_or_else(|| vec![default]);
    let tls = files::tls(&mut section);
    if tls.is_none() {
        let (place, path) = (section.place(), section.path("tls_certificate"));
        let problem = "is not set, so the API uses a self-signed certificate that no app trusts by itself";
        section.report.warning(place, path, problem);
    }
    let register_wait = section.duration("register_wait", REGISTER_WAIT, Duration::ZERO, STEP_WAIT_MAX);
    section.finish();
    Listening { listen, tls, register_wait }
}

fn registrars(mut section: Section<'_>) -> Registrars {
    let mut policy = Registrars::default().policy;
    let empty = Some("is empty, so no registrar could be reached");
    if let Some(allow) = section.list("allow", values::host_pattern, empty) {
        policy.allow = plain(allow);
    }
    if let Some(ranges) = section.list("allow_special_ranges", values::network, None) {
        policy.allow_special_ranges = plain(ranges);
    }
    if let Some(ports) = section.list("ports", values::port, empty) {
        policy.ports = plain(ports);
    }
    policy.rate = section.number("rate", policy.rate, 1, RATE_MAX).value;
    // A rate above the usual maximum is its own maximum.
    let usual = policy.rate_max.max(policy.rate);
    let highest = section.number("rate_max", usual, 1, RATE_MAX);
    if highest.value < policy.rate {
        section.mistake(&highest.place, "rate_max", "must not be below `rate`");
    }
    policy.rate_max = highest.value;
    policy.drain_rate = section.number("drain_rate", policy.drain_rate, 1, RATE_MAX).value;
    let ca_pem = files::roots(&mut section, "tls_ca_file");
    section.finish();
    Registrars { policy, ca_pem }
}

fn lease(mut section: Section<'_>) -> Lease {
    let defaults = Lease::default();
    let maximum = section.duration("maximum", defaults.maximum, SECOND, LEASE_CEILING);
    let default = section.duration("default", defaults.default.min(maximum), SECOND, maximum);
    section.finish();
    Lease { default, maximum }
}

fn calls(mut section: Section<'_>) -> Calls {
    let defaults = Calls::default();
    let hold = section.duration("hold", defaults.hold, SECOND, HOLD_MAX);
    let silence = section.duration("silence", defaults.silence, Duration::ZERO, hold.max(defaults.silence));
    let Entry { place, value } = section.number("early_response", 180, 0, 199);
    let early_response = match value {
        0 => None,
        180..=183 => StatusCode::new(u16::try_from(value).unwrap_or(180)),
        _ => {
            section.mistake(&place, "early_response", "must be 180, 181, 182 or 183, or 0 for none");
            None
        }
    };
    let apns_expiry = section.duration("apns_expiry", defaults.apns_expiry, Duration::ZERO, HOLD_MAX);
    section.finish();
    Calls { hold, silence, early_response, apns_expiry }
}

fn messages(mut section: Section<'_>) -> Messages {
    let keep = section.duration("keep", Messages::default().keep, SECOND, MESSAGES_KEEP_MAX);
    section.finish();
    Messages { keep }
}

fn erasure(mut section: Section<'_>) -> Erasure {
    let grace = section.duration("grace", Erasure::default().grace, Duration::ZERO, STEP_WAIT_MAX);
    section.finish();
    Erasure { grace }
}

fn audit(mut section: Section<'_>) -> Audit {
    let written = section.file("path");
    let place = written.as_ref().map_or_else(|| section.place(), |entry| entry.place.clone());
    let path = written.map_or_else(|| PathBuf::from(AUDIT_PATH), |entry| entry.value);
    if path.is_dir() {
        section.mistake(&place, "path", "is a directory; it must name the log's file");
    } else if !path.parent().is_some_and(|parent| parent.as_os_str().is_empty() || parent.is_dir()) {
        let key = section.path("path");
        section.report.warning(place, key, "lies in a directory that does not exist yet; it must exist at start");
    }
    let signing_key = files::signing_key(&mut section);
    let sync_wait = section.duration("sync_wait", SYNC_WAIT, Duration::ZERO, STEP_WAIT_MAX);
    let segment_records = section.number("segment_records", SEGMENT_RECORDS, 1, SEGMENT_RECORDS_MAX);
    section.finish();
    Audit { path: Some(path), signing_key, sync_wait, segment_records: u64::from(segment_records.value) }
}

fn drain(mut section: Section<'_>, erasure: &Erasure) -> Drain {
    let defaults = Drain::default();
    let deadline = section.duration("deadline", defaults.deadline, SECOND, DRAIN_MAX);
    let calls = section.duration("calls", defaults.calls, Duration::ZERO, DRAIN_MAX);
    if deadline < calls + erasure.grace {
        let place = section.place();
        let problem = "must leave time for drain.calls and erasure.grace, one after the other";
        section.mistake(&place, "deadline", problem);
    }
    section.finish();
    Drain { calls, deadline }
}

fn vault(mut section: Section<'_>) -> Vault {
    let allow_plain_memory = section.flag("allow_plain_memory", false);
    let keep_a_copy = section.flag("keep_a_copy", false);
    section.finish();
    Vault { allow_plain_memory, keep_a_copy }
}

fn process(mut section: Section<'_>) -> Process {
    let defaults = Process::default();
    let process = Process {
        dumpable: section.flag("dumpable", defaults.dumpable),
        landlock: section.flag("landlock", defaults.landlock),
        seccomp: section.flag("seccomp", defaults.seccomp),
        debug_faults: section.flag("debug_faults", defaults.debug_faults),
    };
    if process.debug_faults {
        let (place, path) = (section.place(), section.path("debug_faults"));
        let problem = "is on: clients can make requests fail on purpose; it is for tests alone";
        section.report.warning(place, path, problem);
    }
    section.finish();
    process
}

fn log(mut section: Section<'_>) -> Log {
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    let levels = [
        ("error", LogLevel::Error),
        ("warn", LogLevel::Warn),
        ("info", LogLevel::Info),
        ("debug", LogLevel::Debug),
        ("trace", LogLevel::Trace),
    ];
    let format = section.choice("format", &formats).map_or_else(LogFormat::default, |entry| entry.value);
    let level = section.choice("level", &levels).map_or_else(LogLevel::default, |entry| entry.value);
    section.finish();
    Log { format, level }
}

fn limits(mut section: Section<'_>) -> Limits {
    let defaults = Limits::default();
    let mut number = |key, default| section.number(key, default, 1, TABLE_MAX).value;
    let limits = Limits {
        instances: number("instances", defaults.instances),
        held_calls: number("held_calls", defaults.held_calls),
        held_calls_per_instance: number("held_calls_per_instance", defaults.held_calls_per_instance),
        flows: number("flows", defaults.flows),
        flows_per_source: number("flows_per_source", defaults.flows_per_source),
        dialog_max: defaults.dialog_max,
        dialogs: number("dialogs", defaults.dialogs),
        instances_per_device: number("instances_per_device", defaults.instances_per_device),
        accounts_per_device: number("accounts_per_device", defaults.accounts_per_device),
        refusals_per_account: number("refusals_per_account", defaults.refusals_per_account),
        devices_per_account: number("devices_per_account", defaults.devices_per_account),
        messages: number("messages", defaults.messages),
        messages_per_instance: number("messages_per_instance", defaults.messages_per_instance),
        message_bytes: number("message_bytes", defaults.message_bytes),
        edge_bindings: number("edge_bindings", defaults.edge_bindings),
        stories: number("stories", defaults.stories),
        traces: number("traces", defaults.traces),
        trace_bytes: number("trace_bytes", defaults.trace_bytes),
        posts_per_source: number("posts_per_source", defaults.posts_per_source),
        posts_per_tenant: number("posts_per_tenant", defaults.posts_per_tenant),
        wakes_per_minute: number("wakes_per_minute", defaults.wakes_per_minute),
        wake_burst: number("wake_burst", defaults.wake_burst),
        other_wakes_per_hour: number("other_wakes_per_hour", defaults.other_wakes_per_hour),
        pushes_queued: number("pushes_queued", defaults.pushes_queued),
        traffic_queued: number("traffic_queued", defaults.traffic_queued),
        api_connections: number("api_connections", defaults.api_connections),
        tombstones: number("tombstones", defaults.tombstones),
    };
    let dialog_max = section.duration("dialog_max", defaults.dialog_max, Duration::from_secs(60), DIALOG_MAX);
    section.finish();
    Limits { dialog_max, ..limits }
}

/// What is wrong with a name at the top level that nobody knows.
fn unknown(name: &str) -> String {
    let sections = || SECTIONS.iter().map(|keys| keys.section).chain(["tenant"]);
    if let Some(meant) = nearest(name, sections()) {
        let meant = if meant == "tenant" { "[[tenant]]".to_owned() } else { header(meant) };
        return format!("is not a known section; did you mean {meant}?");
    }
    let owners: Vec<String> =
        SECTIONS.iter().filter(|Keys { keys, .. }| keys.contains(&name)).map(|keys| header(keys.section)).collect();
    if owners.is_empty() {
        let known: Vec<&str> = sections().collect();
        return format!("is not a known section; there are {}", known.join(", "));
    }
    format!("stands outside of its section; it belongs into {}", owners.join(" or "))
}

/// Whether two addresses cannot both be bound for TCP.
pub(super) fn collide(left: SocketAddr, right: SocketAddr) -> bool {
    let overlap = |a: IpAddr, b: IpAddr| a == b || a.is_unspecified() || b.is_unspecified();
    left.port() != 0
        && left.port() == right.port()
        && left.is_ipv4() == right.is_ipv4()
        && overlap(left.ip(), right.ip())
}
