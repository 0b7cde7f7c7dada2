//! Every way in which an account that was held is erased.

use std::time::Duration;

use anyhow::ensure;
use reveille::clock;

use crate::act::Act;
use crate::parts::{Group, Part, Setting};
use crate::process::{after, until};
use crate::stage::Stage;

/// The shortest lease there is, in seconds.
const SHORTEST_LEASE: u64 = 60;
/// What the device id of an app grows by when it is installed anew.
const REINSTALLED: u128 = 1_000_000;

pub(crate) const WAYS: [Part; 15] = [
    way("DELETE", hand_over, delete),
    way("HA1 handed over, then DELETE", hand_over_ha1, delete),
    way("handed over again, then DELETE", hand_over, replace_and_delete),
    way("replaced by a reinstalled app, then DELETE", hand_over, reinstall_and_delete),
    way("rectified to another registrar, then DELETE", hand_over, rectify_and_delete),
    way("moved by hand-over, then DELETE", hand_over, move_and_delete),
    way("handed over to a dead place, then DELETE", hand_over, move_nowhere_and_delete),
    way("rectified to a dead place, then DELETE", hand_over, rectify_nowhere_and_delete),
    way("move refused by the new place, then DELETE", hand_over, be_refused_elsewhere_and_delete),
    way("dead push token", hand_over, die),
    way("refused credentials", nothing, be_refused),
    way("off-boarding of a device", hand_over_one_device, off_board_device),
    Part { late: true, ..way("lease end", lease, outlive) },
    Part { late: true, ..way("off-boarding of all", hand_over, off_board) },
    Part { setting: Setting::Ending, ..way("SIGTERM", hand_over, nothing) },
];

/// A daemon that keeps what it should wipe has to be caught, or the search finds nothing wherever it looks.
pub(crate) const CONTROLS: [Part; 1] = [Part {
    group: Group::Control,
    setting: Setting::Keeping,
    ..way("a daemon that keeps copies: must be found", hand_over, delete)
}];

const fn way(
    name: &'static str,
    begin: fn(&mut Act, &[usize]) -> anyhow::Result<()>,
    end: fn(&mut Act, &[usize]) -> anyhow::Result<()>,
) -> Part {
    Part { group: Group::Way, name, setting: Setting::Usual, late: false, begin, end }
}

pub(crate) fn nothing(_: &mut Act, _: &[usize]) -> anyhow::Result<()> {
    Ok(())
}

/// Hands over, and leases on.
pub(crate) fn hand_over(act: &mut Act, accounts: &[usize]) -> anyhow::Result<()> {
    for account in accounts {
        act.hand_over(*account, &act.letter(*account))?;
        let answer = act.about(*account, "POST", "/refresh", "")?;
        ensure!(answer.status == 200, "not leased on: {answer:?}");
    }
    Ok(())
}

