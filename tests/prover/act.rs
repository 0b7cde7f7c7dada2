//! One daemon and the accounts it was given: handing over, asking, and looking at what is left.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::client::{Answer, Ask, Break, Client, Dialect, Hush, Silent};
use crate::daemon::{APP, APP_KEY, Daemon, Setup};
use crate::memory;
use crate::process::{PATIENCE, until};
use crate::stage::Shared;
use crate::tally::Tally;
use crate::text::JsonStyle;

/// How long what an app was just answered may take to be gone: tasks that the answer did not wait for end meanwhile. The
/// daemon's own time counts: not while it stands still to be searched, nor while it waits for a processor.
const SETTLING: Duration = Duration::from_secs(1);

/// A daemon and whom it holds.
pub(crate) struct Act {
    pub(crate) stage: Shared,
    pub(crate) daemon: Daemon,
    held: BTreeMap<usize, Held>,
    /// When the last account was handed over.
    pub(crate) last_hand_over: Instant,
    /// Apps that keep their connection and say nothing.
    silent: Vec<Silent>,
    /// Slow clients under way, by account.
    pub(crate) slow: BTreeMap<usize, thread::JoinHandle<anyhow::Result<()>>>,
}

/// An account that the daemon holds.
#[derive(Clone)]
pub(crate) struct Held {
    pub(crate) id: String,
    pub(crate) token: String,
    pub(crate) attach: Value,
}

/// What may differ from hand-over to hand-over.
#[derive(Clone)]
pub(crate) struct Letter {
    pub(crate) lease_seconds: u64,
    /// The password's JSON text with its quotes; or anything else in its place.
    pub(crate) secret: String,
    /// `password` or `ha1`.
    pub(crate) member: &'static str,
    pub(crate) registrar: String,
    pub(crate) proxy: Option<String>,
    pub(crate) app: &'static str,
    pub(crate) device: u128,
    pub(crate) key: &'static str,
}

impl Act {
    pub(crate) fn begin(stage: &Shared, name: &'static str, setup: &Setup) -> anyhow::Result<Self> {
        let daemon = Daemon::start(stage, name, setup)?;
        Ok(Self {
            stage: Shared::clone(stage),
            daemon,
            held: BTreeMap::new(),
            last_hand_over: Instant::now(),
            silent: Vec::new(),
            slow: BTreeMap::new(),
        })
    }

    /// The usual letter with which an account is handed over. Accounts differ in how their apps write JSON.
    pub(crate) fn letter(&self, account: usize) -> Letter {
        let styles = [JsonStyle::Minimal, JsonStyle::Ascii, JsonStyle::Everything, JsonStyle::Solidus];
        Letter {
            lease_seconds: 3600,
            secret: self.stage.secrets[account].json(styles[account % styles.len()]),
            member: "password",
            registrar: self.stage.registrar_uri(account),
            proxy: None,
            app: APP,
            device: account as u128,
            key: APP_KEY,
        }
    }

