//! What happens to an account while it is held: it is refreshed, and called.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use reveille::sandbox::caller::{CallPlan, Heard};
use reveille::sandbox::phone::line::{Line, LineEvent, LinePlan};
use reveille::sandbox::registrar::{Snapshot, canned_sdp};
use reveille::sandbox::trust::Trust;
use zeroize::Zeroizing;

use crate::act::Act;
use crate::process::{PATIENCE, until};

/// A call whose caller waits as long as the test does.
fn patient() -> CallPlan {
    CallPlan { give_up: PATIENCE, ..CallPlan::default() }
}

impl Act {
    /// Waits until each account's registration was refreshed.
    pub(crate) fn wait_refreshed(&self, accounts: &[usize]) {
        for account in accounts {
            let (user, pbx) = (&self.stage.secrets[*account].user, self.stage.pbx_of(*account));
            until("a refresh", || {
                let bindings = pbx.snapshot().bindings;
                // The first REGISTER is challenged, so its second request makes the binding and a later one refreshes it.
                bindings.iter().any(|binding| binding.user == *user && binding.cseq > 2).then_some(())
            });
        }
    }

    /// Waits until the PBX knows where to call an account: while the daemon is searched it stands still, and registrations
    /// lapse.
    ///
    /// # Errors
    ///
    /// It is not registered.
    pub(crate) async fn bound(&self, account: usize) -> anyhow::Result<()> {
        let user = &self.stage.secrets[account].user;
        let is_bound = |snapshot: &Snapshot| snapshot.bindings.iter().any(|binding| binding.user == *user);
        let bound = tokio::time::timeout(PATIENCE, self.stage.pbx_of(account).wait_until(is_bound)).await;
        bound.context("the account is not registered at the PBX")
    }

    /// Somebody calls, the phone is woken and attaches, they talk, and the phone hangs up.
    ///
    /// # Errors
    ///
    /// Any of that does not happen.
    pub(crate) fn take_call(&self, account: usize) -> anyhow::Result<()> {
        let user = &self.stage.secrets[account].user;
        self.stage.world.runtime.block_on(async {
            self.bound(account).await?;
            let mut caller = self.stage.pbx_of(account).call(user, patient()).await?;
            let mut line = self.wake(account).await?;
            loop {
                match tokio::time::timeout(PATIENCE, line.next()).await? {
                    LineEvent::Offered(offer) => line.answer(offer.call, canned_sdp("phone", 41_000)),
                    LineEvent::Confirmed(call) => line.hang_up(call),
                    LineEvent::Over(_) => break,
                    LineEvent::Closed => anyhow::bail!("the phone lost its connection"),
                    _ => {}
                }
            }
            while let Some(news) = tokio::time::timeout(PATIENCE, caller.next()).await? {
                if matches!(news.what, Heard::Ended { .. }) {
                    return Ok(());
                }
            }
            anyhow::bail!("the caller did not hear the end of the call")
        })
    }

    /// The phone attaches, once it is woken.
    ///
    /// # Errors
    ///
    /// It is not woken, or cannot attach.
    pub(crate) async fn wake(&self, account: usize) -> anyhow::Result<Line> {
        let held = self.held(account)?;
        let word = |member: &str| held.attach[member].as_str().map(str::to_owned).context("an incomplete answer");
        let (username, realm, aor) = (word("username")?, Some(word("realm")?), word("aor")?);
        let password = Zeroizing::new(held.token.clone());
        let user = &self.stage.secrets[account].user;
        let push = self.stage.mailbox.next_push_to(&format!("token-of-{user}"), PATIENCE).await;
        let push = push.context("the phone was not woken")?;
        let server = push.payload["attach"].as_str().context("the push does not say where to attach")?.to_owned();
        let trust = Trust::DangerousAnyone;
        let mut line = Line::open(LinePlan { server, aor, username, password, realm, trust }).await?;
        let attached = matches!(line.register(Duration::from_secs(60)).await, LineEvent::Registered(_));
        ensure!(attached, "the phone could not attach");
        Ok(line)
    }

    /// Somebody calls, the phone is woken and does not come, and the caller gives up.
    ///
    /// # Errors
    ///
    /// The call cannot be placed.
    pub(crate) fn miss_call(&self, account: usize) -> anyhow::Result<()> {
        let user = &self.stage.secrets[account].user;
        self.stage.world.runtime.block_on(async {
            self.bound(account).await?;
            let mut caller = self.stage.pbx_of(account).call(user, patient()).await?;
            let push = self.stage.mailbox.next_push_to(&format!("token-of-{user}"), PATIENCE).await;
            push.context("the phone was not woken")?;
            caller.hang_up().await;
            while tokio::time::timeout(PATIENCE, caller.next()).await?.is_some() {}
            Ok(())
        })
    }
}
