//! With what a registrant proves who it is: which challenges its credentials answer, the header fields that do, and what of a
//! password is kept once the registrar has accepted it.
//!
//! Its own room because it is the only one between the vault and the digest. It refuses to count challenges: that is
//! `challenges`'.

use std::borrow::Cow;

use super::identity::Identity;
use crate::engine::challenges::{Admission, Challenges, Sessions};
use crate::engine::random::Random;
use crate::sip::answering::Asked;
use crate::sip::auth::{Algorithm, text_of, unescaped};
use crate::sip::digest::{self, Secret, Signed};
use crate::sip::{HeaderName, Message};
use crate::vault::{CredentialId, HA1S_MAX, Ha1Algorithm, Lent, Vault};

impl Identity {
    /// Puts HA1 in the place of the password: for the realms met (the AOR's domain where there was no challenge), for the
    /// algorithms answered and the stronger ones, so that a later downgrade cannot be answered.
    pub(crate) fn distill(&self, vault: &mut Vault) {
        self.distill_copy(&self.credential, &self.username, vault);
    }

    /// The same for another copy of the credentials, by what the registrar accepted last.
    pub(crate) fn distill_copy(&self, credential: &CredentialId, username: &str, vault: &mut Vault) {
        let met = self.met();
        let mut wanted: Vec<(&[u8], Ha1Algorithm)> = Vec::new();
        for (realm, weakest) in &met {
            let strong = ALGORITHMS.iter().filter(|(algorithm, _)| algorithm >= weakest);
            wanted.extend(strong.map(|(_, kept)| (*realm, *kept)));
        }
        if wanted.len() > HA1S_MAX {
            // What was answered is needed; the stronger ones only might be.
            wanted = met.iter().map(|(realm, answered)| (*realm, kept(*answered))).collect();
        }
        vault.distill(credential, &wanted, ha1_of(username));
        for (realm, answered) in met {
            vault.forget_weaker(credential, realm, kept(answered));
        }
    }

    /// Each realm that was answered, and the weakest algorithm it was answered with; the AOR's domain where none was.
    fn met(&self) -> Vec<(&[u8], Algorithm)> {
        let mut met: Vec<(&[u8], Algorithm)> = Vec::new();
        for session in self.sessions.iter() {
            match met.iter_mut().find(|(realm, _)| *realm == session.realm) {
                Some((_, weakest)) => *weakest = session.algorithm.min(*weakest),
                None => met.push((&session.realm, session.algorithm)),
            }
        }
        if met.is_empty() {
            let domain = self.aor.rsplit_once('@').map_or("", |(_, domain)| domain);
            met.push((domain.split(['>', ';', '?']).next().unwrap_or(domain).as_bytes(), Algorithm::Md5));
        }
        met
    }

    /// What a response asks for, as far as the credentials held can answer it.
    pub(crate) fn asked(&self, response: &Message, vault: &Vault) -> Asked {
        Asked::of(response, |realm, algorithm| self.label(vault, realm, algorithm).is_some())
    }

    /// The same, taken up for the requests to come.
    pub(super) fn admit(
        &mut self,
        response: &Message,
        challenges: &mut Challenges,
        refusals_max: u8,
        vault: &Vault,
    ) -> Admission {
        let asked = self.asked(response, vault);
        challenges.admit(asked, &mut self.sessions, refusals_max)
    }

    /// The fields that sign a REGISTER.
    pub(super) fn authorize(&mut self, vault: &Vault, random: &mut Random) -> Vec<(HeaderName, Vec<u8>)> {
        let mut sessions = std::mem::take(&mut self.sessions);
        let signed = self.sign(&mut sessions, Signed::bare("REGISTER", &self.request_uri), vault, random);
        self.sessions = sessions;
        signed
    }

    /// The fields that sign a request of ours to the registrar, one for each protection space on its way.
    pub(crate) fn sign(
        &self,
        sessions: &mut Sessions,
        signed: Signed<'_>,
        vault: &Vault,
        random: &mut Random,
    ) -> Vec<(HeaderName, Vec<u8>)> {
        let mut fields = Vec::new();
        for session in sessions.iter_mut() {
            let cnonce = random.text::<10>();
            let realm = session.realm.clone();
            let Some(label) = self.label(vault, &realm, session.algorithm) else { continue };
            let value = vault.lend(&self.credential, &label, kept(session.algorithm), |lent| {
                let secret = match lent {
                    Lent::Password(password) => Secret::Password(password),
                    Lent::Ha1(ha1) => Secret::Ha1(ha1),
                };
                session.authorize(&self.username, secret, signed, &cnonce)
            });
            fields.extend(value.map(|value| (session.header(), value)));
        }
        fields
    }

    /// Under which name the vault holds what answers for a realm: its bytes, or the text an app gave for them, without escapes
    /// and in UTF-8.
    fn label<'a>(&self, vault: &Vault, realm: &'a [u8], algorithm: Algorithm) -> Option<Cow<'a, [u8]>> {
        let holds = |realm: &[u8]| vault.answers(&self.credential, realm, kept(algorithm));
        if holds(realm) {
            return Some(Cow::Borrowed(realm));
        }
        let text = text_of(&unescaped(realm)).into_owned().into_bytes();
        holds(&text).then_some(Cow::Owned(text))
    }
}

/// Each algorithm in the words of `sip` and of the vault, weakest first.
const ALGORITHMS: [(Algorithm, Ha1Algorithm); 3] = [
    (Algorithm::Md5, Ha1Algorithm::Md5),
    (Algorithm::Sha256, Ha1Algorithm::Sha256),
    (Algorithm::Sha512256, Ha1Algorithm::Sha512256),
];

fn kept(algorithm: Algorithm) -> Ha1Algorithm {
    match algorithm {
        Algorithm::Md5 => Ha1Algorithm::Md5,
        Algorithm::Sha256 => Ha1Algorithm::Sha256,
        Algorithm::Sha512256 => Ha1Algorithm::Sha512256,
    }
}

/// HA1 of a password, for comparing credentials in the vault.
pub(crate) fn ha1_of(username: &str) -> impl Fn(&[u8], &[u8], Ha1Algorithm) -> zeroize::Zeroizing<String> {
    move |password, realm, algorithm| {
        let algorithm = match algorithm {
            Ha1Algorithm::Md5 => Algorithm::Md5,
            Ha1Algorithm::Sha256 => Algorithm::Sha256,
            Ha1Algorithm::Sha512256 => Algorithm::Sha512256,
        };
        digest::ha1(algorithm, username, realm, password)
    }
}
