//! The PBX against the phone's line: two real ends over loopback.

use std::future::Future;

use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::*;
use crate::clock::PATIENCE;
use crate::sandbox::caller::{Heard, Side};
use crate::sandbox::phone::line::{CallId as LineCall, Line, LineEvent, LinePlan, Offer, Registered};
use crate::sandbox::trust::Trust;
use crate::sip::{Method, Transport};

const EXPIRES: Duration = Duration::from_secs(600);

#[tokio::test]
async fn a_call_is_answered_and_the_caller_hangs_up() {
    for transport in [Transport::Udp, Transport::Tcp] {
        let (pbx, mut line) = registered(transport).await;
        let mut caller = call(&pbx).await;
        let offer = offered(&mut line).await;
        assert_eq!(offer.sdp, CallPlan::default().sdp);
        assert!(offer.from.contains("Bob"), "{}", offer.from);
        line.ring(offer.call);
        line.answer(offer.call, canned_sdp("alice", 41_000));
        confirmed(&mut line, offer.call).await;

        let heard = drive(&mut line, async {
            assert_eq!(until_answered(&mut caller).await, canned_sdp("alice", 41_000));
            caller.hang_up().await;
            last(&mut caller).await
        });
        assert_eq!(within(heard).await, Heard::Ended { by: Side::Caller });
    }
}

#[tokio::test]
async fn a_call_is_answered_and_the_callee_hangs_up() {
    for transport in [Transport::Udp, Transport::Tcp] {
        let (pbx, mut line) = registered(transport).await;
        let mut caller = call(&pbx).await;
        let offer = offered(&mut line).await;
        line.answer(offer.call, canned_sdp("alice", 41_000));
        confirmed(&mut line, offer.call).await;
        line.hang_up(offer.call);
        let over = within(line.next()).await;
        assert!(matches!(over, LineEvent::Over(call) if call == offer.call), "{over:?}");
        assert_eq!(within(last(&mut caller)).await, Heard::Ended { by: Side::Callee });
    }
}

#[tokio::test]
async fn a_caller_who_hangs_up_early_stops_the_ringing() {
    for transport in [Transport::Udp, Transport::Tcp] {
        let (pbx, mut line) = registered(transport).await;
        let mut caller = call(&pbx).await;
        let offer = offered(&mut line).await;
        line.ring(offer.call);
        caller.hang_up().await;
        let event = within(line.next()).await;
        assert!(matches!(event, LineEvent::Cancelled(call) if call == offer.call), "{event:?}");
        let end = within(last(&mut caller)).await;
        assert!(matches!(end, Heard::Refused { code, .. } if code.code() == 487), "{end:?}");
    }
}

#[tokio::test]
async fn a_caller_without_patience_hangs_up_by_itself() {
    let (pbx, mut line) = registered(Transport::Udp).await;
    let plan = CallPlan { give_up: Duration::from_millis(50), ..CallPlan::default() };
    let mut caller = within(pbx.call("alice", plan)).await.expect("placed");
    let offer = offered(&mut line).await;
    line.ring(offer.call);
    let event = within(line.next()).await;
    assert!(matches!(event, LineEvent::Cancelled(_)), "{event:?}");
    assert!(matches!(within(last(&mut caller)).await, Heard::Refused { .. }));
}

#[tokio::test]
async fn a_declined_call_ends_with_the_phones_code() {
    let (pbx, mut line) = registered(Transport::Udp).await;
    let mut caller = call(&pbx).await;
    let offer = offered(&mut line).await;
    line.refuse(offer.call, StatusCode::BUSY_HERE);
    let end = drive(&mut line, last(&mut caller));
    assert!(matches!(within(end).await, Heard::Refused { code: StatusCode::BUSY_HERE, .. }));
}

#[tokio::test]
async fn each_digest_algorithm_works_and_the_strongest_offered_is_chosen() {
    for algorithms in [vec![Algorithm::Md5], vec![Algorithm::Sha256], vec![Algorithm::Md5, Algorithm::Sha256]] {
        let plan = RegistrarPlan { algorithms, ..RegistrarPlan::loopback("alice", "secret") };
        let pbx = Registrar::start(plan).await.expect("started");
        let mut line = open(&pbx, Transport::Udp, "secret").await;
        assert_eq!(register(&mut line).await.challenges, 1);
    }
}

