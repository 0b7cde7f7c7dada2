//! Connections that go away, break, fall silent or never come to be: no push is lost with them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use http::{Request, StatusCode};
use http_body_util::Full;

use super::*;
use crate::push::channel::{Channel, LinkRules, Lost, Ping};
use crate::push::endpoint::{ALPN_H2, Endpoint};
use crate::sandbox::fault::Fault;

const MANY: u64 = 500;

/// Submits many pushes at once, each to a token of its own.
fn flood(apple: &Apple) -> Vec<oneshot::Receiver<PushOutcome>> {
    let job = |number: u64| {
        let token = format!("{number:064x}").into();
        PushJob { wake: WakeId(number), token, ..apple.job(WakeKind::MissedCall) }
    };
    (0..MANY).map(|number| submit(&apple.pusher, job(number))).collect()
}

/// The pushes that arrived, by token: the ids and connections each came with.
async fn arrived(apple: &Apple) -> HashMap<String, Vec<(String, u64)>> {
    let mut arrived: HashMap<_, Vec<_>> = HashMap::new();
    while let Some(push) = apple.stand_in.next_push(Duration::ZERO).await {
        arrived.entry(push.token).or_default().push((push.id, push.connection));
    }
    arrived
}

#[tokio::test]
async fn goaway_under_five_hundred_pushes_loses_none_and_doubles_none() {
    let apple = Apple::start().await;
    for passing in [50, 120, 7, 0, 200] {
        apple.stand_in.fail_after(passing, Fault::GoAway);
    }
    let outcomes = outcomes(flood(&apple)).await;
    assert!(outcomes.iter().all(|outcome| *outcome == PushOutcome::Accepted), "{outcomes:?}");
    let arrived = arrived(&apple).await;
    assert_eq!(arrived.len() as u64, MANY);
    assert!(arrived.values().all(|pushes| pushes.len() == 1));
    let ids: HashSet<_> = arrived.values().flatten().map(|(id, _)| id).collect();
    assert_eq!(ids.len() as u64, MANY);
    assert_eq!(apple.stand_in.connections(), 6);
    assert_eq!(apple.stand_in.refusals(), []);
}

#[tokio::test]
async fn a_connection_cut_under_five_hundred_pushes_loses_none_and_repeats_under_the_same_id() {
    let apple = Apple::start().await;
    apple.stand_in.fail_after(250, Fault::CutBefore);
    let outcomes = outcomes(flood(&apple)).await;
    assert!(outcomes.iter().all(|outcome| *outcome == PushOutcome::Accepted), "{outcomes:?}");
    let arrived = arrived(&apple).await;
    assert_eq!(arrived.len() as u64, MANY);
    for pushes in arrived.values() {
        assert!(pushes.iter().all(|(id, _)| *id == pushes[0].0), "{pushes:?}");
    }
}

#[tokio::test]
async fn an_answer_lost_with_its_connection_is_asked_for_again_under_the_same_id() {
    let apple = Apple::start().await;
    assert_eq!(apple.push(WakeKind::MissedCall).await, PushOutcome::Accepted);
    arrived(&apple).await;
    apple.stand_in.fail_after(0, Fault::CutAfter);
    assert_eq!(apple.push(WakeKind::MissedCall).await, PushOutcome::Accepted);
    let pushes: Vec<_> = arrived(&apple).await.into_values().flatten().collect();
    let ids: HashSet<_> = pushes.iter().map(|(id, _)| id).collect();
    let connections: HashSet<_> = pushes.iter().map(|(_, connection)| connection).collect();
    assert_eq!((pushes.len(), ids.len(), connections.len()), (2, 1, 2));
}

#[tokio::test]
async fn an_answer_lost_twice_is_their_fault() {
    let apple = Apple::start().await;
    assert_eq!(apple.push(WakeKind::MissedCall).await, PushOutcome::Accepted);
    apple.stand_in.fail_after(0, Fault::CutAfter);
    apple.stand_in.fail_after(0, Fault::CutAfter);
    assert!(matches!(apple.push(WakeKind::MissedCall).await, PushOutcome::Theirs(_)));
    assert_eq!(apple.stand_in.accepted(), 3);
}

