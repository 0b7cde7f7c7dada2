//! SIPp, the caller: calls alice through the PBX and records every message.
//!
//! A scenario is put together from the steps below. Traps that shaped them:
//!
//! - SIPp fails on any 1xx it was not told of; the scenario that comes with it does not know 110.
//! - An optional `recv` may not stand right before a `pause`.
//! - A CANCEL and the ACK to the 487 carry the branch of the INVITE, while SIPp makes a new `[branch]` for each request. So
//!   that scenario has a fixed one, without the "@" of a Call-ID: PJSIP drops a request for it, in whosever Via it is.
//! - `rrs="true"` is what fills `[routes]` and `[next_url]`.
//! - Beside its media port it takes the next even ones too, and a control port, 8888 unless told.

use std::fs;

use crate::pbx::Pbx;
use crate::process::{PATIENCE, Process, installed};
use crate::trace::Trace;
use crate::world::{World, free_port};

/// What the caller does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Caller {
    /// Hangs up after a short talk.
    HangsUp,
    /// Waits for the other side to hang up.
    WaitsForBye,
    /// Hangs up while it rings, and expects 487.
    Cancels,
    /// Leaves the offer to the other side and answers it in its ACK.
    OffersNothing,
}

/// A call that is going on.
pub(crate) struct Call {
    process: Process,
    pub(crate) trace: Trace,
}

impl Call {
    /// Starts a call to `user` at the PBX.
    #[track_caller]
    pub(crate) fn start(world: &World, pbx: &dyn Pbx, user: &str, caller: Caller) -> Self {
        let port = free_port();
        let name = format!("caller-{port}");
        let directory = world.directory_of(&name);
        fs::write(directory.join("scenario.xml"), scenario(caller)).expect("the test directory is writable");
        let process = Process::start("sipp", &directory, &installed("sipp"), |command| {
            command.args(["-sf", "scenario.xml", "-m", "1", "-s", user, "-i", "127.0.0.1", "-nostdin"]);
            command.args(["-p", &port.to_string(), "-mp", &(port + 2).to_string(), "-cp", &(port + 9).to_string()]);
            command.args(["-cid_str", &format!("%u-{}-%p@caller.test", world.name())]);
            command.args(["-trace_msg", "-message_file", "messages.log", "-trace_err", "-error_file", "errors.log"]);
            // Longer than any test waits, so that it is the test that says what was missing.
            command.args(["-timeout", &format!("{}s", 2 * PATIENCE.as_secs()), "-timeout_error"]);
            command.arg(format!("127.0.0.1:{}", pbx.port()));
        });
        Self { process, trace: Trace::new("the caller", &directory.join("messages.log")) }
    }

    /// Its Call-ID, once the INVITE is out.
    #[track_caller]
    pub(crate) fn id(&self) -> String {
        self.trace.request("INVITE").header("Call-ID").expect("every INVITE has one").to_owned()
    }

    /// Waits for the call to end as its scenario says; any other end fails the test.
    #[track_caller]
    pub(crate) fn finish(&mut self) {
        let status = self.process.wait();
        assert!(status.success(), "the call did not go as it should, {status}:\n{}", self.process.output());
    }
}

fn scenario(caller: Caller) -> String {
    let steps: &[&str] = match caller {
        Caller::HangsUp | Caller::OffersNothing => &[INVITE, PROVISIONAL, OK, ACK, TALK, BYE, OK],
        Caller::WaitsForBye => &[INVITE, PROVISIONAL, OK, ACK, "<recv request=\"BYE\"/>", ANSWER_BYE, LINGER],
        Caller::Cancels => &[INVITE, TRYING, RINGING, CANCEL, OK, "<recv response=\"487\"/>", ACK_FAILURE],
    };
    let mut body = steps.concat();
    if let Caller::OffersNothing = caller {
        let at = INVITE.find(SDP_FOLLOWS).expect("the INVITE has a body");
        let (head, sdp) = INVITE.split_at(at);
        let (bare, end) = (format!("{head}Content-Length: 0\n\n]]></send>\n"), "Content-Length: 0\n\n]]></send>");
        body = body.replace(INVITE, &bare).replace(ACK, &ACK.replace(end, sdp.trim_end()));
    }
    if let Caller::Cancels = caller {
        body = body.replace("[branch]", "z9hG4bK-[pid]");
    }
    format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<scenario name=\"{caller:?}\">\n{body}\n</scenario>\n")
}

