//! The daemon under test: the real binary with a configuration file, reached only as anyone would.

mod configuration;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use serde_json::{Value, json};

use crate::canary::Canaries;
use crate::confined;
use crate::http::{Answer, Server};
use crate::kamailio::PASSWORD;
use crate::middlebox::Middlebox;
use crate::pbx::Pbx;
use crate::phones::Attach;
use crate::process::{PATIENCE, Process, until};
use crate::push::PushService;
use crate::world::{EDGE_DOMAIN, PBX_DOMAIN, Transport, World, free_port};

use configuration::{Ports, configuration};

pub(crate) use configuration::{SHORT_HOLD, Settings, served};

/// The app key of the one tenant.
pub(crate) const APP_KEY: &str = "an-app-key-that-sits-in-every-shipped-app";

/// The app key of the other tenant, where there is one.
pub(crate) const RIVAL_APP_KEY: &str = "an-app-key-of-somebody-else";

/// What is handed over beside what is the same for all: the PBX, the password, the platform and the push targets.
pub(crate) struct HandOver<'a> {
    pub(crate) user: &'a str,
    /// Names the device, and its push tokens.
    pub(crate) device: &'a str,
    pub(crate) trunk: Transport,
    /// Put into the body.
    pub(crate) more: Value,
}

/// A running daemon.
pub(crate) struct Daemon<'w> {
    world: &'w World,
    process: Process,
    directory: PathBuf,
    port: u16,
    api_port: u16,
    ops_port: u16,
    api: Server,
    ops: Server,
    canaries: Canaries,
}

/// An account that the daemon holds.
#[derive(Clone, Debug)]
pub(crate) struct Instance {
    pub(crate) id: String,
    pub(crate) token: String,
    /// What the daemon answered to the hand-over.
    pub(crate) answer: Value,
}

impl<'w> Daemon<'w> {
    /// Starts the daemon and waits until it is ready.
    #[track_caller]
    pub(crate) fn start(world: &'w World, pbx: &dyn Pbx, push: &PushService<'_>) -> Self {
        Self::start_with(world, pbx, push, &Settings::default())
    }

    /// Like [`Self::start`], with settings of the test's own.
    #[track_caller]
    pub(crate) fn start_with(world: &'w World, pbx: &dyn Pbx, push: &PushService<'_>, settings: &Settings<'_>) -> Self {
        let directory = world.directory_of("daemon");
        let (port, tls_port, api_port, ops_port) = (free_port(), free_port(), free_port(), free_port());
        let file = directory.join("reveille.toml");
        let tls_advertised = settings.middlebox.map_or(tls_port, Middlebox::port);
        if let Some(middlebox) = settings.middlebox {
            middlebox.lead_to(tls_port);
        }
        let ports = Ports { port, tls_port, tls_advertised, api_port, ops_port };
        let text = configuration(world, &directory, &ports, pbx, push, settings);
        fs::write(&file, text).expect("the directory is writable");
        let binary = Path::new(env!("CARGO_BIN_EXE_reveille"));
        let program = settings.cage.map_or_else(|| binary.to_owned(), |_| confined::cage());
        let process = Process::start("reveille", &directory, &program, |command| match settings.cage {
            Some(calls) => confined::in_cage(command, calls, binary, &file),
            None => {
                command.arg("serve").arg("--config").arg(&file);
            }
        });
        let api = Server::secure(api_port, &world.ca_file());
        let canaries = Canaries::new([port, tls_port, tls_advertised, api_port, ops_port, push.port()]);
        let ops = match settings.ops.contains("tls_certificate") {
            true => Server::secure(ops_port, &world.ca_file()),
            false => Server::plain(ops_port),
        };
        let mut daemon = Self { world, process, directory, port, api_port, ops_port, api, ops, canaries };
        daemon.wait_until_ready();
        daemon
    }

