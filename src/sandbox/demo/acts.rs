//! What happens in the demo, act by act, and what must come of it.

use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{sleep, timeout};

use super::stage::Stage;
use super::story::{Entry, Story, did, heard};
use crate::audit_log::verify::verify_receipt;
use crate::clock::{self, Instant};
use crate::sandbox::caller::{CallPlan, Caller, Heard, Side};
use crate::sandbox::phone::handset::{Deed, Handset, Manners, Outcome, PhoneError, Reaction, Told, phone_sdp};

/// How long an act may take.
const ACT_DEADLINE: Duration = Duration::from_secs(20);
/// How long a phone waits for its push.
const PUSH_PATIENCE: Duration = Duration::from_secs(10);
/// How long an app takes to start; a real one takes longer.
const WAKE_UP: Duration = Duration::from_millis(120);
/// How long Alice lets it ring.
const RING: Duration = Duration::from_millis(200);
/// How long Bob talks.
const TALK: Duration = Duration::from_millis(250);

/// Why the demo ends early.
pub(super) struct Failure {
    pub(super) step: &'static str,
    /// Without the full stop.
    pub(super) sentence: String,
}

/// What Bob does with a call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Bob {
    /// Talks, then hangs up.
    Talks,
    /// Hangs up as soon as it rings.
    GivesUp,
    /// Waits for what comes.
    Waits,
}

/// One call of the story.
pub(super) struct Scene<'a> {
    pub(super) step: &'static str,
    pub(super) number: u32,
    pub(super) user: &'static str,
    pub(super) owner: &'static str,
    pub(super) phone: &'a Handset,
    /// A second device of the owner's.
    pub(super) tablet: Option<&'a Handset>,
    pub(super) manners: Manners,
    pub(super) bob: Bob,
    /// The kind of push that follows the call.
    pub(super) aftermath: Option<&'static str>,
}

/// Plays all acts; what DELETE answered for Alice.
pub(super) async fn play(stage: &Stage, story: &Story) -> Result<Value, Failure> {
    story.act(1, "Alice and Carol turn push on. Their phones hand their accounts to Reveille, and go to sleep.");
    let (alice, carol) = within("hand-over", story, hand_over(stage, story)).await?;

    story.act(2, "Bob calls Alice. Her phone sleeps, is woken, and she answers.");
    let answers = Manners { reaction: Reaction::Answer, wake_up: WAKE_UP, ring_for: RING, talk_for: None };
    let scene = Scene {
        step: "call-answered",
        number: 1,
        user: "alice",
        owner: "Alice",
        phone: &alice,
        tablet: None,
        manners: answers,
        bob: Bob::Talks,
        aftermath: None,
    };
    within(scene.step, story, answered(&scene, stage, story)).await?;

    story.act(3, "Bob calls Alice again, but hangs up before her phone is awake. It must not ring.");
    let scene = Scene { step: "call-cancelled", number: 2, bob: Bob::GivesUp, aftermath: Some("missed-call"), ..scene };
    within(scene.step, story, cancelled(&scene, stage, story)).await?;

    story.act(4, "Bob calls Carol, who sees the push and declines.");
    let declines = Manners { reaction: Reaction::Decline, ..answers };
    let scene = Scene {
        step: "call-declined",
        number: 3,
        user: "carol",
        owner: "Carol",
        phone: &carol,
        tablet: None,
        manners: declines,
        bob: Bob::Waits,
        aftermath: None,
    };
    within(scene.step, story, declined(&scene, stage, story)).await?;

    story.act(5, "Alice turns push on on her tablet too. Bob calls, both ring, and she answers on the phone.");
    let tablet = within("second-device", story, second_device(stage, story)).await?;
    let scene = Scene {
        step: "answered-elsewhere",
        number: 4,
        user: "alice",
        owner: "Alice",
        phone: &alice,
        tablet: Some(&tablet),
        manners: answers,
        bob: Bob::Talks,
        aftermath: None,
    };
    within(scene.step, story, answered(&scene, stage, story)).await?;

    story.act(6, "Bob sends Carol a text message. Her phone sleeps, is woken, and shows it.");
    within("message", story, message(stage, story, &carol)).await?;

    story.act(7, "Alice and Carol turn push off. Reveille forgets their passwords, and proves it.");
    let devices = [
        ("Alice", "alice", "tablet", &tablet),
        ("Alice", "alice", "phone", &alice),
        ("Carol", "carol", "phone", &carol),
    ];
    within("push-off", story, push_off(stage, story, devices)).await
}

