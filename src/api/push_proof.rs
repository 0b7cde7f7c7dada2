//! Proof of a push token: the app returns the challenge that was pushed, or asks for another one.

use axum::body::HttpBody;
use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::handlers::{Answered, IdInPath, Shared};
use super::openapi::{BodyProblems, InstanceProblems, TestProblems};
use super::{Ask, body, views};
use crate::engine::input::Command;
use crate::engine::output::Answer;
use crate::engine::proof::ProofState;

/// What the app knows of the challenge.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PushProof)]
pub(crate) struct PushProofBody {
    /// The `challenge` of the push. Left out: another one is asked for.
    #[schema(example = "gaytemzugu3dooboyc2wi3lfna", max_length = 26, nullable = false)]
    challenge: Option<String>,
}

/// How the proof stands.
#[derive(Serialize, ToSchema)]
#[schema(as = PushProofState)]
pub(crate) struct PushProofAnswer {
    #[schema(schema_with = super::openapi::words::proof_states)]
    push_proof: &'static str,
}

/// Prove the push token
///
/// Where the service asks for it (`push_proof` is `pending`), a push of kind `proof` brings a challenge, and until it is
/// returned here nothing else is pushed. A challenge is good for five minutes and five tries. With an empty body (or `{}`)
/// another one is asked for, half a minute after the last at the earliest; so a `contested` token is claimed again.
#[utoipa::path(
    post, path = "/v1/instances/{id}/push-proof", tag = "instances", operation_id = "prove_push_token",
    params(("id" = String, Path, description = "The instance")),
    request_body(content = PushProofBody, content_type = "application/json"),
    security(("instance_token" = [])),
    responses(
        (status = 200, description = "How it stands", body = PushProofAnswer),
        (status = 202, description = "Another challenge is on its way", body = PushProofAnswer),
        TestProblems, InstanceProblems, BodyProblems,
    )
)]
pub(crate) async fn push_proof<A: Ask>(State(api): Shared<A>, id: IdInPath, request: Request) -> Answered {
    let (id, token, shard) = api.instance(id, request.headers())?;
    // Proves the token before the body is read.
    if let Answer::Refused(refusal) = api.command(shard, Command::Show(id, token)).await? {
        return Err(refusal.into());
    }
    let said = if request.body().is_end_stream() {
        PushProofBody::default()
    } else {
        body::parse::<PushProofBody>(&api.body(request).await?)?
    };
    views::answered(api.command(shard, Command::Prove(id, token, said.challenge)).await?)
}

/// The response to either.
pub(crate) fn answered(state: ProofState) -> Response {
    let status = if state == ProofState::Pending { StatusCode::ACCEPTED } else { StatusCode::OK };
    views::json(status, &PushProofAnswer { push_proof: state.as_str() })
}
