//! What becomes of the process when a part of it fails.

use super::*;
use crate::config;

const CONFIGURATION: &str = r#"
[api]
listen = "127.0.0.1:0"
[sip]
domain = "edge.test"
[[sip.listen]]
transport = "udp"
address = "127.0.0.1:0"
[erasure]
grace = "0s"
[audit]
path = "audit.log"
[drain]
calls = "0s"
deadline = "1s"
[vault]
allow_plain_memory = true
[ops]
listen = "127.0.0.1:0"
[[tenant]]
id = "acme"
app_key_sha256 = ["0000000000000000000000000000000000000000000000000000000000000000"]
[[tenant.app]]
id = "com.example.phone"
provider = "sandbox"
endpoint = "http://127.0.0.1:9"
"#;

#[tokio::test]
async fn a_shard_that_panics_ends_the_process_as_a_bug() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("reveille.toml");
    std::fs::write(&file, CONFIGURATION).expect("written");
    let settings = config::load(&file).expect("a configuration");
    let policy = Arc::new(settings.policy(Vec::new()));
    let secrets = Secrets::new(&settings.vault).expect("a key");
    let mut running = start(settings).expect("it starts");

    let placement = Placement::new(1, [1, 2]);
    let (router, inboxes) = Router::new(placement.clone(), &policy.limits);
    let wiring = Wiring {
        router: router.clone(),
        net: running.parts.net.handle(),
        sinks: Arc::new(sinks(&running.parts.pusher, &running.parts.audit)),
        observer: Arc::new(|_| unreachable!("a bug of the test's own")),
    };
    running.parts.shards = Shards::start(engines(&placement, &policy, &secrets).expect("chance"), inboxes, &wiring);
    running.parts.router = router;

    let signals = systemd::Signals::new().expect("a runtime");
    assert_eq!(running.until_told(signals).await, Exit::Bug);
}