async fn hand_over(stage: &Stage, story: &Story) -> Result<(Handset, Handset), Failure> {
    const STEP: &str = "hand-over";
    let began = clock::now().boot;
    let tell = |who: &str, event, words: String| story.line(&entry(STEP, None, who, event, began, words));
    let mut phones = Vec::new();
    for (owner, user) in [("Alice", "alice"), ("Carol", "carol")] {
        let who = format!("{owner}'s phone");
        tell(&who, "hand-over", "hands the account over: address, password, push token (HTTPS)".to_owned());
        let handed = if user == "alice" { stage.alice().await } else { stage.carol().await };
        let phone = handed.map_err(|error| failure(STEP, format!("{owner}'s phone could not hand over: {error}")))?;
        let registration = phone.registration();
        let verdict = registration.verdict.as_deref().unwrap_or("no verdict");
        ensure(STEP, registration.state == "registered", || {
            format!("the PBX did not register {owner}: {} ({verdict})", registration.state)
        })?;
        let seconds = registration.expires.unwrap_or_default();
        let words = format!("is registered at the PBX for {owner}: {verdict}, for {seconds} s, renewed in time");
        tell("Reveille", "registered", words);
        tell(&who, "asleep", format!("goes to sleep; Reveille may hold the account until {}", phone.lease_ends()));
        let bound = stage.pbx.snapshot().bindings.iter().any(|binding| binding.user == user);
        ensure(STEP, bound, || format!("the PBX has no binding for {user}"))?;
        phones.push(phone);
    }
    match <[Handset; 2]>::try_from(phones) {
        Ok([alice, carol]) => Ok((alice, carol)),
        Err(_) => Err(failure(STEP, "two phones were expected")),
    }
}

/// Alice's second device joins: the PBX must not see another registration.
async fn second_device(stage: &Stage, story: &Story) -> Result<Handset, Failure> {
    const STEP: &str = "second-device";
    let began = clock::now().boot;
    let tell = |who: &str, event, words: String| story.line(&entry(STEP, None, who, event, began, words));
    tell("Alice's tablet", "hand-over", "hands the same account over (HTTPS)".to_owned());
    let tablet = stage.tablet().await;
    let tablet = tablet.map_err(|error| failure(STEP, format!("Alice's tablet could not hand over: {error}")))?;
    let bindings = stage.pbx.snapshot().bindings.iter().filter(|binding| binding.user == "alice").count();
    ensure(STEP, bindings == 1, || format!("the PBX has {bindings} registrations of Alice instead of one"))?;
    let words = "has compared the passwords: both devices share the one registration at the PBX".to_owned();
    tell("Reveille", "registered", words);
    Ok(tablet)
}

/// Bob writes to Carol, whose phone sleeps.
async fn message(stage: &Stage, story: &Story, carol: &Handset) -> Result<(), Failure> {
    const STEP: &str = "message";
    const WORDS: &str = "Are you there?";
    let began = clock::now().boot;
    let tell = |who: &str, event, words: String| story.line(&entry(STEP, None, who, event, began, words));
    tell("Bob", "message", format!("writes to Carol: \"{WORDS}\" (MESSAGE)"));
    let code = stage.pbx.text("carol", WORDS).await.map_err(|error| failure(STEP, error))?;
    ensure(STEP, code.code() == 202, || format!("Bob should have heard 202, but heard {}", code.code()))?;
    tell("Reveille", "kept", "keeps it, sealed and in memory only (202 Accepted)".to_owned());
    let show = |told: Told| {
        let (who, event, words) = did(&told.what, "Carol", "phone");
        let at = told.at.saturating_since(began);
        story.line(&Entry { step: STEP, call: None, who: &who, event, at, words });
    };
    let text = carol.take_text(WAKE_UP, PUSH_PATIENCE, &show).await;
    let text = text.map_err(|error| failure(STEP, with_refusals(&error, stage)))?;
    ensure(STEP, text.body == WORDS, || "the message was changed on the way".to_owned())
}

