//! What the OpenAPI document promises to generated clients, and whether the service keeps to it.

use std::collections::BTreeSet;

use http::Method;
use serde_json::{Value, json};

use super::super::openapi;
use super::world::{CALL, TOKEN, World, changed, hand_over_body, path, post, with_body};
use crate::engine::output::WakeKind;

fn document() -> Value {
    serde_json::from_slice(&openapi::document()).expect("JSON")
}

fn schemas(document: &Value) -> &serde_json::Map<String, Value> {
    document.pointer("/components/schemas").and_then(Value::as_object).expect("schemas")
}

/// Words that are taken in Python, Swift, Kotlin or TypeScript, in lower case.
const RESERVED: &str = "and any as assert async await break by case catch class companion const constructor continue data \
    def default defer del delegate delete do dynamic elif else enum except export extends extension external fallthrough false \
    field file final finally for from func function fun get global guard if implements import in init inline inner inout \
    instanceof interface internal is lambda lateinit let match new none nonlocal not null object open operator or out override \
    package param pass print private protocol property protected public raise receiver repeat rethrows return sealed self set \
    static struct subscript super suspend switch tailrec this throw throws true try type typealias typeof val value var vararg \
    void when where while with yield";

/// Calls `see` with every schema and where it stands.
fn walk(value: &Value, at: &str, see: &mut impl FnMut(&str, &Value)) {
    see(at, value);
    match value {
        Value::Object(members) => members.iter().for_each(|(name, member)| walk(member, &format!("{at}/{name}"), see)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(place, item)| walk(item, &format!("{at}/{place}"), see))
        }
        _ => {}
    }
}

/// The names of the components that a schema leads to.
fn reached(document: &Value, from: &Value, found: &mut BTreeSet<String>) {
    let mut next = Vec::new();
    walk(from, "", &mut |_, value| {
        if let Some(name) = value["$ref"].as_str().and_then(|it| it.strip_prefix("#/components/schemas/"))
            && found.insert(name.to_owned())
        {
            next.push(name.to_owned());
        }
    });
    next.iter().for_each(|name| reached(document, &schemas(document)[name], found));
}

/// The components of all answers, or of all requests.
fn components_of(document: &Value, part: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for operation in
        document["paths"].as_object().expect("paths").values().flat_map(|it| it.as_object().expect("calls").values())
    {
        reached(document, &operation[part], &mut found);
    }
    found
}

#[test]
fn no_answer_has_a_closed_enumeration_and_no_request_an_open_one() {
    let document = document();
    let (answers, requests) = (components_of(&document, "responses"), components_of(&document, "requestBody"));
    for name in &answers {
        walk(&schemas(&document)[name], name, &mut |at, value| {
            assert!(value.get("enum").is_none(), "{at} is closed");
            assert!(value["x-extensible-enum"].as_array().is_none_or(|known| !known.is_empty()), "{at}");
        });
    }
    let open: BTreeSet<String> = requests
        .iter()
        .flat_map(|name| {
            let mut open = Vec::new();
            walk(&schemas(&document)[name], name, &mut |at, value| {
                open.extend(value.get("x-extensible-enum").map(|_| at.to_owned()));
            });
            open
        })
        .collect();
    assert_eq!(open, BTreeSet::from(["Device/properties/platform".to_owned()]), "any platform may be given");
    assert!(answers.is_disjoint(&requests), "{:?}", answers.intersection(&requests));
}

#[test]
fn names_are_no_reserved_words_and_objects_have_names() {
    let document = document();
    let reserved: BTreeSet<_> = RESERVED.split_whitespace().collect();
    for operation in
        document["paths"].as_object().expect("paths").values().flat_map(|it| it.as_object().expect("calls").values())
    {
        let id = operation["operationId"].as_str().expect("an id");
        assert!(!reserved.contains(id) && id.contains('_'), "{id}");
    }
    for (name, schema) in schemas(&document) {
        assert!(!reserved.contains(name.to_lowercase().as_str()) && name != "Data", "{name}");
        walk(schema, name, &mut |at, value| {
            let nested = at.contains('/')
                && value.get("properties").is_some_and(|it| it.get("type").is_none_or(|it| it.is_string()));
            assert!(!nested || at.ends_with("/properties"), "{at} is an object without a name");
            for union in ["oneOf", "anyOf", "allOf"] {
                assert!(value.get(union).is_none(), "{at} is a union");
            }
        });
    }
}

