//! What an operator is told of each provider in each kind of trouble: once, and that it is over.

use std::io::Write;

use tracing::subscriber::DefaultGuard;

use super::*;
use crate::sandbox::fault::Fault;
use crate::sandbox::mailbox::{Mailbox as Letterbox, MailboxOptions};

/// Pushes that fail alike.
const MANY: usize = 20;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Captures the lines of this thread, on which all tasks of a test run.
    fn start() -> (Self, DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let lines = tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).with_ansi(false);
        let guard = tracing::subscriber::set_default(lines.with_writer(move || writer.clone()).finish());
        (log, guard)
    }

    /// How many lines say `what`.
    fn count(&self, what: &str) -> usize {
        let lines = String::from_utf8(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()).expect("text");
        lines.lines().filter(|line| line.contains(what)).count()
    }
}

/// A provider that can be told how to fail, and a pusher for it.
struct Stage {
    provider: Provider,
    pusher: Pusher,
    clocks: Clocks,
    fail: Box<dyn Fn(Option<Fault>)>,
}

impl Stage {
    async fn of(provider: Provider) -> Self {
        let clocks = Clocks::default();
        let time = clocks.source();
        let (config, fail): (_, Box<dyn Fn(Option<Fault>)>) = match provider {
            Provider::Apns => {
                let options = ApnsOptions { time, bundles: vec![APP.to_owned()], ..ApnsOptions::default() };
                let stand_in = ApnsStandIn::start(options).await.expect("a stand-in");
                let config = ProviderConfig::Apns(apns_config(&stand_in));
                (config, Box::new(move |fault| stand_in.fail_always(fault)))
            }
            Provider::Fcm => {
                let stand_in =
                    FcmStandIn::start(FcmOptions { time, ..FcmOptions::default() }).await.expect("a stand-in");
                let config = ProviderConfig::Fcm(fcm_config(&stand_in));
                (config, Box::new(move |fault| stand_in.fail_always(fault)))
            }
            Provider::Sandbox => {
                let mailbox = Letterbox::start(MailboxOptions::default()).await.expect("a mailbox");
                let endpoint = mailbox.endpoint();
                let config = ProviderConfig::Sandbox(SandboxConfig { endpoint, ca_pem: None });
                (config, Box::new(move |fault| mailbox.fail_always(fault)))
            }
        };
        let settings = PushSettings { time: clocks.source(), ..settings(&Seen::default()) };
        let pusher = Pusher::new(vec![app(config)], settings).expect("a valid configuration");
        Self { provider, pusher, clocks, fail }
    }

    async fn push(&self) -> PushOutcome {
        let job = PushJob { provider: self.provider, ..job_at(self.clocks.source()(), WakeKind::Call) };
        outcome(&self.pusher, job).await
    }
}

const PROVIDERS: [Provider; 3] = [Provider::Apns, Provider::Fcm, Provider::Sandbox];

#[tokio::test]
async fn every_provider_in_every_trouble_is_told_once_and_noted_until_a_push_is_taken() {
    let (log, _guard) = Log::start();
    let troubles = [
        (Fault::answer(403, "Forbidden"), "the push provider refuses us"),
        (Fault::answer(503, "ServiceUnavailable"), "pushes fail"),
        (Fault::answer_retry_after(429, "TooManyRequests", 9), "pushes fail"),
        (Fault::ResetStream, "pushes fail"),
    ];
    for provider in PROVIDERS {
        for (fault, line) in troubles.clone() {
            let stage = Stage::of(provider).await;
            let before = (log.count(line), log.count("pushes are taken again"));
            (stage.fail)(Some(fault.clone()));
            for _ in 0..MANY / 2 {
                assert_ne!(stage.push().await, PushOutcome::Accepted, "{provider:?} {fault:?}");
            }
            assert_eq!(log.count(line), before.0 + 1, "{provider:?} {fault:?}");
            let noted = stage.pusher.troubles();
            assert!(matches!(&noted[..], [(whose, _)] if *whose == provider), "{provider:?} {fault:?}: {noted:?}");
            (stage.fail)(None);
            assert_eq!(stage.push().await, PushOutcome::Accepted, "{provider:?} {fault:?}");
            assert_eq!(stage.pusher.troubles(), [], "{provider:?} {fault:?}");
            assert_eq!(log.count("pushes are taken again"), before.1 + 1, "{provider:?} {fault:?}");
        }
    }
    assert!(!log.0.lock().unwrap_or_else(PoisonError::into_inner).windows(8).any(|bytes| bytes == b"0a1b0a1b"));
}

