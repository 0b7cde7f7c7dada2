//! The push services' stand-ins, which refuse what Apple and Google refuse.
//!
//! The strict stand-ins are the library's own (`reveille::sandbox`). This file is all of the outside test that knows how
//! they are called: it starts one, writes the app into the daemon's configuration and hands out accepted pushes in order.

use std::sync::Mutex;
use std::time::Duration;

use reveille::sandbox::apns::{ApnsOptions, ApnsStandIn};
use reveille::sandbox::fault::{Fault, Gate};
use reveille::sandbox::fcm::{FcmOptions, FcmStandIn};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::process::until;
use crate::world::World;

/// Whose stand-in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Provider {
    Apns,
    Fcm,
}

/// A push that the stand-in accepted.
#[derive(Clone, Debug)]
pub(crate) struct Push {
    /// Where it was sent.
    pub(crate) token: String,
    /// Our members: for APNs those beside `aps`, for FCM `data`.
    pub(crate) payload: Value,
}

/// A running stand-in.
pub(crate) struct PushService<'w> {
    provider: Provider,
    standin: Standin<'w>,
}

impl Push {
    /// A member of the payload as text; FCM knows nothing but text.
    pub(crate) fn word(&self, key: &str) -> &str {
        self.payload[key].as_str().unwrap_or_default()
    }
}

impl<'w> PushService<'w> {
    #[track_caller]
    pub(crate) fn start(world: &'w World, provider: Provider) -> Self {
        Self { provider, standin: Standin::start(world, provider) }
    }

    pub(crate) fn platform_name(&self) -> &'static str {
        match self.provider {
            Provider::Apns => "ios",
            Provider::Fcm => "android",
        }
    }

    /// `device.push` of a hand-over by a user's device.
    pub(crate) fn targets(&self, user: &str) -> Value {
        let provider = match self.provider {
            Provider::Apns => "apns",
            Provider::Fcm => "fcm",
        };
        let target = |purpose: &str| json!({ "for": purpose, "provider": provider, "app": APP, "token": self.token(user, purpose) });
        json!([target("call"), target("other")])
    }

    /// A token of a user's device. Those of APNs are hexadecimal, and calls have one of their own (PushKit).
    pub(crate) fn token(&self, user: &str, purpose: &str) -> String {
        let unique = |name: &str| Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()).simple().to_string();
        match self.provider {
            Provider::Apns => unique(user) + &unique(purpose),
            Provider::Fcm => format!("installation:{}", unique(user)),
        }
    }

    /// The same as parameters of a Contact (RFC 8599 §10, §11), the call token alone.
    pub(crate) fn params(&self, user: &str) -> String {
        let (provider, param) = match &self.standin.service {
            Service::Apns(standin) => ("apns", format!("{}.{APP}.voip", standin.credentials().team_id)),
            Service::Fcm(_) => ("fcm", FcmOptions::default().project_id),
        };
        format!(";pn-provider={provider};pn-param={param};pn-prid={}", self.token(user, "call"))
    }

    /// The `[[tenant.app]]` table for the daemon's configuration.
    pub(crate) fn app_table(&self) -> String {
        self.standin.app_table()
    }

    /// Where it listens.
    pub(crate) fn port(&self) -> u16 {
        let endpoint = match &self.standin.service {
            Service::Apns(standin) => standin.endpoint(),
            Service::Fcm(standin) => standin.endpoint(),
        };
        let port = endpoint.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        port.expect("the endpoint ends with its port")
    }

    /// Pushes accepted so far, oldest first.
    pub(crate) fn accepted(&self) -> Vec<Push> {
        self.standin.accepted()
    }

    /// Accepted pushes of one kind so far.
    pub(crate) fn of_kind(&self, kind: &str) -> Vec<Push> {
        self.accepted().into_iter().filter(|push| push.word("kind") == kind).collect()
    }

    /// Waits for the `nth` push (from 1) of a kind to a token.
    #[track_caller]
    pub(crate) fn wait_for(&self, kind: &str, token: &str, nth: usize) -> Push {
        until(&format!("push number {nth} of kind {kind}"), || {
            self.of_kind(kind).into_iter().filter(|push| push.token == token).nth(nth - 1)
        })
    }

    /// Waits for the `nth` push (from 1) that wakes for a call.
    #[track_caller]
    pub(crate) fn wait_for_call(&self, nth: usize) -> Push {
        until("a push that wakes the phone", || self.of_kind("call").into_iter().nth(nth - 1))
    }

    /// Keeps the next push until the gate is opened; then it is taken and acknowledged.
    pub(crate) fn hold_back(&self) -> Gate {
        let gate = Gate::default();
        match &self.standin.service {
            Service::Apns(standin) => standin.fail_after(0, Fault::Hold(gate.clone())),
            Service::Fcm(standin) => standin.fail_after(0, Fault::Hold(gate.clone())),
        }
        gate
    }

    /// Refuses the next push that is not refused already, with this status and word.
    pub(crate) fn refuse_next(&self, status: u16, word: &str) {
        match &self.standin.service {
            Service::Apns(standin) => standin.fail_after(0, Fault::answer(status, word)),
            Service::Fcm(standin) => standin.fail_after(0, Fault::answer(status, word)),
        }
    }
}

