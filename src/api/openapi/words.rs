//! The vocabularies of the API: members that are one word of a list.
//!
//! A room of its own because the two directions differ. A word in an *answer* is an open string: its known values are listed,
//! and a client that meets another one must not fail, since words are added within a version. A word in a *request* is a
//! closed enumeration with a name of its own, since the service refuses every other one.

use serde_json::json;
use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaType, Type};
use utoipa::openapi::{Components, Ref, RefOr};

use super::super::problem::Kind;
use super::super::{account, preferences, secret, traces};
use crate::engine::audit::Cause;
use crate::engine::caller_key::CallerSuite;
use crate::engine::output::{
    CallState, PushOutcome, RegistrationReason, RegistrationState, Step, TraceKind, Unsent, WakeKind,
};
use crate::engine::policy::{CallerInPush, Provider};
use crate::engine::proof::ProofState;

/// Where the known values of an open string stand for programs.
pub(crate) const KNOWN: &str = "x-extensible-enum";

/// The type of the answer to a fault of the service (RFC 9457 §4.2.1).
const BLANK: &str = "about:blank";

/// The `type` member of problem details.
pub(crate) fn problem_types() -> Schema {
    let kinds = Kind::ALL.map(Kind::urn).into_iter().chain([BLANK]);
    open(kinds, "Which problem; the only member to branch on.")
}

/// Where a registration may stand.
pub(crate) fn registration_states() -> Schema {
    let about = "Where it stands; `failing` is tried again by and by.";
    open(RegistrationState::ALL.map(RegistrationState::as_str), about)
}

/// Why a registration fails or waits.
pub(crate) fn registration_reasons() -> Schema {
    let about = "Why it fails or waits, or what is unusual about it; null where there is nothing to say.";
    open_or_null(RegistrationReason::ALL.map(RegistrationReason::as_str), about)
}

/// Why a registrar refused a hand-over.
pub(crate) fn refusal_reasons() -> Schema {
    use RegistrationReason::{ChallengeUnsupported, NoMatchingHa1, Refused, Rejected};
    let known = [Refused, Rejected, ChallengeUnsupported, NoMatchingHa1];
    open(known.map(RegistrationReason::as_str), "`registrar-refused`: why.")
}

/// How a change of place may stand.
pub(crate) fn move_states() -> Schema {
    let about =
        "`waiting`: the new place has not decided yet. `failed`: it refused, or was given up; the former place stays.";
    open(["waiting", "failed"], about)
}

/// Where a call may stand.
pub(crate) fn call_states() -> Schema {
    open(CallState::ALL.map(CallState::as_str), "Where it stands.")
}

/// Why a call may have ended.
pub(crate) fn call_ends() -> Schema {
    open_or_null(Step::ENDS, "Why it ended; null while it has not.")
}

/// What may happen to a call.
pub(crate) fn steps() -> Schema {
    open(Step::ALL.map(Step::as_str), "What happened.")
}

/// Why a step of a call may have happened.
pub(crate) fn step_reasons() -> Schema {
    let about = "Why, for the events that have a reason: `wake-failed`, `attach-refused`, `ended`.";
    open(step_reason_words(), about)
}

/// The reasons of all steps.
pub(crate) fn step_reason_words() -> Vec<&'static str> {
    let unsent = Unsent::ALL.map(Unsent::as_str);
    let all = PushOutcome::FAULTS.into_iter().chain(unsent).chain(Step::ATTACH_FAULTS).chain(Step::ENDS);
    let mut words = Vec::new();
    all.for_each(|word| {
        if !words.contains(&word) {
            words.push(word);
        }
    });
    words
}

/// How a proof may stand.
pub(crate) fn proof_states() -> Schema {
    let about = "How far the proof of the push token is; `pending` and `contested`: no call is pushed.";
    open(ProofState::ALL.map(ProofState::as_str), about)
}

/// How much a push may tell of the caller.
pub(crate) fn callers_in_push() -> Schema {
    open(CallerInPush::ALL.map(CallerInPush::as_str), "How much its pushes tell of the caller.")
}

