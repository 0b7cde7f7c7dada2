//! What the running daemon may do, and that it says so. What a confined process can do is tried in `tests/confine.rs`; here
//! it is looked at from outside.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::daemon::{Daemon, Settings};
use crate::phones::Make;
use crate::process::{installed, until};
use crate::push::Provider;
use crate::setting::Setting;
use crate::world::{Transport, World};

/// In the environment of a caged start: what the kernel shall not know, and whom to start then.
const CAGE: &str = "REVEILLE_TEST_CAGE";
const CAGED: &str = "REVEILLE_TEST_CAGED";

#[test]
fn every_thread_is_confined_and_no_memory_is_dumped() {
    let world = World::new("confined");
    let setting = Setting::new(&world, Provider::Apns, Transport::Tls);
    let mut talk = setting.talk(Make::Pjsip, Transport::Tls);
    let daemon = &setting.daemon;

    let threads = threads(daemon);
    assert!(threads.len() > 3, "the log's two, the runtime's and the first one");
    for status in &threads {
        assert_eq!(field(status, "NoNewPrivs"), "1");
        assert_eq!(field(status, "Seccomp"), "2", "{status}");
    }
    let limits = read(&daemon.proc("limits"));
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a line for it");
    assert_eq!(core.split_whitespace().collect::<Vec<_>>()[4..6], ["0", "0"], "{core}");
    assert_eq!(daemon.readiness(), json!({ "ready": true, "notes": [] }));
    for part in ["dumps", "no_new_privs", "landlock", "seccomp"] {
        let told = format!("part=\"{part}\"");
        let line = |line: &&str| line.contains(": confined") && line.contains(&told);
        until("the log to say so", || (daemon.log().lines().filter(line).count() == 1).then_some(()));
    }
    talk.caller.hang_up();
    setting.wait_nothing_held();
}

#[test]
fn certificates_are_read_again_where_they_are_renewed_and_nowhere_else() {
    let world = World::new("confined-reload");
    let mut setting = Setting::new(&world, Provider::Fcm, Transport::Udp);
    let (certificate, key) = (world.certificate(), world.key());

    // In place, as most do it.
    renew(&certificate, &key, &world.directory_of("renewed"));
    setting.daemon.reload();
    let again = |log: &str| log.matches("certificate read again").count();
    until("both certificates to be read", || (again(&setting.daemon.log()) == 2).then_some(()));

    // Somewhere that was not named when the daemon started.
    let elsewhere = TempDir::new().expect("a directory");
    renew(&certificate, &key, elsewhere.path());
    setting.daemon.reload();
    let refused = |log: &str| log.matches("the new certificate cannot be used; the former one stays").count();
    until("both certificates to be refused", || (refused(&setting.daemon.log()) == 2).then_some(()));
    assert_eq!(again(&setting.daemon.log()), 2);
    assert_eq!(setting.daemon.status(&setting.alice).status, 200, "the API goes on");
}

#[test]
fn the_operators_certificate_is_read_again_in_a_place_of_its_own() {
    let world = World::new("confined-operators");
    let place = world.directory_of("operators");
    let (certificate, key) = (place.join("ops.pem"), place.join("ops.key"));
    fs::copy(world.certificate(), &certificate).expect("copied");
    fs::copy(world.key(), &key).expect("copied");
    let settings = Settings {
        ops: format!("tls_certificate = {certificate:?}\ntls_key = {key:?}"),
        ops_socket: Some(world.sockets().join("ops.sock")),
        ..Settings::default()
    };
    let mut setting = Setting::with(&world, Provider::Fcm, Transport::Udp, &settings);
    assert_eq!(setting.daemon.readiness(), json!({ "ready": true, "notes": [] }), "all of it confined");
    let told = |log: &str, what: &str| log.lines().filter(|it| it.contains(what) && it.contains("\"ops\"")).count();

    setting.daemon.reload();
    until("the certificate to be read", || (told(&setting.daemon.log(), "certificate read again") == 1).then_some(()));
    let elsewhere = TempDir::new().expect("a directory");
    renew(&certificate, &key, elsewhere.path());
    setting.daemon.reload();
    until("the certificate to be refused", || (told(&setting.daemon.log(), "the former one stays") == 1).then_some(()));
    assert_eq!(setting.daemon.ask_operators("/healthz", None).status, 200, "operators are answered as before");
    assert!(setting.daemon.terminate().success());
    assert!(!world.sockets().join("ops.sock").exists(), "the socket goes with its daemon");
}

#[test]
fn each_part_has_its_switch_and_what_is_off_is_told() {
    let world = World::new("confined-off");
    let settings = Settings {
        process: "dumpable = true\nlandlock = false\nseccomp = false\ndebug_faults = true",
        ..Settings::default()
    };
    let setting = Setting::with(&world, Provider::Fcm, Transport::Udp, &settings);
    for status in threads(&setting.daemon) {
        assert_eq!(field(&status, "Seccomp"), "0");
    }
    assert_eq!(
        notes(&setting.daemon),
        [
            "not confined by Landlock: every file of the process's user can be opened",
            "not confined by seccomp: every system call can be made",
            "not confined: the process can be dumped and debugged by its own user",
            "process.debug_faults is on: clients can make requests fail on purpose",
        ]
    );
    let told = |words: &str, times: usize| {
        until(words, || (setting.daemon.log().matches(words).count() == times).then_some(()));
    };
    told("not confined: switched off in [process]", 3);
    until("a warning at start as well", || setting.daemon.log().contains("process.debug_faults").then_some(()));
}

