//! The access token for FCM: fetched by one task, once for all pushes that wait for it, and anew before it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use serde::Deserialize;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;
use tracing::warn;
use zeroize::Zeroizing;

use super::super::answer::{fault, word};
use super::super::backoff::Backoff;
use super::super::channel::Trail;
use super::super::config::TimeSource;
use super::super::crew::Crew;
use super::super::endpoint::Endpoint;
use super::super::health::Throttle;
use super::super::oneshot;
use super::account::ServiceAccount;
use crate::clock::Instant;
use crate::engine::output::PushOutcome;

/// The OAuth grant of RFC 7523 §2.1, form-encoded.
const GRANT: &str = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=";
/// A token that ends within this is replaced while it still serves.
const AHEAD: Duration = Duration::from_secs(5 * 60);
/// A token is not used in its last seconds: the request still has to travel.
const MARGIN: Duration = Duration::from_secs(10);
/// Pauses between attempts that failed.
const RETRY: Backoff = Backoff { first: Duration::from_millis(500), most: Duration::from_secs(60) };

/// A token that Google took for so long was a good one, whatever became of it later.
const TOOK: Duration = Duration::from_secs(5 * 60);
/// So many tokens in a row that Google gave out and did not take are replaced while pushes wait. For more, pushes are
/// refused until the next one is fetched.
const SPOILED_MAX: u32 = 3;

/// The access token and the task that keeps it fresh.
pub(crate) struct AccessTokens {
    shared: Arc<Shared>,
}

struct Shared {
    account: Arc<ServiceAccount>,
    endpoint: Endpoint,
    time: TimeSource,
    state: watch::Sender<State>,
    demand: Notify,
    /// Tokens in a row that FCM did not take soon after they were fetched.
    spoiled: AtomicU32,
}

enum State {
    /// None yet, or the last one is used up.
    Empty,
    Live(Arc<AccessToken>),
    /// Google refuses us; cleared when it is worth asking again.
    Refused(String),
    /// No answer, or 5xx; the task asks again as long as somebody waits.
    Unreachable(String),
}

/// A token, ready to be sent.
pub(crate) struct AccessToken {
    /// The value of `authorization`, marked sensitive.
    pub(crate) header: HeaderValue,
    asked: Instant,
    renew_at: Instant,
    ends_at: Instant,
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    expires_in: u64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Refusal {
    error: String,
}

enum Failed {
    Refused(String),
    Unreachable(String),
}

impl AccessTokens {
    /// Tokens for `account`, fetched on demand by a task of `crew`.
    pub(crate) fn new(account: Arc<ServiceAccount>, endpoint: Endpoint, time: TimeSource, crew: &Crew) -> Self {
        let state = watch::Sender::new(State::Empty);
        let shared =
            Arc::new(Shared { account, endpoint, time, state, demand: Notify::new(), spoiled: AtomicU32::new(0) });
        crew.spawn(Arc::clone(&shared).keep());
        Self { shared }
    }

