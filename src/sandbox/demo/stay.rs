//! After the story: the stage stays, and whoever watches can try things.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader, Lines, Stdin};
use tokio::time::sleep;

use super::acts::{Bob, Failure, HOSPITABLE, Scene, failure, within};
use super::stage::{Stage, USERS};
use super::story::Story;
use crate::sandbox::caller::{CallPlan, Caller, Heard};
use crate::sandbox::interrupts::Interrupts;
use crate::sandbox::phone::handset::Handset;

const STEP: &str = "try";
/// The calls of the story.
const CALLS_BEFORE: u32 = 4;
/// How long Bob talks to whoever answers outside the story.
const TALK: Duration = Duration::from_secs(5);

/// Stays until Ctrl-C or SIGTERM. Enter makes Bob call Alice; a name and Enter makes him call somebody else.
pub(super) async fn stay(stage: &Stage, story: &Story) -> Result<(), Failure> {
    let alice = stage.alice().await.map_err(|error| failure(STEP, error))?;
    offer(stage, story, &alice);
    let mut interrupts = Interrupts::new().map_err(|error| failure(STEP, error))?;
    tokio::select! {
        () = interrupts.next() => {}
        () = obey(stage, story, &alice) => {}
    }
    Ok(())
}

/// Places a call for each line that is typed.
async fn obey(stage: &Stage, story: &Story, alice: &Handset) {
    let mut input = BufReader::new(tokio::io::stdin()).lines();
    for number in CALLS_BEFORE + 1.. {
        let line = line(&mut input).await;
        match line.trim() {
            "" | "alice" => call_alice(stage, story, alice, number).await,
            other => call_other(stage, story, other).await,
        }
    }
}

async fn call_alice(stage: &Stage, story: &Story, alice: &Handset, number: u32) {
    let scene = Scene {
        step: STEP,
        number,
        user: "alice",
        owner: "Alice",
        phone: alice,
        tablet: None,
        manners: HOSPITABLE,
        bob: Bob::Talks,
        aftermath: None,
    };
    if let Err(failure) = within(STEP, story, scene.play(stage, story)).await {
        story.text(&format!("That did not work: {}.", failure.sentence));
    }
}

/// Calls somebody whose phone is not the demo's.
async fn call_other(stage: &Stage, story: &Story, user: &str) {
    match stage.pbx.call(user, CallPlan::default()).await {
        Err(error) => story.text(&format!("Bob cannot call {user}: {error}. Known users: {}.", USERS.join(", "))),
        Ok(caller) => listen(caller, story, user).await,
    }
}

async fn listen(mut caller: Caller, story: &Story, user: &str) {
    while let Some(news) = caller.next().await {
        let (_, words) = super::story::heard(&news.what, user);
        story.text(&format!("{:8} ms  Bob            {words}", news.at.as_millis()));
        if matches!(news.what, Heard::Answered { .. }) {
            sleep(TALK).await;
            caller.hang_up().await;
        }
    }
}

/// A line that somebody typed; pends for ever where nobody can type.
async fn line(input: &mut Lines<BufReader<Stdin>>) -> String {
    match input.next_line().await {
        Ok(Some(line)) => line,
        Ok(None) | Err(_) => std::future::pending().await,
    }
}

fn offer(stage: &Stage, story: &Story, alice: &Handset) {
    let running = &stage.inside.running;
    let api = running.api.first().map_or_else(String::new, ToString::to_string);
    let ops = running.ops.first().map_or_else(String::new, ToString::to_string);
    let pbx = stage.pbx.address();
    let mailbox = stage.mailbox.endpoint();
    let mailbox = mailbox.trim_end_matches("/push");
    let (key, password) = (stage.inside.app_key.as_str(), stage.password.as_str());
    let (instance, token) = (alice.instance(), alice.token());
    story.json(&json!({
        "step": STEP, "call": null, "event": "ready", "at_ms": null, "ok": true, "api": api, "ops": ops,
        "pbx": pbx.to_string(), "mailbox": mailbox, "app_key": key, "instance": instance,
    }));
    story.text(&format!(
        "\nAlice has turned push on again. Now try things; Ctrl-C ends the demo.\n\
         \n  Enter            Bob calls Alice once more\
         \n  dave + Enter     Bob calls Dave, if a phone of yours is registered as Dave (see below)\n\
         \nHer registration, as her phone sees it (-k: the certificate was made a moment ago):\
         \n  curl -k -H 'Authorization: Bearer {token}' \\\n    https://{api}/v1/instances/{instance}\
         \nTurn push off for her; the answer is the receipt:\
         \n  curl -k -X DELETE -H 'Authorization: Bearer {token}' \\\n    https://{api}/v1/instances/{instance}\
         \nThe API's description, and the metrics:\
         \n  curl -k https://{api}/openapi.json\
         \n  curl http://{ops}/metrics\
         \nHand Dave over by hand (app key {key}), or with the example client of docs/client-guide.md, in another terminal:\
         \n  echo {password} | INSECURE=1 python3 docs/examples/client.py \\\n    https://{api} {key} {mailbox} \\\
         \n    aor=sip:dave@{pbx} 'registrar=sip:{pbx};transport=udp' user=dave\
         \nOr be Dave's phone:\
         \n  echo {password} | reveille phone --registrar sip:{pbx} --aor sip:dave@{pbx}\
         \nThe PBX is at {pbx} (UDP and TCP), users {}, password {password}.",
        USERS.join(", "),
    ));
}
