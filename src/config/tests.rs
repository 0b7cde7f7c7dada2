//! Each mistake is told with its line, its key and what is allowed; what is right is understood.

mod files;
mod operators;
mod tenants;

use std::path::Path;
use std::time::Duration;

use super::section::{APP, SECTIONS, SIP_LISTEN, TENANT, TEXTS};
use super::*;
use crate::engine::input::Mode;
use crate::engine::limits::{LEASE_CEILING, Limits};
use crate::engine::output::WakeKind;
use crate::engine::policy::{CallerInPush, Listener, Provider};
use crate::sip::Transport;

/// The least that is needed. Tests put their lines before or behind it.
const LEAST: &str = r#"[sip]
domain = "edge.example.net"
[[sip.listen]]
transport = "udp"
address = "127.0.0.1:5060"
[[tenant]]
id = "acme"
app_key_sha256 = "00000000000000000000000000000000000000000000000000000000000000ff"
[[tenant.app]]
id = "com.example.phone"
provider = "sandbox"
endpoint = "http://127.0.0.1:8444"
"#;

#[test]
fn the_least_configuration_has_the_documented_defaults() {
    let settings = settings(LEAST);
    assert_defaults(&settings);
    assert_eq!(settings.sip.domain, "edge.example.net");
    let listener = SipListener {
        transport: Transport::Udp,
        address: "127.0.0.1:5060".parse().expect("an address"),
        advertise: None,
    };
    assert_eq!(settings.sip.listen, [listener]);
    assert_eq!(settings.tenants.len(), 1);
}

#[test]
fn the_file_we_ship_loads_and_shows_the_defaults() {
    let shipped = include_str!("../../config/reveille.toml");
    let settings = settings(shipped);
    assert_defaults(&settings);
    assert_eq!(settings.sip.listen.len(), 2);
    assert!(settings.warnings.iter().any(|warning| warning.key == "tenant[0].app_key_sha256"), "a placeholder");
}

#[test]
fn the_defaults_in_the_comments_of_the_file_we_ship_are_the_defaults() {
    let shipped = include_str!("../../config/reveille.toml");
    let settings = settings(&without_comment_marks(shipped));
    assert_defaults(&settings);
}

#[test]
fn every_key_is_explained_in_the_file_we_ship() {
    let shipped = include_str!("../../config/reveille.toml");
    for keys in SECTIONS.iter().chain([SIP_LISTEN, TENANT, TEXTS, APP]) {
        let header = section::header(keys.section);
        let start = shipped.find(&format!("\n{header}\n")).unwrap_or_else(|| panic!("{header} is missing"));
        let text = &shipped[start + header.len() + 2..];
        let text = &text[..text.find("\n[").unwrap_or(text.len())];
        for key in keys.keys {
            let is_there = text.lines().any(|line| line.trim_start_matches("# ").starts_with(&format!("{key} = ")));
            assert!(is_there, "{key} is not explained in {header}");
        }
    }
}

#[test]
fn unknown_keys_are_refused_with_their_line_and_what_was_meant() {
    assert_mistakes(
        "[api]\nlisen = \"0.0.0.0:8443\"\n[calls]\ncolour = 1\ngrace = \"1s\"\n[audt]\npath = \"a\"\n",
        &[
            "r.toml:2: api.lisen: is not a known key; did you mean \"listen\"?",
            "r.toml:4: calls.colour: is not a known key; allowed here: hold, silence, early_response, apns_expiry",
            "r.toml:5: calls.grace: is not a known key here; it belongs into [erasure]",
            "r.toml:6: audt: is not a known section; did you mean [audit]?",
        ],
    );
    assert_mistakes(
        "rate = 3\ncolour = 1\n\"sip.domain\" = \"x\"\n",
        &[
            "r.toml:1: rate: stands outside of its section; it belongs into [registrars]",
            "r.toml:2: colour: is not a known section; there are api, sip, registrars, lease, calls, messages, erasure, \
             audit, drain, vault, process, ops, log, limits, tenant",
            "r.toml:3: sip.domain: is not a known section; sections have no quotes",
        ],
    );
}

