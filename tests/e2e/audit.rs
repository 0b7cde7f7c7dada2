//! The audit log of a real daemon: its key, its disk, its segments; and how long an erasure takes.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::daemon::{HandOver, Settings};
use crate::process::until;
use crate::push::Provider;
use crate::setting::Setting;
use crate::world::{EDGE_DOMAIN, Transport, World, free_port};

/// How often an erasure is timed.
const TIMED: usize = 40;

/// How large a file may be where the disk counts as full: the vault's page and a short log fit in.
const FULL_AT: usize = 8192;

#[test]
fn a_signing_key_that_cannot_be_used_is_told_and_nothing_is_served() {
    let world = World::new("audit-keys");
    let directory = world.directory_of("daemon");
    let write = |name: &str, text: &str| fs::write(directory.join(name), text).expect("writable");
    let openssl = |arguments: &[&str]| {
        let made = Command::new("openssl").args(arguments).current_dir(&directory).output().expect("installed");
        assert!(made.status.success(), "{made:?}");
    };
    openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "ec.pem"]);
    openssl(&["genpkey", "-algorithm", "ed25519", "-out", "good.pem"]);
    openssl(&["pkey", "-in", "good.pem", "-pubout", "-out", "public.pem"]);
    fs::create_dir_all(directory.join("folder.pem")).expect("writable");
    write("text.pem", "not a key");
    for (key, word) in [
        ("missing.pem", "No such file"),
        ("folder.pem", "directory"),
        ("text.pem", "Ed25519 private key"),
        ("public.pem", "Ed25519 private key"),
        ("ec.pem", "Ed25519"),
    ] {
        let refused = start(&directory, &format!("signing_key = \"{key}\""));
        assert_eq!(refused.code, Some(78), "{key}: {}", refused.said);
        assert!(refused.said.contains("signing_key") && refused.said.contains(key), "{key}: {}", refused.said);
        assert!(refused.said.contains(word), "{key}: {}", refused.said);
        assert!(!directory.join("audit.log").exists(), "{key}: no log was begun");
    }
    // A log of its own whose key is gone, or is none any more.
    write("audit.log", "begun\n");
    let refused = start(&directory, "");
    assert!(refused.code == Some(69) && refused.said.contains("its signing key"), "{}", refused.said);
    write("audit.key", "not a key");
    let refused = start(&directory, "");
    assert!(refused.code == Some(69) && refused.said.contains("audit.key"), "{}", refused.said);
    assert_eq!(fs::read_to_string(directory.join("audit.log")).expect("there"), "begun\n");
}

#[test]
fn a_full_disk_stops_hand_overs_and_no_erasure_and_all_is_well_when_there_is_room_again() {
    let world = World::new("audit-full-disk");
    let mut setting = Setting::new(&world, Provider::Apns, Transport::Udp);
    let berta = setting.daemon.hand_over(&setting.kamailio, &setting.push, "berta", Transport::Udp);
    // Hand-overs are answered before their records are on disk; the checkpoint over both is the last that is written.
    let size = until("both hand-overs to be on record", || {
        let log = fs::read_to_string(setting.daemon.audit_log()).expect("there");
        (log.contains(r"reveille-audit\n2\n") && log.ends_with('\n')).then_some(log.len() as u64)
    });

    setting.daemon.limit_files(Some(size + 10));
    let answer = setting.daemon.erase(&berta);

    assert_eq!(answer["logged"], false, "{answer}");
    let left = fs::metadata(setting.daemon.audit_log()).expect("there").len();
    assert_eq!(left, size, "what was written of the record is cut off at once");
    let hand_over = HandOver { user: "carol", device: "carol", trunk: Transport::Udp, more: json!({}) };
    until("hand-overs to be refused", || {
        let refused = setting.daemon.try_hand_over(&setting.kamailio, &setting.push, &hand_over);
        (refused.status == 503).then_some(())
    });
    assert_eq!(setting.daemon.status(&setting.alice).status, 200, "what is held goes on");
    setting.daemon.limit_files(None);
    until("hand-overs to be taken again", || {
        let taken = setting.daemon.try_hand_over(&setting.kamailio, &setting.push, &hand_over);
        matches!(taken.status, 200..=202).then_some(())
    });
    let receipt = setting.daemon.directory().join("berta.json");
    fs::write(&receipt, answer.to_string()).expect("writable");
    assert!(setting.daemon.terminate().success());
    let daemon = &setting.daemon;
    assert!(daemon.audit(&["verify", "berta.json", "--key", "audit.pub"]).contains("not included"));
    fs::write(daemon.directory().join("berta.proof"), daemon.audit(&["prove", "audit.log", "--receipt", "berta.json"]))
        .expect("writable");
    assert!(daemon.audit(&["verify", "berta.proof", "--key", "audit.pub"]).contains("inclusion proof: good"));
}

