//! A phone as its user knows it: hands its account over, sleeps, is woken, takes or declines a call, turns push off.
//!
//! It does what the client guide tells app developers to do, in the same order, and tells what happens to whoever owns it.

mod private;
mod talk;

use std::net::IpAddr;
use std::time::Duration;

use http::Method;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use uuid::Uuid;
use zeroize::Zeroizing;

use self::private::CallerLock;
pub(crate) use self::talk::phone_sdp;
use self::talk::{INVITE_TIMEOUT, Talk};
use super::line::{CallNotice, Line, LineError, LineEvent, LinePlan, Text};
use super::push::{Push, PushSource};
use crate::clock::{self, Instant};
use crate::sandbox::caller::Side;
use crate::sandbox::https::{HttpsError, Question, Reply, Site};
use crate::sandbox::trust::Trust;
use crate::sip::Transport;
use crate::sip::uri::{Host, Uri};

/// How long the removal of a registration may take.
const DETACH_TIMEOUT: Duration = Duration::from_secs(2);
/// What a woken phone asks for when it attaches; it refreshes while a call lasts.
const ATTACH_EXPIRES: Duration = Duration::from_secs(600);
/// Bytes a hand-over needs, so that the buffer with the password never grows and leaves a copy.
const HAND_OVER_BYTES: usize = 8 * 1024;

/// The account a phone hands over.
pub struct PhoneAccount {
    /// The address of record.
    pub aor: String,
    /// Where it registers.
    pub registrar: String,
    /// Where REGISTER is sent instead.
    pub outbound_proxy: Option<String>,
    /// The user name of the credentials.
    pub auth_username: String,
    /// The password.
    pub password: Zeroizing<String>,
    /// The expiry asked of the registrar.
    pub register_expires: Duration,
}

/// The device.
#[derive(Clone)]
pub struct Device {
    /// `ios`, `android` or another name.
    pub platform: &'static str,
    /// `apns`, `fcm` or `sandbox`.
    pub provider: &'static str,
    /// The app at the provider.
    pub app: String,
    /// The token for call pushes.
    pub call_token: String,
    /// The token for all others.
    pub other_token: String,
}

/// How a phone reaches the daemon.
#[derive(Clone)]
pub struct Daemon {
    pub(crate) api: Site,
    pub(crate) app_key: Zeroizing<String>,
    /// Whom to believe when attaching over TLS.
    pub(crate) sip_trust: Trust,
    pub(crate) attach: AttachAt,
}

/// Where a phone attaches.
#[derive(Clone)]
pub enum AttachAt {
    /// Where the push says.
    AsTold,
    /// There.
    At(String),
    /// At the host the push names, over this transport and at its usual port.
    Over(Transport),
}

impl AttachAt {
    fn uri(&self, told: &str) -> Option<String> {
        match self {
            Self::AsTold => Some(told.to_owned()),
            Self::At(uri) => Some(uri.clone()),
            Self::Over(transport) => {
                let host = match Uri::parse(told.as_bytes()).ok()?.host() {
                    Host::Name(name) => name.to_owned(),
                    Host::Address(IpAddr::V6(address)) => format!("[{address}]"),
                    Host::Address(address) => address.to_string(),
                };
                Some(format!("sip:{host}:{};transport={}", transport.default_port(), transport.as_param()))
            }
        }
    }
}

/// What a phone does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manners {
    /// Takes it or not.
    pub reaction: Reaction,
    /// How long the app takes from the push until it can attach.
    pub wake_up: Duration,
    /// How long it rings before it is answered.
    pub ring_for: Duration,
    /// How long the talk lasts before the phone hangs up; `None`: the caller will.
    pub talk_for: Option<Duration>,
}

/// Takes a call or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// Answers.
    Answer,
    /// Declines over HTTPS, before SIP is up.
    Decline,
    /// Rings until the caller gives up.
    Ring,
}

/// Something a phone tells its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// When.
    pub at: Instant,
    /// What.
    pub what: Deed,
}

/// What a phone did or saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// A push arrived.
    Pushed(Push),
    /// It registered at the daemon's edge.
    Attached(Transport),
    /// The call of the push has reached it.
    Invited,
    /// It rings.
    Rings,
    /// The user answered.
    Answered,
    /// The call stands.
    Talks,
    /// The call is over.
    HungUp(Side),
    /// The user declined.
    Declined,
    /// The caller had hung up before the phone could ring, or while it rang.
    Missed(String),
    /// A text message was shown.
    Shown(Text),
}

/// How a call ended for a phone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Someone talked.
    Talked,
    /// Declined.
    Declined,
    /// The caller was faster.
    Missed,
}

