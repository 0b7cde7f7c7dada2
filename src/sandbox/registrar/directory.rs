//! Who is registered where: bindings with an end (RFC 3261 §10.3). No sockets.

use std::time::Duration;

use zeroize::Zeroizing;

use super::guard::{Denial, Guard};
use super::{Answer, BindingView, RegistrarPlan, Snapshot, text, to_user};
use crate::clock::Instant;
use crate::sandbox::deadlines::Deadlines;
use crate::sandbox::wire::Path;
use crate::sip::uri::{self, Uri};
use crate::sip::{Message, StatusCode};

/// Contacts of one user; above it 403, as PBXs say.
const CONTACTS_MAX: usize = 8;
/// Where the client asks for no expiry.
const EXPIRES_DEFAULT: Duration = Duration::from_secs(3600);

pub(super) struct Directory {
    accounts: Vec<Account>,
    guard: Guard,
    expires_max: Duration,
    expires_min: Duration,
    bindings: Vec<Binding>,
    bindings_made: u64,
    ends: Deadlines<u64>,
    granted: u64,
    challenged: u64,
    refused: u64,
}

struct Account {
    user: String,
    password: Zeroizing<String>,
    refusal: Option<StatusCode>,
}

struct Binding {
    id: u64,
    user: String,
    contact: String,
    path: Path,
    call_id: String,
    cseq: u32,
    granted: Duration,
    until: Instant,
}

/// One Contact of a REGISTER.
struct Wish {
    contact: String,
    expires: Duration,
}

impl Directory {
    pub(super) fn new(plan: RegistrarPlan) -> Self {
        let account =
            |account: super::AccountPlan| Account { user: account.user, password: account.password, refusal: None };
        Self {
            accounts: plan.accounts.into_iter().map(account).collect(),
            guard: Guard::new(plan.realm, plan.algorithms, plan.nonce_life),
            expires_max: plan.expires_max,
            expires_min: plan.expires_min,
            bindings: Vec::new(),
            bindings_made: 0,
            ends: Deadlines::new(),
            granted: 0,
            challenged: 0,
            refused: 0,
        }
    }

    pub(super) fn handle_register(&mut self, request: &Message, path: Path, now: Instant) -> Answer {
        self.handle_timeout(now);
        let answer = self.judge(request, path, now);
        match answer.code {
            StatusCode::OK => self.granted += 1,
            StatusCode::UNAUTHORIZED => self.challenged += 1,
            _ => self.refused += 1,
        }
        answer
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        while let Some(ended) = self.ends.pop_due(now) {
            self.bindings.retain(|binding| binding.id != ended);
        }
    }

    pub(super) fn refuse(&mut self, user: &str, code: Option<StatusCode>) {
        for account in self.accounts.iter_mut().filter(|account| account.user == user) {
            account.refusal = code;
        }
    }

    pub(super) fn forget(&mut self, user: &str) {
        self.remove(|binding| binding.user == user);
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.ends.next()
    }

    /// Contact and path of the newest binding.
    pub(super) fn newest(&self, user: &str, now: Instant) -> Option<(String, Path)> {
        let binding = self.bindings.iter().rev().find(|binding| binding.user == user && binding.until > now)?;
        Some((binding.contact.clone(), binding.path))
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let view = |binding: &Binding| BindingView {
            user: binding.user.clone(),
            contact: binding.contact.clone(),
            call_id: binding.call_id.clone(),
            cseq: binding.cseq,
            expires: binding.granted,
        };
        Snapshot {
            bindings: self.bindings.iter().map(view).collect(),
            granted: self.granted,
            challenged: self.challenged,
            refused: self.refused,
        }
    }

    fn judge(&mut self, request: &Message, path: Path, now: Instant) -> Answer {
        let user = to_user(request).unwrap_or_default();
        let account = self.accounts.iter().find(|account| account.user == user);
        if let Some(code) = account.and_then(|account| account.refusal) {
            return Answer::bare(code);
        }
        let checked = match account {
            Some(account) => self.guard.check(request, &user, &account.password, now),
            // A stranger learns nothing that a wrong password would not tell.
            None => Err(Denial::Unproven),
        };
        if let Err(denial) = checked {
            let challenges = self.guard.challenge(denial == Denial::Stale, now);
            let extra = challenges.into_iter().map(|value| ("WWW-Authenticate", value)).collect();
            return Answer { code: StatusCode::UNAUTHORIZED, extra };
        }
        self.register(request, &user, path, now)
    }

