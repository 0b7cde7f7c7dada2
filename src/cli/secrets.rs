//! Secrets come from a file or from standard input, never from arguments or the environment.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

/// The longest secret.
const SECRET_MAX: usize = 4096;

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Standard input cannot be read.
    #[error("standard input: {0}")]
    Input(io::Error),
    /// Nothing came.
    #[error("the {0} is empty")]
    Empty(&'static str),
    /// More came than any secret has.
    #[error("the {0} is longer than {SECRET_MAX} bytes")]
    TooLong(&'static str),
}

/// Reads a secret from `file`, or from standard input: where that is a terminal, it asks for `what` without showing what
/// is typed. One line end at the end does not belong to it.
///
/// # Errors
/// It cannot be read, is empty, or longer than any secret is.
pub fn read_secret(what: &'static str, file: Option<&Path>) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    match file {
        Some(path) => {
            let fail = |source| SecretError::File { path: path.to_path_buf(), source };
            let file = File::open(path).map_err(fail)?;
            whole(what, file, fail)
        }
        None if io::stdin().is_terminal() => ask(what),
        None => whole(what, unbuffered_input()?, SecretError::Input),
    }
}

fn whole(
    what: &'static str,
    reader: impl Read,
    fail: impl Fn(io::Error) -> SecretError,
) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    // Room from the start: a vector that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(SECRET_MAX + 1));
    reader.take(SECRET_MAX as u64 + 1).read_to_end(&mut bytes).map_err(fail)?;
    finish(what, bytes)
}

fn finish(what: &'static str, mut bytes: Zeroizing<Vec<u8>>) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    if bytes.len() > SECRET_MAX {
        return Err(SecretError::TooLong(what));
    }
    for end in [b'\n', b'\r'] {
        if bytes.last() == Some(&end) {
            bytes.pop();
        }
    }
    if bytes.is_empty() { Err(SecretError::Empty(what)) } else { Ok(bytes) }
}

fn ask(what: &'static str) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let input = io::stdin();
    let fail = |error: rustix::io::Errno| SecretError::Input(error.into());
    let shown = tcgetattr(input.as_fd()).map_err(fail)?;
    let mut hidden = shown.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    let _ = write!(io::stderr(), "{what}: ");
    tcsetattr(input.as_fd(), OptionalActions::Flush, &hidden).map_err(fail)?;
    let line = line(what);
    let restored = tcsetattr(input.as_fd(), OptionalActions::Flush, &shown).map_err(fail);
    let _ = writeln!(io::stderr());
    restored.and(line)
}

/// One line of a terminal, which hands a line out at once.
fn line(what: &'static str) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let mut bytes = Zeroizing::new(vec![0; SECRET_MAX + 1]);
    let mut input = unbuffered_input()?;
    let length = loop {
        match input.read(&mut bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => break other.map_err(SecretError::Input)?,
        }
    };
    bytes.truncate(length);
    finish(what, bytes)
}

/// Standard input without the buffer that `std` keeps, as a secret would stay in it.
fn unbuffered_input() -> Result<File, SecretError> {
    io::stdin().as_fd().try_clone_to_owned().map(File::from).map_err(SecretError::Input)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Vec<u8>, String> {
        let secret = whole("password", bytes, SecretError::Input);
        secret.map(|secret| secret.to_vec()).map_err(|error| error.to_string())
    }

    #[test]
    fn one_line_end_does_not_belong_to_a_secret() {
        assert_eq!(read(b"s3cret\n"), Ok(b"s3cret".to_vec()));
        assert_eq!(read(b"s3cret\r\n"), Ok(b"s3cret".to_vec()));
        assert_eq!(read(b" s3cret \n\n"), Ok(b" s3cret \n".to_vec()), "everything else does");
    }

    #[test]
    fn an_empty_or_endless_secret_is_refused() {
        assert_eq!(read(b"\n"), Err("the password is empty".to_owned()));
        assert_eq!(read(&vec![b'a'; SECRET_MAX]).map(|secret| secret.len()), Ok(SECRET_MAX));
        assert!(read(&vec![b'a'; SECRET_MAX + 1]).is_err());
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = read_secret("password", Some(Path::new("/nonexistent/password"))).expect_err("it is not there");
        assert!(error.to_string().starts_with("/nonexistent/password: "), "{error}");
    }
}
