//! Apps that speak HTTP/2, keep their connection open and fall silent, as one does that the system suspends. They answer no
//! ping, so nothing but the daemon's own patience ends what holds the password.

use std::thread;
use std::time::Duration;

use crate::act::Act;
use crate::client::Hush;
use crate::faults::{ERASURE_GRACE, at_silent_registrar};
use crate::parts::{Group, Part, Setting};
use crate::ways::{delete, nothing};

/// How long a body may take.
const BODY_PATIENCE: Duration = Duration::from_secs(10);

/// How long a connection stays that a secret came over.
const AFTER_SECRET: Duration = Duration::from_secs(2);

pub(crate) const SILENCES: [Part; 3] = [
    Part { group: Group::Way, ..silence("HTTP/2: silent after the answer, then DELETE", hand_over, delete) },
    silence("HTTP/2: silent in the middle of a frame", nothing, stop_in_mid_frame),
    silence("HTTP/2: taken back, then silent", nothing, take_back),
];

const fn silence(
    name: &'static str,
    begin: fn(&mut Act, &[usize]) -> anyhow::Result<()>,
    end: fn(&mut Act, &[usize]) -> anyhow::Result<()>,
) -> Part {
    Part { group: Group::ErrorPath, name, setting: Setting::Usual, late: false, begin, end }
}

fn hand_over(act: &mut Act, accounts: &[usize]) -> anyhow::Result<()> {
    accounts.iter().try_for_each(|account| act.post_and_hush(*account, &act.letter(*account), Hush::Answered))
}

fn stop_in_mid_frame(act: &mut Act, accounts: &[usize]) -> anyhow::Result<()> {
    for account in accounts {
        act.post_and_hush(*account, &act.letter(*account), Hush::MidFrame)?;
    }
    thread::sleep(BODY_PATIENCE + AFTER_SECRET);
    Ok(())
}

fn take_back(act: &mut Act, accounts: &[usize]) -> anyhow::Result<()> {
    for account in accounts {
        let letter = at_silent_registrar(act, *account)?;
        act.post_and_hush(*account, &letter, Hush::TakenBack)?;
    }
    // The REGISTER that was sent may have had effect, so it is taken back first.
    thread::sleep(ERASURE_GRACE.max(AFTER_SECRET));
    Ok(())
}
