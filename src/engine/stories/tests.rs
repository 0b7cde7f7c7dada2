//! The room alone: what it keeps, for how long, and what it drops.

use super::*;
use crate::clock::WallTime;
use crate::engine::ids::ShardId;

#[test]
fn a_story_has_its_steps_in_order_with_their_times() {
    let mut room = Room::new(10);
    room.note(1, Step::Invited);
    room.pass(millis(3));
    room.note(1, Step::WakeSent);
    room.pass(millis(1_500));
    room.note(1, Step::Attached);
    let story = room.story(1);
    assert_eq!(steps(&story), [(Step::Invited, 0), (Step::WakeSent, 3), (Step::Attached, 1_503)]);
    assert_eq!(story.began.rfc3339(), "2026-11-24T20:00:00Z");
    assert_eq!(story.at(&story.moments[2]).rfc3339(), "2026-11-24T20:00:01Z");
    assert_eq!(room.tally.stages, [(Stage::PushSent, millis(3))]);
}

#[test]
fn an_ended_story_is_handed_out_once_and_forgotten_after_its_time() {
    let mut room = Room::new(10);
    room.note(1, Step::Invited);
    assert!(room.stories.poll_ended().is_none());
    room.pass(secs(45));
    room.note(1, Step::Ended("no-device"));
    room.stories.note_outcome(instance(), call(1), CallOutcome::NoPush);
    let told = room.stories.poll_ended().expect("it is over");
    assert_eq!((told.reason(), told.outcome), (Some("no-device"), Some(CallOutcome::NoPush)));
    assert!(room.stories.poll_ended().is_none());

    room.pass(ENDED_KEPT - millis(1));
    assert_eq!(room.story(1).moments.len(), 2);
    // What comes late is told, but lengthens nothing.
    room.note(1, Step::WakeAccepted);
    room.note(1, Step::Ended("cancelled"));
    assert_eq!(room.story(1).moments.len(), 4);
    assert!(room.stories.poll_ended().is_none());
    room.pass(millis(1));
    assert!(room.stories.of(instance(), call(1)).is_none());
    room.assert_empty();
}

#[test]
fn a_story_without_an_end_is_forgotten_long_after_its_last_step() {
    let mut room = Room::new(10);
    room.note(1, Step::Invited);
    room.pass(UNENDED_KEPT - secs(1));
    room.note(1, Step::Ringing);
    room.pass(UNENDED_KEPT - secs(1));
    assert_eq!(room.story(1).moments.len(), 2);
    room.pass(secs(1));
    room.assert_empty();
}

#[test]
fn the_middle_of_a_long_story_is_left_out() {
    let mut room = Room::new(10);
    for _ in 0..STEPS_MAX {
        room.note(1, Step::Forwarded);
        room.pass(millis(1));
        room.note(1, Step::FlowLost);
        room.pass(millis(1));
    }
    let story = room.story(1);
    assert_eq!((story.moments.len(), story.omitted), (STEPS_MAX, u32::try_from(STEPS_MAX).expect("small")));
    let last = u64::try_from(2 * STEPS_MAX - 1).expect("small");
    assert_eq!(steps(&story)[..2], [(Step::Forwarded, 0), (Step::FlowLost, 1)]);
    assert_eq!(steps(&story)[STEPS_MAX - 2..], [(Step::Forwarded, last - 1), (Step::FlowLost, last)]);
    assert_eq!(steps(&story)[FIRST_STEPS_KEPT - 1].1, u64::try_from(FIRST_STEPS_KEPT - 1).expect("small"));
}

#[test]
fn a_step_that_repeats_the_last_one_is_only_counted() {
    let mut room = Room::new(10);
    room.note(1, Step::Invited);
    for _ in 0..1_000 {
        room.note(1, Step::AttachRefused("wrong-token"));
    }
    assert_eq!(steps(&room.story(1)), [(Step::Invited, 0), (Step::AttachRefused("wrong-token"), 0)]);
    assert_eq!(room.story(1).omitted, 999);
}

