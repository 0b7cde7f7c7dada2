//! The push services' stand-ins, which refuse what Apple and Google refuse.
//!
//! The strict stand-ins are the library's own (`reveille::sandbox`). This file is all of the outside test that knows how
//! they are called: it starts one, writes the app into the daemon's configuration and hands out accepted pushes in order.

use serde_json::{Value, json};

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

    /// The tokens of the one device. APNs tokens are hexadecimal, and calls have one of their own (PushKit).
    pub(crate) fn token(&self, purpose: &str) -> String {
        match (self.provider, purpose) {
            (Provider::Apns, "call") => "c0ffee".repeat(10) + "0001",
            (Provider::Apns, _) => "c0ffee".repeat(10) + "0002",
            (Provider::Fcm, _) => "fcm-token:of-this-installation".into(),
        }
    }

    /// `device.push` of a hand-over.
    pub(crate) fn targets(&self) -> Value {
        let provider = match self.provider {
            Provider::Apns => "apns",
            Provider::Fcm => "fcm",
        };
        let target = |purpose: &str| json!({ "for": purpose, "provider": provider, "app": APP, "token": self.token(purpose) });
        json!([target("call"), target("other")])
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
        let push = until("a push that wakes the phone", || self.of_kind("call").into_iter().nth(nth - 1));
        assert_eq!(push.token, self.token("call"));
        push
    }
}

/// The bundle id, or package, of the app.
const APP: &str = "com.example.phone";

// --- the part that knows the library -------------------------------------------------------------------------------

struct Standin {
    provider: Provider,
}

impl Standin {
    #[track_caller]
    fn start(_world: &World, provider: Provider) -> Self {
        Self { provider }
    }

    fn app_table(&self) -> String {
        match self.provider {
            Provider::Apns => format!("[[tenant.app]]\nid = \"{APP}\"\nprovider = \"apns\"\n"),
            Provider::Fcm => format!("[[tenant.app]]\nid = \"{APP}\"\nprovider = \"fcm\"\n"),
        }
    }

    fn accepted(&self) -> Vec<Push> {
        Vec::new()
    }
}