/// The bundle id, or package, of the app.
const APP: &str = "com.example.phone";

// --- the part that knows the library -------------------------------------------------------------------------------

/// The library's stand-in, its files and the table that names them.
struct Standin<'w> {
    world: &'w World,
    service: Service,
    app_table: String,
    accepted: Mutex<Vec<Push>>,
}

enum Service {
    Apns(ApnsStandIn),
    Fcm(FcmStandIn),
}

impl<'w> Standin<'w> {
    #[track_caller]
    fn start(world: &'w World, provider: Provider) -> Self {
        let directory = world.directory_of("push");
        let write = |name: &str, text: &str| {
            let file = directory.join(name);
            std::fs::write(&file, text).expect("the directory is writable");
            file
        };
        let (service, app_table) = world.runtime.block_on(async {
            match provider {
                Provider::Apns => {
                    let standin = ApnsStandIn::start(ApnsOptions::default()).await.expect("the stand-in starts");
                    let credentials = standin.credentials();
                    let key = write("key.p8", &credentials.key_pem);
                    let (team, id) = (&credentials.team_id, &credentials.key_id);
                    let access = format!("team_id = \"{team}\"\nkey_id = \"{id}\"\nkey_file = {key:?}\n");
                    let reach = reach(&standin.endpoint(), &write("ca.pem", standin.ca_pem()));
                    (Service::Apns(standin), app("apns", &access, &reach))
                }
                Provider::Fcm => {
                    let standin = FcmStandIn::start(FcmOptions::default()).await.expect("the stand-in starts");
                    let file = write("service-account.json", &standin.credentials());
                    let access = format!("service_account_file = {file:?}\n");
                    let reach = reach(&standin.endpoint(), &write("ca.pem", standin.ca_pem()));
                    (Service::Fcm(standin), app("fcm", &access, &reach))
                }
            }
        });
        Self { world, service, app_table, accepted: Mutex::default() }
    }

    fn app_table(&self) -> String {
        self.app_table.clone()
    }

    fn accepted(&self) -> Vec<Push> {
        let mut accepted = self.accepted.lock().expect("no test thread panics here");
        self.world.runtime.block_on(async {
            while let Some(push) = self.next().await {
                accepted.push(push);
            }
        });
        accepted.clone()
    }

    /// The next accepted push that is there already.
    async fn next(&self) -> Option<Push> {
        match &self.service {
            Service::Apns(standin) => {
                let push = standin.next_push(Duration::ZERO).await?;
                let mut payload = push.payload;
                payload.as_object_mut()?.remove("aps");
                Some(Push { token: push.token, payload })
            }
            Service::Fcm(standin) => {
                let push = standin.next_push(Duration::ZERO).await?;
                Some(Push { token: push.token, payload: json!(push.data) })
            }
        }
    }
}

fn app(provider: &str, access: &str, reach: &str) -> String {
    format!("[[tenant.app]]\nid = \"{APP}\"\nprovider = \"{provider}\"\n{access}{reach}")
}

fn reach(endpoint: &str, ca_file: &std::path::Path) -> String {
    format!("endpoint = \"{endpoint}\"\nca_file = {ca_file:?}\n")
}
