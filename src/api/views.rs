//! What the API answers: the engine's views as JSON.
//!
//! Each struct here is written out again, member by member, from the engine's own, so that nothing new in the engine
//! reaches a client before someone has decided that it should. Credentials and push tokens have no member at all.

mod data;
mod held;
mod self_test;

use axum::response::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION};
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

pub(crate) use self::data::DataBody;
pub(crate) use self::self_test::{TestBegunBody, TestBody};
use super::problem::Problem;
use super::push_proof;
use super::traces::{self, TraceBody};
use crate::engine::audit::{Inclusion, Receipt};
use crate::engine::output::{
    Answer, AttachView, CallView, ForegroundView, HandedOver, InstanceView, MoveView, Refusal, RegistrationReason,
    RegistrationState, RegistrationView,
};
use crate::engine::story::{Moment, Story};

/// More than the answer to a hand-over needs.
const JSON_BYTES_USUAL: usize = 4096;

/// A handed-over instance.
#[derive(Serialize, ToSchema)]
#[schema(as = HandedOver)]
pub(crate) struct HandedOverBody<'a> {
    /// The instance's id.
    #[schema(pattern = "^[a-z2-7]{29}$")]
    instance: String,
    /// The bearer token for all calls about the instance, and its password at the edge. It is told this once.
    token: &'a str,
    /// When the lease ends, RFC 3339 in UTC.
    #[schema(format = DateTime, example = "2026-11-24T20:00:00Z")]
    lease_ends: String,
    registration: RegistrationBody,
    attach: AttachBody,
    #[schema(schema_with = super::openapi::words::callers_in_push)]
    caller_in_push: &'static str,
    #[schema(schema_with = super::openapi::words::proof_states)]
    push_proof: &'static str,
    /// The tenant whose credential handed it over: what a sealed caller is bound to, beside instance and call.
    tenant: &'a str,
}

/// The registration at the account's registrar.
#[derive(Serialize, ToSchema)]
#[schema(as = Registration)]
pub(crate) struct RegistrationBody {
    /// Where it stands.
    #[schema(schema_with = super::openapi::words::registration_states)]
    state: &'static str,
    /// The granted expiry in seconds, while registered.
    #[schema(example = 600)]
    expires: Option<u64>,
    #[schema(schema_with = super::openapi::words::registration_reasons)]
    reason: Option<&'static str>,
    /// The registrar's last verdict in words, or what went wrong instead of one.
    #[schema(example = "200 OK")]
    verdict: Option<String>,
    /// Contacts of the account that the registrar's last 200 listed beside ours.
    other_contacts: u32,
    /// Contacts that the registrar listed before and, ahead of their time, no longer: ours pushed them out, or they left.
    dropped_contacts: u32,
    /// Contacts whose place ours took (mode `takeover`). They get it back when ours ends.
    replaced_contacts: u32,
    /// A change of place (registrar, proxy, user, …) that has not come about; all else here is of the former place. Absent
    /// where there is none.
    #[serde(rename = "move", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    moving: Option<MoveBody>,
}

/// A change of place.
#[derive(Serialize, ToSchema)]
#[schema(as = PlaceChange)]
pub(crate) struct MoveBody {
    #[schema(schema_with = super::openapi::words::move_states)]
    state: &'static str,
    /// The new registrar's verdict in words, where it failed.
    #[schema(example = "403 Forbidden")]
    verdict: Option<String>,
}

/// How the woken app attaches: the account of its SIP stack.
#[derive(Serialize, ToSchema)]
#[schema(as = Attach)]
pub(crate) struct AttachBody {
    /// Registrar (or outbound proxy).
    #[schema(example = "sip:edge.example.net:5061;transport=tls")]
    uri: String,
    /// Ways over WebSocket (RFC 7118), for networks where that one is closed; empty where there is none.
    #[schema(example = json!(["wss://edge.example.net:443"]))]
    alternatives: Vec<String>,
    /// Address of record.
    #[schema(example = "sip:INSTANCE@edge.example.net")]
    aor: String,
    /// Digest user name; the password is the instance token.
    username: String,
    /// Digest realm.
    #[schema(example = "edge.example.net")]
    realm: String,
}

/// An instance.
#[derive(Serialize, ToSchema)]
#[schema(as = Instance)]
pub(crate) struct InstanceBody {
    /// The instance's id.
    #[schema(pattern = "^[a-z2-7]{29}$")]
    instance: String,
    registration: RegistrationBody,
    /// When the lease ends, RFC 3339 in UTC.
    #[schema(format = DateTime, example = "2026-11-24T20:00:00Z")]
    lease_ends: String,
    attach: AttachBody,
    #[schema(schema_with = super::openapi::words::callers_in_push)]
    caller_in_push: &'static str,
    #[schema(schema_with = super::openapi::words::proof_states)]
    push_proof: &'static str,
    /// Whether a device is attached right now.
    attached: bool,
    /// Requests to the instance that were dropped because of where they came from (`trunk_sources`).
    trunk_drops: u64,
    /// Whether its phone was offered media on a private address since the hand-over: such a call has no sound. The PBX
    /// counts Reveille among its local networks, or lacks symmetric RTP.
    private_media_address: bool,
}

