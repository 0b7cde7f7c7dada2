//! Every way in which a hand-over goes wrong. The password was on its way all the same.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::act::{Act, Letter};
use crate::client::Break;
use crate::daemon::APP_KEY;
use crate::parts::{Group, Part, Setting};
use crate::process::until;
use crate::ways::nothing;

/// More than a body may have.
const TOO_MUCH: usize = 20_000;

/// `erasure.grace`: how long a farewell to a registrar may take.
pub(crate) const ERASURE_GRACE: Duration = Duration::from_secs(2);

pub(crate) const FAULTS: [Part; 19] = [
    fault("413, length declared", too_large),
    fault("413, length not declared", too_large_chunked),
    fault("JSON that breaks off", broken_json),
    fault("JSON: password of a wrong type", wrong_type),
    fault("JSON: password in an unknown member", unknown_member),
    fault("JSON: half an escape in the password", half_escape),
    fault("password too long", too_long),
    fault("not called JSON (Content-Type)", other_media_type),
    fault("unknown tenant", unknown_tenant),
    fault("no usable push target", no_push_target),
    fault("lease too long", long_lease),
    fault("registrar not allowed", foreign_registrar),
    slow("registrar down, then DELETE", begin_without_registrar),
    slow("registrar silent until the time-out, then DELETE", |act, accounts| begin_slowly(act, accounts, None)),
    fault("app gone before the answer", gone_before_answer),
    fault("TLS closed in mid-body", |act, accounts| broken_off(act, accounts, Break::BetweenRecords)),
    fault("TCP reset in mid-record", |act, accounts| broken_off(act, accounts, Break::InRecord)),
    slow("body stalls until the time-out", |act, accounts| begin_slowly(act, accounts, Some(Break::Stall))),
    Part { setting: Setting::Debug, ..fault("panic in a handler", panic_in_handler) },
];

const fn fault(name: &'static str, end: fn(&mut Act, &[usize]) -> anyhow::Result<()>) -> Part {
    Part { group: Group::ErrorPath, name, setting: Setting::Usual, late: false, begin: nothing, end }
}

const fn slow(name: &'static str, begin: fn(&mut Act, &[usize]) -> anyhow::Result<()>) -> Part {
    Part { group: Group::ErrorPath, name, setting: Setting::Usual, late: false, begin, end: wait_for_slow }
}

/// Posts what `change` makes of each account's letter and expects the status.
fn expect(act: &Act, accounts: &[usize], status: u16, change: impl Fn(&mut Letter)) -> anyhow::Result<()> {
    for account in accounts {
        let mut letter = act.letter(*account);
        change(&mut letter);
        let answer = act.post(*account, &letter)?;
        ensure!(answer.status == status, "{status} was expected: {answer:?}");
    }
    Ok(())
}

/// Posts what `change` makes of each account's body.
fn expect_of_body(
    act: &Act,
    accounts: &[usize],
    (status, key, more): (u16, &str, &[(&str, &str)]),
    change: impl Fn(String) -> Vec<u8>,
) -> anyhow::Result<()> {
    for account in accounts {
        let body = change(act.body(*account, &act.letter(*account)));
        let answer = act.send(*account, key, more, &body)?;
        ensure!(answer.status == status, "{status} was expected: {answer:?}");
    }
    Ok(())
}

fn too_large(act: &mut Act, accounts: &[usize]) -> anyhow::Result<()> {
    expect_of_body(act, accounts, (413, APP_KEY, &[]), |body| (body + &" ".repeat(TOO_MUCH)).into_bytes())
}

fn too_large_chunked(act: &mut Act, accounts: &[usize]) -> anyhow::Result<()> {
    for account in accounts {
        let body = act.body(*account, &act.letter(*account)) + &" ".repeat(TOO_MUCH);
        let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
        let answer = act.send_chunked(*account, chunked.as_bytes())?;
        ensure!(answer.status == 413, "413 was expected: {answer:?}");
    }
    Ok(())
}

fn broken_json(act: &mut Act, accounts: &[usize]) -> anyhow::Result<()> {
    expect_of_body(act, accounts, (400, APP_KEY, &[]), |mut body| {
        body.truncate(body.find("\"lease").expect("the letter ends with its lease"));
        body.into_bytes()
    })
}

fn wrong_type(act: &mut Act, accounts: &[usize]) -> anyhow::Result<()> {
    expect(act, accounts, 400, |letter| letter.secret = format!("[{}]", letter.secret))
}