/// Why a phone cannot go on. Holds no credential.
#[derive(Debug, thiserror::Error)]
pub enum PhoneError {
    /// The API or the mailbox cannot be asked.
    #[error(transparent)]
    Https(#[from] HttpsError),
    /// The API refuses.
    #[error("Reveille answers {status}: {detail}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The problem's detail, or its title.
        detail: String,
    },
    /// The API answers what its contract does not know.
    #[error("Reveille answers something that is not in its contract")]
    Contract,
    /// No key can be made.
    #[error("there is no randomness to make a key of")]
    Randomness,
    /// The edge cannot be reached.
    #[error(transparent)]
    Line(#[from] LineError),
    /// The edge refuses the phone.
    #[error("the phone could not attach: {0}")]
    NotAttached(String),
    /// No push came.
    #[error("no push came within {} s", .0.as_secs())]
    NoPush(Duration),
    /// No INVITE came.
    #[error("the phone was woken and attached, but no call came within {} s", INVITE_TIMEOUT.as_secs())]
    NoInvite,
    /// No text message came.
    #[error("the phone was woken and attached, but no message came within {} s", INVITE_TIMEOUT.as_secs())]
    NoText,
    /// The call is not the one of the push.
    #[error("the call that came is not the one the push announced")]
    WrongCall,
    /// The connection broke.
    #[error("the connection to Reveille broke")]
    Closed,
}

/// An instance as the API describes it.
#[derive(Clone, Deserialize)]
struct HandedOver {
    instance: String,
    #[serde(deserialize_with = "secret")]
    token: Zeroizing<String>,
    lease_ends: String,
    registration: Registration,
    attach: Attach,
    caller_in_push: String,
}

/// What the registrar said.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Registration {
    /// `registered` and so on.
    pub state: String,
    /// The granted expiry in seconds.
    pub expires: Option<u64>,
    /// The verdict in words.
    pub verdict: Option<String>,
}

#[derive(Clone, Deserialize)]
struct Attach {
    uri: String,
    aor: String,
    username: String,
    realm: String,
}

/// A phone that has handed its account over.
pub struct Handset {
    daemon: Daemon,
    pushes: PushSource,
    instance: HandedOver,
    lock: CallerLock,
}

#[derive(Serialize)]
struct HandOverBody<'a> {
    account: AccountBody<'a>,
    device: Value,
    lease_seconds: u64,
}

#[derive(Serialize)]
struct AccountBody<'a> {
    aor: &'a str,
    registrar: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    outbound_proxy: Option<&'a str>,
    auth_username: &'a str,
    password: &'a str,
    register_expires: u64,
}

impl Handset {
    /// Hands the account over.
    ///
    /// # Errors
    /// The API cannot be reached or refuses.
    pub async fn hand_over(
        daemon: Daemon,
        account: &PhoneAccount,
        device: &Device,
        lease: Duration,
        pushes: PushSource,
    ) -> Result<Self, PhoneError> {
        let lock = CallerLock::new().ok_or(PhoneError::Randomness)?;
        let body = HandOverBody {
            account: AccountBody {
                aor: &account.aor,
                registrar: &account.registrar,
                outbound_proxy: account.outbound_proxy.as_deref(),
                auth_username: &account.auth_username,
                password: &account.password,
                register_expires: account.register_expires.as_secs(),
            },
            device: json!({
                "id": Uuid::new_v4().urn().to_string(),
                "platform": device.platform,
                "caller_key": lock.member(),
                "push": [
                    { "for": "call", "provider": device.provider, "app": device.app, "token": device.call_token },
                    { "for": "other", "provider": device.provider, "app": device.app, "token": device.other_token },
                ],
            }),
            lease_seconds: lease.as_secs(),
        };
        let mut json = Zeroizing::new(Vec::with_capacity(HAND_OVER_BYTES));
        serde_json::to_writer(&mut *json, &body).map_err(|_| PhoneError::Contract)?;
        let key = daemon.app_key.clone();
        let question = Question { method: Method::POST, path: "/v1/instances", bearer: Some(&key), body: Some(json) };
        let reply = daemon.api.ask(question).await?;
        let body = accepted(reply)?;
        let instance: HandedOver = serde_json::from_value(body).map_err(|_| PhoneError::Contract)?;
        let mut handset = Self { daemon, pushes, instance, lock };
        handset.learn_tenant().await?;
        Ok(handset)
    }

    /// Waits for a call push and does with the call what `manners` say, telling each deed.
    ///
    /// # Errors
    /// No push came, or what follows a push did not.
    pub async fn take_call(
        &self,
        manners: Manners,
        patience: Duration,
        tell: &dyn Fn(Told),
    ) -> Result<Outcome, PhoneError> {
        let push = self.await_push("call", patience, tell).await?;
        let call = push.call.clone().ok_or(PhoneError::Contract)?;
        if manners.reaction == Reaction::Decline {
            self.decline(&call).await?;
            say(tell, Deed::Declined);
            return Ok(Outcome::Declined);
        }
        sleep(manners.wake_up).await;
        let (mut line, notices) = self.attach(&push, tell).await?;
        let outcome = Talk { call: &call, manners, tell }.run(&mut line, &notices).await;
        // The phone goes back to sleep; a daemon that is gone has forgotten it anyway.
        let _ = timeout(DETACH_TIMEOUT, line.register(Duration::ZERO)).await;
        outcome
    }

