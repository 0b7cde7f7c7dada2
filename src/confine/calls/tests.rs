//! The programs are asked as the kernel asks them, so that calls which no safe code can make are asked about too.

use super::*;

const OWN: u64 = 4711;
const ALLOWED: u32 = libc::SECCOMP_RET_ALLOW;
const EPERM: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

#[test]
fn what_would_make_a_hole_worse_is_refused() {
    for call in [
        libc::SYS_execve,
        libc::SYS_execveat,
        libc::SYS_ptrace,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_memfd_create,
        libc::SYS_bpf,
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_pivot_root,
        libc::SYS_chroot,
        libc::SYS_keyctl,
        libc::SYS_add_key,
        libc::SYS_request_key,
        libc::SYS_userfaultfd,
        libc::SYS_io_uring_setup,
        libc::SYS_io_uring_enter,
        libc::SYS_io_uring_register,
        libc::SYS_perf_event_open,
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_kill,
        libc::SYS_tkill,
        libc::SYS_pidfd_open,
        libc::SYS_pidfd_getfd,
        libc::SYS_init_module,
        libc::SYS_finit_module,
        libc::SYS_kexec_load,
        libc::SYS_setuid,
        libc::SYS_setgid,
        libc::SYS_capset,
        libc::SYS_seccomp,
        libc::SYS_listen,
        libc::SYS_fchmodat,
        libc::SYS_fchownat,
        libc::SYS_mkdirat,
        libc::SYS_symlinkat,
        libc::SYS_linkat,
        libc::SYS_mknodat,
        libc::SYS_pkey_mprotect,
        libc::SYS_shmat,
        libc::SYS_personality,
        libc::SYS_open_by_handle_at,
        libc::SYS_settimeofday,
        libc::SYS_clock_settime,
        libc::SYS_sethostname,
        libc::SYS_reboot,
    ] {
        assert_eq!(asked(call, [0; 6]), EPERM, "call {call}");
    }
    #[cfg(target_arch = "x86_64")]
    for call in [libc::SYS_fork, libc::SYS_vfork, libc::SYS_open, libc::SYS_chmod, libc::SYS_modify_ldt] {
        assert_eq!(asked(call, [0; 6]), EPERM, "call {call}");
    }
}

#[test]
fn what_libraries_can_do_without_is_not_there() {
    for call in [libc::SYS_clone3, libc::SYS_faccessat2, libc::SYS_openat2] {
        assert_eq!(asked(call, [0; 6]), ENOSYS, "call {call}");
    }
}

#[test]
fn a_clone_may_be_a_thread_and_nothing_else() {
    let thread = (libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_FILES | libc::CLONE_SIGHAND | libc::CLONE_THREAD)
        .cast_unsigned()
        .into();
    assert_eq!(asked(libc::SYS_clone, [thread, 0, 0, 0, 0, 0]), ALLOWED);
    for flags in [libc::SIGCHLD, libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD, libc::CLONE_NEWUSER] {
        assert_eq!(asked(libc::SYS_clone, [flags.cast_unsigned().into(), 0, 0, 0, 0, 0]), EPERM, "{flags:x}");
    }
    for namespace in [libc::CLONE_NEWUSER, libc::CLONE_NEWNET, libc::CLONE_NEWNS] {
        let flags = thread | u64::from(namespace.cast_unsigned());
        assert_eq!(asked(libc::SYS_clone, [flags, 0, 0, 0, 0, 0]), EPERM, "{namespace:x}");
    }
}

#[test]
fn memory_is_writable_or_executable_and_never_made_executable() {
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        for (protection, answer) in [
            (libc::PROT_NONE, ALLOWED),
            (libc::PROT_READ | libc::PROT_WRITE, ALLOWED),
            (libc::PROT_READ | libc::PROT_EXEC, EPERM),
            (libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC, EPERM),
        ] {
            assert_eq!(asked(call, [0, 4096, argument(protection), 0, 0, 0]), answer, "{call} {protection}");
        }
    }
}

