//! Others read what we write: the recipes of docs/receipts.md, word for word, with OpenSSL, jq and Python.

use std::process::{Command, Output};

use super::segments::in_segments;
use super::*;
use crate::audit_log::prove::{Wanted, prove};

const PAGE: &str = include_str!("../../../docs/receipts.md");

#[test]
fn the_recipes_confirm_a_receipt() {
    let (place, answers) = in_segments(1_000, 6);
    place.keep("receipt.json", &serde_json::to_string(&answers[2].receipt).expect("JSON"));

    let signature = place.run("sh", "Signature");
    assert!(told(&signature).contains("Signature Verified Successfully"), "{signature:?}");
    let subject = place.run("sh", "Subject");
    let lines: Vec<String> = told(&subject).lines().map(str::to_owned).collect();
    assert!(lines.len() == 2 && lines[0] == lines[1] && lines[0].len() == 64, "{subject:?}");
    let inclusion = place.run("python3", "Inclusion");
    assert_eq!(told(&inclusion), "included\n", "{inclusion:?}");
    let found = place.run("sh", "Looking a receipt up");
    assert!(told(&found).starts_with("3:{"), "{found:?}");
}

#[test]
fn the_recipes_refuse_a_changed_receipt() {
    let (place, answers) = in_segments(1_000, 6);
    let good = serde_json::to_string(&answers[2].receipt).expect("JSON");
    place.keep("receipt.json", &good.replacen("confirmed", "unanswered", 1));
    assert!(!place.run("sh", "Signature").status.success());
    assert!(!place.run("python3", "Inclusion").status.success());
}

#[test]
fn the_recipe_confirms_checkpoints_as_signed_notes_and_a_log_as_the_tree_they_sign() {
    let (place, _) = in_segments(1_000, 6);
    let good = place.run("python3", "The whole log");
    assert_eq!(told(&good), "6 records, signed by edge.example.net/reveille-audit\n", "{good:?}");

    let text = fs::read_to_string(&place.log).expect("there");
    let changed = text.replacen("\"acme\"", "\"evil\"", 1);
    for bad in [changed, text.replacen("6\\n", "7\\n", 1), text.lines().skip(2).collect::<Vec<_>>().join("\n")] {
        fs::write(&place.log, bad).expect("written");
        assert!(!place.run("python3", "The whole log").status.success());
    }
}

#[test]
fn the_recipe_confirms_a_segment_from_its_seal_on() {
    let (place, _) = in_segments(4, 6);
    let good = place.run("python3", "The whole log");
    assert_eq!(told(&good), "6 records, signed by edge.example.net/reveille-audit\n", "{good:?}");
}

#[test]
fn the_recipe_confirms_a_proof_as_c2sp_has_it() {
    let (place, _) = in_segments(2, 5);
    for record in 0..5 {
        let mut proof = Vec::new();
        prove(&place.log, None, &Wanted::Record(record), &mut proof).expect("it is there");
        place.keep("record.tlog-proof", &String::from_utf8(proof).expect("text"));
        let said = place.run("python3", "A proof");
        assert!(told(&said).starts_with(&format!("record {record} of 5: {{\"v\":2,")), "{said:?}");
    }
    place.keep(
        "record.tlog-proof",
        &fs::read_to_string(place.directory.path().join("record.tlog-proof"))
            .expect("there")
            .replacen("index 4", "index 3", 1),
    );
    assert!(!place.run("python3", "A proof").status.success());
}

impl Place {
    /// Runs the code under the heading of the page that begins so, in the log's directory.
    fn run(&self, program: &str, heading: &str) -> Output {
        let script = self.keep("recipe", recipe(heading));
        let mut command = Command::new(program);
        command.arg(script).current_dir(self.directory.path());
        command.output().unwrap_or_else(|error| panic!("{program} cannot be run; scripts/peers installs it: {error}"))
    }
}

fn recipe(heading: &str) -> &'static str {
    let (_, rest) = PAGE.split_once(&format!("\n{heading}")).unwrap_or_else(|| panic!("no recipe \"{heading}\""));
    let (_, rest) = rest.split_once("\n```").expect("a block of code");
    let (_language, rest) = rest.split_once('\n').expect("a line");
    rest.split_once("```").expect("its end").0
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}
