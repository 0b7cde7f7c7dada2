//! What APNs is told, and what its answers become.

use serde_json::json;

use super::*;
use crate::clock::WallTime;
use crate::engine::push_token::PushToken;
use crate::sandbox::fault::Fault;

#[tokio::test]
async fn a_call_goes_out_as_a_voip_push_that_is_stored_for_a_moment() {
    let apple = Apple::start().await;
    let job = apple.job(WakeKind::Call);
    let latest = apple.clocks.source()().wall.unix_seconds() + 10;
    let (instance, expires_at) = (job.instance.to_string(), job.expires_at.unix_seconds());
    assert_eq!(outcome(&apple.pusher, job).await, PushOutcome::Accepted);
    let push = apple.stand_in.next_push(PATIENCE).await.expect("the push");
    assert_eq!((push.push_type.as_str(), push.topic.as_str()), ("voip", "com.example.phone.voip"));
    assert_eq!(push.priority, 10);
    assert!((latest..=latest + 5).contains(&push.expiration), "ten seconds from when it was sent");
    let call = "00000000-0000-0000-0000-000000000007";
    let expected = json!({
        "aps": {}, "v": 1, "kind": "call", "call": call, "instance": instance, "expires_at": expires_at,
        "attach": "sip:edge.example.net:5061;transport=tls",
    });
    assert_eq!(push.payload, expected);
    assert_eq!(apple.stand_in.refusals(), []);
}

#[tokio::test]
async fn a_call_is_stored_for_no_longer_than_it_is_held_and_than_the_operator_wants() {
    let held = |apple: &Apple, rest| {
        let now = apple.clocks.source()().wall;
        (now.unix_seconds(), PushJob { expires_at: now + Duration::from_millis(rest), ..apple.job(WakeKind::Call) })
    };
    for (wanted, rest, stored) in [(10, 4_000, 4), (30, 45_000, 30), (30, 20_000, 20), (0, 45_000, 0), (10, 900, 0)] {
        let apple = Apple::with(|settings| settings.apns_expiry = Duration::from_secs(wanted)).await;
        let (now, job) = held(&apple, rest);
        assert_eq!(outcome(&apple.pusher, job).await, PushOutcome::Accepted);
        let expiration = apple.stand_in.next_push(PATIENCE).await.expect("the push").expiration;
        if stored == 0 {
            assert_eq!(expiration, 0, "now or never");
        } else {
            // Connecting may take a moment, which is the operator's span and not the hold's.
            assert!((now + stored..=now + stored + 5).contains(&expiration), "{wanted} {rest}: {}", expiration - now);
            assert!(expiration <= now + rest.div_ceil(1000), "never after the hold");
        }
    }
}

