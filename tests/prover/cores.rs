//! Core dumps: those a debugger takes, those the kernel writes, and those it must not write.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::daemon::Daemon;
use crate::process::until;

/// What makes gdb keep everything: also what the process has asked to be left out.
const EVERYTHING: [&str; 2] = ["set use-coredump-filter off", "set dump-excluded-mappings on"];

/// Has gdb write a core of a running daemon, with the registers of all its threads.
///
/// # Errors
///
/// gdb is not there or may not.
pub(crate) fn take(daemon: &Daemon) -> anyhow::Result<PathBuf> {
    let core = daemon.directory.with_extension("core");
    let write = format!("gcore {}", core.display());
    let output = debugger(daemon.pid(), &[EVERYTHING[0], EVERYTHING[1], &write]).output().context(NO_DEBUGGER)?;
    ensure!(core.exists(), "gdb wrote no core: {}", String::from_utf8_lossy(&output.stderr));
    Ok(core)
}

const NO_DEBUGGER: &str = "gdb is not installed; scripts/peers installs it";

/// A debugger that waits at the very end of a daemon's life, with its memory as the last instruction left it.
pub(crate) struct Bedside {
    debugger: Child,
    core: PathBuf,
}

impl Bedside {
    /// Attaches it.
    ///
    /// # Errors
    ///
    /// gdb is not there or may not.
    pub(crate) fn sit_down(daemon: &Daemon) -> anyhow::Result<Self> {
        let core = daemon.directory.with_extension("core");
        let write = format!("gcore {}", core.display());
        let commands = [
            EVERYTHING[0],
            EVERYTHING[1],
            "handle all nostop noprint pass",
            "catch syscall exit_group",
            "continue",
            &write,
            "continue",
        ];
        let debugger = debugger(daemon.pid(), &commands).spawn().context(NO_DEBUGGER)?;
        until("gdb to attach", || {
            let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).ok()?;
            let traced = status.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"));
            // It stops the daemon, looks around and lets it go on.
            let runs = status.lines().any(|line| line.starts_with("State:") && !line.contains("stop"));
            (traced && runs).then_some(())
        });
        Ok(Self { debugger, core })
    }

    /// The core, once the daemon has ended.
    ///
    /// # Errors
    ///
    /// It was not written.
    pub(crate) fn core(mut self) -> anyhow::Result<PathBuf> {
        let status = self.debugger.wait()?;
        ensure!(self.core.exists(), "gdb wrote no core at the daemon's end ({status})");
        Ok(self.core)
    }
}

fn debugger(process: u32, commands: &[&str]) -> Command {
    let mut command = Command::new("gdb");
    command.args(["-nx", "-batch", "-p", &process.to_string(), "-ex", "set confirm off"]);
    for one in commands {
        command.args(["-ex", one]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// What became of a daemon that crashed.
pub(crate) struct Crash {
    /// The kernel says that it wrote a core, wherever it puts them.
    pub(crate) dumped: bool,
    /// The core, if it lies in the daemon's directory.
    pub(crate) core: Option<PathBuf>,
}

/// Ends a daemon as a failed assertion would.
///
/// # Errors
///
/// It does not end by that.
pub(crate) fn crash(mut daemon: Daemon) -> anyhow::Result<Crash> {
    let pid = i32::try_from(daemon.pid()).ok().and_then(Pid::from_raw).context("no process id")?;
    kill_process(pid, Signal::ABORT)?;
    let status = daemon.process.wait();
    ensure!(status.signal() == Some(Signal::ABORT.as_raw()), "SIGABRT ended the daemon with {status}");
    Ok(Crash { dumped: status.core_dumped(), core: core_in(&daemon.directory)? })
}

fn core_in(directory: &Path) -> anyhow::Result<Option<PathBuf>> {
    let core = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("core"));
    let paths = fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.path()));
    Ok(paths.collect::<Result<Vec<_>, _>>()?.into_iter().find(core))
}

/// Where the kernel writes cores; only in the working directory they can be searched.
pub(crate) fn kernel_pattern() -> String {
    fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default().trim().to_owned()
}
