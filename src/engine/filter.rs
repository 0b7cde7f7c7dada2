//! Which addresses a trunk may lead to: never ourselves, never a special-purpose range unless the operator allows it.
//!
//! The ranges are those of the IANA special-purpose registries (RFC 6890) that are not globally reachable, and multicast.
//! Addresses that carry an IPv4 address inside (mapped, NAT64, 6to4) are judged by what they carry.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::account::{Account, TrunkHost, TrunkUri};
use super::input::Located;
use super::policy::{Policy, RegistrarPolicy, TenantPolicy};
use crate::sip::Transport;

/// Whether a trunk may be opened to what a next hop was resolved to; where the hop names a transport, over that alone.
pub(crate) fn target_allowed(policy: &Policy, transport: Option<Transport>, located: &Located) -> bool {
    let address = located.address;
    transport.is_none_or(|wanted| wanted == located.transport)
        && policy.registrars.ports.contains(&address.port())
        && range_allowed(&policy.registrars, address.ip())
        && !is_ours(policy, address)
}

/// Whether the operator allows a tenant's account to be registered there: its registrar's name or literal address, and the
/// port where it has one; the same of its outbound proxy.
pub(crate) fn account_allowed(policy: &Policy, tenant: &str, account: &Account) -> Result<(), &'static str> {
    let tenant = policy.tenant(tenant);
    let hops = [Some(&account.registrar), account.outbound_proxy.as_ref()];
    for hop in hops.into_iter().flatten() {
        registrar_allowed(&policy.registrars, hop)?;
        tenant.map_or(Ok(()), |tenant| tenant_allowed(tenant, hop))?;
    }
    Ok(())
}

/// What a tenant's own policy says of a next hop.
fn tenant_allowed(tenant: &TenantPolicy, uri: &TrunkUri) -> Result<(), &'static str> {
    let host = host_of(uri);
    let patterns = &tenant.registrars_allow;
    if !patterns.is_empty() && !patterns.iter().any(|pattern| matches_pattern(pattern, &host)) {
        return Err("the host is not among the registrars that this tenant may use");
    }
    if !is_encrypted(tenant, uri) {
        return Err("accounts of this tenant are registered over TLS alone: add ;transport=tls");
    }
    Ok(())
}

/// Whether a next hop is as encrypted as its tenant wants. A URI that names TLS is never resolved to anything else.
pub(crate) fn is_encrypted(tenant: &TenantPolicy, uri: &TrunkUri) -> bool {
    !tenant.tls_trunks_only || uri.transport == Some(Transport::Tls)
}

fn host_of(uri: &TrunkUri) -> String {
    match &uri.host {
        TrunkHost::Name(name) => name.clone(),
        TrunkHost::Address(address) => address.to_string(),
    }
}

fn registrar_allowed(policy: &RegistrarPolicy, uri: &TrunkUri) -> Result<(), &'static str> {
    let host = host_of(uri);
    if !policy.allow.iter().any(|pattern| matches_pattern(pattern, &host)) {
        return Err("the host is not among the registrars this server allows");
    }
    if uri.port.is_some_and(|port| !policy.ports.contains(&port)) {
        return Err("the port is not among those this server allows for registrars");
    }
    Ok(())
}

fn matches_pattern(pattern: &str, host: &str) -> bool {
    let host = host.trim_end_matches('.');
    match pattern.strip_prefix("*.") {
        _ if pattern == "*" => true,
        Some(suffix) => host
            .len()
            .checked_sub(suffix.len() + 1)
            .is_some_and(|cut| host.as_bytes()[cut] == b'.' && host[cut + 1..].eq_ignore_ascii_case(suffix)),
        None => pattern.eq_ignore_ascii_case(host),
    }
}

/// Whether the range `address` lies in may be sent to.
pub(crate) fn range_allowed(policy: &RegistrarPolicy, address: IpAddr) -> bool {
    let inner = carried(address);
    if policy.allow_special_ranges.iter().any(|range| range.contains(&inner) || range.contains(&address)) {
        return true;
    }
    match inner {
        IpAddr::V4(address) => !is_special_v4(address),
        IpAddr::V6(address) => !is_special_v6(address),
    }
}

/// The IPv4 address inside an IPv6 one, where there is one.
fn carried(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let segments = v6.segments();
    let low = || Ipv4Addr::from((u32::from(segments[6]) << 16) | u32::from(segments[7]));
    match segments {
        [0, 0, 0, 0, 0, 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => IpAddr::V4(low()),
        [0, 0, 0, 0, 0, 0, high, last] if high != 0 || last > 1 => IpAddr::V4(low()),
        [0x2002, high, last, ..] => IpAddr::V4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(last))),
        _ => address,
    }
}

fn is_special_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    matches!(
        (a, b, c),
        (0 | 10 | 127 | 224..=255, ..)
            | (169, 254, _)
            | (192, 168, _)
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            | (198, 18 | 19, _)
            | (198, 51, 100)
            | (203, 0, 113)
            | (100, 64..=127, _)
            | (172, 16..=31, _)
    )
}

fn is_special_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    match segments[0] {
        // Outside 2000::/3 nothing is global unicast.
        first if first & 0xe000 != 0x2000 => true,
        0x2001 => segments[1] < 0x200 || segments[1] == 0xdb8,
        0x3fff => segments[1] < 0x1000,
        _ => false,
    }
}

/// Our own listeners: a REGISTER to ourselves would be a loop that a stranger pays nothing for.
fn is_ours(policy: &Policy, address: SocketAddr) -> bool {
    policy.listeners.iter().any(|listener| {
        let same_port = listener.local.port() == address.port();
        let same_host = listener.local.ip() == address.ip()
            || (listener.local.ip().is_unspecified() && address.ip().is_loopback())
            || address.ip().is_unspecified();
        (same_port && same_host) || listener.advertise == address.to_string()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(allow: &[&str]) -> RegistrarPolicy {
        RegistrarPolicy {
            allow: allow.iter().map(|&pattern| pattern.to_owned()).collect(),
            allow_special_ranges: vec!["10.1.0.0/16".parse().expect("a range")],
            ports: vec![5060, 5061],
            rate: 50,
            rate_max: 1_000,
            drain_rate: 100,
        }
    }

    #[test]
    fn special_purpose_addresses_are_refused_also_when_carried_inside_ipv6() {
        for text in [
            "127.0.0.1",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "192.0.2.1",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "ff02::1",
            "2001:db8::1",
            "::ffff:127.0.0.1",
            "64:ff9b::10.0.0.1",
            "2002:7f00:1::",
            "::127.0.0.1",
            "2001::1",
            "64:ff9b:1::1",
            "100::1",
            "3fff::1",
            "5f00::1",
        ] {
            assert!(!range_allowed(&policy(&["*"]), text.parse().expect("an address")), "{text}");
        }
    }

    #[test]
    fn global_addresses_and_ranges_the_operator_allows_pass() {
        for text in ["8.8.8.8", "2606:4700::1", "10.1.2.3", "::ffff:10.1.2.3", "100.128.0.1", "172.32.0.1"] {
            assert!(range_allowed(&policy(&["*"]), text.parse().expect("an address")), "{text}");
        }
    }

    #[test]
    fn a_pattern_with_a_star_matches_subdomains_only() {
        assert!(matches_pattern("*.example.com", "a.b.example.com"));
        assert!(!matches_pattern("*.example.com", "example.com"));
        assert!(!matches_pattern("*.example.com", "badexample.com"));
        assert!(matches_pattern("PBX.example.com", "pbx.example.com."));
    }
}
