//! `reveille phone`: an account of one's own PBX, handed over and called.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::lookup_host;
use zeroize::Zeroizing;

use super::handset::{
    AttachAt, Daemon, Deed, Device, Handset, Manners, Outcome, PhoneAccount, PhoneError, Reaction, Told,
};
use super::push::{Push, PushSource, RemoteMailbox};
use crate::cli::{AttachTransport, Exit, OnCall, PhoneArguments, complain, read_secret, say};
use crate::config::{App, PushAccess};
use crate::sandbox::agent::random_token;
use crate::sandbox::caller::Side;
use crate::sandbox::https::Site;
use crate::sandbox::inside::{self, Inside};
use crate::sandbox::interrupts::Interrupts;
use crate::sandbox::mailbox::{Mailbox, MailboxOptions};
use crate::sandbox::trust::Trust;
use crate::sip::Transport;
use crate::sip::uri::{Host, Uri};

/// The app of the daemon inside.
const APP: &str = "sandbox";
/// How long one wait for a push lasts; then comes the next.
const PATIENCE: Duration = Duration::from_secs(600);
/// How long it rings before it is answered.
const RING: Duration = Duration::from_secs(1);
/// How long an answer of the API or the mailbox may take: longer than the longest poll.
const ANSWER_PATIENCE: Duration = Duration::from_secs(60);
/// The ports a registrar usually has.
const SIP_PORTS: [u16; 2] = [5060, 5061];
/// An address nobody has (RFC 5737): asked for the way out, never sent to.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)), 5060);

