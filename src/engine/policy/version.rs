//! The version of a policy: a short name for what the operator decided, which records, summaries and evidence carry.
//!
//! It is a hash of a text whose form is told in `docs/receipts.md` and is our own, so that neither the compiler nor a
//! renamed type changes it: whoever has the configuration can write the text down and compare. A decision that is added
//! gets a line where it is taken, and none where it is not: configurations that know nothing of it keep their version.

use std::fmt::{Display, Write as _};
use std::time::Duration;

use super::{AppPolicy, Policy, RegistrarPolicy, TenantPolicy};
use crate::engine::account::TrunkHost;
use crate::engine::edge_registrar::EdgeRegistrar;
use crate::engine::input::Mode;

/// The first line. Another form gets another one.
const FORM: &str = "reveille-policy/v1\n";
/// Bytes of the hash that are shown.
const SHOWN: usize = 8;

impl Policy {
    /// Names what the operator decided about leases, registrars, ends and tenants: 16 letters of a SHA-256 in hex. Two
    /// policies that differ in any of it have different versions; listeners, waits and limits do not count.
    #[must_use]
    pub fn version(&self) -> String {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, self.text().as_bytes());
        digest.as_ref()[..SHOWN].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// What is hashed.
    fn text(&self) -> String {
        let Self {
            domain,
            listeners: _,
            register_wait: _,
            registrars: RegistrarPolicy { allow, allow_special_ranges, ports, rate: _, rate_max: _, drain_rate: _ },
            lease_default,
            lease_maximum,
            hold: _,
            silence: _,
            early_response: _,
            erasure_grace,
            drain_calls: _,
            messages_keep,
            tenants,
            limits: _,
        } = self;
        let mut lines = Lines(FORM.to_owned());
        lines.one("domain", domain);
        lines.time("lease.default", *lease_default);
        lines.time("lease.maximum", *lease_maximum);
        lines.time("erasure.grace", *erasure_grace);
        lines.time("messages.keep", *messages_keep);
        lines.each("registrars.allow", allow);
        lines.each("registrars.allow_special_ranges", allow_special_ranges);
        lines.each("registrars.ports", ports);
        tenants.iter().for_each(|tenant| lines.tenant(tenant));
        lines.0
    }
}

/// `NAME LENGTH VALUE` and a line feed, for each. The length is that of the value in bytes, so that no value can be taken
/// for another line.
struct Lines(String);

impl Lines {
    fn one(&mut self, name: &str, value: impl Display) {
        let value = value.to_string();
        writeln!(self.0, "{name} {} {value}", value.len()).expect("a String never refuses");
    }

    fn time(&mut self, name: &str, value: Duration) {
        self.one(name, value.as_nanos());
    }

    fn each(&mut self, name: &str, values: impl IntoIterator<Item = impl Display>) {
        values.into_iter().for_each(|value| self.one(name, value));
    }

    /// What is decided is told, and what is not is left out.
    fn flag(&mut self, name: &str, decided: bool) {
        if decided {
            self.one(name, true);
        }
    }

    /// Its first line tells where the last tenant's end.
    fn tenant(&mut self, tenant: &TenantPolicy) {
        let TenantPolicy {
            id,
            caller_in_push,
            prove_push_token,
            apps,
            wakes_off,
            keep_password,
            edge_registrars,
            registrars_allow,
            modes,
            lease_maximum,
            tls_trunks_only,
            instances_max,
        } = tenant;
        self.one("tenant", id);
        self.one("caller_in_push", caller_in_push.as_str());
        self.flag("prove_push_token", *prove_push_token);
        self.flag("keep_password", *keep_password);
        self.flag("tls_trunks_only", *tls_trunks_only);
        self.each("wakes_off", wakes_off.iter().map(|kind| kind.as_str()));
        self.each("edge_registrars", edge_registrars.iter().map(edge_registrar));
        self.each("registrars_allow", registrars_allow);
        self.each("modes", modes.iter().copied().map(Mode::as_str));
        lease_maximum.iter().for_each(|maximum| self.time("lease_maximum", *maximum));
        self.each("instances_max", instances_max);
        for AppPolicy { id, provider, owner } in apps {
            self.one("app", id);
            self.one("provider", provider.as_str());
            self.each("owner", owner);
        }
    }
}

