//! The calls of the API: each reads its request, sends the command, waits for the answer and maps it. No decisions.
//!
//! The order within each is a promise: limits of the source, then who asks, then the body. A body is only read for
//! someone who is known: for calls about an instance the engine is asked first whether the token is right.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, Request, State};
use axum::response::Response;
use http::{HeaderMap, Method};
use tokio::sync::oneshot;
use tokio::time::sleep;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::body;
use super::hand_over::{DeclineBody, HandOverBody, RectificationBody};
use super::openapi::{
    BodyProblems, CallProblems, ForegroundProblems, HandOverProblems, InstanceProblems, RecordedProblems,
    RectifyProblems, TestProblems, TestedProblems,
};
use super::preferences::ForegroundBody;
use super::problem::{Kind, Problem};
use super::server::requested;
use super::sources::Source;
use super::tenants::sha256;
use super::views::{
    self, CallBody, DataBody, ErasedBody, ForegroundAnswer, HandedOverBody, InstanceBody, TestBegunBody, TestBody,
};
use super::{Api, Ask, faults, openapi};
use crate::clock;
use crate::config::STEP_WAIT_MAX;
use crate::engine::account::TenantId;
use crate::engine::ids::{CallUuid, InstanceId, ShardId};
use crate::engine::input::{Command, HandOver, TokenHash};
use crate::engine::output::{Answer, DataView, Refusal};
use crate::push::Backoff;

/// How long a command may stay unanswered: an erasure may wait for the farewell and then for its record, each as long as an
/// operator may have it. The engine answers in time; this only keeps a fault of ours from holding a connection for ever.
pub(super) const ANSWER_WAIT_MAX: Duration = STEP_WAIT_MAX.saturating_mul(2).saturating_add(Duration::from_secs(15));
/// How soon an erasure is asked for again that found its shard full, while nobody else could ask for it.
const ERASE_AGAIN: Backoff = Backoff { first: Duration::from_millis(100), most: Duration::from_secs(30) };

pub(super) type Shared<A> = State<Arc<Api<A>>>;
pub(super) type Answered = Result<Response, Problem>;
pub(super) type IdInPath = Result<Path<String>, PathRejection>;
type CallInPath = Result<Path<(String, String)>, PathRejection>;

/// Hand an account over
///
/// The registrar's verdict is waited for; where it takes too long the answer is 202 and `GET` tells it later. The same
/// tenant, device and account again replaces its predecessor (200): same instance, new token; the old one dies with the first use of the new
/// one, after ten minutes, or at once where the credentials were others.
/// Where it changes the place (proxy, user, …), the new one is tried beside the former, which stays until the new one grants.
/// Another device of the tenant that hands over the same account, with the same credentials, shares its registration.
#[utoipa::path(
    post, path = "/v1/instances", tag = "instances", operation_id = "hand_over_account",
    request_body(content = HandOverBody<'_>, content_type = "application/json"),
    security(("app_key" = []), ("backend_jwt" = [])),
    responses(
        (status = 201, description = "Registered, or the registrar's verdict is known", body = HandedOverBody<'_>,
            headers(("Location" = String, description = "Path of the instance"))),
        (status = 200, description = "A predecessor was replaced", body = HandedOverBody<'_>,
            headers(("Location" = String, description = "Path of the instance"))),
        (status = 202, description = "The registrar has not spoken yet", body = HandedOverBody<'_>,
            headers(("Location" = String, description = "Path of the instance"))),
        HandOverProblems, BodyProblems,
    )
)]
pub(crate) async fn hand_over<A: Ask>(
    State(api): Shared<A>,
    Extension(source): Extension<Source>,
    request: Request,
) -> Answered {
    let now = clock::now();
    api.rate.admit(source, now.boot).map_err(too_many_from_there)?;
    let caller = api.tenants.authenticate(request.headers(), now)?;
    api.tenant_rate.admit(caller.tenant.clone(), now.boot).map_err(|after| {
        let detail = "Too many hand-overs of this tenant; come again when Retry-After says.";
        Problem::new(Kind::RateLimited, detail, "posts_per_tenant reached").come_again(after)
    })?;
    let bytes = api.body(request).await?;
    api.tenants.settle(&caller, &bytes, &api.key)?;
    let hand_over = body::parse::<HandOverBody<'_>>(&bytes)?.check(caller, &api.policy)?;
    // Wiped before the registrar is waited for.
    drop(bytes);
    let account = &hand_over.account;
    let shard = api.placement.account(&hand_over.tenant, &account.aor, &account.registrar.text);
    views::answered(claimed_hand_over(api, shard, hand_over).await?)
}

