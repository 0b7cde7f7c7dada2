//! The key's page with the kernel's help, and with a kernel that refuses.
//!
//! Refusals are real ones: a seccomp filter holds for the thread that installs it, and a limit for a process of its own.

#![expect(unsafe_code, reason = "a test installs a seccomp filter")]

use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::thread;

use rustix::process::{Resource, Rlimit, setrlimit};

use super::*;

const CHILD: &str = "REVEILLE_TEST_NO_LOCKED_MEMORY";

#[test]
fn the_key_is_in_memory_that_nobody_else_reads() {
    let (key, protection) = ProcessKey::new(false).expect("this kernel protects memory");
    if protection == Protection::SecretMemory {
        assert_eq!(key.shortfall(), None);
        let mut view = [0; KEY_LEN];
        let memory = std::fs::File::open("/proc/self/mem").expect("Linux shows a process its memory");
        let read = std::os::unix::fs::FileExt::read_exact_at(&memory, &mut view, key.bytes().as_ptr() as u64);
        assert!(read.is_err(), "not even through the kernel");
    }
    assert_ne!(key.bytes(), [0; KEY_LEN]);
    round_trip(&key);
}

#[test]
fn a_kernel_without_secret_memory_gives_a_locked_page() {
    let (protection, why, flags) = refused(&[(libc::SYS_memfd_secret, libc::ENOSYS)], || {
        let (key, protection) = ProcessKey::new(false).expect("a locked page");
        round_trip(&key);
        (protection, key.shortfall().map(str::to_owned), flags_of(key.bytes().as_ptr() as usize))
    });
    assert_eq!(protection, Protection::LockedMemory);
    assert!(why.expect("a reason").contains("Function not implemented"));
    for flag in ["lo", "dd", "wf"] {
        assert!(flags.split(' ').any(|other| other == flag), "{flag} is missing: {flags}");
    }
}

#[test]
fn a_filter_that_refuses_secret_memory_gives_a_locked_page() {
    let (protection, why) = refused(&[(libc::SYS_memfd_secret, libc::EPERM)], || {
        let (key, protection) = ProcessKey::new(false).expect("a locked page");
        (protection, key.shortfall().map(str::to_owned))
    });
    assert_eq!(protection, Protection::LockedMemory);
    assert!(why.expect("a reason").contains("Operation not permitted"));
}

#[test]
fn without_any_protected_memory_there_is_no_key_unless_allowed() {
    const NONE: [(libc::c_long, libc::c_int); 2] =
        [(libc::SYS_memfd_secret, libc::ENOSYS), (libc::SYS_mlock, libc::EPERM)];
    let problem = refused(&NONE, || ProcessKey::new(false).map(|_| ()).expect_err("no memory").to_string());
    for told in ["Function not implemented", "Operation not permitted", "vault.allow_plain_memory", "RLIMIT_MEMLOCK"] {
        assert!(problem.contains(told), "{problem}");
    }
    let (protection, why) = refused(&NONE, || {
        let (key, protection) = ProcessKey::new(true).expect("plain memory is allowed");
        round_trip(&key);
        (protection, key.shortfall().map(str::to_owned))
    });
    assert_eq!(protection, Protection::Plain);
    assert!(why.expect("a reason").contains("mlock"));
}

#[test]
fn a_page_that_cannot_be_kept_from_dumps_is_not_taken() {
    let refusals = [(libc::SYS_memfd_secret, libc::ENOSYS), (libc::SYS_madvise, libc::EINVAL)];
    assert!(refused(&refusals, || ProcessKey::new(false).is_err()));
}

/// Runs itself in a process of its own, as the limit belongs to a whole process.
#[test]
fn where_no_page_may_be_locked_there_is_no_key_unless_allowed() {
    if std::env::var_os(CHILD).is_none() {
        let name = concat!(module_path!(), "::where_no_page_may_be_locked_there_is_no_key_unless_allowed");
        let name = name.split_once("::").map_or(name, |(_, name)| name);
        let own = std::env::current_exe().expect("a test knows its own file");
        let child = Command::new(own).args([name, "--exact", "--nocapture"]).env(CHILD, "1").output();
        let child = child.expect("the test's own file runs");
        let told = format!("{}{}", String::from_utf8_lossy(&child.stderr), String::from_utf8_lossy(&child.stdout));
        assert!(child.status.success() && child.status.signal().is_none(), "{told}");
        assert!(told.contains("1 passed"), "{told}");
        return;
    }
    // Root may lock what it likes.
    let none = rustix::thread::CapabilitySets {
        effective: rustix::thread::CapabilitySet::empty(),
        permitted: rustix::thread::CapabilitySet::empty(),
        inheritable: rustix::thread::CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, none).expect("a thread may lay down what it has");
    setrlimit(Resource::Memlock, Rlimit { current: Some(0), maximum: Some(0) }).expect("a limit may be lowered");

    let problem = ProcessKey::new(false).map(|_| ()).expect_err("no page may be locked").to_string();
    assert!(problem.contains("RLIMIT_MEMLOCK"), "{problem}");
    let (key, protection) = ProcessKey::new(true).expect("plain memory is allowed");
    assert_eq!(protection, Protection::Plain);
    round_trip(&key);
}

