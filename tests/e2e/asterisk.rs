//! Asterisk 22, the other PBX: a back-to-back user agent, so that each side of a call has a Call-ID of its own.
//!
//! It runs from the directory that `scripts/peers` unpacked, with the loader and the libraries in there, and without rights of
//! its own. It is configured by the files in `asterisk/etc`, asked and told through its manager interface, and writes every
//! SIP message into its log. A start takes half a second, so every test has its own.
//!
//! It keeps what is registered in a file and reads it at its next start; [`Asterisk::restart`] deletes that file.

mod accounts;
mod calls;
mod manager;
mod odd;
mod office;
mod talks;
mod texts;

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::kamailio::PASSWORD;
use crate::pbx::Pbx;
use crate::process::{Process, until};
use crate::trace::Trace;
use crate::world::{World, free_port, target_directory};

/// What a test may want different. The words are those of `pjsip.conf`.
pub(crate) struct Manners {
    pub(crate) max_expires: u32,
    pub(crate) max_contacts: u32,
    /// A contact too many takes the place of the oldest one. Otherwise it is refused with 403.
    pub(crate) remove_existing: bool,
    /// Sends requests to the source of a REGISTER instead of its Contact: for TCP and TLS down the connection it came over.
    pub(crate) rewrite_contact: bool,
    pub(crate) direct_media: bool,
    pub(crate) timers: &'static str,
    pub(crate) reliable: &'static str,
    /// Seconds between two OPTIONS to each contact; 0 for none.
    pub(crate) qualify: u32,
    /// The digest algorithms that it offers.
    pub(crate) algorithms: &'static str,
}

impl Default for Manners {
    fn default() -> Self {
        Self {
            max_expires: 600,
            max_contacts: 5,
            remove_existing: false,
            rewrite_contact: true,
            direct_media: false,
            timers: "yes",
            reliable: "yes",
            qualify: 0,
            algorithms: "md5",
        }
    }
}

/// The shortest registration that it grants, in seconds.
const MIN_EXPIRES: u32 = 10;

/// The files in which every test's Asterisk finds its configuration.
const FILES: [(&str, &str); 9] = [
    ("asterisk.conf", include_str!("asterisk/etc/asterisk.conf")),
    ("extensions.conf", include_str!("asterisk/etc/extensions.conf")),
    ("logger.conf", include_str!("asterisk/etc/logger.conf")),
    ("manager.conf", include_str!("asterisk/etc/manager.conf")),
    ("modules.conf", include_str!("asterisk/etc/modules.conf")),
    ("pjsip.conf", include_str!("asterisk/etc/pjsip.conf")),
    ("queues.conf", include_str!("asterisk/etc/queues.conf")),
    ("rtp.conf", include_str!("asterisk/etc/rtp.conf")),
    ("voicemail.conf", include_str!("asterisk/etc/voicemail.conf")),
];

/// A running Asterisk.
pub(crate) struct Asterisk {
    process: Process,
    home: PathBuf,
    port: u16,
    tls_port: u16,
    manager_port: u16,
    /// Every message it sent or received.
    pub(crate) trace: Trace,
}

impl Asterisk {
    /// Starts Asterisk and waits until it has loaded everything.
    #[track_caller]
    pub(crate) fn start(world: &World, manners: &Manners) -> Self {
        let home = world.directory_of("asterisk");
        for name in ["etc", "lib/keys", "log", "spool"] {
            fs::create_dir_all(home.join(name)).expect("the test directory is writable");
        }
        let (port, tls_port, manager_port) = (free_port(), free_port(), free_port());
        let root = target_directory().join("asterisk-root");
        let words = [
            ("home", home.display().to_string()),
            ("root", root.display().to_string()),
            ("run", world.sockets().display().to_string()),
            ("port", port.to_string()),
            ("tls_port", tls_port.to_string()),
            ("manager_port", manager_port.to_string()),
            ("certificate", world.certificate().display().to_string()),
            ("key", world.key().display().to_string()),
            ("password", PASSWORD.to_owned()),
            ("min_expires", MIN_EXPIRES.to_string()),
            ("max_expires", manners.max_expires.to_string()),
            ("max_contacts", manners.max_contacts.to_string()),
            ("remove_existing", yes(manners.remove_existing)),
            ("rewrite_contact", yes(manners.rewrite_contact)),
            ("direct_media", yes(manners.direct_media)),
            ("timers", manners.timers.to_owned()),
            ("100rel", manners.reliable.to_owned()),
            ("qualify_frequency", manners.qualify.to_string()),
            ("algorithms", manners.algorithms.to_owned()),
        ];
        for (name, template) in FILES {
            let fill = |text: String, (word, value): &(&str, String)| text.replace(&format!("{{{word}}}"), value);
            let text = words.iter().fold(template.to_owned(), fill);
            fs::write(home.join("etc").join(name), text).expect("the test directory is writable");
        }
        let process = Self::run(&home);
        let trace = Trace::new("Asterisk", &home.join("log/messages"));
        let mut asterisk = Self { process, home, port, tls_port, manager_port, trace };
        asterisk.wait_until_ready();
        asterisk
    }

