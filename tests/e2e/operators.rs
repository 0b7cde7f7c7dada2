//! Who may ask the daemon about itself: over a Unix socket, with a token, and not without.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::daemon::{Daemon, Settings, sha256_hex};
use crate::kamailio::{Kamailio, Manners};
use crate::process::until;
use crate::push::{Provider, PushService};
use crate::world::{Transport, World};

const TOKEN: &str = "a-token-for-the-scraper";

fn reveille(arguments: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_reveille")).args(arguments).output();
    output.expect("the daemon's binary starts")
}

fn words(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

#[test]
fn operators_ask_over_a_unix_socket_or_with_a_token_and_nobody_asks_without() {
    let world = World::new("operators");
    let kamailio = Kamailio::start(&world, &Manners::default());
    let push = PushService::start(&world, Provider::Apns);
    let socket = world.sockets().join("ops.sock");
    let settings = Settings {
        ops_socket: Some(socket.clone()),
        ops: format!("token_sha256 = \"{}\"", sha256_hex(TOKEN)),
        ..Settings::default()
    };
    let mut daemon = Daemon::start_with(&world, &kamailio, &push, &settings);

    for (path, without, with) in
        [("/healthz", 200, 200), ("/readyz", 200, 200), ("/metrics", 401, 200), ("/calls", 401, 200)]
    {
        assert_eq!(daemon.ask_operators(path, None).status, without, "{path}");
        assert_eq!(daemon.ask_operators(path, Some("wrong")).status, without, "{path}");
        assert_eq!(daemon.ask_operators(path, Some(TOKEN)).status, with, "{path}");
    }
    // Over the socket, which the configuration names.
    let file = daemon.directory().join("reveille.toml");
    assert!(reveille(&["status", "--config", words(&file)]).status.success());
    assert!(reveille(&["calls", "--config", words(&file)]).status.success());
    // A user who asks for help gives the id of his instance; the log never names it.
    let alice = daemon.hand_over(&kamailio, &push, "alice", Transport::Udp);
    let names = reveille(&["log-names", "--config", words(&file), &alice.id]);
    let names = String::from_utf8(names.stdout).expect("text");
    let name = names.lines().last().and_then(|line| line.split(' ').nth(1)).expect("a day and its name");
    until("the hand-over's line in the log", || {
        daemon.log().lines().any(|line| line.contains("handed over") && line.contains(name)).then_some(())
    });
    assert_eq!(daemon.ask_operators(&format!("/log-names/{}", alice.id), None).status, 401);
    let url = daemon.ops_url();
    let refused = reveille(&["status", "--ops", &url]);
    assert_eq!(refused.status.code(), Some(69));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--token-file"), "{refused:?}");
    let token_file = daemon.directory().join("token");
    fs::write(&token_file, format!("{TOKEN}\n")).expect("the directory is writable");
    assert!(reveille(&["status", "--ops", &url, "--token-file", words(&token_file)]).status.success());

    // A killed daemon leaves its socket behind; the next one takes its place, and removes it at its end.
    daemon.kill();
    drop(daemon);
    assert!(socket.exists());
    let mut next = Daemon::start_with(&world, &kamailio, &push, &settings);
    let file = next.directory().join("reveille.toml");
    assert!(reveille(&["status", "--config", words(&file)]).status.success());
    assert!(next.terminate().success());
    assert!(!socket.exists());

    // Wider than this host with nothing asked for: refused before anything starts.
    let text = fs::read_to_string(&file).expect("it was written");
    let wide =
        text.replace("[ops]\nlisten = [\"127.0.0.1:", "[ops]\nlisten = [\"0.0.0.0:").replace("token_sha256", "# ");
    assert_ne!(wide, text);
    fs::write(&file, wide).expect("the directory is writable");
    let checked = reveille(&["check-config", words(&file)]);
    assert_eq!(checked.status.code(), Some(78));
    let said = String::from_utf8_lossy(&checked.stderr).into_owned() + &String::from_utf8_lossy(&checked.stdout);
    assert!(said.contains("ops.listen: is not a loopback address"), "{said}");
}