#[test]
fn what_was_changed_or_is_another_ones_does_not_open() {
    let key = ProcessKey::plain();
    let sealed = |about: &[u8]| {
        let mut bytes = *b"what is sealed, and room for the tag............";
        (key.seal(&mut bytes, about), bytes)
    };
    let (number, bytes) = sealed(b"a");
    assert!(key.open(number, &mut bytes.clone(), b"a").is_some());
    assert!(key.open(number, &mut bytes.clone(), b"b").is_none());
    assert!(key.open(number + 1, &mut bytes.clone(), b"a").is_none());
    assert!(ProcessKey::plain().open(number, &mut bytes.clone(), b"a").is_none());
    for place in 0..bytes.len() {
        let mut changed = bytes;
        changed[place] ^= 1;
        assert!(key.open(number, &mut changed, b"a").is_none());
    }
}

#[test]
fn a_nonce_never_comes_twice() {
    let key = ProcessKey::plain();
    let mut numbers: Vec<u64> = thread::scope(|scope| {
        let seal = || (0..1000).map(|_| key.seal(&mut [0; TAG_LEN + 1], b"")).collect::<Vec<u64>>();
        let threads = [scope.spawn(seal), scope.spawn(seal)];
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    });
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 2000);
}

fn round_trip(key: &ProcessKey) {
    let mut bytes = *b"plain and tag...................";
    let number = key.seal(&mut bytes, b"");
    assert_ne!(bytes[..16], b"plain and tag..."[..]);
    assert_eq!(key.open(number, &mut bytes, b"").expect("ours"), b"plain and tag...");
}

/// Runs `work` in a thread for which these system calls fail.
fn refused<R: Send + 'static>(calls: &[(libc::c_long, libc::c_int)], work: impl FnOnce() -> R + Send + 'static) -> R {
    let mut program = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0)];
    for (call, errno) in calls {
        let call = u32::try_from(*call).expect("calls have small numbers");
        let errno = u32::try_from(*errno).expect("errors have small numbers");
        program.push(statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, call));
        program.push(statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | errno));
    }
    program.push(statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW));
    let thread = thread::spawn(move || {
        let filter =
            libc::sock_fprog { len: u16::try_from(program.len()).expect("short"), filter: program.as_mut_ptr() };
        // SAFETY: plain numbers; and a filter that lives until the call returns, which copies it.
        unsafe {
            assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
            assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter), 0);
        }
        work()
    });
    thread.join().expect("the work does not panic")
}

fn statement(code: u32, yes: u8, no: u8, value: u32) -> libc::sock_filter {
    libc::sock_filter { code: u16::try_from(code).expect("a code"), jt: yes, jf: no, k: value }
}

/// The kernel's flags of the mapping that an address lies in, as in `/proc/self/smaps`.
fn flags_of(address: usize) -> String {
    let maps = std::fs::read_to_string("/proc/self/smaps").expect("Linux lists mappings");
    let holds = |line: &str| {
        let (start, rest) = line.split_once('-')?;
        let (end, _) = rest.split_once(' ')?;
        let range = usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?;
        Some(range.contains(&address))
    };
    let from = maps.lines().skip_while(|line| holds(line) != Some(true));
    let flags = from.into_iter().find_map(|line| line.strip_prefix("VmFlags: "));
    flags.expect("every mapping has flags").to_owned()
}

#[test]
fn a_fingerprint_is_of_its_parts_its_purpose_and_its_process() {
    let (key, other) = (ProcessKey::plain(), ProcessKey::plain());
    let parts: [&[u8]; 2] = [b"a", b"bc"];
    let fingerprint = key.fingerprint("this", &parts);
    assert_eq!(key.fingerprint("this", &parts), fingerprint);
    for another in [
        key.fingerprint("that", &parts),
        key.fingerprint("this", &[b"ab", b"c"]),
        key.fingerprint("this", &[b"abc"]),
        other.fingerprint("this", &parts),
    ] {
        assert_ne!(another, fingerprint);
    }
}
