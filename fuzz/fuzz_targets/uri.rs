//! Any bytes: no panic; the parts of a URI put together again are an equivalent URI.
#![no_main]

use libfuzzer_sys::fuzz_target;
use reveille::sip::uri::{Host, Uri, equivalent, unescape};

fuzz_target!(|data: &[u8]| {
    let _ = unescape(data);
    let Ok(uri) = Uri::parse(data) else { return };
    assert_eq!(uri.raw(), data);
    assert!(equivalent(&uri, &uri));
    assert_eq!(uri.has_lr(), uri.param("LR").is_some());
    if !uri.is_sip() && !uri.is_sips() {
        assert_eq!((uri.host(), uri.user(), uri.port()), (Host::Name(""), None, None));
        return;
    }
    let written = write(&uri);
    let again = Uri::parse(&written).expect("what we write, we read");
    assert_eq!(
        (uri.user(), uri.password(), uri.host(), uri.port()),
        (again.user(), again.password(), again.host(), again.port())
    );
    assert!(uri.params().eq(again.params()));
    assert_eq!(uri.headers(), again.headers());
});

fn write(uri: &Uri<'_>) -> Vec<u8> {
    let mut out = format!("{}:", uri.scheme()).into_bytes();
    if let Some(user) = uri.user() {
        out.extend_from_slice(user);
        if let Some(password) = uri.password() {
            out.push(b':');
            out.extend_from_slice(password);
        }
        out.push(b'@');
    }
    match uri.host() {
        Host::Name(name) => out.extend_from_slice(name.as_bytes()),
        Host::Address(address) if address.is_ipv6() => out.extend_from_slice(format!("[{address}]").as_bytes()),
        Host::Address(address) => out.extend_from_slice(address.to_string().as_bytes()),
    }
    if let Some(port) = uri.port() {
        out.extend_from_slice(format!(":{port}").as_bytes());
    }
    for (name, value) in uri.params() {
        out.extend_from_slice(value.map_or(format!(";{name}"), |value| format!(";{name}={value}")).as_bytes());
    }
    if !uri.headers().is_empty() {
        out.push(b'?');
        out.extend_from_slice(uri.headers());
    }
    out
}
