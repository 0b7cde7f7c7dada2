//! PJSIP 2.15 through pjsua2, driven by `pjsip.py`.
//!
//! Its messages are read from standard output, which must not be buffered; a log file of its own is written in blocks. Its
//! REGISTER carries a `Route` with the outbound proxy. Its `+sip.instance` is made from the host's name, the same for every
//! phone on one machine. The wheel brings OpenSSL 1.0.2: TLS 1.2 is the best it can.

use std::fs;
use std::path::Path;

use serde_json::json;

use super::{Attach, CallerManners, Control, Order, Phone};
use crate::process::{Process, installed, until};
use crate::trace::Trace;
use crate::world::target_directory;

/// How often PJSIP is started where it ends itself by its own flaw.
const STARTS_MAX: u32 = 4;

#[track_caller]
pub(super) fn start(directory: &Path, port: u16, attach: &Attach) -> Phone {
    run(directory, port, attach, true, CallerManners::default())
}

#[track_caller]
pub(super) fn start_caller(directory: &Path, port: u16, attach: &Attach, manners: CallerManners) -> Phone {
    run(directory, port, attach, false, manners)
}

#[track_caller]
fn run(directory: &Path, port: u16, attach: &Attach, register: bool, manners: CallerManners) -> Phone {
    let script = directory.join("pjsip.py");
    fs::write(&script, include_str!("pjsip.py")).expect("the test directory is writable");
    let orders = json!({
        "aor": attach.aor,
        "proxy": attach.proxy,
        "transport": attach.transport.name(),
        "username": attach.username,
        "password": attach.password,
        "ca_file": attach.ca_file,
        "registrar": attach.registrar,
        "contact_params": attach.contact_params,
        "contact_params_behind": attach.contact_params_behind,
        "expires": attach.expires,
        "register": register,
        "require_100rel": manners.require_100rel,
        "rtp_port": port,
    });
    let file = directory.join("attach.json");
    fs::write(&file, orders.to_string()).expect("the test directory is writable");
    let python = target_directory().join("pjsip-venv/bin/python");
    assert!(python.exists(), "PJSIP is not installed; scripts/peers installs it");
    let begin = || {
        Process::start("pjsip", directory, &installed("stdbuf"), |command| {
            command.arg("-oL").arg(&python).arg(&script).arg(&file);
        })
    };
    let mut process = begin();
    for _ in 1..STARTS_MAX {
        if attach.contact_params.is_empty() || !ended_by_its_own_flaw(&mut process) {
            break;
        }
        process = begin();
    }
    let trace = Trace::new("PJSIP", &directory.join("pjsip.out"));
    Phone { process, control: Control::Lines(words), trace }
}

/// Waits until PJSIP has started, or ended itself: with `contactUriParams` version 2.15.1 parses its own Contact from a buffer
/// that it did not terminate, and about one start in a hundred fails an assertion before anything is sent.
#[track_caller]
fn ended_by_its_own_flaw(process: &mut Process) -> bool {
    until("PJSIP to start", || {
        let (ended, output) = (process.ended().is_some(), process.output());
        let flawed = ended && output.contains("update_regc_contact: Assertion");
        (flawed || ended || output.contains(" started")).then_some(flawed)
    })
}

/// The orders as `pjsip.py` knows them.
fn words(order: Order<'_>) -> String {
    match order {
        Order::Answer => "answer".into(),
        Order::Decline(code) => format!("decline {code}"),
        Order::HangUp => "hangup".into(),
        Order::Hold => "hold".into(),
        Order::Resume => "resume".into(),
        Order::Call(uri) => format!("call {uri}"),
        Order::Message(uri, text) => format!("message {uri} {text}"),
        Order::Typing(uri) => format!("typing {uri}"),
        Order::Early => "early".into(),
        Order::Update => "update".into(),
        Order::Digit(digit) => format!("digit {digit}"),
        Order::Text(text) => format!("text {text}"),
        Order::Options => "options".into(),
        Order::Refer(uri) => format!("refer {uri}"),
        Order::Join => "join".into(),
    }
}
