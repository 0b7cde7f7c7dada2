//! The push services' stand-ins, which refuse what Apple and Google refuse.
//!
//! The strict stand-ins are the library's own (`reveille::sandbox`). This file is all of the outside test that knows how
//! they are called: it starts one, writes the app into the daemon's configuration and hands out accepted pushes in order.

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
pub(crate) struct PushService {
    provider: Provider,
    standin: Standin,
}

impl Push {
    /// A member of the payload as text; FCM knows nothing but text.
    pub(crate) fn word(&self, key: &str) -> &str {
        self.payload[key].as_str().unwrap_or_default()
    }
}

impl PushService {
    #[track_caller]
    pub(crate) fn start(world: &World, provider: Provider) -> Self {
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

    /// The `[[tenant.app]]` table for the daemon's configuration.
    pub(crate) fn app_table(&self) -> String {
        self.standin.app_table()
    }

    /// Pushes accepted so far, oldest first.
    pub(crate) fn accepted(&self) -> Vec<Push> {
        self.standin.accepted()
    }

    /// Accepted pushes of one kind so far.
    pub(crate) fn of_kind(&self, kind: &str) -> Vec<Push> {
        self.accepted().into_iter().filter(|push| push.word("kind") == kind).collect()
    }

    /// Waits for the `nth` push (from 1) that wakes for a call.
    #[track_caller]
    pub(crate) fn wait_for_call(&self, nth: usize) -> Push {
        until("a push that wakes the phone", || self.of_kind("call").into_iter().nth(nth - 1))
    }
}

/// The bundle id, or package, of the app.
const APP: &str = "com.example.phone";

// --- the part that knows the library -------------------------------------------------------------------------------

/// The library's stand-in, its files and the table that names them.
struct Standin {
    app_table: String,
}

impl Standin {
    #[track_caller]
    fn start(_world: &World, provider: Provider) -> Self {
        panic!("the stand-in for {provider:?} is not wired to the outside test yet");
    }

    fn app_table(&self) -> String {
        self.app_table.clone()
    }

    fn accepted(&self) -> Vec<Push> {
        Vec::new()
    }
}
