//! The PBX as a sender of texts and as the keeper of mailboxes.

use std::net::SocketAddr;
use std::time::Duration;

use reveille::clock::Instant;
use reveille::sip::{HeaderName, Message, Method};

use super::registrar::Verdict;
use super::{Call, Pbx, transport};
use crate::sip_text::{Answer, Request, call_id, contact, field};
use crate::transactions::Path;

/// A MESSAGE to send.
#[derive(Clone)]
pub struct Text {
    user: String,
    method: &'static str,
    body: Vec<u8>,
    extra: Vec<(String, String)>,
    call_id: Option<String>,
    own: Option<SocketAddr>,
}

impl Text {
    pub fn to(user: &str, body: &str) -> Self {
        let plain = ("Content-Type".to_owned(), "text/plain;charset=UTF-8".to_owned());
        Self {
            user: user.to_owned(),
            method: "MESSAGE",
            body: body.as_bytes().to_vec(),
            extra: vec![plain],
            call_id: None,
            own: None,
        }
    }

    /// An unsolicited NOTIFY of a mailbox.
    pub fn news(user: &str, body: &str) -> Self {
        let mut news = Self::to(user, body);
        news.method = "NOTIFY";
        news.extra = vec![
            ("Event".to_owned(), "message-summary".to_owned()),
            ("Subscription-State".to_owned(), "active".to_owned()),
            ("Content-Type".to_owned(), "application/simple-message-summary".to_owned()),
        ];
        news
    }

    pub fn of_type(mut self, media: &str) -> Self {
        self.extra[0].1 = media.to_owned();
        self
    }

    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.extra.push((name.to_owned(), value.to_owned()));
        self
    }

    /// From an address that has never answered us.
    pub fn from(mut self, own: &str) -> Self {
        self.own = Some(own.parse().expect("an address"));
        self
    }

    /// A copy of one that went out: another branch, the same Call-ID, From tag and CSeq.
    pub fn named(mut self, call_id: &str) -> Self {
        self.call_id = Some(call_id.to_owned());
        self
    }
}