async fn answered(scene: &Scene<'_>, stage: &Stage, story: &Story) -> Result<(), Failure> {
    let (end, outcome, _) = scene.play(stage, story).await?;
    ensure(scene.step, outcome == Outcome::Talked && end == Heard::Ended { by: Side::Caller }, || {
        format!("the call should have been answered and hung up by Bob, but {outcome:?} and {end:?}")
    })
}

async fn cancelled(scene: &Scene<'_>, stage: &Stage, story: &Story) -> Result<(), Failure> {
    let (end, outcome, rang) = scene.play(stage, story).await?;
    ensure(scene.step, outcome == Outcome::Missed && !rang, || {
        "Alice's phone rang for a call that was over".to_owned()
    })?;
    ensure(scene.step, matches!(&end, Heard::Refused { code, .. } if code.code() == 487), || {
        format!("Bob should have heard 487, but heard {end:?}")
    })
}

async fn declined(scene: &Scene<'_>, stage: &Stage, story: &Story) -> Result<(), Failure> {
    let (end, outcome, rang) = scene.play(stage, story).await?;
    ensure(scene.step, outcome == Outcome::Declined && !rang, || {
        format!("Carol should have declined, but {outcome:?}")
    })?;
    ensure(scene.step, matches!(&end, Heard::Refused { code, .. } if code.code() == 486), || {
        format!("Bob should have heard 486, but heard {end:?}")
    })
}

