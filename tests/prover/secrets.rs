//! The passwords that are handed over, and what becomes of them.

use aws_lc_rs::rand;
use reveille::sip::auth::Algorithm;
use reveille::sip::digest;

use crate::text::{JsonStyle, Text, json_character};

/// Bytes of a password.
const PASSWORD_BYTES: usize = 40;

/// The two kinds of secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Password,
    Ha1,
}

/// One account's secret.
pub(crate) struct Secret {
    pub(crate) user: String,
    pub(crate) password: String,
    /// H(A1) by name, for every realm and algorithm at which the account could be asked for it.
    ha1: Vec<(String, Vec<u8>)>,
}

impl Secret {
    /// A fresh password for a user, who may be asked for it so.
    pub(crate) fn fresh(user: &str, asked: &[(&str, &[Algorithm])]) -> Self {
        Self::known(user, random_password(), asked)
    }

    /// A password that exists already.
    pub(crate) fn known(user: &str, password: String, asked: &[(&str, &[Algorithm])]) -> Self {
        let mut ha1 = Vec::new();
        for (realm, algorithms) in asked {
            for algorithm in *algorithms {
                let text = digest::ha1(*algorithm, user, realm, password.as_bytes());
                ha1.push((format!("HA1 {} {realm}", algorithm.as_str()), bytes_of(&text)));
            }
        }
        Self { user: user.to_owned(), password, ha1 }
    }

    /// H(A1) in hexadecimal text.
    pub(crate) fn ha1_text(&self, algorithm: Algorithm, realm: &str) -> String {
        digest::ha1(algorithm, &self.user, realm, self.password.as_bytes()).to_string()
    }

    /// The password as a JSON string with its quotes.
    pub(crate) fn json(&self, style: JsonStyle) -> String {
        let inside: String = self.password.chars().map(|character| json_character(character, style)).collect();
        format!("\"{inside}\"")
    }

    /// What all needles are made of.
    pub(crate) fn roots(&self) -> Vec<(Kind, String, Text)> {
        let mut roots = vec![(Kind::Password, "password".to_owned(), Text::plain(self.password.as_bytes()))];
        roots.extend(self.ha1.iter().map(|(name, bytes)| (Kind::Ha1, name.clone(), Text::plain(bytes))));
        roots
    }
}

/// Random characters, as a careful user's password manager would make them at its most annoying: with all that JSON escapes
/// and with characters of two, three and four bytes.
fn random_password() -> String {
    let mut password = String::new();
    for first in ['"', '\\', '/'] {
        password.push(first);
        password.push(one_of('!'..='~'));
    }
    password.push(one_of('\u{a1}'..='\u{7ff}'));
    password.push(one_of('\u{4e00}'..='\u{9fff}'));
    password.push(one_of('\u{1f300}'..='\u{1f5ff}'));
    while password.len() < PASSWORD_BYTES {
        password.push(one_of('!'..='~'));
    }
    shuffled(&password)
}

fn one_of(range: std::ops::RangeInclusive<char>) -> char {
    let (first, last) = (u32::from(*range.start()), u32::from(*range.end()));
    loop {
        let number = first + random() % (last - first + 1);
        if let Some(character) = char::from_u32(number) {
            return character;
        }
    }
}

fn shuffled(text: &str) -> String {
    let mut characters: Vec<char> = text.chars().collect();
    for last in (1..characters.len()).rev() {
        let other = random() as usize % (last + 1);
        characters.swap(last, other);
    }
    characters.into_iter().collect()
}

fn random() -> u32 {
    let mut bytes = [0; 4];
    rand::fill(&mut bytes).expect("the system has randomness");
    u32::from_le_bytes(bytes)
}

fn bytes_of(hex: &str) -> Vec<u8> {
    let digit = |digit: u8| char::from(digit).to_digit(16).expect("an HA1 is hexadecimal");
    let byte = |pair: &[u8]| u8::try_from(digit(pair[0]) * 16 + digit(pair[1])).expect("two digits");
    hex.as_bytes().chunks_exact(2).map(byte).collect()
}