fn too_many_from_there(after: Duration) -> Problem {
    let detail = "Too many hand-overs from this address; come again when Retry-After says.";
    Problem::new(Kind::RateLimited, detail, "posts_per_source reached").come_again(after)
}

/// Hands over in a task of its own, so that a client who leaves before the answer leaves nothing behind: an instance whose
/// token nobody has could only be ended by its lease.
async fn claimed_hand_over<A: Ask>(api: Arc<Api<A>>, shard: ShardId, hand_over: HandOver) -> Result<Answer, Problem> {
    let (claim, claimed) = oneshot::channel();
    let tasks = api.tasks.clone();
    tasks.run(async move {
        let answer = api.command(shard, Command::HandOver(Box::new(hand_over))).await;
        // One that took its predecessor's place stays: the app hands over again, with the same credentials.
        if let Err(Ok(Answer::HandedOver(unclaimed))) = claim.send(answer)
            && !unclaimed.replaced
        {
            tracing::debug!("the client left before its instance was ready: it is erased");
            let token = TokenHash(sha256(unclaimed.token.as_bytes()));
            api.erase_unclaimed(shard, unclaimed.instance, token).await;
        }
    });
    claimed.await.unwrap_or_else(|_| Err(Problem::busy("the task of a hand-over ended without an answer")))
}

/// Show an instance
#[utoipa::path(
    get, path = "/v1/instances/{id}", tag = "instances", operation_id = "show_instance",
    params(("id" = String, Path, description = "The instance")),
    security(("instance_token" = [])),
    responses(
        (status = 200, description = "The instance", body = InstanceBody),
        InstanceProblems,
    )
)]
pub(crate) async fn show<A: Ask>(State(api): Shared<A>, id: IdInPath, headers: HeaderMap) -> Answered {
    api.about_instance(id, &headers, Command::Show).await
}

/// Change push targets, account or preferences
///
/// Members left out stay. Where the change leads to another registrar, proxy or user, the request must bring the
/// credentials again. The new place is tried beside the former one, which stays until the new one grants; if it refuses or
/// says nothing, nothing changes.
#[utoipa::path(
    patch, path = "/v1/instances/{id}", tag = "instances", operation_id = "change_instance",
    params(("id" = String, Path, description = "The instance")),
    request_body(content = RectificationBody<'_>, content_type = "application/json"),
    security(("instance_token" = [])),
    responses(
        (status = 200, description = "The instance after the change", body = InstanceBody),
        (status = 202, description = "The new place has not decided yet: the former one stays until it grants",
            body = InstanceBody),
        RectifyProblems, InstanceProblems, BodyProblems,
    )
)]
pub(crate) async fn rectify<A: Ask>(State(api): Shared<A>, id: IdInPath, request: Request) -> Answered {
    let (id, token, shard) = api.instance(id, request.headers())?;
    // Proves the token before the body is read, and tells what the change starts from.
    let present = match api.command(shard, Command::Data(id, token)).await? {
        Answer::Data(present) => present,
        Answer::Refused(refusal) => return Err(refusal.into()),
        _ => return Err(api.out_of_kind("data")),
    };
    let DataView { tenant, account, preferences, .. } = *present;
    let bytes = api.body(request).await?;
    let change = body::parse::<RectificationBody<'_>>(&bytes)?;
    let change = change.check(&account, preferences, api.policy.tenant(&tenant))?;
    drop(bytes);
    views::rectified(api.command(shard, Command::Rectify(id, token, Box::new(change))).await?)
}

