//! Real SIP phones, as the woken app and as the caller.
//!
//! A phone is started with the attach data and nothing else, rings until it is told to answer, and is told what to do in
//! its calls. What it saw is read from its own trace. The three differ in how they are configured and told; that is all
//! these files know. None of them plays or records: the machine has no sound card.

mod baresip;
mod linphone;
mod pjsip;

use std::io::Write;
use std::net::TcpStream;
use std::path::PathBuf;

use crate::pbx::Pbx;
use crate::process::Process;
use crate::trace::{Message, Trace};
use crate::world::{PBX_DOMAIN, Transport, World, free_port};

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
    /// What PJSIP puts into the Request-URI of its REGISTER; none: the domain of its address of record, as linphone always
    /// does.
    pub(crate) registrar: Option<String>,
    /// Parameters of its Contact, each with its semicolon in front: the `pn-*` of RFC 8599.
    pub(crate) contact_params: String,
    /// They stand behind the Contact's URI instead of in it.
    pub(crate) contact_params_behind: bool,
    /// Seconds for which it registers: how soon a phone that does not miss its connection comes back.
    pub(crate) expires: u32,
}

/// How a caller of make PJSIP treats its calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CallerManners {
    /// Requires reliable provisional responses (RFC 3262) of whom it calls.
    pub(crate) require_100rel: bool,
}

/// What a phone does with the call that rings or goes on.
///
/// baresip and linphone have words for the first seven only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order<'a> {
    Answer,
    /// Declines what rings, each make in its own way: PJSIP with the status it is told, baresip with 486, linphone with 603.
    Decline(u16),
    HangUp,
    /// A re-INVITE that stops the other side's media.
    Hold,
    /// A re-INVITE that lets them flow again.
    Resume,
    /// Calls a URI.
    Call(&'a str),
    /// MESSAGE outside of calls, to a URI.
    Message(&'a str, &'a str),
    /// The same to say that it is composing (RFC 3994).
    Typing(&'a str),
    /// 183 with SDP.
    Early,
    /// UPDATE (RFC 3311) with SDP.
    Update,
    /// A digit as INFO.
    Digit(char),
    /// MESSAGE inside the call.
    Text(&'a str),
    /// OPTIONS inside the call.
    Options,
    /// REFER (RFC 3515): the other side is to call this URI.
    Refer(&'a str),
    /// REFER with Replaces (RFC 3891): the other sides of the two calls are to talk to one another.
    Join,
}

/// A running phone.
pub(crate) struct Phone {
    process: Process,
    control: Control,
    pub(crate) trace: Trace,
}

/// How a phone is told what to do.
enum Control {
    /// Lines on its standard input, in the words of its make.
    Lines(for<'a> fn(Order<'a>) -> String),
    /// baresip's module `ctrl_tcp`: JSON in netstrings.
    Netstrings(TcpStream),
}

impl Default for Attach {
    fn default() -> Self {
        Self {
            aor: String::new(),
            proxy: String::new(),
            transport: Transport::Udp,
            username: String::new(),
            password: String::new(),
            realm: String::new(),
            ca_file: PathBuf::new(),
            registrar: None,
            contact_params: String::new(),
            contact_params_behind: false,
            expires: 300,
        }
    }
}

impl Attach {
    /// What a phone must know to be `user` at the PBX itself.
    pub(crate) fn to(pbx: &dyn Pbx, user: &str, password: &str, transport: Transport, world: &World) -> Self {
        Self {
            aor: format!("sip:{user}@{PBX_DOMAIN}"),
            proxy: pbx.uri(transport),
            transport,
            username: user.into(),
            password: password.into(),
            realm: PBX_DOMAIN.into(),
            ca_file: world.ca_file(),
            ..Self::default()
        }
    }

    /// The host of the address of record.
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

    /// Starts bob, a PJSIP that calls through the PBX over UDP and registers nowhere. For calls in which the caller's side
    /// does more than SIPp's scenarios can wait for.
    #[track_caller]
    pub(crate) fn caller(world: &World, pbx: &dyn Pbx, manners: CallerManners) -> Self {
        let port = free_port();
        let directory = world.directory_of(&format!("caller-{port}"));
        let attach = Attach::to(pbx, "bob", "never asked for", Transport::Udp, world);
        pjsip::start_caller(&directory, port, &attach, manners)
    }

    /// Calls a user of the PBX and returns the Call-ID.
    #[track_caller]
    pub(crate) fn call(&mut self, user: &str) -> String {
        let before = self.trace.distinct("INVITE").len();
        self.obey(Order::Call(&format!("sip:{user}@{PBX_DOMAIN}")));
        self.trace.nth("INVITE", before + 1).header("Call-ID").expect("every INVITE has one").to_owned()
    }

    /// Waits until the registrar has said yes.
    #[track_caller]
    pub(crate) fn wait_registered(&self) {
        self.trace.response(200, "REGISTER");
    }

    /// Waits until the phone rings for a call.
    #[track_caller]
    pub(crate) fn wait_ringing(&self, call_id: &str) -> Message {
        self.trace.of_call(call_id).response(180, "INVITE")
    }

    /// Answers the call that rings.
    #[track_caller]
    pub(crate) fn answer(&mut self) {
        self.obey(Order::Answer);
    }

    /// Hangs up the call that is going on.
    #[track_caller]
    pub(crate) fn hang_up(&mut self) {
        self.obey(Order::HangUp);
    }

    /// Does something with its call.
    #[track_caller]
    pub(crate) fn obey(&mut self, order: Order<'_>) {
        match &mut self.control {
            Control::Lines(words) => self.process.tell(&words(order)),
            Control::Netstrings(stream) => {
                let json = serde_json::json!({ "command": baresip::words(order) }).to_string();
                write!(stream, "{}:{json},", json.len()).expect("baresip takes commands");
            }
        }
    }

    /// Ends the app as a mobile system does: without a word to anyone.
    pub(crate) fn kill(mut self) {
        self.process.kill();
    }
}
