//! A daemon under proof: the release binary with a configuration and a directory of its own, reached as anyone would.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use jsonwebtoken::{EncodingKey, Header, encode};
use rcgen::KeyPair;
use serde_json::{Value, json};

use crate::client::{Answer, Ask, Client, Dialect};
use crate::http::Server;
use crate::process::{Process, until};
use crate::stage::Stage;
use crate::world::{EDGE_DOMAIN, free_port};

pub(crate) const APP_KEY: &str = "an-app-key-that-sits-in-every-shipped-app";
pub(crate) const APP: &str = "com.example.phone";
const TENANT: &str = "acme";

/// How a daemon differs from one that is set up as usual.
#[derive(Default)]
pub(crate) struct Setup {
    /// More tables of configuration.
    pub(crate) tables: &'static str,
    /// The system may write cores of any size for it.
    pub(crate) cores: bool,
}

/// A running daemon.
pub(crate) struct Daemon {
    pub(crate) name: &'static str,
    pub(crate) process: Process,
    pub(crate) directory: PathBuf,
    pub(crate) client: Client,
    ops: Server,
    backend: KeyPair,
    jwts: std::cell::Cell<u32>,
}

impl Daemon {
    /// Starts one and waits until it is ready.
    ///
    /// # Errors
    ///
    /// Its configuration cannot be written.
    pub(crate) fn start(stage: &Stage, name: &'static str, setup: &Setup) -> anyhow::Result<Self> {
        let directory = stage.world.directory_of(name);
        let backend = KeyPair::generate()?;
        fs::write(directory.join("backend.pem"), backend.public_key_pem())?;
        let (sip, api, ops) = (free_port(), free_port(), free_port());
        let file = directory.join("reveille.toml");
        fs::write(&file, configuration(stage, &directory, &[sip, api, ops], setup.tables)?)?;
        let binary = &stage.binary;
        let process = if setup.cores {
            // The limit is inherited; the daemon may lower it again.
            Process::start(name, &directory, Path::new("prlimit"), |command| {
                command.arg("--core=unlimited").arg(binary).arg("serve").arg("--config").arg(&file);
            })
        } else {
            Process::start(name, &directory, binary, |command| {
                command.arg("serve").arg("--config").arg(&file);
            })
        };
        let client = Client::new(api, &stage.world.ca_file())?;
        let jwts = std::cell::Cell::new(0);
        let mut daemon = Self { name, process, directory, client, ops: Server::plain(ops), backend, jwts };
        until("the daemon to be ready", || {
            daemon.process.assert_running();
            daemon.ready(stage)
        });
        Ok(daemon)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// How long its threads have been ready to run and had no processor, all of them together.
    pub(crate) fn waited_for_processor(&self) -> anyhow::Result<Duration> {
        let mut waited = 0;
        for thread in fs::read_dir(format!("/proc/{}/task", self.pid()))? {
            // A thread that has ended meanwhile waits no more.
            let Ok(times) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
            waited += times.split(' ').nth(1).and_then(|nanoseconds| nanoseconds.parse::<u64>().ok()).unwrap_or(0);
        }
        Ok(Duration::from_nanos(waited))
    }

    /// What the daemon says of itself once it is ready.
    pub(crate) fn ready(&self, stage: &Stage) -> Option<Value> {
        let asked = stage.world.runtime.block_on(self.ops.ask("GET", "/readyz", None, None)).ok()?;
        (asked.status == 200).then(|| asked.json())
    }

    /// The value of a metric's series with this label.
    pub(crate) async fn metric(&self, name: &str, label: &str) -> Option<f64> {
        self.ops.ask("GET", "/metrics", None, None).await.ok()?.metric(name, label)
    }

    /// Asks the API.
    ///
    /// # Errors
    ///
    /// No answer.
    pub(crate) fn ask(
        &self,
        stage: &Stage,
        method: &str,
        path: &str,
        bearer: &str,
        body: &str,
    ) -> anyhow::Result<Answer> {
        let ask = Ask { method, path, bearer, more: &[], body: body.as_bytes() };
        self.client.ask(&stage.world.runtime, Dialect::Http1OverTls13, &ask)
    }

    /// A JWT of the tenant's backend that may speak for the whole tenant.
    pub(crate) fn admin_jwt(&self) -> anyhow::Result<String> {
        self.jwts.set(self.jwts.get() + 1);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
        let claims = json!({
            "iss": TENANT, "aud": EDGE_DOMAIN, "sub": "backend", "scope": "admin",
            "iat": now, "exp": now + 300, "jti": format!("{}-{}", self.name, self.jwts.get()),
        });
        let key = EncodingKey::from_ec_pem(self.backend.serialize_pem().as_bytes())?;
        encode(&Header::new(jsonwebtoken::Algorithm::ES256), &claims, &key).context("a JWT cannot be signed")
    }

    /// Every file that the daemon can have written: what lies in its directory (its log and its audit log among it), and
    /// what it holds open.
    ///
    /// # Errors
    ///
    /// A directory cannot be read.
    pub(crate) fn files(&self) -> anyhow::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        let mut directories = vec![self.directory.clone()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory)? {
                let path = entry?.path();
                if path.is_dir() { directories.push(path) } else { files.push(path) }
            }
        }
        // A process that has ended holds nothing open.
        for open in fs::read_dir(format!("/proc/{}/fd", self.pid())).into_iter().flatten() {
            let path = open?.path();
            if fs::metadata(&path).is_ok_and(|metadata| metadata.is_file()) {
                files.push(path);
            }
        }
        ensure!(files.iter().any(|file| file.ends_with("audit.log")), "the audit log is not where it was configured");
        Ok(files)
    }
}

fn configuration(stage: &Stage, directory: &Path, ports: &[u16; 3], tables: &str) -> anyhow::Result<String> {
    let [sip, api, ops] = ports;
    let world = &stage.world;
    Ok(format!(
        r#"[api]
listen = "127.0.0.1:{api}"
tls_certificate = {certificate:?}
tls_key = {key:?}
# Longer than a registrar that answers takes on any machine.
register_wait = "20s"

[sip]
domain = "{EDGE_DOMAIN}"

[[sip.listen]]
transport = "udp"
address = "127.0.0.1:{sip}"
advertise = "127.0.0.1:{sip}"

[calls]
hold = "3m"

[registrars]
allow_special_ranges = ["127.0.0.0/8"]
ports = {registrars:?}

[audit]
path = {audit:?}

[drain]
calls = "1s"
deadline = "15s"

[ops]
listen = "127.0.0.1:{ops}"

# More than anyone would want to know, so that whatever could leak into a log does.
[log]
level = "trace"

[limits]
posts_per_source = 100000

{tables}

[[tenant]]
id = "{TENANT}"
app_key_sha256 = ["{app_key}"]
jwt_public_key = "backend.pem"

[[tenant.app]]
id = "{APP}"
provider = "sandbox"
endpoint = "{endpoint}"
"#,
        certificate = world.certificate(),
        key = world.key(),
        registrars = stage.ports()?,
        audit = directory.join("audit.log"),
        app_key = sha256_hex(APP_KEY),
        endpoint = stage.mailbox.endpoint(),
    ))
}

fn sha256_hex(text: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