#[test]
fn unknown_keys_in_lists_of_tables_are_refused_at_their_own_line() {
    let text = format!("{LEAST}key_fil = \"a\"\n[[tenant.app]]\nid = \"b\"\nprovider = \"sandbox\"\nurl = 1\n");
    assert_eq!(
        mistakes(&text),
        [
            "r.toml:13: tenant[0].app[0].key_fil: is not a known key; did you mean \"key_file\"?",
            "r.toml:14: tenant[0].app[1].endpoint: is missing; it is where pushes are posted, such as \
             \"https://127.0.0.1:8444/push\"",
            "r.toml:17: tenant[0].app[1].url: is not a known key; allowed here: id, provider, team_id, key_id, key_file, \
             environment, service_account_file, endpoint, ca_file",
        ]
    );
}

#[test]
fn an_empty_file_is_told_all_that_is_needed() {
    assert_eq!(
        mistakes(""),
        [
            "r.toml:1: sip.domain: is missing; it is the name devices attach at, such as \"edge.example.net\"",
            "r.toml:1: sip.listen: is missing; at least one [[sip.listen]] is needed",
            "r.toml:1: tenant: is missing; at least one [[tenant]] is needed, as nobody else may use the API",
        ]
    );
}

#[test]
fn a_missing_file_is_one_mistake() {
    let error = load_with(Path::new("/nonexistent/r.toml"), []).expect_err("there is no such file").to_string();
    assert!(error.starts_with("/nonexistent/r.toml: cannot be read: "), "{error}");
}

#[test]
fn all_syntax_errors_are_told_with_their_lines() {
    let found = mistakes("[api]\nlisten = \n[sip\ndomain = \"a\"\n");
    assert!(found.iter().any(|mistake| mistake.starts_with("r.toml:2: not TOML: ")), "{found:?}");
    assert!(found.iter().any(|mistake| mistake.starts_with("r.toml:3: not TOML: ")), "{found:?}");
    let twice = mistakes("[api]\nregister_wait = \"1s\"\nregister_wait = \"2s\"\n");
    assert!(twice.iter().any(|mistake| mistake.starts_with("r.toml:3: not TOML: duplicate key")), "{twice:?}");
}

#[test]
fn wrong_types_and_ranges_say_what_is_allowed() {
    let duration = "must be a duration such as \"500ms\", \"45s\" or \"3d\"";
    assert_mistakes(
        "[calls]\nhold = 45\nsilence = \"soon\"\nearly_response = 200\n[drain]\ncalls = true\n[limits]\nflows = 0\n\
         dialogs = \"9\"\ntombstones = 99999999999999999999\nwake_burst = 1.5\n[vault]\nallow_plain_memory = \"no\"\n",
        &[
            "r.toml:2: calls.hold: must be a duration with its unit, such as \"45s\" or \"3d\"",
            &format!("r.toml:3: calls.silence: {duration}"),
            "r.toml:4: calls.early_response: must be a whole number between 0 and 199",
            "r.toml:6: drain.calls: must be a duration such as \"45s\" or \"3d\", not true or false",
            "r.toml:8: limits.flows: must be a whole number between 1 and 100000000",
            "r.toml:9: limits.dialogs: must be a whole number between 1 and 100000000",
            "r.toml:10: limits.tombstones: must be a whole number between 1 and 100000000",
            "r.toml:11: limits.wake_burst: must be a whole number between 1 and 100000000",
            "r.toml:13: vault.allow_plain_memory: must be true or false",
        ],
    );
    assert_mistakes(
        "early = 1979-05-27\n[audit]\npath = 1979-05-27\n",
        &[
            "r.toml:1: early: is not a known section; there are api, sip, registrars, lease, calls, messages, erasure, \
             audit, drain, vault, process, ops, log, limits, tenant",
            "r.toml:3: audit.path: must be a text in quotes, not a date",
        ],
    );
    assert_mistakes("api = 3\n", &["r.toml:1: api: must be a section, written as [api]"]);
}

