//! Real SIP phones as the woken app.
//!
//! A phone is started with the attach data and nothing else, rings until it is told to answer, and is told to hang up.
//! What it saw is read from its own trace. The three differ in how they are configured and told; that is all these files
//! know. None of them plays or records: the machine has no sound card.

mod baresip;
mod linphone;
mod pjsip;

use std::io::Write;
use std::net::TcpStream;
use std::path::PathBuf;

use crate::process::Process;
use crate::trace::Trace;
use crate::world::{Transport, World, free_port};

/// Which phone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Make {
    Pjsip,
    Baresip,
    Linphone,
}

/// What a phone must know to register.
#[derive(Clone, Debug)]
pub(crate) struct Attach {
    /// `sip:USER@DOMAIN`.
    pub(crate) aor: String,
    /// Where everything is sent, as the domain resolves nowhere: `sip:ADDRESS:PORT;transport=…`.
    pub(crate) proxy: String,
    pub(crate) transport: Transport,
    pub(crate) username: String,
    pub(crate) password: String,
    pub(crate) realm: String,
    /// Trusted for TLS.
    pub(crate) ca_file: PathBuf,
}

/// A running phone.
pub(crate) struct Phone {
    process: Process,
    control: Control,
    pub(crate) trace: Trace,
}

/// How a phone is told what to do.
enum Control {
    /// Words on standard input, for "answer" and "hang up".
    Lines { answer: &'static str, hang_up: &'static str },
    /// Netstrings with JSON over TCP, as baresip's `ctrl_tcp` wants them.
    Netstrings(TcpStream),
}

impl Attach {
    fn domain(&self) -> &str {
        self.aor.split_once('@').map_or("", |(_, domain)| domain)
    }
}

impl Phone {
    /// Starts a phone. It registers at once.
    #[track_caller]
    pub(crate) fn start(world: &World, make: Make, attach: &Attach) -> Self {
        let port = free_port();
        let directory = world.directory_of(&format!("{make:?}-{port}").to_lowercase());
        match make {
            Make::Pjsip => pjsip::start(&directory, port, attach),
            Make::Baresip => baresip::start(&directory, port, attach),
            Make::Linphone => linphone::start(&directory, port, attach),
        }
    }

    /// Waits until the registrar has said yes.
    #[track_caller]
    pub(crate) fn wait_registered(&self) {
        self.trace.response(200, "REGISTER");
    }

    /// Waits until the phone rings for a call.
    #[track_caller]
    pub(crate) fn wait_ringing(&self, call_id: &str) {
        self.trace.of_call(call_id).response(180, "INVITE");
    }

    /// Answers the call that rings.
    #[track_caller]
    pub(crate) fn answer(&mut self) {
        match &mut self.control {
            Control::Lines { answer, .. } => self.process.tell(answer),
            Control::Netstrings(stream) => tell(stream, "accept"),
        }
    }

    /// Hangs up the call that is going on.
    #[track_caller]
    pub(crate) fn hang_up(&mut self) {
        match &mut self.control {
            Control::Lines { hang_up, .. } => self.process.tell(hang_up),
            Control::Netstrings(stream) => tell(stream, "hangup"),
        }
    }

    /// Ends the app as a mobile system does: without a word to anyone.
    pub(crate) fn kill(mut self) {
        self.process.kill();
    }
}

#[track_caller]
fn tell(stream: &mut TcpStream, command: &str) {
    let json = serde_json::json!({ "command": command }).to_string();
    write!(stream, "{}:{json},", json.len()).expect("baresip takes commands");
}
