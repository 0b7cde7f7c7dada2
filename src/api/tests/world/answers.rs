//! What the scripted engine answers where a test does not say.

use std::collections::BTreeMap;
use std::time::Duration;

use zeroize::Zeroizing;

use super::{DEVICE, DOMAIN, TOKEN, call_id, instance};
use crate::clock::WallTime;
use crate::engine::account::{Account, ContactStyle, TrunkHost, TrunkSources, TrunkUri};
use crate::engine::audit::{Inclusion, Receipt, Unregister, WakeCounts};
use crate::engine::caller_key::{CallerKey, CallerSuite};
use crate::engine::input::{Command, Parting, Preferences, PushPurpose};
use crate::engine::output::{
    Answer, AttachView, CallState, CallView, Consent, ConsentView, DataView, ForegroundView, HandedOver, HeldView,
    InstanceView, KeptContact, MailboxView, MoveView, OrderView, Refusal, RegistrationState, RegistrationView, Step,
    TestView, TraceEntry, TraceKind, TraceView, WakeKind,
};
use crate::engine::policy::{CallerInPush, Provider};
use crate::engine::proof::ProofState;
use crate::engine::story::{Moment, Story};

pub(crate) fn receipt() -> Receipt {
    Receipt {
        v: 1,
        instance: instance().to_string(),
        salt: "5a17".to_owned(),
        record: "{\"v\":1}".to_owned(),
        inclusion: Some(Inclusion {
            leaf_index: 3,
            tree_size: 4,
            root: "cm9vdA".to_owned(),
            path: vec!["YQ".to_owned()],
        }),
        key: "a2V5".to_owned(),
        signature: "c2ln".to_owned(),
    }
}

fn registration(state: RegistrationState) -> RegistrationView {
    let registered = state == RegistrationState::Registered;
    RegistrationView {
        state,
        expires: registered.then_some(Duration::from_secs(600)),
        reason: None,
        verdict: registered.then(|| "200 OK".to_owned()),
        other_contacts: u32::from(registered),
        dropped_contacts: 0,
        replaced_contacts: 0,
        moving: None,
    }
}

pub(crate) fn handed_over(state: RegistrationState, replaced: bool) -> Answer {
    Answer::HandedOver(Box::new(HandedOver {
        tenant: "acme".into(),
        instance: instance(),
        token: Zeroizing::new(TOKEN.to_owned()),
        lease_ends: lease_ends(),
        registration: registration(state),
        attach: attach(),
        caller_in_push: CallerInPush::Sealed,
        push_proof: ProofState::Pending,
        replaced,
    }))
}

fn lease_ends() -> WallTime {
    WallTime::from_unix_millis(1_795_550_400_000)
}

fn attach() -> AttachView {
    let instance = instance();
    AttachView {
        uri: format!("sip:{DOMAIN}:5061;transport=tls"),
        alternatives: vec![format!("wss://{DOMAIN}:443")],
        aor: format!("sip:{instance}@{DOMAIN}"),
        username: instance.to_string(),
        realm: DOMAIN.to_owned(),
    }
}

/// The same answer while a change of place has not come about.
pub(crate) fn moving(mut answer: Answer, view: &MoveView) -> Answer {
    match &mut answer {
        Answer::HandedOver(it) => it.registration.moving = Some(view.clone()),
        Answer::Instance(it) => it.registration.moving = Some(view.clone()),
        _ => {}
    }
    answer
}

fn instance_view() -> InstanceView {
    InstanceView {
        instance: instance(),
        registration: registration(RegistrationState::Registered),
        lease_ends: lease_ends(),
        attach: attach(),
        caller_in_push: CallerInPush::Sealed,
        push_proof: ProofState::Pending,
        attached: true,
        trunk_drops: 7,
        private_media_address: false,
    }
}

fn trunk_uri(host: &str, text: &str) -> TrunkUri {
    TrunkUri {
        text: text.to_owned(),
        host: TrunkHost::Name(host.to_owned()),
        port: None,
        transport: Some(crate::sip::Transport::Tls),
    }
}

pub(crate) fn account() -> Account {
    Account {
        aor: "sip:alice@example.com".to_owned(),
        registrar: trunk_uri("example.com", "sip:example.com;transport=tls"),
        outbound_proxy: None,
        auth_username: "alice".to_owned(),
        register_expires: Duration::from_secs(600),
        trunk_sources: TrunkSources::Any,
        early_response: None,
        contact_style: ContactStyle::default(),
        tls_spki_sha256: None,
    }
}

fn held_view() -> HeldView {
    let mut pushes_sent = WakeCounts::default();
    pushes_sent.add(WakeKind::MissedCall);
    HeldView {
        registered_at: Some("198.51.100.10:5061".parse().expect("an address")),
        lease: Duration::from_secs(259_200),
        targets_since: WallTime::from_unix_millis(1_795_291_200_000),
        pushes_sent,
        restricted_since: None,
        sharing: 1,
        attached_from: Some(("192.0.2.7:5060".parse().expect("an address"), "sip:app@192.0.2.7".to_owned())),
        texts_waiting: 2,
        mailbox: Some(MailboxView { subscribed: true, new: 3, old: 4 }),
        calls: vec![(call_id(), CallView::new(CallState::Ended, Some("declined")))],
        pushes_under_way: 1,
        test: Some(test_view()),
        trace: Some(consent_view()),
    }
}

