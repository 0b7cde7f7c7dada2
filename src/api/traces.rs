//! Traces: what a device may have written down about its own instance, and who may read that.

use std::time::Duration;

use axum::extract::{Extension, Request, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use zeroize::Zeroizing;

use super::handlers::{Answered, IdInPath, Shared};
use super::openapi::{
    BodyProblems, InstanceProblems, RecordedProblems, TenantProblems, TraceProblems, UnknownProblems,
};
use super::problem::Problem;
use super::sources::Source;
use super::{Ask, body, views};
use crate::engine::input::Command;
use crate::engine::limits::TRACE_CEILING;
use crate::engine::output::{Answer, Consent, ConsentView, TraceView};

/// What may be consented to.
pub(crate) const SCOPES: [&str; 3] = ["sip", "decisions", "identities"];

/// Consent to a trace
///
/// An earlier one ends with what was written under it. It ends by itself after `seconds`, with the instance, and at once when
/// it is withdrawn.
#[utoipa::path(
    post, path = "/v1/instances/{id}/trace", tag = "rights", operation_id = "consent_to_trace",
    params(("id" = String, Path, description = "The instance")),
    request_body(content = TraceRequest, content_type = "application/json"),
    security(("instance_token" = [])),
    responses(
        (status = 201, description = "It is traced", body = ConsentBody),
        RecordedProblems, InstanceProblems, BodyProblems,
    )
)]
pub(crate) async fn consent<A: Ask>(State(api): Shared<A>, id: IdInPath, request: Request) -> Answered {
    let (id, token, shard) = api.instance(id, request.headers())?;
    // Proves the token before the body is read.
    if let Answer::Refused(refusal) = api.command(shard, Command::Show(id, token)).await? {
        return Err(refusal.into());
    }
    let bytes = api.body(request).await?;
    let consent = body::parse::<TraceRequest>(&bytes)?.check()?;
    views::answered(api.command(shard, Command::Consent(id, token, consent)).await?)
}

/// Read a trace
///
/// Each reading is an event of the audit log. Without a consent there is nothing to read: 404.
#[utoipa::path(
    get, path = "/v1/instances/{id}/trace", tag = "rights", operation_id = "read_trace",
    params(("id" = String, Path, description = "The instance")),
    security(("instance_token" = [])),
    responses(
        (status = 200, description = "What was written, the oldest first", body = TraceBody),
        RecordedProblems, TraceProblems,
    )
)]
pub(crate) async fn read<A: Ask>(State(api): Shared<A>, id: IdInPath, headers: HeaderMap) -> Answered {
    api.about_instance(id, &headers, Command::ReadTrace).await
}

/// Withdraw the consent to a trace
///
/// What was written is gone at once. Asked again it answers 200 as well.
#[utoipa::path(
    delete, path = "/v1/instances/{id}/trace", tag = "rights", operation_id = "withdraw_trace",
    params(("id" = String, Path, description = "The instance")),
    security(("instance_token" = [])),
    responses(
        (status = 200, description = "There is no trace", body = WithdrawnBody),
        InstanceProblems,
    )
)]
pub(crate) async fn withdraw<A: Ask>(State(api): Shared<A>, id: IdInPath, headers: HeaderMap) -> Answered {
    api.about_instance(id, &headers, Command::WithdrawTrace).await
}

/// Read a trace as the tenant
///
/// Only where the device's consent says so; without, the instance is as unknown as another tenant's. Each reading is an event
/// of the audit log.
#[utoipa::path(
    get, path = "/v1/tenants/self/instances/{id}/trace", tag = "tenants", operation_id = "read_trace_as_tenant",
    params(("id" = String, Path, description = "The instance")),
    security(("backend_jwt" = ["admin"])),
    responses(
        (status = 200, description = "What was written, the oldest first", body = TraceBody),
        TenantProblems, UnknownProblems,
    )
)]
pub(crate) async fn read_as_tenant<A: Ask>(
    State(api): Shared<A>,
    Extension(source): Extension<Source>,
    id: IdInPath,
    headers: HeaderMap,
) -> Answered {
    let tenant = api.administrator(source, &headers)?;
    let (id, shard) = api.instance_of_tenant(id)?;
    views::answered(api.command(shard, Command::ReadTraceAsTenant(tenant, id)).await?)
}

