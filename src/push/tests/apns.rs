//! What APNs is told, and what its answers become.

use serde_json::json;

use super::*;
use crate::clock::WallTime;
use crate::sandbox::fault::Fault;

#[tokio::test]
async fn a_call_goes_out_as_a_voip_push_that_is_not_stored() {
    let apple = Apple::start().await;
    let job = apple.job(WakeKind::Call);
    let (instance, expires_at) = (job.instance.to_string(), job.expires_at.unix_seconds());
    assert_eq!(outcome(&apple.pusher, job).await, PushOutcome::Accepted);
    let push = apple.stand_in.next_push(PATIENCE).await.expect("the push");
    assert_eq!((push.push_type.as_str(), push.topic.as_str()), ("voip", "com.example.phone.voip"));
    assert_eq!((push.priority, push.expiration), (10, 0));
    let call = "00000000-0000-0000-0000-000000000007";
    let expected = json!({
        "aps": {}, "v": 1, "kind": "call", "call": call, "instance": instance, "expires_at": expires_at,
        "attach": "sip:edge.example.net:5061;transport=tls",
    });
    assert_eq!(push.payload, expected);
    assert_eq!(apple.stand_in.refusals(), []);
}

#[tokio::test]
async fn a_device_without_a_voip_token_gets_its_call_as_an_alert() {
    let apple = Apple::start().await;
    let job = PushJob { purpose: PushPurpose::Other, ..apple.job(WakeKind::Call) };
    assert_eq!(outcome(&apple.pusher, job).await, PushOutcome::Accepted);
    let push = apple.stand_in.next_push(PATIENCE).await.expect("the push");
    assert_eq!((push.push_type.as_str(), push.topic.as_str(), push.expiration), ("alert", APP, 0));
}

#[tokio::test]
async fn nothing_but_a_call_ever_leaves_for_a_voip_token() {
    let apple = Apple::start().await;
    for kind in WakeKind::ALL.into_iter().filter(|kind| *kind != WakeKind::Call) {
        let job = PushJob { purpose: PushPurpose::Call, ..apple.job(kind) };
        assert!(matches!(outcome(&apple.pusher, job).await, PushOutcome::OurFault(_)), "{kind:?}");
    }
    assert_eq!((apple.stand_in.connections(), apple.stand_in.accepted()), (0, 0));
}

#[tokio::test]
async fn a_token_that_cannot_be_one_is_dead_without_asking() {
    let apple = Apple::start().await;
    for token in ["", "../../admin", "xyz"] {
        let job = PushJob { token: token.to_owned(), ..apple.job(WakeKind::Call) };
        assert_eq!(outcome(&apple.pusher, job).await, PushOutcome::TokenDead { since: None });
    }
    assert_eq!(apple.stand_in.connections(), 0);
}

#[tokio::test]
async fn a_token_that_the_provider_does_not_know_is_not_dead_yet() {
    let apple = Apple::start().await;
    let job = PushJob { token: "abc".to_owned(), ..apple.job(WakeKind::Call) };
    let rejected = PushOutcome::TokenRejected("400 BadDeviceToken".to_owned());
    assert_eq!(outcome(&apple.pusher, job).await, rejected);
}

#[tokio::test]
async fn a_revoked_token_is_dead_since_the_providers_timestamp() {
    let apple = Apple::start().await;
    let since = WallTime::from_unix_millis(1_700_000_000_123);
    let token = apple.job(WakeKind::Call).token;
    apple.stand_in.revoke(&token, since);
    assert_eq!(apple.push(WakeKind::Call).await, PushOutcome::TokenDead { since: Some(since) });
    apple.stand_in.expire(&token, since);
    assert_eq!(apple.push(WakeKind::Call).await, PushOutcome::TokenDead { since: Some(since) });
}

#[tokio::test]
async fn too_many_requests_to_a_device_is_told_and_not_repeated() {
    let apple = Apple::start().await;
    apple.stand_in.fail_after(0, Fault::answer_retry_after(429, "TooManyRequests", 9));
    let later = PushOutcome::Later { after: Some(Duration::from_secs(9)) };
    assert_eq!(apple.push(WakeKind::Call).await, later);
    assert_eq!(apple.stand_in.accepted(), 0);
}

#[tokio::test]
async fn an_ailing_provider_is_asked_once_more_on_a_fresh_connection() {
    let apple = Apple::start().await;
    assert_eq!(apple.push(WakeKind::Call).await, PushOutcome::Accepted);
    for (status, reason) in [(500, "InternalServerError"), (503, "ServiceUnavailable")] {
        let before = apple.stand_in.connections();
        apple.stand_in.fail_after(0, Fault::answer(status, reason));
        assert_eq!(apple.push(WakeKind::Call).await, PushOutcome::Accepted, "{reason}");
        assert_eq!(apple.stand_in.connections(), before + 1);
    }
    apple.stand_in.fail_after(0, Fault::answer(503, "ServiceUnavailable"));
    apple.stand_in.fail_after(0, Fault::answer(503, "Shutdown"));
    assert_eq!(apple.push(WakeKind::Call).await, theirs("503 Shutdown"));
    assert_eq!(apple.stand_in.accepted(), 3);
}

#[tokio::test]
async fn one_provider_token_serves_many_pushes_and_is_renewed_by_the_hour() {
    let apple = Apple::start().await;
    for _ in 0..20 {
        assert_eq!(apple.push(WakeKind::Call).await, PushOutcome::Accepted);
    }
    assert_eq!(apple.stand_in.provider_tokens(), 1);
    // Ten minutes at a time over eight hours: the stand-in refuses a token too old and one changed too soon.
    for _ in 0..48 {
        apple.clocks.advance(600);
        assert_eq!(apple.push(WakeKind::Call).await, PushOutcome::Accepted);
    }
    let tokens = apple.stand_in.provider_tokens();
    assert!((9..=24).contains(&tokens), "{tokens} tokens in eight hours");
    assert_eq!(apple.stand_in.refusals(), []);
}

#[tokio::test]
async fn a_provider_token_called_expired_is_replaced_and_the_push_sent_again_with_the_same_id() {
    let apple = Apple::start().await;
    assert_eq!(apple.push(WakeKind::Call).await, PushOutcome::Accepted);
    // Long enough that the stand-in takes a changed token, short enough that we would not change it by ourselves.
    apple.clocks.advance(20 * 60);
    apple.stand_in.fail_after(0, Fault::answer(403, "ExpiredProviderToken"));
    assert_eq!(apple.push(WakeKind::Call).await, PushOutcome::Accepted);
    assert_eq!(apple.stand_in.provider_tokens(), 2);
    // Said of a token of this very minute, it is not worth a third one.
    apple.stand_in.fail_always(Some(Fault::answer(403, "ExpiredProviderToken")));
    assert_eq!(apple.push(WakeKind::Call).await, ours("403 ExpiredProviderToken"));
}

#[tokio::test]
async fn a_refused_key_is_our_fault_and_not_repeated() {
    let apple = Apple::start().await;
    let other = ApnsStandIn::start(ApnsOptions::default()).await.expect("a stand-in");
    let config = ApnsConfig { key_pem: other.credentials().key_pem, ..apns_config(&apple.stand_in) };
    let pusher = Pusher::new(vec![app(ProviderConfig::Apns(config))], settings(&Seen::default())).expect("valid");
    assert_eq!(outcome(&pusher, job(WakeKind::Call)).await, ours("403 InvalidProviderToken"));
    assert_eq!(apple.stand_in.refusals(), [(403, "InvalidProviderToken")]);
}
