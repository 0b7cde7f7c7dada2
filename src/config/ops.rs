//! `[ops]`: where operators ask, and what they have to show once others could.

use std::net::SocketAddr;

use super::section::{Entry, Section};
use super::settings::{APP_KEYS_MAX, OPS_LISTEN, Ops, OpsListen};
use super::{files, values};

/// Reads the section; its TCP addresses once more with their places.
pub(super) fn read(mut section: Section<'_>) -> (Vec<Entry<SocketAddr>>, Ops) {
    let default = Entry { place: section.place(), value: OpsListen::Tcp(OPS_LISTEN) };
    let listen = section.list("listen", values::ops_listen, None).unwrap_or_else(|| vec![default]);
    let (with_token, with_clients) = (section.has("token_sha256"), section.has("client_ca_file"));
    let token_sha256 = tokens(&mut section);
    let tls = files::tls(&mut section);
    let client_ca = files::load(&mut section, "client_ca_file", super::material::roots);
    if let (Some(Entry { place, .. }), None) = (&client_ca, &tls) {
        let problem = "needs tls_certificate and tls_key: without TLS nobody shows a certificate";
        section.mistake(place, "client_ca_file", problem);
    }
    let tcp = |entry: &Entry<OpsListen>| match entry.value {
        OpsListen::Tcp(address) => Some(Entry { place: entry.place.clone(), value: address }),
        OpsListen::Unix(_) => None,
    };
    let addresses: Vec<_> = listen.iter().filter_map(tcp).collect();
    for Entry { place, .. } in addresses.iter().filter(|entry| !entry.value.ip().is_loopback()) {
        if !with_token && !with_clients {
            let problem = "is not a loopback address, and whoever reached it could read metrics and calls: set \
                           ops.token_sha256, or ops.client_ca_file with ops.tls_certificate, or listen at \
                           \"127.0.0.1:9464\" or \"unix:/run/reveille/ops.sock\"";
            section.mistake(place, "listen", problem);
        } else if tls.is_none() {
            let path = section.path("listen");
            let problem =
                "is not a loopback address, and the token travels there in plain HTTP; set ops.tls_certificate";
            section.report.warning(place.clone(), path, problem);
        }
    }
    section.finish();
    let listen = listen.into_iter().map(|entry| entry.value).collect();
    (addresses, Ops { listen, token_sha256, tls, client_ca_pem: client_ca.map(|entry| entry.value) })
}

fn tokens(section: &mut Section<'_>) -> Vec<[u8; 32]> {
    let empty = "is empty; leave it out where no token is wanted";
    let entries = section.list("token_sha256", values::token_sha256, Some(empty)).unwrap_or_default();
    if let Some(entry) = entries.get(APP_KEYS_MAX) {
        let problem = format!("has more than {APP_KEYS_MAX} tokens: the present one and the one it is rotated with");
        section.mistake(&entry.place, "token_sha256", problem);
    }
    entries.into_iter().map(|entry| entry.value).collect()
}
