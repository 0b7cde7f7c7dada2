//! A panic is a bug of ours. Its message may hold what a peer sent, so only its place is told.

use std::io::Write;
use std::panic;

/// From now on a panic prints its place and nothing else.
pub fn tell_only_the_place() {
    panic::set_hook(Box::new(|info| {
        // Not through the log: it may be the one that panicked. There is nobody to tell if this write fails.
        let _ = match info.location() {
            Some(place) => writeln!(
                std::io::stderr(),
                "reveille: bug: panic at {}:{}:{}; please report the place",
                place.file(),
                place.line(),
                place.column()
            ),
            None => writeln!(std::io::stderr(), "reveille: bug: panic at an unknown place"),
        };
    }));
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const CHILD: &str = "REVEILLE_TEST_PANICS";
    const SECRET: &str = "sip:alice@example.com";

    /// Runs itself in a process of its own, as the hook belongs to a whole process.
    #[test]
    fn a_panic_tells_its_place_and_not_its_message() {
        if std::env::var_os(CHILD).is_some() {
            tell_only_the_place();
            panic!("cannot parse {SECRET}");
        }
        let name = concat!(module_path!(), "::a_panic_tells_its_place_and_not_its_message");
        let name = name.split_once("::").map_or(name, |(_, name)| name);
        let own = std::env::current_exe().expect("a test knows its own file");
        let child = Command::new(own).args([name, "--exact", "--nocapture"]).env(CHILD, "1").output();
        let child = child.expect("the test's own file runs");
        let told = format!("{}{}", String::from_utf8_lossy(&child.stderr), String::from_utf8_lossy(&child.stdout));
        assert!(!child.status.success());
        assert!(told.contains(&format!("panic at {}:", file!())), "{told}");
        assert!(!told.contains("alice"), "{told}");
    }
}
