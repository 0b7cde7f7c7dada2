//! One outcome for each push, bounds, shutdown, and configurations that cannot be used.

use zeroize::Zeroizing;

use super::*;
use crate::sandbox::fault::Fault;

#[tokio::test]
async fn above_the_bound_a_push_is_not_sent_at_once() {
    let apple = Apple::with(|settings| settings.queued = 2).await;
    apple.stand_in.fail_after(0, Fault::Silence);
    let waiting = [submit(&apple.pusher, apple.job(WakeKind::Call)), submit(&apple.pusher, apple.job(WakeKind::Call))];
    let mut refused = submit(&apple.pusher, apple.job(WakeKind::Call));
    assert_eq!(refused.try_recv(), Ok(PushOutcome::NotSent), "told before submit returned");
    drop(waiting);
}

#[tokio::test]
async fn a_part_of_the_room_is_kept_for_calls() {
    let apple = Apple::with(|settings| settings.queued = 4).await;
    apple.stand_in.fail_always(Some(Fault::Silence));
    let waiting: Vec<_> = (0..3).map(|_| submit(&apple.pusher, apple.job(WakeKind::Reprovision))).collect();
    let mut other = submit(&apple.pusher, apple.job(WakeKind::Reprovision));
    assert_eq!(other.try_recv(), Ok(PushOutcome::NotSent));
    let mut call = submit(&apple.pusher, apple.job(WakeKind::Call));
    assert!(call.try_recv().is_err(), "it was taken");
    drop(waiting);
}

#[tokio::test]
async fn an_app_that_is_not_configured_is_our_fault_at_once() {
    let apple = Apple::start().await;
    for job in [
        PushJob { tenant: Arc::from("other"), ..apple.job(WakeKind::Call) },
        PushJob { app: "com.example.other".to_owned(), ..apple.job(WakeKind::Call) },
        PushJob { provider: Provider::Fcm, ..apple.job(WakeKind::Call) },
    ] {
        assert_eq!(submit(&apple.pusher, job).try_recv(), Ok(ours("the app is not configured")));
    }
}

#[tokio::test]
async fn shutdown_lets_pushes_finish_and_settles_the_others() {
    let apple = Apple::with(|settings| settings.drain = SOON).await;
    assert_eq!(apple.push(WakeKind::Call).await, PushOutcome::Accepted);
    apple.stand_in.fail_after(0, Fault::Delay(Duration::from_millis(200)));
    apple.stand_in.fail_after(0, Fault::Silence);
    let finishing = submit(&apple.pusher, apple.job(WakeKind::Reprovision));
    apple.stand_in.requests_reached(2).await;
    let hopeless = submit(&apple.pusher, apple.job(WakeKind::Reprovision));
    apple.pusher.shutdown().await;
    assert_eq!(outcomes(vec![finishing, hopeless]).await, [PushOutcome::Accepted, PushOutcome::NotSent]);
    assert_eq!(submit(&apple.pusher, apple.job(WakeKind::Call)).try_recv(), Ok(PushOutcome::NotSent));
}

#[tokio::test]
async fn every_push_has_one_outcome_even_if_the_pusher_is_dropped() {
    let Apple { stand_in, pusher, clocks, seen } = Apple::start().await;
    stand_in.fail_always(Some(Fault::Silence));
    let job = || job_at(clocks.source()(), WakeKind::Call);
    let waiting: Vec<_> = (0..50).map(|_| submit(&pusher, job())).collect();
    drop(pusher);
    assert!(outcomes(waiting).await.iter().all(|outcome| *outcome == PushOutcome::NotSent));
    assert_eq!(seen.lock().unwrap_or_else(PoisonError::into_inner).len(), 50);
}

#[tokio::test]
async fn the_observer_sees_each_outcome_once() {
    let apple = Apple::start().await;
    apple.push(WakeKind::Call).await;
    apple.push(WakeKind::Voicemail).await;
    let expected = [WakeKind::Call, WakeKind::Voicemail].map(|kind| (Provider::Apns, kind, PushOutcome::Accepted));
    assert_eq!(*apple.seen.lock().unwrap_or_else(PoisonError::into_inner), expected);
}

