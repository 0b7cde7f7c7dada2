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
        let (succeeded, told) = child("a_panic_tells_its_place_and_not_its_message");
        assert!(!succeeded);
        assert!(told.contains(&format!("panic at {}:", file!())), "{told}");
        assert!(!told.contains("alice"), "{told}");
    }

    #[test]
    fn nor_does_one_in_another_thread_or_a_task_or_while_another_unwinds() {
        if std::env::var_os(CHILD).is_some() {
            tell_only_the_place();
            panic_elsewhere();
        }
        let (succeeded, told) = child("nor_does_one_in_another_thread_or_a_task_or_while_another_unwinds");
        assert!(!succeeded, "two panics at once end the process");
        assert_eq!(told.matches("panic at").count(), 5, "{told}");
        assert!(!told.contains("alice"), "{told}");
    }

    fn panic_elsewhere() {
        struct Worse;
        impl Drop for Worse {
            fn drop(&mut self) {
                panic!("cannot drop {SECRET}");
            }
        }
        let thread = std::thread::spawn(|| panic!("cannot parse {SECRET}"));
        assert!(thread.join().is_err());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
        assert!(runtime.block_on(runtime.spawn(async { panic!("cannot parse {SECRET}") })).is_err());
        let _worse = Worse;
        Err::<(), _>(SECRET).expect("cannot parse it");
    }

    /// Whether the process ended well, and all that it wrote. It would write a backtrace if it could.
    fn child(test: &str) -> (bool, String) {
        let module = module_path!().split_once("::").map_or("", |(_, module)| module);
        let own = std::env::current_exe().expect("a test knows its own file");
        let child = Command::new(own)
            .args([&format!("{module}::{test}"), "--exact", "--nocapture"])
            .env(CHILD, "1")
            .env("RUST_BACKTRACE", "full")
            .output()
            .expect("the test's own file runs");
        let told = [child.stderr, child.stdout].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        (child.status.success(), told)
    }
}