#[test]
fn sockets_are_of_the_internet_or_of_unix() {
    let socket = |family| asked(libc::SYS_socket, [argument(family), 0, 0, 0, 0, 0]);
    for family in [libc::AF_INET, libc::AF_INET6, libc::AF_UNIX] {
        assert_eq!(socket(family), ALLOWED, "{family}");
    }
    for family in [libc::AF_NETLINK, libc::AF_PACKET, libc::AF_VSOCK, libc::AF_ALG, libc::AF_BLUETOOTH] {
        assert_eq!(socket(family), EPERM, "{family}");
    }
    assert_eq!(asked(libc::SYS_socketpair, [argument(libc::AF_UNIX), 0, 0, 0, 0, 0]), ALLOWED);
    assert_eq!(asked(libc::SYS_socketpair, [argument(libc::AF_INET), 0, 0, 0, 0, 0]), EPERM);
}

#[test]
fn signals_limits_and_settings_are_our_own() {
    assert_eq!(asked(libc::SYS_tgkill, [OWN, 0, 6, 0, 0, 0]), ALLOWED);
    assert_eq!(asked(libc::SYS_tgkill, [OWN + 1, 0, 6, 0, 0, 0]), EPERM);
    assert_eq!(asked(libc::SYS_prlimit64, [0, 4, 0, 1 << 40, 0, 0]), ALLOWED, "reading");
    assert_eq!(asked(libc::SYS_prlimit64, [0, 4, 1 << 40, 0, 0, 0]), EPERM, "setting");
    assert_eq!(asked(libc::SYS_prlimit64, [OWN + 1, 4, 0, 1 << 40, 0, 0]), EPERM, "another's");
    assert_eq!(asked(libc::SYS_prctl, [argument(libc::PR_SET_NAME), 0, 0, 0, 0, 0]), ALLOWED);
    for option in [libc::PR_SET_DUMPABLE, libc::PR_SET_PTRACER, libc::PR_SET_SECCOMP, libc::PR_CAPBSET_DROP] {
        assert_eq!(asked(libc::SYS_prctl, [argument(option), 1, 0, 0, 0, 0]), EPERM, "{option}");
    }
    assert_eq!(asked(libc::SYS_ioctl, [0, libc::FIONBIO as u64, 0, 0, 0, 0]), ALLOWED);
    assert_eq!(asked(libc::SYS_ioctl, [0, libc::TIOCSTI as u64, 0, 0, 0, 0]), EPERM, "typing into a terminal");
}

#[test]
fn calls_of_another_architecture_end_the_process() {
    let programs = programs(OWN).expect("this architecture is known");
    assert_eq!(run(&programs[1], libc::SYS_read, [0; 6], 0x4000_0003), libc::SECCOMP_RET_KILL_PROCESS);
}

fn argument(value: i32) -> u64 {
    u64::from(value.cast_unsigned())
}

/// What both filters together answer: the one that is more than "allowed".
fn asked(call: c_long, arguments: [u64; 6]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    const ARCH: u32 = 0xc000_003e;
    #[cfg(target_arch = "aarch64")]
    const ARCH: u32 = 0xc000_00b7;
    let programs = programs(OWN).expect("this architecture is known");
    let answers = programs.map(|program| run(&program, call, arguments, ARCH));
    answers.into_iter().find(|answer| *answer != ALLOWED).unwrap_or(ALLOWED)
}

/// As much of classic BPF as filters are made of (linux/bpf_common.h).
fn run(program: &BpfProgram, call: c_long, arguments: [u64; 6], arch: u32) -> u32 {
    let mut data = Vec::from([u32::try_from(call).expect("small"), arch, 0, 0]);
    data.extend(arguments.iter().flat_map(|value| {
        let half = |bits: u64| u32::try_from(bits & 0xffff_ffff).expect("32 bits");
        [half(*value), half(*value >> 32)]
    }));
    let (mut at, mut a) = (0, 0u32);
    loop {
        let step = &program[at];
        let jump = |holds: bool| usize::from(if holds { step.jt } else { step.jf });
        at += 1;
        match step.code {
            0x20 => a = data[step.k as usize / 4],
            0x54 => a &= step.k,
            0x05 => at += step.k as usize,
            0x15 => at += jump(a == step.k),
            0x25 => at += jump(a > step.k),
            0x35 => at += jump(a >= step.k),
            0x06 => return step.k,
            code => unreachable!("instruction {code:#x}"),
        }
    }
}