#[tokio::test]
async fn a_call_whose_answer_is_lost_is_told_at_once() {
    for fault in [Fault::CutBefore, Fault::CutAfter] {
        let apple = Apple::start().await;
        assert_eq!(apple.push(WakeKind::Call).await, PushOutcome::Accepted);
        apple.stand_in.fail_after(0, fault);
        assert!(matches!(apple.push(WakeKind::Call).await, PushOutcome::Theirs(_)));
        assert_eq!(apple.push(WakeKind::Call).await, PushOutcome::Accepted, "over a new connection");
    }
}

#[tokio::test]
async fn a_refused_stream_is_opened_again_on_the_same_connection() {
    let apple = Apple::start().await;
    apple.stand_in.fail_after(0, Fault::RefuseStream);
    apple.stand_in.fail_after(0, Fault::RefuseStream);
    assert_eq!(apple.push(WakeKind::Call).await, PushOutcome::Accepted);
    assert_eq!((apple.stand_in.accepted(), apple.stand_in.connections()), (1, 1));
}

#[tokio::test]
async fn a_connection_closed_while_idle_is_replaced_by_the_next_push() {
    let apple = Apple::start().await;
    assert_eq!(apple.push(WakeKind::Call).await, PushOutcome::Accepted);
    // With no stream open, a GOAWAY ends the connection; the push that caused it is replayed.
    apple.stand_in.fail_after(0, Fault::GoAway);
    assert_eq!(apple.push(WakeKind::Call).await, PushOutcome::Accepted);
    assert_eq!(apple.push(WakeKind::Call).await, PushOutcome::Accepted);
    assert_eq!((apple.stand_in.accepted(), apple.stand_in.connections()), (3, 2));
}

#[tokio::test]
async fn a_slow_provider_is_waited_for() {
    let apple = Apple::start().await;
    apple.stand_in.fail_after(0, Fault::Delay(Duration::from_millis(300)));
    assert_eq!(apple.push(WakeKind::Call).await, PushOutcome::Accepted);
    assert_eq!((apple.stand_in.accepted(), apple.stand_in.connections()), (1, 1));
}

#[tokio::test]
async fn a_silent_provider_is_waited_for_until_the_deadline_and_the_others_behind_it_are_told_so() {
    let apple = Apple::start().await;
    apple.stand_in.fail_always(Some(Fault::Silence));
    let within = |span| {
        let deadline = apple.clocks.source()().boot + span;
        PushJob { deadline, ..apple.job(WakeKind::Call) }
    };
    let first = submit(&apple.pusher, within(SOON));
    apple.stand_in.requests_reached(1).await;
    // Only one stream may be open yet, so the second never leaves.
    let second = submit(&apple.pusher, within(SOON / 30));
    assert_eq!(outcomes(vec![first, second]).await, [theirs("no answer before the deadline"), PushOutcome::NotSent]);
}

#[tokio::test]
async fn a_deadline_that_has_passed_sends_nothing() {
    let apple = Apple::start().await;
    let job = PushJob { deadline: apple.clocks.source()().boot, ..apple.job(WakeKind::Call) };
    assert_eq!(outcome(&apple.pusher, job).await, PushOutcome::NotSent);
    assert_eq!(apple.stand_in.connections(), 0);
}

#[tokio::test]
async fn the_deadline_counts_while_the_machine_is_suspended() {
    let apple = Apple::start().await;
    apple.stand_in.fail_after(0, Fault::Silence);
    let waiting = submit(&apple.pusher, apple.job(WakeKind::Call));
    apple.stand_in.requests_reached(1).await;
    apple.clocks.advance(60);
    // Long before 45 s of the timers' time are over.
    let told = timeout(PATIENCE, waiting).await.expect("an outcome in time").expect("an outcome");
    assert_eq!(told, theirs("no answer before the deadline"));
}