fn hand_over_ha1(act: &mut Act, accounts: &[usize]) -> anyhow::Result<()> {
    for account in accounts {
        let (realm, algorithm) = Stage::challenge_of(*account);
        let value = act.stage.secrets[*account].ha1_text(algorithm, realm);
        // Some apps write hexadecimal digits in capitals.
        let value = if account % 2 == 0 { value } else { value.to_ascii_uppercase() };
        let mut letter = act.letter(*account);
        letter.member = "ha1";
        letter.secret = format!(r#"[{{"realm":"{realm}","algorithm":"{}","value":"{value}"}}]"#, algorithm.as_str());
        act.hand_over(*account, &letter)?;
    }
    Ok(())
}

fn hand_over_one_device(act: &mut Act, accounts: &[usize]) -> anyhow::Result<()> {
    for account in accounts {
        let mut letter = act.letter(*account);
        letter.device = accounts[0] as u128;
        act.hand_over(*account, &letter)?;
    }
    Ok(())
}

fn lease(act: &mut Act, accounts: &[usize]) -> anyhow::Result<()> {
    for account in accounts {
        let mut letter = act.letter(*account);
        letter.lease_seconds = SHORTEST_LEASE;
        act.hand_over(*account, &letter)?;
    }
    Ok(())
}

pub(crate) fn delete(act: &mut Act, accounts: &[usize]) -> anyhow::Result<()> {
    for account in accounts {
        let answer = act.about(*account, "DELETE", "", "")?;
        ensure!(answer.status == 200 && answer.body["receipt"].is_object(), "no receipt: {answer:?}");
    }
    Ok(())
}

fn replace_and_delete(act: &mut Act, accounts: &[usize]) -> anyhow::Result<()> {
    hand_over(act, accounts)?;
    delete(act, accounts)
}

/// Another device id, the same account and push token: the newer instance takes the place of the older one.
fn reinstall_and_delete(act: &mut Act, accounts: &[usize]) -> anyhow::Result<()> {
    for account in accounts {
        let former = act.held(*account)?;
        let (path, token) = (format!("/v1/instances/{}", former.id), former.token.clone());
        let mut letter = act.letter(*account);
        letter.device += REINSTALLED;
        act.hand_over(*account, &letter)?;
        let gone = until("the older instance to be replaced", || {
            let shown = act.daemon.ask(&act.stage, "GET", &path, &token, "").ok()?;
            (shown.status == 410).then_some(shown)
        });
        ensure!(gone.body["cause"] == "replaced", "erased, but because of {}", gone.body["cause"]);
    }
    delete(act, accounts)
}

/// The new registrar is the PBX's other address, so that it takes the password as well.
fn rectify_and_delete(act: &mut Act, accounts: &[usize]) -> anyhow::Result<()> {
    for account in accounts {
        let password = act.letter(*account).secret;
        let other = other_place(act, *account);
        let body = format!(r#"{{"account":{{"registrar":"{other}","password":{password}}}}}"#);
        let answer = act.about(*account, "PATCH", "", &body)?;
        ensure!(matches!(answer.status, 200 | 202), "not rectified: {answer:?}");
        until("the account to be registered anew", || {
            let shown = act.about(*account, "GET", "", "").ok()?;
            let registration = &shown.body["registration"];
            (registration["state"] == "registered" && registration.get("move").is_none()).then_some(())
        });
    }
    delete(act, accounts)
}

/// Where an account's PBX listens too.
fn other_place(act: &Act, account: usize) -> String {
    let here = act.stage.registrar_uri(account);
    match here.strip_suffix("udp") {
        Some(rest) => format!("{rest}tcp"),
        None => here.replace("=tcp", "=udp"),
    }
}

fn move_and_delete(act: &mut Act, accounts: &[usize]) -> anyhow::Result<()> {
    for account in accounts {
        let mut letter = act.letter(*account);
        letter.proxy = Some(other_place(act, *account));
        act.hand_over(*account, &letter)?;
    }
    delete(act, accounts)
}

fn move_nowhere_and_delete(act: &mut Act, accounts: &[usize]) -> anyhow::Result<()> {
    for account in accounts {
        let mut letter = act.letter(*account);
        letter.proxy = Some(silent_place(act)?);
        let answer = act.post(*account, &letter)?;
        ensure!(
            answer.body["type"] == "urn:reveille:problem:registrar-unreachable",
            "a dead place was taken: {answer:?}"
        );
    }
    delete(act, accounts)
}

fn rectify_nowhere_and_delete(act: &mut Act, accounts: &[usize]) -> anyhow::Result<()> {
    for account in accounts {
        let (password, place) = (act.letter(*account).secret, silent_place(act)?);
        let body = format!(r#"{{"account":{{"outbound_proxy":"{place}","password":{password}}}}}"#);
        let answer = act.about(*account, "PATCH", "", &body)?;
        ensure!(
            answer.body["type"] == "urn:reveille:problem:registrar-unreachable",
            "a dead place was taken: {answer:?}"
        );
    }
    delete(act, accounts)
}

/// The password that goes to the new place is a neighbour's.
fn be_refused_elsewhere_and_delete(act: &mut Act, accounts: &[usize]) -> anyhow::Result<()> {
    for (place, account) in accounts.iter().enumerate() {
        let wrong = act.letter(accounts[(place + 1) % accounts.len()]).secret;
        let proxy = other_place(act, *account);
        let body = format!(r#"{{"account":{{"outbound_proxy":"{proxy}","password":{wrong}}}}}"#);
        let answer = act.about(*account, "PATCH", "", &body)?;
        ensure!(answer.body["type"] == "urn:reveille:problem:registrar-refused", "refused otherwise: {answer:?}");
    }
    delete(act, accounts)
}

/// A place that takes what comes and says nothing.
fn silent_place(act: &Act) -> anyhow::Result<String> {
    Ok(format!("sip:{};transport=udp", act.stage.silent.local_addr()?))
}

fn die(act: &mut Act, accounts: &[usize]) -> anyhow::Result<()> {
    for account in accounts {
        let token = format!("token-of-{}", act.stage.secrets[*account].user);
        act.stage.mailbox.revoke(&token, clock::now().wall);
        let answer = act.about(*account, "POST", "/test", "")?;
        ensure!(answer.status == 202, "no self-test: {answer:?}");
    }
    wait_erased(act, accounts, 0, "dead-token")
}

/// Each app hands over the password of its neighbour.
fn be_refused(act: &mut Act, accounts: &[usize]) -> anyhow::Result<()> {
    for (place, account) in accounts.iter().enumerate() {
        let mut letter = act.letter(*account);
        letter.secret = act.letter(accounts[(place + 1) % accounts.len()]).secret;
        let answer = act.post(*account, &letter)?;
        ensure!(answer.status == 422, "a wrong password was taken: {answer:?}");
        ensure!(answer.body["type"] == "urn:reveille:problem:registrar-refused", "refused otherwise: {answer:?}");
    }
    Ok(())
}

fn off_board_device(act: &mut Act, accounts: &[usize]) -> anyhow::Result<()> {
    let device = uuid::Uuid::from_u128(0x5000_0000_0000_4000_8000_0000_0000_0000 + accounts[0] as u128);
    let path = format!("/v1/tenants/self/instances?device=urn:uuid:{device}");
    let answer = act.daemon.ask(&act.stage, "DELETE", &path, &act.daemon.admin_jwt()?, "")?;
    ensure!(matches!(answer.status, 200 | 202), "not off-boarded: {answer:?}");
    wait_erased(act, accounts, 0, "")
}

fn off_board(act: &mut Act, accounts: &[usize]) -> anyhow::Result<()> {
    let path = "/v1/tenants/self/instances";
    let answer = act.daemon.ask(&act.stage, "DELETE", path, &act.daemon.admin_jwt()?, "")?;
    ensure!(matches!(answer.status, 200 | 202), "not off-boarded: {answer:?}");
    wait_erased(act, accounts, 0, "")
}

fn outlive(act: &mut Act, accounts: &[usize]) -> anyhow::Result<()> {
    wait_erased(act, accounts, SHORTEST_LEASE, "lease-ended")
}

/// Waits until the API says that each account is erased, and why.
fn wait_erased(act: &Act, accounts: &[usize], seconds: u64, cause: &str) -> anyhow::Result<()> {
    for account in accounts {
        let span = Duration::from_secs(seconds);
        let gone = after(span, "the account to be erased", || {
            act.about(*account, "GET", "", "").ok().filter(|answer| answer.status == 410)
        });
        ensure!(cause.is_empty() || gone.body["cause"] == cause, "erased, but because of {}", gone.body["cause"]);
    }
    Ok(())
}