#[test]
fn a_kernel_without_landlock_and_seccomp_is_told_and_serves_all_the_same() {
    let world = World::new("confined-old-kernel");
    let settings = Settings { cage: Some("landlock seccomp"), ..Settings::default() };
    let setting = Setting::with(&world, Provider::Fcm, Transport::Udp, &settings);
    assert_eq!(
        notes(&setting.daemon),
        [
            "not confined by Landlock: every file of the process's user can be opened",
            "not confined by seccomp: every system call can be made",
        ]
    );
    let told = || setting.daemon.log().matches("not confined: the system does not allow it").count();
    until("the log to say so", || (told() == 2).then_some(()));
    let log = setting.daemon.log();
    assert!(log.contains("the kernel has no Landlock"), "{log}");
    setting.daemon.erase(&setting.alice);
}

/// Also the first step of a caged start: the environment says then what the kernel shall not know, and what to start.
#[test]
fn a_caged_program_finds_the_kernel_without_those_calls() {
    if let (Some(calls), Ok(caged)) = (std::env::var_os(CAGE), std::env::var(CAGED)) {
        start_caged(&calls.to_string_lossy(), &caged);
    }
    let world = World::new("confined-cage");
    let directory = world.directory_of("cage");
    // Python takes the daemon's place, and its command `serve` is a script. SECCOMP_GET_ACTION_AVAIL needs no privilege.
    let script = format!(
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nallow = ctypes.c_uint32(0x7fff0000)\n\
         print(libc.syscall({}, 2, 0, ctypes.byref(allow)), ctypes.get_errno())\n",
        libc::SYS_seccomp
    );
    fs::write(directory.join("serve"), script).expect("the test directory is writable");
    let said = |calls: &str| {
        let mut command = Command::new(cage());
        in_cage(&mut command, calls, &installed("python3"), Path::new("no.toml"));
        let output = command.current_dir(&directory).output().expect("this very file can be run");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(said("landlock").ends_with("0 0\n"), "{}", said("landlock"));
    assert!(said("seccomp").ends_with(&format!("-1 {}\n", libc::ENOSYS)), "{}", said("seccomp"));
}

/// Makes the kernel forget the calls, and becomes the program: one in the first line, its configuration in the second.
fn start_caged(calls: &str, caged: &str) {
    let (binary, file) = caged.split_once('\n').expect("whom to start, with what");
    apply_filter(&forgetting(calls)).expect("the kernel of a test machine knows seccomp");
    let error = Command::new(binary).args(["serve", "--config", file]).exec();
    panic!("{binary} does not start: {error}");
}

/// The program that a caged daemon is started by.
pub(crate) fn cage() -> PathBuf {
    std::env::current_exe().expect("a test knows its own file")
}

/// Completes the command of [`cage`].
pub(crate) fn in_cage(command: &mut Command, calls: &str, binary: &Path, file: &Path) {
    let caged = format!("{}\n{}", binary.display(), file.display());
    command
        .args(["confined::a_caged_program_finds_the_kernel_without_those_calls", "--exact", "--nocapture"])
        .env(CAGE, calls)
        .env(CAGED, caged);
}

fn forgetting(calls: &str) -> BpfProgram {
    let numbers = calls.split(' ').flat_map(|call| match call {
        "landlock" => {
            vec![libc::SYS_landlock_create_ruleset, libc::SYS_landlock_add_rule, libc::SYS_landlock_restrict_self]
        }
        "seccomp" => vec![libc::SYS_seccomp],
        "memfd_secret" => vec![libc::SYS_memfd_secret],
        other => panic!("no such group of calls: {other}"),
    });
    let arch = TargetArch::try_from(std::env::consts::ARCH).expect("an architecture that seccompiler knows");
    let unknown = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    let rules = numbers.map(|number| (number, Vec::new())).collect();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, unknown, arch).expect("a filter");
    filter.try_into().expect("a program")
}

/// What the kernel says of each thread; one that ends meanwhile says nothing.
fn threads(daemon: &Daemon<'_>) -> Vec<String> {
    let tasks = fs::read_dir(daemon.proc("task")).expect("the daemon runs");
    tasks.filter_map(|task| fs::read_to_string(task.expect("an entry").path().join("status")).ok()).collect()
}

fn notes(daemon: &Daemon<'_>) -> Vec<String> {
    let Value::Array(notes) = daemon.readiness()["notes"].clone() else { panic!("a list of notes") };
    notes.iter().map(|note| note.as_str().expect("a text").to_owned()).collect()
}

fn field<'t>(status: &'t str, name: &str) -> &'t str {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {status}")).trim()
}

#[track_caller]
fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// Puts the certificate and its key into `place`, and links where they stood to there.
fn renew(certificate: &Path, key: &Path, place: &Path) {
    for file in [certificate, key] {
        let name = file.file_name().expect("a file");
        fs::copy(file, place.join(name)).expect("copied");
        let link = file.with_extension("link");
        std::os::unix::fs::symlink(place.join(name), &link).expect("linked");
        fs::rename(&link, file).expect("renamed over the former one");
    }
}