#[tokio::test]
async fn a_provider_that_cannot_be_reached_is_their_fault_at_the_deadline() {
    let stand_in = ApnsStandIn::start(ApnsOptions::default()).await.expect("a stand-in");
    let deaf = tokio::net::TcpSocket::new_v4().expect("a socket");
    deaf.bind("127.0.0.1:0".parse().expect("a literal")).expect("a free port");
    let endpoint = format!("https://{}", deaf.local_addr().expect("bound"));
    let config = ApnsConfig { endpoint: Some(endpoint), ..apns_config(&stand_in) };
    let pusher = Pusher::new(vec![app(ProviderConfig::Apns(config))], settings(&Seen::default())).expect("valid");
    let deadline = clock::now().boot + SOON;
    let told = outcome(&pusher, PushJob { deadline, ..job(WakeKind::Call) }).await;
    assert!(matches!(&told, PushOutcome::Theirs(why) if why.starts_with("connect")), "{told:?}");
    let troubles = pusher.troubles();
    assert!(matches!(&troubles[..], [(Provider::Apns, why)] if why.starts_with("connect")), "{troubles:?}");
}

#[tokio::test]
async fn a_provider_whose_certificate_we_do_not_trust_gets_nothing() {
    let stand_in = ApnsStandIn::start(ApnsOptions::default()).await.expect("a stand-in");
    let other = ApnsStandIn::start(ApnsOptions::default()).await.expect("a stand-in");
    let config = ApnsConfig { ca_pem: Some(other.ca_pem().to_owned()), ..apns_config(&stand_in) };
    let pusher = Pusher::new(vec![app(ProviderConfig::Apns(config))], settings(&Seen::default())).expect("valid");
    let deadline = clock::now().boot + SOON;
    let told = outcome(&pusher, PushJob { deadline, ..job(WakeKind::Call) }).await;
    assert!(matches!(&told, PushOutcome::Theirs(why) if why.starts_with("TLS")), "{told:?}");
    assert_eq!(stand_in.accepted(), 0);
}

#[tokio::test]
async fn a_connection_that_dies_in_silence_is_noticed_by_ping_and_replaced() {
    let apple = Apple::start().await;
    let ping = Ping { after: SOON / 3, within: SOON / 3 };
    let (endpoint, ca) = (apple.stand_in.endpoint(), apple.stand_in.ca_pem().to_owned());
    let endpoint = Endpoint::https("endpoint", &endpoint, Some(&ca), ALPN_H2, &Arc::default()).expect("a valid URL");
    let crew = Crew::new();
    let rules = LinkRules { unproved: 1, proved: 1, ping };
    let channel = Channel::new(endpoint, rules, apple.clocks.source(), &crew);
    let request = || Request::post(channel.uri("/3/device/ab")).body(Full::default()).ok();
    apple.stand_in.fail_after(0, Fault::Freeze);
    let lost = timeout(PATIENCE, channel.exchange(request, &mut 0, &mut Trail::default())).await;
    assert!(matches!(lost, Ok(Err(Lost::Unknown(_)))), "long before a stream's own time is over");
    let answered = timeout(PATIENCE, channel.exchange(request, &mut 0, &mut Trail::default())).await;
    let Ok(Ok((_, reply))) = answered else { unreachable!("the second connection is not frozen") };
    assert_eq!(reply.status, StatusCode::FORBIDDEN);
    assert_eq!(apple.stand_in.connections(), 2);
}

#[tokio::test]
async fn a_provider_that_cuts_every_connection_is_not_hammered() {
    let apple = Apple::start().await;
    apple.stand_in.fail_always(Some(Fault::CutBefore));
    let deadline = apple.clocks.source()().boot + Duration::from_secs(2);
    let jobs = (0..100).map(|_| PushJob { deadline, ..apple.job(WakeKind::Call) });
    let waiting: Vec<_> = jobs.map(|job| submit(&apple.pusher, job)).collect();
    for told in outcomes(waiting).await {
        assert!(matches!(told, PushOutcome::Theirs(_) | PushOutcome::NotSent), "{told:?}");
    }
    // Pauses of at least 125, 250, 500 and 1,000 ms fit into two seconds.
    assert!(apple.stand_in.connections() <= 6, "{} connections", apple.stand_in.connections());
}