    /// Ends Asterisk as a power cut does, and starts it again with nobody registered.
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        self.process.kill();
        fs::remove_file(self.home.join("lib/astdb.sqlite3")).expect("it keeps its registrations there");
        self.process = Self::run(&self.home);
        self.wait_until_ready();
    }

    #[track_caller]
    fn run(home: &std::path::Path) -> Process {
        let program = target_directory().join("asterisk-root/asterisk");
        assert!(program.exists(), "Asterisk is not there; scripts/peers unpacks it");
        Process::start("asterisk", home, &program, |command| {
            // -f: no daemon.
            command.arg("-f").arg("-C").arg(home.join("etc/asterisk.conf"));
        })
    }

    #[track_caller]
    fn wait_until_ready(&mut self) {
        until("Asterisk to be ready", || {
            self.process.assert_running();
            let booted = manager::try_ask(self.manager_port, "Command", &[("Command", "core waitfullybooted")]).ok()?;
            booted.iter().any(|(_, value)| value.contains("fully booted")).then_some(())
        });
    }

    /// One action of the manager interface; what it answers, field by field.
    #[track_caller]
    pub(crate) fn ask(&self, action: &str, fields: &[(&str, &str)]) -> Vec<(String, String)> {
        let answer = manager::try_ask(self.manager_port, action, fields);
        answer.unwrap_or_else(|error| panic!("{action} {fields:?}: {error}"))
    }

    /// A command of its console; the lines it prints.
    #[track_caller]
    pub(crate) fn command(&self, command: &str) -> Vec<String> {
        let answer = self.ask("Command", &[("Command", command)]);
        answer
            .into_iter()
            .filter(|(name, value)| name == "Output" && !value.is_empty())
            .map(|(_, value)| value)
            .collect()
    }

    /// The Contact URIs under which a user is registered now.
    pub(crate) fn bindings(&self, user: &str) -> Vec<String> {
        let key = format!("/registrar/contact/{user};");
        let lines = self.command("database show registrar/contact");
        let contacts = lines.iter().filter(|line| line.starts_with(&key)).filter_map(|line| {
            let contact: Value = serde_json::from_str(line.get(line.find('{')?..)?).ok()?;
            // The file in which it keeps them has a meaning of its own for semicolons.
            contact["uri"].as_str().map(|uri| uri.replace("^3B", ";"))
        });
        contacts.collect()
    }

    /// How many requests of a method it has answered with this status; what was sent again is not counted again.
    pub(crate) fn answered(&self, status: u16, method: &str) -> usize {
        let mut seen: Vec<(String, String)> = Vec::new();
        for message in self.trace.messages() {
            let key = ["Call-ID", "CSeq"].map(|name| message.header(name).unwrap_or_default().to_owned());
            let [call_id, cseq] = key;
            if message.is_response(status, method) && !seen.contains(&(call_id.clone(), cseq.clone())) {
                seen.push((call_id, cseq));
            }
        }
        seen.len()
    }

    /// Its one channel of a user.
    #[track_caller]
    pub(crate) fn channel_of(&self, user: &str) -> String {
        let prefix = format!("PJSIP/{user}-");
        let channels = || {
            let lines = self.command("core show channels concise");
            let names = lines.into_iter().filter_map(|line| line.split('!').next().map(str::to_owned));
            names.filter(|name| name.starts_with(&prefix)).collect::<Vec<_>>()
        };
        until(&format!("a channel of {user}"), || channels().pop())
    }

    /// Waits until no channel is left.
    #[track_caller]
    pub(crate) fn wait_no_channel(&self) {
        until("the PBX to have no call", || self.command("core show channels concise").is_empty().then_some(()));
    }

    /// Where it keeps the messages of a mailbox.
    pub(crate) fn inbox(&self, mailbox: &str) -> PathBuf {
        self.home.join("spool/voicemail/default").join(mailbox).join("INBOX")
    }
}

impl Pbx for Asterisk {
    fn port(&self) -> u16 {
        self.port
    }

    fn tls_port(&self) -> u16 {
        self.tls_port
    }
}

fn yes(word: bool) -> String {
    if word { "yes".to_owned() } else { "no".to_owned() }
}