#[test]
fn times_and_ids_say_their_format() {
    let document = document();
    let text = "RFC 3339";
    for (name, schema) in schemas(&document) {
        walk(schema, name, &mut |at, value| {
            if value["description"].as_str().is_some_and(|about| about.contains(text)) {
                assert_eq!(value["format"], "date-time", "{at}");
            }
            if value["type"] == "integer" {
                assert!(value["format"].is_string(), "{at} has no width");
            }
        });
    }
    for parameter in ["call", "test"] {
        let all = document["paths"]
            .as_object()
            .expect("paths")
            .values()
            .flat_map(|it| it.as_object().expect("calls").values());
        let named = all.filter_map(|it| it["parameters"].as_array()).flatten().filter(|it| it["name"] == parameter);
        assert!(named.map(|it| assert_eq!(it["schema"]["format"], "uuid")).count() > 0);
    }
    assert_eq!(document["servers"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn a_request_takes_every_word_that_is_listed_for_it_and_no_other() {
    let document = document();
    let words = |name: &str| -> Vec<Value> { schemas(&document)[name]["enum"].as_array().expect("closed").clone() };
    let world = World::new();
    let body = hand_over_body();
    for (member, name) in [
        ("/mode", "Mode"),
        ("/hand_over", "CallHandOver"),
        ("/voicemail", "VoicemailSource"),
        ("/account/trunk_sources", "TrunkSources"),
        ("/account/contact_style", "ContactStyle"),
    ] {
        for word in words(name) {
            let reply = world.hand_over(&changed(&body, member, Some(word.clone()))).await;
            assert_eq!(reply.status, 201, "{member} {word}: {}", reply.text);
        }
        let reply = world.hand_over(&changed(&body, member, Some(json!("another")))).await;
        assert!(reply.status.is_client_error(), "{member}");
        // At a change too, wherever the member may stand there.
        for word in words(name) {
            let change = match member.strip_prefix("/account/") {
                Some(member) => json!({ "account": { member: word } }),
                None => json!({ &member[1..]: word }),
            };
            let reply = world.send(with_body(Method::PATCH, &path(""), TOKEN, change.to_string())).await;
            assert_eq!(reply.status, 200, "{change}: {}", reply.text);
        }
    }
    for word in words("ForegroundBinding") {
        let reply = world.send(post(&path("/foreground"), TOKEN, json!({ "binding": word }).to_string())).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
    }
    for word in words("DeclineReason") {
        let reply = world
            .send(post(&path(&format!("/calls/{CALL}/decline")), TOKEN, json!({ "reason": word }).to_string()))
            .await;
        assert_eq!(reply.status, 200, "{}", reply.text);
    }
    let consent = json!({ "scope": words("TraceScope"), "seconds": 60 });
    let reply = world.send(post(&path("/trace"), TOKEN, consent.to_string())).await;
    assert_eq!(reply.status, 201, "{}", reply.text);
}

/// Whether a value is what a schema says: members, those that must be there, and their types.
fn conforms(document: &Value, schema: &Value, value: &Value, at: &str) {
    let schema = match schema["$ref"].as_str() {
        Some(reference) => document.pointer(&reference[1..]).expect("it leads somewhere"),
        None => schema,
    };
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => return,
    };
    let is = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    assert!(types.contains(&is), "{at} is a {is}, not {types:?}");
    if let (Some(known), Some(word)) = (schema["x-extensible-enum"].as_array(), value.as_str()) {
        assert!(known.iter().any(|it| it == word), "{at}: {word} is not among the known values");
    }
    if let (Some(items), Some(values)) = (schema.get("items"), value.as_array()) {
        values.iter().for_each(|value| conforms(document, items, value, at));
    }
    if let (Some(members), Some(properties)) = (value.as_object(), schema["properties"].as_object()) {
        for (name, member) in members {
            let property = properties.get(name).unwrap_or_else(|| panic!("{at}.{name} is not described"));
            conforms(document, property, member, &format!("{at}.{name}"));
        }
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            assert!(members.contains_key(name), "{at}.{name} is not there");
        }
    }
}

#[tokio::test]
async fn answers_are_as_they_are_described() {
    let document = document();
    let world = World::new();
    let handed_over = world.hand_over(&hand_over_body()).await;
    let (foreground, keep) = (path("/foreground"), json!({ "binding": "keep" }).to_string());
    let consent = json!({ "scope": ["sip"], "seconds": 60 }).to_string();
    for (name, reply) in [
        ("HandedOver", handed_over),
        ("Instance", world.ask(Method::GET, &path(""), TOKEN).await),
        ("InstanceData", world.ask(Method::GET, &path("/data"), TOKEN).await),
        ("CallDetails", world.ask(Method::GET, &path(&format!("/calls/{CALL}")), TOKEN).await),
        ("ForegroundAnswer", world.send(post(&foreground, TOKEN, keep)).await),
        ("SelfTestBegun", world.ask(Method::POST, &path("/test"), TOKEN).await),
        ("Consent", world.send(post(&path("/trace"), TOKEN, consent)).await),
        ("Trace", world.ask(Method::GET, &path("/trace"), TOKEN).await),
        ("Withdrawn", world.ask(Method::DELETE, &path("/trace"), TOKEN).await),
        ("Erased", world.ask(Method::DELETE, &path(""), TOKEN).await),
        ("Problem", world.ask(Method::GET, "/v1", TOKEN).await),
    ] {
        assert!(reply.status.is_success() || name == "Problem", "{name}: {}", reply.text);
        conforms(&document, &schemas(&document)[name], &reply.json(), name);
    }
}

#[test]
fn pushes_are_as_they_are_described() {
    use crate::engine::output::{Caller, PushJob, ToldCaller, WakeDetail};
    use crate::push::payload::{Detail, Texts, members_with_text, text_members};
    let document = document();
    let test = uuid::Uuid::from_u128(9);
    let lease_ends = crate::clock::WallTime::from_unix_millis(1_795_550_400_000);
    for kind in WakeKind::ALL {
        let detail = match kind {
            WakeKind::CallEnded => WakeDetail::Ended("cancelled"),
            WakeKind::MissedCall => WakeDetail::Missed(3),
            WakeKind::Voicemail => WakeDetail::Voicemail { new: 2, old: 5 },
            WakeKind::Expiring => WakeDetail::Expiring { lease_ends, visible: true },
            WakeKind::Test => WakeDetail::Test(test),
            WakeKind::Proof => WakeDetail::Proof(crate::engine::proof::Challenge::new([7; 16])),
            _ => WakeDetail::None,
        };
        let mut job = PushJob { detail, ..crate::push::tests::job(kind) };
        if !matches!(kind, WakeKind::Call | WakeKind::CallEnded | WakeKind::MissedCall) {
            job.call = None;
        }
        if matches!(kind, WakeKind::Call | WakeKind::MissedCall) {
            let caller = Caller { name: Some("Ada".to_owned()), number: "+1".to_owned() };
            job.caller = Some(ToldCaller::Clear(caller));
        }
        let name = openapi::pushes::name(kind);
        let members = Value::Object(members_with_text(&job, &Texts::default(), Detail::Full));
        conforms(&document, &schemas(&document)[name], &members, name);
        if let Some(caller) = members.get("caller") {
            conforms(&document, &schemas(&document)["Caller"], caller, "Caller");
        }
        let text = Value::Object(text_members(&job, &Texts::default(), Detail::Full));
        assert!(text.as_object().expect("an object").values().all(Value::is_string));
        let common = &schemas(&document)["AnyPush"];
        let required = |schema: &Value| schema["required"].as_array().expect("some").clone();
        assert!(required(common).iter().all(|it| required(&schemas(&document)[name]).contains(it)));
    }
}
