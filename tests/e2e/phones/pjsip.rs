//! PJSIP 2.15 through pjsua2, driven by `pjsip.py`.
//!
//! Its messages are read from standard output, which must not be buffered; a log file of its own is written in blocks. Its
//! REGISTER carries a `Route` with the outbound proxy. Its `+sip.instance` is made from the host's name, the same for every
//! phone on one machine. The wheel brings OpenSSL 1.0.2: TLS 1.2 is the best it can.

use std::fs;
use std::path::Path;

use serde_json::json;

use super::{Attach, Control, Phone};
use crate::process::{Process, installed};
use crate::trace::Trace;
use crate::world::target_directory;

#[track_caller]
pub(super) fn start(directory: &Path, port: u16, attach: &Attach) -> Phone {
    let script = directory.join("pjsip.py");
    fs::write(&script, include_str!("pjsip.py")).expect("the test directory is writable");
    let orders = json!({
        "aor": attach.aor,
        "proxy": attach.proxy,
        "transport": attach.transport.name(),
        "username": attach.username,
        "password": attach.password,
        "ca_file": attach.ca_file,
        "rtp_port": port,
    });
    let file = directory.join("attach.json");
    fs::write(&file, orders.to_string()).expect("the test directory is writable");
    let python = target_directory().join("pjsip-venv/bin/python");
    assert!(python.exists(), "PJSIP is not installed; scripts/peers installs it");
    let process = Process::start("pjsip", directory, &installed("stdbuf"), |command| {
        command.arg("-oL").arg(&python).arg(&script).arg(&file);
    });
    Phone {
        process,
        control: Control::Lines { answer: "answer", hang_up: "hangup" },
        trace: Trace::new("PJSIP", &directory.join("pjsip.out")),
    }
}