#[tokio::test]
async fn a_refresh_under_the_same_nonce_is_not_challenged() {
    let (pbx, mut line) = registered(Transport::Udp).await;
    for _ in 0..10 {
        assert_eq!(register(&mut line).await.challenges, 0);
    }
    let snapshot = pbx.snapshot();
    assert_eq!((snapshot.granted, snapshot.challenged, snapshot.refused), (11, 1, 0));
    assert_eq!(snapshot.bindings.len(), 1);
}

#[tokio::test]
async fn an_old_nonce_costs_one_stale_challenge() {
    let plan = RegistrarPlan { nonce_life: Duration::ZERO, ..RegistrarPlan::loopback("alice", "secret") };
    let pbx = Registrar::start(plan).await.expect("started");
    let mut line = open(&pbx, Transport::Udp, "secret").await;
    let refused = within(line.register(EXPIRES)).await;
    assert!(matches!(refused, LineEvent::NotRegistered(Some(_))), "a nonce that is never fresh: {refused:?}");
    assert_eq!(pbx.snapshot().challenged, 3, "the first, and one more for each stale nonce it answered");
}

#[tokio::test]
async fn a_wrong_password_is_refused_after_one_answer() {
    let pbx = Registrar::start(RegistrarPlan::loopback("alice", "secret")).await.expect("started");
    let mut line = open(&pbx, Transport::Udp, "wrong").await;
    let LineEvent::NotRegistered(Some(verdict)) = within(line.register(EXPIRES)).await else { panic!("registered") };
    assert_eq!(verdict, "401 Unauthorized");
    assert_eq!((pbx.snapshot().challenged, pbx.snapshot().bindings.len()), (2, 0));
}

#[tokio::test]
async fn a_refusal_can_be_ordered_and_taken_back() {
    let pbx = Registrar::start(RegistrarPlan::loopback("alice", "secret")).await.expect("started");
    let mut line = open(&pbx, Transport::Udp, "secret").await;
    pbx.refuse("alice", Some(StatusCode::FORBIDDEN)).await;
    let refused = within(line.register(EXPIRES)).await;
    assert!(matches!(&refused, LineEvent::NotRegistered(Some(verdict)) if verdict == "403 Forbidden"), "{refused:?}");
    pbx.refuse("alice", None).await;
    register(&mut line).await;
}

#[tokio::test]
async fn an_expiry_is_clamped_refused_and_ends() {
    let plan = RegistrarPlan {
        expires_max: Duration::from_secs(2),
        expires_min: Duration::from_secs(2),
        ..RegistrarPlan::loopback("alice", "secret")
    };
    let pbx = Registrar::start(plan).await.expect("started");
    let mut line = open(&pbx, Transport::Udp, "secret").await;
    let brief = within(line.register(Duration::from_secs(1))).await;
    assert!(matches!(&brief, LineEvent::NotRegistered(Some(verdict)) if verdict.starts_with("423")), "{brief:?}");
    assert_eq!(register(&mut line).await.expires, Duration::from_secs(2));
    drop(line);
    within(pbx.wait_until(|snapshot| snapshot.bindings.is_empty())).await;
    let gone = pbx.call("alice", CallPlan::default()).await;
    assert_eq!(gone.err(), Some(CallError::NotRegistered));
}

#[tokio::test]
async fn a_removed_binding_cannot_be_called() {
    let (pbx, mut line) = registered(Transport::Udp).await;
    within(pbx.wait_until(|snapshot| snapshot.bindings.len() == 1)).await;
    let removed = within(line.register(Duration::ZERO)).await;
    assert!(matches!(removed, LineEvent::Registered(_)), "{removed:?}");
    within(pbx.wait_until(|snapshot| snapshot.bindings.is_empty())).await;
    assert_eq!(pbx.call("alice", CallPlan::default()).await.err(), Some(CallError::NotRegistered));
}

