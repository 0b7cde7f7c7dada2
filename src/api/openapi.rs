//! The API's description, made from the types and handlers themselves.
//!
//! Written for generators of clients as much as for people: no unnamed objects, no unions, names that are no words of a
//! language, and answers that may grow.

pub(super) mod pushes;
pub(super) mod shape;
pub(super) mod words;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use bytes::Bytes;
use utoipa::openapi::response::{Response as ApiResponse, ResponseBuilder};
use utoipa::openapi::schema::{Object, Type};
use utoipa::openapi::security::{Http, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Content, Header, Ref, RefOr};
use utoipa::{IntoResponses, Modify, OpenApi};

use self::shape::ForGenerators;
use super::problem::{Kind, ProblemBody};
use super::{administration, handlers, push_proof, rights, traces};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Reveille",
        description = "Hands a SIP account over so that its device can sleep: Reveille keeps the account registered, wakes \
                       the device for calls and erases the credentials at the lease's end or on request. HTTPS only; \
                       bodies are JSON of at most 16 KiB; unknown members are refused; errors are problem details \
                       (RFC 9457).",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")
    ),
    paths(
        handlers::hand_over,
        handlers::show,
        handlers::rectify,
        handlers::refresh,
        handlers::foreground,
        handlers::erase,
        handlers::data,
        rights::restrict,
        rights::resume,
        traces::consent,
        traces::read,
        traces::withdraw,
        traces::read_as_tenant,
        handlers::call,
        handlers::decline,
        handlers::begin_test,
        handlers::test,
        handlers::test_arrived,
        push_proof::push_proof,
        administration::erase_all,
        administration::erase_one,
        handlers::description,
    ),
    tags(
        (name = "instances", description = "An account on a device, held under a lease"),
        (name = "rights", description = "What a person may ask about the processing of their account"),
        (name = "calls", description = "Calls as their device may see them"),
        (name = "tests", description = "Whether pushes arrive, and how soon"),
        (name = "tenants", description = "Everything of one tenant"),
        (name = "description", description = "This document"),
    ),
    components(schemas(ProblemBody)),
    modifiers(&Credentials, &ForGenerators)
)]
struct Description;

/// The three ways to authenticate.
struct Credentials;

impl Modify for Credentials {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_with(Default::default);
        let bearer = |description: &str| {
            let mut scheme = Http::new(HttpAuthScheme::Bearer);
            scheme.description = Some(description.to_owned());
            SecurityScheme::Http(scheme)
        };
        components.add_security_scheme(
            "app_key",
            bearer("An app key of the tenant. It sits in a shipped app, so it may only hand accounts over."),
        );
        let jwt = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").description(Some(
            "A JWT of the tenant's backend, ES256 or EdDSA: iss = tenant, aud = the service's SIP domain, sub = device id, \
             exp - iat at most 600 seconds, jti used once, or for the same hand-over again; \"scope\": \"admin\" for calls about the whole tenant.",
        ));
        components.add_security_scheme("backend_jwt", SecurityScheme::Http(jwt.build()));
        components.add_security_scheme("instance_token", bearer("The token that the hand-over returned."));
    }
}

macro_rules! problem_set {
    ($(#[$doc:meta])* $name:ident, $kinds:expr) => {
        $(#[$doc])*
        pub(crate) struct $name;

        impl IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<ApiResponse>> {
                problem_responses(&$kinds)
            }
        }
    };
}

problem_set! {
    /// What any call with a body may answer.
    BodyProblems,
    [Kind::InvalidRequest, Kind::TooLarge]
}

problem_set! {
    /// What any call about an instance may answer.
    InstanceProblems,
    [Kind::Unauthorized, Kind::Forbidden, Kind::NotFound, Kind::InstanceErased, Kind::Busy]
}

problem_set! {
    /// What any call about a call may answer.
    CallProblems,
    [Kind::Unauthorized, Kind::Forbidden, Kind::NotFound, Kind::CallOver, Kind::InstanceErased, Kind::Busy]
}

problem_set! {
    /// What any call about a self-test that was begun may answer.
    TestedProblems,
    [Kind::Unauthorized, Kind::Forbidden, Kind::NotFound, Kind::TestOver, Kind::InstanceErased, Kind::Busy]
}

problem_set! {
    /// What reading a trace may answer.
    TraceProblems,
    [Kind::Unauthorized, Kind::Forbidden, Kind::NotFound, Kind::NoTrace, Kind::InstanceErased, Kind::Busy]
}

problem_set! {
    /// What beginning a self-test may answer besides.
    TestProblems,
    [Kind::NoUsablePushTarget, Kind::RateLimited]
}

problem_set! {
    /// What a hand-over may answer.
    HandOverProblems,
    [
        Kind::Unauthorized,
        Kind::Forbidden,
        Kind::NoUsablePushTarget,
        Kind::LeaseTooLong,
        Kind::InvalidAccount,
        Kind::RegistrarNotAllowed,
        Kind::RegistrarRefused,
        Kind::RegistrarUnreachable,
        Kind::RateLimited,
        Kind::TooManyDevices,
        Kind::Busy,
    ]
}

problem_set! {
    /// What a rectification may answer besides.
    RectifyProblems,
    [
        Kind::NoUsablePushTarget,
        Kind::InvalidAccount,
        Kind::RegistrarNotAllowed,
        Kind::RegistrarRefused,
        Kind::RegistrarUnreachable,
        Kind::RateLimited,
    ]
}

problem_set! {
    /// What coming to the foreground may answer besides.
    ForegroundProblems,
    [Kind::RateLimited]
}

problem_set! {
    /// What a call that writes a record may answer besides.
    RecordedProblems,
    [Kind::RateLimited]
}

problem_set! {
    /// What a call about a whole tenant may answer.
    TenantProblems,
    [Kind::InvalidRequest, Kind::Unauthorized, Kind::Forbidden, Kind::RateLimited, Kind::Busy]
}

problem_set! {
    /// What a call of an administrator about one instance may answer besides.
    UnknownProblems,
    [Kind::NotFound]
}

/// One response for each status, naming the problem types it may carry.
fn problem_responses(kinds: &[Kind]) -> BTreeMap<String, RefOr<ApiResponse>> {
    let mut by_status: BTreeMap<u16, Vec<Kind>> = BTreeMap::new();
    for kind in kinds {
        by_status.entry(kind.status().as_u16()).or_default().push(*kind);
    }
    by_status.into_iter().map(|(status, kinds)| (status.to_string(), problem_response(&kinds).into())).collect()
}

fn problem_response(kinds: &[Kind]) -> ApiResponse {
    let names: Vec<_> = kinds.iter().map(|kind| format!("`{}`", kind.name())).collect();
    let body = Content::new(Some(Ref::from_schema_name("Problem")));
    let mut response =
        ResponseBuilder::new().description(names.join(", ")).content("application/problem+json", body).build();
    if kinds.iter().any(|kind| matches!(kind, Kind::RateLimited | Kind::TooManyDevices | Kind::Busy)) {
        let seconds = Object::builder().schema_type(Type::Integer).minimum(Some(1)).build();
        let mut header = Header::new(seconds);
        header.description = Some("Seconds to wait".to_owned());
        response.headers.insert("Retry-After".to_owned(), header);
    }
    response
}

/// The document as JSON, made once.
pub(crate) fn document() -> Bytes {
    static DOCUMENT: OnceLock<Bytes> = OnceLock::new();
    let make = || Description::openapi().to_pretty_json().expect("a document of texts always serialises").into();
    DOCUMENT.get_or_init(make).clone()
}
