//! What phones get by push, as schemas: one for each kind, and one for all that an app may not know.
//!
//! A room of its own because no call of the API answers them: they leave by APNs and FCM, made by `push::payload`. There is no
//! union of the kinds: an app reads `kind` first, and leaves a push alone whose kind it does not know.

use utoipa::openapi::schema::{AdditionalProperties, ObjectBuilder, Schema, Type};
use utoipa::openapi::{Components, KnownFormat, Ref, RefOr, SchemaFormat};

use super::words;
use crate::engine::output::WakeKind;

/// The name of a kind's schema.
pub(crate) fn name(kind: WakeKind) -> &'static str {
    match kind {
        WakeKind::Call => "CallPush",
        WakeKind::CallEnded => "CallEndedPush",
        WakeKind::MissedCall => "MissedCallPush",
        WakeKind::Message => "MessagePush",
        WakeKind::Voicemail => "VoicemailPush",
        WakeKind::Expiring => "ExpiringPush",
        WakeKind::Reprovision => "ReprovisionPush",
        WakeKind::Test => "SelfTestPush",
        WakeKind::Refresh => "RefreshPush",
        WakeKind::Proof => "ProofPush",
    }
}

/// What a kind is about.
fn about(kind: WakeKind) -> &'static str {
    match kind {
        WakeKind::Call => "A call waits: attach.",
        WakeKind::CallEnded => "The call is over: stop ringing.",
        WakeKind::MissedCall => "One or more calls were missed; `call` and `caller` are those of the last.",
        WakeKind::Message => "A text waits: attach.",
        WakeKind::Voicemail => "The mailbox changed.",
        WakeKind::Expiring => "The lease ends soon: refresh it, or have the user open the app.",
        WakeKind::Reprovision => "The account has to be handed over again.",
        WakeKind::Test => "A self-test: report its arrival.",
        WakeKind::Refresh => "An app that registers through the service has to renew its registration.",
        WakeKind::Proof => "Return the challenge, so that other pushes may follow.",
    }
}

/// Puts the schemas among the document's components.
pub(super) fn add(components: &mut Components) {
    let mut add = |name: &str, schema: Schema| drop(components.schemas.insert(name.to_owned(), schema.into()));
    add("AnyPush", common(None, "What every push has, whatever its kind. On APNs beside `aps`.").into());
    add("PushAsText", as_text());
    add("Caller", caller());
    add("SealedCaller", sealed_caller());
    add("VoicemailCounts", voicemail_counts());
    for kind in WakeKind::ALL {
        add(name(kind), of_kind(kind));
    }
}

/// The members of one kind.
fn of_kind(kind: WakeKind) -> Schema {
    let object = common(Some(kind), about(kind));
    let call = || text(Some(SchemaFormat::Custom("uuid".to_owned())), "The call, as in the calls about it.");
    match kind {
        WakeKind::Call => object.property("call", call()).required("call").property("caller", told_caller()),
        WakeKind::MissedCall => {
            let object = object.property("missed", number("How many calls it stands for.")).required("missed");
            object.property("call", call()).required("call").property("caller", told_caller())
        }
        WakeKind::CallEnded => {
            let object = object.property("call", call()).required("call");
            object.property("reason", words::told_ends()).required("reason")
        }
        WakeKind::Voicemail => {
            object.property("voicemail", Ref::from_schema_name("VoicemailCounts")).required("voicemail")
        }
        WakeKind::Expiring => {
            let ends = text(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)), "When the lease ends.");
            object.property("lease_ends", ends).required("lease_ends")
        }
        WakeKind::Test => {
            let test = text(Some(SchemaFormat::Custom("uuid".to_owned())), "The self-test to report.");
            object.property("test", test).required("test")
        }
        WakeKind::Proof => object.property("challenge", text(None, "What to return.")).required("challenge"),
        WakeKind::Message | WakeKind::Reprovision | WakeKind::Refresh => object,
    }
    .into()
}

/// The members that all kinds have.
fn common(kind: Option<WakeKind>, about: &str) -> ObjectBuilder {
    ObjectBuilder::new()
        .description(Some(about))
        .property("v", number("The version of the payload: 1. Ignore a push of another one."))
        .required("v")
        .property("kind", words::wake_kinds(kind))
        .required("kind")
        .property("instance", text(None, "The instance it is about."))
        .required("instance")
        .property("expires_at", unix_seconds("When it is worth nothing any more, in seconds since 1970."))
        .required("expires_at")
        .property("attach", text(None, "Where to attach, as `attach.uri` of the hand-over."))
        .required("attach")
        .property("text", text(None, "What the user is to read, where the provider leaves that to the app (FCM)."))
}

/// The same on FCM.
fn as_text() -> Schema {
    let about = "A push as FCM delivers it (`data`): the members of its kind, every value a string; numbers in decimal digits, \
                 objects as JSON text.";
    let member = text(None, "A member as text.");
    let object = ObjectBuilder::new().schema_type(Type::Object).description(Some(about));
    object.additional_properties(Some(AdditionalProperties::RefOr(member))).into()
}

fn caller() -> Schema {
    ObjectBuilder::new()
        .description(Some("Who calls: in clear, and what an opened `SealedCaller` holds."))
        .property("name", text(None, "The display name, if there is one."))
        .property(
            "number",
            text(
                None,
                "The number as an address book has it, or the user part of the URI; missing where none is told.",
            ),
        )
        .into()
}

fn sealed_caller() -> Schema {
    let about = "Who calls, sealed to the device's `caller_key` (HPKE, RFC 9180): base64url without padding, of one length \
                 whoever calls. Opened it is a `Caller` as JSON; docs/client-guide.md says how.";
    ObjectBuilder::new().schema_type(Type::String).description(Some(about)).pattern(Some("^[A-Za-z0-9_-]+$")).into()
}

fn voicemail_counts() -> Schema {
    ObjectBuilder::new()
        .description(Some("Messages in the mailbox, as the PBX told last."))
        .property("new", number("Not heard yet."))
        .required("new")
        .property("old", number("Heard."))
        .required("old")
        .into()
}

/// `caller`: a text or an object. No type, since generators disagree about unions; `caller_in_push` of the instance says which.
fn told_caller() -> Schema {
    let about = "Who calls, if the service tells it: a `Caller` where `caller_in_push` of the instance is `clear`, a \
                 `SealedCaller` where it is `sealed`.";
    ObjectBuilder::new().schema_type(utoipa::openapi::schema::SchemaType::AnyValue).description(Some(about)).into()
}

fn text(format: Option<SchemaFormat>, about: &str) -> RefOr<Schema> {
    RefOr::T(ObjectBuilder::new().schema_type(Type::String).format(format).description(Some(about)).into())
}

fn number(about: &str) -> Schema {
    integer(KnownFormat::Int32, about)
}

fn unix_seconds(about: &str) -> Schema {
    integer(KnownFormat::Int64, about)
}

fn integer(format: KnownFormat, about: &str) -> Schema {
    let format = SchemaFormat::KnownFormat(format);
    ObjectBuilder::new().schema_type(Type::Integer).format(Some(format)).description(Some(about)).into()
}
