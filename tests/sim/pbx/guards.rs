//! Several that ask who we are: proxies before the registrar, and its own realms, in whatever form a test wants. What they
//! expect is computed here, apart from what is tested.

use std::collections::BTreeMap;

use aws_lc_rs::digest as sha;
use md5::{Digest as _, Md5};
use reveille::sip::auth::Algorithm;
use reveille::sip::{HeaderName, Message};

use super::Pbx;
use crate::sip_text::{Answer, uri};

/// One that asks.
#[derive(Clone)]
pub struct Guard {
    pub proxy: bool,
    /// As it stands between the quotes.
    pub realm: Vec<u8>,
    /// Its challenge behind realm and nonce.
    pub rest: String,
    pub algorithm: Algorithm,
    pub session: bool,
    pub qop: Option<&'static str>,
    /// Further challenges beside its own.
    pub beside: Vec<String>,
    pub nonce_length: usize,
    /// Requests a nonce is good for; then it is stale.
    pub life: u32,
    /// Refuses whatever is shown to it.
    pub closed: bool,
    /// How often each of its nonces was used.
    nonces: BTreeMap<Vec<u8>, u32>,
}

/// All of them, in the order in which a request passes them.
#[derive(Default)]
pub struct Guards {
    pub list: Vec<Guard>,
    /// One response holds the challenges of all that are not content.
    pub together: bool,
    /// The fields with credentials of each request.
    pub shown: Vec<Vec<(bool, Vec<u8>)>>,
    /// How often each realm asked.
    pub asked: BTreeMap<Vec<u8>, u32>,
}

impl Guard {
    pub fn new(proxy: bool, realm: impl Into<Vec<u8>>) -> Self {
        Self {
            proxy,
            realm: realm.into(),
            rest: ",qop=\"auth\"".to_owned(),
            algorithm: Algorithm::Md5,
            session: false,
            qop: Some("auth"),
            beside: Vec::new(),
            nonce_length: 8,
            life: u32::MAX,
            closed: false,
            nonces: BTreeMap::new(),
        }
    }

    pub fn signed(mut self, algorithm: Algorithm, session: bool, qop: Option<&'static str>) -> Self {
        (self.algorithm, self.session, self.qop) = (algorithm, session, qop);
        self
    }

    pub fn saying(mut self, rest: &str) -> Self {
        self.rest = rest.to_owned();
        self
    }

    pub fn beside(mut self, challenge: &str) -> Self {
        self.beside.push(challenge.to_owned());
        self
    }

    /// `Err(stale)`: it asks.
    fn check(
        &mut self,
        shown: &[(bool, Vec<u8>)],
        request: &Message,
        passwords: &BTreeMap<String, String>,
    ) -> Result<(), bool> {
        let realm = [b"realm=\"".as_slice(), &self.realm, b"\""].concat();
        let ours = |(proxy, value): &&(bool, Vec<u8>)| {
            *proxy == self.proxy && value.windows(realm.len()).any(|window| window == realm)
        };
        let mine: Vec<_> = shown.iter().filter(ours).collect();
        assert!(mine.len() <= 1, "one answer for a realm");
        let (_, value) = mine.first().ok_or(false)?;
        let named = |name: &str| parameter(value, name).unwrap_or_default();
        let user = String::from_utf8(named("username")).expect("a user");
        let password = passwords.get(&user).ok_or(false)?;
        assert_eq!(named("uri"), uri(request).as_bytes(), "digest uri and Request-URI differ");
        let used = self.nonces.get(&named("nonce")).copied().ok_or(false)?;
        if self.closed || named("response") != self.expected(value, request, &user, password).into_bytes() {
            return Err(false);
        }
        let count = u32::from_str_radix(&String::from_utf8_lossy(&named("nc")), 16).unwrap_or(used + 1);
        if count != used + 1 || count > self.life {
            return Err(true);
        }
        self.nonces.insert(named("nonce"), count);
        Ok(())
    }