async fn push_off(
    stage: &Stage,
    story: &Story,
    devices: [(&'static str, &'static str, &'static str, &Handset); 3],
) -> Result<Value, Failure> {
    const STEP: &str = "push-off";
    let began = clock::now().boot;
    let tell = |who: &str, event, words: String| story.line(&entry(STEP, None, who, event, began, words));
    let mut receipts = Vec::new();
    for (place, (owner, user, device, phone)) in devices.into_iter().enumerate() {
        let who = format!("{owner}'s {device}");
        tell(&who, "delete", "turns push off (HTTPS DELETE)".to_owned());
        let answer = phone.erase().await.map_err(|error| failure(STEP, error))?;
        if devices.iter().skip(place + 1).any(|(_, other, ..)| *other == user) {
            let bound = stage.pbx.snapshot().bindings.iter().any(|binding| binding.user == user);
            ensure(STEP, bound, || format!("the PBX lost {owner} with the first of two devices"))?;
            tell("The PBX", "registered", format!("still has the registration of {owner}, for the other device"));
        } else {
            stage.pbx.wait_until(|snapshot| snapshot.bindings.iter().all(|binding| binding.user != user)).await;
            tell("The PBX", "unregistered", format!("has no registration of {owner} any more"));
        }
        verify_receipt(answer.to_string().as_bytes(), &stage.inside.running.audit_key)
            .map_err(|reason| failure(STEP, format!("the receipt for {who} is not valid: {reason}")))?;
        let receipt = answer.get("receipt").cloned().unwrap_or_default();
        let named = receipt.get("instance").and_then(Value::as_str) == Some(phone.instance());
        ensure(STEP, named, || format!("the receipt is not about the instance of {who}"))?;
        let words = format!("has wiped what {who} handed over and signed a receipt, which is checked and valid");
        tell("Reveille", "erased", words);
        receipts.push(receipt);
    }
    // That of Alice's phone, the last device to know her password.
    let receipt = receipts.into_iter().nth(1).unwrap_or_default();
    let pretty = serde_json::to_string_pretty(&receipt).map_err(|error| failure(STEP, error))?;
    story.close_act();
    story.text(&format!("\nAlice's receipt (`reveille audit verify FILE` checks it):\n{pretty}"));
    Ok(receipt)
}

impl Scene<'_> {
    /// Plays both sides of a call: what Bob heard last, how it ended for the phone, and whether the phone rang.
    pub(super) async fn play(&self, stage: &Stage, story: &Story) -> Result<(Heard, Outcome, bool), Failure> {
        let plan = CallPlan { give_up: PUSH_PATIENCE, ..CallPlan::default() };
        let caller = stage.pbx.call(self.user, plan).await.map_err(|error| failure(self.step, error))?;
        let began = caller.began();
        let call = Some(self.number);
        let words = format!("calls {} at the PBX (INVITE)", self.owner);
        story.line(&Entry { at: Duration::ZERO, ..entry(self.step, call, "Bob", "invite", began, words) });

        let rang = std::cell::Cell::new(false);
        let phone = async {
            let tell = |told: Told| {
                rang.set(rang.get() || told.what == Deed::Rings);
                self.tell(&told, "phone", began, story);
            };
            let outcome = self.phone.take_call(self.manners, PUSH_PATIENCE, &tell).await?;
            if let Some(kind) = self.aftermath {
                self.phone.await_push(kind, PUSH_PATIENCE, &tell).await?;
            }
            Ok(outcome)
        };
        let tablet = async {
            let Some(tablet) = self.tablet else { return Ok(Outcome::Missed) };
            let rings = Manners { reaction: Reaction::Ring, ..self.manners };
            tablet.take_call(rings, PUSH_PATIENCE, &|told| self.tell(&told, "tablet", began, story)).await
        };
        let (end, outcome, other) = tokio::join!(self.bob(caller, story), phone, tablet);
        let outcome = outcome.map_err(|error| failure(self.step, with_refusals(&error, stage)))?;
        let other = other.map_err(|error| failure(self.step, with_refusals(&error, stage)))?;
        ensure(self.step, other == Outcome::Missed, || format!("the tablet should have stopped, but {other:?}"))?;
        Ok((end?, outcome, rang.get()))
    }

    fn tell(&self, told: &Told, device: &str, began: Instant, story: &Story) {
        let (who, event, words) = did(&told.what, self.owner, device);
        let at = told.at.saturating_since(began);
        story.line(&Entry { step: self.step, call: Some(self.number), who: &who, event, at, words });
    }

    async fn bob(&self, mut caller: Caller, story: &Story) -> Result<Heard, Failure> {
        let mut last = None;
        while let Some(news) = caller.next().await {
            let (event, words) = heard(&news.what, self.owner);
            let call = Some(self.number);
            story.line(&Entry { step: self.step, call, who: "Bob", event, at: news.at, words });
            if let Heard::Answered { sdp } = &news.what {
                ensure(self.step, *sdp == phone_sdp(), || "the phone's session description was changed".to_owned())?;
            }
            match (&news.what, self.bob) {
                (Heard::Ringing(_), Bob::GivesUp) => caller.hang_up().await,
                (Heard::Answered { .. }, Bob::Talks) => {
                    sleep(TALK).await;
                    caller.hang_up().await;
                }
                _ => {}
            }
            last = Some(news.what);
        }
        last.ok_or_else(|| failure(self.step, "Bob heard nothing at all"))
    }
}

/// A phone's error, with what the push services refused: that is where to look if no push came.
fn with_refusals(error: &PhoneError, stage: &Stage) -> String {
    let refusals = [stage.apple.refusals(), stage.google.refusals()].concat();
    match (error, refusals.is_empty()) {
        (PhoneError::NoPush(_), false) => format!("{error}; the push services refused: {refusals:?}"),
        _ => error.to_string(),
    }
}

pub(super) fn failure(step: &'static str, sentence: impl Display) -> Failure {
    Failure { step, sentence: sentence.to_string() }
}

/// Plays an act within its deadline and writes down what happened in it, however it ended.
pub(super) async fn within<T>(
    step: &'static str,
    story: &Story,
    act: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let late = |_| failure(step, format!("it was not done within {} s", ACT_DEADLINE.as_secs()));
    let played = timeout(ACT_DEADLINE, act).await.map_err(late);
    story.close_act();
    played?
}

fn ensure(step: &'static str, holds: bool, sentence: impl FnOnce() -> String) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(failure(step, sentence())) }
}

fn entry<'a>(
    step: &'static str,
    call: Option<u32>,
    who: &'a str,
    event: &'static str,
    began: Instant,
    words: String,
) -> Entry<'a> {
    Entry { step, call, who, event, at: clock::now().boot.saturating_since(began), words }
}

/// How Alice behaves while somebody tries things.
pub(super) const HOSPITABLE: Manners =
    Manners { reaction: Reaction::Answer, wake_up: WAKE_UP, ring_for: RING, talk_for: None };
