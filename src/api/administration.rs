//! The calls of a tenant's administrator. Each reads its request, sends the command to every shard it concerns, waits for the
//! answers and puts them together. No decisions.

use std::sync::Arc;

use axum::extract::{Extension, Path, RawQuery, State};
use axum::response::Response;
use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Serialize;
use tokio::sync::oneshot;
use utoipa::ToSchema;

use super::hand_over::device_urn;
use super::handlers::{Answered, IdInPath, Shared};
use super::openapi::{TenantProblems, UnknownProblems};
use super::problem::Problem;
use super::sources::Source;
use super::{Api, Ask, views};
use crate::audit_log::Summary;
use crate::engine::account::TenantId;
use crate::engine::ids::{InstanceId, ShardId};
use crate::engine::input::{Command, Whom};
use crate::engine::output::{Answer, OrderView};

/// When to look again at an order that is not done.
const LOOK_AGAIN_SECONDS: u16 = 1;

/// Erase all instances of the tenant, or of one of its devices
///
/// Repeat it until it answers 200: what it did is remembered for a day, and asked again it answers the same. Instances that
/// were handed over meanwhile are erased by the repetition too, and counted with the others.
#[utoipa::path(
    delete, path = "/v1/tenants/self/instances", tag = "tenants", operation_id = "erase_tenant_instances",
    params(("device" = Option<String>, Query, description = "Only this device's: `urn:uuid:…`")),
    security(("backend_jwt" = ["admin"])),
    responses(
        (status = 200, description = "All are erased", body = ErasedAllBody),
        (status = 202, description = "Some are still being erased", body = ErasedAllBody,
            headers(("Retry-After" = u32, description = "Seconds to wait"))),
        TenantProblems,
    )
)]
pub(crate) async fn erase_all<A: Ask>(
    State(api): Shared<A>,
    Extension(source): Extension<Source>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Answered {
    let tenant = api.administrator(source, &headers)?;
    let device = query.as_deref().filter(|query| !query.is_empty()).map(only_device).transpose()?;
    let whom = device.map_or(Whom::Tenant, Whom::Device);
    let shards = (0..api.placement.shards()).map(ShardId).collect();
    order(&api, shards, tenant, whom).await
}

/// Erase one instance of the tenant
///
/// Another tenant's instance is as unknown as none.
#[utoipa::path(
    delete, path = "/v1/tenants/self/instances/{id}", tag = "tenants", operation_id = "erase_tenant_instance",
    params(("id" = String, Path, description = "The instance")),
    security(("backend_jwt" = ["admin"])),
    responses(
        (status = 200, description = "It is erased", body = ErasedAllBody),
        (status = 202, description = "It is still being erased", body = ErasedAllBody,
            headers(("Retry-After" = u32, description = "Seconds to wait"))),
        TenantProblems, UnknownProblems,
    )
)]
pub(crate) async fn erase_one<A: Ask>(
    State(api): Shared<A>,
    Extension(source): Extension<Source>,
    id: IdInPath,
    headers: HeaderMap,
) -> Answered {
    let tenant = api.administrator(source, &headers)?;
    let (id, shard) = api.instance_of_tenant(id)?;
    order(&api, vec![shard], tenant, Whom::Instance(id)).await
}

/// What became of an order to erase.
#[derive(Serialize, ToSchema)]
#[schema(as = ErasedAll)]
pub(crate) struct ErasedAllBody {
    /// Instances whose credentials are wiped.
    erased: u32,
    /// Instances that are still being erased; with 200: none.
    left: u32,
    /// With 200: signed proof of what was done.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    summary: Option<SummaryBody>,
}