/// Why the phone ends.
#[derive(Debug, thiserror::Error)]
enum Fault {
    /// Something has to be typed differently.
    #[error("{0}")]
    Usage(String),
    /// Something is not there.
    #[error("{0}")]
    Unavailable(String),
    /// The phone's own trouble.
    #[error(transparent)]
    Phone(#[from] PhoneError),
}

/// Is a phone until Ctrl-C, or for one call.
#[must_use]
pub fn run(arguments: &PhoneArguments) -> Exit {
    let password = match secret("password", arguments.password_file.as_deref()) {
        Ok(password) => password,
        Err(fault) => return end(&fault),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(problem) => return end(&Fault::Unavailable(format!("the phone cannot start: {problem}"))),
    };
    let lived = runtime.block_on(live(arguments, password));
    runtime.shutdown_timeout(Duration::from_secs(1));
    match lived {
        Ok(()) => Exit::Success,
        Err(fault) => end(&fault),
    }
}

fn end(fault: &Fault) -> Exit {
    complain(fault);
    match fault {
        Fault::Usage(_) => Exit::Usage,
        Fault::Unavailable(_) | Fault::Phone(_) => Exit::Unavailable,
    }
}

async fn live(arguments: &PhoneArguments, password: Zeroizing<String>) -> Result<(), Fault> {
    let mut interrupts = Interrupts::new().map_err(|error| Fault::Unavailable(error.to_string()))?;
    let account = account(arguments, password)?;
    let house = House::open(arguments).await?;
    let lived = hand_over_and_sleep(arguments, &account, &house, &mut interrupts).await;
    house.leave().await;
    Ok(lived?)
}

async fn hand_over_and_sleep(
    arguments: &PhoneArguments,
    account: &PhoneAccount,
    house: &House,
    interrupts: &mut Interrupts,
) -> Result<(), PhoneError> {
    say(format_args!("Handing {} over to Reveille …", account.aor));
    let handing =
        Handset::hand_over(house.daemon.clone(), account, &house.device, arguments.lease, house.pushes.clone());
    let phone = tokio::select! {
        phone = handing => phone?,
        () = interrupts.next() => return Ok(()),
    };
    let registration = phone.registration();
    let verdict = registration.verdict.as_deref().unwrap_or("nothing yet");
    say(format_args!("Your registrar says: {verdict} ({})", registration.state));
    if registration.verdict.is_none() {
        say("If it stays silent, check its port and transport in --registrar: no call comes before it has answered.");
    }
    say(format_args!("The phone sleeps. Call {} now; Ctrl-C turns push off.", account.aor));
    let lived = tokio::select! {
        lived = take_calls(arguments, &phone) => lived,
        () = interrupts.next() => Ok(()),
    };
    say("Turning push off …");
    let receipt = phone.erase().await?;
    say(format_args!("Reveille has erased the account and answers with this receipt:\n{receipt:#}"));
    lived
}

async fn take_calls(arguments: &PhoneArguments, phone: &Handset) -> Result<(), PhoneError> {
    let manners = Manners {
        reaction: match arguments.on_call {
            OnCall::Answer => Reaction::Answer,
            OnCall::Decline => Reaction::Decline,
            OnCall::Ring => Reaction::Ring,
        },
        wake_up: Duration::ZERO,
        ring_for: RING,
        talk_for: None,
    };
    loop {
        let began = std::cell::Cell::new(None);
        let tell = |told: Told| {
            let since = began.get().unwrap_or(told.at);
            began.set(Some(since));
            let milliseconds = told.at.saturating_since(since).as_millis();
            say(format_args!("{milliseconds:8} ms  {}", words(&told.what)));
        };
        match phone.take_call(manners, PATIENCE, &tell).await {
            Err(PhoneError::NoPush(_)) => continue,
            Err(error) if arguments.once => return Err(error),
            Err(error) => complain(format_args!("{error}")),
            Ok(Outcome::Talked | Outcome::Declined | Outcome::Missed) if arguments.once => return Ok(()),
            Ok(_) => {}
        }
        say("The phone sleeps again.");
    }
}

fn words(deed: &Deed) -> String {
    match deed {
        Deed::Pushed(Push { kind, caller: Some(caller), .. }) => format!("a push \"{kind}\" arrives: {caller}"),
        Deed::Pushed(push) => format!("a push \"{}\" arrives", push.kind),
        Deed::Attached(transport) => format!("the phone has connected to Reveille over {}", transport.as_via()),
        Deed::Invited => "the call arrives (INVITE)".to_owned(),
        Deed::Rings => "the phone rings (180)".to_owned(),
        Deed::Answered => "answered (200)".to_owned(),
        Deed::Talks => "the call stands (ACK); there is no sound, as this phone has no ears".to_owned(),
        Deed::HungUp(Side::Caller) => "the caller has hung up (BYE)".to_owned(),
        Deed::HungUp(Side::Callee) => "hung up (BYE)".to_owned(),
        Deed::Declined => "declined (HTTPS)".to_owned(),
        Deed::Missed(reason) => format!("missed: {reason}"),
        Deed::Shown(text) => format!("a message from {}: {}", text.from, text.body),
    }
}

/// The daemon this phone uses, and where its pushes arrive.
struct House {
    daemon: Daemon,
    device: Device,
    pushes: PushSource,
    inside: Option<Inside>,
}

impl House {
    async fn open(arguments: &PhoneArguments) -> Result<Self, Fault> {
        match &arguments.reveille {
            Some(url) => Self::elsewhere(url, arguments),
            None => Self::inside(arguments).await,
        }
    }

    /// A daemon that runs already.
    fn elsewhere(url: &str, arguments: &PhoneArguments) -> Result<Self, Fault> {
        let usage = |what: &str| Fault::Usage(format!("{what} is not a URL"));
        let trust = match ca(arguments)? {
            Some(pem) => Trust::PublicRootsAnd(pem),
            None => Trust::PublicRoots,
        };
        let site = |base| Site { base, trust: trust.clone(), patience: ANSWER_PATIENCE };
        let token = random_token();
        let mailbox = RemoteMailbox {
            site: site(arguments.sandbox.parse().map_err(|_| usage("--sandbox"))?),
            token: token.clone(),
        };
        let attach = match arguments.transport {
            AttachTransport::Tls => AttachAt::AsTold,
            AttachTransport::Tcp => AttachAt::Over(Transport::Tcp),
            AttachTransport::Udp => AttachAt::Over(Transport::Udp),
        };
        let daemon = Daemon {
            api: site(url.parse().map_err(|_| usage("--reveille"))?),
            app_key: secret("app key", arguments.app_key_file.as_deref())?,
            sip_trust: trust.clone(),
            attach,
        };
        let device = device(&arguments.app, token);
        Ok(Self { daemon, device, pushes: PushSource::Remote(mailbox), inside: None })
    }

