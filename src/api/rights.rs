//! The calls by which a person holds on to what is theirs: restriction and its end. Each sends one command and maps the
//! answer. Access is `data`, rectification `PATCH`, erasure `DELETE`, and those are with the other calls.

use axum::extract::State;
use http::HeaderMap;

use super::Ask;
use super::handlers::{Answered, IdInPath, Shared};
use super::openapi::{InstanceProblems, RecordedProblems};
use super::views::InstanceBody;
use crate::engine::input::Command;

/// Restrict the processing of an instance
///
/// The registration is removed, the credentials stay sealed, and nothing is done with the instance any more: no call, no text
/// and no push. What is kept for it stays; its lease goes on and ends as ever. Asked again it answers the same.
#[utoipa::path(
    post, path = "/v1/instances/{id}/restrict", tag = "rights", operation_id = "restrict_instance",
    params(("id" = String, Path, description = "The instance")),
    security(("instance_token" = [])),
    responses(
        (status = 200, description = "The instance, held and nothing else", body = InstanceBody),
        InstanceProblems,
    )
)]
pub(crate) async fn restrict<A: Ask>(State(api): Shared<A>, id: IdInPath, headers: HeaderMap) -> Answered {
    api.about_instance(id, &headers, Command::Restrict).await
}

/// End the restriction of an instance
///
/// It is registered again with the credentials that were held. Asked again it answers the same.
#[utoipa::path(
    delete, path = "/v1/instances/{id}/restrict", tag = "rights", operation_id = "end_restriction",
    params(("id" = String, Path, description = "The instance")),
    security(("instance_token" = [])),
    responses(
        (status = 200, description = "The instance, on its way to be registered", body = InstanceBody),
        RecordedProblems, InstanceProblems,
    )
)]
pub(crate) async fn resume<A: Ask>(State(api): Shared<A>, id: IdInPath, headers: HeaderMap) -> Answered {
    api.about_instance(id, &headers, Command::Resume).await
}
