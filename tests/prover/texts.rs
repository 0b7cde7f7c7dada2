//! Text messages. The password of a row's last account, which is never handed over, is what they say: so what is searched
//! for is each eight bytes of a text.

use anyhow::{Context as _, ensure};
use reveille::sandbox::phone::line::{Line, LineEvent};
use reveille::sip::StatusCode;

use crate::act::Act;
use crate::parts::{Group, Part, Setting};
use crate::process::PATIENCE;
use crate::ways::delete;

pub(crate) const TEXTS: [Part; 1] = [Part {
    group: Group::PassedOn,
    name: "text messages, kept and passed straight on",
    setting: Setting::Usual,
    late: false,
    begin: hand_over,
    end: write,
}];

/// How often a phone that listens is written to until a text goes straight to it: while it has not answered the one before,
/// the next is kept, so that they come in their order.
const TRIES_MAX: u32 = 5;

/// Whom is written to, over UDP and TCP, and who lends his password as the text.
fn roles(accounts: &[usize]) -> anyhow::Result<(&[usize], usize)> {
    let (text, phones) = accounts.split_last().context("every part has accounts")?;
    Ok((phones, *text))
}

fn hand_over(act: &mut Act, accounts: &[usize]) -> anyhow::Result<()> {
    let (phones, _) = roles(accounts)?;
    phones.iter().try_for_each(|account| act.hand_over(*account, &act.letter(*account)))
}

/// The phone sleeps when the first text comes, and listens when the second does.
fn write(act: &mut Act, accounts: &[usize]) -> anyhow::Result<()> {
    let (phones, text) = roles(accounts)?;
    let text = &act.stage.secrets[text].password;
    for account in phones {
        let (user, pbx) = (&act.stage.secrets[*account].user, act.stage.pbx_of(*account));
        act.stage.world.runtime.block_on(async {
            let answer = pbx.text(user, text).await?;
            ensure!(answer == StatusCode::ACCEPTED, "a text for a phone that sleeps was answered {answer:?}");
            let mut line = act.wake(*account).await?;
            hear(&mut line, text).await?;
            for _ in 0..TRIES_MAX {
                let answer = tokio::select! {
                    answer = pbx.text(user, text) => answer?,
                    ended = listen(&mut line, text) => return ended,
                };
                if answer == StatusCode::OK {
                    return Ok(());
                }
            }
            anyhow::bail!("texts for a phone that listens are kept for it")
        })?;
    }
    delete(act, phones)
}

/// Hears texts until something goes wrong: a phone's answers leave only while it is listened to.
async fn listen(line: &mut Line, text: &str) -> anyhow::Result<()> {
    loop {
        hear(line, text).await?;
    }
}

async fn hear(line: &mut Line, text: &str) -> anyhow::Result<()> {
    loop {
        match tokio::time::timeout(PATIENCE, line.next()).await? {
            LineEvent::Text(heard) => {
                ensure!(heard.body == text, "another text came");
                return Ok(());
            }
            LineEvent::Closed => anyhow::bail!("the phone lost its connection"),
            _ => {}
        }
    }
}
