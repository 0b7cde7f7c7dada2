//! What a push says to the app: the same members for every provider, in the shape each wants.

use serde_json::{Map, Value, json};

use crate::engine::output::{PushJob, WakeKind};

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
    let mut put = |name: &str, value: Value| members.insert(name.to_owned(), value);
    put("v", json!(VERSION));
    put("kind", json!(job.kind.as_str()));
    if let Some(call) = job.call {
        put("call", json!(call.to_string()));
    }
    put("instance", json!(job.instance.to_string()));
    put("expires_at", json!(job.expires_at.unix_seconds()));
    put("attach", json!(job.attach));
    if let (Some(caller), Detail::Full) = (&job.caller, detail) {
        let mut told = Map::new();
        if let Some(name) = &caller.name {
            told.insert("name".to_owned(), json!(name));
        }
        told.insert("number".to_owned(), json!(caller.number));
        put("caller", Value::Object(told));
    }
    members
}

/// The members as FCM wants `data`: every value a string; the caller as JSON text.
pub(crate) fn text_members(job: &PushJob, detail: Detail) -> Map<String, Value> {
    let mut members = members(job, detail);
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

/// What the user reads where the app does not replace it (a notification service extension may: `mutable-content`).
pub(crate) fn headline(kind: WakeKind) -> &'static str {
    match kind {
        WakeKind::Call => "Incoming call",
        WakeKind::CallEnded => "Call ended",
        WakeKind::MissedCall => "Missed call",
        WakeKind::Message => "New message",
        WakeKind::Voicemail => "New voicemail",
        WakeKind::Expiring => "Open the app to keep receiving calls",
        WakeKind::Reprovision => "Open the app to receive calls again",
        WakeKind::Test => "Test notification",
        WakeKind::Refresh => "Staying reachable",
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
        job.caller = Some(Caller { name: Some("Ada".to_owned()), number: "+1".to_owned() });
        let members = Value::Object(members(&job, Detail::Full));
        let expected = json!({
            "v": 1, "kind": "call", "call": job.call.expect("a call").to_string(), "instance": job.instance.to_string(),
            "expires_at": job.expires_at.unix_seconds(), "attach": job.attach,
            "caller": { "name": "Ada", "number": "+1" },
        });
        assert_eq!(members, expected);
    }

    #[test]
    fn fcm_data_is_all_strings() {
        let mut job = job(WakeKind::Voicemail);
        job.caller = Some(Caller { name: None, number: "+1".to_owned() });
        let members = text_members(&job, Detail::Full);
        assert!(members.values().all(Value::is_string));
        assert_eq!(members["v"], "1");
        assert_eq!(members["caller"], r#"{"number":"+1"}"#);
    }

    #[test]
    fn a_caller_too_long_for_the_push_is_left_out_and_nothing_else() {
        let mut job = job(WakeKind::Call);
        let build = |job: &PushJob, detail| Value::Object(members(job, detail)).to_string().into_bytes();
        let bare = build(&job, Detail::Full);
        job.caller = Some(Caller { name: Some("x".repeat(9000)), number: "1".to_owned() });
        assert_eq!(within(4096, |detail| build(&job, detail)), Some(bare));
        job.attach = "x".repeat(9000);
        assert_eq!(within(4096, |detail| build(&job, detail)), None);
    }
}
