//! What a push says to the app: the same members for every provider, in the shape each wants.

use serde_json::{Map, Value, json};

use super::sealed;
use crate::engine::output::{PushJob, ToldCaller, WakeDetail, WakeKind};

/// The version of the payload; apps ignore versions they do not know.
const VERSION: u32 = 1;

/// How much a payload tells.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detail {
    /// Everything the engine allows.
    Full,
    /// Without the caller: a name is as long as the caller likes, and a push without it is better than none.
    NoCaller,
}

/// The members as JSON values.
pub(crate) fn members(job: &PushJob, detail: Detail) -> Map<String, Value> {
    let mut members = Map::new();
    let mut put = |name: &str, value: Value| drop(members.insert(name.to_owned(), value));
    put("v", json!(VERSION));
    put("kind", json!(job.kind.as_str()));
    if let Some(call) = job.call {
        put("call", json!(call.to_string()));
    }
    put("instance", json!(job.instance.to_string()));
    put("expires_at", json!(job.expires_at.unix_seconds()));
    put("attach", json!(job.attach));
    let told = job.caller.as_ref().filter(|_| detail == Detail::Full);
    if let Some(caller) = told.and_then(|told| caller(job, told)) {
        put("caller", caller);
    }
    match job.detail {
        WakeDetail::None => {}
        WakeDetail::Voicemail { new, old } => put("voicemail", json!({ "new": new, "old": old })),
        WakeDetail::Expiring { lease_ends, .. } => put("lease_ends", json!(lease_ends.rfc3339())),
        WakeDetail::Missed(count) => put("missed", json!(count)),
        WakeDetail::Ended(reason) => put("reason", json!(reason)),
        WakeDetail::Test(test) => put("test", json!(test.to_string())),
        WakeDetail::Proof(challenge) => put("challenge", json!(challenge.text())),
    }
    members
}

fn caller(job: &PushJob, told: &ToldCaller) -> Option<Value> {
    match told {
        ToldCaller::Clear(caller) => {
            let mut told = Map::new();
            if let Some(name) = &caller.name {
                told.insert("name".to_owned(), json!(name));
            }
            if !caller.number.is_empty() {
                told.insert("number".to_owned(), json!(caller.number));
            }
            (!told.is_empty()).then_some(Value::Object(told))
        }
        ToldCaller::Sealed(key, caller) => {
            let bound = sealed::Bound { tenant: &job.tenant, instance: job.instance, call: job.call? };
            sealed::seal(key, caller, bound).map(Value::String)
        }
    }
}

/// The members with what the user is to read, for providers whose pushes are shown by the app itself. A push without
/// `text` is for the app alone; a call has its own screen.
pub(crate) fn members_with_text(job: &PushJob, texts: &Texts, detail: Detail) -> Map<String, Value> {
    let mut members = members(job, detail);
    if is_shown(job) {
        members.insert("text".to_owned(), json!(texts.shown(job)));
    }
    members
}

/// The members as FCM wants `data`: every value a string; the caller as JSON text.
pub(crate) fn text_members(job: &PushJob, texts: &Texts, detail: Detail) -> Map<String, Value> {
    let mut members = members_with_text(job, texts, detail);
    for value in members.values_mut() {
        if !value.is_string() {
            *value = Value::String(value.to_string());
        }
    }
    members
}

/// Builds a body of at most `most` bytes, without the caller if it must be. `None` if even that is too large.
pub(crate) fn within(most: usize, build: impl Fn(Detail) -> Vec<u8>) -> Option<Vec<u8>> {
    [Detail::Full, Detail::NoCaller].into_iter().map(build).find(|body| body.len() <= most)
}

/// Whether the user is to read something. What only silences a ringing phone, or gives the app a chance to act by
/// itself, is not shown.
pub(crate) fn is_shown(job: &PushJob) -> bool {
    match job.kind {
        WakeKind::Call | WakeKind::CallEnded | WakeKind::Refresh | WakeKind::Proof => false,
        WakeKind::Expiring => !matches!(job.detail, WakeDetail::Expiring { visible: false, .. }),
        WakeKind::MissedCall | WakeKind::Message | WakeKind::Voicemail | WakeKind::Reprovision | WakeKind::Test => true,
    }
}

/// What users read where the app does not replace it (a notification service extension may: `mutable-content`).
#[derive(Clone, Debug, Default)]
pub struct Texts {
    own: Vec<(WakeKind, String)>,
}

impl Texts {
    /// A tenant's own texts; the other kinds have ours, in English.
    #[must_use]
    pub fn new(own: Vec<(WakeKind, String)>) -> Self {
        Self { own }
    }

    /// What the user reads of this push. One that stands for several calls says how many, in figures.
    pub(crate) fn shown(&self, job: &PushJob) -> String {
        let text = self.of(job.kind);
        match job.detail {
            WakeDetail::Missed(count @ 2..) => format!("{text} ({count})"),
            _ => text.to_owned(),
        }
    }

    pub(crate) fn of(&self, kind: WakeKind) -> &str {
        let own = self.own.iter().find(|(of, _)| *of == kind);
        own.map_or_else(|| headline(kind), |(_, text)| text)
    }
}

