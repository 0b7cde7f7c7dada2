//! The end of the process, in its order: no new work, held calls, erasures, then the parts from the outside inwards.

use std::time::Duration;

use tokio::time::timeout;
use tracing::{info, warn};

use crate::app::Parts;

/// What is kept of the deadline for stopping the parts once nothing is left to do for them, at most.
const PARTS_STOP: Duration = Duration::from_secs(3);

/// Shuts down within the deadline, all of it. `false`: something was left when it came.
pub(crate) async fn drain(parts: Parts) -> bool {
    let deadline = parts.deadline;
    let in_order = timeout(deadline, drain_in_order(parts)).await;
    in_order.unwrap_or_else(|_| {
        warn!("the deadline came while the parts were stopping");
        false
    })
}

async fn drain_in_order(parts: Parts) -> bool {
    let Parts { router, net, shards, pusher, audit, readiness, stop, tasks, deadline, .. } = parts;
    readiness.set_ready(false);
    readiness.note("draining", true);
    info!("draining");
    let reserve = PARTS_STOP.min(deadline / 4);
    // The API goes on meanwhile: apps may still decline a call or ask for their receipt.
    let erased = timeout(deadline - reserve, async {
        router.drain().await;
        shards.drained().await;
    });
    let drained = erased.await.is_ok();
    if drained {
        info!("everything is erased");
    } else {
        warn!("the deadline came before everything was erased");
    }
    stop.send_replace(true);
    let clean = shards.stop().await.is_ok();
    // The records first: what else is left is only unsent, not unproven.
    let unwritten = tokio::task::spawn_blocking(move || audit.close()).await.unwrap_or(usize::MAX);
    for (name, task) in tasks {
        if timeout(reserve / 2, task).await.is_err() {
            warn!(part = name, "did not stop in time");
        }
    }
    net.stop().await;
    pusher.shutdown().await;
    if unwritten > 0 {
        warn!(unwritten, "audit records could not be written");
    }
    drained && clean && unwritten == 0
}
