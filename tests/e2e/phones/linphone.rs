//! linphone 5.1, its console program `linphonec`.
//!
//! Its log (`-d 6 -l`) holds the messages and is flushed line by line. Its port must be a number: with `sip_port=-1` and the
//! other transports off it opens no socket at all. `$HOME/.local/share/linphone` must exist. Its mbedTLS compares the name
//! in a certificate with DNS names only, so a proxy given by address never matches; the chain is still verified.
//! It writes `To: sip:…` without brackets and no `Route` in REGISTER. It answers an INVITE that requires 100rel with a
//! plain 180 unless `100rel_support_level` says otherwise. It declines with 603, whatever one asks for.

use std::fs;
use std::path::Path;

use super::{Attach, Control, Order, Phone};
use crate::process::{Process, installed};
use crate::trace::Trace;
use crate::world::Transport;

#[track_caller]
pub(super) fn start(directory: &Path, port: u16, attach: &Attach) -> Phone {
    let file = directory.join("linphonerc");
    fs::write(&file, configuration(port, attach))
        .and_then(|()| fs::create_dir_all(directory.join(".local/share/linphone")))
        .expect("the test directory is writable");
    let log = directory.join("linphone.log");
    let process = Process::start("linphone", directory, &installed("linphonec"), |command| {
        command.env("HOME", directory).args(["-d", "6", "-l"]).arg(&log).arg("-c").arg(&file);
    });
    Phone { process, control: Control::Lines(words), trace: Trace::new("linphone", &log) }
}

/// The orders as linphonec knows them.
fn words(order: Order<'_>) -> String {
    match order {
        Order::Answer => "answer".into(),
        Order::Decline(_) | Order::HangUp => "terminate".into(),
        Order::Hold => "pause".into(),
        Order::Resume => "resume".into(),
        Order::Call(uri) => format!("call {uri}"),
        Order::Refer(uri) => format!("transfer {uri}"),
        other => panic!("linphonec has no word for {other:?}"),
    }
}

fn configuration(port: u16, attach: &Attach) -> String {
    // linphone puts the semicolon itself.
    let place = if attach.contact_params_behind { "contact_parameters" } else { "contact_uri_parameters" };
    let parameters = match attach.contact_params.strip_prefix(';') {
        Some(parameters) => format!("{place}={parameters}\n"),
        None => String::new(),
    };
    let port_for = |transport| if attach.transport == transport { port } else { 0 };
    format!(
        "[sip]\n\
         default_proxy=0\n\
         sip_port={udp}\n\
         sip_tcp_port={tcp}\n\
         sip_tls_port={tls}\n\
         bind_address=127.0.0.1\n\
         use_ipv6=0\n\
         guess_hostname=0\n\
         register_only_when_network_is_up=0\n\
         100rel_support_level=1\n\
         root_ca={ca}\n\
         verify_server_certs=1\n\
         verify_server_cn=0\n\
         [rtp]\n\
         audio_rtp_port={rtp}\n\
         [auth_info_0]\n\
         username={username}\n\
         passwd={password}\n\
         realm={realm}\n\
         domain={domain}\n\
         [proxy_0]\n\
         reg_proxy=<{proxy}>\n\
         reg_route=<{proxy};lr>\n\
         reg_identity={aor}\n\
         reg_expires={expires}\n\
         reg_sendregister=1\n\
         publish=0\n\
         {parameters}",
        udp = port_for(Transport::Udp),
        tcp = port_for(Transport::Tcp),
        tls = port_for(Transport::Tls),
        ca = attach.ca_file.display(),
        rtp = port + 2,
        username = attach.username,
        password = attach.password,
        realm = attach.realm,
        domain = attach.domain(),
        proxy = attach.proxy,
        aor = attach.aor,
        expires = attach.expires,
        parameters = parameters,
    )
}