#[test]
fn a_lease_above_the_ceiling_is_refused() {
    assert_mistakes("[lease]\nmaximum = \"7d\"\n", &["r.toml:2: lease.maximum: must be between 1s and 6days"]);
    assert_mistakes(
        "[lease]\ndefault = \"2d\"\nmaximum = \"1d\"\n",
        &["r.toml:2: lease.default: must be between 1s and 1day"],
    );
    let shorter = settings(&format!("[lease]\nmaximum = \"1h\"\n{LEAST}"));
    assert_eq!(shorter.lease.default, Duration::from_secs(3600), "the default gives way");
}

#[test]
fn what_is_kept_for_people_has_ceilings_that_no_configuration_raises() {
    assert_mistakes("[messages]\nkeep = \"7d\"\n", &["r.toml:2: messages.keep: must be between 1s and 6days"]);
    assert_mistakes("[limits]\ndialog_max = \"8d\"\n", &["r.toml:2: limits.dialog_max: must be between 1m and 7days"]);
    // How long stories, tombstones, traces and the keys of logs are kept is compiled in: there is no key for it.
    for (section, key) in
        [("limits", "stories_keep"), ("limits", "trace_max"), ("erasure", "tombstones"), ("log", "key_life")]
    {
        let found = mistakes(&format!("[{section}]\n{key} = \"30d\"\n"));
        assert!(found.iter().any(|mistake| mistake.contains("is not a known key")), "{section}.{key}: {found:?}");
    }
}

#[test]
fn a_drain_must_leave_time_for_calls_and_farewells() {
    assert_mistakes(
        "[drain]\ncalls = \"1m\"\n",
        &["r.toml:1: drain.deadline: must leave time for drain.calls and erasure.grace, one after the other"],
    );
}

#[test]
fn registrars_are_checked_item_by_item() {
    assert_mistakes(
        "[registrars]\nallow = [\n  \"*.example.com\",\n  \"*example\",\n]\nallow_special_ranges = \"10.0.0.0\"\n\
         ports = [5060, 0]\nrate = 0\n",
        &[
            "r.toml:4: registrars.allow: must be \"*\", a host name, or \"*.\" with a domain, such as \"*.example.com\"",
            "r.toml:6: registrars.allow_special_ranges: must be a range of addresses such as \"192.168.0.0/16\" or \
             \"fd00::/8\"",
            "r.toml:7: registrars.ports: must be a port between 1 and 65535",
            "r.toml:8: registrars.rate: must be a whole number between 1 and 100000",
        ],
    );
    assert_mistakes(
        "[registrars]\nrate = 80\nrate_max = 60\n",
        &["r.toml:3: registrars.rate_max: must not be below `rate`"],
    );
    assert_mistakes(
        "[registrars]\nports = []\n",
        &["r.toml:2: registrars.ports: is empty, so no registrar could be reached"],
    );
}

#[test]
fn sip_listeners_are_checked_one_by_one() {
    let text = "[sip]\ndomain = \"a b\"\n[[sip.listen]]\ntransport = \"upd\"\naddress = \"127.0.0.1\"\n\
                [[sip.listen]]\naddress = \"0.0.0.0:5060\"\n[[sip.listen]]\ntransport = \"wss\"\n\
                address = \"127.0.0.1:443\"\nproxy_protocol_from = [\"10.0.0.0/8\"]\nadvertise = \"0.0.0.0:443\"\n";
    let tenant = &LEAST[LEAST.find("[[tenant]]").expect("it has one")..];
    assert_eq!(
        mistakes(&format!("{text}{tenant}")),
        [
            "r.toml:2: sip.domain: must be a host name such as \"edge.example.net\"",
            "r.toml:4: sip.listen[0].transport: must be one of \"udp\", \"tcp\", \"tls\", \"ws\", \"wss\"; did you mean \
             \"udp\"?",
            "r.toml:5: sip.listen[0].address: must be an address with its port, such as \"0.0.0.0:8443\" or \
             \"[::]:8443\"",
            "r.toml:6: sip.listen[1].transport: is missing; it must be one of \"udp\", \"tcp\", \"tls\", \"ws\", \
             \"wss\"",
            "r.toml:7: sip.listen[1].advertise: is needed, as the address is that of no host: host:port as the world \
             sees this listener",
            "r.toml:11: sip.listen[2].proxy_protocol_from: is not available in this version; leave it out or empty",
            "r.toml:12: sip.listen[2].advertise: must be an address that others can reach",
        ]
    );
}