    /// A daemon in this process.
    async fn inside(arguments: &PhoneArguments) -> Result<Self, Fault> {
        let unavailable = |error: &dyn std::fmt::Display| Fault::Unavailable(error.to_string());
        let mailbox = Mailbox::start(MailboxOptions::default()).await.map_err(|error| unavailable(&error))?;
        let hop = arguments.outbound_proxy.as_deref().unwrap_or(&arguments.registrar);
        let listen = match arguments.listen {
            Some(listen) => listen,
            None => SocketAddr::new(own_address(hop).await.map_err(|error| unavailable(&error))?, 0),
        };
        let named = [Some(&arguments.registrar), arguments.outbound_proxy.as_ref()].into_iter().flatten();
        let app =
            App { id: APP.to_owned(), push: PushAccess::Sandbox, endpoint: Some(mailbox.endpoint()), ca_pem: None };
        let plan = inside::Plan {
            listen,
            ports: named.filter_map(|uri| port(uri)).chain(SIP_PORTS).collect(),
            // Whoever runs this names the PBX, and it may well be on the local network.
            ranges: inside::anywhere(),
            registrar_ca: ca(arguments)?,
            apps: vec![app],
        };
        let inside = Inside::start(plan).map_err(|error| unavailable(&error))?;
        let transport = match arguments.transport {
            AttachTransport::Tls => Transport::Tls,
            AttachTransport::Tcp => Transport::Tcp,
            AttachTransport::Udp => Transport::Udp,
        };
        let daemon = inside.daemon(transport).ok_or_else(|| unavailable(&"the daemon has no such listener"))?;
        let pushes = PushSource::Mailbox(Arc::new(mailbox));
        Ok(Self { daemon, device: device(APP, random_token()), pushes, inside: Some(inside) })
    }

    async fn leave(self) {
        if let Some(inside) = self.inside
            && !inside.running.shutdown().await
        {
            complain("the daemon in this process did not finish everything in time");
        }
    }
}

fn account(arguments: &PhoneArguments, password: Zeroizing<String>) -> Result<PhoneAccount, Fault> {
    let user = || {
        let uri = Uri::parse(arguments.aor.as_bytes()).ok()?;
        Some(String::from_utf8_lossy(uri.user()?).into_owned())
    };
    let auth_username = arguments.auth_username.clone().or_else(user);
    let auth_username =
        auth_username.ok_or_else(|| Fault::Usage("--aor must look like sip:alice@pbx.example.com".to_owned()))?;
    Ok(PhoneAccount {
        aor: arguments.aor.clone(),
        registrar: arguments.registrar.clone(),
        outbound_proxy: arguments.outbound_proxy.clone(),
        auth_username,
        password,
        register_expires: arguments.register_expires,
    })
}

fn device(app: &str, token: String) -> Device {
    Device {
        platform: "sandbox",
        provider: "sandbox",
        app: app.to_owned(),
        call_token: token.clone(),
        other_token: token,
    }
}

fn ca(arguments: &PhoneArguments) -> Result<Option<String>, Fault> {
    let unreadable = |path: &Path, error: io::Error| Fault::Unavailable(format!("{}: {error}", path.display()));
    let file = arguments.ca_file.as_deref();
    file.map(|path| std::fs::read_to_string(path).map_err(|error| unreadable(path, error))).transpose()
}

fn secret(what: &'static str, file: Option<&Path>) -> Result<Zeroizing<String>, Fault> {
    let bytes = read_secret(what, file).map_err(|error| Fault::Unavailable(error.to_string()))?;
    let text = std::str::from_utf8(&bytes).map_err(|_| Fault::Usage(format!("the {what} is not UTF-8")))?;
    Ok(Zeroizing::new(text.to_owned()))
}

fn port(uri: &str) -> Option<u16> {
    Uri::parse(uri.as_bytes()).ok()?.port()
}

/// The address of ours on the way to the PBX; where it has no address of its own (only SRV records), on the way out.
async fn own_address(uri: &str) -> io::Result<IpAddr> {
    let (host, port) = match Uri::parse(uri.as_bytes()) {
        Ok(uri) => match uri.host() {
            Host::Address(address) => (address.to_string(), uri.port()),
            Host::Name(name) => (name.to_owned(), uri.port()),
        },
        Err(_) => return inside::way_to(NOWHERE),
    };
    let found =
        lookup_host((host.as_str(), port.unwrap_or(SIP_PORTS[0]))).await.ok().and_then(|mut found| found.next());
    inside::way_to(found.unwrap_or(NOWHERE))
}
