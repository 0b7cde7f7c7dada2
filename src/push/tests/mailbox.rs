//! Provider `sandbox`.

use serde_json::json;

use super::*;
use crate::clock::WallTime;
use crate::sandbox::fault::Fault;
use crate::sandbox::mailbox::{Mailbox, MailboxOptions};

async fn start(tls: bool) -> (Mailbox, Pusher) {
    let mailbox = Mailbox::start(MailboxOptions { tls, ..MailboxOptions::default() }).await.expect("a mailbox");
    let config = SandboxConfig { endpoint: mailbox.endpoint(), ca_pem: mailbox.ca_pem().map(str::to_owned) };
    let apps = vec![app(ProviderConfig::Sandbox(config))];
    (mailbox, Pusher::new(apps, settings(&Seen::default())).expect("a valid configuration"))
}

fn mailbox_job(kind: WakeKind) -> PushJob {
    PushJob { provider: Provider::Sandbox, token: "phone-1".into(), ..job(kind) }
}

#[tokio::test]
async fn a_push_arrives_in_clear_and_over_tls() {
    for tls in [false, true] {
        let (mailbox, pusher) = start(tls).await;
        for kind in WakeKind::ALL {
            assert_eq!(outcome(&pusher, mailbox_job(kind)).await, PushOutcome::Accepted);
            let push = mailbox.next_push_to("phone-1", PATIENCE).await.expect("the push");
            assert_eq!((push.kind.as_str(), &push.payload["v"]), (kind.as_str(), &json!(1)));
        }
    }
}

#[tokio::test]
async fn its_refusals_become_outcomes() {
    let (mailbox, pusher) = start(false).await;
    let since = WallTime::from_unix_millis(1_700_000_000_123);
    for (fault, expected) in [
        (Fault::answer(503, "down"), unavailable("503")),
        (Fault::answer(400, "bad"), ours("400")),
        (Fault::answer(404, "no such path"), ours("404")),
        (Fault::answer_retry_after(429, "slow", 4), PushOutcome::Later { after: Some(Duration::from_secs(4)) }),
    ] {
        mailbox.fail_after(0, fault);
        assert_eq!(outcome(&pusher, mailbox_job(WakeKind::Call)).await, expected);
    }
    mailbox.fail_after(0, Fault::CutBefore);
    assert!(matches!(outcome(&pusher, mailbox_job(WakeKind::Call)).await, PushOutcome::Theirs(_)));
    mailbox.revoke("phone-1", since);
    let dead = PushOutcome::TokenDead { since: Some(since) };
    assert_eq!(outcome(&pusher, mailbox_job(WakeKind::Call)).await, dead);
}