/// How the PBX treats subscriptions to mailboxes.
pub struct Mailbox {
    /// Instead of what a subscription deserves.
    pub verdict: Option<(u16, Vec<(&'static str, String)>)>,
    pub silent: bool,
    pub expires_max: u32,
    pub min_expires: u32,
    /// The body of the NOTIFY that follows each grant; none: no NOTIFY.
    pub state: Option<String>,
    pub subscribes: Vec<Subscribed>,
    dialog: Option<Subscription>,
    number: u32,
}

/// A SUBSCRIBE as the PBX judged it.
pub struct Subscribed {
    pub at: Instant,
    pub call_id: String,
    pub cseq: u32,
    pub expires: u32,
    pub signed: bool,
    pub in_dialog: bool,
    pub code: u16,
}

/// The notifier's side.
struct Subscription {
    call_id: String,
    local: String,
    remote: String,
    target: String,
    path: Path,
}

impl Default for Mailbox {
    fn default() -> Self {
        Self {
            verdict: None,
            silent: false,
            expires_max: 3600,
            min_expires: 0,
            state: None,
            subscribes: Vec::new(),
            dialog: None,
            number: 0,
        }
    }
}

impl Mailbox {
    pub fn codes(&self) -> Vec<u16> {
        self.subscribes.iter().map(|it| it.code).collect()
    }
}

impl Pbx {
    /// Sends a MESSAGE (or an unsolicited NOTIFY) to the capability of its user.
    pub fn text(&mut self, text: Text) -> Call {
        let Text { user, method, body, mut extra, call_id, own } = text;
        let minted = self.mint();
        let capability = self.capability(&user).expect("a registration");
        let bound = self.bindings.iter().rev().find(|it| it.user == user).map(|it| it.path);
        let elsewhere = own.is_some();
        let own = own.unwrap_or(self.address);
        let path = match bound {
            Some(path @ Path::Stream(_)) if !elsewhere => path,
            _ => Path::Datagram { own, peer: self.edge },
        };
        let uri = format!("sip:{capability}@{}", self.edge);
        let name = call_id.unwrap_or_else(|| format!("text-{minted}@{}", self.domain));
        extra.push(("User-Agent".to_owned(), "a PBX that tells who it is".to_owned()));
        let request = Request {
            method: if method == "NOTIFY" { Method::Notify } else { Method::Message },
            uri: &uri,
            transport: transport(path),
            sent_by: own.to_string(),
            branch: format!("z9hG4bKtext{minted}"),
            routes: &[],
            from: format!("\"Carol\" <sip:carol@{}>;tag=of-{}", self.domain, name.len()),
            to: format!("<sip:{}@{}>", user, self.domain),
            call_id: &name,
            cseq: 7,
            extra,
            body: &body,
        };
        let message = request.write();
        self.transactions.request(&message, path, self.now);
        self.log_outside(message, path)
    }

    /// A SUBSCRIBE of ours.
    pub(super) fn handle_subscribe(&mut self, request: &Message, path: Path) {
        if self.mailbox.silent {
            self.log_subscribe(request, 0);
            return self.transactions.ignore(request);
        }
        let source = self.source_of(path);
        let answer = self.judge_subscribe(request, path);
        self.log_subscribe(request, answer.code);
        let granted = answer.code == 200;
        self.transactions.respond(request, &answer.write(request, source), path, self.now);
        if granted && let Some(state) = self.mailbox.state.clone() {
            let left = request.expires().expect("Expires").expect("Expires");
            let state_header = if left == 0 { "terminated;reason=timeout" } else { "active" };
            self.notify(state_header, &state);
        }
    }

    fn judge_subscribe(&mut self, request: &Message, path: Path) -> Answer<'static> {
        assert_eq!(field(request, HeaderName::Event), "message-summary");
        assert!(request.extension("User-Agent").is_none(), "tells who it is");
        if let Some((code, extra)) = self.mailbox.verdict.clone() {
            return Answer { extra, ..Answer::plain(code) };
        }
        if self.registrar.verdict == Verdict::NeverContent {
            return self.challenge(false);
        }
        if !self.registrar.guards.list.is_empty() {
            if let Some(asks) = self.guard(request) {
                return asks;
            }
        } else if self.registrar.challenges
            && let Err(stale) = self.check(request)
        {
            return self.challenge(stale);
        }
        let expires = request.expires().expect("Expires").expect("Expires");
        if expires > 0 && expires < self.mailbox.min_expires {
            let extra = vec![("Min-Expires", self.mailbox.min_expires.to_string())];
            return Answer { extra, ..Answer::plain(423) };
        }
        let known = self.mailbox.dialog.as_ref().filter(|it| it.call_id == call_id(request));
        let tagged = request.to().expect("To").tag().is_some();
        if tagged && known.is_none() {
            return Answer::plain(481);
        }
        if !tagged {
            self.mailbox.dialog = Some(Subscription {
                call_id: call_id(request),
                local: format!("{};tag=notifier", field(request, HeaderName::To)),
                remote: field(request, HeaderName::From),
                target: contact(request).expect("a Contact"),
                path,
            });
        }
        let granted = expires.min(self.mailbox.expires_max);
        let own = format!("<sip:mailbox@{}>", self.address);
        let extra = vec![("Expires", granted.to_string()), ("Contact", own)];
        Answer { tag: (!tagged).then_some("notifier"), extra, ..Answer::plain(200) }
    }

    /// A NOTIFY of the subscription.
    pub fn notify(&mut self, state: &str, body: &str) -> Call {
        self.mailbox.number += 1;
        let number = self.mailbox.number;
        self.notify_as(state, body, number, "notifier")
    }

    /// The same with another number, or from another notifier.
    pub fn notify_as(&mut self, state: &str, body: &str, number: u32, tag: &str) -> Call {
        let minted = self.mint();
        let dialog = self.mailbox.dialog.as_ref().expect("a subscription");
        let extra = vec![
            ("Event".to_owned(), "message-summary".to_owned()),
            ("Subscription-State".to_owned(), state.to_owned()),
            ("Contact".to_owned(), format!("<sip:mailbox@{}>", self.address)),
            ("Content-Type".to_owned(), "application/simple-message-summary".to_owned()),
        ];
        let path = dialog.path;
        let request = Request {
            method: Method::Notify,
            uri: &dialog.target,
            transport: transport(path),
            sent_by: self.address.to_string(),
            branch: format!("z9hG4bKnotify{minted}"),
            routes: &[],
            from: dialog.local.replace("tag=notifier", &format!("tag={tag}")),
            to: dialog.remote.clone(),
            call_id: &dialog.call_id,
            cseq: number,
            extra,
            body: body.as_bytes(),
        };
        let message = request.write();
        self.transactions.request(&message, path, self.now);
        self.log_outside(message, path)
    }

    fn log_subscribe(&mut self, request: &Message, code: u16) {
        self.mailbox.subscribes.push(Subscribed {
            at: self.now,
            call_id: call_id(request),
            cseq: request.cseq().expect("CSeq").number,
            expires: request.expires().expect("Expires").expect("Expires"),
            signed: request.header(HeaderName::Authorization).is_some(),
            in_dialog: request.to().expect("To").tag().is_some(),
            code,
        });
    }

    /// The spans between granted SUBSCRIBEs.
    pub fn subscribed_at(&self) -> Vec<Duration> {
        let granted = self.mailbox.subscribes.iter().filter(|it| it.code == 200);
        granted.map(|it| it.at.saturating_since(Instant::default())).collect()
    }
}