#[tokio::test]
async fn an_unanswered_invite_is_repeated_and_a_repeated_answer_is_acknowledged_again() {
    let (pbx, contact) = registered_by_hand().await;
    let mut caller = call(&pbx).await;
    let first = received(&contact).await;
    let again = received(&contact).await;
    assert_eq!(first.bytes(), again.bytes(), "the INVITE comes twice while nobody answers");

    let answer = answer_to(&first, &contact, "200 OK");
    for _ in 0..2 {
        contact.send_to(&answer, pbx.address()).await.expect("sent");
        let ack = received_until(&contact, |message| message.method() == Some(Method::Ack)).await;
        assert_eq!(ack.cseq().expect("CSeq").number, 1);
    }
    assert_eq!(within(until_answered(&mut caller)).await, Bytes::from_static(b"v=0\r\n"));
}

#[tokio::test]
async fn an_answer_that_crosses_the_cancel_is_acknowledged_and_hung_up() {
    let (pbx, contact) = registered_by_hand().await;
    let mut caller = call(&pbx).await;
    let invite = received(&contact).await;
    let ringing = answer_to(&invite, &contact, "180 Ringing");
    contact.send_to(&ringing, pbx.address()).await.expect("sent");
    caller.hang_up().await;
    received_until(&contact, |message| message.method() == Some(Method::Cancel)).await;

    contact.send_to(&answer_to(&invite, &contact, "200 OK"), pbx.address()).await.expect("sent");
    received_until(&contact, |message| message.method() == Some(Method::Ack)).await;
    let bye = received_until(&contact, |message| message.method() == Some(Method::Bye)).await;
    contact.send_to(&answer_to(&bye, &contact, "200 OK"), pbx.address()).await.expect("sent");
    assert_eq!(within(last(&mut caller)).await, Heard::Ended { by: Side::Caller });
}

#[tokio::test]
async fn a_request_sent_twice_is_answered_twice_and_taken_once() {
    let pbx = Registrar::start(RegistrarPlan::loopback("alice", "secret")).await.expect("started");
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
    let register = by_hand(&socket, "z9hG4bKtwice");
    let mut answers = Vec::new();
    for _ in 0..2 {
        socket.send_to(register.as_bytes(), pbx.address()).await.expect("sent");
        answers.push(received(&socket).await);
    }
    assert_eq!(answers[0].bytes(), answers[1].bytes(), "one challenge, sent twice");
    assert_eq!(pbx.snapshot().challenged, 1);
}

#[tokio::test]
async fn options_are_answered_and_strangers_find_nobody_to_call() {
    let pbx = Registrar::start(RegistrarPlan::loopback("alice", "secret")).await.expect("started");
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
    for (method, expected) in [("OPTIONS", 200), ("SUBSCRIBE", 405), ("BYE", 405)] {
        let request = by_hand(&socket, &format!("z9hG4bK{method}")).replace("REGISTER", method);
        socket.send_to(request.as_bytes(), pbx.address()).await.expect("sent");
        assert_eq!(received(&socket).await.status().map(StatusCode::code), Some(expected), "{method}");
    }
    let invite = by_hand(&socket, "z9hG4bKinvite").replace("REGISTER", "INVITE");
    socket.send_to(invite.as_bytes(), pbx.address()).await.expect("sent");
    let refusal = received_until(&socket, |message| message.status() != Some(StatusCode::TRYING)).await;
    assert_eq!(refusal.status(), Some(StatusCode::NOT_FOUND));
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("in time")
}

async fn open(pbx: &Registrar, transport: Transport, password: &str) -> Line {
    let plan = LinePlan {
        server: format!("sip:{};transport={}", pbx.address(), transport.as_param()),
        aor: format!("sip:alice@{}", pbx.address()),
        username: "alice".to_owned(),
        password: Zeroizing::new(password.to_owned()),
        realm: Some("pbx.invalid".to_owned()),
        trust: Trust::PublicRoots,
    };
    within(Line::open(plan)).await.expect("opened")
}

async fn register(line: &mut Line) -> Registered {
    match within(line.register(EXPIRES)).await {
        LineEvent::Registered(registered) => registered,
        other => panic!("not registered: {other:?}"),
    }
}

async fn registered(transport: Transport) -> (Registrar, Line) {
    let pbx = Registrar::start(RegistrarPlan::loopback("alice", "secret")).await.expect("started");
    let mut line = open(&pbx, transport, "secret").await;
    assert_eq!(register(&mut line).await, Registered { expires: EXPIRES, challenges: 1, calls: Vec::new() });
    (pbx, line)
}

async fn call(pbx: &Registrar) -> Caller {
    within(pbx.call("alice", CallPlan::default())).await.expect("placed")
}

