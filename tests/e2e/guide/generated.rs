//! A client that a generator makes of docs/openapi.json, against the daemon: what it knows, and words that are added later.
//!
//! Its own room because nobody wrote that client: it fails where the description is not what the daemon does. The generator
//! and a validator come from `scripts/peers`; `generated.py` uses what was generated.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use super::stage::{APP_KEY, Stage};
use crate::process::{Process, until};
use crate::world::{World, target_directory};

#[test]
fn a_generated_client_does_it_all_and_survives_words_of_tomorrow() {
    let world = World::new("generated-client");
    let stage = Stage::start(&world);
    let directory = world.directory_of("client");
    let description = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
    run(Command::new(tool("openapi-spec-validator")).arg(&description));
    let settings = directory.join("generator.json");
    let names = json!({ "project_name_override": "reveille-client", "package_name_override": "reveille_client", "post_hooks": [] });
    fs::write(&settings, names.to_string()).expect("the test directory is writable");
    let package = directory.join("reveille_client");
    run(Command::new(tool("openapi-python-client"))
        .args(["generate", "--meta", "none", "--overwrite", "--fail-on-warning"])
        .arg("--path")
        .arg(&description)
        .arg("--config")
        .arg(&settings)
        .arg("--output-path")
        .arg(&package));

    let orders = json!({
        "url": stage.url(), "app_key": APP_KEY, "ca_file": world.ca_file(), "body": stage.hand_over("alice", "android"),
    });
    let file = directory.join("orders.json");
    fs::write(&file, orders.to_string()).expect("the test directory is writable");
    let script = directory.join("generated.py");
    fs::write(&script, include_str!("generated.py")).expect("the test directory is writable");
    let mut client = Process::start("generated", &directory, &tool("python"), |command| {
        command.arg("-u").arg(&script).arg(&file);
    });
    until("the generated client to hand over", || {
        client.assert_running();
        client.output().contains("handed over").then_some(())
    });
    let mut caller = stage.call("alice");
    let call = stage.push("alice-call", "call")["call"].as_str().expect("a call has a name").to_owned();
    client.tell(&call);
    stage.wait_over(&mut caller);
    assert!(client.wait().success(), "{}", client.output());
    assert!(client.output().contains("erased"), "{}", client.output());
}

fn tool(name: &str) -> PathBuf {
    let path = target_directory().join("openapi-venv/bin").join(name);
    assert!(path.exists(), "{name} is not installed; scripts/peers installs it");
    path
}

#[track_caller]
fn run(command: &mut Command) {
    let output = command.output().expect("it starts");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&said));
}
