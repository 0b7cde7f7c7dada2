//! The end of the process, in its order: no new work, held calls, erasures, then the parts from the outside inwards.

use std::time::Duration;

use tokio::time::timeout;
use tracing::{info, warn};

use crate::app::Parts;

/// How long a part may take to stop once nothing is left to do for it.
const PART_STOP: Duration = Duration::from_secs(3);

/// Shuts down within the deadline. `false`: something was left when it came.
pub(crate) async fn drain(parts: Parts) -> bool {
    let Parts { router, net, shards, pusher, audit, readiness, stop, tasks, deadline, .. } = parts;
    readiness.set_ready(false);
    readiness.note("draining", true);
    info!("draining");
    // The API goes on meanwhile: apps may still decline a call or ask for their receipt.
    let erased = timeout(deadline, async {
        router.drain().await;
        shards.drained().await;
    });
    let drained = erased.await.is_ok();
    if drained {
        info!("everything is erased");
    } else {
        warn!("the deadline came before everything was erased");
    }
    pusher.shutdown().await;
    stop.send_replace(true);
    for (name, task) in tasks {
        if timeout(PART_STOP, task).await.is_err() {
            warn!(part = name, "did not stop in time");
        }
    }
    let clean = shards.stop().await.is_ok();
    net.stop().await;
    let unwritten = tokio::task::spawn_blocking(move || audit.close()).await.unwrap_or(usize::MAX);
    if unwritten > 0 {
        warn!(unwritten, "audit records could not be written");
    }
    drained && clean && unwritten == 0
}