    /// Starts it again after its end, with what is in its directory, where no file of it can grow beyond so many bytes.
    #[track_caller]
    pub(crate) fn start_again_with_files_limited(&mut self, bytes: usize) {
        let (binary, file) = (env!("CARGO_BIN_EXE_reveille"), self.directory.join("reveille.toml"));
        self.process = Process::start("reveille", &self.directory, Path::new("prlimit"), |command| {
            command.args([&format!("--fsize={bytes}:unlimited"), binary, "serve", "--config"]).arg(file);
        });
        self.wait_until_ready();
    }

    #[track_caller]
    fn wait_until_ready(&mut self) {
        until("the daemon to be ready", || {
            self.process.assert_running();
            let ready = self.world.runtime.block_on(self.ops.ask("GET", "/readyz", None, None)).ok()?;
            (ready.status == 200).then_some(())
        });
    }

    /// Hands a user's account over from the user's one device, to be registered at the PBX over `trunk`.
    #[track_caller]
    pub(crate) fn hand_over(&self, pbx: &dyn Pbx, push: &PushService<'_>, user: &str, trunk: Transport) -> Instance {
        self.hand_over_from(pbx, push, &HandOver { user, device: user, trunk, more: json!({}) })
    }

    /// Like [`Self::hand_over`], from any device and with members of the test's own.
    #[track_caller]
    pub(crate) fn hand_over_from(&self, pbx: &dyn Pbx, push: &PushService<'_>, hand_over: &HandOver<'_>) -> Instance {
        self.hand_over_as(pbx, push, hand_over, APP_KEY)
    }

    /// Like [`Self::hand_over_from`], by whoever bears this.
    #[track_caller]
    pub(crate) fn hand_over_as(
        &self,
        pbx: &dyn Pbx,
        push: &PushService<'_>,
        hand_over: &HandOver<'_>,
        bearer: &str,
    ) -> Instance {
        let answer = self.try_hand_over_as(pbx, push, hand_over, bearer);
        assert!(matches!(answer.status, 201 | 202), "the hand-over was refused: {answer:?}");
        let answer = answer.json();
        let word = |key: &str| answer[key].as_str().map(str::to_owned).expect("the answer has an id and a token");
        let instance = Instance { id: word("instance"), token: word("token"), answer: answer.clone() };
        self.canaries.plant(&instance.id);
        self.canaries.plant(&instance.token);
        until("the instance to be registered", || {
            let state = self.status(&instance).json()["registration"]["state"].clone();
            (state == "registered").then_some(())
        });
        instance
    }

    /// What the daemon answers to a hand-over.
    #[track_caller]
    pub(crate) fn try_hand_over(&self, pbx: &dyn Pbx, push: &PushService<'_>, hand_over: &HandOver<'_>) -> Answer {
        self.try_hand_over_as(pbx, push, hand_over, APP_KEY)
    }

    fn try_hand_over_as(
        &self,
        pbx: &dyn Pbx,
        push: &PushService<'_>,
        hand_over: &HandOver<'_>,
        bearer: &str,
    ) -> Answer {
        let HandOver { user, device, trunk, more } = hand_over;
        for value in [push.token(device, "call"), push.token(device, "other"), device_of(device), (*user).to_owned()] {
            self.canaries.plant(&value);
        }
        let mut body = json!({
            "account": {
                "aor": format!("sip:{user}@{PBX_DOMAIN}"),
                "registrar": pbx.uri(*trunk),
                "auth_username": user,
                "password": PASSWORD,
            },
            "device": { "id": device_of(device), "platform": push.platform_name(), "push": push.targets(device) },
        });
        merge(&mut body, more);
        self.ask("POST", "/v1/instances", bearer, Some(&body))
    }

    /// What `GET /v1/instances/{id}` says.
    #[track_caller]
    pub(crate) fn status(&self, instance: &Instance) -> Answer {
        self.ask("GET", &format!("/v1/instances/{}", instance.id), &instance.token, None)
    }

    /// What `GET /v1/instances/{id}/calls/{call}` says.
    #[track_caller]
    pub(crate) fn call(&self, instance: &Instance, call: &str) -> Answer {
        self.ask("GET", &format!("/v1/instances/{}/calls/{call}", instance.id), &instance.token, None)
    }