/// What a device consents to have written down.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = TraceConsent)]
pub(crate) struct TraceRequest {
    #[schema(schema_with = super::openapi::words::trace_scopes)]
    scope: Vec<String>,
    /// For how long, at most a day.
    #[schema(minimum = 1, maximum = 86400, example = 3600)]
    seconds: u64,
    /// Whether the tenant's administrator may read it too.
    #[serde(default)]
    tenant_may_read: bool,
}

impl TraceRequest {
    fn check(self) -> Result<Consent, Problem> {
        let Self { scope, seconds, tenant_may_read } = self;
        let (mut sip, mut decisions, mut identities) = (false, false, false);
        for (place, name) in scope.iter().enumerate() {
            match name.as_str() {
                "sip" => sip = true,
                "decisions" => decisions = true,
                "identities" => identities = true,
                _ => {
                    let wrong = "must be \"sip\", \"decisions\" or \"identities\"";
                    return Err(Problem::request(format!("scope[{place}]"), wrong));
                }
            }
        }
        if !sip && !decisions {
            return Err(Problem::request("scope", "must hold \"sip\" or \"decisions\", or both"));
        }
        let span = Duration::from_secs(seconds);
        if span.is_zero() || span > TRACE_CEILING {
            let wrong = format!("must lie between 1 and {}", TRACE_CEILING.as_secs());
            return Err(Problem::request("seconds", wrong));
        }
        Ok(Consent { sip, decisions, identities, span, tenant_may_read })
    }
}

/// A consent in force.
#[derive(Serialize, ToSchema)]
#[schema(as = Consent)]
pub(crate) struct ConsentBody {
    #[schema(schema_with = super::openapi::words::trace_scopes_in_force)]
    scope: Vec<&'static str>,
    /// Since when, RFC 3339 in UTC.
    #[schema(format = DateTime)]
    since: String,
    /// When it ends by itself.
    #[schema(format = DateTime)]
    until: String,
    /// Whether the tenant's administrator may read it too.
    tenant_may_read: bool,
}

/// A trace.
#[derive(Serialize, ToSchema)]
#[schema(as = Trace)]
pub(crate) struct TraceBody {
    consent: ConsentBody,
    /// What was written, the oldest first.
    entries: Vec<EntryBody>,
    /// Older entries that gave way to newer ones.
    omitted: u64,
}

/// One entry of a trace.
#[derive(Serialize, ToSchema)]
#[schema(as = TraceEntry)]
pub(crate) struct EntryBody {
    /// When, RFC 3339 in UTC, to the second.
    #[schema(format = DateTime)]
    at: String,
    /// What it is.
    #[schema(schema_with = super::openapi::words::trace_kinds)]
    kind: &'static str,
    /// A redacted message, or a decision in words.
    #[schema(value_type = String)]
    #[serde(serialize_with = "as_text")]
    text: Zeroizing<String>,
}

fn as_text<S: serde::Serializer>(text: &Zeroizing<String>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(text)
}

/// Whether there was a trace.
#[derive(Serialize, ToSchema)]
#[schema(as = Withdrawn)]
pub(crate) struct WithdrawnBody {
    /// Whether there was one until now.
    withdrawn: bool,
}

impl From<ConsentView> for ConsentBody {
    fn from(view: ConsentView) -> Self {
        let ConsentView { consent: Consent { sip, decisions, identities, span: _, tenant_may_read }, since, until } =
            view;
        let named = [(sip, "sip"), (decisions, "decisions"), (identities, "identities")];
        let scope = named.into_iter().filter_map(|(given, name)| given.then_some(name)).collect();
        Self { scope, since: since.rfc3339(), until: until.rfc3339(), tenant_may_read }
    }
}

impl From<TraceView> for TraceBody {
    fn from(view: TraceView) -> Self {
        let TraceView { consent, entries, omitted } = view;
        let entry = |entry: crate::engine::output::TraceEntry| EntryBody {
            at: entry.at.rfc3339(),
            kind: entry.kind.as_str(),
            text: entry.text,
        };
        Self { consent: consent.into(), entries: entries.into_iter().map(entry).collect(), omitted }
    }
}

/// The response to a consent.
pub(crate) fn consented(view: ConsentView) -> Response {
    views::json(StatusCode::CREATED, &ConsentBody::from(view))
}

/// The response to a withdrawal.
pub(crate) fn withdrawn(withdrawn: bool) -> Response {
    views::json(StatusCode::OK, &WithdrawnBody { withdrawn })
}