fn headline(kind: WakeKind) -> &'static str {
    match kind {
        WakeKind::Call => "Incoming call",
        WakeKind::CallEnded => "Call ended",
        WakeKind::MissedCall => "Missed call",
        WakeKind::Message => "New message",
        WakeKind::Voicemail => "New voicemail",
        WakeKind::Expiring => "Open the app to keep receiving calls",
        WakeKind::Reprovision => "Open the app to receive calls again",
        WakeKind::Test => "Test notification",
        WakeKind::Refresh | WakeKind::Proof => "Staying reachable",
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::job;
    use super::*;
    use crate::engine::output::Caller;

    #[test]
    fn the_payload_has_the_members_of_the_contract_and_no_others() {
        let mut job = job(WakeKind::Call);
        job.caller = Some(ToldCaller::Clear(Caller { name: Some("Ada".to_owned()), number: "+1".to_owned() }));
        let members = Value::Object(members(&job, Detail::Full));
        let expected = json!({
            "v": 1, "kind": "call", "call": job.call.expect("a call").to_string(), "instance": job.instance.to_string(),
            "expires_at": job.expires_at.unix_seconds(), "attach": job.attach,
            "caller": { "name": "Ada", "number": "+1" },
        });
        assert_eq!(members, expected);
    }

    #[test]
    fn each_kind_tells_what_is_its_own() {
        let test = uuid::Uuid::from_u128(9);
        let lease_ends = crate::clock::WallTime::from_unix_millis(1_795_550_400_000);
        for (kind, detail, member, value) in [
            (WakeKind::CallEnded, WakeDetail::Ended("cancelled"), "reason", json!("cancelled")),
            (WakeKind::MissedCall, WakeDetail::Missed(3), "missed", json!(3)),
            (WakeKind::Voicemail, WakeDetail::Voicemail { new: 2, old: 5 }, "voicemail", json!({ "new": 2, "old": 5 })),
            (
                WakeKind::Expiring,
                WakeDetail::Expiring { lease_ends, visible: true },
                "lease_ends",
                json!(lease_ends.rfc3339()),
            ),
            (WakeKind::Test, WakeDetail::Test(test), "test", json!(test.to_string())),
        ] {
            let bare = members(&job(kind), Detail::Full);
            let mut told = members(&PushJob { detail, ..job(kind) }, Detail::Full);
            assert_eq!(told.remove(member), Some(value));
            assert!(told.keys().eq(bare.keys()), "{kind:?}");
        }
    }

    #[test]
    fn a_text_stands_where_the_user_is_to_read_it_and_is_the_tenants_own_if_it_has_one() {
        let texts = Texts::new(vec![(WakeKind::Message, "Sie haben Post".to_owned())]);
        let text = |job: &PushJob| members_with_text(job, &texts, Detail::Full).remove("text");
        assert_eq!(text(&job(WakeKind::Message)), Some(json!("Sie haben Post")));
        assert_eq!(text(&job(WakeKind::MissedCall)), Some(json!("Missed call")));
        let missed = |count| PushJob { detail: WakeDetail::Missed(count), ..job(WakeKind::MissedCall) };
        assert_eq!(text(&missed(1)), Some(json!("Missed call")));
        assert_eq!(text(&missed(3)), Some(json!("Missed call (3)")));
        let lease_ends = crate::clock::WallTime::from_unix_millis(0);
        let expiring =
            |visible| PushJob { detail: WakeDetail::Expiring { lease_ends, visible }, ..job(WakeKind::Expiring) };
        assert!(text(&expiring(true)).is_some());
        for silent in [expiring(false), job(WakeKind::Call), job(WakeKind::CallEnded)] {
            assert_eq!(text(&silent), None);
        }
    }

    #[test]
    fn the_texts_in_the_comments_of_the_file_we_ship_are_ours() {
        let shipped = include_str!("../../config/reveille.toml");
        let shown = WakeKind::ALL.into_iter().filter(|kind| is_shown(&job(*kind)));
        for kind in shown {
            let line = format!("# {} = \"{}\"\n", kind.as_str(), headline(kind));
            assert!(shipped.contains(&line), "{line}");
        }
    }

    #[test]
    fn fcm_data_is_all_strings() {
        let mut job = job(WakeKind::Voicemail);
        job.detail = WakeDetail::Voicemail { new: 1, old: 0 };
        job.caller = Some(ToldCaller::Clear(Caller { name: None, number: "+1".to_owned() }));
        let members = text_members(&job, &Texts::default(), Detail::Full);
        assert!(members.values().all(Value::is_string));
        assert_eq!(members["v"], "1");
        assert_eq!(members["voicemail"], r#"{"new":1,"old":0}"#);
        assert_eq!(members["caller"], r#"{"number":"+1"}"#);
    }

    #[test]
    fn a_caller_too_long_for_the_push_is_left_out_and_nothing_else() {
        let mut job = job(WakeKind::Call);
        let build = |job: &PushJob, detail| Value::Object(members(job, detail)).to_string().into_bytes();
        let bare = build(&job, Detail::Full);
        job.caller = Some(ToldCaller::Clear(Caller { name: Some("x".repeat(9000)), number: "1".to_owned() }));
        assert_eq!(within(4096, |detail| build(&job, detail)), Some(bare));
        job.attach = "x".repeat(9000);
        assert_eq!(within(4096, |detail| build(&job, detail)), None);
    }
}