    /// Declines a call over HTTPS.
    #[track_caller]
    pub(crate) fn decline(&self, instance: &Instance, call: &str, reason: &str, everywhere: bool) {
        let path = format!("/v1/instances/{}/calls/{call}/decline", instance.id);
        let body = json!({ "reason": reason, "everywhere": everywhere });
        let answer = self.ask("POST", &path, &instance.token, Some(&body));
        assert!((200..300).contains(&answer.status), "{answer:?}");
    }

    /// Erases an instance and returns the answer with its receipt.
    #[track_caller]
    pub(crate) fn erase(&self, instance: &Instance) -> Value {
        let answer = self.ask("DELETE", &format!("/v1/instances/{}", instance.id), &instance.token, None);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// What an app does with the answer to its hand-over, and which of the edge's transports it takes.
    ///
    /// The answer names one way in, the TLS one; an app that wants another knows the address from its own settings.
    pub(crate) fn attach(&self, instance: &Instance, transport: Transport) -> Attach {
        let attach = &instance.answer["attach"];
        let word = |key: &str| attach[key].as_str().map(str::to_owned).expect("the attach data is complete");
        assert_eq!(word("aor"), format!("sip:{}@{EDGE_DOMAIN}", instance.id));
        let proxy = match transport {
            Transport::Tls => word("uri"),
            Transport::Udp | Transport::Tcp => self.edge(transport),
        };
        Attach {
            aor: word("aor"),
            proxy,
            transport,
            username: word("username"),
            password: instance.token.clone(),
            realm: word("realm"),
            ca_file: self.world.ca_file(),
            ..Attach::default()
        }
    }

    /// What a phone must know to be `user` at the PBX itself, with the daemon as its outbound proxy (RFC 8599).
    ///
    /// The PBX is named by its address here, as both proxies have to find it by what the phone writes.
    pub(crate) fn through(&self, pbx: &dyn Pbx, push: &PushService<'_>, user: &str, transport: Transport) -> Attach {
        Attach {
            aor: format!("sip:{user}@127.0.0.1"),
            registrar: Some(format!("sip:127.0.0.1:{}", pbx.port())),
            proxy: self.edge(transport),
            transport,
            username: user.into(),
            password: PASSWORD.into(),
            realm: "127.0.0.1".into(),
            ca_file: self.world.ca_file(),
            contact_params: push.params(user),
            ..Attach::default()
        }
    }

    /// The edge's listener for UDP and TCP.
    fn edge(&self, transport: Transport) -> String {
        assert_ne!(transport, Transport::Tls, "the TLS listener is told by the hand-over");
        format!("sip:127.0.0.1:{};transport={}", self.port, transport.name())
    }

    /// The value of a metric, summed over its labels; `None` before it is first shown.
    #[track_caller]
    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        self.metric_of(name, "")
    }

    /// The same of the series with this label.
    #[track_caller]
    pub(crate) fn metric_of(&self, name: &str, label: &str) -> Option<f64> {
        let asked = self.world.runtime.block_on(self.ops.ask("GET", "/metrics", None, None));
        asked.expect("the daemon shows its metrics").metric(name, label)
    }

    /// Lets no file of the daemon grow beyond so many bytes: its disk is full. `None`: there is room again.
    #[track_caller]
    pub(crate) fn limit_files(&self, bytes: Option<u64>) {
        let limit = bytes.map_or("unlimited".to_owned(), |bytes| bytes.to_string());
        let pid = self.process.id().to_string();
        let status = Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={limit}:unlimited")]).status();
        assert!(status.expect("util-linux has it").success());
    }