/// As it can be written in the configuration.
fn edge_registrar(registrar: &EdgeRegistrar) -> String {
    let EdgeRegistrar { host, port, transport, path } = registrar;
    let mut text = match host {
        TrunkHost::Name(name) => name.clone(),
        TrunkHost::Address(address) if address.is_ipv6() => format!("[{address}]"),
        TrunkHost::Address(address) => address.to_string(),
    };
    let port = port.map(|port| format!(":{port}"));
    let transport = transport.map(|transport| format!(";transport={}", transport.as_param()));
    text.extend([port, transport, path.then(|| ";path".to_owned())].into_iter().flatten());
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::limits::Limits;
    use crate::engine::output::WakeKind;
    use crate::engine::policy::{CallerInPush, Provider};

    /// Everything that counts is decided.
    fn policy() -> Policy {
        let registrars = RegistrarPolicy {
            allow: vec!["*.example.com".to_owned(), "pbx.example.net".to_owned()],
            allow_special_ranges: vec!["10.0.0.0/8".parse().expect("a range")],
            ports: vec![5060, 5061],
            rate: 50,
            rate_max: 1_000,
            drain_rate: 100,
        };
        let tenant = TenantPolicy {
            id: "acme".into(),
            caller_in_push: CallerInPush::Sealed,
            prove_push_token: true,
            apps: vec![
                AppPolicy {
                    id: "com.example.phone".to_owned(),
                    provider: Provider::Apns,
                    owner: Some("TEAM".to_owned()),
                },
                AppPolicy { id: "com.example.phone".to_owned(), provider: Provider::Fcm, owner: None },
            ],
            wakes_off: vec![WakeKind::MissedCall, WakeKind::Expiring],
            keep_password: true,
            edge_registrars: ["pbx.example.com:5061;transport=tls;path", "[2001:db8::1]"]
                .map(|text| EdgeRegistrar::parse(text).expect("an entry"))
                .to_vec(),
            registrars_allow: vec!["*.example.com".to_owned()],
            modes: vec![Mode::Background, Mode::Takeover],
            lease_maximum: Some(Duration::from_secs(3600)),
            tls_trunks_only: true,
            instances_max: Some(7),
        };
        Policy {
            domain: "edge.example.net".to_owned(),
            registrars,
            lease_default: Duration::from_secs(259_200),
            lease_maximum: Duration::from_secs(518_400),
            erasure_grace: Duration::from_millis(1500),
            messages_keep: Duration::from_secs(86_400),
            tenants: vec![tenant, TenantPolicy { id: "plain".into(), ..TenantPolicy::default() }],
            ..Policy::bare(Limits::default())
        }
    }

    #[test]
    fn the_text_is_the_one_that_is_documented_and_so_is_its_hash() {
        let text = "reveille-policy/v1\n\
            domain 16 edge.example.net\n\
            lease.default 15 259200000000000\n\
            lease.maximum 15 518400000000000\n\
            erasure.grace 10 1500000000\n\
            messages.keep 14 86400000000000\n\
            registrars.allow 13 *.example.com\n\
            registrars.allow 15 pbx.example.net\n\
            registrars.allow_special_ranges 10 10.0.0.0/8\n\
            registrars.ports 4 5060\n\
            registrars.ports 4 5061\n\
            tenant 4 acme\n\
            caller_in_push 6 sealed\n\
            prove_push_token 4 true\n\
            keep_password 4 true\n\
            tls_trunks_only 4 true\n\
            wakes_off 11 missed-call\n\
            wakes_off 8 expiring\n\
            edge_registrars 39 pbx.example.com:5061;transport=tls;path\n\
            edge_registrars 13 [2001:db8::1]\n\
            registrars_allow 13 *.example.com\n\
            modes 10 background\n\
            modes 8 takeover\n\
            lease_maximum 13 3600000000000\n\
            instances_max 1 7\n\
            app 17 com.example.phone\n\
            provider 4 apns\n\
            owner 4 TEAM\n\
            app 17 com.example.phone\n\
            provider 3 fcm\n\
            tenant 5 plain\n\
            caller_in_push 4 none\n";
        assert_eq!(policy().text(), text);
        // Records that were written must stay comparable: whoever changes this value makes another form.
        assert_eq!(policy().version(), "5f0d41c8d10dfa03");
    }

    #[test]
    fn every_decision_counts() {
        let changes: [fn(&mut Policy); 21] = [
            |it| it.domain.push('x'),
            |it| it.lease_default *= 2,
            |it| it.lease_maximum /= 2,
            |it| it.erasure_grace *= 2,
            |it| it.messages_keep *= 2,
            |it| drop(it.registrars.allow.pop()),
            |it| it.registrars.allow_special_ranges.clear(),
            |it| it.registrars.ports.reverse(),
            |it| it.tenants.reverse(),
            |it| it.tenants[0].caller_in_push = CallerInPush::Clear,
            |it| it.tenants[0].prove_push_token = false,
            |it| it.tenants[0].apps[0].owner = None,
            |it| it.tenants[0].wakes_off.clear(),
            |it| it.tenants[0].keep_password = false,
            |it| it.tenants[0].edge_registrars[0].path = false,
            // A host shows nothing of itself in `Debug`: no hash of that would know it.
            |it| it.tenants[0].edge_registrars[0].host = TrunkHost::Name("other.example.com".to_owned()),
            |it| it.tenants[0].registrars_allow.clear(),
            |it| it.tenants[0].modes.clear(),
            |it| it.tenants[0].lease_maximum = None,
            |it| it.tenants[0].tls_trunks_only = false,
            |it| it.tenants[0].instances_max = None,
        ];
        let mut versions = vec![policy().version()];
        for (place, change) in changes.iter().enumerate() {
            let mut changed = policy();
            change(&mut changed);
            let version = changed.version();
            assert!(!versions.contains(&version), "{place}");
            versions.push(version);
        }
    }

    #[test]
    fn what_is_no_decision_about_anybodys_data_does_not_count() {
        let plain = policy();
        let other = Policy {
            register_wait: Duration::from_secs(9),
            hold: Duration::from_secs(9),
            limits: Limits { instances: 1, ..Limits::default() },
            ..plain.clone()
        };
        assert_eq!(plain.version(), other.version());
    }

    #[test]
    fn no_value_can_pass_for_another_line() {
        let with = |patterns: &[&str]| {
            let mut policy = policy();
            policy.registrars.allow = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
            policy.version()
        };
        assert_ne!(with(&["a", "b"]), with(&["a\nregistrars.allow 1 b"]));
    }
}