async fn offered(line: &mut Line) -> Offer {
    match within(line.next()).await {
        LineEvent::Offered(offer) => offer,
        other => panic!("no call: {other:?}"),
    }
}

async fn confirmed(line: &mut Line, call: LineCall) {
    let event = within(line.next()).await;
    assert!(matches!(event, LineEvent::Confirmed(confirmed) if confirmed == call), "{event:?}");
}

/// Runs the phone's side while waiting for something else.
async fn drive<T>(line: &mut Line, wait: impl Future<Output = T>) -> T {
    let mut wait = std::pin::pin!(wait);
    loop {
        tokio::select! {
            done = &mut wait => return done,
            _event = line.next() => {}
        }
    }
}

async fn until_answered(caller: &mut Caller) -> Bytes {
    loop {
        match caller.next().await.expect("the call goes on").what {
            Heard::Answered { sdp } => return sdp,
            Heard::Trying | Heard::Ringing(_) => {}
            other => panic!("not answered: {other:?}"),
        }
    }
}

async fn last(caller: &mut Caller) -> Heard {
    let mut heard = None;
    while let Some(news) = caller.next().await {
        heard = Some(news.what);
    }
    heard.expect("something was heard")
}

/// A user agent of a few lines, which answers only what a test tells it to.
fn by_hand(socket: &UdpSocket, branch: &str) -> String {
    let own = socket.local_addr().expect("bound");
    format!(
        "REGISTER sip:pbx.invalid SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch={branch}\r\nMax-Forwards: 70\r\n\
         From: <sip:alice@pbx.invalid>;tag=hand\r\nTo: <sip:alice@pbx.invalid>\r\nCall-ID: {branch}\r\nCSeq: 1 REGISTER\r\n\
         Contact: <sip:hand@{own}>\r\nContent-Length: 0\r\n\r\n"
    )
}

async fn registered_by_hand() -> (Registrar, UdpSocket) {
    use crate::sip::digest::{Secret, Session, Signed};

    let pbx = Registrar::start(RegistrarPlan::loopback("alice", "secret")).await.expect("started");
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
    socket.send_to(by_hand(&socket, "z9hG4bKone").as_bytes(), pbx.address()).await.expect("sent");
    let challenge = received(&socket).await;
    let mut session = Session::choose(challenge.challenges(), |_, _| true).expect("a challenge");
    let signed = Signed::bare("REGISTER", "sip:pbx.invalid");
    let value = session.authorize("alice", Secret::Password(b"secret"), signed, "c");
    let value = String::from_utf8(value).expect("made of texts");
    let answered =
        by_hand(&socket, "z9hG4bKtwo").replace("Content-Length", &format!("Authorization: {value}\r\nContent-Length"));
    socket.send_to(answered.as_bytes(), pbx.address()).await.expect("sent");
    assert_eq!(received(&socket).await.status(), Some(StatusCode::OK));
    (pbx, socket)
}

async fn received(socket: &UdpSocket) -> Message {
    let mut buffer = vec![0; 65_536];
    let (length, _) = within(socket.recv_from(&mut buffer)).await.expect("received");
    Message::parse_datagram(buffer[..length].to_vec()).expect("SIP")
}

async fn received_until(socket: &UdpSocket, test: impl Fn(&Message) -> bool) -> Message {
    loop {
        let message = received(socket).await;
        if test(&message) {
            return message;
        }
    }
}

fn answer_to(invite: &Message, socket: &UdpSocket, status: &str) -> Vec<u8> {
    let own = socket.local_addr().expect("bound");
    let mut answer = format!("SIP/2.0 {status}\r\n");
    for header in invite.headers() {
        let (name, value) = (text(header.raw_name), text(header.value));
        match name.as_str() {
            "Via" | "From" | "Call-ID" | "CSeq" => answer.push_str(&format!("{name}: {value}\r\n")),
            "To" if !value.contains("tag=") => answer.push_str(&format!("{name}: {value};tag=hand\r\n")),
            "To" => answer.push_str(&format!("{name}: {value}\r\n")),
            _ => {}
        }
    }
    answer.push_str(&format!("Contact: <sip:hand@{own}>\r\nContent-Length: 5\r\n\r\nv=0\r\n"));
    answer.into_bytes()
}
