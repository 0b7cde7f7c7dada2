//! What FCM is told, what its answers become, and how access tokens are had.

use super::*;
use crate::engine::output::{Caller, ToldCaller};
use crate::sandbox::fault::{Fault, Gate};

#[tokio::test]
async fn a_call_goes_out_in_a_hurry_now_or_never() {
    let google = Google::start().await;
    let caller = Some(ToldCaller::Clear(Caller { name: Some("Ada".to_owned()), number: "+1".to_owned() }));
    let job = PushJob { caller, ..google.job(WakeKind::Call) };
    assert_eq!(outcome(&google.pusher, job).await, PushOutcome::Accepted);
    let push = google.stand_in.next_push(PATIENCE).await.expect("the push");
    assert_eq!((push.high_priority, push.ttl, push.token.as_str()), (true, Duration::ZERO, "abc:DEF-1_2"));
    assert_eq!((push.data["v"].as_str(), push.data["kind"].as_str()), ("1", "call"));
    assert_eq!(push.data["caller"], r#"{"name":"Ada","number":"+1"}"#);
}

#[tokio::test]
async fn a_caller_too_long_for_the_push_is_left_out() {
    let google = Google::start().await;
    let caller = Some(ToldCaller::Clear(Caller { name: Some("x".repeat(5000)), number: "+1".to_owned() }));
    let job = PushJob { caller, ..google.job(WakeKind::Call) };
    assert_eq!(outcome(&google.pusher, job).await, PushOutcome::Accepted);
    assert!(!google.stand_in.next_push(PATIENCE).await.expect("the push").data.contains_key("caller"));
}

#[tokio::test]
async fn one_grant_serves_all_who_wait_for_it() {
    let google = Google::start().await;
    google.stand_in.fail_grant_after(0, Fault::Delay(Duration::from_millis(200)));
    let waiting = (0..200).map(|_| submit(&google.pusher, google.job(WakeKind::Call))).collect();
    assert!(outcomes(waiting).await.iter().all(|outcome| *outcome == PushOutcome::Accepted));
    assert_eq!((google.stand_in.grants(), google.stand_in.accepted()), (1, 200));
}

#[tokio::test]
async fn an_access_token_is_renewed_ahead_while_the_old_one_still_serves() {
    let google = Google::start().await;
    assert_eq!(google.push(WakeKind::Call).await, PushOutcome::Accepted);
    // Within the last minutes of its hour; the new grant is late, and nobody has to wait for it.
    google.clocks.advance(3599 - 200);
    let gate = Gate::default();
    google.stand_in.fail_grant_after(0, Fault::Hold(gate.clone()));
    let waiting = (0..50).map(|_| submit(&google.pusher, google.job(WakeKind::Call))).collect();
    assert!(outcomes(waiting).await.iter().all(|outcome| *outcome == PushOutcome::Accepted));
    assert_eq!(google.stand_in.grants(), 1);
    // After its end the new one is there, or waited for.
    gate.open();
    google.clocks.advance(400);
    assert_eq!(google.push(WakeKind::Call).await, PushOutcome::Accepted);
    assert_eq!((google.stand_in.grants(), google.stand_in.refusals()), (2, vec![]));
}

#[tokio::test]
async fn an_access_token_that_is_not_taken_is_replaced_for_the_next_push() {
    let google = Google::start().await;
    assert_eq!(google.push(WakeKind::Call).await, PushOutcome::Accepted);
    google.stand_in.revoke_grants();
    assert_eq!(google.push(WakeKind::Call).await, ours("401 UNAUTHENTICATED"));
    assert_eq!(google.push(WakeKind::Call).await, PushOutcome::Accepted);
    assert_eq!(google.stand_in.grants(), 2);
}

#[tokio::test]
async fn a_grant_refused_is_our_fault_for_all_who_wait_at_once() {
    let google = Google::start().await;
    google.stand_in.fail_grants_always(Some(Fault::answer(400, "invalid_grant")));
    let waiting = (0..50).map(|_| submit(&google.pusher, google.job(WakeKind::Call))).collect();
    let refused = ours("access token: 400 invalid_grant");
    assert!(outcomes(waiting).await.iter().all(|outcome| *outcome == refused));
    google.stand_in.fail_grants_always(None);
    // The refusal is forgotten after a pause; until then it is told at once.
    loop {
        match google.push(WakeKind::Call).await {
            PushOutcome::Accepted => break,
            told => assert_eq!(told, refused),
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(google.stand_in.grants(), 1);
}

#[tokio::test]
async fn a_token_endpoint_that_is_down_is_asked_again_while_there_is_time() {
    let google = Google::start().await;
    google.stand_in.fail_grant_after(0, Fault::answer(503, "backend_error"));
    google.stand_in.fail_grant_after(0, Fault::CutBefore);
    assert_eq!(google.push(WakeKind::Call).await, PushOutcome::Accepted);
    assert_eq!(google.stand_in.grants(), 1);
}

#[tokio::test]
async fn a_token_endpoint_that_stays_down_is_their_fault_at_the_deadline() {
    let google = Google::start().await;
    google.stand_in.fail_grants_always(Some(Fault::answer(503, "backend_error")));
    let deadline = clock::now().boot + SOON;
    let told = outcome(&google.pusher, PushJob { deadline, ..google.job(WakeKind::Call) }).await;
    assert_eq!(told, theirs("access token: 503 backend_error"));
}

#[tokio::test]
async fn dead_foreign_and_hurried_tokens_are_told_apart() {
    let google = Google::start().await;
    google.stand_in.revoke("gone");
    google.stand_in.estrange("foreign");
    let to = |token: &str| PushJob { token: token.to_owned(), ..google.job(WakeKind::Call) };
    assert_eq!(outcome(&google.pusher, to("gone")).await, PushOutcome::TokenDead { since: None });
    assert_eq!(outcome(&google.pusher, to("not one")).await, PushOutcome::TokenDead { since: None });
    assert_eq!(outcome(&google.pusher, to("foreign")).await, ours("403 SENDER_ID_MISMATCH"));
    google.stand_in.fail_after(0, Fault::answer_retry_after(429, "QUOTA_EXCEEDED", 7));
    let later = |seconds| PushOutcome::Later { after: Some(Duration::from_secs(seconds)) };
    assert_eq!(google.push(WakeKind::Call).await, later(7));
    google.stand_in.fail_after(0, Fault::answer(429, "QUOTA_EXCEEDED"));
    assert_eq!(google.push(WakeKind::Call).await, later(60));
    assert_eq!(google.stand_in.accepted(), 0);
}

#[tokio::test]
async fn a_call_is_repeated_once_only_where_nothing_was_done() {
    let google = Google::start().await;
    google.stand_in.fail_after(0, Fault::answer(503, "UNAVAILABLE"));
    assert_eq!(google.push(WakeKind::Call).await, PushOutcome::Accepted);
    google.stand_in.fail_after(0, Fault::GoAway);
    assert_eq!(google.push(WakeKind::Call).await, PushOutcome::Accepted);
    google.stand_in.fail_after(0, Fault::answer(503, "UNAVAILABLE"));
    google.stand_in.fail_after(0, Fault::answer(503, "UNAVAILABLE"));
    assert_eq!(google.push(WakeKind::Call).await, theirs("503 UNAVAILABLE"));
    assert_eq!(google.stand_in.accepted(), 2);
}

#[tokio::test]
async fn a_call_that_may_have_been_delivered_is_not_repeated() {
    let google = Google::start().await;
    google.stand_in.fail_after(0, Fault::answer(500, "INTERNAL"));
    assert_eq!(google.push(WakeKind::Call).await, theirs("500 INTERNAL"));
    google.stand_in.fail_after(0, Fault::answer_retry_after(503, "UNAVAILABLE", 3));
    let later = PushOutcome::Later { after: Some(Duration::from_secs(3)) };
    assert_eq!(google.push(WakeKind::Call).await, later);
    google.stand_in.fail_after(0, Fault::CutAfter);
    assert!(matches!(google.push(WakeKind::Call).await, PushOutcome::Theirs(_)));
    assert_eq!(google.stand_in.accepted(), 1);
}

#[tokio::test]
async fn what_is_not_a_call_is_repeated_with_pauses() {
    let google = Google::start().await;
    google.stand_in.fail_after(0, Fault::answer(500, "INTERNAL"));
    google.stand_in.fail_after(0, Fault::answer_retry_after(503, "UNAVAILABLE", 1));
    assert_eq!(google.push(WakeKind::Voicemail).await, PushOutcome::Accepted);
    google.stand_in.fail_after(0, Fault::answer_retry_after(503, "UNAVAILABLE", 3600));
    let later = PushOutcome::Later { after: Some(Duration::from_secs(3600)) };
    assert_eq!(google.push(WakeKind::Voicemail).await, later, "longer than its deadline");
    assert_eq!(google.stand_in.accepted(), 1);
}

#[tokio::test]
async fn goaway_under_many_pushes_loses_none_and_doubles_none() {
    let google = Google::start().await;
    google.stand_in.fail_after(20, Fault::GoAway);
    google.stand_in.fail_after(60, Fault::GoAway);
    let job = |number| PushJob { token: format!("token-{number}"), ..google.job(WakeKind::MissedCall) };
    let waiting = (0..300).map(|number| submit(&google.pusher, job(number))).collect();
    assert!(outcomes(waiting).await.iter().all(|outcome| *outcome == PushOutcome::Accepted));
    assert_eq!(google.stand_in.accepted(), 300);
}
