//! All metrics as handles that are made once: counting is an atomic addition, and every series is there from the start.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use super::metric::{Metric, MetricKind};
use crate::engine::audit::Cause;
use crate::engine::ids::ShardId;
use crate::engine::output::{CallOutcome, PushOutcome, RegistrationReason, RegistrationState, Unsent, WakeKind};
use crate::engine::policy::Provider;
use crate::engine::tally::{Census, RegisterOutcome, Shed, Stage, Tally, TextOutcome};
use crate::vault::Protection;

const PROVIDERS: [Provider; 3] = [Provider::Apns, Provider::Fcm, Provider::Sandbox];

/// The outcome of a push, as a label.
#[derive(Clone, Copy)]
enum PushVerdict {
    Accepted,
    TokenDead,
    TokenRejected,
    OurFault,
    Unauthenticated,
    Theirs,
    Unavailable,
    Later,
    NotSent,
}

/// The metrics of one daemon. Nothing global: two daemons in one process keep two.
pub struct Meters {
    page: PrometheusHandle,
    instances: [Gauge; RegistrationState::ALL.len()],
    reasons: [Gauge; RegistrationReason::ALL.len()],
    flows: Gauge,
    held_calls: Gauge,
    texts: Gauge,
    audit_backlog: Gauge,
    /// By `Protection::ALL`.
    secret_memory: [Gauge; Protection::ALL.len()],
    registers: [Counter; RegisterOutcome::ALL.len()],
    calls: [Counter; CallOutcome::ALL.len()],
    erasures: [Counter; Cause::ALL.len()],
    text_outcomes: [Counter; TextOutcome::ALL.len()],
    shed: [Counter; Shed::ALL.len()],
    stages: [Histogram; Stage::ALL.len()],
    erasure_seconds: Histogram,
    pushes: [[[Counter; PushVerdict::ALL.len()]; WakeKind::ALL.len()]; PROVIDERS.len()],
    wakes_unsent: [Counter; Unsent::ALL.len()],
    push_seconds: [Histogram; PROVIDERS.len()],
    lag: Histogram,
    censuses: Mutex<BTreeMap<ShardId, Census>>,
    incidents: Mutex<Vec<Incident>>,
}

/// A reason of `shed_total` that someone else counts.
struct Incident {
    counter: Counter,
    published: u64,
}

impl PushVerdict {
    const ALL: [Self; 9] = [
        Self::Accepted,
        Self::TokenDead,
        Self::TokenRejected,
        Self::OurFault,
        Self::Unauthenticated,
        Self::Theirs,
        Self::Unavailable,
        Self::Later,
        Self::NotSent,
    ];

    fn of(outcome: &PushOutcome) -> Self {
        match outcome {
            PushOutcome::Accepted => Self::Accepted,
            PushOutcome::TokenDead { .. } => Self::TokenDead,
            PushOutcome::TokenRejected(_) => Self::TokenRejected,
            PushOutcome::OurFault(_) => Self::OurFault,
            PushOutcome::Unauthenticated(_) => Self::Unauthenticated,
            PushOutcome::Theirs(_) => Self::Theirs,
            PushOutcome::Unavailable { .. } => Self::Unavailable,
            PushOutcome::Later { .. } => Self::Later,
            PushOutcome::NotSent => Self::NotSent,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::TokenDead => "token-dead",
            Self::TokenRejected => "token-rejected",
            Self::OurFault => "our-fault",
            Self::Unauthenticated => "unauthenticated",
            Self::Theirs => "theirs",
            Self::Unavailable => "unavailable",
            Self::Later => "later",
            Self::NotSent => "not-sent",
        }
    }
}

