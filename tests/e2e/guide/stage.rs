//! What surrounds the guide's phone: the real daemon, a PBX with callers and a mailbox for pushes.

use std::fs;
use std::path::Path;

use reveille::sandbox::caller::{CallPlan, Caller};
use reveille::sandbox::mailbox::{Mailbox, MailboxOptions};
use reveille::sandbox::registrar::{AccountPlan, Registrar, RegistrarPlan};
use serde_json::{Value, json};

use crate::daemon::{served, sha256_hex};
use crate::http::{Answer, Server};
use crate::process::{PATIENCE, Process, installed, until};
use crate::world::{World, free_port};

use super::phone::RawPhone;

pub(super) const APP_KEY: &str = "an-app-key-of-the-guide";
pub(super) const PASSWORD: &str = "correct horse";
const APP: &str = "com.example.phone";
const DEVICE: &str = "urn:uuid:4b1682a8-f968-4701-83fc-7c6741dc6697";

pub(super) struct Stage<'w> {
    pub(super) world: &'w World,
    process: Process,
    api: Server,
    api_port: u16,
    pub(super) tls_port: u16,
    pub(super) udp_port: u16,
    pub(super) pbx: Registrar,
    pub(super) mailbox: Mailbox,
}

impl<'w> Stage<'w> {
    #[track_caller]
    pub(super) fn start(world: &'w World) -> Self {
        let account = |user: &str| AccountPlan { user: user.to_owned(), password: PASSWORD.to_owned().into() };
        let plan =
            RegistrarPlan { accounts: vec![account("alice"), account("carol")], ..RegistrarPlan::loopback("", "") };
        let pbx = world.runtime.block_on(Registrar::start(plan)).expect("the PBX starts");
        let mailbox = world.runtime.block_on(Mailbox::start(MailboxOptions::default())).expect("the mailbox starts");
        let directory = world.directory_of("daemon");
        let (api_port, tls_port, udp_port) = (free_port(), free_port(), free_port());
        let file = directory.join("reveille.toml");
        let ports = [api_port, tls_port, udp_port, pbx.address().port(), free_port()];
        let text = configuration(world, ports, &mailbox.endpoint());
        fs::write(&file, text).expect("the directory is writable");
        let binary = Path::new(env!("CARGO_BIN_EXE_reveille"));
        let process = Process::start("reveille", &directory, binary, |command| {
            command.arg("serve").arg("--config").arg(&file);
        });
        let api = Server::secure(api_port, &world.ca_file());
        let mut stage = Self { world, process, api, api_port, tls_port, udp_port, pbx, mailbox };
        until("the daemon to answer", || {
            stage.process.assert_running();
            world.runtime.block_on(stage.api.ask("GET", "/openapi.json", None, None)).ok().map(drop)
        });
        stage
    }

    /// The body of a hand-over by `user`'s device on `platform`; its push tokens are `USER-call` and `USER-other`.
    pub(super) fn hand_over(&self, user: &str, platform: &str) -> Value {
        let target = |purpose: &str| json!({ "for": purpose, "provider": "sandbox", "app": APP, "token": format!("{user}-{purpose}") });
        json!({
            "account": {
                "aor": format!("sip:{user}@example.com"),
                "registrar": format!("sip:{};transport=udp", self.pbx.address()),
                "auth_username": user, "password": PASSWORD,
            },
            "device": {
                "id": DEVICE, "platform": platform,
                "push": [target("call"), target("other")],
            },
            "mode": "background",
            "lease_seconds": 259_200,
        })
    }

    #[track_caller]
    pub(super) fn ask(&self, method: &str, path: &str, bearer: &str, body: Option<&Value>) -> Answer {
        let question = self.api.ask(method, path, Some(bearer), body);
        let answer = self.world.runtime.block_on(async { tokio::time::timeout(PATIENCE, question).await });
        answer.expect("the daemon answers in time").expect("the daemon answers")
    }

    /// The next push to a token, which must be of `kind`.
    #[track_caller]
    pub(super) fn push(&self, token: &str, kind: &str) -> Value {
        let push = self.world.runtime.block_on(self.mailbox.next_push_to(token, PATIENCE)).expect("a push");
        assert_eq!(push.kind, kind);
        Value::Object(push.payload)
    }

    /// The next push of `kind` to a token; others before it are dropped.
    #[track_caller]
    pub(super) fn later_push(&self, token: &str, kind: &str) -> Value {
        loop {
            let push = self.world.runtime.block_on(self.mailbox.next_push_to(token, PATIENCE)).expect("a push");
            if push.kind == kind {
                return Value::Object(push.payload);
            }
        }
    }

    #[track_caller]
    pub(super) fn call(&self, user: &str) -> Caller {
        self.world.runtime.block_on(self.pbx.call(user, CallPlan::default())).expect("the user is registered")
    }

    #[track_caller]
    pub(super) fn hang_up(&self, caller: &mut Caller) {
        self.world.runtime.block_on(caller.hang_up());
        self.wait_over(caller);
    }

    /// Waits until the caller's call is over.
    #[track_caller]
    pub(super) fn wait_over(&self, caller: &mut Caller) {
        let over = async { while caller.next().await.is_some() {} };
        let over = self.world.runtime.block_on(async { tokio::time::timeout(PATIENCE, over).await });
        over.expect("the call ends");
    }

    #[track_caller]
    pub(super) fn phone(&self, instance: &str, token: &str) -> RawPhone {
        RawPhone::connect(self.tls_port, &self.world.ca_file(), instance, token)
    }

    /// Where the API is served.
    pub(super) fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.api_port)
    }

    /// Starts the guide's client for `user`, whose calls it answers.
    #[track_caller]
    pub(super) fn client(&self, user: &str) -> Process {
        let mut client = self.example("client.py", &installed("python3"), user);
        client.tell(PASSWORD);
        client
    }

    /// Starts an example of the guide for `user`; it reads the password first.
    #[track_caller]
    pub(super) fn example(&self, file: &str, python: &Path, user: &str) -> Process {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples").join(file);
        let pbx = self.pbx.address();
        let directory = self.world.directory_of(&format!("{file}-{user}"));
        Process::start(file, &directory, python, |command| {
            command.arg(example).arg(format!("https://127.0.0.1:{}", self.api_port)).arg(APP_KEY);
            command.arg(self.mailbox.endpoint().trim_end_matches("/push"));
            command.args([format!("aor=sip:{user}@example.com"), format!("registrar=sip:{pbx};transport=udp")]);
            command.args([format!("user={user}"), format!("device={DEVICE}")]);
            command.env("CA_FILE", self.world.ca_file()).env("APP", APP);
        })
    }
}

fn configuration(world: &World, ports: [u16; 5], mailbox: &str) -> String {
    let [api, tls, udp, pbx, ops] = ports;
    let app_key = sha256_hex(APP_KEY);
    let served = served(world, api, tls, tls, udp);
    format!(
        r#"{served}
[registrars]
allow = ["*"]
allow_special_ranges = ["127.0.0.0/8"]
ports = [{pbx}]

# What answers is waited for, on however slow a machine.
[erasure]
grace = "30s"

[audit]
path = {audit:?}

# A build machine need not offer memfd_secret.
[vault]
allow_plain_memory = true

[ops]
listen = "127.0.0.1:{ops}"

[[tenant]]
id = "acme"
app_key_sha256 = ["{app_key}"]

[[tenant.app]]
id = "{APP}"
provider = "sandbox"
endpoint = "{mailbox}"
"#,
        audit = world.directory_of("daemon").join("audit.log"),
    )
}
