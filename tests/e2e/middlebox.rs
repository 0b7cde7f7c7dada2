//! A box between phone and daemon, as NATs and load balancers are, whose connections a test can lose.
//!
//! It carries bytes, so TLS passes through it untouched.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::process::until;
use crate::world::{World, free_port};

/// What becomes of the connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Both ends see theirs closed.
    BothSides,
    /// Only the phone sees it; the daemon's stays open and silent, and nothing tells it.
    PhoneSide,
}

/// A running box; it ends with the runtime of its world.
pub(crate) struct Middlebox {
    port: u16,
    target: Arc<AtomicU16>,
    open: Arc<Open>,
    cut: watch::Sender<Option<Cut>>,
    task: JoinHandle<()>,
}

/// The connections that are carried now, numbered in the order they came.
#[derive(Default)]
struct Open {
    connections: Mutex<BTreeSet<u64>>,
}

impl Open {
    fn change<T>(&self, change: impl FnOnce(&mut BTreeSet<u64>) -> T) -> T {
        change(&mut self.connections.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Middlebox {
    /// Starts one that leads nowhere yet.
    #[track_caller]
    pub(crate) fn start(world: &World) -> Self {
        let port = free_port();
        let listener = world.runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, port)));
        let listener = listener.expect("the port was free a moment ago");
        let (target, open) = (Arc::new(AtomicU16::new(0)), Arc::new(Open::default()));
        let (cut, seen) = watch::channel(None);
        let task = world.runtime.spawn(accept(listener, Arc::clone(&target), Arc::clone(&open), seen));
        Self { port, target, open, cut, task }
    }

    /// Where phones find it on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// New connections go to this port on 127.0.0.1.
    pub(crate) fn lead_to(&self, port: u16) {
        self.target.store(port, Ordering::Relaxed);
    }

    /// Loses every connection there is, and waits until that is done. Some phones are back before it is.
    #[track_caller]
    pub(crate) fn cut(&self, cut: Cut) {
        let lost = self.open.change(|open| open.clone());
        assert!(!lost.is_empty(), "there is no connection to lose");
        self.cut.send_replace(Some(cut));
        until("the connections to be cut", || self.open.change(|open| open.is_disjoint(&lost)).then_some(()));
    }
}

impl Drop for Middlebox {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, target: Arc<AtomicU16>, open: Arc<Open>, cut: watch::Receiver<Option<Cut>>) {
    let mut last = 0;
    while let Ok((phone, _)) = listener.accept().await {
        let mut cut = cut.clone();
        // Only what is cut from now on.
        cut.mark_unchanged();
        let Ok(daemon) = TcpStream::connect((Ipv4Addr::LOCALHOST, target.load(Ordering::Relaxed))).await else {
            continue;
        };
        last += 1;
        let number = last;
        open.change(|open| open.insert(number));
        let open = Arc::clone(&open);
        tokio::spawn(async move {
            let abandoned = carry(phone, daemon, &mut cut).await;
            open.change(|open| open.remove(&number));
            // Kept, so that the daemon's side stays open until the end of the test.
            if let Some(_daemon) = abandoned {
                std::future::pending::<()>().await;
            }
        });
    }
}

/// Carries bytes until either side ends or the test cuts; returns what the daemon is to go on believing in.
async fn carry(
    mut phone: TcpStream,
    mut daemon: TcpStream,
    cut: &mut watch::Receiver<Option<Cut>>,
) -> Option<TcpStream> {
    tokio::select! {
        _ = copy_bidirectional(&mut phone, &mut daemon) => None,
        changed = cut.changed() => {
            let phone_only = changed.is_ok() && *cut.borrow() == Some(Cut::PhoneSide);
            phone_only.then_some(daemon)
        }
    }
}