impl Meters {
    /// All series at zero. `incidents` are the reasons of `shed_total` that the network side counts by itself.
    #[must_use]
    pub fn new(incidents: &[&'static str]) -> Self {
        let mut builder = PrometheusBuilder::new();
        for metric in Metric::ALL {
            if let MetricKind::Histogram(buckets) = metric.kind() {
                let name = Matcher::Full(metric.name().to_owned());
                builder = builder.set_buckets_for_metric(name, buckets).expect("every histogram has buckets");
            }
        }
        let recorder = builder.build_recorder();
        describe(&recorder);
        let counter = |metric, label, value| counter(&recorder, metric, &[(label, value)]);
        let incident =
            |reason: &&'static str| Incident { counter: counter(Metric::Shed, "reason", reason), published: 0 };
        Self {
            page: recorder.handle(),
            instances: RegistrationState::ALL
                .map(|state| gauge(&recorder, Metric::Instances, &[("state", state.as_str())])),
            reasons: RegistrationReason::ALL
                .map(|reason| gauge(&recorder, Metric::RegistrationReasons, &[("reason", reason.as_str())])),
            flows: gauge(&recorder, Metric::Flows, &[]),
            held_calls: gauge(&recorder, Metric::HeldCalls, &[]),
            texts: gauge(&recorder, Metric::Texts, &[]),
            audit_backlog: gauge(&recorder, Metric::AuditBacklog, &[]),
            secret_memory: Protection::ALL
                .map(|kind| gauge(&recorder, Metric::SecretMemory, &[("kind", kind.as_str())])),
            registers: RegisterOutcome::ALL.map(|outcome| counter(Metric::Registers, "outcome", outcome.as_str())),
            calls: CallOutcome::ALL.map(|outcome| counter(Metric::Calls, "outcome", outcome.as_str())),
            erasures: Cause::ALL.map(|cause| counter(Metric::Erasures, "cause", cause.as_str())),
            text_outcomes: TextOutcome::ALL.map(|outcome| counter(Metric::TextsTotal, "outcome", outcome.as_str())),
            shed: Shed::ALL.map(|reason| counter(Metric::Shed, "reason", reason.as_str())),
            stages: Stage::ALL
                .map(|stage| histogram(&recorder, Metric::CallStageSeconds, &[("stage", stage.as_str())])),
            erasure_seconds: histogram(&recorder, Metric::ErasureSeconds, &[]),
            pushes: PROVIDERS.map(|provider| push_counters(&recorder, provider)),
            wakes_unsent: Unsent::ALL.map(|why| counter(Metric::WakesUnsent, "reason", why.as_str())),
            push_seconds: PROVIDERS
                .map(|provider| histogram(&recorder, Metric::PushSeconds, &[("provider", provider.as_str())])),
            lag: histogram(&recorder, Metric::ShardLagSeconds, &[]),
            censuses: Mutex::default(),
            incidents: Mutex::new(incidents.iter().map(incident).collect()),
        }
    }

    /// Adds what an engine counted since it was last asked.
    pub fn publish_tally(&self, tally: &Tally) {
        add(&self.registers, &tally.registers);
        add(&self.calls, &tally.calls);
        add(&self.erasures, &tally.erasures);
        add(&self.text_outcomes, &tally.texts);
        add(&self.shed, &tally.shed);
        add(&self.wakes_unsent, &tally.unsent);
        for (stage, since_invite) in &tally.stages {
            self.stages[*stage as usize].record(*since_invite);
        }
        for took in &tally.erasure_times {
            self.erasure_seconds.record(*took);
        }
    }

    /// Takes note of what a shard holds right now.
    pub fn publish_census(&self, shard: ShardId, census: &Census) {
        let mut censuses = self.censuses.lock().unwrap_or_else(PoisonError::into_inner);
        censuses.insert(shard, *census);
        let sum = |part: &dyn Fn(&Census) -> u64| as_gauge(censuses.values().map(part).sum());
        for (place, gauge) in self.instances.iter().enumerate() {
            gauge.set(sum(&|census| census.instances[place]));
        }
        for (place, gauge) in self.reasons.iter().enumerate() {
            gauge.set(sum(&|census| census.reasons[place]));
        }
        self.flows.set(sum(&|census| census.flows));
        self.held_calls.set(sum(&|census| census.held_calls));
        self.texts.set(sum(&|census| census.texts));
    }

    /// Notes how late a shard was.
    pub fn publish_lag(&self, lag: Duration) {
        self.lag.record(lag);
    }

    /// Counts a push and its time.
    pub fn publish_push(&self, provider: Provider, kind: WakeKind, outcome: &PushOutcome, took: Duration) {
        self.pushes[provider as usize][kind as usize][PushVerdict::of(outcome) as usize].increment(1);
        self.push_seconds[provider as usize].record(took);
    }

    /// Takes note of how many records wait to be on disk.
    pub fn publish_audit_backlog(&self, records: usize) {
        self.audit_backlog.set(as_gauge(records as u64));
    }

    /// Takes note of what keeps the vault's key.
    pub fn publish_secret_memory(&self, protection: Protection) {
        for (kind, gauge) in Protection::ALL.iter().zip(&self.secret_memory) {
            gauge.set(as_gauge(u64::from(*kind == protection)));
        }
    }

    /// Takes over totals that someone else counts, in the order of the reasons given to [`Meters::new`]. A reason that
    /// engines count too is added up.
    pub fn publish_incidents(&self, totals: impl IntoIterator<Item = u64>) {
        let mut incidents = self.incidents.lock().unwrap_or_else(PoisonError::into_inner);
        for (incident, total) in incidents.iter_mut().zip(totals) {
            incident.counter.increment(total.saturating_sub(incident.published));
            incident.published = incident.published.max(total);
        }
    }

    /// All metrics in Prometheus' text form.
    #[must_use]
    pub fn render(&self) -> String {
        self.page.render()
    }

    /// Sorts what histograms have taken in into their buckets. Without it they grow until someone scrapes.
    pub fn keep_up(&self) {
        self.page.run_upkeep();
    }
}

fn push_counters(
    recorder: &PrometheusRecorder,
    provider: Provider,
) -> [[Counter; PushVerdict::ALL.len()]; WakeKind::ALL.len()] {
    WakeKind::ALL.map(|kind| {
        PushVerdict::ALL.map(|verdict| {
            let labels = [("provider", provider.as_str()), ("kind", kind.as_str()), ("outcome", verdict.as_str())];
            counter(recorder, Metric::Pushes, &labels)
        })
    })
}

fn describe(recorder: &PrometheusRecorder) {
    for metric in Metric::ALL {
        let (name, help) = (KeyName::from(metric.name()), metric.help().into());
        match metric.kind() {
            MetricKind::Counter => recorder.describe_counter(name, None, help),
            MetricKind::Gauge => recorder.describe_gauge(name, None, help),
            MetricKind::Histogram(_) => recorder.describe_histogram(name, None, help),
        }
    }
}

const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

fn key(metric: Metric, labels: &[(&'static str, &'static str)]) -> Key {
    let labels: Vec<Label> = labels.iter().map(|&(name, value)| Label::from_static_parts(name, value)).collect();
    Key::from_parts(metric.name(), labels)
}

fn counter(recorder: &PrometheusRecorder, metric: Metric, labels: &[(&'static str, &'static str)]) -> Counter {
    recorder.register_counter(&key(metric, labels), &METADATA)
}

fn gauge(recorder: &PrometheusRecorder, metric: Metric, labels: &[(&'static str, &'static str)]) -> Gauge {
    recorder.register_gauge(&key(metric, labels), &METADATA)
}

fn histogram(recorder: &PrometheusRecorder, metric: Metric, labels: &[(&'static str, &'static str)]) -> Histogram {
    recorder.register_histogram(&key(metric, labels), &METADATA)
}

fn add(counters: &[Counter], counts: &[u64]) {
    for (counter, &count) in counters.iter().zip(counts) {
        if count > 0 {
            counter.increment(count);
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "gauges are floating-point; no table holds 2^53 things")]
fn as_gauge(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_there_with_its_help_from_the_start() {
        let page = meters().render();
        for metric in Metric::ALL {
            assert!(page.contains(&format!("# HELP {} {}\n", metric.name(), metric.help())), "{metric:?}");
            let zero = page.lines().any(|line| line.starts_with(metric.name()) && line.ends_with(" 0"));
            assert!(zero, "{metric:?} has no series at zero");
        }
        assert!(
            page.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).all(|line| line.ends_with(" 0"))
        );
    }

    #[test]
    fn the_number_of_series_never_changes() {
        let meters = meters();
        let before = series(&meters);
        let mut tally = Tally::default();
        for outcome in RegisterOutcome::ALL {
            tally.register(outcome);
        }
        for outcome in CallOutcome::ALL {
            tally.call(outcome);
        }
        for cause in Cause::ALL {
            tally.erasure(cause, Duration::from_millis(7));
        }
        for outcome in TextOutcome::ALL {
            tally.text(outcome);
        }
        for reason in Shed::ALL {
            tally.shed(reason);
        }
        for why in Unsent::ALL {
            tally.unsent(why);
        }
        for stage in Stage::ALL {
            tally.stage(stage, Duration::from_secs(2));
        }
        meters.publish_tally(&tally);
        for shard in 0..64 {
            meters.publish_census(
                ShardId(shard),
                &Census {
                    instances: [1; 6],
                    reasons: [1; RegistrationReason::ALL.len()],
                    flows: 1,
                    held_calls: 1,
                    texts: 1,
                },
            );
        }
        for provider in PROVIDERS {
            for kind in WakeKind::ALL {
                for outcome in outcomes() {
                    meters.publish_push(provider, kind, &outcome, Duration::from_millis(80));
                }
            }
        }
        meters.publish_incidents([5, 5, 5]);
        meters.publish_lag(Duration::from_micros(3));
        meters.publish_audit_backlog(9);
        meters.publish_secret_memory(Protection::Plain);
        meters.keep_up();
        assert_eq!(series(&meters), before);
        assert!(before.len() > 200, "{} series", before.len());
    }

    #[test]
    fn what_is_published_is_what_is_shown() {
        let meters = meters();
        let mut tally = Tally::default();
        tally.call(CallOutcome::NoPush);
        tally.call(CallOutcome::NoPush);
        tally.erasure(Cause::LeaseEnded, Duration::from_millis(30));
        tally.stage(Stage::Ringing, Duration::from_millis(1_200));
        meters.publish_tally(&tally);
        meters.publish_tally(&tally);
        let outcome = PushOutcome::TokenDead { since: None };
        meters.publish_push(Provider::Fcm, WakeKind::Voicemail, &outcome, Duration::from_millis(80));
        meters.publish_audit_backlog(3);
        meters.publish_secret_memory(Protection::Plain);
        meters.publish_secret_memory(Protection::LockedMemory);
        let page = meters.render();
        for line in [
            "reveille_secret_memory{kind=\"memfd_secret\"} 0",
            "reveille_secret_memory{kind=\"mlock\"} 1",
            "reveille_secret_memory{kind=\"plain\"} 0",
            "reveille_calls_total{outcome=\"no-push\"} 4",
            "reveille_erasures_total{cause=\"lease-ended\"} 2",
            "reveille_erasure_seconds_bucket{le=\"0.025\"} 0",
            "reveille_erasure_seconds_bucket{le=\"0.05\"} 2",
            "reveille_call_stage_seconds_bucket{stage=\"ringing\",le=\"1\"} 0",
            "reveille_call_stage_seconds_bucket{stage=\"ringing\",le=\"1.5\"} 2",
            "reveille_call_stage_seconds_sum{stage=\"ringing\"} 2.4",
            "reveille_pushes_total{provider=\"fcm\",kind=\"voicemail\",outcome=\"token-dead\"} 1",
            "reveille_push_seconds_count{provider=\"fcm\"} 1",
            "reveille_push_seconds_count{provider=\"apns\"} 0",
            "reveille_audit_backlog 3",
        ] {
            assert!(page.lines().any(|shown| shown == line), "{line} is missing in\n{page}");
        }
    }

    #[test]
    fn gauges_are_the_sum_of_all_shards_as_they_are_now() {
        let meters = meters();
        let census = |registered, held_calls| Census {
            instances: [0, registered, 0, 0, 0, 1],
            reasons: [1; RegistrationReason::ALL.len()],
            flows: 2,
            held_calls,
            texts: held_calls,
        };
        meters.publish_census(ShardId(0), &census(10, 3));
        meters.publish_census(ShardId(1), &census(5, 1));
        meters.publish_census(ShardId(0), &census(7, 0));
        let page = meters.render();
        for line in [
            "reveille_instances{state=\"registered\"} 12",
            "reveille_instances{state=\"erasing\"} 2",
            "reveille_registration_reasons{reason=\"disconnected\"} 2",
            "reveille_flows 4",
            "reveille_held_calls 1",
            "reveille_texts 1",
        ] {
            assert!(page.lines().any(|shown| shown == line), "{line} is missing in\n{page}");
        }
    }

    #[test]
    fn totals_of_others_are_taken_over_once_and_added_to_ours() {
        let meters = meters();
        let mut tally = Tally::default();
        tally.shed(Shed::Malformed);
        meters.publish_tally(&tally);
        meters.publish_incidents([4, 1, 0]);
        meters.publish_incidents([6, 1, 0]);
        let page = meters.render();
        for line in [
            "reveille_shed_total{reason=\"malformed\"} 7",
            "reveille_shed_total{reason=\"accept-failed\"} 1",
            "reveille_shed_total{reason=\"queue-full\"} 0",
        ] {
            assert!(page.lines().any(|shown| shown == line), "{line} is missing in\n{page}");
        }
    }

    #[test]
    fn counters_stand_in_the_order_of_their_labels() {
        for (place, provider) in PROVIDERS.into_iter().enumerate() {
            assert_eq!(provider as usize, place);
        }
        for (place, kind) in WakeKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, place);
        }
        for (place, stage) in Stage::ALL.into_iter().enumerate() {
            assert_eq!(stage as usize, place);
        }
        for (place, verdict) in PushVerdict::ALL.into_iter().enumerate() {
            assert_eq!(verdict as usize, place);
        }
    }

    fn meters() -> Meters {
        Meters::new(&["malformed", "accept-failed", "queue-full"])
    }

    fn outcomes() -> [PushOutcome; 9] {
        [
            PushOutcome::Accepted,
            PushOutcome::TokenDead { since: None },
            PushOutcome::TokenRejected("400 BadDeviceToken".to_owned()),
            PushOutcome::OurFault("BadTopic".to_owned()),
            PushOutcome::Unauthenticated("401 UNAUTHENTICATED".to_owned()),
            PushOutcome::Theirs("connection lost".to_owned()),
            PushOutcome::Unavailable { why: "503 UNAVAILABLE".to_owned(), after: None },
            PushOutcome::Later { after: None },
            PushOutcome::NotSent,
        ]
    }

    /// Names and labels of all series, sorted.
    fn series(meters: &Meters) -> Vec<String> {
        let page = meters.render();
        let samples = page.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        let mut names: Vec<String> =
            samples.filter_map(|line| line.rsplit_once(' ').map(|(name, _)| name.to_owned())).collect();
        names.sort();
        names
    }
}
