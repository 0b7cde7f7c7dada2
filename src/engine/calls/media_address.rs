//! Whether an offer names a private media address where the signalling comes from a public one.
//!
//! A PBX that counts us among its local networks offers phones an address they cannot reach, and the call stays silent. The
//! SDP is read for this and nothing else; it is never changed.

use std::net::IpAddr;

/// Whether a connection line (RFC 8866 §5.7) of `sdp` holds a private or link-local address, while `source` is neither.
pub(super) fn is_private(sdp: &[u8], source: IpAddr) -> bool {
    !is_local(source) && sdp.split(|&byte| byte == b'\n').filter_map(connection_address).any(is_local)
}

fn connection_address(line: &[u8]) -> Option<IpAddr> {
    let value = line.strip_prefix(b"c=IN IP4 ").or_else(|| line.strip_prefix(b"c=IN IP6 "))?;
    // A multicast address may be followed by its TTL and count.
    let address = value.split(|&byte| byte == b'/').next()?.trim_ascii();
    std::str::from_utf8(address).ok()?.parse().ok()
}

/// RFC 1918, 6598, 3927 and 4193, link-local and loopback. 0.0.0.0 is "on hold" (RFC 3264 §8.4) and no address.
fn is_local(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let shared = v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64;
            v4.is_private() || v4.is_link_local() || v4.is_loopback() || shared
        }
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local() || v6.is_loopback(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLIC: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 10));

    #[test]
    fn a_private_address_in_any_connection_line_is_seen() {
        for line in
            ["IP4 192.168.1.5", "IP4 10.0.0.1", "IP4 100.64.3.4", "IP4 169.254.1.1", "IP6 fe80::1", "IP6 fd00::7"]
        {
            let sdp = format!(
                "v=0\r\no=- 1 1 IN IP4 198.51.100.10\r\nc=IN IP4 198.51.100.10\r\nm=audio 4 RTP/AVP 8\r\nc=IN {line}\r\n"
            );
            assert!(is_private(sdp.as_bytes(), PUBLIC), "{line}");
        }
    }

    #[test]
    fn nothing_is_said_of_public_addresses_of_origins_of_hold_and_of_trunks_that_are_private_themselves() {
        for line in [
            "IP4 198.51.100.10",
            "IP4 0.0.0.0",
            "IP4 172.32.0.1",
            "IP6 2001:db8::1",
            "IP4 pbx.example.com",
            "IP4 \u{fe}",
        ] {
            assert!(!is_private(format!("o=- 1 1 IN IP4 10.0.0.1\r\nc=IN {line}\r\n").as_bytes(), PUBLIC), "{line}");
        }
        assert!(!is_private(b"c=IN IP4 192.168.1.5\r\n", "192.168.1.1".parse().expect("an address")));
        assert!(!is_private(b"", PUBLIC));
    }
}