    fn register(&mut self, request: &Message, user: &str, path: Path, now: Instant) -> Answer {
        let (Ok(call_id), Ok(cseq)) = (request.call_id().map(text), request.cseq()) else {
            return Answer::bare(StatusCode::BAD_REQUEST);
        };
        // "If the Call-ID agrees, and the CSeq is not higher, the update is aborted" (RFC 3261 §10.3 step 7).
        let out_of_order = |b: &Binding| b.user == user && b.call_id == call_id && b.cseq >= cseq.number;
        if self.bindings.iter().any(out_of_order) {
            return Answer::bare(StatusCode::BAD_REQUEST);
        }
        if request.contact_is_star() {
            if request.expires() != Ok(Some(0)) {
                return Answer::bare(StatusCode::BAD_REQUEST);
            }
            self.forget(user);
            return self.listing(user, now);
        }
        let wishes = match self.wishes(request) {
            Ok(wishes) => wishes,
            Err(answer) => return answer,
        };
        let held = self.bindings.iter().filter(|binding| binding.user == user).count();
        if held + wishes.len() > CONTACTS_MAX {
            return Answer::bare(StatusCode::FORBIDDEN);
        }
        for wish in wishes {
            self.remove(|binding| binding.user == user && same_uri(&binding.contact, &wish.contact));
            if !wish.expires.is_zero() {
                self.bind(user, wish, path, (call_id.clone(), cseq.number), now);
            }
        }
        self.listing(user, now)
    }

    fn wishes(&self, request: &Message) -> Result<Vec<Wish>, Answer> {
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        let Ok(header) = request.expires() else { return Err(Answer::bare(StatusCode::BAD_REQUEST)) };
        let mut wishes = Vec::new();
        for contact in request.contacts() {
            let Ok(contact) = contact else { return Err(Answer::bare(StatusCode::BAD_REQUEST)) };
            let own = contact.param("expires").flatten().and_then(|text| text.parse().ok());
            let asked = own.or(header).map_or(EXPIRES_DEFAULT, seconds);
            if !asked.is_zero() && asked < self.expires_min {
                let least = ("Min-Expires", self.expires_min.as_secs().to_string());
                return Err(Answer { code: StatusCode::INTERVAL_TOO_BRIEF, extra: vec![least] });
            }
            let expires = asked.min(self.expires_max);
            wishes.push(Wish { contact: text(contact.uri().raw()), expires });
        }
        Ok(wishes)
    }

    fn bind(&mut self, user: &str, wish: Wish, path: Path, (call_id, cseq): (String, u32), now: Instant) {
        self.bindings_made += 1;
        let (id, until) = (self.bindings_made, now + wish.expires);
        self.ends.set(id, Some(until));
        let Wish { contact, expires: granted } = wish;
        self.bindings.push(Binding { id, user: user.to_owned(), contact, path, call_id, cseq, granted, until });
    }

    fn remove(&mut self, test: impl Fn(&Binding) -> bool) {
        for binding in self.bindings.iter().filter(|binding| test(binding)) {
            self.ends.set(binding.id, None);
        }
        self.bindings.retain(|binding| !test(binding));
    }

    /// A 200 with all bindings of the user.
    fn listing(&self, user: &str, now: Instant) -> Answer {
        let own = self.bindings.iter().filter(|binding| binding.user == user);
        let contact = |binding: &Binding| {
            let left = binding.until.saturating_since(now).as_secs_f64().ceil();
            ("Contact", format!("<{}>;expires={left:.0}", binding.contact))
        };
        Answer { code: StatusCode::OK, extra: own.map(contact).collect() }
    }
}

impl Answer {
    fn bare(code: StatusCode) -> Self {
        Self { code, extra: Vec::new() }
    }
}

/// RFC 3261 §10.3 compares bindings by the rules for URIs.
fn same_uri(a: &str, b: &str) -> bool {
    match (Uri::parse(a.as_bytes()), Uri::parse(b.as_bytes())) {
        (Ok(a), Ok(b)) => uri::equivalent(&a, &b),
        _ => false,
    }
}
