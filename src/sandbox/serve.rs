//! `reveille sandbox`: the push stand-ins for a daemon that is being tried or developed.
//!
//! What a configuration needs of them (keys, certificates) is written to a directory of its own and removed at the end. The
//! keys open nothing but these stand-ins.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::apns::{ApnsOptions, ApnsStandIn};
use super::fcm::{FcmOptions, FcmStandIn};
use super::interrupts::Interrupts;
use super::mailbox::{Mailbox, MailboxObserver, MailboxOptions};
use crate::cli::{Exit, SandboxArguments, complain, say};

/// How long one wait for a push lasts; then comes the next.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Serves the stand-ins until Ctrl-C.
#[must_use]
pub fn serve(arguments: &SandboxArguments) -> Exit {
    let served = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .and_then(|runtime| runtime.block_on(until_told(arguments)));
    match served {
        Ok(()) => Exit::Success,
        Err(problem) => {
            complain(format_args!("the sandbox cannot be served: {problem}"));
            Exit::Unavailable
        }
    }
}

async fn until_told(arguments: &SandboxArguments) -> io::Result<()> {
    let mut interrupts = Interrupts::new()?;
    let offer = Offer::start(arguments).await?;
    say(offer.describe(arguments));
    tokio::select! {
        () = interrupts.next() => {}
        () = offer.tell_apple(arguments.json) => {}
        () = offer.tell_google(arguments.json) => {}
    }
    Ok(())
}

/// What is served.
struct Offer {
    apple: ApnsStandIn,
    google: FcmStandIn,
    mailbox: Mailbox,
    files: Files,
}

impl Offer {
    async fn start(arguments: &SandboxArguments) -> io::Result<Self> {
        let [mailbox, apple, google] = [0, 1, 2].map(|distance| beside(arguments.listen, distance));
        let at =
            |address: SocketAddr| move |error: io::Error| io::Error::new(error.kind(), format!("{address}: {error}"));
        let options = MailboxOptions { address: mailbox, tls: true, observer: Some(observer(arguments.json)) };
        let mailbox = Mailbox::start(options).await.map_err(at(mailbox))?;
        let options = ApnsOptions { address: apple, ..ApnsOptions::default() };
        let apple = ApnsStandIn::start(options).await.map_err(at(apple))?;
        let options = FcmOptions { address: google, ..FcmOptions::default() };
        let google = FcmStandIn::start(options).await.map_err(at(google))?;
        let files = Files::make()?;
        files.write("mailbox-ca.pem", mailbox.ca_pem().unwrap_or_default())?;
        files.write("apple-ca.pem", apple.ca_pem())?;
        files.write("apple-key.p8", &apple.credentials().key_pem)?;
        files.write("google-ca.pem", google.ca_pem())?;
        files.write("google-service-account.json", &google.credentials())?;
        Ok(Self { apple, google, mailbox, files })
    }

    fn describe(&self, arguments: &SandboxArguments) -> String {
        let (apple, google, mailbox) = (self.apple.endpoint(), self.google.endpoint(), self.mailbox.endpoint());
        let directory = self.files.directory.display();
        let keys = self.apple.credentials();
        if arguments.json {
            let ready = json!({
                "ready": true, "sandbox": mailbox, "apns": apple, "fcm": google,
                "files": self.files.directory.to_string_lossy(),
            });
            return ready.to_string();
        }
        let pushes = mailbox.trim_end_matches("/push");
        format!(
            "Stand-ins for push services are served until Ctrl-C. For a tenant's apps in reveille.toml:\n\n\
             [[tenant.app]]\nid = \"sandbox\"\nprovider = \"sandbox\"\nendpoint = \"{mailbox}\"\n\
             ca_file = \"{directory}/mailbox-ca.pem\"\n\n\
             [[tenant.app]]\nid = \"com.example.phone\"\nprovider = \"apns\"\nteam_id = \"{}\"\nkey_id = \"{}\"\n\
             key_file = \"{directory}/apple-key.p8\"\nendpoint = \"{apple}\"\n\
             ca_file = \"{directory}/apple-ca.pem\"\n\n\
             [[tenant.app]]\nid = \"com.example.phone\"\nprovider = \"fcm\"\n\
             service_account_file = \"{directory}/google-service-account.json\"\nendpoint = \"{google}\"\n\
             ca_file = \"{directory}/google-ca.pem\"\n\n\
             The next push for a token of the app \"sandbox\":\n\n\
             curl --cacert {directory}/mailbox-ca.pem '{pushes}/pushes/TOKEN?wait=30'\n\n\
             Every push that arrives is told here.",
            keys.team_id, keys.key_id,
        )
    }

    async fn tell_apple(&self, json: bool) {
        loop {
            if let Some(push) = self.apple.next_push(PATIENCE).await {
                tell("apns", &push.token, &push.payload, json);
            }
        }
    }

    async fn tell_google(&self, json: bool) {
        loop {
            if let Some(push) = self.google.next_push(PATIENCE).await {
                let data: Map<String, Value> =
                    push.data.into_iter().map(|(name, text)| (name, Value::String(text))).collect();
                tell("fcm", &push.token, &Value::Object(data), json);
            }
        }
    }
}

/// Tells of a mailbox's pushes without taking them away from the phone they are for.
fn observer(json: bool) -> MailboxObserver {
    Box::new(move |push| tell("sandbox", &push.token, &Value::Object(push.payload.clone()), json))
}

fn tell(provider: &str, token: &str, payload: &Value, json: bool) {
    let kind = payload.get("kind").and_then(Value::as_str).unwrap_or("?");
    if json {
        say(json!({ "provider": provider, "kind": kind, "token": token, "payload": payload }));
    } else {
        say(format_args!("{provider}: {kind} for {token}: {payload}"));
    }
}

/// The port so far above the one asked for; a free one where a free one was asked for.
fn beside(listen: SocketAddr, distance: u16) -> SocketAddr {
    let port = if listen.port() == 0 { 0 } else { listen.port().saturating_add(distance) };
    SocketAddr::new(listen.ip(), port)
}

/// A directory only we can read; removed with this value.
struct Files {
    directory: PathBuf,
}

impl Files {
    fn make() -> io::Result<Self> {
        let directory = std::env::temp_dir().join(format!("reveille-sandbox-{}", std::process::id()));
        // What a killed predecessor with our number left is not ours to trust.
        if directory.exists() {
            std::fs::remove_dir_all(&directory)?;
        }
        std::fs::DirBuilder::new().mode(0o700).create(&directory)?;
        Ok(Self { directory })
    }

    fn write(&self, name: &str, text: &str) -> io::Result<()> {
        let mut options = std::fs::OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(self.directory.join(Path::new(name)));
        io::Write::write_all(&mut file?, text.as_bytes())
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        if let Err(problem) = std::fs::remove_dir_all(&self.directory) {
            complain(format_args!("{} is left behind: {problem}", self.directory.display()));
        }
    }
}
