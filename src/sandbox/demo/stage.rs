//! Everything the demo needs, started and stopped.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::config::{ApnsAccess, ApnsEnvironment, App, FcmAccess, PushAccess};
use crate::sandbox::agent::random_token;
use crate::sandbox::apns::{ApnsOptions, ApnsStandIn};
use crate::sandbox::fcm::{FcmOptions, FcmStandIn};
use crate::sandbox::inside::{self, Inside};
use crate::sandbox::mailbox::{Mailbox, MailboxOptions};
use crate::sandbox::phone::handset::{Device, Handset, PhoneAccount, PhoneError};
use crate::sandbox::phone::push::PushSource;
use crate::sandbox::registrar::{AccountPlan, Registrar, RegistrarPlan};
use crate::sip::Transport;

/// Both apps' name at their provider.
const APP: &str = "com.example.phone";
/// The app of the mailbox, as the example client of the guide is called where it is told no other name.
const MAILBOX_APP: &str = "sandbox";
/// Bytes of an APNs device token.
const APNS_TOKEN_HEX: usize = 64;
/// The expiry the demo's accounts ask for.
const REGISTER_EXPIRES: Duration = Duration::from_secs(600);
/// How long the demo's accounts may be held.
const LEASE: Duration = Duration::from_secs(3600);

/// The people who can be called: Alice and Carol in the story, Dave for whoever tries things.
pub(super) const USERS: [&str; 3] = ["alice", "carol", "dave"];

/// What stands on the stage.
pub(super) struct Stage {
    pub(super) apple: Arc<ApnsStandIn>,
    pub(super) google: Arc<FcmStandIn>,
    /// For clients of the user's own; over loopback, without TLS.
    pub(super) mailbox: Mailbox,
    pub(super) pbx: Registrar,
    pub(super) inside: Inside,
    /// The password of everyone at the PBX.
    pub(super) password: Zeroizing<String>,
}

impl Stage {
    pub(super) async fn build() -> Result<Self, String> {
        let password = Zeroizing::new(random_token());
        let (apple, google, mailbox, pbx) = tokio::join!(
            ApnsStandIn::start(ApnsOptions::default()),
            FcmStandIn::start(FcmOptions::default()),
            Mailbox::start(MailboxOptions::default()),
            Registrar::start(pbx_plan(&password)),
        );
        let apple = Arc::new(apple.map_err(|error| format!("the stand-in for Apple does not start: {error}"))?);
        let google = Arc::new(google.map_err(|error| format!("the stand-in for Google does not start: {error}"))?);
        let mailbox = mailbox.map_err(|error| format!("the mailbox does not start: {error}"))?;
        let pbx = pbx.map_err(|error| format!("the PBX does not start: {error}"))?;
        let plan = inside::Plan {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            ports: vec![pbx.address().port()],
            ranges: inside::loopback(),
            registrar_ca: None,
            apps: vec![apple_app(&apple), google_app(&google), mailbox_app(&mailbox)],
        };
        let inside = Inside::start(plan).map_err(|error| format!("Reveille does not start: {error}"))?;
        Ok(Self { apple, google, mailbox, pbx, inside, password })
    }

    /// Alice's iPhone attaches over TLS.
    pub(super) async fn alice(&self) -> Result<Handset, PhoneError> {
        let token = || format!("{}{}", random_token(), random_token());
        debug_assert_eq!(token().len(), APNS_TOKEN_HEX);
        let device = Device {
            platform: "ios",
            provider: "apns",
            app: APP.to_owned(),
            call_token: token(),
            other_token: token(),
        };
        self.hand_over("alice", &device, Transport::Tls, PushSource::Apns(Arc::clone(&self.apple))).await
    }

    /// Carol's Android phone attaches over TCP.
    pub(super) async fn carol(&self) -> Result<Handset, PhoneError> {
        self.android("carol").await
    }

    /// Alice's Android tablet too.
    pub(super) async fn tablet(&self) -> Result<Handset, PhoneError> {
        self.android("alice").await
    }

    async fn android(&self, user: &str) -> Result<Handset, PhoneError> {
        let token = format!("{}:{}", random_token(), random_token());
        let device = Device {
            platform: "android",
            provider: "fcm",
            app: APP.to_owned(),
            call_token: token.clone(),
            other_token: token,
        };
        self.hand_over(user, &device, Transport::Tcp, PushSource::Fcm(Arc::clone(&self.google))).await
    }

    /// Stops the daemon as SIGTERM would; whether it finished in time.
    pub(super) async fn strike(self) -> bool {
        self.inside.running.shutdown().await
    }

    async fn hand_over(
        &self,
        user: &str,
        device: &Device,
        attach: Transport,
        pushes: PushSource,
    ) -> Result<Handset, PhoneError> {
        let daemon = self.inside.daemon(attach).ok_or(PhoneError::Contract)?;
        let account = PhoneAccount {
            aor: format!("sip:{user}@{}", self.pbx.address()),
            registrar: format!("sip:{}", self.pbx.address()),
            outbound_proxy: None,
            auth_username: user.to_owned(),
            password: self.password.clone(),
            register_expires: REGISTER_EXPIRES,
        };
        Handset::hand_over(daemon, &account, device, LEASE, pushes).await
    }
}

fn pbx_plan(password: &Zeroizing<String>) -> RegistrarPlan {
    let account = |user: &str| AccountPlan { user: user.to_owned(), password: password.clone() };
    RegistrarPlan { accounts: USERS.map(account).into(), ..RegistrarPlan::loopback("", "") }
}

fn apple_app(apple: &ApnsStandIn) -> App {
    let credentials = apple.credentials();
    App {
        id: APP.to_owned(),
        push: PushAccess::Apns(ApnsAccess {
            team_id: credentials.team_id,
            key_id: credentials.key_id,
            key_pem: credentials.key_pem,
            environment: ApnsEnvironment::Production,
        }),
        endpoint: Some(apple.endpoint()),
        ca_pem: Some(apple.ca_pem().to_owned()),
    }
}

fn google_app(google: &FcmStandIn) -> App {
    App {
        id: APP.to_owned(),
        push: PushAccess::Fcm(FcmAccess { service_account_json: google.credentials() }),
        endpoint: Some(google.endpoint()),
        ca_pem: Some(google.ca_pem().to_owned()),
    }
}

fn mailbox_app(mailbox: &Mailbox) -> App {
    App { id: MAILBOX_APP.to_owned(), push: PushAccess::Sandbox, endpoint: Some(mailbox.endpoint()), ca_pem: None }
}