/// A call.
#[derive(Serialize, ToSchema)]
#[schema(as = CallDetails)]
pub(crate) struct CallBody {
    /// Where it stands.
    #[schema(schema_with = super::openapi::words::call_states)]
    state: &'static str,
    #[schema(schema_with = super::openapi::words::call_ends)]
    reason: Option<&'static str>,
    /// What happened so far, in order; empty where it is forgotten.
    story: Vec<StepBody>,
    /// Steps that are not in `story`: repetitions, and those of the middle where there were too many.
    story_omitted: u32,
    /// Further calls that ended for the same reason, one soon after the other, and have no story of their own; left out where
    /// there were none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    repeated: Option<u32>,
    /// As in the instance.
    private_media_address: bool,
}

/// A step of a call.
#[derive(Serialize, ToSchema)]
#[schema(as = CallStep)]
pub(crate) struct StepBody {
    /// What happened.
    #[schema(schema_with = super::openapi::words::steps)]
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, schema_with = super::openapi::words::step_reasons)]
    reason: Option<&'static str>,
    /// Milliseconds since the first step.
    ms: u64,
    /// When, RFC 3339 in UTC, to the second.
    #[schema(format = DateTime, example = "2026-11-24T20:00:00Z")]
    at: String,
}

/// An erasure.
#[derive(Serialize, ToSchema)]
#[schema(as = Erased)]
pub(crate) struct ErasedBody {
    receipt: ReceiptBody,
    /// Whether the record was on disk before the answer was given.
    logged: bool,
}

/// An instance whose app came to the foreground.
#[derive(Serialize, ToSchema)]
pub(crate) struct ForegroundAnswer {
    receipt: ReceiptBody,
    /// Whether the record was on disk before the answer was given.
    logged: bool,
    #[schema(schema_with = super::openapi::words::parted_bindings)]
    binding: &'static str,
    /// `kept`: the Contact that stays at the registrar.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    contact: Option<String>,
    /// `kept`: for how many seconds it stays there.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    expires: Option<u64>,
}

/// Signed proof that an instance's credentials were erased; `reveille audit verify` checks it offline.
#[derive(Serialize, ToSchema)]
#[schema(as = Receipt)]
pub(crate) struct ReceiptBody {
    /// Version of this form.
    v: u8,
    /// The instance.
    instance: String,
    /// Links the instance to the record's subject, in hexadecimal.
    salt: String,
    /// The record, byte for byte as it stands in the log.
    record: String,
    /// The record's place in the log; absent where it was not synced in time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    inclusion: Option<InclusionBody>,
    /// The log's public key (Ed25519), base64.
    key: String,
    /// Ed25519 signature, base64.
    signature: String,
}

/// A record's place in the Merkle tree (RFC 9162 §2.1.3).
#[derive(Serialize, ToSchema)]
#[schema(as = Inclusion)]
pub(crate) struct InclusionBody {
    leaf_index: u64,
    tree_size: u64,
    root: String,
    path: Vec<String>,
}

impl From<Receipt> for ReceiptBody {
    fn from(receipt: Receipt) -> Self {
        let Receipt { v, instance, salt, record, inclusion, key, signature } = receipt;
        let inclusion = inclusion.map(|Inclusion { leaf_index, tree_size, root, path }| InclusionBody {
            leaf_index,
            tree_size,
            root,
            path,
        });
        Self { v, instance, salt, record, inclusion, key, signature }
    }
}

impl From<ForegroundView> for ForegroundAnswer {
    fn from(view: ForegroundView) -> Self {
        let ForegroundView { receipt, logged, kept } = view;
        let binding = if kept.is_some() { "kept" } else { "released" };
        let (contact, expires) = kept.map(|kept| (kept.contact, kept.expires.as_secs())).unzip();
        Self { receipt: (*receipt).into(), logged, binding, contact, expires }
    }
}

impl From<RegistrationView> for RegistrationBody {
    fn from(view: RegistrationView) -> Self {
        let RegistrationView {
            state,
            expires,
            reason,
            verdict,
            other_contacts,
            dropped_contacts,
            replaced_contacts,
            moving,
        } = view;
        Self {
            moving: moving.map(MoveBody::from),
            state: state.as_str(),
            expires: expires.map(|expires| expires.as_secs()),
            reason: reason.map(RegistrationReason::as_str),
            verdict,
            other_contacts,
            dropped_contacts,
            replaced_contacts,
        }
    }
}

impl From<MoveView> for MoveBody {
    fn from(view: MoveView) -> Self {
        match view {
            MoveView::Waiting => Self { state: "waiting", verdict: None },
            MoveView::Failed(verdict) => Self { state: "failed", verdict: Some(verdict) },
        }
    }
}

impl From<AttachView> for AttachBody {
    fn from(view: AttachView) -> Self {
        let AttachView { uri, alternatives, aor, username, realm } = view;
        Self { uri, alternatives, aor, username, realm }
    }
}

