//! Any bytes: no panic; challenges and credentials written again are read as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use reveille::sip::auth::{Challenge, Credentials, Qop, challenges};

fuzz_target!(|data: &[u8]| {
    for challenge in challenges(data, true) {
        let written = write_challenge(&challenge);
        let again: Vec<_> = challenges(&written, true).collect();
        let [again] = &again[..] else { panic!("one challenge is written: {}", String::from_utf8_lossy(&written)) };
        assert_eq!(
            (&challenge.realm, &challenge.nonce, &challenge.opaque),
            (&again.realm, &again.nonce, &again.opaque)
        );
        assert_eq!((challenge.algorithm, challenge.qop, challenge.stale), (again.algorithm, again.qop, again.stale));
        assert_eq!(challenge.session, again.session);
    }
    if let Some(credentials) = Credentials::parse(data) {
        assert!(!credentials.qop_auth || (credentials.nc.is_some() && credentials.cnonce.is_some()));
        let written = write_credentials(&credentials);
        let again = Credentials::parse(written.as_bytes()).expect("what we write, we read");
        assert_eq!((&credentials.username, &credentials.realm), (&again.username, &again.realm));
        assert_eq!((&credentials.uri, credentials.response, credentials.nc), (&again.uri, again.response, again.nc));
    }
});

/// Realm, nonce and opaque are taken as they stand between their quotes, escapes included.
fn write_challenge(challenge: &Challenge<'_>) -> Vec<u8> {
    let algorithm = challenge.algorithm.map_or("unknown", |algorithm| algorithm.as_str());
    let session = if challenge.session { "-sess" } else { "" };
    let qop = match challenge.qop {
        Qop::None => "",
        Qop::Auth => ",qop=\"auth\"",
        Qop::AuthInt => ",qop=auth-int,",
        Qop::Unsupported => ",qop=\"auth-conf\"",
    };
    let mut out = b"Digest realm=\"".to_vec();
    out.extend_from_slice(&challenge.realm);
    out.extend_from_slice(b"\", nonce=\"");
    out.extend_from_slice(&challenge.nonce);
    if let Some(opaque) = &challenge.opaque {
        out.extend_from_slice(b"\",opaque=\"");
        out.extend_from_slice(opaque);
    }
    let rest = format!("\"{qop},algorithm={algorithm}{session},stale={}", challenge.stale);
    out.extend_from_slice(rest.as_bytes());
    out
}

fn write_credentials(credentials: &Credentials<'_>) -> String {
    let nc = credentials.nc.map(|nc| format!(",nc={nc:08x}")).unwrap_or_default();
    let cnonce = credentials.cnonce.as_deref().map(|cnonce| format!(",cnonce={}", quoted(cnonce))).unwrap_or_default();
    let qop = if credentials.qop_auth { ",qop=auth" } else { "" };
    let fields =
        [&credentials.username, &credentials.realm, &credentials.nonce, &credentials.uri].map(|text| quoted(text));
    let [username, realm, nonce, uri] = fields;
    // The response is taken as it stands between its quotes, escapes included.
    let response = credentials.response;
    format!("Digest username={username},realm={realm},nonce={nonce},uri={uri},response=\"{response}\"{qop}{nc}{cnonce}")
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
