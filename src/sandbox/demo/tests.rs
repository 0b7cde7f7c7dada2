//! The demo is a promise of the README: it is run here as it is run there.

use std::io;
use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::*;

#[test]
fn told_to_people_it_names_every_act_and_ends_well() {
    let (exit, text) = run_once(false);
    assert_eq!(exit, Exit::Success, "{text}");
    for act in 1..=7 {
        assert!(text.contains(&format!("\n{act}. ")), "act {act} is missing:\n{text}");
    }
    assert!(text.ends_with("All of it worked.\n"), "{text}");
}

#[test]
fn told_to_programs_every_line_is_json_and_every_step_worked() {
    let (exit, text) = run_once(true);
    assert_eq!(exit, Exit::Success, "{text}");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let (last, steps) = lines.split_last().expect("lines");
    assert_eq!(last["result"], "ok");
    assert!(last["receipt"]["signature"].is_string(), "{last}");

    assert!(steps.iter().all(|line| line["ok"] == true), "{text}");
    let told = |call: u64| -> Vec<&str> {
        steps.iter().filter(|line| line["call"] == call).filter_map(|line| line["event"].as_str()).collect()
    };
    let contains = |call, events: &[&str]| {
        let told = told(call);
        for event in events {
            assert!(told.contains(event), "call {call} lacks {event}: {told:?}");
        }
    };
    contains(
        1,
        &["invite", "held", "pushed", "ringing", "attached", "invited", "rings", "answered", "talking", "hung-up"],
    );
    contains(2, &["invite", "pushed", "cancelled", "missed"]);
    contains(3, &["invite", "pushed", "declined", "refused"]);
    contains(4, &["invite", "pushed", "rings", "answered", "missed", "talking", "hung-up"]);
    let of_step = |step: &str, event: &str| steps.iter().any(|line| line["step"] == step && line["event"] == event);
    assert!(of_step("message", "kept") && of_step("message", "shown"), "{text}");
    assert!(!told(2).contains(&"rings") && !told(3).contains(&"rings"), "{text}");
    assert_eq!(steps.iter().filter(|line| line["event"] == "erased").count(), 3);
}

#[test]
fn the_lines_of_an_act_stand_in_the_order_of_their_times() {
    let (_, text) = run_once(true);
    let mut before = (Value::Null, 0.0);
    for line in text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")) {
        let Some(at) = line["at_ms"].as_f64() else { continue };
        let same_act = before.0 == line["step"];
        assert!(!same_act || at >= before.1, "{text}");
        before = (line["step"].clone(), at);
    }
}

#[test]
fn a_failure_is_a_sentence_and_the_last_line_says_so() {
    let out = Shared::default();
    let story = Story::new(Box::new(out.clone()), true);
    story.failure(&Failure { step: "call-answered", sentence: "no push came".to_owned() });
    let text = out.text();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines[0]["ok"], false);
    assert_eq!((&lines[1]["result"], &lines[1]["reason"]), (&Value::from("failed"), &Value::from("no push came")));
}

fn run_once(json: bool) -> (Exit, String) {
    let out = Shared::default();
    let exit = run(DemoArguments { once: true, json }, out.clone());
    (exit, out.text())
}

/// Output that can be read afterwards.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Shared {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("nobody panicked").clone()).expect("UTF-8")
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("nobody panicked").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
