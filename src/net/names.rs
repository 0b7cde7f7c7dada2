//! What this machine says about names: its DNS servers and its hosts file, read once.
//!
//! A room of its own because it is read before the process is confined, after which these files are out of reach, and
//! because trunks and push providers both need it. Names of the hosts file (and `localhost`, RFC 6761 §6.3) answer without
//! any server. Refuses to judge addresses.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use hickory_resolver::config::{LookupIpStrategy, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{Hosts, TokioResolver};

/// One attempt of one question to one server.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);
/// Attempts of one question.
const QUERY_ATTEMPTS: usize = 2;

/// The servers and the hosts file of this machine.
#[derive(Default)]
pub struct Names {
    pub(super) hosts: Hosts,
    /// For whole names. Absent where the system names no server.
    pub(super) whole: Option<TokioResolver>,
    /// For names that the machine's search list may complete.
    pub(super) searching: Option<TokioResolver>,
}

impl Names {
    /// Reads the system's files. Without them, or without a server in them, only literal addresses and `localhost` are
    /// found.
    #[must_use]
    pub fn from_system() -> Self {
        let hosts = Hosts::from_system().unwrap_or_default();
        let resolvers = hickory_resolver::system_conf::read_system_conf().and_then(|(config, options)| {
            let (_, _, servers) = config.clone().into_parts();
            // An account's domain is a whole one: the search list of this machine has no say.
            let whole = resolver(ResolverConfig::from_name_servers(servers), options.clone())?;
            Ok((whole, resolver(config, options)?))
        });
        let (whole, searching) = resolvers.inspect_err(|error| tracing::warn!(%error, "no DNS resolver")).ok().unzip();
        Self { hosts, whole, searching }
    }

    /// The addresses of a host of the operator's choice: a literal, a name of the hosts file, or one that DNS knows,
    /// completed by the machine's search list where it has no dot.
    ///
    /// # Errors
    /// No server answered, or none knows the name.
    pub async fn addresses(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        if let Ok(literal) = host.parse() {
            return Ok(vec![literal]);
        }
        if let Some(known) = self.known(host) {
            return Ok(known);
        }
        let resolver = self.searching.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let found = resolver.lookup_ip(host).await.map_err(io::Error::other)?;
        Ok(found.iter().collect())
    }

    /// What needs no server: the hosts file, `localhost`.
    pub(super) fn known(&self, name: &str) -> Option<Vec<IpAddr>> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let in_file = self.in_hosts_file(&name);
        if !in_file.is_empty() {
            return Some(in_file);
        }
        (name == "localhost" || name.ends_with(".localhost"))
            .then(|| vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()])
    }

    fn in_hosts_file(&self, name: &str) -> Vec<IpAddr> {
        let Ok(name) = Name::from_ascii(name) else { return Vec::new() };
        [RecordType::A, RecordType::AAAA]
            .into_iter()
            .filter_map(|kind| self.hosts.lookup_static_host(&Query::query(name.clone(), kind)))
            .flat_map(|lookup| lookup.answers().iter().filter_map(|record| record.data.ip_addr()).collect::<Vec<_>>())
            .collect()
    }

    /// `None`: nobody answered. Empty: the whole name has no such record.
    pub(super) async fn lookup<T>(
        &self,
        name: &str,
        kind: RecordType,
        read: impl Fn(&RData) -> Option<T>,
    ) -> Option<Vec<T>> {
        let mut name = match Name::from_ascii(name) {
            Ok(name) => name,
            Err(_) => return Some(Vec::new()),
        };
        name.set_fqdn(true);
        match self.whole.as_ref()?.lookup(name, kind).await {
            Ok(lookup) => Some(lookup.answers().iter().filter_map(|record| read(&record.data)).collect()),
            Err(error) if error.is_no_records_found() => Some(Vec::new()),
            Err(_) => None,
        }
    }
}

fn resolver(config: ResolverConfig, options: ResolverOpts) -> Result<TokioResolver, NetError> {
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    let own = builder.options_mut();
    *own = options;
    own.timeout = QUERY_TIMEOUT;
    own.attempts = QUERY_ATTEMPTS;
    own.use_hosts_file = ResolveHosts::Never;
    // IPv4 first: nearly every host that listens on IPv6 has a route there, but not every one.
    own.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    builder.build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn literals_and_names_of_the_hosts_file_and_localhost_need_no_server() {
        let mut names = Names::default();
        names
            .hosts
            .read_hosts_conf(&b"192.0.2.9 proxy proxy.example.net\n2001:db8::9 proxy\n"[..])
            .expect("a hosts file");
        let literal = |text: &str| text.parse::<IpAddr>().expect("a literal");
        for (host, found) in [
            ("192.0.2.1", vec!["192.0.2.1"]),
            ("2001:db8::1", vec!["2001:db8::1"]),
            ("Proxy", vec!["192.0.2.9", "2001:db8::9"]),
            ("proxy.example.net.", vec!["192.0.2.9"]),
            ("localhost", vec!["127.0.0.1", "::1"]),
        ] {
            let found: Vec<_> = found.into_iter().map(literal).collect();
            assert_eq!(names.addresses(host).await.expect(host), found, "{host}");
        }
        assert!(names.addresses("elsewhere.example.net").await.is_err());
    }
}
