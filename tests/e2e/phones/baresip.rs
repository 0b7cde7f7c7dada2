//! baresip 1.0.
//!
//! Its trace (`-s`) goes to standard output, which must not be buffered. The modules it needs: `menu` holds the commands
//! "accept" and "hangup", `ctrl_tcp` takes them from us, `uuid` is what `sipnat=outbound` wants before it sends
//! `+sip.instance`. `stdio` stays out: it reads a terminal. Without `sipnat=outbound` its Contact over TCP and TLS names its
//! own listener, which over TLS has no certificate, so that nobody can call it there.
//!
//! It repeats the transport parameter of the account in the Request-URI and the digest's uri (`sip:DOMAIN;transport=tls`),
//! sends a `Route`, and matches an INVITE by the user part of its own Contact, which is not that of its address of record.
//! It does not miss a connection that is lost: the next refresh opens another. It declines with 486 and answers UPDATE with
//! 501; it does not know 100rel, and refuses with 420 who requires it.
//! It has no setting that verifies a server's certificate, whatever `sip_cafile` says.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;

use super::{Attach, Control, Order, Phone};
use crate::process::{Process, installed, until};
use crate::trace::Trace;

/// Debian's place for baresip's modules, on every architecture.
const MODULES: &str = "/usr/lib/baresip/modules";

#[track_caller]
pub(super) fn start(directory: &Path, port: u16, attach: &Attach) -> Phone {
    let control_port = port + 9;
    fs::write(directory.join("config"), configuration(directory, port, control_port, attach))
        .and_then(|()| fs::write(directory.join("accounts"), account(attach)))
        .and_then(|()| fs::write(directory.join("silence.wav"), silence()))
        .expect("the test directory is writable");
    let baresip = installed("baresip");
    let mut process = Process::start("baresip", directory, &installed("stdbuf"), |command| {
        command.arg("-oL").arg(&baresip).arg("-s").arg("-f").arg(directory);
    });
    let stream = until("baresip to take commands", || {
        process.assert_running();
        TcpStream::connect((Ipv4Addr::LOCALHOST, control_port)).ok()
    });
    Phone {
        process,
        control: Control::Netstrings(stream),
        trace: Trace::new("baresip", &directory.join("baresip.out")),
    }
}

/// The orders as the module `menu` knows them.
pub(super) fn words(order: Order<'_>) -> &'static str {
    match order {
        Order::Answer => "accept",
        Order::Decline(_) | Order::HangUp => "hangup",
        Order::Hold => "hold",
        Order::Resume => "resume",
        other => panic!("baresip is given no word for {other:?}"),
    }
}

fn configuration(directory: &Path, port: u16, control_port: u16, attach: &Attach) -> String {
    format!(
        "sip_listen 127.0.0.1:0\n\
         sip_cafile {ca}\n\
         # An address, not \"lo\": baresip leaves loopback interfaces out when it looks for one by name.\n\
         net_interface 127.0.0.1\n\
         rtp_ports {port}-{last}\n\
         audio_source aufile,{directory}/silence.wav\n\
         audio_player aubridge,none\n\
         audio_alert aubridge,none\n\
         module_path {MODULES}\n\
         module g711.so\n\
         module aufile.so\n\
         module aubridge.so\n\
         # In this order: the account asks for the UUID.\n\
         module_tmp uuid.so\n\
         module_tmp account.so\n\
         module_app menu.so\n\
         module_app ctrl_tcp.so\n\
         ctrl_tcp_listen 127.0.0.1:{control_port}\n",
        ca = attach.ca_file.display(),
        directory = directory.display(),
        last = port + 8,
    )
}

fn account(attach: &Attach) -> String {
    format!(
        "<{};transport={}>;auth_user={};auth_pass={};outbound=\"{}\";sipnat=outbound;regint={};answermode=manual\n",
        attach.aor,
        attach.transport.name(),
        attach.username,
        attach.password,
        attach.proxy,
        attach.expires,
    )
}

/// Silence as a WAV file at 8 kHz, the rate of G.711: baresip would need a resampler for any other. It lasts a minute, as
/// baresip hangs up at its end.
fn silence() -> Vec<u8> {
    const RATE: u32 = 8_000;
    const BYTES: u32 = RATE * 2 * 60;
    let mut wav = Vec::new();
    wav.extend(b"RIFF");
    wav.extend((36 + BYTES).to_le_bytes());
    wav.extend(b"WAVEfmt ");
    wav.extend(16_u32.to_le_bytes());
    wav.extend(1_u16.to_le_bytes()); // PCM
    wav.extend(1_u16.to_le_bytes()); // one channel
    wav.extend(RATE.to_le_bytes());
    wav.extend((RATE * 2).to_le_bytes()); // bytes a second
    wav.extend(2_u16.to_le_bytes()); // bytes a sample
    wav.extend(16_u16.to_le_bytes()); // bits a sample
    wav.extend(b"data");
    wav.extend(BYTES.to_le_bytes());
    wav.resize(wav.len() + BYTES as usize, 0);
    wav
}
