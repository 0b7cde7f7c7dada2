//! A small PBX: a registrar with digest that can call whoever is registered.
//!
//! It keeps to the RFCs where the daemon leans on them (nonce counts, binding order, route sets, retransmissions) and can be
//! told to refuse. It forwards nothing between users, keeps nothing on disk and looks into no media.

mod directory;
mod guard;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use zeroize::Zeroizing;

use self::directory::Directory;
use super::agent::{
    Agent, CallEvent, CallId, Happening, Invitation, NextHop, TransactionId, random_branch, random_token,
};
use super::caller::{self, CallPlan, Caller};
use super::deadlines::{earliest, sleep_until};
use super::wire::{Path, Wire};
use crate::clock::{self, Instant};
use crate::sip::auth::Algorithm;
use crate::sip::encode::Encoder;
use crate::sip::uri::Uri;
use crate::sip::{HeaderName, Message, Method, StatusCode};

/// Commands waiting for the PBX; above it their senders wait.
const COMMANDS_QUEUED: usize = 64;

/// What the PBX is told at its start.
pub struct RegistrarPlan {
    /// Where it listens, for UDP and TCP; port 0 finds a free one.
    pub listen: SocketAddr,
    /// Its realm.
    pub realm: String,
    /// Who may register.
    pub accounts: Vec<AccountPlan>,
    /// The digest algorithms it offers, in this order.
    pub algorithms: Vec<Algorithm>,
    /// The longest expiry it grants.
    pub expires_max: Duration,
    /// The shortest expiry it accepts; shorter ones get 423.
    pub expires_min: Duration,
    /// How long a nonce may be used.
    pub nonce_life: Duration,
}

/// Someone who may register.
pub struct AccountPlan {
    /// User part and user name.
    pub user: String,
    /// The password.
    pub password: Zeroizing<String>,
}

impl RegistrarPlan {
    /// A PBX on a free loopback port that offers MD5 to one account.
    #[must_use]
    pub fn loopback(user: &str, password: &str) -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            realm: "pbx.invalid".to_owned(),
            accounts: vec![AccountPlan { user: user.to_owned(), password: Zeroizing::new(password.to_owned()) }],
            algorithms: vec![Algorithm::Md5],
            expires_max: Duration::from_secs(3600),
            expires_min: Duration::from_secs(1),
            nonce_life: Duration::from_secs(3600),
        }
    }
}

/// What the PBX holds and has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Bindings, the newest last.
    pub bindings: Vec<BindingView>,
    /// REGISTERs that were granted.
    pub granted: u64,
    /// REGISTERs that were challenged.
    pub challenged: u64,
    /// REGISTERs that were refused otherwise.
    pub refused: u64,
}

/// One binding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindingView {
    /// Whose.
    pub user: String,
    /// The Contact URI.
    pub contact: String,
    /// The Call-ID it was made with.
    pub call_id: String,
    /// The CSeq of its last REGISTER.
    pub cseq: u32,
    /// What was granted.
    pub expires: Duration,
}

/// Why a call cannot be placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Nobody is registered under that name.
    #[error("nobody is registered under that name at the PBX")]
    NotRegistered,
    /// The registered Contact names no address.
    #[error("the registered Contact names no address that the PBX can reach")]
    Unreachable,
    /// Too many calls.
    #[error("the PBX has too many calls")]
    Busy,
    /// The PBX was shut down.
    #[error("the PBX is gone")]
    Gone,
}

/// A running PBX. Dropping it ends it.
pub struct Registrar {
    address: SocketAddr,
    commands: mpsc::Sender<Command>,
    snapshot: watch::Receiver<Snapshot>,
    _task: JoinSet<()>,
}

/// What a handle asks of the PBX.
pub(super) enum Command {
    Call(String, CallPlan, oneshot::Sender<Result<Caller, CallError>>),
    HangUp(CallId),
    Text(String, Bytes, oneshot::Sender<Result<StatusCode, CallError>>),
    Refuse(String, Option<StatusCode>),
    Forget(String),
}

