//! What the daemon under test is configured with, as a file.

use std::path::{Path, PathBuf};

use super::{APP_KEY, RIVAL_APP_KEY, sha256_hex};
use crate::middlebox::Middlebox;
use crate::pbx::Pbx;
use crate::push::PushService;
use crate::world::{EDGE_DOMAIN, World};

/// Longer than any phone takes to come, on whatever machine.
const LONG_HOLD: &str = "3m";

/// Short enough to wait for, long enough for a push to be accepted meanwhile.
pub(crate) const SHORT_HOLD: &str = "6s";

/// What a test may want different.
pub(crate) struct Settings<'m> {
    /// `calls.hold`.
    pub(crate) hold: &'static str,
    /// What phones meet instead of the TLS listener: it is advertised in its place.
    pub(crate) middlebox: Option<&'m Middlebox>,
    /// More lines for the tenant's table.
    pub(crate) tenant: String,
    /// Another tenant with the same apps, and more lines for its table.
    pub(crate) rival: Option<String>,
    /// Where operators may ask beside the loopback.
    pub(crate) ops_socket: Option<PathBuf>,
    /// More lines for `[ops]`.
    pub(crate) ops: String,
    /// A registrar's port beside those of the PBX.
    pub(crate) registrar: Option<u16>,
    /// Lines of `[process]`.
    pub(crate) process: &'static str,
    /// Calls that the kernel does not know.
    pub(crate) cage: Option<&'static str>,
    /// Lines of `[limits]`.
    pub(crate) limits: &'static str,
    /// More lines for `[audit]`.
    pub(crate) audit: &'static str,
}

impl Default for Settings<'_> {
    fn default() -> Self {
        Self {
            hold: LONG_HOLD,
            middlebox: None,
            tenant: String::new(),
            rival: None,
            ops_socket: None,
            ops: String::new(),
            registrar: None,
            process: "",
            cage: None,
            limits: "",
            audit: "",
        }
    }
}

/// How long the daemon waits for a registrar's word, to a hand-over and to a farewell: the longest that can be configured.
const STEP_WAIT: &str = "30s";

/// Where it listens, and what it says of that.
pub(super) struct Ports {
    pub(super) port: u16,
    pub(super) tls_port: u16,
    pub(super) tls_advertised: u16,
    pub(super) api_port: u16,
    pub(super) ops_port: u16,
}

/// The whole file.
pub(super) fn configuration(
    world: &World,
    directory: &Path,
    ports: &Ports,
    pbx: &dyn Pbx,
    push: &PushService<'_>,
    settings: &Settings<'_>,
) -> String {
    let Ports { port, tls_port, tls_advertised, api_port, ops_port } = ports;
    let Settings { hold, tenant, ops, process, limits, audit: audit_more, .. } = settings;
    let socket = settings.ops_socket.as_ref().map(|path| format!(", \"unix:{}\"", path.display())).unwrap_or_default();
    let rival = settings.rival.as_ref().map_or_else(String::new, |more| {
        let (key, app) = (sha256_hex(RIVAL_APP_KEY), push.app_table());
        format!("\n[[tenant]]\nid = \"rival\"\napp_key_sha256 = [\"{key}\"]\n{more}\n{app}")
    });
    let ca = world.ca_file();
    let served = served(world, *api_port, *tls_port, *tls_advertised, *port);
    format!(
        r#"{served}
[registrars]
allow = ["*"]
allow_special_ranges = ["127.0.0.0/8"]
ports = [{pbx_port}, {pbx_tls_port}, {registrar}]
tls_ca_file = {ca:?}

[calls]
hold = "{hold}"

[audit]
path = {audit:?}
{audit_more}

# What answers is waited for, on however slow a machine.
[erasure]
grace = "{STEP_WAIT}"

[drain]
calls = "2s"
deadline = "90s"

# A build machine need not offer memfd_secret.
[vault]
allow_plain_memory = true

[process]
{process}

[limits]
{limits}

[ops]
listen = ["127.0.0.1:{ops_port}"{socket}]
{ops}

# What must never stand in a log must not stand there at any level.
[log]
level = "trace"

[[tenant]]
id = "acme"
app_key_sha256 = ["{app_key}"]
{tenant}

{app}{rival}"#,
        pbx_port = pbx.port(),
        pbx_tls_port = pbx.tls_port(),
        registrar = settings.registrar.unwrap_or(5060),
        audit = directory.join("audit.log"),
        app_key = sha256_hex(APP_KEY),
        app = push.app_table(),
    )
}

/// The part that says where it serves: HTTPS, SIP over TLS, and over UDP and TCP.
pub(crate) fn served(world: &World, api: u16, tls: u16, tls_advertised: u16, udp: u16) -> String {
    let (certificate, key) = (world.certificate(), world.key());
    format!(
        r#"[api]
listen = "127.0.0.1:{api}"
register_wait = "{STEP_WAIT}"
tls_certificate = {certificate:?}
tls_key = {key:?}

[sip]
domain = "{EDGE_DOMAIN}"
tls_certificate = {certificate:?}
tls_key = {key:?}

[[sip.listen]]
transport = "tls"
address = "127.0.0.1:{tls}"
advertise = "127.0.0.1:{tls_advertised}"

[[sip.listen]]
transport = "udp"
address = "127.0.0.1:{udp}"
advertise = "127.0.0.1:{udp}"
"#
    )
}