#[test]
fn websocket_listeners_stand_beside_others_and_want_a_certificate_for_tls() {
    let listener = |transport: &str, port: u16| {
        format!("[[sip.listen]]\ntransport = \"{transport}\"\naddress = \"127.0.0.1:{port}\"\n")
    };
    let text = LEAST.replace("[[tenant]]", &format!("{}{}[[tenant]]", listener("ws", 8080), listener("wss", 443)));
    let loaded = settings(&text);
    let transports: Vec<_> = loaded.sip.listen.iter().map(|listener| listener.transport).collect();
    assert_eq!(transports[1..], [Transport::Ws, Transport::Wss]);
    assert!(loaded.warnings.iter().any(|warning| warning.key == "sip.tls_certificate"), "{:?}", loaded.warnings);

    let alone = LEAST.replace("\"udp\"", "\"ws\"");
    assert_eq!(
        mistakes(&alone),
        ["r.toml:5: sip.listen: are for apps alone; registrars need a listener with transport udp, tcp or tls as well"]
    );
}

#[test]
fn listeners_that_cannot_be_bound_beside_each_other_are_refused() {
    let tcp = "[[sip.listen]]\ntransport = \"tcp\"\naddress = \"0.0.0.0:5060\"\nadvertise = \"192.0.2.1:5060\"\n";
    let text = LEAST.replace("[[tenant]]", &format!("{tcp}[[tenant]]"));
    assert_eq!(
        mistakes(&format!(
            "{text}[api]\nlisten = [\"127.0.0.1:1\", \"127.0.0.1:5060\"]\n[ops]\nlisten = \"127.0.0.1:1\"\n"
        )),
        [
            "r.toml:8: sip.listen[1].address: is taken by the listener of line 5 (udp listens on TCP as well)",
            "r.toml:18: api.listen: is taken by the listener of line 5 (udp listens on TCP as well)",
            "r.toml:20: ops.listen: is taken by the listener of line 18 (udp listens on TCP as well)",
        ]
    );
    let ephemeral = LEAST.replace("127.0.0.1:5060", "127.0.0.1:0");
    settings(&format!("{ephemeral}[api]\nlisten = \"127.0.0.1:0\"\n[ops]\nlisten = \"127.0.0.1:0\"\n"));
}

#[test]
fn the_environment_stands_above_the_file() {
    let text = format!("[calls]\nhold = \"30s\"\n{LEAST}");
    let variables = [
        ("REVEILLE__CALLS__HOLD", "20s"),
        ("REVEILLE__SIP__DOMAIN", "other.example.net"),
        ("REVEILLE__API__LISTEN", "127.0.0.1:1, [::1]:2"),
        ("REVEILLE__REGISTRARS__PORTS", "5080"),
        ("REVEILLE__REGISTRARS__RATE", "7"),
        ("REVEILLE__VAULT__ALLOW_PLAIN_MEMORY", "true"),
        ("REVEILLE__OPS__LISTEN", ""),
        ("REVEILLE__LOG__FORMAT", "json"),
        ("REVEILLE_UNRELATED", "x"),
        ("PATH", "/bin"),
    ];
    let settings = read_in(Path::new("r.toml"), &text, &variables).expect("it is right");
    assert_eq!(settings.calls.hold, Duration::from_secs(20));
    assert_eq!(settings.sip.domain, "other.example.net");
    assert_eq!(settings.sip.listen.len(), 1, "the rest of the section stays");
    assert_eq!(settings.api.listen.len(), 2);
    assert_eq!(settings.registrars.policy.ports, [5080]);
    assert_eq!(settings.registrars.policy.rate, 7);
    assert!(settings.vault.allow_plain_memory);
    assert!(settings.ops.listen.is_empty());
    assert_eq!(settings.log.format, LogFormat::Json);
}