/// Start the lease anew
#[utoipa::path(
    post, path = "/v1/instances/{id}/refresh", tag = "instances", operation_id = "refresh_lease",
    params(("id" = String, Path, description = "The instance")),
    security(("instance_token" = [])),
    responses(
        (status = 200, description = "The instance with its new lease", body = InstanceBody),
        RecordedProblems, InstanceProblems,
    )
)]
pub(crate) async fn refresh<A: Ask>(State(api): Shared<A>, id: IdInPath, headers: HeaderMap) -> Answered {
    api.about_instance(id, &headers, Command::Refresh).await
}

/// Come to the foreground
///
/// For the modes `background` and `takeover`: the credentials are wiped at once, the instance stays, and the same account
/// handed over again brings it back. Asked again meanwhile it answers the same.
#[utoipa::path(
    post, path = "/v1/instances/{id}/foreground", tag = "instances", operation_id = "enter_foreground",
    params(("id" = String, Path, description = "The instance")),
    request_body(content = ForegroundBody, content_type = "application/json"),
    security(("instance_token" = [])),
    responses(
        (status = 200, description = "The credentials are wiped", body = ForegroundAnswer),
        ForegroundProblems, InstanceProblems, BodyProblems,
    )
)]
pub(crate) async fn foreground<A: Ask>(State(api): Shared<A>, id: IdInPath, request: Request) -> Answered {
    let (id, token, shard) = api.instance(id, request.headers())?;
    // Proves the token before the body is read.
    if let Answer::Refused(refusal) = api.command(shard, Command::Show(id, token)).await? {
        return Err(refusal.into());
    }
    let bytes = api.body(request).await?;
    let parting = body::parse::<ForegroundBody>(&bytes)?.check()?;
    views::answered(api.command(shard, Command::Foreground(id, token, parting)).await?)
}

/// Erase an instance now
///
/// Answers with the signed receipt. Asked again within a day it answers the same.
#[utoipa::path(
    delete, path = "/v1/instances/{id}", tag = "instances", operation_id = "erase_instance",
    params(("id" = String, Path, description = "The instance")),
    security(("instance_token" = [])),
    responses(
        (status = 200, description = "Erased", body = ErasedBody),
        InstanceProblems,
    )
)]
pub(crate) async fn erase<A: Ask>(State(api): Shared<A>, id: IdInPath, headers: HeaderMap) -> Answered {
    api.about_instance(id, &headers, Command::Erase).await
}

/// Show everything held about an instance
///
/// Secrets appear only as `present` or `absent`.
#[utoipa::path(
    get, path = "/v1/instances/{id}/data", tag = "instances", operation_id = "show_instance_data",
    params(("id" = String, Path, description = "The instance")),
    security(("instance_token" = [])),
    responses(
        (status = 200, description = "Everything held", body = DataBody),
        InstanceProblems,
    )
)]
pub(crate) async fn data<A: Ask>(State(api): Shared<A>, id: IdInPath, headers: HeaderMap) -> Answered {
    api.about_instance(id, &headers, Command::Data).await
}

/// Show a call
///
/// One round trip for the app that was just woken: is there still someone to talk to?
#[utoipa::path(
    get, path = "/v1/instances/{id}/calls/{call}", tag = "calls", operation_id = "show_call",
    params(("id" = String, Path, description = "The instance"),
           ("call" = String, Path, format = "uuid", description = "The `call` of the push, a UUID")),
    security(("instance_token" = [])),
    responses(
        (status = 200, description = "The call", body = CallBody),
        CallProblems,
    )
)]
pub(crate) async fn call<A: Ask>(State(api): Shared<A>, path: CallInPath, headers: HeaderMap) -> Answered {
    let (id, call, token, shard) = api.instance_and_call(path, &headers)?;
    views::answered(api.command(shard, Command::Call(id, token, call)).await?)
}

