//! What FCM is told, what its answers become, and how access tokens are had.

use super::*;
use crate::engine::output::{Caller, ToldCaller};
use crate::engine::push_token::PushToken;
use crate::sandbox::fault::{Fault, Gate};

#[tokio::test]
async fn a_call_goes_out_in_a_hurry_and_is_stored_as_long_as_it_is_held() {
    let google = Google::start().await;
    let caller = Some(ToldCaller::Clear(Caller { name: Some("Ada".to_owned()), number: "+1".to_owned() }));
    let job = PushJob { caller, ..google.job(WakeKind::Call) };
    assert_eq!(outcome(&google.pusher, job).await, PushOutcome::Accepted);
    let push = google.stand_in.next_push(PATIENCE).await.expect("the push");
    assert_eq!((push.high_priority, push.token.as_str(), push.fid), (true, "abc:DEF-1_2", false));
    assert!((40..=45).contains(&push.ttl.as_secs()), "{:?}", push.ttl);
    assert_eq!((push.data["v"].as_str(), push.data["kind"].as_str()), ("1", "call"));
    assert_eq!(push.data["caller"], r#"{"name":"Ada","number":"+1"}"#);
}

#[tokio::test]
async fn each_send_of_a_call_is_stored_for_the_rest_of_its_hold() {
    let google = Google::start().await;
    let expires_at = google.clocks.source()().wall + Duration::from_secs(45);
    google.clocks.advance(30);
    let job = PushJob { expires_at, ..google.job(WakeKind::Call) };
    assert_eq!(outcome(&google.pusher, job).await, PushOutcome::Accepted);
    let ttl = google.stand_in.next_push(PATIENCE).await.expect("the push").ttl.as_secs();
    assert!((10..=15).contains(&ttl), "{ttl}");
}

#[tokio::test]
async fn an_installation_id_goes_out_in_a_member_of_its_own() {
    let google = Google::start().await;
    let to = |token| PushJob { token, ..google.job(WakeKind::Call) };
    let id = "fHx0aBcD_eFgH-iJkLmNoP";
    assert_eq!(outcome(&google.pusher, to(PushToken::InstallationId(id.to_owned()))).await, PushOutcome::Accepted);
    let push = google.stand_in.next_push(PATIENCE).await.expect("the push");
    assert_eq!((push.token.as_str(), push.fid), (id, true));
    let rejected = PushOutcome::TokenRejected("400 INVALID_ARGUMENT".to_owned());
    assert_eq!(outcome(&google.pusher, to(id.into())).await, rejected, "FCM does not take it for a token");
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
    let stale = PushOutcome::Unauthenticated("401 UNAUTHENTICATED".to_owned());
    assert_eq!(google.push(WakeKind::Call).await, stale, "the engine sends it again");
    assert_eq!(google.push(WakeKind::Call).await, PushOutcome::Accepted);
    assert_eq!(google.stand_in.grants(), 2);
    // What is not a call is sent again here, once.
    google.stand_in.revoke_grants();
    assert_eq!(google.push(WakeKind::Voicemail).await, PushOutcome::Accepted);
    google.stand_in.fail_always(Some(Fault::answer(401, "UNAUTHENTICATED")));
    assert_eq!(google.push(WakeKind::Voicemail).await, stale);
    assert_eq!(google.stand_in.grants(), 4);
}

#[tokio::test]
async fn a_refusal_of_the_apps_own_credentials_at_google_is_no_matter_of_our_token() {
    let google = Google::start().await;
    assert_eq!(google.push(WakeKind::Call).await, PushOutcome::Accepted);
    for kind in [WakeKind::Call, WakeKind::Voicemail] {
        google.stand_in.fail_after(0, Fault::answer(401, "THIRD_PARTY_AUTH_ERROR"));
        assert_eq!(google.push(kind).await, ours("401 THIRD_PARTY_AUTH_ERROR"));
    }
    assert_eq!((google.stand_in.grants(), google.stand_in.accepted()), (1, 1));
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
    let to = |token: &str| PushJob { token: token.into(), ..google.job(WakeKind::Call) };
    assert_eq!(outcome(&google.pusher, to("gone")).await, PushOutcome::TokenDead { since: None });
    let rejected = PushOutcome::TokenRejected("400 INVALID_ARGUMENT".to_owned());
    assert_eq!(outcome(&google.pusher, to("not one")).await, rejected, "once is no proof");
    google.stand_in.fail_after(0, Fault::answer(400, "BAD_REQUEST"));
    assert_eq!(google.push(WakeKind::Call).await, ours("400 INVALID_ARGUMENT"));
    assert_eq!(outcome(&google.pusher, to("foreign")).await, ours("403 SENDER_ID_MISMATCH"));
    google.stand_in.fail_after(0, Fault::answer_retry_after(429, "QUOTA_EXCEEDED", 7));
    let later = |seconds| PushOutcome::Later { after: Some(Duration::from_secs(seconds)) };
    assert_eq!(google.push(WakeKind::Call).await, later(7));
    google.stand_in.fail_after(0, Fault::answer(429, "QUOTA_EXCEEDED"));
    assert_eq!(google.push(WakeKind::Call).await, later(60));
    assert_eq!(google.stand_in.accepted(), 0);
}

#[tokio::test]
async fn a_call_is_sent_once_and_its_failure_told_with_what_fcm_says_of_time() {
    let google = Google::start().await;
    google.stand_in.fail_after(0, Fault::answer(503, "UNAVAILABLE"));
    assert_eq!(google.push(WakeKind::Call).await, unavailable("503 UNAVAILABLE"));
    google.stand_in.fail_after(0, Fault::answer(500, "INTERNAL"));
    assert_eq!(google.push(WakeKind::Call).await, unavailable("500 INTERNAL"));
    google.stand_in.fail_after(0, Fault::answer_retry_after(503, "UNAVAILABLE", 3));
    let (why, after) = ("503 UNAVAILABLE".to_owned(), Some(Duration::from_secs(3)));
    assert_eq!(google.push(WakeKind::Call).await, PushOutcome::Unavailable { why, after });
    let at = google.clocks.source()().wall + Duration::from_secs(20);
    google.stand_in.fail_after(0, Fault::answer_retry_at(429, "QUOTA_EXCEEDED", at));
    let told = google.push(WakeKind::Call).await;
    let PushOutcome::Later { after: Some(after) } = told else { unreachable!("{told:?}") };
    assert!((15..=20).contains(&after.as_secs()), "{after:?}");
    google.stand_in.fail_after(0, Fault::CutAfter);
    assert!(matches!(google.push(WakeKind::Call).await, PushOutcome::Theirs(_)));
    assert_eq!(google.stand_in.accepted(), 1);
}

#[tokio::test]
async fn a_call_that_fcm_never_processed_is_replayed() {
    let google = Google::start().await;
    for fault in [Fault::GoAway, Fault::RefuseStream] {
        google.stand_in.fail_after(0, fault);
        assert_eq!(google.push(WakeKind::Call).await, PushOutcome::Accepted);
    }
    assert_eq!(google.stand_in.accepted(), 2);
}

#[tokio::test]
async fn what_is_not_a_call_is_repeated_with_pauses() {
    let google = Google::start().await;
    google.stand_in.fail_after(0, Fault::answer(500, "INTERNAL"));
    google.stand_in.fail_after(0, Fault::answer_retry_after(503, "UNAVAILABLE", 1));
    assert_eq!(google.push(WakeKind::Voicemail).await, PushOutcome::Accepted);
    google.stand_in.fail_after(0, Fault::answer_retry_after(503, "UNAVAILABLE", 3600));
    let (why, after) = ("503 UNAVAILABLE".to_owned(), Some(Duration::from_secs(3600)));
    let later = PushOutcome::Unavailable { why, after };
    assert_eq!(google.push(WakeKind::Voicemail).await, later, "longer than its deadline");
    assert_eq!(google.stand_in.accepted(), 1);
}

#[tokio::test]
async fn goaway_under_many_pushes_loses_none_and_doubles_none() {
    let google = Google::start().await;
    google.stand_in.fail_after(20, Fault::GoAway);
    google.stand_in.fail_after(60, Fault::GoAway);
    let job = |number| PushJob { token: format!("token-{number}").into(), ..google.job(WakeKind::MissedCall) };
    let waiting = (0..300).map(|number| submit(&google.pusher, job(number))).collect();
    assert!(outcomes(waiting).await.iter().all(|outcome| *outcome == PushOutcome::Accepted));
    assert_eq!(google.stand_in.accepted(), 300);
}
