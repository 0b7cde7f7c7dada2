//! Kamailio, the PBX: registrar and proxy in memory, digest on.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::pbx::Pbx;
use crate::process::{PATIENCE, Process, installed, until};
use crate::world::{World, free_port};

/// The password of every user.
pub(crate) const PASSWORD: &str = "secret-between-alice-and-the-pbx";

/// What a test may want different.
pub(crate) struct Manners {
    /// The longest registration it grants, in seconds, whatever is asked for.
    pub(crate) max_expires: u32,
    /// The most contacts an account may have; 0 for any number.
    pub(crate) max_contacts: u32,
    /// Sends requests down the connection that registered instead of opening one to the Contact. Most PBXs do so for
    /// clients behind NAT; for a phone that registers over TLS it is the only way, as a phone has no certificate.
    pub(crate) follow_connection: bool,
    /// Sends calls to user, host and port of the Contact, without the parameters of its URI.
    pub(crate) drop_contact_params: bool,
    /// Calls a phone that registers while its account is rung as well (module tsilo).
    pub(crate) forks_late: bool,
    /// The digest algorithm that it names in its challenges: "MD5" or "SHA-256"; empty: MD5, without a word.
    pub(crate) algorithm: &'static str,
}

impl Default for Manners {
    fn default() -> Self {
        Self {
            max_expires: 600,
            max_contacts: 0,
            follow_connection: true,
            drop_contact_params: false,
            forks_late: false,
            algorithm: "",
        }
    }
}

/// A running Kamailio.
pub(crate) struct Kamailio {
    process: Process,
    port: u16,
    tls_port: u16,
    rpc: PathBuf,
    answers: PathBuf,
}

impl Kamailio {
    /// Starts Kamailio and waits until it answers.
    #[track_caller]
    pub(crate) fn start(world: &World, manners: &Manners) -> Self {
        Self::start_at(world, manners, free_port(), free_port())
    }

    /// Stops Kamailio and starts it again in its place with other manners. It has forgotten everything.
    #[track_caller]
    pub(crate) fn restart(&mut self, world: &World, manners: &Manners) {
        self.process.terminate();
        self.process.wait();
        *self = Self::start_at(world, manners, self.port, self.tls_port);
    }

    #[track_caller]
    fn start_at(world: &World, manners: &Manners, port: u16, tls_port: u16) -> Self {
        let directory = world.directory_of("kamailio");
        let rpc = world.sockets().join("kamailio");
        let configuration = fill_in(&[
            ("port", &port.to_string()),
            ("tls_port", &tls_port.to_string()),
            ("certificate", &world.certificate().display().to_string()),
            ("key", &world.key().display().to_string()),
            ("rpc", &rpc.display().to_string()),
            ("password", PASSWORD),
            ("max_expires", &manners.max_expires.to_string()),
            ("algorithm", manners.algorithm),
            ("max_contacts", &manners.max_contacts.to_string()),
            ("forks_late", if manners.forks_late { "1" } else { "0" }),
            ("drop_contact_params", if manners.drop_contact_params { "1" } else { "0" }),
            ("follow_connection", if manners.follow_connection { "1" } else { "0" }),
        ]);
        let file = directory.join("kamailio.cfg");
        fs::write(&file, configuration).expect("the test directory is writable");
        let process = Process::start("kamailio", &directory, &installed("kamailio"), |command| {
            // -DD: no daemon, but all workers. -m and -M: shared and private memory, in MiB.
            command.args(["-DD", "-E", "-m", "256", "-M", "8", "-f"]).arg(&file).arg("-Y").arg(world.sockets());
        });
        let mut kamailio = Self { process, port, tls_port, rpc, answers: world.sockets().join("kamailio-answers") };
        until("Kamailio to answer", || {
            kamailio.process.assert_running();
            kamailio.ask("core.version", &[]).ok()
        });
        kamailio
    }

    /// Changes the realm of its challenges (`what` "realm"), or everybody's password ("password").
    #[track_caller]
    pub(crate) fn set(&self, what: &str, value: &str) {
        self.ask("htable.sets", &["changed", what, value]).expect("the table is in the configuration");
    }

