//! What a confined process can do, tried from inside one. Each test runs itself again in a process of its own, since there
//! is no way back.

#![allow(clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::Command;

use reveille::config::Process;
use reveille::confine::{self, Confinement, Files, Outcome, Part};
use rustix::process::{DumpableBehavior, Pid, Resource};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

/// Set in a child: its place.
const CHILD: &str = "REVEILLE_TEST_CONFINED";
/// One for each thread that removes one.
const SOCKETS: [&str; 2] = ["sockets/1", "sockets/2"];
/// Set in a child: who listens.
const PEER: &str = "REVEILLE_TEST_PEER";

#[test]
fn a_confined_process_and_its_threads_can_do_what_a_relay_does_and_nothing_else() {
    let expected = [
        ("read a certificate", "ok"),
        ("read a certificate that took its place", "ok"),
        ("list the directory of certificates", "ok"),
        ("write beside a certificate", "denied"),
        ("read another file", "denied"),
        ("write elsewhere", "denied"),
        ("write the log", "ok"),
        ("rotate the log", "ok"),
        ("shorten the log", "ok"),
        ("remove from the log's directory", "ok"),
        ("make a directory beside the log", "denied"),
        ("remove a socket of ours", "ok"),
        ("make a file beside the socket", "denied"),
        ("read beside the socket", "denied"),
        ("list the directory of the socket", "denied"),
        ("execute a program", "denied"),
        ("connect", "ok"),
        ("receive datagrams", "ok"),
        ("listen", "denied"),
        ("open a packet socket", "denied"),
        ("open a netlink socket", "denied"),
        ("make a file in memory", "denied"),
        ("signal another process", "denied"),
        ("become dumpable", "denied"),
        ("raise a limit", "denied"),
        ("enter another root", "denied"),
    ];
    if let Some(place) = child() {
        assert_holds(&confine::apply(&place.confinement(Process::default())));
        let here = place.acts();
        let there = std::thread::spawn(move || place.acts()).join().expect("threads can be made");
        assert_eq!(here, there);
        assert_eq!(here, expected.map(|(act, outcome)| (act, outcome.to_owned())).into());
        return;
    }
    in_a_child("a_confined_process_and_its_threads_can_do_what_a_relay_does_and_nothing_else");
}

#[test]
fn without_its_switches_only_privileges_are_given_up() {
    if let Some(place) = child() {
        let open = Process { dumpable: true, landlock: false, seccomp: false, debug_faults: false };
        let report = confine::apply(&place.confinement(open));
        for (part, outcome) in report.outcomes() {
            assert_eq!(*outcome == Outcome::Off, *part != Part::Privileges, "{part:?} {outcome:?}");
        }
        assert_eq!(report.notes().count(), 3);
        assert_eq!(rustix::process::dumpable_behavior(), Ok(DumpableBehavior::Dumpable));
        assert_eq!(rustix::thread::no_new_privs(), Ok(true));
        let acts = place.acts();
        for act in ["read another file", "write elsewhere", "execute a program", "listen"] {
            assert_eq!(acts[act], "ok", "{act}");
        }
        return;
    }
    in_a_child("without_its_switches_only_privileges_are_given_up");
}

#[test]
fn memory_is_neither_dumped_nor_read_by_others() {
    if let Some(place) = child() {
        let wanted = Process { seccomp: false, ..Process::default() };
        let _ = confine::apply(&place.confinement(wanted));
        assert_eq!(rustix::process::dumpable_behavior(), Ok(DumpableBehavior::NotDumpable));
        let limit = rustix::process::getrlimit(Resource::Core);
        assert_eq!((limit.current, limit.maximum), (Some(0), Some(0)));
        return;
    }
    in_a_child("memory_is_neither_dumped_nor_read_by_others");
}

#[track_caller]
fn assert_holds(report: &confine::Report) {
    for (part, outcome) in report.outcomes() {
        assert!(matches!(outcome, Outcome::Holds(_)), "{part:?} {outcome:?}");
    }
    assert_eq!(report.notes().count(), 0);
}

/// The place of this process, if it is a child.
fn child() -> Option<Place> {
    std::env::var_os(CHILD).map(|directory| Place(directory.into()))
}