impl From<InstanceView> for InstanceBody {
    fn from(view: InstanceView) -> Self {
        let InstanceView {
            instance,
            registration,
            lease_ends,
            attach,
            caller_in_push,
            push_proof,
            attached,
            trunk_drops,
            private_media_address,
        } = view;
        Self {
            instance: instance.to_string(),
            registration: registration.into(),
            lease_ends: lease_ends.rfc3339(),
            attach: attach.into(),
            caller_in_push: caller_in_push.as_str(),
            push_proof: push_proof.as_str(),
            attached,
            trunk_drops,
            private_media_address,
        }
    }
}

impl From<CallView> for CallBody {
    fn from(view: CallView) -> Self {
        let CallView { state, reason, story, private_media_address } = view;
        let story_omitted = story.as_ref().map_or(0, |story| story.omitted);
        let repeated = story.as_ref().map(|story| story.repeated).filter(|count| *count > 0);
        let story = story.map(|story| step_bodies(&story)).unwrap_or_default();
        Self { state: state.as_str(), reason, story, story_omitted, repeated, private_media_address }
    }
}

fn step_bodies(story: &Story) -> Vec<StepBody> {
    let body = |moment: &Moment| StepBody {
        event: moment.step.as_str(),
        reason: moment.step.reason(),
        ms: u64::try_from(moment.after.as_millis()).unwrap_or(u64::MAX),
        at: story.at(moment).rfc3339(),
    };
    story.moments.iter().map(body).collect()
}

/// The response to a hand-over: 202 while the registrar, or that of a new place, has not spoken, 200 in a predecessor's
/// place, else 201.
pub(crate) fn handed_over(view: HandedOver) -> Response {
    let HandedOver { instance, token, lease_ends, registration, attach, caller_in_push, push_proof, replaced, tenant } =
        view;
    let status = match (registration.state, replaced) {
        _ if is_moving(&registration) => StatusCode::ACCEPTED,
        (RegistrationState::Registering, _) => StatusCode::ACCEPTED,
        (_, true) => StatusCode::OK,
        (_, false) => StatusCode::CREATED,
    };
    let mut response = json(
        status,
        &HandedOverBody {
            instance: instance.to_string(),
            token: &token,
            lease_ends: lease_ends.rfc3339(),
            registration: registration.into(),
            attach: attach.into(),
            caller_in_push: caller_in_push.as_str(),
            push_proof: push_proof.as_str(),
            tenant: &tenant,
        },
    );
    let location = HeaderValue::try_from(format!("/v1/instances/{instance}"));
    response.headers_mut().insert(LOCATION, location.expect("an instance id is letters and digits"));
    response
}

/// The response to a change: 202 while a new place has not spoken.
pub(crate) fn rectified(answer: Answer) -> Result<Response, Problem> {
    match answer {
        Answer::Instance(view) if is_moving(&view.registration) => {
            Ok(json(StatusCode::ACCEPTED, &InstanceBody::from(*view)))
        }
        other => answered(other),
    }
}

fn is_moving(registration: &RegistrationView) -> bool {
    registration.moving == Some(MoveView::Waiting)
}

/// The response to any other command.
pub(crate) fn answered(answer: Answer) -> Result<Response, Problem> {
    Ok(match answer {
        Answer::HandedOver(view) => handed_over(*view),
        Answer::Instance(view) => json(StatusCode::OK, &InstanceBody::from(*view)),
        Answer::Data(view) => json(StatusCode::OK, &DataBody::from(*view)),
        Answer::Call(view) => json(StatusCode::OK, &CallBody::from(view)),
        Answer::TestBegun(view) => json(StatusCode::ACCEPTED, &TestBegunBody::from(view)),
        Answer::PushProof(state) => push_proof::answered(state),
        Answer::Test(view) => json(StatusCode::OK, &TestBody::from(view)),
        Answer::Erased { receipt, logged } => json(StatusCode::OK, &ErasedBody { receipt: (*receipt).into(), logged }),
        Answer::Consent(view) => traces::consented(view),
        Answer::Trace(view) => json(StatusCode::OK, &TraceBody::from(*view)),
        Answer::TraceEnded(withdrawn) => traces::withdrawn(withdrawn),
        Answer::Foreground(view) => json(StatusCode::OK, &ForegroundAnswer::from(*view)),
        // Put together from all shards, or asked for by operators alone: not through here.
        Answer::Ordered(_) | Answer::Stories(_) => return Err(Refusal::NotFound.into()),
        Answer::Refused(refusal) => return Err(refusal.into()),
    })
}

/// A JSON response that no cache may keep.
pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    // Room enough for every answer but the longest receipts: a buffer that grows leaves copies, and one answer holds a
    // token.
    let mut bytes = Vec::with_capacity(JSON_BYTES_USUAL);
    serde_json::to_writer(&mut bytes, body).expect("a struct of texts and numbers always serialises");
    let mut response = Response::new(bytes.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