    /// How often something happened: `registers` that came in; of them `accepted`, `refused` (a wrong answer to a
    /// challenge) and the `challenges` sent; methods in dialogs by their names; `cancels`.
    pub(crate) fn count(&self, what: &str) -> u64 {
        self.seen().get(what).copied().unwrap_or(0)
    }

    /// Every Call-ID (`kind` "call-id") or Contact URI ("contact") of an accepted REGISTER.
    pub(crate) fn distinct(&self, kind: &str) -> Vec<String> {
        let prefix = format!("{kind} ");
        self.seen().into_keys().filter_map(|key| key.strip_prefix(&prefix).map(str::to_owned)).collect()
    }

    /// The Contact URIs under which a user is registered now.
    pub(crate) fn bindings(&self, user: &str) -> Vec<String> {
        // An error is how Kamailio says that it has nobody of that name.
        let Ok(found) = self.ask("ul.lookup", &["location", user]) else { return Vec::new() };
        let contacts = found["Contacts"].as_array().cloned().unwrap_or_default();
        contacts.iter().filter_map(|entry| entry["Contact"]["Address"].as_str().map(str::to_owned)).collect()
    }

    /// The connection over which a user's binding came, by the number that Kamailio gives it; there must be one.
    #[track_caller]
    pub(crate) fn connection_of(&self, user: &str) -> u64 {
        let found = self.ask("ul.lookup", &["location", user]).expect("the user is registered");
        let received = found["Contacts"][0]["Contact"]["Received"].as_str().unwrap_or_default().to_owned();
        let port =
            received.split(':').nth(2).and_then(|rest| rest.split(';').next()).and_then(|port| port.parse().ok());
        let port: u64 = port.unwrap_or_else(|| panic!("not received over a connection: {found}"));
        let open = self.connections().into_iter().find(|connection| connection["src_port"].as_u64() == Some(port));
        open.and_then(|connection| connection["id"].as_u64()).unwrap_or_else(|| panic!("{received} is not connected"))
    }

    /// Whether a connection is still open.
    pub(crate) fn is_open(&self, number: u64) -> bool {
        self.connections().iter().any(|connection| connection["id"].as_u64() == Some(number))
    }

    fn connections(&self) -> Vec<Value> {
        let list = self.ask("core.tcp_list", &[]).expect("Kamailio knows its connections");
        list.as_array().cloned().unwrap_or_default()
    }

    fn seen(&self) -> BTreeMap<String, u64> {
        let dump = self.ask("htable.dump", &["seen"]).expect("the table is in the configuration");
        let slots = dump.as_array().into_iter().flatten().filter_map(|entry| entry["slot"].as_array());
        let pair = |slot: &Value| Some((slot["name"].as_str()?.to_owned(), slot["value"].as_u64()?));
        slots.flatten().filter_map(pair).collect()
    }

    /// One JSON-RPC question over Kamailio's datagram socket.
    fn ask(&self, method: &str, params: &[&str]) -> Result<Value, String> {
        let _ = fs::remove_file(&self.answers);
        let socket = UnixDatagram::bind(&self.answers).map_err(|error| error.to_string())?;
        socket.set_read_timeout(Some(PATIENCE)).expect("the time-out is not zero");
        let question = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        socket.send_to(question.to_string().as_bytes(), &self.rpc).map_err(|error| error.to_string())?;
        let mut answer = vec![0; 64 * 1024];
        let length = socket.recv(&mut answer).map_err(|error| error.to_string())?;
        let mut answer: Value = serde_json::from_slice(&answer[..length]).map_err(|error| error.to_string())?;
        match answer.get("error") {
            Some(error) => Err(error.to_string()),
            None => Ok(answer["result"].take()),
        }
    }
}

impl Pbx for Kamailio {
    fn port(&self) -> u16 {
        self.port
    }

    fn tls_port(&self) -> u16 {
        self.tls_port
    }
}

fn fill_in(words: &[(&str, &str)]) -> String {
    let template = include_str!("kamailio.cfg").to_owned();
    words.iter().fold(template, |text, (word, value)| text.replace(&format!("{{{word}}}"), value))
}