    /// The letter as a body.
    pub(crate) fn body(&self, account: usize, letter: &Letter) -> String {
        let user = &self.stage.secrets[account].user;
        let Letter { lease_seconds, secret, member, registrar, proxy, app, device, .. } = letter;
        let proxy = proxy.as_ref().map(|proxy| format!(r#","outbound_proxy":"{proxy}""#)).unwrap_or_default();
        let device = uuid::Uuid::from_u128(0x5000_0000_0000_4000_8000_0000_0000_0000 + device);
        format!(
            r#"{{"account":{{"aor":"sip:{user}@pbx.test","registrar":"{registrar}"{proxy},"auth_username":"{user}",
"{member}":{secret}}},"device":{{"id":"urn:uuid:{device}","platform":"android","push":[{{"for":"call",
"provider":"sandbox","app":"{app}","token":"token-of-{user}"}}]}},"lease_seconds":{lease_seconds}}}"#
        )
    }

    /// Hands an account over and waits until it is registered.
    ///
    /// # Errors
    ///
    /// It is refused, or not registered in time.
    pub(crate) fn hand_over(&mut self, account: usize, letter: &Letter) -> anyhow::Result<()> {
        let answer = self.post(account, letter)?;
        ensure!(matches!(answer.status, 200..=202), "the hand-over was refused: {answer:?}");
        self.wait_registered(account, &answer.body)
    }

    /// Hands an account over in frames of HTTP/2 and falls silent, with the connection open; where it has an answer, waits
    /// until the account is registered.
    ///
    /// # Errors
    ///
    /// It is refused, or not registered in time.
    pub(crate) fn post_and_hush(&mut self, account: usize, letter: &Letter, hush: Hush) -> anyhow::Result<()> {
        let silent = self.daemon.client.post_and_hush(letter.key, &self.body(account, letter), hush)?;
        let answer = silent.answer.clone();
        self.silent.push(silent);
        if hush == Hush::Answered { self.wait_registered(account, &answer) } else { Ok(()) }
    }

    fn wait_registered(&mut self, account: usize, answer: &Value) -> anyhow::Result<()> {
        let word = |member: &str| answer[member].as_str().map(str::to_owned).context("an incomplete answer");
        let held = Held { id: word("instance")?, token: word("token")?, attach: answer["attach"].clone() };
        self.held.insert(account, held);
        until("the account to be registered", || {
            let shown = self.about(account, "GET", "", "").ok()?;
            let registration = &shown.body["registration"];
            (registration["state"] == "registered" && registration.get("move").is_none()).then_some(())
        });
        self.last_hand_over = Instant::now();
        Ok(())
    }

    /// Hands an account over; what the daemon says.
    ///
    /// # Errors
    ///
    /// It says nothing.
    pub(crate) fn post(&self, account: usize, letter: &Letter) -> anyhow::Result<Answer> {
        let body = self.body(account, letter);
        self.send(account, letter.key, &[], body.as_bytes())
    }

    /// Posts any body.
    ///
    /// # Errors
    ///
    /// No answer.
    pub(crate) fn send(
        &self,
        account: usize,
        bearer: &str,
        more: &[(&str, &str)],
        body: &[u8],
    ) -> anyhow::Result<Answer> {
        let ask = Ask { method: "POST", path: "/v1/instances", bearer, more, body };
        self.daemon.client.ask(&self.stage.world.runtime, dialect(account), &ask)
    }

    /// Posts a body that is made of chunks.
    ///
    /// # Errors
    ///
    /// No answer.
    pub(crate) fn send_chunked(&self, account: usize, chunks: &[u8]) -> anyhow::Result<Answer> {
        let more = &[("transfer-encoding", "chunked")];
        let ask = Ask { method: "POST", path: "/v1/instances", bearer: APP_KEY, more, body: chunks };
        self.daemon.client.ask_http1(dialect(account), &ask)
    }

    /// Hands an account over and breaks off.
    ///
    /// # Errors
    ///
    /// The daemon cannot even be reached.
    pub(crate) fn post_and_break(&self, account: usize, letter: &Letter, breaking: Break) -> anyhow::Result<()> {
        let body = self.body(account, letter);
        let ask = Ask { method: "POST", path: "/v1/instances", bearer: letter.key, more: &[], body: body.as_bytes() };
        self.daemon.client.ask_and_break(dialect(account), &ask, breaking)
    }

    /// The same from a thread of its own, for what takes its time: an app that stalls, or (`None`) one that waits for a
    /// registrar's word in vain and then has the account erased, if it was told that it is still being tried.
    pub(crate) fn post_slowly(&mut self, account: usize, letter: &Letter, breaking: Option<Break>) {
        let (client, body, key) = (self.daemon.client.clone(), self.body(account, letter), letter.key);
        let slow = thread::spawn(move || {
            let ask = Ask { method: "POST", path: "/v1/instances", bearer: key, more: &[], body: body.as_bytes() };
            if let Some(breaking) = breaking {
                return client.ask_and_break(dialect(account), &ask, breaking);
            }
            let answer = client.ask_http1(dialect(account), &ask)?;
            if answer.status == 202 {
                return delete(&client, &answer);
            }
            ensure!(answer.status == 422, "422 was expected: {answer:?}");
            Ok(())
        });
        self.slow.insert(account, slow);
    }

    /// Asks about an account that is or was held.
    ///
    /// # Errors
    ///
    /// No answer.
    pub(crate) fn about(&self, account: usize, method: &str, path: &str, body: &str) -> anyhow::Result<Answer> {
        let held = self.held(account)?;
        let path = format!("/v1/instances/{}{path}", held.id);
        self.daemon.ask(&self.stage, method, &path, &held.token, body)
    }

    /// Whether it was handed over and taken.
    pub(crate) fn holds(&self, account: usize) -> bool {
        self.held.contains_key(&account)
    }

    pub(crate) fn held(&self, account: usize) -> anyhow::Result<&Held> {
        self.held.get(&account).context("the account was never handed over")
    }

    /// Searches the daemon's memory.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub(crate) fn search(&self) -> anyhow::Result<Tally> {
        memory::search(self.daemon.pid(), &self.stage.needles)
    }

    /// Searches the daemon's memory for what should be gone, again and again while it still may be there.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub(crate) fn search_settled(&self, gone: &[usize]) -> anyhow::Result<Tally> {
        let deadline = Instant::now() + PATIENCE;
        let mut had = Duration::ZERO;
        loop {
            let tally = self.search()?;
            if tally.all_hits(gone) == 0 || had >= SETTLING || Instant::now() >= deadline {
                return Ok(tally);
            }
            let waited = self.daemon.waited_for_processor()?;
            thread::sleep(SETTLING / 4);
            had += (SETTLING / 4).saturating_sub(self.daemon.waited_for_processor()?.saturating_sub(waited));
        }
    }
}

/// Erases what a hand-over was answered with.
fn delete(client: &Client, handed_over: &Answer) -> anyhow::Result<()> {
    let word = |member: &str| handed_over.body[member].as_str().context("an incomplete answer");
    let path = format!("/v1/instances/{}", word("instance")?);
    let ask = Ask { method: "DELETE", path: &path, bearer: word("token")?, more: &[], body: &[] };
    let answer = client.ask_http1(Dialect::Http1OverTls13, &ask)?;
    ensure!(answer.status == 200 && answer.body["receipt"].is_object(), "no receipt: {answer:?}");
    Ok(())
}

/// Accounts differ in how their apps speak to the API, and within a part of the run all three ways occur.
fn dialect(account: usize) -> Dialect {
    [Dialect::Http1OverTls13, Dialect::Http2, Dialect::Http1OverTls12][(account + account / 3) % 3]
}