    /// A token that is good now; waits for one if there is none. Safe to drop.
    ///
    /// # Errors
    /// Google refuses to give us one.
    pub(crate) async fn current(&self, trail: &mut Trail) -> Result<Arc<AccessToken>, PushOutcome> {
        let mut state = self.shared.state.subscribe();
        loop {
            match &*state.borrow_and_update() {
                State::Live(token) => {
                    let now = (self.shared.time)().boot;
                    if now < token.ends_at {
                        if now >= token.renew_at {
                            self.shared.demand.notify_one();
                        }
                        return Ok(Arc::clone(token));
                    }
                }
                State::Refused(why) => return Err(PushOutcome::OurFault(why.clone())),
                State::Unreachable(why) => trail.last = Some(why.clone()),
                State::Empty => {}
            }
            self.shared.demand.notify_one();
            if state.changed().await.is_err() {
                // The sender lives in `shared`, which we hold.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Why there is no token, if it is known.
    pub(crate) fn trouble(&self) -> Option<String> {
        match &*self.shared.state.borrow() {
            State::Refused(why) | State::Unreachable(why) => Some(why.clone()),
            State::Empty | State::Live(_) => None,
        }
    }

    /// FCM does not take this token: the next push gets another one, after a pause if this one was new.
    pub(crate) fn discard(&self, bad: &Arc<AccessToken>, said: &str) {
        let shared = &self.shared;
        shared.state.send_if_modified(|state| {
            let same = matches!(state, State::Live(token) if Arc::ptr_eq(token, bad));
            if same {
                let fresh = (shared.time)().boot.saturating_since(bad.asked) < TOOK;
                let spoiled = if fresh { shared.spoiled.load(Ordering::Relaxed).saturating_add(1) } else { 1 };
                shared.spoiled.store(spoiled, Ordering::Relaxed);
                *state = if spoiled > SPOILED_MAX { State::Refused(said.to_owned()) } else { State::Empty };
            }
            same
        });
        if matches!(&*shared.state.borrow(), State::Refused(_)) {
            // The task ends the refusal after its pause.
            shared.demand.notify_one();
        }
    }
}

impl Shared {
    /// Fetches tokens as they are asked for. Ends with the crew that runs it.
    async fn keep(self: Arc<Self>) {
        let (mut failures, mut asked) = (0, Instant::default());
        let mut throttle = Throttle::default();
        loop {
            self.demand.notified().await;
            if self.fresh() {
                continue;
            }
            // The first that was not taken is replaced at once, and so is one that served for a while.
            let next = asked + RETRY.pause(self.spoiled.load(Ordering::Relaxed).saturating_sub(1));
            sleep(next.saturating_since((self.time)().boot)).await;
            asked = (self.time)().boot;
            match self.fetch().await {
                Ok(token) => {
                    failures = 0;
                    self.state.send_replace(State::Live(Arc::new(token)));
                }
                Err(failed) => {
                    failures += 1;
                    self.failed(failed, failures, &mut throttle).await;
                }
            }
        }
    }

    /// Tells the waiters, unless the token at hand still serves, and waits until it makes sense to ask again.
    async fn failed(&self, failed: Failed, failures: u32, throttle: &mut Throttle) {
        let (Failed::Refused(why) | Failed::Unreachable(why)) = &failed;
        if let Some(times) = throttle.admit((self.time)().boot) {
            warn!(token_uri = self.endpoint.authority(), %why, failures, times, "no access token for FCM");
        }
        let now = (self.time)().boot;
        self.state.send_if_modified(|state| {
            let serves = matches!(state, State::Live(token) if now < token.ends_at);
            if !serves {
                *state = match failed {
                    Failed::Refused(why) => State::Refused(why),
                    Failed::Unreachable(why) => State::Unreachable(why),
                };
            }
            !serves
        });
        sleep(RETRY.pause(failures)).await;
        self.state.send_if_modified(|state| {
            let refused = matches!(state, State::Refused(_));
            if refused {
                *state = State::Empty;
            }
            refused
        });
    }

    fn fresh(&self) -> bool {
        let now = (self.time)().boot;
        matches!(&*self.state.borrow(), State::Live(token) if now < token.renew_at)
    }

    async fn fetch(&self) -> Result<AccessToken, Failed> {
        let asked = (self.time)();
        let unsigned = || Failed::Refused("the assertion for an access token cannot be signed".to_owned());
        let assertion = self.account.assertion(asked.wall).ok_or_else(unsigned)?;
        let form = Bytes::from(format!("{GRANT}{}", *assertion));
        let reply = oneshot::post(&self.endpoint, "application/x-www-form-urlencoded", form)
            .await
            .map_err(|why| Failed::Unreachable(format!("access token: {why}")))?;
        if !reply.status.is_success() {
            let refusal: Refusal = serde_json::from_slice(&reply.body).unwrap_or_default();
            let why = format!("access token: {}", fault(reply.status, &word(&refusal.error)));
            // 429 and 5xx pass; the other 4xx are about our key.
            let passes = reply.status.is_server_error() || reply.status.as_u16() == 429;
            return Err(if passes { Failed::Unreachable(why) } else { Failed::Refused(why) });
        }
        let senseless = || Failed::Unreachable("access token: the answer makes no sense".to_owned());
        let granted: Granted = serde_json::from_slice(&reply.body).map_err(|_| senseless())?;
        let granted = (Zeroizing::new(granted.access_token), Duration::from_secs(granted.expires_in));
        AccessToken::new(&granted.0, asked.boot, granted.1).ok_or_else(senseless)
    }
}

impl AccessToken {
    fn new(token: &str, asked: Instant, life: Duration) -> Option<Self> {
        let bearer = Zeroizing::new(format!("Bearer {token}"));
        let mut header = HeaderValue::from_str(&bearer).ok()?;
        header.set_sensitive(true);
        // A short life is used for three quarters at least, else each push would fetch a token of its own.
        let renew_at = asked + life.saturating_sub(AHEAD.min(life / 4));
        let ends_at = asked + life.saturating_sub(MARGIN.min(life / 8));
        Some(Self { header, asked, renew_at, ends_at })
    }
}