/// Signed proof of what an order erased; `reveille audit verify` checks it offline.
#[derive(Serialize, ToSchema)]
#[schema(as = Summary)]
pub(crate) struct SummaryBody {
    /// Version of this form.
    v: u8,
    tenant: String,
    /// `all`, the device, or the instance.
    whom: String,
    #[schema(schema_with = super::openapi::words::order_causes)]
    cause: String,
    /// The version of the operator's policy, as in records.
    policy: String,
    /// When the order was given, RFC 3339 in UTC.
    #[schema(format = DateTime)]
    begun: String,
    /// When its last instance was wiped and recorded, RFC 3339 in UTC.
    #[schema(format = DateTime)]
    ended: String,
    /// Instances whose credentials were wiped.
    erased: u32,
    /// The same by what their registrars said to the un-REGISTER, as in records; what never happened is left out.
    unregister: std::collections::BTreeMap<String, u32>,
    /// Of those: whose record was on disk in time.
    logged: u32,
    /// Registrations that passed through the service and were ended; no credentials are held for them.
    passed_through: u32,
    /// The log's public key (Ed25519), base64.
    key: String,
    /// Ed25519 signature, base64.
    signature: String,
}

impl From<Summary> for SummaryBody {
    fn from(summary: Summary) -> Self {
        let Summary {
            v,
            tenant,
            whom,
            cause,
            policy,
            begun,
            ended,
            erased,
            unregister,
            logged,
            passed_through,
            key,
            signature,
        } = summary;
        Self {
            v,
            tenant,
            whom,
            cause,
            policy,
            begun,
            ended,
            erased,
            unregister,
            logged,
            passed_through,
            key,
            signature,
        }
    }
}

/// Gives an order to shards, all at once, and answers how far they are together.
async fn order<A: Ask>(api: &Arc<Api<A>>, shards: Vec<ShardId>, tenant: TenantId, whom: Whom) -> Answered {
    let mut answers = Vec::with_capacity(shards.len());
    for shard in shards {
        let (tell, told) = oneshot::channel();
        let (api_of_task, command) =
            (Arc::clone(api), Command::EraseAll { tenant: tenant.clone(), whom: whom.clone() });
        // In a task of its own, so that a client who leaves has given the whole order.
        api.tasks.run(async move {
            let _ = tell.send(api_of_task.command(shard, command).await);
        });
        answers.push(told);
    }
    let mut whole: Option<OrderView> = None;
    for told in answers {
        let answer =
            told.await.unwrap_or_else(|_| Err(Problem::busy("the task of an order ended without an answer")))?;
        let view = match answer {
            Answer::Ordered(view) => *view,
            Answer::Refused(refusal) => return Err(refusal.into()),
            _ => return Err(api.out_of_kind("ordered")),
        };
        whole = Some(match whole.take() {
            Some(others) => others.and(view),
            None => view,
        });
    }
    let view = whole.ok_or_else(|| Problem::busy("there is no shard"))?;
    Ok(ordered(&view, api.notary.summarize(&tenant, &whom, &view)))
}

fn ordered(view: &OrderView, summary: Option<Summary>) -> Response {
    let status = if summary.is_some() { StatusCode::OK } else { StatusCode::ACCEPTED };
    let body = ErasedAllBody { erased: view.erased(), left: view.left, summary: summary.map(Into::into) };
    let mut response = views::json(status, &body);
    if status == StatusCode::ACCEPTED {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(LOOK_AGAIN_SECONDS));
    }
    response
}

impl<A: Ask> Api<A> {
    /// The instance an administrator's path names, and its shard.
    pub(super) fn instance_of_tenant(&self, id: IdInPath) -> Result<(InstanceId, ShardId), Problem> {
        let id = id.ok().and_then(|Path(text)| InstanceId::parse(text.as_bytes()));
        // As in `instance`: an id of a shard that is not here is asked for all the same.
        let located = id.map(|id| (id, self.placement.instance(&id).unwrap_or(ShardId(0))));
        located.ok_or_else(Problem::unknown_instance)
    }
}

/// The one query parameter there is.
fn only_device(query: &str) -> Result<String, Problem> {
    let refuse = || Problem::request("device", "the query may only hold device=urn:uuid:…");
    let value = query.strip_prefix("device=").ok_or_else(refuse)?;
    device_urn(&value.replace("%3A", ":").replace("%3a", ":")).ok_or_else(refuse)
}
