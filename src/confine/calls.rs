//! seccomp: which system calls may still be made.
//!
//! A list of what is allowed, after systemd's `@system-service` without what is privileged or about resources, and without
//! what only a start needs. Everything else is answered `EPERM`: no program is executed, no process started, nothing
//! traced, mounted or mapped for execution, no key ring, no io_uring, no BPF, no socket but of the internet and of Unix,
//! and none that listens. A handful of calls is answered `ENOSYS` instead, because libraries take that for "not there"
//! and use the older one that is allowed.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};

/// Allowed with whatever arguments.
const ALWAYS: &[c_long] = &[
    // Files that are open, or that Landlock lets us open.
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_faccessat,
    libc::SYS_fallocate,
    libc::SYS_fcntl,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_lseek,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_sync_file_range,
    libc::SYS_unlinkat,
    libc::SYS_write,
    libc::SYS_writev,
    // Waiting.
    libc::SYS_clock_nanosleep,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_futex,
    libc::SYS_nanosleep,
    libc::SYS_pipe2,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_restart_syscall,
    libc::SYS_sched_yield,
    // Sockets; `socket` and `socketpair` see below. Listening is over.
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_recvfrom,
    libc::SYS_recvmmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    // Memory; `mmap` and `mprotect` see below.
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_mincore,
    libc::SYS_mlock,
    libc::SYS_mlock2,
    libc::SYS_mremap,
    libc::SYS_munlock,
    libc::SYS_munmap,
    // Threads, their signals and their end; `clone` see below.
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_get_robust_list,
    libc::SYS_getcpu,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sched_getaffinity,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_sigaltstack,
    // What the system is, what time it is, and chance.
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getppid,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_gettimeofday,
    libc::SYS_getuid,
    libc::SYS_sysinfo,
    libc::SYS_uname,
];

/// The older forms of some of these, which C libraries still use where they exist.
#[cfg(target_arch = "x86_64")]
const OLDER: &[c_long] = &[
    libc::SYS_access,
    libc::SYS_dup2,
    libc::SYS_epoll_wait,
    libc::SYS_lstat,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_stat,
    libc::SYS_time,
    libc::SYS_unlink,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[c_long] = &[];

/// Answered "there is no such call", so that an older one is used: `clone` for `clone3`, whose flags no filter can see.
const UNKNOWN: &[c_long] = &[libc::SYS_clone3, libc::SYS_faccessat2, libc::SYS_openat2];

/// A new thread of this process, in the namespaces of this process. A thread cannot have its own namespaces anyway, but
/// for some kinds.
const CLONE_SEEN: i32 = libc::CLONE_THREAD
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET;

/// Takes everything else away from this thread and those it starts.
pub(super) fn restrict() -> Result<String, String> {
    let told = |error: seccompiler::Error| error.to_string();
    let own = u64::from(std::process::id());
    let programs = programs(own).map_err(|error| error.to_string())?;
    for program in &programs {
        apply_filter(program).map_err(told)?;
    }
    Ok(format!("{} system calls", ALWAYS.len() + OLDER.len() + rules_of_arguments(own).map_or(0, |rules| rules.len())))
}

/// Two filters, since one has a single answer to what it matches. The stricter answer of the two counts.
fn programs(own: u64) -> Result<[BpfProgram; 2], BackendError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let unknown = UNKNOWN.iter().map(|call| (*call, Vec::new())).collect();
    let unknown = SeccompFilter::new(unknown, SeccompAction::Allow, errno(libc::ENOSYS), arch)?;
    let allowed = SeccompFilter::new(allowed(own)?, errno(libc::EPERM), SeccompAction::Allow, arch)?;
    Ok([unknown.try_into()?, allowed.try_into()?])
}

fn errno(number: i32) -> SeccompAction {
    SeccompAction::Errno(number.unsigned_abs())
}

/// By call: nothing for "always", else rules of which one has to match.
type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

fn allowed(own: u64) -> Result<Rules, BackendError> {
    let mut rules = rules_of_arguments(own)?;
    // What is unknown to the other filter is none of this one's business.
    rules.extend([ALWAYS, OLDER, UNKNOWN].concat().into_iter().map(|call| (call, Vec::new())));
    Ok(rules)
}

/// Calls that are allowed with some arguments alone. `own`: this process.
fn rules_of_arguments(own: u64) -> Result<Rules, BackendError> {
    let unix = is(0, libc::AF_UNIX)?;
    let internet = [is(0, libc::AF_INET)?, is(0, libc::AF_INET6)?];
    let not_executable = || has(2, libc::PROT_EXEC, 0);
    Ok(Rules::from([
        (libc::SYS_socket, vec![rule([internet[0].clone()])?, rule([internet[1].clone()])?, rule([unix.clone()])?]),
        (libc::SYS_socketpair, vec![rule([unix])?]),
        (libc::SYS_mmap, vec![rule([not_executable()?])?]),
        (libc::SYS_mprotect, vec![rule([not_executable()?])?]),
        (libc::SYS_clone, vec![rule([has(0, CLONE_SEEN, libc::CLONE_THREAD)?])?]),
        (libc::SYS_ioctl, vec![rule([equals(1, libc::FIONBIO as u64)?])?]),
        // The names of threads, and of their memory in /proc.
        (libc::SYS_prctl, vec![rule([is(0, libc::PR_SET_NAME)?])?, rule([is(0, libc::PR_SET_VMA)?])?]),
        // Our own limits, to read.
        (libc::SYS_prlimit64, vec![rule([is(0, 0)?, whole(2, 0)?])?]),
        // `abort`, and nobody else's threads.
        (libc::SYS_tgkill, vec![rule([equals(0, own)?])?]),
    ]))
}

fn rule<const N: usize>(conditions: [SeccompCondition; N]) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(conditions.into())
}

fn is(argument: u8, value: i32) -> Result<SeccompCondition, BackendError> {
    equals(argument, u64::from(value.unsigned_abs()))
}

/// The kernel looks at 32 bits of these arguments, and so do we.
fn equals(argument: u8, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
}

fn whole(argument: u8, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, value)
}

/// Of the bits in `seen`, exactly `set` are set.
fn has(argument: u8, seen: i32, set: i32) -> Result<SeccompCondition, BackendError> {
    let (seen, set) = (u64::from(seen.cast_unsigned()), u64::from(set.cast_unsigned()));
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(seen), set)
}

#[cfg(test)]
mod tests;