/// Runs a test of this file again in a process that has a place to try things.
fn in_a_child(test: &str) {
    let directory = TempDir::new().expect("a directory");
    let place = Place(directory.path().to_owned());
    for part in ["live", "archive", "log", "sockets", "elsewhere"] {
        fs::create_dir(place.at(part)).expect("made");
    }
    for name in ["archive/1.pem", "archive/2.pem", "log/old", "log/gone", "sockets/file"] {
        fs::write(place.at(name), "text").expect("written");
    }
    std::os::unix::fs::symlink("../archive/1.pem", place.at("live/cert.pem")).expect("linked");
    std::os::unix::fs::symlink("../archive/2.pem", place.at("live/next.pem")).expect("linked");
    for socket in SOCKETS {
        drop(UnixListener::bind(place.at(socket)).expect("bound, and left behind"));
    }
    let peer = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = peer.local_addr().expect("bound").to_string();

    let own = std::env::current_exe().expect("a test knows its own file");
    let mut command = Command::new(own);
    command.args([test, "--exact", "--nocapture"]).env(CHILD, directory.path()).env(PEER, address);
    let output = command.output().expect("the test's own file runs");
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
}

/// Where a child tries things: certificates as certbot keeps them, a log, and a directory that is none of its business.
struct Place(PathBuf);

impl Place {
    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn confinement(&self, wanted: Process) -> Confinement {
        let read = confine::directories_of(&self.at("live/cert.pem"));
        Confinement {
            wanted,
            files: Files {
                read,
                write: vec![self.at("log")],
                remove: vec![self.at("sockets")],
                abstract_sockets: false,
            },
        }
    }

    fn remove_a_socket(&self) -> io::Result<()> {
        let [first, second] = SOCKETS.map(|socket| self.at(socket));
        fs::remove_file(if first.exists() { first } else { second })
    }

    fn acts(&self) -> BTreeMap<&'static str, String> {
        let acts: [(&str, io::Result<()>); 26] = [
            ("read a certificate", fs::read(self.at("live/cert.pem")).map(drop)),
            ("read a certificate that took its place", fs::read(self.at("live/next.pem")).map(drop)),
            ("list the directory of certificates", fs::read_dir(self.at("live")).map(drop)),
            ("write beside a certificate", fs::write(self.at("live/own.pem"), "text")),
            ("read another file", fs::read("/etc/passwd").map(drop)),
            ("write elsewhere", fs::write(self.at("elsewhere/file"), "text")),
            ("write the log", fs::write(self.at("log/new"), "text")),
            ("rotate the log", fs::rename(self.at("log/new"), self.at("log/rotated"))),
            ("shorten the log", fs::File::options().write(true).open(self.at("log/old")).and_then(|f| f.set_len(1))),
            ("remove from the log's directory", fs::remove_file(self.at("log/rotated"))),
            ("make a directory beside the log", fs::create_dir(self.at("log/directory"))),
            ("remove a socket of ours", self.remove_a_socket()),
            ("make a file beside the socket", fs::write(self.at("sockets/own"), "text")),
            ("read beside the socket", fs::read(self.at("sockets/file")).map(drop)),
            ("list the directory of the socket", fs::read_dir(self.at("sockets")).map(drop)),
            ("execute a program", Command::new("/bin/true").status().map(drop)),
            ("connect", peer().and_then(TcpStream::connect).map(drop)),
            ("receive datagrams", UdpSocket::bind("127.0.0.1:0").map(drop)),
            ("listen", TcpListener::bind("127.0.0.1:0").map(drop)),
            ("open a packet socket", Socket::new(Domain::PACKET, Type::DGRAM, None).map(drop)),
            ("open a netlink socket", Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, None).map(drop)),
            ("make a file in memory", call(rustix::fs::memfd_create("x", rustix::fs::MemfdFlags::CLOEXEC).map(drop))),
            ("signal another process", call(rustix::process::test_kill_process(Pid::INIT))),
            ("become dumpable", call(rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable))),
            ("raise a limit", call(raise_a_limit())),
            ("enter another root", call(rustix::process::chroot(&self.0))),
        ];
        acts.into_iter().map(|(act, outcome)| (act, told(outcome))).collect()
    }
}

fn peer() -> io::Result<SocketAddr> {
    std::env::var(PEER).map_err(io::Error::other)?.parse().map_err(io::Error::other)
}

fn raise_a_limit() -> rustix::io::Result<()> {
    rustix::process::setrlimit(Resource::Nofile, rustix::process::getrlimit(Resource::Nofile))
}

fn call(outcome: rustix::io::Result<()>) -> io::Result<()> {
    outcome.map_err(io::Error::from)
}

fn told(outcome: io::Result<()>) -> String {
    match outcome {
        Ok(()) => "ok".to_owned(),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => "denied".to_owned(),
        Err(error) => error.to_string(),
    }
}