#[test]
fn a_wrong_variable_is_named() {
    let variables = [
        ("REVEILLE__CALLS__HOLD", "45"),
        ("REVEILLE__LIMITS__FLOWS", "many"),
        ("REVEILLE__REGISTRARS__PORTS", "5060,x"),
        ("REVEILLE__SIP__DOMIAN", "a.example"),
        ("REVEILLE__SIP__DOMAIN__X", "a.example"),
        ("REVEILLE__SIP__LISTEN", "0.0.0.0:5060"),
        ("REVEILLE__TENANT__0__ID", "x"),
        ("REVEILLE__UNHEARD_OF", "x"),
        ("REVEILLE__sip__domain", "x"),
    ];
    let error = read_in(Path::new("r.toml"), LEAST, &variables).expect_err("all are wrong");
    let found: Vec<String> = error.list().iter().map(|mistake| mistake.describe(Path::new("r.toml"))).collect();
    let no_key = "names no key; variables are REVEILLE__SECTION__KEY, such as REVEILLE__SIP__DOMAIN";
    let expected = [
        "REVEILLE__CALLS__HOLD: calls.hold: must be a duration such as \"500ms\", \"45s\" or \"3d\"".to_owned(),
        "REVEILLE__LIMITS__FLOWS: limits.flows: must be a whole number between 1 and 100000000".to_owned(),
        "REVEILLE__REGISTRARS__PORTS: registrars.ports: must be a port between 1 and 65535".to_owned(),
        format!("REVEILLE__SIP__DOMAIN__X: {no_key}"),
        "REVEILLE__SIP__DOMIAN: names no key; did you mean REVEILLE__SIP__DOMAIN?".to_owned(),
        "REVEILLE__SIP__LISTEN: [[sip.listen]] can only be set in the file".to_owned(),
        "REVEILLE__TENANT__0__ID: [[tenant]] can only be set in the file".to_owned(),
        format!("REVEILLE__UNHEARD_OF: {no_key}"),
        format!("REVEILLE__sip__domain: {no_key}"),
    ];
    assert_eq!(found, expected.map(|line| format!("environment variable {line}")));
}

#[test]
fn settings_become_the_policy_of_the_engine() {
    let text = LEAST.replace("[[tenant.app]]", "caller_in_push = \"clear\"\n[[tenant.app]]");
    let settings = settings(&format!("[calls]\nearly_response = 0\n{text}"));
    let listener = Listener {
        transport: Transport::Udp,
        local: "127.0.0.1:5060".parse().expect("an address"),
        advertise: "127.0.0.1:5060".to_owned(),
    };
    let policy = settings.policy(vec![listener]);
    assert_eq!(policy.domain, "edge.example.net");
    assert_eq!(policy.listeners.len(), 1);
    assert_eq!(policy.early_response, None);
    assert_eq!((policy.lease_default, policy.lease_maximum), (Duration::from_secs(259_200), LEASE_CEILING));
    let tenant = policy.tenant("acme").expect("it is configured");
    assert_eq!(tenant.caller_in_push, CallerInPush::Clear);
    assert_eq!((tenant.apps[0].id.as_str(), tenant.apps[0].provider), ("com.example.phone", Provider::Sandbox));
}

fn read_in(path: &Path, text: &str, variables: &[(&str, &str)]) -> Result<Settings, Mistakes> {
    let variables = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    read(path, text, variables, Report::new(path))
}