// The odd line at the end of the SDP is no attribute that anyone knows; only who copies bytes keeps it, and the order of
// the codecs, and the strange user agent's habit of c= before t=.
const INVITE: &str = r#"<send retrans="500"><![CDATA[

INVITE sip:[service]@pbx.test SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
From: "Bob" <sip:bob@pbx.test>;tag=caller-[call_number]
To: <sip:[service]@pbx.test>
Call-ID: [call_id]
CSeq: 1 INVITE
Contact: <sip:bob@[local_ip]:[local_port]>
Max-Forwards: 70
Allow: INVITE, ACK, CANCEL, BYE, OPTIONS
Content-Type: application/sdp
Content-Length: [len]

v=0
o=bob 53655765 2353687637 IN IP4 [local_ip]
s=a call from outside
c=IN IP4 [local_ip]
t=0 0
m=audio [media_port] RTP/AVP 8 0
a=rtpmap:8 PCMA/8000
a=rtpmap:0 PCMU/8000
a=sendrecv
a=x-reveille-test:kept  as  it  was
]]></send>
"#;

/// Where the INVITE's body begins, the lines that announce it included.
const SDP_FOLLOWS: &str = "Content-Type: application/sdp";

const TRYING: &str = r#"<recv response="100" optional="true"/>
"#;

const PROVISIONAL: &str = r#"<recv response="100" optional="true"/>
<recv response="110" optional="true"/>
<recv response="180" optional="true"/>
<recv response="181" optional="true"/>
<recv response="183" optional="true"/>
"#;

const RINGING: &str = r#"<recv response="180"/>
"#;

const OK: &str = r#"<recv response="200" rrs="true"/>
"#;

/// Long enough for the ACK to arrive before the BYE even where a proxy's workers race.
const TALK: &str = r#"<pause milliseconds="300"/>
"#;

/// Stays for a retransmitted BYE, should the 200 be lost.
const LINGER: &str = r#"<pause milliseconds="200"/>
"#;

const ACK: &str = r#"<send><![CDATA[

ACK [next_url] SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
From: "Bob" <sip:bob@pbx.test>;tag=caller-[call_number]
[last_To:]
[routes]
Call-ID: [call_id]
CSeq: 1 ACK
Max-Forwards: 70
Content-Length: 0

]]></send>
"#;

const BYE: &str = r#"<send retrans="500"><![CDATA[

BYE [next_url] SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
From: "Bob" <sip:bob@pbx.test>;tag=caller-[call_number]
[last_To:]
[routes]
Call-ID: [call_id]
CSeq: 2 BYE
Max-Forwards: 70
Content-Length: 0

]]></send>
"#;

const ANSWER_BYE: &str = r#"<send><![CDATA[

SIP/2.0 200 OK
[last_Via:]
[last_From:]
[last_To:]
[last_Call-ID:]
[last_CSeq:]
Content-Length: 0

]]></send>
"#;

const CANCEL: &str = r#"<send retrans="500"><![CDATA[

CANCEL sip:[service]@pbx.test SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
From: "Bob" <sip:bob@pbx.test>;tag=caller-[call_number]
To: <sip:[service]@pbx.test>
Call-ID: [call_id]
CSeq: 1 CANCEL
Max-Forwards: 70
Content-Length: 0

]]></send>
"#;

const ACK_FAILURE: &str = r#"<send><![CDATA[

ACK sip:[service]@pbx.test SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
From: "Bob" <sip:bob@pbx.test>;tag=caller-[call_number]
[last_To:]
Call-ID: [call_id]
CSeq: 1 ACK
Max-Forwards: 70
Content-Length: 0

]]></send>
"#;