    /// Runs `reveille audit` with these arguments in the daemon's directory, and gives what it printed.
    #[track_caller]
    pub(crate) fn audit(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_reveille"));
        let output = command.arg("audit").args(arguments).current_dir(&self.directory).output();
        let output = output.expect("the daemon's binary starts");
        assert!(output.status.success(), "audit {arguments:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs `reveille audit verify` on a file in the daemon's directory.
    pub(crate) fn audit_verify(&self, file: &Path) -> ExitStatus {
        let status = Command::new(env!("CARGO_BIN_EXE_reveille")).args(["audit", "verify"]).arg(file).output();
        status.expect("the daemon's binary starts").status
    }

    /// What `reveille calls` prints.
    pub(crate) fn calls(&self) -> String {
        let file = self.directory.join("reveille.toml");
        let output = Command::new(env!("CARGO_BIN_EXE_reveille")).args(["calls", "--config"]).arg(file).output();
        let output = output.expect("the daemon's binary starts");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The port of the API.
    pub(crate) fn api_port(&self) -> u16 {
        self.api_port
    }

    /// The port of the listener for UDP and TCP.
    pub(crate) fn sip_port(&self) -> u16 {
        self.port
    }

    /// What `/readyz` says.
    #[track_caller]
    pub(crate) fn readiness(&self) -> Value {
        let asked = self.world.runtime.block_on(self.ops.ask("GET", "/readyz", None, None));
        asked.expect("the daemon says whether it is ready").json()
    }

    /// What the daemon has logged so far.
    pub(crate) fn log(&self) -> String {
        self.process.output()
    }

    /// Sends SIGHUP.
    pub(crate) fn reload(&mut self) {
        self.process.hang_up();
    }

    /// A file of `/proc/PID`.
    #[track_caller]
    pub(crate) fn proc(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.process.id()))
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn audit_log(&self) -> PathBuf {
        self.directory.join("audit.log")
    }

    /// Sends SIGTERM and waits for the end.
    #[track_caller]
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.process.terminate();
        self.process.wait()
    }

    /// Ends the daemon without a warning.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Where operators ask over TCP.
    pub(crate) fn ops_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ops_port)
    }

    /// Asks the operators' endpoints over TCP.
    #[track_caller]
    pub(crate) fn ask_operators(&self, path: &str, bearer: Option<&str>) -> Answer {
        let answer = self.world.runtime.block_on(self.ops.ask("GET", path, bearer, None));
        answer.unwrap_or_else(|error| panic!("{path}: {error:#}\n{}", self.process.output()))
    }

    /// Asks the API anything.
    #[track_caller]
    pub(crate) fn ask(&self, method: &str, path: &str, bearer: &str, body: Option<&Value>) -> Answer {
        self.ask_as(method, path, Some(bearer), body)
    }

    /// Asks the API anything, as anybody.
    #[track_caller]
    pub(crate) fn ask_as(&self, method: &str, path: &str, bearer: Option<&str>, body: Option<&Value>) -> Answer {
        let question = self.api.ask(method, path, bearer, body);
        let answer = self.world.runtime.block_on(async { tokio::time::timeout(PATIENCE, question).await });
        answer
            .unwrap_or_else(|_| panic!("{method} {path} was not answered"))
            .unwrap_or_else(|error| panic!("{method} {path}: {error:#}\n{}", self.process.output()))
    }
}

impl Drop for Daemon<'_> {
    /// Nothing that was told to the daemon may have been told by it.
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let metrics = self.world.runtime.block_on(self.ops.ask("GET", "/metrics", None, None));
        self.terminate();
        self.canaries.assert_none_in("the log", &self.process.output());
        self.canaries.assert_none_in("a metric", &metrics.map(|answer| answer.text).unwrap_or_default());
        let records = fs::read_to_string(self.audit_log()).expect("the audit log is text");
        self.canaries.assert_none_in("a record", &records);
    }
}

/// Puts the members of `more` into `body`, at every depth.
fn merge(body: &mut Value, more: &Value) {
    match (body, more) {
        (Value::Object(body), Value::Object(more)) => {
            for (key, value) in more {
                merge(body.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (body, more) => *body = more.clone(),
    }
}

pub(crate) fn sha256_hex(text: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A device for each user, always the same.
pub(crate) fn device_of(user: &str) -> String {
    uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, user.as_bytes()).urn().to_string()
}
