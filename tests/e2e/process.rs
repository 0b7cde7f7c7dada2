//! A peer that runs as our child: started, watched, stopped by its own process id, and whatever it started along with it.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid};

/// How long anything that should happen may take on one core that others use as well. It ends a hang, and measures nothing.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// How often a condition is looked at: at first, and in a long wait, which leaves the processor to the peers.
pub(crate) const GRAIN: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(100)];

/// How long a peer may tidy up after SIGTERM before it is killed.
const GRACE: Duration = Duration::from_secs(5);

/// Waits until `probe` answers, and fails the test with `what` if it does not in time.
#[track_caller]
pub(crate) fn until<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    after(Duration::ZERO, what, probe)
}

/// Like [`until`], for what takes `span` by design.
#[track_caller]
pub(crate) fn after<T>(span: Duration, what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let patience = span + PATIENCE;
    let deadline = Instant::now() + patience;
    let [mut grain, longest] = GRAIN;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {patience:?} for {what}");
        thread::sleep(grain);
        grain = (grain * 2).min(longest);
    }
}

/// A running peer. Dropping it stops it.
pub(crate) struct Process {
    name: String,
    child: Child,
    output: PathBuf,
}

impl Process {
    /// Starts `program`, with everything it writes going to `NAME.out` in `directory`.
    #[track_caller]
    pub(crate) fn start(name: &str, directory: &Path, program: &Path, configure: impl FnOnce(&mut Command)) -> Self {
        let output = directory.join(format!("{name}.out"));
        let file = File::create(&output).expect("the test directory is writable");
        // The kernel ends the peer if the thread of this test dies, however it dies (Ctrl-C, a time-out of the runner).
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "--"]).arg(program);
        configure(&mut command);
        // A group of its own: what it starts (Kamailio's workers) can be ended even when it cannot do so itself any more.
        command.current_dir(directory).stdin(Stdio::piped()).process_group(0);
        command.stdout(file.as_fd().try_clone_to_owned().expect("a file can be cloned")).stderr(file);
        let child = command.spawn().unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        Self { name: name.to_owned(), child, output }
    }

    /// Writes a line to the peer's standard input.
    #[track_caller]
    pub(crate) fn tell(&mut self, line: &str) {
        let input = self.child.stdin.as_mut().expect("standard input was piped at start");
        writeln!(input, "{line}").unwrap_or_else(|error| panic!("{} does not listen: {error}", self.name));
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What the peer has written so far.
    pub(crate) fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.output).unwrap_or_default()).into_owned()
    }

    /// Fails the test if the peer has ended; for use inside a wait.
    #[track_caller]
    pub(crate) fn assert_running(&mut self) {
        if let Some(status) = self.ended() {
            panic!("{} ended too early, {status}:\n{}", self.name, self.output());
        }
    }

    /// Waits for the peer to end by itself.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let what = format!("{} to end", self.name);
        until(&what, || self.ended())
    }

    /// Whether the peer has ended, and how. What it left behind is ended too.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        // Looked at before it is waited for: until then its id, which names the group, cannot be another's.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        if let Ok(Some(_)) = waitid(WaitId::Pid(Pid::from_child(&self.child)), options) {
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        }
        self.child.try_wait().expect("our own child can be waited for")
    }

    /// Asks the peer to end.
    pub(crate) fn terminate(&mut self) {
        // A child that was waited for has given its id back; then there is nobody to ask.
        if self.ended().is_none() {
            let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        }
    }

    /// Asks the peer to read its files again.
    pub(crate) fn hang_up(&mut self) {
        self.assert_running();
        kill_process(Pid::from_child(&self.child), Signal::HUP).expect("our own child takes signals");
    }

    /// Ends the peer without a warning, as a mobile system ends an app.
    pub(crate) fn kill(&mut self) {
        if self.ended().is_none() {
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.terminate();
        let deadline = Instant::now() + GRACE;
        while self.ended().is_none() {
            if Instant::now() > deadline {
                self.kill();
                return;
            }
            thread::sleep(GRAIN[0]);
        }
    }
}

/// Finds an installed program. Servers live in directories that a user's PATH may leave out.
#[track_caller]
pub(crate) fn installed(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
        .unwrap_or_else(|| panic!("{program} is not installed; scripts/peers installs it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A peer that starts a worker and waits for it, or leaves it behind.
    fn peer(script: &str) -> Process {
        let directory = std::env::temp_dir();
        Process::start(&format!("workers-{}", std::process::id()), &directory, Path::new("/bin/sh"), |command| {
            command.args(["-c", script]);
        })
    }

    #[test]
    fn a_peer_that_is_killed_or_dies_leaves_no_worker_behind() {
        let (waiting, dying) = ("sleep 600 & echo there; wait", "sleep 600 & echo there");
        for (script, how) in [(waiting, "killed"), (waiting, "dropped"), (dying, "died"), (dying, "dropped")] {
            let mut peer = peer(script);
            let group = Pid::from_child(&peer.child);
            until("the worker", || peer.output().contains("there").then_some(()));
            match how {
                "killed" => peer.kill(),
                "died" => drop(peer.wait()),
                _ => {}
            }
            drop(peer);
            let _ = fs::remove_file(std::env::temp_dir().join(format!("workers-{}.out", std::process::id())));
            until(&format!("the worker to end: {script}, {how}"), || {
                rustix::process::test_kill_process_group(group).is_err().then_some(())
            });
        }
    }
}