/// Decline a call before SIP is up
#[utoipa::path(
    post, path = "/v1/instances/{id}/calls/{call}/decline", tag = "calls", operation_id = "decline_call",
    params(("id" = String, Path, description = "The instance"),
           ("call" = String, Path, format = "uuid", description = "The `call` of the push, a UUID")),
    request_body(content = DeclineBody, content_type = "application/json"),
    security(("instance_token" = [])),
    responses(
        (status = 200, description = "The call after the decline", body = CallBody),
        CallProblems, BodyProblems,
    )
)]
pub(crate) async fn decline<A: Ask>(State(api): Shared<A>, path: CallInPath, request: Request) -> Answered {
    let (id, call, token, shard) = api.instance_and_call(path, request.headers())?;
    // Proves the token before the body is read.
    if let Answer::Refused(refusal) = api.command(shard, Command::Call(id, token, call)).await? {
        return Err(refusal.into());
    }
    let bytes = api.body(request).await?;
    let decline = body::parse::<DeclineBody>(&bytes)?.into();
    views::answered(api.command(shard, Command::Decline(id, token, call, decline)).await?)
}

/// Begin a self-test
///
/// A `test` push goes to the device; the app reports its arrival. One is remembered for each instance, for ten minutes;
/// another may begin after half a minute and takes its place.
#[utoipa::path(
    post, path = "/v1/instances/{id}/test", tag = "tests", operation_id = "begin_self_test",
    params(("id" = String, Path, description = "The instance")),
    security(("instance_token" = [])),
    responses(
        (status = 202, description = "The push is on its way", body = TestBegunBody),
        TestProblems, InstanceProblems,
    )
)]
pub(crate) async fn begin_test<A: Ask>(State(api): Shared<A>, id: IdInPath, headers: HeaderMap) -> Answered {
    api.about_instance(id, &headers, Command::BeginTest).await
}

/// Show a self-test
#[utoipa::path(
    get, path = "/v1/instances/{id}/test/{test}", tag = "tests", operation_id = "show_self_test",
    params(("id" = String, Path, description = "The instance"),
           ("test" = String, Path, format = "uuid", description = "The `test` of the answer and of the push, a UUID")),
    security(("instance_token" = [])),
    responses(
        (status = 200, description = "The self-test, its times null where not yet", body = TestBody),
        TestedProblems,
    )
)]
pub(crate) async fn test<A: Ask>(State(api): Shared<A>, path: CallInPath, headers: HeaderMap) -> Answered {
    let (id, test, token, shard) = api.instance_and_uuid(path, &headers)?;
    views::answered(api.command(shard, Command::Test(id, token, test)).await?)
}

/// Report that a self-test's push arrived
///
/// The first report counts; it has no body.
#[utoipa::path(
    post, path = "/v1/instances/{id}/test/{test}", tag = "tests", operation_id = "report_self_test",
    params(("id" = String, Path, description = "The instance"),
           ("test" = String, Path, format = "uuid", description = "The `test` of the push, a UUID")),
    security(("instance_token" = [])),
    responses(
        (status = 200, description = "The self-test with its times", body = TestBody),
        TestedProblems,
    )
)]
pub(crate) async fn test_arrived<A: Ask>(State(api): Shared<A>, path: CallInPath, headers: HeaderMap) -> Answered {
    let (id, test, token, shard) = api.instance_and_uuid(path, &headers)?;
    views::answered(api.command(shard, Command::TestArrived(id, token, test)).await?)
}

/// This description
#[utoipa::path(
    get, path = "/openapi.json", tag = "description", operation_id = "show_description",
    responses((status = 200, description = "OpenAPI 3.1", content_type = "application/json", body = serde_json::Value))
)]
pub(crate) async fn description() -> Response {
    let mut response = Response::new(openapi::document().into());
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, json);
    response
}

/// Any other path.
pub(crate) async fn no_such_path(_method: Method) -> Problem {
    Problem::new(Kind::NotFound, "There is no such path; /openapi.json lists all.", "no such path")
}

impl<A: Ask> Api<A> {
    /// One command, one answer.
    pub(super) async fn command(&self, shard: ShardId, command: Command) -> Result<Answer, Problem> {
        match tokio::time::timeout(ANSWER_WAIT_MAX, self.ask.ask(shard, command)).await {
            Ok(answer) => Ok(answer),
            Err(_) => {
                tracing::error!(shard = shard.0, "a command was not answered");
                Err(Problem::busy("a command was not answered"))
            }
        }
    }