fn consent_view() -> ConsentView {
    let consent = Consent {
        sip: true,
        decisions: true,
        identities: false,
        span: Duration::from_secs(3600),
        tenant_may_read: false,
    };
    let since = WallTime::from_unix_millis(1_795_291_200_000);
    ConsentView { consent, since, until: since + consent.span }
}

fn trace_view() -> TraceView {
    let entry = |kind, text: &str| TraceEntry {
        at: WallTime::from_unix_millis(1_795_291_201_000),
        kind,
        text: Zeroizing::new(text.to_owned()),
    };
    let entries = vec![entry(TraceKind::Decision, "wake call: sent"), entry(TraceKind::Sent, "SIP/2.0 180 Ringing\n")];
    TraceView { consent: consent_view(), entries, omitted: 5 }
}

fn data_view() -> DataView {
    DataView {
        view: instance_view(),
        tenant: "acme".into(),
        device: DEVICE.to_owned(),
        platform: "ios".to_owned(),
        account: account(),
        preferences: Preferences::default(),
        password: false,
        ha1: vec![("example.com".to_owned(), "SHA-256")],
        push: vec![(PushPurpose::Call, Provider::Apns, "com.example.phone".to_owned(), "token")],
        caller_key: CallerKey::new(CallerSuite::ChaCha20Poly1305, [9; 32]),
        handed_over: WallTime::from_unix_millis(1_795_291_200_000),
        held: held_view(),
    }
}

/// What a friendly engine answers.
pub(crate) fn usual_answer(command: &Command) -> Answer {
    match command {
        Command::HandOver(_) => handed_over(RegistrationState::Registered, false),
        Command::Show(..)
        | Command::Restrict(..)
        | Command::Resume(..)
        | Command::Rectify(..)
        | Command::Refresh(..) => Answer::Instance(Box::new(instance_view())),
        Command::Foreground(.., parting) => {
            let contact = KeptContact { contact: "sip:cap@h".to_owned(), expires: Duration::from_secs(540) };
            let kept = (*parting == Parting::Keep).then_some(contact);
            Answer::Foreground(Box::new(ForegroundView { receipt: Box::new(receipt()), logged: true, kept }))
        }
        Command::Consent(..) => Answer::Consent(consent_view()),
        Command::ReadTrace(..) | Command::ReadTraceAsTenant(..) => Answer::Trace(Box::new(trace_view())),
        Command::WithdrawTrace(..) => Answer::TraceEnded(true),
        Command::Erase(..) => Answer::Erased { receipt: Box::new(receipt()), logged: true },
        Command::Data(..) => Answer::Data(Box::new(data_view())),
        Command::Call(_, _, call) if call_id() == *call => Answer::Call(call_view()),
        Command::Call(..) => Answer::Refused(Refusal::NotFound),
        Command::Decline(..) => Answer::Call(CallView::new(CallState::Ended, Some("declined"))),
        Command::BeginTest(..) => Answer::TestBegun(test_view()),
        Command::Test(_, _, test) | Command::TestArrived(_, _, test) if test_view().test == *test => {
            Answer::Test(test_view())
        }
        Command::Test(..) | Command::TestArrived(..) => Answer::Refused(Refusal::NotFound),
        Command::Prove(_, _, None) => Answer::PushProof(ProofState::Pending),
        Command::Prove(..) => Answer::PushProof(ProofState::Proven),
        Command::Stories { .. } => Answer::Stories(Vec::new()),
        Command::EraseAll { .. } => Answer::Ordered(Box::new(order_view(3, 0))),
    }
}

/// A self-test whose push was taken, and has not arrived yet.
pub(crate) fn test_view() -> TestView {
    let requested_at = WallTime::from_unix_millis(1_795_291_200_000);
    TestView {
        test: uuid::Uuid::from_u128(11),
        requested_at,
        accepted: Some((requested_at + Duration::from_secs(1), Duration::from_millis(730))),
        arrived: None,
        failure: None,
    }
}

/// An order of which one shard has erased so many, and has so many left.
pub(crate) fn order_view(erased: u32, left: u32) -> OrderView {
    let begun = WallTime::from_unix_millis(1_795_291_200_000);
    OrderView {
        begun,
        ended: (left == 0).then_some(begun + Duration::from_secs(2)),
        left,
        unregister: BTreeMap::from([(Unregister::Confirmed, erased)]),
        logged: erased,
        passed: 0,
    }
}

/// A call whose wake failed.
fn call_view() -> CallView {
    let moment = |step, ms| Moment { step, after: Duration::from_millis(ms) };
    let story = Story {
        instance: instance(),
        call: call_id(),
        began: WallTime::from_unix_millis(1_795_550_400_700),
        moments: vec![moment(Step::Invited, 0), moment(Step::WakeFailed("token-dead"), 1_300)],
        omitted: 2,
        outcome: None,
        repeated: 0,
    };
    let view = CallView::new(CallState::Waking, None);
    CallView { story: Some(Box::new(story)), private_media_address: true, ..view }
}