#[tokio::test]
async fn a_device_without_a_voip_token_gets_its_call_as_an_alert() {
    let apple = Apple::start().await;
    let job = PushJob { purpose: PushPurpose::Other, ..apple.job(WakeKind::Call) };
    assert_eq!(outcome(&apple.pusher, job).await, PushOutcome::Accepted);
    let push = apple.stand_in.next_push(PATIENCE).await.expect("the push");
    assert_eq!((push.push_type.as_str(), push.topic.as_str()), ("alert", APP));
    assert_ne!(push.expiration, 0);
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
async fn a_token_that_cannot_be_one_never_leaves() {
    let apple = Apple::start().await;
    let rejected = PushOutcome::TokenRejected("not a device token".to_owned());
    for token in
        ["", "../../admin", "xyz"].map(PushToken::from).into_iter().chain([PushToken::InstallationId("ab".to_owned())])
    {
        let job = PushJob { token, ..apple.job(WakeKind::Call) };
        assert_eq!(outcome(&apple.pusher, job).await, rejected);
    }
    assert_eq!(apple.stand_in.connections(), 0);
}

#[tokio::test]
async fn a_token_that_the_provider_does_not_know_is_not_dead_yet() {
    let apple = Apple::start().await;
    let job = PushJob { token: "abc".into(), ..apple.job(WakeKind::Call) };
    let rejected = PushOutcome::TokenRejected("400 BadDeviceToken".to_owned());
    assert_eq!(outcome(&apple.pusher, job).await, rejected);
}

#[tokio::test]
async fn a_revoked_token_is_dead_since_the_providers_timestamp() {
    let apple = Apple::start().await;
    let since = WallTime::from_unix_millis(1_700_000_000_123);
    let token = apple.job(WakeKind::Call).token.as_str().to_owned();
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
async fn what_is_sent_after_a_failure_goes_over_a_fresh_connection() {
    let apple = Apple::start().await;
    assert_eq!(apple.push(WakeKind::Call).await, PushOutcome::Accepted);
    for (status, reason) in [(500, "InternalServerError"), (503, "ServiceUnavailable")] {
        let before = apple.stand_in.connections();
        apple.stand_in.fail_after(0, Fault::answer(status, reason));
        assert_eq!(apple.push(WakeKind::Call).await, unavailable(&format!("{status} {reason}")), "a call is sent once");
        assert_eq!(apple.push(WakeKind::Call).await, PushOutcome::Accepted);
        assert_eq!(apple.stand_in.connections(), before + 1);
        // The next one may be given up as freely.
        apple.clocks.advance(60);
    }
    assert_eq!(apple.stand_in.accepted(), 3);
}

#[tokio::test]
async fn an_ailing_provider_is_asked_once_more_for_what_is_not_a_call() {
    let apple = Apple::start().await;
    apple.stand_in.fail_after(0, Fault::answer(503, "ServiceUnavailable"));
    assert_eq!(apple.push(WakeKind::MissedCall).await, PushOutcome::Accepted);
    apple.stand_in.fail_after(0, Fault::answer(503, "ServiceUnavailable"));
    apple.stand_in.fail_after(0, Fault::answer(503, "Shutdown"));
    assert_eq!(apple.push(WakeKind::MissedCall).await, unavailable("503 Shutdown"));
    assert_eq!(apple.stand_in.accepted(), 1);
}

#[tokio::test]
async fn a_provider_says_when_to_come_again_in_seconds_or_as_a_date() {
    let apple = Apple::start().await;
    let at = apple.clocks.source()().wall + Duration::from_secs(7);
    for (fault, around) in [
        (Fault::answer_retry_after(503, "ServiceUnavailable", 7), 7..=7),
        (Fault::answer_retry_at(503, "ServiceUnavailable", at), 3..=7),
    ] {
        apple.stand_in.fail_after(0, fault);
        let told = apple.push(WakeKind::Call).await;
        let PushOutcome::Unavailable { after: Some(after), .. } = told else { unreachable!("{told:?}") };
        assert!(around.contains(&after.as_secs()), "{after:?}");
    }
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
async fn a_provider_token_called_expired_is_replaced_for_the_next_send() {
    for kind in [WakeKind::Call, WakeKind::MissedCall] {
        let apple = Apple::start().await;
        assert_eq!(apple.push(kind).await, PushOutcome::Accepted);
        // Long enough that the stand-in takes a changed token, short enough that we would not change it by ourselves.
        apple.clocks.advance(20 * 60);
        apple.stand_in.fail_after(0, Fault::answer(403, "ExpiredProviderToken"));
        if kind == WakeKind::Call {
            let stale = PushOutcome::Unauthenticated("403 ExpiredProviderToken".to_owned());
            assert_eq!(apple.push(kind).await, stale, "the engine sends it again");
        }
        assert_eq!(apple.push(kind).await, PushOutcome::Accepted);
        assert_eq!(apple.stand_in.provider_tokens(), 2);
        // Said of a token of this very minute, it is not worth a third one.
        apple.stand_in.fail_always(Some(Fault::answer(403, "ExpiredProviderToken")));
        assert_eq!(apple.push(kind).await, ours("403 ExpiredProviderToken"));
    }
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