#[tokio::test]
async fn a_provider_that_cannot_be_reached_is_told_and_noted_whichever_it_is() {
    let (log, _guard) = Log::start();
    let deaf = tokio::net::TcpSocket::new_v4().expect("a socket");
    deaf.bind("127.0.0.1:0".parse().expect("a literal")).expect("a free port");
    let endpoint = format!("https://{}", deaf.local_addr().expect("bound"));
    let apple = ApnsStandIn::start(ApnsOptions::default()).await.expect("a stand-in");
    let google = FcmStandIn::start(FcmOptions::default()).await.expect("a stand-in");
    let configs = [
        ProviderConfig::Apns(ApnsConfig { endpoint: Some(endpoint.clone()), ..apns_config(&apple) }),
        ProviderConfig::Fcm(FcmConfig { endpoint: Some(endpoint.clone()), ..fcm_config(&google) }),
        ProviderConfig::Sandbox(SandboxConfig { endpoint, ca_pem: None }),
    ];
    for config in configs {
        let provider = config.provider();
        let pusher = Pusher::new(vec![app(config)], settings(&Seen::default())).expect("valid");
        let told = log.count("reason=\"connect");
        let mut failures = 0;
        while failures < 2 {
            let deadline = clock::now().boot + SOON / 2;
            match outcome(&pusher, PushJob { provider, deadline, ..job(WakeKind::Call) }).await {
                PushOutcome::Theirs(why) => {
                    assert!(why.starts_with("connect"), "{provider:?}: {why}");
                    failures += 1;
                }
                // On a loaded machine its time may be over before anything was tried.
                other => assert_eq!(other, PushOutcome::NotSent, "{provider:?}"),
            }
        }
        assert_eq!(log.count("reason=\"connect"), told + 1, "{provider:?}");
        let noted = pusher.troubles();
        assert!(matches!(&noted[..], [(whose, _)] if *whose == provider), "{noted:?}");
    }
    assert_eq!(log.count("push provider unreachable"), 2, "once for each of the two that keep connections");
}

#[tokio::test]
async fn a_token_endpoint_in_trouble_is_told_once_and_noted_until_a_push_is_taken() {
    let (log, _guard) = Log::start();
    let lines = |log: &Log| log.count("no access token for FCM");
    for fault in [Fault::answer(400, "invalid_grant"), Fault::answer(503, "backend_error"), Fault::CutBefore] {
        let google = Google::start().await;
        let told = lines(&log);
        google.stand_in.fail_grants_always(Some(fault.clone()));
        // Until it is told, and once more.
        let mut more = 1;
        while lines(&log) == told || more > 0 {
            if lines(&log) > told {
                more -= 1;
            }
            let deadline = google.clocks.source()().boot + SOON / 2;
            let failed = outcome(&google.pusher, PushJob { deadline, ..google.job(WakeKind::Call) }).await;
            assert_ne!(failed, PushOutcome::Accepted, "{fault:?}");
        }
        assert_eq!(lines(&log), told + 1, "{fault:?}");
        assert!(matches!(&google.pusher.troubles()[..], [(Provider::Fcm, _)]), "{fault:?}");
        google.stand_in.fail_grants_always(None);
        while google.push(WakeKind::Call).await != PushOutcome::Accepted {
            tokio::task::yield_now().await;
        }
        assert_eq!(google.pusher.troubles(), [], "{fault:?}");
    }
}

#[tokio::test]
async fn a_rejected_token_is_a_line_and_no_trouble() {
    let (log, _guard) = Log::start();
    let stage = Stage::of(Provider::Apns).await;
    (stage.fail)(Some(Fault::answer(400, "BadDeviceToken")));
    for _ in 0..MANY {
        assert!(matches!(stage.push().await, PushOutcome::TokenRejected(_)));
    }
    assert_eq!((log.count("the push provider refuses us"), stage.pusher.troubles()), (1, vec![]));
}

#[tokio::test]
async fn failures_are_told_again_after_a_while_and_are_no_trouble_after_an_hour() {
    let (log, _guard) = Log::start();
    let stage = Stage::of(Provider::Sandbox).await;
    (stage.fail)(Some(Fault::answer(503, "down")));
    for _ in 0..MANY {
        stage.push().await;
    }
    stage.clocks.advance(601);
    stage.push().await;
    assert_eq!((log.count("times=1"), log.count(&format!("times={MANY}"))), (1, 1));
    stage.clocks.advance(3600);
    assert_eq!(stage.pusher.troubles(), []);
}

#[tokio::test]
async fn an_access_token_that_ran_out_is_no_trouble() {
    let (log, _guard) = Log::start();
    let google = Google::start().await;
    assert_eq!(google.push(WakeKind::Call).await, PushOutcome::Accepted);
    google.stand_in.revoke_grants();
    assert!(matches!(google.push(WakeKind::Call).await, PushOutcome::Unauthenticated(_)));
    assert_eq!(google.push(WakeKind::Call).await, PushOutcome::Accepted);
    assert_eq!((log.count("WARN"), google.pusher.troubles()), (0, vec![]));
}
