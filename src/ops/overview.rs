//! What a running daemon says of itself, in a few lines.

use std::fmt;

use serde::Deserialize;

use crate::telemetry::Metric;

/// The state of a daemon.
#[derive(Clone, Debug, PartialEq)]
pub struct Overview {
    ready: bool,
    notes: Vec<String>,
    samples: Vec<Sample>,
}

/// One line of a page of metrics.
#[derive(Clone, Debug, PartialEq)]
struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

/// The answer of `/readyz`.
#[derive(Deserialize)]
pub(super) struct Readyz {
    ready: bool,
    notes: Vec<String>,
}

impl Readyz {
    /// Reads the answer; `None` if it is not ours.
    pub(super) fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

impl Overview {
    /// Reads the answer of `/metrics`; `None` if it is not ours.
    pub(super) fn read(Readyz { ready, notes }: Readyz, metrics: &str) -> Option<Self> {
        let lines = metrics.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let samples: Vec<Sample> = lines.map(sample).collect::<Option<_>>()?;
        samples.iter().any(|sample| sample.name == Metric::Instances.name()).then_some(Self { ready, notes, samples })
    }

    /// Whether the daemon takes work.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// The sum of a metric over all its series.
    #[must_use]
    pub fn total(&self, metric: Metric) -> f64 {
        self.of(metric).map(|sample| sample.value).sum()
    }

    fn of(&self, metric: Metric) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(move |sample| sample.name == metric.name())
    }

    /// A metric's total with its parts by one label, those of zero left out, in the order they first appear.
    fn line(&self, f: &mut fmt::Formatter<'_>, title: &str, metric: Metric, label: &str) -> fmt::Result {
        write!(f, "{title:<15} {}", self.total(metric))?;
        let mut parts: Vec<(&str, f64)> = Vec::new();
        for sample in self.of(metric) {
            let Some((_, value)) = sample.labels.iter().find(|(name, _)| name == label) else { continue };
            match parts.iter_mut().find(|(known, _)| known == value) {
                Some((_, sum)) => *sum += sample.value,
                None => parts.push((value, sample.value)),
            }
        }
        parts.retain(|&(_, sum)| sum > 0.0);
        parts.sort_by(|left, right| left.0.cmp(right.0));
        if !parts.is_empty() {
            let parts: Vec<String> = parts.iter().map(|(value, sum)| format!("{sum} {value}")).collect();
            write!(f, " ({})", parts.join(", "))?;
        }
        writeln!(f)
    }
}

impl fmt::Display for Overview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<15} {}", "ready", if self.ready { "yes" } else { "no" })?;
        if !self.notes.is_empty() {
            write!(f, " ({})", self.notes.join("; "))?;
        }
        writeln!(f)?;
        self.line(f, "instances", Metric::Instances, "state")?;
        self.line(f, "devices here", Metric::Flows, "")?;
        self.line(f, "calls held", Metric::HeldCalls, "")?;
        self.line(f, "calls ended", Metric::Calls, "outcome")?;
        self.line(f, "REGISTERs", Metric::Registers, "outcome")?;
        self.line(f, "pushes", Metric::Pushes, "outcome")?;
        self.line(f, "erasures", Metric::Erasures, "cause")?;
        self.line(f, "shed", Metric::Shed, "reason")?;
        self.line(f, "audit backlog", Metric::AuditBacklog, "")
    }
}

/// Reads `name{label="value",…} number`.
fn sample(line: &str) -> Option<Sample> {
    let (series, value) = line.rsplit_once(' ')?;
    let value = value.parse().ok()?;
    let Some((name, labels)) = series.split_once('{') else {
        return Some(Sample { name: series.to_owned(), labels: Vec::new(), value });
    };
    let pairs = labels.strip_suffix('}')?.split(',').filter(|pair| !pair.is_empty());
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        Some((name.to_owned(), value.trim_matches('"').to_owned()))
    };
    Some(Sample { name: name.to_owned(), labels: pairs.map(pair).collect::<Option<_>>()?, value })
}