    fn expected(&self, value: &[u8], request: &Message, user: &str, password: &str) -> String {
        let named = |name: &str| parameter(value, name).unwrap_or_default();
        let hash = |parts: &[&[u8]]| hash(self.algorithm, &parts.join(&b':'));
        let mut key = hash(&[user.as_bytes(), &self.realm, password.as_bytes()]);
        if self.session {
            key = hash(&[key.as_bytes(), &named("nonce"), &named("cnonce")]);
        }
        let method = request.method().expect("a request").as_str().to_owned();
        let body = hash(&[b""]);
        let target = uri(request);
        let mut act = vec![method.as_bytes(), target.as_bytes()];
        if self.qop == Some("auth-int") {
            act.push(body.as_bytes());
        }
        let act = hash(&act);
        assert_eq!(named("qop"), self.qop.unwrap_or_default().as_bytes(), "{}", String::from_utf8_lossy(value));
        match self.qop {
            None => hash(&[key.as_bytes(), &named("nonce"), act.as_bytes()]),
            Some(qop) => {
                hash(&[key.as_bytes(), &named("nonce"), &named("nc"), &named("cnonce"), qop.as_bytes(), act.as_bytes()])
            }
        }
    }

    fn challenges(&mut self, number: u64, stale: bool) -> Vec<Vec<u8>> {
        let nonce = format!("{number:0>width$}", width = self.nonce_length).into_bytes();
        let stale: &[u8] = if stale { b",stale=true" } else { b"" };
        let parts: [&[u8]; 7] =
            [b"Digest realm=\"", &self.realm, b"\",nonce=\"", &nonce, b"\"", self.rest.as_bytes(), stale];
        let own = parts.concat();
        self.nonces.insert(nonce, 0);
        std::iter::once(own).chain(self.beside.iter().map(|other| other.clone().into_bytes())).collect()
    }
}

impl Pbx {
    /// A guard that is not content asks; `None`: all are.
    pub(super) fn guard(&mut self, request: &Message) -> Option<Answer<'static>> {
        let of = |name, proxy| request.values(name).map(move |value| (proxy, value.to_vec()));
        let shown: Vec<_> =
            of(HeaderName::ProxyAuthorization, true).chain(of(HeaderName::Authorization, false)).collect();
        let mut extra: Vec<(&str, Vec<u8>)> = Vec::new();
        let mut code = 401;
        let mut guards = std::mem::take(&mut self.registrar.guards);
        for guard in &mut guards.list {
            let Err(stale) = guard.check(&shown, request, &self.passwords) else { continue };
            if extra.is_empty() && guard.proxy {
                code = 407;
            }
            *guards.asked.entry(guard.realm.clone()).or_default() += 1;
            let name = if guard.proxy { "Proxy-Authenticate" } else { "WWW-Authenticate" };
            let number = self.mint();
            extra.extend(guard.challenges(number, stale).into_iter().map(|value| (name, value)));
            if !guards.together {
                break;
            }
        }
        guards.shown.push(shown);
        self.registrar.guards = guards;
        (!extra.is_empty()).then(|| Answer { raw: extra, ..Answer::plain(code) })
    }
}

/// A parameter of credentials that hold no escapes.
fn parameter(value: &[u8], name: &str) -> Option<Vec<u8>> {
    let begins = |lead: &[u8]| value.windows(lead.len()).position(|window| window == lead).map(|at| at + lead.len());
    if let Some(at) = begins(format!(" {name}=\"").as_bytes()) {
        return value[at..].split(|byte| *byte == b'"').next().map(<[u8]>::to_vec);
    }
    let at = begins(format!(" {name}=").as_bytes())?;
    value[at..].split(|byte| *byte == b',').next().map(<[u8]>::to_vec)
}

fn hash(algorithm: Algorithm, bytes: &[u8]) -> String {
    let digest = match algorithm {
        Algorithm::Md5 => Md5::digest(bytes).to_vec(),
        Algorithm::Sha256 => sha::digest(&sha::SHA256, bytes).as_ref().to_vec(),
        Algorithm::Sha512256 => sha::digest(&sha::SHA512_256, bytes).as_ref().to_vec(),
    };
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