#[tokio::test]
async fn apps_of_one_key_share_a_connection_and_keep_their_topics() {
    let stand_in = ApnsStandIn::start(ApnsOptions::default()).await.expect("a stand-in");
    let second = AppConfig { app: "com.example.desk".to_owned(), ..app(ProviderConfig::Apns(apns_config(&stand_in))) };
    let apps = vec![app(ProviderConfig::Apns(apns_config(&stand_in))), second];
    let pusher = Pusher::new(apps, settings(&Seen::default())).expect("a valid configuration");
    for app in [APP, "com.example.desk"] {
        let job = PushJob { app: app.to_owned(), ..job(WakeKind::Call) };
        assert_eq!(outcome(&pusher, job).await, PushOutcome::Accepted);
        assert_eq!(stand_in.next_push(PATIENCE).await.expect("the push").topic, format!("{app}.voip"));
    }
    assert_eq!(stand_in.connections(), 1);
}

#[tokio::test]
async fn a_configuration_that_cannot_be_used_is_named_without_its_key() {
    let apple = ApnsStandIn::start(ApnsOptions::default()).await.expect("a stand-in");
    let google = FcmStandIn::start(FcmOptions::default()).await.expect("a stand-in");
    let planted = || Zeroizing::new("planted".to_owned());
    let apns = |spoil: fn(&mut ApnsConfig)| {
        let mut config = apns_config(&apple);
        spoil(&mut config);
        ProviderConfig::Apns(config)
    };
    let fcm = |spoil: fn(&mut FcmConfig)| {
        let mut config = fcm_config(&google);
        spoil(&mut config);
        ProviderConfig::Fcm(config)
    };
    let mailbox = SandboxConfig { endpoint: "ftp://127.0.0.1".to_owned(), ca_pem: None };
    for (config, member) in [
        (apns(|config| config.team_id = "short".to_owned()), "team_id"),
        (apns(|config| config.key_id = "with space".to_owned()), "key_id"),
        (ProviderConfig::Apns(ApnsConfig { key_pem: planted(), ..apns_config(&apple) }), "key_file"),
        (apns(|config| config.endpoint = Some("http://127.0.0.1".to_owned())), "endpoint"),
        (apns(|config| config.ca_pem = Some("planted".to_owned())), "ca_file"),
        (
            ProviderConfig::Fcm(FcmConfig { service_account_json: planted(), ..fcm_config(&google) }),
            "service_account_file",
        ),
        (fcm(|config| config.endpoint = Some("nonsense".to_owned())), "endpoint"),
        (ProviderConfig::Sandbox(mailbox), "endpoint"),
    ] {
        let error = Pusher::new(vec![app(config)], settings(&Seen::default())).err().expect("no valid configuration");
        assert_eq!((error.member, error.app.as_str(), &*error.tenant), (member, APP, "acme"), "{error}");
        assert!(!error.to_string().contains("planted"), "{error}");
    }
}

#[tokio::test]
async fn two_keys_under_one_name_and_one_app_twice_are_refused() {
    let apple = ApnsStandIn::start(ApnsOptions::default()).await.expect("a stand-in");
    let other = ApnsStandIn::start(ApnsOptions::default()).await.expect("a stand-in");
    let config = || app(ProviderConfig::Apns(apns_config(&apple)));
    let twice = Pusher::new(vec![config(), config()], settings(&Seen::default())).err().expect("one app twice");
    assert_eq!(twice.member, "id");
    let impostor = ApnsConfig { key_pem: other.credentials().key_pem, ..apns_config(&apple) };
    let second = AppConfig { app: "com.example.desk".to_owned(), ..app(ProviderConfig::Apns(impostor)) };
    let two_keys = Pusher::new(vec![config(), second], settings(&Seen::default())).err().expect("two keys");
    assert_eq!(two_keys.member, "key_file");
}