#[test]
fn when_full_the_oldest_ended_story_goes_first_and_a_running_one_last() {
    let mut room = Room::new(3);
    for number in 1..=3 {
        room.note(number, Step::Invited);
        room.pass(secs(1));
    }
    room.note(3, Step::Ended("cancelled"));
    room.pass(secs(1));
    room.note(2, Step::Answered);
    room.note(4, Step::Invited);
    assert_eq!(room.kept(), [4, 2, 1], "the call that ended first is forgotten");
    room.note(5, Step::Invited);
    assert_eq!(room.kept(), [5, 4, 1]);
    room.note(6, Step::Invited);
    assert_eq!(room.kept(), [6, 5, 4], "none is over: the one that was silent longest");
}

#[test]
fn an_invite_after_the_end_begins_anew() {
    let mut room = Room::new(3);
    room.note(1, Step::Invited);
    room.note(1, Step::Ended("failed"));
    room.pass(secs(2));
    room.note(1, Step::Invited);
    assert_eq!(steps(&room.story(1)), [(Step::Invited, 0)]);
    assert!(room.stories.poll_ended().is_none(), "the former one is gone");
}

#[test]
fn the_newest_stories_come_first_and_a_call_can_be_asked_for() {
    let mut room = Room::new(10);
    for number in 1..=3 {
        room.note(number, Step::Invited);
    }
    room.stories.note(other(), call(1), Step::Invited, &mut room.tally, room.now);
    assert_eq!(room.kept(), [1, 3, 2, 1]);
    assert_eq!(room.stories.newest(None, 2).len(), 2);
    let of_one: Vec<_> = room.stories.newest(Some(call(1)), 9).into_iter().map(|story| story.instance).collect();
    assert_eq!(of_one, [other(), instance()], "two phones of one call");
}

#[test]
fn private_media_is_remembered_until_the_instance_is_forgotten() {
    let mut room = Room::new(10);
    assert!(!room.stories.private_media(instance()));
    room.stories.note_private_media(instance());
    room.pass(UNENDED_KEPT);
    assert!(room.stories.private_media(instance()));
    room.stories.forget(instance());
    assert!(!room.stories.private_media(instance()));
    room.assert_empty();
}

#[test]
fn calls_that_end_alike_are_one_story_and_the_rest_is_counted_and_told_once_a_minute() {
    let mut room = Room::new(100);
    for number in 1..=500 {
        room.note(number, Step::Invited);
        room.note(number, Step::WakeFailed("over-budget"));
        room.note(number, Step::Ended("limited"));
        room.pass(secs(1));
    }
    assert_eq!((room.kept(), room.story(1).repeated), (vec![1], 499));
    assert_eq!(room.stories.poll_ended().map(|story| story.call), Some(call(1)));
    assert!(room.stories.poll_ended().is_none(), "one line");
    let told = room.repeated();
    assert!((8..=9).contains(&told.len()), "{told:?}");
    room.pass(secs(60));
    assert_eq!(told.into_iter().chain(room.repeated()).sum::<u32>(), 499);
    room.pass(ENDED_KEPT);
    room.assert_empty();
}

#[test]
fn calls_of_one_name_are_counted_too_and_are_found_by_it() {
    let mut room = Room::new(100);
    let mut lines = 0;
    for _ in 0..500 {
        room.note(1, Step::Invited);
        room.note(1, Step::Ended("limited"));
        lines += usize::from(room.stories.poll_ended().is_some());
    }
    assert_eq!((room.kept(), room.story(1).repeated, lines), (vec![1], 499, 1));
    // One that is answered is a call of its own.
    room.note(1, Step::Invited);
    room.note(1, Step::Answered);
    assert_eq!((room.kept().len(), room.story(1).repeated), (2, 0));
    assert!(room.stories.poll_ended().is_some());
    room.pass(UNENDED_KEPT);
    room.assert_empty();
}

#[test]
fn calls_that_reached_the_phone_have_some_stories_of_their_own_and_other_reasons_and_phones_too() {
    let mut room = Room::new(1_000);
    for number in 1..=100 {
        room.note(number, Step::Invited);
        room.note(number, Step::Forwarded);
        room.note(number, Step::Ended("declined"));
    }
    assert_eq!((room.kept().len(), room.story(1).repeated), (10, 90));
    room.note(200, Step::Invited);
    room.note(200, Step::Ended("limited"));
    room.stories.note(other(), call(1), Step::Invited, &mut room.tally, room.now);
    room.stories.note(other(), call(1), Step::Ended("declined"), &mut room.tally, room.now);
    for number in 300..=330 {
        room.note(number, Step::Invited);
        room.note(number, Step::Answered);
    }
    assert_eq!(room.kept().len(), 10 + 1 + 1 + 31, "answered calls are never folded");
}