impl Registrar {
    /// Opens the sockets and begins.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn start(plan: RegistrarPlan) -> io::Result<Self> {
        let wire = Wire::listen(plan.listen).await?;
        let address = wire.address();
        let (commands, inbox) = mpsc::channel(COMMANDS_QUEUED);
        let (published, snapshot) = watch::channel(Snapshot::default());
        let pbx = Pbx {
            agent: Agent::new(wire, "pbx".to_owned()),
            address,
            directory: Directory::new(plan),
            published,
            callers: HashMap::new(),
            texts: HashMap::new(),
            own_commands: commands.clone(),
        };
        let mut task = JoinSet::new();
        task.spawn(pbx.run(inbox));
        Ok(Self { address, commands, snapshot, _task: task })
    }

    /// Where it listens, over UDP and TCP.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it holds and has done.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.snapshot.borrow().clone()
    }

    /// Waits until the snapshot passes the test.
    pub async fn wait_until(&self, test: impl FnMut(&Snapshot) -> bool) {
        let mut snapshot = self.snapshot.clone();
        // The PBX lives as long as this handle, so its side of the channel is there.
        let _ = snapshot.wait_for(test).await;
    }

    /// Calls a registered user.
    ///
    /// # Errors
    /// Nobody is registered there, or the call cannot be placed.
    pub async fn call(&self, user: &str, plan: CallPlan) -> Result<Caller, CallError> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Call(user.to_owned(), plan, reply);
        self.commands.send(command).await.map_err(|_| CallError::Gone)?;
        answer.await.map_err(|_| CallError::Gone)?
    }

    /// Sends a text message (RFC 3428) to a registered user; what it is answered with.
    ///
    /// # Errors
    /// Nobody is registered there, or nobody answers.
    pub async fn text(&self, user: &str, body: &str) -> Result<StatusCode, CallError> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Text(user.to_owned(), Bytes::copy_from_slice(body.as_bytes()), reply);
        self.commands.send(command).await.map_err(|_| CallError::Gone)?;
        answer.await.map_err(|_| CallError::Gone)?
    }

    /// From now on answers the user's REGISTERs with `code`; `None`: as usual.
    pub async fn refuse(&self, user: &str, code: Option<StatusCode>) {
        // A PBX that is gone refuses everybody.
        let _ = self.commands.send(Command::Refuse(user.to_owned(), code)).await;
    }

    /// Loses the user's bindings, as a PBX does when it restarts.
    pub async fn forget(&self, user: &str) {
        // A PBX that is gone has forgotten them.
        let _ = self.commands.send(Command::Forget(user.to_owned())).await;
    }
}

/// The PBX's own side.
struct Pbx {
    agent: Agent,
    address: SocketAddr,
    directory: Directory,
    published: watch::Sender<Snapshot>,
    callers: HashMap<CallId, caller::Line>,
    /// Text messages that wait for their answer.
    texts: HashMap<TransactionId, oneshot::Sender<Result<StatusCode, CallError>>>,
    own_commands: mpsc::Sender<Command>,
}