    /// Has an instance erased whose token nobody has, and so whose erasure nobody else could ask for. Nobody waits for the
    /// receipt. An engine that is too busy is asked again: at the latest the lease's end gives another answer than that, and
    /// so does the end of the process, which erases all.
    async fn erase_unclaimed(&self, shard: ShardId, instance: InstanceId, token: TokenHash) {
        let mut failures = 0;
        while let Err(_) | Ok(Answer::Refused(Refusal::Busy { .. })) =
            self.command(shard, Command::Erase(instance, token)).await
        {
            failures += 1;
            let mut stop = self.stop.clone();
            tokio::select! {
                () = requested(&mut stop) => return,
                () = sleep(ERASE_AGAIN.pause(failures)) => {}
            }
        }
    }

    /// Who asks about a whole tenant. Whoever is refused pays, so that no address can have us verify signatures without end; not
    /// as for a hand-over, since phones behind an administrator's address must not keep him from erasing.
    pub(super) fn administrator(&self, source: Source, headers: &HeaderMap) -> Result<TenantId, Problem> {
        let now = clock::now();
        self.failed_administrators.check(&source, now.boot).map_err(too_many_from_there)?;
        self.tenants.administrator(headers, now).inspect_err(|_| {
            // One that came in between has taken the last place: the next one will be told.
            let _ = self.failed_administrators.admit(source, now.boot);
        })
    }

    pub(super) async fn body(&self, request: Request) -> Result<Zeroizing<Vec<u8>>, Problem> {
        let wants_panic = self.debug_faults && faults::wants_panic(request.headers());
        let bytes = body::read(request, &self.bodies, self.deadlines.body).await?;
        if wants_panic {
            faults::panic_over(&bytes);
        }
        Ok(bytes)
    }

    /// A call about an instance that has no body.
    pub(super) async fn about_instance(
        &self,
        id: IdInPath,
        headers: &HeaderMap,
        command: impl FnOnce(InstanceId, TokenHash) -> Command,
    ) -> Answered {
        let (id, token, shard) = self.instance(id, headers)?;
        views::answered(self.command(shard, command(id, token)).await?)
    }

    /// The instance a path names, the token's hash and the shard. A missing token counts before an impossible id.
    pub(super) fn instance(
        &self,
        id: IdInPath,
        headers: &HeaderMap,
    ) -> Result<(InstanceId, TokenHash, ShardId), Problem> {
        let token = self.tenants.instance_token(headers)?;
        let id = id.ok().and_then(|Path(text)| InstanceId::parse(text.as_bytes()));
        // An id of a shard that is not here is asked for all the same: the time of the answer tells nothing.
        let located = id.map(|id| (id, token, self.placement.instance(&id).unwrap_or(ShardId(0))));
        located.ok_or_else(Problem::unknown_instance)
    }

    fn instance_and_call(
        &self,
        path: CallInPath,
        headers: &HeaderMap,
    ) -> Result<(InstanceId, CallUuid, TokenHash, ShardId), Problem> {
        let (id, call, token, shard) = self.instance_and_uuid(path, headers)?;
        Ok((id, CallUuid(call), token, shard))
    }

    /// The instance and what of it a path names.
    fn instance_and_uuid(
        &self,
        path: CallInPath,
        headers: &HeaderMap,
    ) -> Result<(InstanceId, Uuid, TokenHash, ShardId), Problem> {
        let (id, part) =
            path.map_or_else(|rejection| (Err(rejection), None), |Path((id, part))| (Ok(Path(id)), Some(part)));
        let (id, token, shard) = self.instance(id, headers)?;
        let part = part.and_then(|part| Uuid::try_parse(&part).ok()).ok_or_else(Problem::unknown_instance)?;
        Ok((id, part, token, shard))
    }

    /// The engine answered with another kind than the command has: a bug of ours.
    pub(super) fn out_of_kind(&self, wanted: &'static str) -> Problem {
        tracing::error!(wanted, "the engine's answer is of another kind");
        Problem::busy("the engine's answer is of another kind")
    }
}
