//! Sealed callers at every provider: what the device opens, and that nobody else learns even a length.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::crypto::hpke::{EncapsulatedSecret, HpkePrivateKey};
use serde_json::{Map, Value, json};

use super::*;
use crate::engine::caller_key::{CallerKey, CallerSuite};
use crate::engine::output::{Caller, ToldCaller};
use crate::push::sealed::{Bound, suite};
use crate::sandbox::mailbox::{Mailbox as Letterbox, MailboxOptions};

const SUITE: CallerSuite = CallerSuite::ChaCha20Poly1305;

/// A device with its key pair.
struct Device {
    key: CallerKey,
    private: HpkePrivateKey,
}

impl Device {
    fn new() -> Self {
        let (public, private) = suite(SUITE).generate_key_pair().expect("a key pair");
        let public = public.0.try_into().expect("32 bytes");
        Self { key: CallerKey::new(SUITE, public).expect("a key"), private }
    }

    fn open(&self, caller: &Value, job: &PushJob) -> Value {
        let message = URL_SAFE_NO_PAD.decode(caller.as_str().expect("a text")).expect("base64url");
        let (encapsulated, sealed) = message.split_at(32);
        let bound = Bound { tenant: &job.tenant, instance: job.instance, call: job.call.expect("a call") };
        let info = bound.info();
        let encapsulated = EncapsulatedSecret(encapsulated.to_vec());
        let plain = suite(SUITE).open(&encapsulated, info.as_bytes(), &[], sealed, &self.private).expect("it opens");
        serde_json::from_slice(&plain).expect("JSON")
    }
}

/// Callers that have nothing in common.
fn callers() -> [(Caller, Value); 3] {
    let long = "Friederike von der Grünen Aue ".repeat(3);
    [
        (Caller { name: None, number: "1".to_owned() }, json!({ "number": "1" })),
        (
            Caller { name: Some("Ada".to_owned()), number: "+441234".to_owned() },
            json!({ "name": "Ada", "number": "+441234" }),
        ),
        (Caller { name: Some(long.clone()), number: "2".to_owned() }, json!({ "name": long, "number": "2" })),
    ]
}

/// Sends each caller by each kind that tells one, and looks at what arrived.
async fn try_all<F: Future<Output = Map<String, Value>>>(pusher: &Pusher, template: PushJob, arrived: impl Fn() -> F) {
    let device = Device::new();
    for kind in [WakeKind::Call, WakeKind::MissedCall] {
        let mut lengths = Vec::new();
        for (caller, told) in callers() {
            let job = || PushJob {
                kind,
                purpose: if kind == WakeKind::Call { PushPurpose::Call } else { PushPurpose::Other },
                caller: Some(ToldCaller::Sealed(device.key, caller.clone())),
                token: template.token.clone(),
                tenant: template.tenant.clone(),
                app: template.app.clone(),
                attach: template.attach.clone(),
                ..template
            };
            assert_eq!(outcome(pusher, job()).await, PushOutcome::Accepted);
            let payload = arrived().await;
            assert_eq!(device.open(&payload["caller"], &job()), told);
            let text = Value::Object(payload).to_string();
            // With its quote, which no base64 has by chance.
            assert!(!text.contains("\"Ada") && !text.contains("+441234"));
            lengths.push(text.len());
        }
        assert!(lengths.windows(2).all(|pair| pair[0] == pair[1]), "{kind:?}: {lengths:?}");
    }
}

#[tokio::test]
async fn apple_carries_a_caller_that_its_device_alone_can_read() {
    let apple = Apple::start().await;
    try_all(&apple.pusher, apple.job(WakeKind::Call), || async {
        let push = apple.stand_in.next_push(PATIENCE).await.expect("the push");
        push.payload.as_object().expect("an object").clone()
    })
    .await;
}

#[tokio::test]
async fn google_carries_a_caller_that_its_device_alone_can_read() {
    let google = Google::start().await;
    try_all(&google.pusher, google.job(WakeKind::Call), || async {
        let data = google.stand_in.next_push(PATIENCE).await.expect("the push").data;
        data.into_iter().map(|(name, text)| (name, Value::String(text))).collect()
    })
    .await;
}

#[tokio::test]
async fn the_mailbox_carries_a_caller_that_its_device_alone_can_read() {
    let letterbox = Letterbox::start(MailboxOptions::default()).await.expect("a mailbox");
    let config = SandboxConfig { endpoint: letterbox.endpoint(), ca_pem: letterbox.ca_pem().map(str::to_owned) };
    let pusher = Pusher::new(vec![app(ProviderConfig::Sandbox(config))], settings(&Seen::default())).expect("valid");
    let template = PushJob { provider: Provider::Sandbox, ..job(WakeKind::Call) };
    try_all(&pusher, template, || async { letterbox.next_push(PATIENCE).await.expect("the push").payload }).await;
}

#[test]
fn a_key_that_cannot_be_sealed_to_leaves_the_caller_out() {
    let device = Device::new();
    let caller = Caller { name: Some("Ada".to_owned()), number: "1".to_owned() };
    // A push that is about no call has nothing to bind the caller to.
    let job = PushJob { call: None, caller: Some(ToldCaller::Sealed(device.key, caller)), ..job(WakeKind::Message) };
    let members = payload::members(&job, payload::Detail::Full);
    assert!(!members.contains_key("caller"));
}