impl Pbx {
    async fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
        loop {
            let due =
                earliest(self.directory.poll_timeout(), self.callers.values().filter_map(caller::Line::due).min());
            tokio::select! {
                happening = self.agent.next() => self.handle(happening),
                command = inbox.recv() => match command {
                    Some(command) => self.command(command),
                    None => return,
                },
                () = sleep_until(due) => self.handle_timeout(clock::now().boot),
            }
            self.publish();
        }
    }

    fn publish(&self) {
        let snapshot = self.directory.snapshot();
        self.published.send_if_modified(|published| {
            let changed = *published != snapshot;
            *published = snapshot;
            changed
        });
    }

    fn handle(&mut self, happening: Happening) {
        match happening {
            Happening::Request(id) => {
                let Some((request, path)) = self.agent.asked(id) else { return };
                if request.method() == Some(Method::Message) {
                    // It forwards nothing between users.
                    return self.agent.reply(id, StatusCode::NOT_FOUND, &[]);
                }
                let answer = self.directory.handle_register(request, path, clock::now().boot);
                // First, so that whoever has the answer finds what it says in the snapshot.
                self.publish();
                self.agent.reply(id, answer.code, &answer.extra);
            }
            Happening::Call(call, CallEvent::Offered { .. }) => {
                // Whoever calls through this PBX learns that it has nobody to forward to.
                self.agent.refuse(call, StatusCode::NOT_FOUND);
            }
            Happening::Call(call, event) => {
                let Some(line) = self.callers.get_mut(&call) else { return };
                if line.tell(event, clock::now().boot) {
                    self.callers.remove(&call);
                }
            }
            Happening::Response(id, response) => {
                let code = response.and_then(|response| response.status()).ok_or(CallError::Unreachable);
                if let Some(reply) = self.texts.remove(&id) {
                    // Nobody waits for it any more: nothing is lost.
                    let _ = reply.send(code);
                }
            }
            Happening::Closed(_) => {}
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Call(user, plan, reply) => {
                let placed = self.place(&user, &plan);
                // Nobody waits for the answer any more: then nobody will steer the call either.
                if let Err(Ok(caller)) = reply.send(placed) {
                    self.agent.hang_up(caller.id());
                }
            }
            Command::HangUp(call) => {
                if let Some(line) = self.callers.get_mut(&call) {
                    line.hung_up();
                }
                self.agent.hang_up(call);
            }
            Command::Text(user, body, reply) => match self.send_text(&user, &body) {
                Ok(id) => drop(self.texts.insert(id, reply)),
                Err(error) => drop(reply.send(Err(error))),
            },
            Command::Refuse(user, code) => self.directory.refuse(&user, code),
            Command::Forget(user) => self.directory.forget(&user),
        }
    }

    fn place(&mut self, user: &str, plan: &CallPlan) -> Result<Caller, CallError> {
        let now = clock::now().boot;
        let (contact, path) = self.directory.newest(user, now).ok_or(CallError::NotRegistered)?;
        let path = self.path_to(&contact, path).ok_or(CallError::Unreachable)?;
        let host = self.address;
        let invitation = Invitation {
            request_uri: &contact,
            from: &format!("\"{}\" <sip:{}@{host}>", plan.name.replace(['"', '\\'], ""), plan.number),
            to: &format!("<sip:{user}@{host}>"),
            path,
            sdp: plan.sdp.clone(),
        };
        let call = self.agent.place(&invitation).ok_or(CallError::Busy)?;
        let (line, caller) = caller::pair(call, plan.give_up, now, self.own_commands.clone());
        self.callers.insert(call, line);
        Ok(caller)
    }

    fn send_text(&mut self, user: &str, body: &[u8]) -> Result<TransactionId, CallError> {
        let (contact, path) = self.directory.newest(user, clock::now().boot).ok_or(CallError::NotRegistered)?;
        let path = self.path_to(&contact, path).ok_or(CallError::Unreachable)?;
        let (transport, sent_by) = self.agent.sent_by(path);
        let host = self.address;
        let mut out = Vec::with_capacity(512 + body.len());
        let mut message = Encoder::request(&mut out, Method::Message, contact.as_bytes());
        let branch = random_branch();
        message.header(HeaderName::Via, format_args!("SIP/2.0/{} {sent_by};branch={branch};rport", transport.as_via()));
        message.header(HeaderName::MaxForwards, 70);
        message.header(HeaderName::From, format_args!("\"Bob\" <sip:bob@{host}>;tag={}", random_token()));
        message.header(HeaderName::To, format_args!("<sip:{user}@{host}>"));
        message.header(HeaderName::CallId, random_token());
        message.header(HeaderName::CSeq, "1 MESSAGE");
        message.header(HeaderName::ContentType, "text/plain");
        message.finish(body);
        self.agent.request(out, path).ok_or(CallError::Busy)
    }

    /// Down the connection that registered, as PBXs do; else to where the Contact points.
    fn path_to(&mut self, contact: &str, registered: Path) -> Option<Path> {
        if let Path::Stream(_) = registered
            && self.agent.wire().is_live(registered)
        {
            return Some(registered);
        }
        let hop = NextHop::of(Uri::parse(contact.as_bytes()).ok()?)?;
        self.agent.wire_mut().path_to(hop.transport, hop.address)
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.directory.handle_timeout(now);
        let mut tired: Vec<CallId> =
            self.callers.iter_mut().filter_map(|(call, line)| line.gives_up(now).then_some(*call)).collect();
        tired.sort_unstable();
        for call in tired {
            self.agent.hang_up(call);
        }
    }
}

/// What the PBX answers to a REGISTER.
struct Answer {
    code: StatusCode,
    extra: Vec<(&'static str, String)>,
}

/// A field of a message as text; what is no UTF-8 is replaced.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The user part of To.
fn to_user(request: &Message) -> Option<String> {
    request.to().ok()?.uri().user().map(text)
}

/// A session description without media behind it.
#[must_use]
pub fn canned_sdp(who: &str, port: u16) -> Bytes {
    let text = format!(
        "v=0\r\no={who} 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio {port} RTP/AVP 0 8\r\n\
         a=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\na=sendrecv\r\n"
    );
    Bytes::from(text)
}