#[test]
fn a_daemon_starts_on_a_full_disk_and_takes_hand_overs_once_there_is_room() {
    let world = World::new("audit-full-disk-at-start");
    let mut setting = Setting::new(&world, Provider::Apns, Transport::Udp);
    setting.daemon.kill();
    // As a crash leaves it, and more than there is room for aside.
    let log = setting.daemon.audit_log();
    let whole = fs::metadata(&log).expect("there").len();
    let torn = [fs::read(&log).expect("there"), vec![0; FULL_AT + 1]].concat();
    fs::write(&log, torn).expect("writable");

    setting.daemon.start_again_with_files_limited(FULL_AT);

    assert_eq!(fs::metadata(&log).expect("there").len(), whole);
    assert!(!setting.daemon.directory().join(format!("audit.log.torn-{whole}")).exists());
    until("the daemon to tell", || setting.daemon.readiness().to_string().contains("cannot be written").then_some(()));
    let hand_over = HandOver { user: "carol", device: "carol", trunk: Transport::Udp, more: json!({}) };
    until("hand-overs to be refused", || {
        let refused = setting.daemon.try_hand_over(&setting.kamailio, &setting.push, &hand_over);
        (refused.status == 503).then_some(())
    });
    setting.daemon.limit_files(None);
    until("hand-overs to be taken again", || {
        let taken = setting.daemon.try_hand_over(&setting.kamailio, &setting.push, &hand_over);
        matches!(taken.status, 200..=202).then_some(())
    });
    assert!(setting.daemon.terminate().success());
    assert!(setting.daemon.audit(&["verify", "audit.log", "--key", "audit.pub"]).contains("audit log: good"));
}

#[test]
fn a_log_in_segments_is_verified_and_told_of_while_the_daemon_writes_it() {
    let world = World::new("audit-segments");
    let settings = Settings { audit: "segment_records = 2\nsync_wait = \"30s\"", ..Settings::default() };
    let setting = Setting::with(&world, Provider::Apns, Transport::Udp, &settings);
    let daemon = &setting.daemon;
    let berta = daemon.hand_over(&setting.kamailio, &setting.push, "berta", Transport::Udp);
    let receipt = daemon.erase(&berta);
    assert_eq!(receipt["logged"], true);
    assert_eq!(daemon.readiness()["notes"], json!([]), "a confined process makes and renames its segments");

    let said = daemon.audit(&["verify", "audit.log", "--key", "audit.pub"]);
    assert!(said.contains("records     3") && said.contains("segments    2"), "{said}");
    let document = daemon.audit(&["evidence", "--config", "reveille.toml"]);
    fs::write(daemon.directory().join("evidence.json"), &document).expect("writable");
    let said = daemon.audit(&["verify", "evidence.json", "--key", "audit.pub"]);
    assert!(said.contains("event       handed-over: 2") && said.contains("erased      deleted: 1"), "{said}");
    assert!(said.contains("sub-processor of acme: apns"), "{said}");
}

/// Prints how long it takes from DELETE to the answer, which comes when all is wiped and logged. Judged by eye: a machine
/// that is busy with other tests says little.
#[test]
fn an_erasure_with_a_registrar_that_answers_is_quick() {
    let world = World::new("audit-erasure-time");
    let setting = Setting::new(&world, Provider::Apns, Transport::Udp);
    let mut took: Vec<Duration> = Vec::new();
    for _ in 0..TIMED {
        let berta = setting.daemon.hand_over(&setting.kamailio, &setting.push, "berta", Transport::Udp);
        let began = Instant::now();
        let answer = setting.daemon.erase(&berta);
        took.push(began.elapsed());
        assert!(
            answer["receipt"]["record"].as_str().is_some_and(|record| record.contains("\"confirmed\"")),
            "{answer}"
        );
    }
    took.sort_unstable();
    let (count, sum) = ("reveille_erasure_seconds_count", "reveille_erasure_seconds_sum");
    let mean = setting.daemon.metric(sum).zip(setting.daemon.metric(count)).map(|(sum, count)| sum / count * 1000.0);
    eprintln!(
        "DELETE to its answer, wiped and logged, {TIMED} times: p50 {:.1?}, p99 {:.1?}; trigger to wipe {mean:.1?} ms in the mean",
        took[TIMED / 2],
        took[TIMED - 1]
    );
}

/// What came of a start that must fail.
struct Refused {
    code: Option<i32>,
    said: String,
}

fn start(directory: &Path, audit: &str) -> Refused {
    let (api, sip, ops) = (free_port(), free_port(), free_port());
    let text = format!(
        r#"[api]
listen = "127.0.0.1:{api}"
[sip]
domain = "{EDGE_DOMAIN}"
[[sip.listen]]
transport = "udp"
address = "127.0.0.1:{sip}"
[audit]
path = "audit.log"
{audit}
[vault]
allow_plain_memory = true
[ops]
listen = "127.0.0.1:{ops}"
[[tenant]]
id = "acme"
app_key_sha256 = ["00000000000000000000000000000000000000000000000000000000000000ff"]
[[tenant.app]]
id = "com.example.phone"
provider = "sandbox"
endpoint = "http://127.0.0.1:8444"
"#
    );
    let file = directory.join("reveille.toml");
    fs::write(&file, text).expect("writable");
    let mut command = Command::new(env!("CARGO_BIN_EXE_reveille"));
    let output = command.arg("serve").arg("--config").arg(&file).output().expect("the daemon's binary starts");
    for port in [api, ops] {
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "nothing is served");
    }
    let said = [output.stdout, output.stderr].concat();
    Refused { code: output.status.code(), said: String::from_utf8_lossy(&said).into_owned() }
}