/// What an entry of a trace may be.
pub(crate) fn trace_kinds() -> Schema {
    open(TraceKind::ALL.map(TraceKind::as_str), "What it is.")
}

/// What a trace in force may cover.
pub(crate) fn trace_scopes_in_force() -> Schema {
    let items = RefOr::T(open(traces::SCOPES, "One thing consented to."));
    utoipa::openapi::ArrayBuilder::new().items(items).description(Some("To what.")).into()
}

/// Why an instance may have been erased.
pub(crate) fn causes() -> Schema {
    open(Cause::ALL.map(Cause::as_str), "`instance-erased`: why it was erased.")
}

/// Why an administrator's order erased.
pub(crate) fn order_causes() -> Schema {
    let about = "`administrator` for a device or an instance.";
    open([Cause::OffBoarded, Cause::Administrator].map(Cause::as_str), about)
}

/// What may become of a binding in the foreground.
pub(crate) fn parted_bindings() -> Schema {
    open(["released", "kept"], "What became of the binding.")
}

/// Why a self-test's push may have failed.
pub(crate) fn push_faults() -> Schema {
    open_or_null(PushOutcome::FAULTS, "Why the provider did not take the push; null where it did, or has not answered.")
}

/// Whether a secret is held.
pub(crate) fn presences() -> Schema {
    open(["present", "absent"], "Whether it is held; the value itself is never told.")
}

/// A mode, as it is held.
pub(crate) fn held_modes() -> Schema {
    open(preferences::MODES, "As at hand-over.")
}

/// A way to hand calls over, as it is held.
pub(crate) fn held_hand_overs() -> Schema {
    open(preferences::HAND_OVERS, "As at hand-over.")
}

/// Where news of the mailbox come from, as it is held.
pub(crate) fn held_voicemails() -> Schema {
    open(preferences::VOICEMAILS, "As at hand-over.")
}

/// From where calls are taken, as it is held.
pub(crate) fn held_trunk_sources() -> Schema {
    open(account::TRUNK_SOURCES, "As at hand-over.")
}

/// A style of Contact, as it is held.
pub(crate) fn held_contact_styles() -> Schema {
    open(account::CONTACT_STYLES, "As at hand-over.")
}

/// An algorithm of HA1, as it is held.
pub(crate) fn held_algorithms() -> Schema {
    open(secret::ALGORITHMS, "Which hash.")
}

/// A suite, as it is held.
pub(crate) fn held_suites() -> Schema {
    open(CallerSuite::ALL.map(CallerSuite::as_str), "How the caller is sealed.")
}

/// What a push target is for, as it is held.
pub(crate) fn held_purposes() -> Schema {
    open(["call", "other"], "What it is for.")
}

/// Who carries pushes, as it is held.
pub(crate) fn held_providers() -> Schema {
    open(Provider::ALL.map(Provider::as_str), "Who carries it.")
}

/// A platform: any name, of which two are known.
pub(crate) fn platforms() -> Schema {
    let about = "A name of up to 32 characters.";
    described(["ios", "android"], about, SchemaType::new(Type::String)).min_length(Some(1)).max_length(Some(32)).into()
}

/// Which kind a push is.
pub(crate) fn wake_kinds(of: Option<WakeKind>) -> Schema {
    match of {
        None => open(WakeKind::ALL.map(WakeKind::as_str), "Which kind; ignore a push of a kind that you do not know."),
        Some(kind) => open([kind.as_str()], "Which kind: this one."),
    }
}

/// Why the call of a `call-ended` push is over.
pub(crate) fn told_ends() -> Schema {
    open(Step::TOLD_ENDS, "Why it is over.")
}

