//! Text messages. The password of a row's last account, which is never handed over, is what they say: so what is searched
//! for is each eight bytes of a text.

use anyhow::{Context as _, ensure};
use reveille::sandbox::phone::line::{Line, LineEvent};
use reveille::sip::StatusCode;
use tokio::time::{sleep, timeout};

use crate::act::Act;
use crate::parts::{Group, Part, Setting};
use crate::process::{GRAIN, PATIENCE};
use crate::ways::delete;

pub(crate) const TEXTS: [Part; 1] = [Part {
    group: Group::PassedOn,
    name: "text messages, kept and passed straight on",
    setting: Setting::Usual,
    late: false,
    begin: hand_over,
    end: write,
}];

/// Whom is written to, over UDP and TCP, and who lends his password as the text.
fn roles(accounts: &[usize]) -> anyhow::Result<(&[usize], usize)> {
    let (text, phones) = accounts.split_last().context("every part has accounts")?;
    Ok((phones, *text))
}

fn hand_over(act: &mut Act, accounts: &[usize]) -> anyhow::Result<()> {
    let (phones, _) = roles(accounts)?;
    phones.iter().try_for_each(|account| act.hand_over(*account, &act.letter(*account)))
}

/// The phone sleeps when the first text comes, and listens when the last does.
fn write(act: &mut Act, accounts: &[usize]) -> anyhow::Result<()> {
    let (phones, text) = roles(accounts)?;
    let text = &act.stage.secrets[text].password;
    let mut kept = 0;
    for account in phones {
        act.stage.world.runtime.block_on(async {
            let answer = send(act, *account, text).await?;
            ensure!(answer == StatusCode::ACCEPTED, "a text for a phone that sleeps was answered {answer:?}");
            kept += 1;
            let mut line = act.wake(*account).await?;
            // A phone's answers leave only while it is listened to.
            tokio::select! {
                passed = timeout(PATIENCE, pass_one_on(act, *account, text, &mut kept)) => {
                    passed.context("texts for a phone that listens are kept for it")?
                }
                ended = listen(&mut line, text) => ended,
            }
        })?;
    }
    delete(act, phones)
}

async fn send(act: &Act, account: usize, text: &str) -> anyhow::Result<StatusCode> {
    act.bound(account).await?;
    Ok(act.stage.pbx_of(account).text(&act.stage.secrets[account].user, text).await?)
}

/// Writes to a phone that listens until a text goes straight to it. While its answer to the one before is on its way to the
/// daemon the next is kept, so that they come in their order; `kept` counts those of the whole daemon.
async fn pass_one_on(act: &Act, account: usize, text: &str, kept: &mut u32) -> anyhow::Result<()> {
    loop {
        while delivered(act).await < f64::from(*kept) {
            sleep(GRAIN[0]).await;
        }
        match send(act, account, text).await? {
            StatusCode::OK => return Ok(()),
            answer => {
                ensure!(answer == StatusCode::ACCEPTED, "a text for a phone that listens was answered {answer:?}")
            }
        }
        *kept += 1;
    }
}

/// How many texts the daemon had kept and knows to be with their phones.
async fn delivered(act: &Act) -> f64 {
    act.daemon.metric("reveille_texts_total", "outcome=\"delivered\"").await.unwrap_or(0.0)
}

/// Hears texts until something goes wrong.
async fn listen(line: &mut Line, text: &str) -> anyhow::Result<()> {
    loop {
        match line.next().await {
            LineEvent::Text(heard) => ensure!(heard.body == text, "another text came"),
            LineEvent::Closed => anyhow::bail!("the phone lost its connection"),
            _ => {}
        }
    }
}
