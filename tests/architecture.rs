//! The house rules that a compiler does not know: who may use whom, who may read clocks, who may be unsafe.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Rooms by level, lowest first. Within a level the order counts: a room may use those before it.
const ORDER: [&[&str]; 7] = [
    &["clock", "sip", "vault"],
    &["engine"],
    &["config", "cli", "telemetry", "net", "push", "audit_log"],
    &["effects", "router", "shard"],
    &["api", "ops"],
    &["confine", "systemd", "drain", "app"],
    &["sandbox"],
];

/// Inside a level these use nothing of each other at all.
const STRANGERS: [&str; 3] = ["clock", "sip", "vault"];

/// Level 1 rooms that may read the time type.
const EXCEPTIONS: [(&str, &str); 2] = [
    // Timers of RFC 3261 are counted in the clock's instants; they are handed in, never read.
    ("sip", "clock"),
    // Wiring and its end are one thing in two files.
    ("drain", "app"),
];

/// The rooms of the engine: they never import one another; `engine::engine` and its continuations join them.
const ENGINE_ROOMS: [&str; 15] = [
    "leases",
    "places",
    "guesses",
    "names",
    "bindings",
    "destinations",
    "edge",
    "calls",
    "pass",
    "texts",
    "mailboxes",
    "wakes",
    "proofs",
    "stories",
    "erasures",
];

struct Source {
    path: PathBuf,
    room: String,
    text: String,
}

#[test]
fn a_room_uses_lower_levels_only() {
    let place: BTreeMap<&str, (usize, usize)> = ORDER
        .iter()
        .enumerate()
        .flat_map(|(level, rooms)| rooms.iter().enumerate().map(move |(order, room)| (*room, (level, order))))
        .collect();
    let mut faults = BTreeSet::new();
    for source in sources() {
        // Tests look at a room together with the stand-ins it talks to.
        if source.path.components().any(|part| matches!(part.as_os_str().to_str(), Some("tests" | "tests.rs"))) {
            continue;
        }
        let Some(own) = place.get(source.room.as_str()) else {
            assert!(matches!(source.room.as_str(), "lib" | "main"), "{} is in no level", source.room);
            continue;
        };
        for used in uses(&source.text) {
            let Some(other) = place.get(used.as_str()) else { continue };
            let same = used == source.room;
            let excepted = EXCEPTIONS.contains(&(source.room.as_str(), used.as_str()));
            let strangers = STRANGERS.contains(&source.room.as_str()) && own.0 == other.0;
            if !same && !excepted && (other > own || strangers) {
                faults.insert(format!("{} uses {used}", source.path.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn rooms_of_the_engine_do_not_import_one_another() {
    let mut faults = Vec::new();
    for source in sources() {
        let inner = source.path.strip_prefix("src/engine").ok().and_then(|path| path.components().next());
        let Some(file) = inner.map(|part| part.as_os_str().to_string_lossy().into_owned()) else { continue };
        let room = file.trim_end_matches(".rs");
        if !ENGINE_ROOMS.contains(&room) {
            continue;
        }
        for other in ENGINE_ROOMS.iter().filter(|other| **other != room) {
            for line in code(&source.text).filter(|line| line.contains(&format!("{other}::"))) {
                faults.push(format!("{}: {}", source.path.display(), line.trim()));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn only_the_clock_reads_clocks() {
    forbid(&["Instant::now(", "SystemTime::now(", "clock_gettime("], |source| source.room == "clock");
}

#[test]
fn only_the_vault_may_be_unsafe() {
    forbid(&["unsafe ", "unsafe{"], |source| source.room == "vault");
}

#[test]
fn nothing_below_level_three_knows_the_runtime() {
    let below = ["clock", "sip", "vault", "engine"];
    forbid(&["tokio"], |source| !below.contains(&source.room.as_str()));
}

#[test]
fn main_is_a_table_of_contents_and_the_map_stays_short() {
    let lines = |path: &str| std::fs::read_to_string(root().join(path)).expect("the file is there").lines().count();
    assert!(lines("src/main.rs") <= 80, "src/main.rs");
    assert!(lines("ARCHITECTURE.md") <= 120, "ARCHITECTURE.md");
}

#[test]
fn the_page_of_promises_names_proofs_that_exist() {
    let page = std::fs::read_to_string(root().join("docs/privacy.md")).expect("the page is there");
    let mut tests = Vec::new();
    for folder in ["src", "tests"] {
        walk(&root().join(folder), &mut tests);
    }
    // What stands between back-quotes and looks like the name of a test or the path of a file of ours.
    let mut named = 0;
    for word in page.split('`').skip(1).step_by(2) {
        if word.matches('_').count() >= 3
            && word.bytes().all(|byte| byte.is_ascii_lowercase() || b"_0123456789".contains(&byte))
        {
            named += 1;
            assert!(tests.iter().any(|source| source.text.contains(&format!("fn {word}("))), "{word} is not there");
        } else if word.starts_with("src/") || word.starts_with("scripts/") {
            let path = word.split(' ').next().expect("the first word");
            assert!(root().join(path).exists(), "{path} is not there");
        }
    }
    assert!(named > 20, "the promises have lost their proofs");
}

#[test]
fn the_map_of_rfcs_and_the_changelog_say_nothing_twice() {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).expect("the page is there");
    let (map, log) = (read("docs/rfc-map.md"), read("CHANGELOG.md"));
    let rows = map.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let entries = log.lines().filter(|line| line.starts_with("- "));
    for (of, lines) in [("rows", rows.filter(|row| *row != "RFC").collect::<Vec<_>>()), ("entries", entries.collect())]
    {
        let mut seen = BTreeSet::new();
        let twice: Vec<_> = lines.into_iter().filter(|line| !seen.insert(*line)).collect();
        assert!(seen.len() > 40 && twice.is_empty(), "{of} that are there twice: {twice:#?}");
    }
}

fn forbid(words: &[&str], allowed: impl Fn(&Source) -> bool) {
    let mut faults = Vec::new();
    for source in sources().into_iter().filter(|source| !allowed(source)) {
        for line in code(&source.text).filter(|line| words.iter().any(|word| line.contains(word))) {
            faults.push(format!("{}: {}", source.path.display(), line.trim()));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

/// Lines that are not comments.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim_start().starts_with("//"))
}

/// Rooms named after `crate::` anywhere in the code, braces included.
fn uses(text: &str) -> BTreeSet<String> {
    let text: String = code(text).collect::<Vec<_>>().join("\n");
    let mut rooms = BTreeSet::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        if let Some(inner) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut word = String::new();
            for character in inner.chars() {
                match character {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' => word.clear(),
                    _ if depth == 0 && (character.is_alphanumeric() || character == '_') => word.push(character),
                    ':' if depth == 0 && !word.is_empty() => {
                        rooms.insert(std::mem::take(&mut word));
                    }
                    _ => {}
                }
                if depth == 0 && !word.is_empty() {
                    rooms.insert(word.clone());
                }
            }
        } else {
            rooms.insert(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    rooms
}

fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    walk(&root().join("src"), &mut found);
    assert!(found.len() > 50, "the sources were not found");
    found
}

fn walk(directory: &Path, found: &mut Vec<Source>) {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(directory).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            walk(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).expect("a source file");
            let path = path.strip_prefix(root()).expect("below the root").to_path_buf();
            let room = path.components().nth(1).expect("below src").as_os_str().to_string_lossy().into_owned();
            found.push(Source { room: room.trim_end_matches(".rs").to_owned(), path, text });
        }
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