fn unknown_member(act: &mut Act, accounts: &[usize]) -> anyhow::Result<()> {
    expect(act, accounts, 400, |letter| letter.member = "pasword")
}

fn half_escape(act: &mut Act, accounts: &[usize]) -> anyhow::Result<()> {
    expect(act, accounts, 400, |letter| {
        letter.secret.pop();
        letter.secret.push_str("\\ud83d\"");
    })
}

fn too_long(act: &mut Act, accounts: &[usize]) -> anyhow::Result<()> {
    expect(act, accounts, 422, |letter| {
        letter.secret.pop();
        letter.secret.push_str(&" ".repeat(300));
        letter.secret.push('"');
    })
}

fn other_media_type(act: &mut Act, accounts: &[usize]) -> anyhow::Result<()> {
    expect_of_body(act, accounts, (400, APP_KEY, &[("content-type", "text/plain")]), String::into_bytes)
}

fn unknown_tenant(act: &mut Act, accounts: &[usize]) -> anyhow::Result<()> {
    expect_of_body(act, accounts, (401, "no-such-key", &[]), String::into_bytes)?;
    expect_of_body(act, accounts, (401, "", &[]), String::into_bytes)
}

fn no_push_target(act: &mut Act, accounts: &[usize]) -> anyhow::Result<()> {
    expect(act, accounts, 422, |letter| letter.app = "com.example.stranger")
}

fn long_lease(act: &mut Act, accounts: &[usize]) -> anyhow::Result<()> {
    expect(act, accounts, 422, |letter| letter.lease_seconds = 7 * 24 * 3600)
}

fn foreign_registrar(act: &mut Act, accounts: &[usize]) -> anyhow::Result<()> {
    expect(act, accounts, 422, |letter| letter.registrar = "sip:127.0.0.1:1;transport=udp".to_owned())
}

/// Nobody listens there: TCP is refused, UDP is answered by the system.
fn begin_without_registrar(act: &mut Act, accounts: &[usize]) -> anyhow::Result<()> {
    let nobody = act.stage.nobody;
    for (account, transport) in accounts.iter().zip(["udp", "tcp", "udp"]) {
        let mut letter = act.letter(*account);
        letter.registrar = format!("sip:127.0.0.1:{nobody};transport={transport}");
        act.post_slowly(*account, &letter, None);
    }
    Ok(())
}

fn broken_off(act: &mut Act, accounts: &[usize], breaking: Break) -> anyhow::Result<()> {
    accounts.iter().try_for_each(|account| act.post_and_break(*account, &act.letter(*account), breaking))
}

fn gone_before_answer(act: &mut Act, accounts: &[usize]) -> anyhow::Result<()> {
    for account in accounts {
        act.post_and_break(*account, &at_silent_registrar(act, *account)?, Break::BeforeAnswer)?;
    }
    // The REGISTER that was sent may have had effect, so it is taken back first.
    thread::sleep(ERASURE_GRACE);
    Ok(())
}

fn begin_slowly(act: &mut Act, accounts: &[usize], breaking: Option<Break>) -> anyhow::Result<()> {
    for account in accounts {
        let letter = at_silent_registrar(act, *account)?;
        act.post_slowly(*account, &letter, breaking);
    }
    Ok(())
}

/// A letter for a registrar that hears and never answers.
pub(crate) fn at_silent_registrar(act: &Act, account: usize) -> anyhow::Result<Letter> {
    let silent = act.stage.silent.local_addr()?;
    let mut letter = act.letter(account);
    letter.registrar = format!("sip:{silent};transport=udp");
    Ok(letter)
}

fn wait_for_slow(act: &mut Act, accounts: &[usize]) -> anyhow::Result<()> {
    for account in accounts {
        let slow = act.slow.remove(account).context("no slow client was started")?;
        until("a slow client to be answered", || slow.is_finished().then_some(()));
        slow.join().map_err(|_| anyhow::anyhow!("a slow client panicked"))??;
    }
    Ok(())
}

fn panic_in_handler(act: &mut Act, accounts: &[usize]) -> anyhow::Result<()> {
    for account in accounts {
        let body = act.body(*account, &act.letter(*account));
        let answer = act.send(*account, APP_KEY, &[("reveille-fault", "panic")], body.as_bytes())?;
        ensure!(answer.status == 500, "500 was expected: {answer:?}");
    }
    Ok(())
}
