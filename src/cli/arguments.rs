//! What can be typed. The doc comments are the help texts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Keeps softphones registered while they sleep, wakes them for calls, and erases their credentials on time.
#[derive(Debug, Parser)]
#[command(name = "reveille", version, about, long_about = None, propagate_version = false)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Run the daemon
    Serve {
        /// The configuration file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Show everything at work: a daemon, a registrar, callers, a phone and stand-ins for Apple and Google in one process
    Demo(DemoArguments),
    /// Be a phone: hand an account of your own PBX over, go to sleep, and take a call
    Phone(Box<PhoneArguments>),
    /// Serve stand-ins for Apple's and Google's push services, and the push provider "sandbox"
    Sandbox(SandboxArguments),
    /// Say everything that is wrong with a configuration, with its line
    CheckConfig {
        /// The configuration file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Check the audit log, receipts and proofs, or make proofs and evidence
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Ask a running daemon how it is
    Status(StatusArguments),
    /// Ask a running daemon what became of its calls, and why a phone did not ring
    Calls(CallsArguments),
    /// Ask a running daemon how its log names an instance or a call
    LogNames(LogNamesArguments),
}

/// `reveille demo`.
#[derive(Args, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DemoArguments {
    /// End after the story; otherwise stay, for trying things
    #[arg(long)]
    pub once: bool,
    /// Tell it as JSON lines
    #[arg(long)]
    pub json: bool,
}

/// `reveille phone`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct PhoneArguments {
    /// Your registrar or PBX, such as "sip:pbx.example.com;transport=tls"
    #[arg(long, value_name = "SIP-URI")]
    pub registrar: String,
    /// Your address there, such as "sip:alice@pbx.example.com"
    #[arg(long, value_name = "SIP-URI")]
    pub aor: String,
    /// The user name of your credentials, if it is not the one in --aor
    #[arg(long, value_name = "NAME")]
    pub auth_username: Option<String>,
    /// The file with your password; without it, the password is read from standard input
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Where REGISTER is sent instead of the registrar
    #[arg(long, value_name = "SIP-URI")]
    pub outbound_proxy: Option<String>,
    /// The expiry asked of the registrar
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration)]
    pub register_expires: Duration,
    /// How long the daemon may hold the account; it is erased when this phone ends
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration)]
    pub lease: Duration,
    /// The daemon; without it, one is run in this process
    #[arg(long, value_name = "URL", value_parser = https, requires = "app_key_file")]
    pub reveille: Option<String>,
    /// The file with the app key for --reveille
    #[arg(long, value_name = "FILE", requires = "reveille")]
    pub app_key_file: Option<PathBuf>,
    /// The app at --reveille that this phone is; its provider must be "sandbox"
    #[arg(long, value_name = "APP-ID", default_value = "sandbox", requires = "reveille")]
    pub app: String,
    /// The "reveille sandbox" where the pushes of --app arrive
    #[arg(long, value_name = "URL", default_value = "https://127.0.0.1:8444", requires = "reveille")]
    pub sandbox: String,
    /// Certificates (PEM) to trust at --reveille, --sandbox and in SIP, beside the public roots
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// The address the daemon in this process shows your PBX, if it must not be the one of the way there
    #[arg(long, value_name = "ADDRESS:PORT", conflicts_with = "reveille")]
    pub listen: Option<SocketAddr>,
    /// How the woken phone attaches
    #[arg(long, value_enum, default_value_t)]
    pub transport: AttachTransport,
    /// What the phone does when it rings
    #[arg(long, value_enum, default_value_t)]
    pub on_call: OnCall,
    /// End after the first call
    #[arg(long)]
    pub once: bool,
}

/// How a woken phone attaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum AttachTransport {
    /// TLS over TCP.
    #[default]
    Tls,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// What a phone does when it rings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OnCall {
    /// Answers after a second, and hangs up when the caller does.
    #[default]
    Answer,
    /// Declines.
    Decline,
    /// Rings until the caller gives up.
    Ring,
}

/// `reveille sandbox`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct SandboxArguments {
    /// Where to serve the first of them; the others take the next two ports. Over HTTPS with certificates of their own
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8444")]
    pub listen: SocketAddr,
    /// Tell each push as a JSON line
    #[arg(long)]
    pub json: bool,
}

