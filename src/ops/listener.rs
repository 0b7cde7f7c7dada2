//! Where operators ask: TCP, and a Unix socket that is there as long as we are.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::config::OpsListen;
use crate::net::bind_stream;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;
/// Our user and group may ask, nobody else.
const SOCKET_MODE: u32 = 0o660;

/// A bound place where operators will ask; it needs no runtime yet.
pub enum Bound {
    /// A TCP address.
    Tcp(std::net::TcpListener),
    /// A Unix socket.
    Unix(StdUnixListener, SocketFile),
}

/// One place where operators ask.
pub enum Listener {
    /// A TCP address.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixListener, SocketFile),
}

/// A connection of an operator.
pub(super) enum Connection {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// The file of a Unix socket of ours, which goes when this does.
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode: whether the file is still ours.
    file: (u64, u64),
}

/// Binds all of them. An IPv6 address listens for IPv6 alone. The file of a Unix socket that nobody serves any more is
/// replaced.
///
/// # Errors
/// The first that cannot be bound, with its place.
pub fn bind(listen: &[OpsListen]) -> io::Result<Vec<Bound>> {
    let bind = |place: &OpsListen| {
        let bound = match place {
            OpsListen::Tcp(address) => bind_stream(*address).map(Bound::Tcp),
            OpsListen::Unix(path) => bind_unix(path),
        };
        bound.map_err(|error| io::Error::new(error.kind(), format!("{place}: {error}")))
    };
    listen.iter().map(bind).collect()
}

impl Bound {
    /// Where it listens.
    ///
    /// # Errors
    /// The system does not say.
    pub fn place(&self) -> io::Result<OpsListen> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(OpsListen::Tcp),
            Self::Unix(_, file) => Ok(OpsListen::Unix(file.path.clone())),
        }
    }

    /// Registers it with the runtime.
    ///
    /// # Errors
    /// The runtime cannot watch it.
    pub fn register(self) -> io::Result<Listener> {
        match self {
            Self::Tcp(listener) => TcpListener::from_std(listener).map(Listener::Tcp),
            Self::Unix(listener, file) => UnixListener::from_std(listener).map(|it| Listener::Unix(it, file)),
        }
    }
}

impl Listener {
    pub(super) async fn accept(&self) -> io::Result<Connection> {
        match self {
            Self::Tcp(listener) => listener.accept().await.map(|(stream, _)| Connection::Tcp(stream)),
            Self::Unix(listener, _) => listener.accept().await.map(|(stream, _)| Connection::Unix(stream)),
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Another daemon may have put its own there.
        if fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.file) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn bind_unix(path: &Path) -> io::Result<Bound> {
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // Nobody can connect before `listen`, so nobody can connect under other permissions.
    let prepared = fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE))
        .and_then(|()| socket.listen(BACKLOG))
        .and_then(|()| fs::metadata(path));
    let metadata = prepared.inspect_err(|_| drop(fs::remove_file(path)))?;
    let file = SocketFile { path: path.to_owned(), file: (metadata.dev(), metadata.ino()) };
    Ok(Bound::Unix(socket.into(), file))
}

/// Removes a socket that a process left behind; never a file of another kind, nor a socket that is served.
fn remove_stale(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !found.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "something that is no socket is there; move it away"));
    }
    match StdUnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process serves this socket")),
        Err(error) => Err(error),
    }
}