/// The closed enumerations of requests, by name.
pub(crate) fn closed() -> Vec<(&'static str, Schema)> {
    let suites = CallerSuite::ALL.map(CallerSuite::as_str);
    vec![
        ("Mode", only(&preferences::MODES, "How long the registration is kept.")),
        ("CallHandOver", only(&preferences::HAND_OVERS, "How a call is handed to the woken device.")),
        ("VoicemailSource", only(&preferences::VOICEMAILS, "Where news of the mailbox come from.")),
        ("ForegroundBinding", only(&preferences::BINDINGS, "What is left of the binding in the foreground.")),
        ("TrunkSources", only(&account::TRUNK_SOURCES, "From where calls are taken.")),
        ("ContactStyle", only(&account::CONTACT_STYLES, "What the user part of our Contact is.")),
        ("DigestAlgorithm", only(&secret::ALGORITHMS, "Which hash.")),
        ("TraceScope", only(&traces::SCOPES, "What is written down.")),
        ("CallerSuite", only(&suites, "How to seal the caller.")),
    ]
}

/// Puts the closed enumerations among the document's components.
pub(crate) fn add_closed(components: &mut Components) {
    components.schemas.extend(closed().into_iter().map(|(name, schema)| (name.to_owned(), schema.into())));
}

macro_rules! closed_member {
    ($($(#[$doc:meta])* $function:ident => $name:literal, $about:literal;)*) => {$(
        $(#[$doc])*
        pub(crate) fn $function() -> RefOr<Schema> {
            let mut reference = Ref::from_schema_name($name);
            reference.description = $about.to_owned();
            reference.into()
        }
    )*};
}

closed_member! {
    /// The member `mode` of a request.
    mode => "Mode", "Registration mode: `always` (for the whole lease; the default), `background` (until the app says it is in \
        the foreground) or `takeover` (as `background`, and our Contact takes the place of those there are until then, for PBXs \
        that allow one).";
    /// The member `hand_over` of a request.
    hand_over => "CallHandOver", "How a call is handed to the woken device: `relay` (it attaches here; the default) or \
        `reregister` (it registers at its PBX by itself, for PBXs that fork late).";
    /// The member `voicemail` of a request.
    voicemail => "VoicemailSource", "Where news of the mailbox come from: `unsolicited` (as the PBX sends them; the default) or \
        `subscribe` (we subscribe, RFC 3842).";
    /// The member `binding` of a request.
    binding => "ForegroundBinding", "`release` (the default): our Contact is removed at the registrar. `keep`: it stays there \
        until its granted expiry, and calls go on reaching the instance.";
    /// The member `trunk_sources` of a request.
    trunk_sources => "TrunkSources", "From where calls are taken: `any` (the unguessable Contact is the key; the default) or \
        `registrar` (only from addresses the registrar and the outbound proxy resolve to).";
    /// The member `contact_style` of a request.
    contact_style => "ContactStyle", "What our Contact's user part is: `capability` (an unguessable name; the default) or \
        `username` (the account's own, for registrars that insist on it; the unguessable name is then a URI parameter).";
    /// The member `algorithm` of a request.
    algorithm => "DigestAlgorithm", "Which hash.";
    /// The member `suite` of a request.
    suite => "CallerSuite", "How to seal.";
}

/// The member `scope` of a request.
pub(crate) fn trace_scopes() -> Schema {
    let about = "`sip`: SIP messages, redacted. `decisions`: what was decided, and why. `identities`: names, numbers, hosts and \
                 addresses in the messages too. At least one of the first two.";
    let items = Ref::from_schema_name("TraceScope");
    utoipa::openapi::ArrayBuilder::new().items(items).description(Some(about)).into()
}

fn open(known: impl IntoIterator<Item = &'static str>, about: &str) -> Schema {
    described(known, about, SchemaType::new(Type::String)).into()
}

fn open_or_null(known: impl IntoIterator<Item = &'static str>, about: &str) -> Schema {
    described(known, about, SchemaType::from_iter([Type::String, Type::Null])).into()
}

fn described(known: impl IntoIterator<Item = &'static str>, about: &str, kind: SchemaType) -> ObjectBuilder {
    let known: Vec<_> = known.into_iter().collect();
    let about = format!("{about} Known values: `{}`; others may be added.", known.join("`, `"));
    let known = Extensions::builder().add(KNOWN, json!(known)).build();
    ObjectBuilder::new().schema_type(kind).description(Some(about)).extensions(Some(known))
}

fn only(names: &[&'static str], about: &str) -> Schema {
    let names = names.iter().copied();
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names)).description(Some(about)).into()
}
