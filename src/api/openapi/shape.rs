//! What the macros do not say of the document: how answers to faults look, where a service is found, and one object where they
//! make two of it.
//!
//! A room of its own because it works on the finished document. It adds nothing about a single call.

use std::collections::BTreeMap;

use utoipa::Modify;
use utoipa::openapi::response::{Response as ApiResponse, ResponseBuilder};
use utoipa::openapi::schema::{AllOf, Object, ObjectBuilder, Schema, SchemaType, Type};
use utoipa::openapi::server::{ServerBuilder, ServerVariableBuilder};
use utoipa::openapi::{Components, Content, OpenApi, PathItem, Ref, RefOr, path::Operation};

use super::{pushes, words};

/// How a reference to a component begins.
const COMPONENTS: &str = "#/components/schemas/";
/// The service of the documentation's examples.
const EXAMPLE_HOST: &str = "push.example.net:8443";

/// The name of a schema that the types do not have.
const CALLER_KEY_CHANGE: &str = "CallerKeyChange";

/// Makes the document one that generators of clients can use.
pub(super) struct ForGenerators;

impl Modify for ForGenerators {
    fn modify(&self, document: &mut OpenApi) {
        let host = ServerVariableBuilder::new()
            .default_value(EXAMPLE_HOST)
            .description(Some("Host and port of the operator's service (`api.listen`)"));
        let server = ServerBuilder::new().url("https://{host}").parameter("host", host);
        document.servers = Some(vec![server.build()]);
        let components = document.components.get_or_insert_with(Default::default);
        words::add_closed(components);
        pushes::add(components);
        join_parts(components);
        allow_none(components);
        for (path, item) in &mut document.paths.paths {
            // The description itself is served without a credential, and neither reads nor asks anything.
            let is_plain = !path.starts_with("/v1/");
            operations(item).filter(|_| !is_plain).for_each(|operation| {
                let answers = &mut operation.responses.responses;
                answers.insert("500".to_owned(), fault().into());
                answers.insert("default".to_owned(), problem("Any other problem").into());
            });
        }
    }
}

/// The member `caller_key` of a change, which `null` takes away.
pub(crate) fn caller_key_change() -> RefOr<Schema> {
    let mut reference = Ref::from_schema_name(CALLER_KEY_CHANGE);
    reference.description = "A new key for the caller; `null` for none.".to_owned();
    reference.into()
}

/// The key of a hand-over, or null: as one schema, since generators drop the union of an object and null.
fn allow_none(components: &mut Components) {
    let Some(RefOr::T(Schema::Object(key))) = components.schemas.get("CallerKey") else { return };
    let types = SchemaType::from_iter([Type::Object, Type::Null]);
    let mut change = key.clone();
    change.schema_type = types;
    components.schemas.insert(CALLER_KEY_CHANGE.to_owned(), Schema::Object(change).into());
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let all = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch];
    all.into_iter().filter_map(Option::as_mut)
}

fn problem(about: &str) -> ApiResponse {
    let body = Content::new(Some(Ref::from_schema_name("Problem")));
    ResponseBuilder::new().description(about).content("application/problem+json", body).build()
}

fn fault() -> ApiResponse {
    problem("A fault of the service, `about:blank`; the connection is closed, and the request may be repeated")
}

/// A component that is put together from others gets all their members itself: generators call its parts `value1` and so on.
fn join_parts(components: &mut Components) {
    let whole: BTreeMap<String, Object> = components
        .schemas
        .iter()
        .filter_map(|(name, schema)| match schema {
            RefOr::T(Schema::AllOf(parts)) => Some((name.clone(), joined(parts, components))),
            _ => None,
        })
        .collect();
    components.schemas.extend(whole.into_iter().map(|(name, object)| (name, Schema::Object(object).into())));
}

fn joined(parts: &AllOf, components: &Components) -> Object {
    let mut whole = ObjectBuilder::new().schema_type(Type::Object).description(parts.description.clone()).build();
    for part in &parts.items {
        let object = match part {
            RefOr::T(Schema::Object(object)) => Some(object),
            RefOr::Ref(reference) => named(reference, components),
            RefOr::T(_) => None,
        };
        if let Some(object) = object {
            whole.properties.extend(object.properties.clone());
            whole.required.extend(object.required.iter().cloned());
        }
    }
    whole
}

fn named<'a>(reference: &Ref, components: &'a Components) -> Option<&'a Object> {
    let name = reference.ref_location.strip_prefix(COMPONENTS)?;
    match components.schemas.get(name)? {
        RefOr::T(Schema::Object(object)) => Some(object),
        _ => None,
    }
}
