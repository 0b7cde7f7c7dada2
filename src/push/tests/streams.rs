//! Streams that fail on connections that do not: how few connections a provider in trouble gets.

use super::*;
use crate::sandbox::fault::Fault;

/// Failures enough for a connection each to be noticed.
const FAILURES: usize = 40;
/// Two connections at once and a few more while a test runs, since the pauses between them grow.
const FEW: u64 = 8;

#[tokio::test]
async fn a_stream_that_is_reset_costs_apple_no_connection() {
    let apple = Apple::start().await;
    for _ in 0..FAILURES {
        apple.stand_in.fail_after(4, Fault::ResetStream);
    }
    let mut lost = 0;
    for _ in 0..FAILURES * 5 {
        match apple.push(WakeKind::Call).await {
            PushOutcome::Accepted => {}
            PushOutcome::Theirs(_) => lost += 1,
            told => unreachable!("{told:?}"),
        }
    }
    assert_eq!((lost, apple.stand_in.connections()), (FAILURES, 1));
}

#[tokio::test]
async fn a_stream_that_is_reset_costs_google_no_connection_one_by_one_and_side_by_side() {
    let google = Google::start().await;
    let plan = || (0..FAILURES).for_each(|_| google.stand_in.fail_after(1, Fault::ResetStream));
    plan();
    for _ in 0..FAILURES {
        assert_eq!(google.push(WakeKind::Call).await, PushOutcome::Accepted);
        assert!(matches!(google.push(WakeKind::Call).await, PushOutcome::Theirs(_)));
    }
    plan();
    let waiting = (0..FAILURES * 2).map(|_| submit(&google.pusher, google.job(WakeKind::Call))).collect();
    let lost = outcomes(waiting).await.into_iter().filter(|told| matches!(told, PushOutcome::Theirs(_))).count();
    // The other one is for the access token.
    assert_eq!((lost, google.stand_in.connections()), (FAILURES, 2));
}

#[tokio::test]
async fn what_is_not_a_call_is_sent_again_on_the_connection_whose_stream_failed() {
    let apple = Apple::start().await;
    apple.stand_in.fail_after(0, Fault::ResetStream);
    assert_eq!(apple.push(WakeKind::Voicemail).await, PushOutcome::Accepted);
    assert_eq!((apple.stand_in.accepted(), apple.stand_in.connections()), (1, 1));
}

#[tokio::test]
async fn a_connection_on_which_every_stream_fails_is_replaced() {
    let apple = Apple::start().await;
    assert_eq!(apple.push(WakeKind::Call).await, PushOutcome::Accepted);
    apple.stand_in.fail_always(Some(Fault::ResetStream));
    for _ in 0..8 {
        assert!(matches!(apple.push(WakeKind::Call).await, PushOutcome::Theirs(_)));
    }
    apple.stand_in.fail_always(None);
    assert_eq!(apple.push(WakeKind::Call).await, PushOutcome::Accepted);
    assert_eq!(apple.stand_in.connections(), 2);
}

#[tokio::test]
async fn a_provider_that_fails_over_every_other_push_gets_few_connections_and_all_calls() {
    let apple = Apple::start().await;
    for _ in 0..FAILURES {
        apple.stand_in.fail_after(1, Fault::answer(503, "ServiceUnavailable"));
    }
    for _ in 0..FAILURES {
        assert_eq!(apple.push(WakeKind::Call).await, PushOutcome::Accepted);
        assert_eq!(apple.push(WakeKind::Call).await, unavailable("503 ServiceUnavailable"));
    }
    assert!(apple.stand_in.connections() <= FEW, "{} connections", apple.stand_in.connections());

    let google = Google::start().await;
    for _ in 0..FAILURES {
        google.stand_in.fail_after(1, Fault::answer(503, "UNAVAILABLE"));
    }
    for _ in 0..FAILURES {
        assert_eq!(google.push(WakeKind::Call).await, PushOutcome::Accepted);
        assert_eq!(google.push(WakeKind::Call).await, unavailable("503 UNAVAILABLE"));
    }
    assert!(google.stand_in.connections() <= FEW, "{} connections", google.stand_in.connections());
}

#[tokio::test]
async fn a_provider_that_fails_over_every_push_keeps_the_connection_it_fails_on() {
    let apple = Apple::start().await;
    apple.stand_in.fail_always(Some(Fault::answer(503, "ServiceUnavailable")));
    for _ in 0..FAILURES {
        assert_eq!(apple.push(WakeKind::Call).await, unavailable("503 ServiceUnavailable"), "told at once");
    }
    assert!(apple.stand_in.connections() <= FEW, "{} connections", apple.stand_in.connections());
    apple.stand_in.fail_always(None);
    assert_eq!(apple.push(WakeKind::Call).await, PushOutcome::Accepted);
}

#[tokio::test]
async fn connections_that_go_away_after_a_few_pushes_lose_no_call_and_are_paced() {
    let apple = Apple::start().await;
    let began = clock::now().boot;
    for _ in 0..5 {
        apple.stand_in.fail_after(2, Fault::GoAway);
    }
    for _ in 0..15 {
        assert_eq!(apple.push(WakeKind::Call).await, PushOutcome::Accepted);
    }
    assert_eq!(apple.stand_in.connections(), 6);
    // Half of 250, 500, 1,000 and 2,000 ms lies between the later ones.
    assert!(clock::now().boot.saturating_since(began) >= Duration::from_millis(1_875));
}

#[tokio::test]
async fn access_tokens_that_are_never_taken_are_fetched_at_a_pace() {
    let google = Google::start().await;
    google.stand_in.fail_always(Some(Fault::answer(401, "UNAUTHENTICATED")));
    let refused = "401 UNAUTHENTICATED";
    for _ in 0..FAILURES {
        let told = google.push(WakeKind::Call).await;
        assert!(told == PushOutcome::Unauthenticated(refused.to_owned()) || told == ours(refused), "{told:?}");
    }
    assert!(google.stand_in.grants() <= FEW, "{} grants", google.stand_in.grants());
    google.stand_in.fail_always(None);
    while google.push(WakeKind::Call).await != PushOutcome::Accepted {
        tokio::task::yield_now().await;
    }
}