/// `reveille audit`.
#[derive(Debug, PartialEq, Eq, Subcommand)]
pub enum AuditCommand {
    /// Check that nothing in a log, receipt, proof or evidence was changed, left out or added
    Verify {
        /// The log, with all its segments that lie beside it, or a receipt, a proof, or evidence
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The public key it must be signed with; without it, the one beside the log or named in the file
        #[arg(long, value_name = "PEM")]
        key: Option<PathBuf>,
        /// A checkpoint that was kept (a signed note): the log must hold all that it held then
        #[arg(long, value_name = "CHECKPOINT")]
        since: Option<PathBuf>,
        /// Look at this segment of a log alone
        #[arg(long)]
        single: bool,
    },
    /// Prove that a record stands in a log, or that the log only grew
    Prove(ProveArguments),
    /// Tell, signed, what is configured, who else processes anything, and what the log counts
    Evidence {
        /// The daemon's configuration
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
}

/// `reveille audit prove`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct ProveArguments {
    /// The log
    #[arg(value_name = "LOG")]
    pub log: PathBuf,
    /// What is to be proven.
    #[command(flatten)]
    pub wanted: Wanted,
    /// The public key the log must be signed with; without it, the one beside the log
    #[arg(long, value_name = "PEM")]
    pub key: Option<PathBuf>,
}

/// What `reveille audit prove` is to prove: one of these.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[group(required = true, multiple = false)]
pub struct Wanted {
    /// That the record of this receipt is in the log
    #[arg(long, value_name = "FILE")]
    pub receipt: Option<PathBuf>,
    /// That the record of this number, from 0, is in the log
    #[arg(long, value_name = "N")]
    pub record: Option<u64>,
    /// That the log has only grown since this checkpoint, which was kept (a signed note)
    #[arg(long, value_name = "CHECKPOINT")]
    pub since: Option<PathBuf>,
}

/// Which daemon is asked, and what it is shown.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct OpsArguments {
    /// The daemon's configuration, for its ops.listen; without it and --ops, the default one is asked
    #[arg(long, value_name = "FILE", conflicts_with = "ops")]
    pub config: Option<PathBuf>,
    /// The daemon's operators' endpoints: http://…, https://… or unix:/…
    #[arg(long, value_name = "URL")]
    pub ops: Option<String>,
    /// The file with the token of ops.token_sha256
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Certificates (PEM) to trust there instead of the public roots
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// The certificate (PEM) to show there, one of ops.client_ca_file
    #[arg(long, value_name = "FILE", requires = "key")]
    pub certificate: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, value_name = "FILE", requires = "certificate")]
    pub key: Option<PathBuf>,
}

/// `reveille status`.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct StatusArguments {
    /// Which daemon, and what to show it.
    #[command(flatten)]
    pub daemon: OpsArguments,
}

/// `reveille calls`.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct CallsArguments {
    /// Which daemon, and what to show it.
    #[command(flatten)]
    pub daemon: OpsArguments,
    /// Tell it as JSON
    #[arg(long)]
    pub json: bool,
    /// Only this call, by the id that push, INVITE and API share; without it, the last ones
    #[arg(value_name = "CALL-UUID")]
    pub call: Option<uuid::Uuid>,
}

/// `reveille log-names`.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct LogNamesArguments {
    /// Which daemon, and what to show it.
    #[command(flatten)]
    pub daemon: OpsArguments,
    /// The id of an instance, or of a call as push, INVITE and API share it
    #[arg(value_name = "ID")]
    pub id: String,
}

fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration >= Duration::from_secs(1) => Ok(duration),
        _ => Err("a duration of at least a second, such as \"45s\" or \"10m\"".to_owned()),
    }
}

fn https(text: &str) -> Result<String, String> {
    let is_https = text.parse::<http::Uri>().is_ok_and(|uri| uri.scheme_str() == Some("https") && uri.host().is_some());
    is_https.then(|| text.to_owned()).ok_or_else(|| "a URL such as https://127.0.0.1:8443".to_owned())
}