#[test]
fn an_episode_is_over_after_a_minute_without_a_call() {
    let mut room = Room::new(100);
    for number in 1..=2 {
        room.note(number, Step::Invited);
        room.note(number, Step::Ended("limited"));
        room.pass(secs(61));
    }
    assert_eq!(room.kept(), [2], "the first is forgotten by now");
    assert_eq!(room.story(2).repeated, 0);
    assert!(room.repeated().is_empty());
}

#[test]
fn an_instance_that_is_called_without_end_loses_its_own_stories_and_no_other_s() {
    let mut room = Room::new(10);
    for number in 1..=3 {
        room.stories.note(other(), call(number), Step::Invited, &mut room.tally, room.now);
        room.stories.note(other(), call(number), Step::Answered, &mut room.tally, room.now);
    }
    for number in 100..2_000 {
        room.note(number, Step::Invited);
        room.note(number, Step::Answered);
        room.pass(millis(1));
    }
    let of_other = room.stories.calls_of(other());
    assert_eq!((of_other.len(), room.kept().len()), (3, 10));
    assert_eq!(room.kept()[..7], [1_999, 1_998, 1_997, 1_996, 1_995, 1_994, 1_993]);

    let mut room = Room::new(1_000);
    for number in 1..=500 {
        room.note(number, Step::Invited);
        room.note(number, Step::Answered);
    }
    assert_eq!(room.kept().len(), memory::PER_INSTANCE_MAX, "nor does it take all there is");
}

#[test]
fn a_story_that_gives_way_tells_what_it_has_counted() {
    let mut room = Room::new(2);
    for number in 1..=5 {
        room.note(number, Step::Invited);
        room.note(number, Step::Ended("limited"));
    }
    for number in 10..=12 {
        room.note(number, Step::Invited);
    }
    assert_eq!(room.repeated(), [4]);
    assert_eq!(room.stories.episodes.len(), 0);
}

struct Room {
    stories: Stories,
    tally: Tally,
    now: Now,
}

impl Room {
    fn new(stories: u32) -> Self {
        let limits = Limits { stories, ..Limits::default() };
        let now = Now { boot: Instant::from_nanos(7), wall: WallTime::from_unix_millis(1_795_550_400_000) };
        Self { stories: Stories::new(&limits, 1), tally: Tally::default(), now }
    }

    fn note(&mut self, number: u128, step: Step) {
        self.stories.note(instance(), call(number), step, &mut self.tally, self.now);
    }

    fn pass(&mut self, span: Duration) {
        self.now = Now { boot: self.now.boot + span, wall: self.now.wall + span };
        self.stories.handle_timeout(self.now.boot);
    }

    fn story(&self, number: u128) -> Story {
        self.stories.of(instance(), call(number)).expect("it is kept").clone()
    }

    fn kept(&self) -> Vec<u128> {
        self.stories.newest(None, usize::MAX).iter().map(|story| story.call.0.as_u128()).collect()
    }

    fn repeated(&mut self) -> Vec<u32> {
        std::iter::from_fn(|| self.stories.poll_repeated()).map(|repeated| repeated.count).collect()
    }

    fn assert_empty(&self) {
        let mut tables = Vec::new();
        self.stories.tables(&mut tables);
        assert!(tables.iter().all(|(_, size)| *size == 0), "{tables:?}");
        assert_eq!(self.stories.poll_timeout(), None);
        assert!(self.stories.by_call.is_empty());
    }
}

fn steps(story: &Story) -> Vec<(Step, u64)> {
    story.moments.iter().map(|it| (it.step, u64::try_from(it.after.as_millis()).expect("short"))).collect()
}

fn instance() -> InstanceId {
    InstanceId::mint(ShardId(0), [1; 16])
}

fn other() -> InstanceId {
    InstanceId::mint(ShardId(0), [2; 16])
}

fn call(number: u128) -> CallUuid {
    CallUuid(uuid::Uuid::from_u128(number))
}

fn millis(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
