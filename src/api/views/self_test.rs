//! How a self-test is told.

use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

use crate::clock::WallTime;
use crate::engine::output::TestView;

/// A self-test that has begun.
#[derive(Serialize, ToSchema)]
#[schema(as = SelfTestBegun)]
pub(crate) struct TestBegunBody {
    /// The self-test's id, as in the push.
    #[schema(format = "uuid")]
    test: String,
    /// When it was asked for, RFC 3339 in UTC.
    #[schema(format = DateTime)]
    requested_at: String,
}

/// A self-test.
#[derive(Serialize, ToSchema)]
#[schema(as = SelfTest)]
pub(crate) struct TestBody {
    /// The self-test's id, as in the push.
    #[schema(format = "uuid")]
    test: String,
    /// When it was asked for, RFC 3339 in UTC.
    #[schema(format = DateTime)]
    requested_at: String,
    /// When the provider took the push.
    #[schema(format = DateTime)]
    accepted_at: Option<String>,
    /// When the app first told of the push's arrival.
    #[schema(format = DateTime)]
    arrived_at: Option<String>,
    /// Milliseconds from the request until the provider took the push.
    accepted_ms: Option<u64>,
    /// Milliseconds from the request until the app told of the push's arrival.
    arrived_ms: Option<u64>,
    #[schema(schema_with = crate::api::openapi::words::push_faults)]
    failure: Option<&'static str>,
}

impl From<TestView> for TestBegunBody {
    fn from(view: TestView) -> Self {
        Self { test: view.test.to_string(), requested_at: view.requested_at.rfc3339() }
    }
}

impl From<TestView> for TestBody {
    fn from(view: TestView) -> Self {
        let TestView { test, requested_at, accepted, arrived, failure } = view;
        let at = |moment: Option<(WallTime, Duration)>| moment.map(|(at, _)| at.rfc3339());
        let after = |moment: Option<(WallTime, Duration)>| {
            moment.map(|(_, after)| u64::try_from(after.as_millis()).unwrap_or(u64::MAX))
        };
        Self {
            test: test.to_string(),
            requested_at: requested_at.rfc3339(),
            accepted_at: at(accepted),
            arrived_at: at(arrived),
            accepted_ms: after(accepted),
            arrived_ms: after(arrived),
            failure,
        }
    }
}