    /// Waits for a message push, attaches and takes the message.
    ///
    /// # Errors
    /// No push came, or no message after it.
    pub async fn take_text(
        &self,
        wake_up: Duration,
        patience: Duration,
        tell: &dyn Fn(Told),
    ) -> Result<Text, PhoneError> {
        let push = self.await_push("message", patience, tell).await?;
        sleep(wake_up).await;
        let (mut line, _) = self.attach(&push, tell).await?;
        let text = timeout(INVITE_TIMEOUT, texted(&mut line)).await.map_err(|_| PhoneError::NoText)??;
        say(tell, Deed::Shown(text.clone()));
        let _ = timeout(DETACH_TIMEOUT, line.register(Duration::ZERO)).await;
        Ok(text)
    }

    /// Waits for a push of that kind, telling it; others are told and passed over.
    ///
    /// # Errors
    /// None came.
    pub async fn await_push(&self, kind: &str, patience: Duration, tell: &dyn Fn(Told)) -> Result<Push, PhoneError> {
        let until = clock::now().boot + patience;
        loop {
            let now = clock::now().boot;
            if now >= until {
                return Err(PhoneError::NoPush(patience));
            }
            let Some(push) = self.pushes.next(until.saturating_since(now)).await? else { continue };
            // A push to another instance of this device, or to one it has given back.
            if push.instance != self.instance.instance {
                continue;
            }
            let push = self.unlocked(push);
            say(tell, Deed::Pushed(push.clone()));
            self.prove(&push).await?;
            if push.kind == kind {
                return Ok(push);
            }
        }
    }

    /// The instance's registration and whether a device is attached, as the API shows it.
    ///
    /// # Errors
    /// The API cannot be reached or refuses.
    pub async fn show(&self) -> Result<Value, PhoneError> {
        accepted(self.ask(Method::GET, "", None).await?)
    }

    /// Turns push off. What DELETE answers: the receipt, and whether it is logged.
    ///
    /// # Errors
    /// The API cannot be reached or refuses.
    pub async fn erase(&self) -> Result<Value, PhoneError> {
        accepted(self.ask(Method::DELETE, "", None).await?)
    }

    /// The instance.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.instance.instance
    }

    /// The bearer token for calls about the instance.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.instance.token
    }

    /// The lease's end.
    #[must_use]
    pub fn lease_ends(&self) -> &str {
        &self.instance.lease_ends
    }

    /// What the registrar said at the hand-over.
    #[must_use]
    pub fn registration(&self) -> &Registration {
        &self.instance.registration
    }

    async fn attach(&self, push: &Push, tell: &dyn Fn(Told)) -> Result<(Line, Vec<CallNotice>), PhoneError> {
        let Attach { aor, username, realm, .. } = &self.instance.attach;
        let mut line = Line::open(LinePlan {
            server: self.daemon.attach.uri(&push.attach).ok_or(PhoneError::Contract)?,
            aor: aor.clone(),
            username: username.clone(),
            password: self.instance.token.clone(),
            realm: Some(realm.clone()),
            trust: self.daemon.sip_trust.clone(),
        })
        .await?;
        match line.register(ATTACH_EXPIRES).await {
            LineEvent::Registered(registered) => {
                say(tell, Deed::Attached(line.transport()));
                Ok((line, registered.calls))
            }
            LineEvent::NotRegistered(Some(verdict)) => Err(PhoneError::NotAttached(verdict)),
            LineEvent::NotRegistered(None) => Err(PhoneError::NotAttached("no answer".to_owned())),
            _ => Err(PhoneError::Closed),
        }
    }

    async fn decline(&self, call: &str) -> Result<(), PhoneError> {
        let body = Zeroizing::new(br#"{"reason":"decline","everywhere":false}"#.to_vec());
        accepted(self.ask(Method::POST, &format!("/calls/{call}/decline"), Some(body)).await?).map(drop)
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Zeroizing<Vec<u8>>>) -> Result<Reply, PhoneError> {
        let path = format!("/v1/instances/{}{path}", self.instance.instance);
        let question = Question { method, path: &path, bearer: Some(&self.instance.token), body };
        Ok(self.daemon.api.ask(question).await?)
    }

    /// Where the phone was told to attach at the hand-over.
    #[must_use]
    pub fn attach_uri(&self) -> &str {
        &self.instance.attach.uri
    }
}

async fn texted(line: &mut Line) -> Result<Text, PhoneError> {
    loop {
        match line.next().await {
            LineEvent::Text(text) => return Ok(text),
            LineEvent::Closed => return Err(PhoneError::Closed),
            _ => {}
        }
    }
}

fn say(tell: &dyn Fn(Told), what: Deed) {
    tell(Told { at: clock::now().boot, what });
}

/// A text that is wiped when dropped.
fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Zeroizing<String>, D::Error> {
    String::deserialize(deserializer).map(Zeroizing::new)
}

/// The body of a 2xx; a problem as an error.
fn accepted(reply: Reply) -> Result<Value, PhoneError> {
    if reply.status.is_success() {
        return Ok(reply.body);
    }
    let member = |name: &str| reply.body.get(name).and_then(Value::as_str).map(str::to_owned);
    let detail = member("detail").or_else(|| member("title")).unwrap_or_else(|| "without saying why".to_owned());
    Err(PhoneError::Refused { status: reply.status.as_u16(), detail })
}
