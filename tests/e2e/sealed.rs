//! Who may be woken by a push token, and who may read the caller: the whole way, with an opener that is not ours.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::daemon::{Daemon, HandOver, SHORT_HOLD, Settings};
use crate::kamailio::{Kamailio, Manners};
use crate::phones::{CallerManners, Phone};
use crate::process::installed;
use crate::push::{Provider, PushService};
use crate::world::{Transport, World};

/// A key pair of RFC 9180 A.2.1.
const PRIVATE: &str = "gFeZHu-PHxrxj0qUkdFqHOMz9pXU24442nWXXER44Ps";
const PUBLIC: &str = "QxDul9iMwfCIpVdsd6sM9cOseX89lROcbIS1QpxZZio";

/// What `docs/examples/open_caller.py` makes of a caller: RFC 9180 from Python's standard library alone.
fn opened(instance: &str, call: &str, caller: &str) -> Option<Value> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/examples/open_caller.py");
    let mut command = Command::new(installed("python3"));
    command.args([script, "acme", instance, call, caller]);
    let mut python =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("python3 starts");
    python.stdin.take().expect("a pipe").write_all(PRIVATE.as_bytes()).expect("it reads");
    let output = python.wait_with_output().expect("it ends");
    output.status.success().then(|| serde_json::from_slice(&output.stdout).expect("JSON"))
}

#[test]
fn a_proven_phone_is_woken_and_alone_reads_who_calls() {
    for provider in [Provider::Apns, Provider::Fcm] {
        let world = World::new(&format!("sealed-{provider:?}"));
        let kamailio = Kamailio::start(&world, &Manners::default());
        let push = PushService::start(&world, provider);
        let tenant = "caller_in_push = \"sealed\"\nprove_push_token = true".to_owned();
        let settings = Settings { hold: SHORT_HOLD, tenant, ..Settings::default() };
        let daemon = Daemon::start_with(&world, &kamailio, &push, &settings);
        let key = json!({ "suite": "x25519-hkdf-sha256-chacha20poly1305", "public": PUBLIC });
        let more = json!({ "device": { "caller_key": key } });
        let hand_over = HandOver { user: "alice", device: "alice", trunk: Transport::Udp, more };
        let alice = daemon.hand_over_from(&kamailio, &push, &hand_over);
        assert_eq!(
            (&alice.answer["caller_in_push"], &alice.answer["push_proof"]),
            (&json!("sealed"), &json!("pending"))
        );

        let mut bob = Phone::caller(&world, &kamailio, CallerManners::default());
        let id = bob.call("alice");
        bob.trace.of_call(&id).response(480, "INVITE");
        assert!(push.of_kind("call").is_empty());

        let proof = push.wait_for("proof", &push.token("alice", "other"), 1);
        let path = format!("/v1/instances/{}/push-proof", alice.id);
        let challenge = json!({ "challenge": proof.word("challenge") });
        let proven = daemon.ask("POST", &path, &alice.token, Some(&challenge));
        assert_eq!((proven.status, proven.json()), (200, json!({ "push_proof": "proven" })));

        bob.call("alice");
        let wake = push.wait_for_call(1);
        assert!(!wake.payload.to_string().contains("bob"), "{provider:?}");
        let [call, caller] = ["call", "caller"].map(|member| wake.word(member));
        let told = opened(&alice.id, call, caller).expect("it opens");
        assert_eq!(told["number"], "bob");
        assert_eq!(opened(&alice.id, "00000000-0000-0000-0000-000000000000", caller), None, "it is for that call");
    }
}
