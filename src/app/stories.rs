//! Stories on their way to the operator: asked of every shard, and one line of the log each.

use tracing::info;

use crate::engine::ids::{CallUuid, InstanceId, ShardId};
use crate::engine::input::Command;
use crate::engine::output::{Answer, CallOutcome, Step};
use crate::engine::story::Story;
use crate::ops;
use crate::router::Router;
use crate::telemetry::Redacted;

/// Asks every shard for its stories.
pub(super) fn ask(router: Router) -> ops::AskStories {
    Box::new(move |call| {
        let router = router.clone();
        Box::pin(async move {
            let mut all = Vec::new();
            for shard in 0..router.placement().shards() {
                let command = Command::Stories { call, most: ops::CALLS_MAX };
                let Answer::Stories(stories) = router.ask(ShardId(shard), command).await else { return None };
                all.extend(stories);
            }
            Some(ops::calls::newest(all))
        })
    })
}

/// The one line of a call.
pub(super) fn log(story: &Story) {
    let ms =
        |kind: fn(Step) -> bool| story.first(kind).map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
    info!(
        call = %Redacted(story.call),
        instance = %Redacted(story.instance),
        outcome = story.outcome.map(CallOutcome::as_str),
        reason = story.reason(),
        why = story.why(),
        wake_sent_ms = ms(|step| step == Step::WakeSent),
        wake_accepted_ms = ms(|step| step == Step::WakeAccepted),
        attached_ms = ms(|step| step == Step::Attached),
        forwarded_ms = ms(|step| step == Step::Forwarded),
        ringing_ms = ms(|step| step == Step::Ringing),
        answered_ms = ms(|step| step == Step::Answered),
        ended_ms = ms(|step| matches!(step, Step::Ended(_))),
        "call ended"
    );
}

/// The line of further calls that ended alike: at most one a minute for an instance and reason.
pub(super) fn log_repeated(instance: &InstanceId, call: &CallUuid, reason: &str, count: u32) {
    info!(first_call = %Redacted(call), instance = %Redacted(instance), reason, count, "calls ended alike");
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::clock::WallTime;
    use crate::engine::input::Input;
    use crate::engine::limits::Limits;
    use crate::engine::output::Refusal;
    use crate::engine::placement::Placement;
    use crate::engine::story::Moment;

    #[tokio::test]
    async fn every_shard_is_asked_and_the_newest_call_comes_first() {
        let (router, mut inboxes) = Router::new(Placement::new(3, [1, 2]), &Limits::default());
        let replies = router.replies();
        let shards = async {
            for (number, inbox) in (1..).zip(&mut inboxes) {
                let Some(Input::Command(Command::Stories { call: None, most }, to)) = inbox.traffic.recv().await else {
                    panic!("another question")
                };
                assert_eq!(most, ops::CALLS_MAX);
                replies.answer(to, Answer::Stories(vec![story(number)]));
            }
        };
        let (told, ()) = tokio::join!(ask(router.clone())(None), shards);
        let told: Vec<_> = told.expect("all have answered").iter().map(|story| story.call.0.as_u128()).collect();
        assert_eq!(told, [3, 2, 1]);
    }

    #[tokio::test]
    async fn a_shard_without_time_leaves_no_half_answer() {
        let (router, mut inboxes) = Router::new(Placement::new(1, [1, 2]), &Limits::default());
        let replies = router.replies();
        let shard = async {
            if let Some(Input::Command(_, to)) = inboxes[0].traffic.recv().await {
                replies.answer(to, Answer::Refused(Refusal::Busy { after: Duration::from_secs(1) }));
            }
        };
        assert!(tokio::join!(ask(router.clone())(None), shard).0.is_none());
    }

    #[test]
    fn a_call_has_one_line_with_its_reason_and_the_time_of_each_step_and_no_id_in_clear() {
        let story = story(1);
        let text = logged(|| log(&story));
        let line: serde_json::Value = serde_json::from_str(text.trim()).expect("one line");
        assert_eq!((&line["message"], &line["level"]), (&"call ended".into(), &"INFO".into()));
        assert_eq!((&line["outcome"], &line["reason"]), (&"no-device".into(), &"no-device".into()));
        assert_eq!(line["why"], "woken, never attached within 45 s");
        let times = ["wake_sent_ms", "wake_accepted_ms", "ended_ms"].map(|name| line[name].as_u64());
        assert_eq!(times, [Some(2), Some(90), Some(45_000)]);
        assert!(line.get("attached_ms").is_none() && line.get("answered_ms").is_none(), "{line}");
        for id in [story.call.to_string(), story.instance.to_string()] {
            assert!(!text.contains(&id), "{text}");
        }
    }

    #[test]
    fn calls_that_are_only_counted_have_one_line_with_their_number_and_no_id_in_clear() {
        let story = story(1);
        let text = logged(|| log_repeated(&story.instance, &story.call, "limited", 1_999));
        let line: serde_json::Value = serde_json::from_str(text.trim()).expect("one line");
        assert_eq!((&line["message"], &line["level"]), (&"calls ended alike".into(), &"INFO".into()));
        assert_eq!((&line["reason"], &line["count"]), (&"limited".into(), &1_999.into()));
        for id in [story.call.to_string(), story.instance.to_string()] {
            assert!(!text.contains(&id), "{text}");
        }
    }

    /// What goes to the log meanwhile, as JSON.
    fn logged(act: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let layer = tracing_subscriber::fmt::layer().with_writer(move || writer.clone()).json().flatten_event(true);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), act);
        let bytes = lines.0.lock().expect("no one panics with it").clone();
        String::from_utf8(bytes).expect("JSON")
    }

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("no one panics with it").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn story(number: u128) -> Story {
        let moment = |(step, ms)| Moment { step, after: Duration::from_millis(ms) };
        let steps =
            [(Step::Invited, 0), (Step::WakeSent, 2), (Step::WakeAccepted, 90), (Step::Ended("no-device"), 45_000)];
        Story {
            instance: InstanceId::mint(ShardId(0), [1; 16]),
            call: CallUuid(uuid::Uuid::from_u128(number)),
            began: WallTime::from_unix_millis(1_795_550_400_000)
                + Duration::from_secs(u64::try_from(number).expect("small")),
            moments: steps.map(moment).into(),
            omitted: 0,
            outcome: Some(CallOutcome::NoDevice),
            repeated: 0,
        }
    }
}