fn settings(text: &str) -> Settings {
    read_in(Path::new("r.toml"), text, &[]).unwrap_or_else(|error| panic!("{error}"))
}

fn mistakes(text: &str) -> Vec<String> {
    match read_in(Path::new("r.toml"), text, &[]) {
        Ok(_) => Vec::new(),
        Err(error) => error.to_string().lines().map(str::to_owned).collect(),
    }
}

/// `head` before an otherwise right file has exactly these mistakes.
fn assert_mistakes(head: &str, expected: &[&str]) {
    assert_eq!(mistakes(&format!("{head}{LEAST}")), expected);
}

fn assert_defaults(settings: &Settings) {
    assert_eq!(settings.api.listen, ["0.0.0.0:8443".parse().expect("an address")]);
    assert_eq!(settings.api.tls, None);
    assert_eq!(settings.api.register_wait, Duration::from_secs(3));
    assert_eq!(settings.sip.tls, None);
    assert_eq!(settings.registrars.policy.allow, ["*"]);
    assert_eq!(settings.registrars.policy.allow_special_ranges, []);
    assert_eq!(settings.registrars.policy.ports, [5060, 5061]);
    let registrars = &settings.registrars.policy;
    assert_eq!((registrars.rate, registrars.rate_max, registrars.drain_rate), (50, 1_000, 100));
    assert_eq!(settings.registrars.ca_pem, None);
    assert_eq!(settings.lease.default, Duration::from_secs(3 * 86_400));
    assert_eq!(settings.lease.maximum, Duration::from_secs(6 * 86_400));
    assert_eq!(settings.calls.hold, Duration::from_secs(45));
    assert_eq!(settings.calls.silence, Duration::from_millis(500));
    assert_eq!(settings.calls.early_response.map(|status| status.code()), Some(180));
    assert_eq!(settings.calls.apns_expiry, Duration::from_secs(10));
    assert_eq!(settings.erasure.grace, Duration::from_secs(2));
    assert_eq!(settings.audit.path.as_deref(), Some(Path::new("/var/lib/reveille/audit.log")));
    assert_eq!(settings.audit.signing_key, None);
    assert_eq!(settings.audit.sync_wait, Duration::from_secs(1));
    assert_eq!(settings.audit.segment_records, 1_000_000);
    assert_eq!(settings.drain.calls, Duration::from_secs(10));
    assert_eq!(settings.drain.deadline, Duration::from_secs(60));
    assert!(!settings.vault.allow_plain_memory);
    assert_eq!(settings.ops, Ops { listen: vec![OpsListen::Tcp(OPS_LISTEN)], ..Ops::default() });
    assert_eq!(settings.log, Log { format: LogFormat::Text, level: LogLevel::Info });
    assert_eq!(settings.limits, Limits::default());
    assert_eq!(settings.tenants[0].caller_in_push, CallerInPush::None);
    assert_eq!(settings.tenants[0].jwt_key, None);
    assert!(!settings.tenants[0].jwt_required);
    assert_eq!(settings.tenants[0].accounts, TenantAccounts::default());
}

/// The file we ship with its commented keys switched on, except those that are said to have no default.
fn without_comment_marks(text: &str) -> String {
    const NO_DEFAULT: [&str; 19] = [
        "tls_certificate",
        "tls_key",
        "tls_ca_file",
        "token_sha256",
        "client_ca_file",
        "registrars_allow",
        "modes",
        "lease_maximum",
        "instances_max",
        "signing_key",
        "jwt_public_key",
        "team_id",
        "key_id",
        "key_file",
        "environment",
        "service_account_file",
        "ca_file",
        "REVEILLE__REGISTRARS__PORTS",
        "reveille",
    ];
    let switch_on = |line: &str| match line.strip_prefix("# ") {
        Some(key) if key.contains(" = ") && !NO_DEFAULT.iter().any(|name| key.starts_with(name)) => key.to_owned(),
        _ => line.to_owned(),
    };
    text.lines().map(|line| switch_on(line) + "\n").collect()
}
