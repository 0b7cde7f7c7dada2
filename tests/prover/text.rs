//! The forms in which a secret can lie in memory: how each is written, and how much of the secret each byte of it tells.

use std::ops::Range;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE};

/// Bytes of a window.
pub(crate) const WINDOW: usize = 8;

/// What one whole byte of the secret counts. Divisible by everything the encodings below divide it by.
const BYTE: u32 = 48;

/// Bytes of the secret that a piece must tell to count.
const TELLS_MIN: u32 = 6;

/// A secret, or a form of it.
#[derive(Clone)]
pub(crate) struct Text {
    pub(crate) bytes: Vec<u8>,
    /// For each of the bytes, what it tells of the secret, in parts of [`BYTE`].
    pub(crate) tells: Vec<u32>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Case {
    Lower,
    Upper,
}

impl Text {
    /// The secret itself.
    pub(crate) fn plain(bytes: &[u8]) -> Self {
        Self { bytes: bytes.to_vec(), tells: vec![BYTE; bytes.len()] }
    }

    /// Two hexadecimal digits a byte.
    pub(crate) fn hex(&self, case: Case) -> Self {
        self.each(|byte| digits(byte, case).to_vec())
    }

    /// Base64 as it looks when `skip` bytes of the secret belong to a group that begins before it: with 0, 1 and 2 these are
    /// all its alignments. Only whole groups, since the characters at the edges depend on what lies around.
    pub(crate) fn base64(&self, skip: usize, url_safe: bool) -> Self {
        let engine = if url_safe { &BASE64_URL_SAFE } else { &BASE64_STANDARD };
        let mut out = Self::empty();
        for (group, tells) in self.bytes[skip..].chunks_exact(3).zip(self.tells[skip..].chunks_exact(3)) {
            out.push(engine.encode(group).as_bytes(), tells.iter().sum());
        }
        out
    }

    /// Percent-encoding (RFC 3986 §2.1), of what must be, or of every byte.
    pub(crate) fn percent(&self, case: Case, every: bool) -> Self {
        self.each(|byte| {
            let unreserved = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
            if unreserved && !every {
                return vec![byte];
            }
            let [high, low] = digits(byte, case);
            vec![b'%', high, low]
        })
    }

    /// A JSON string's inside, as `style` writes it. A secret that is no text has no such form.
    pub(crate) fn json(&self, style: JsonStyle) -> Option<Self> {
        let text = std::str::from_utf8(&self.bytes).ok()?;
        let mut out = Self::empty();
        for (place, character) in text.char_indices() {
            let tells = self.tells[place..place + character.len_utf8()].iter().sum();
            out.push(json_character(character, style).as_bytes(), tells);
        }
        Some(out)
    }

    /// As a processor with little-endian words holds big-endian ones of `width` bytes: what SHA-2 does with its input and
    /// its output. `skip` bytes belong to a word that begins before the secret.
    pub(crate) fn words(&self, width: usize, skip: usize) -> Self {
        let mut out = Self::empty();
        for (word, tells) in self.bytes[skip..].chunks_exact(width).zip(self.tells[skip..].chunks_exact(width)) {
            out.bytes.extend(word.iter().rev());
            out.tells.extend(tells.iter().rev());
        }
        out
    }

    /// Whether a piece of it is a hit: a window at least, which tells enough.
    pub(crate) fn tells_enough(&self, piece: Range<usize>) -> bool {
        piece.len() >= WINDOW && self.tells[piece].iter().sum::<u32>() >= TELLS_MIN * BYTE
    }

    fn empty() -> Self {
        Self { bytes: Vec::new(), tells: Vec::new() }
    }

    fn each(&self, encode: impl Fn(u8) -> Vec<u8>) -> Self {
        let mut out = Self::empty();
        for (byte, tells) in self.bytes.iter().zip(&self.tells) {
            out.push(&encode(*byte), *tells);
        }
        out
    }

    /// Appends what stands for one unit that tells so much, shared evenly.
    fn push(&mut self, encoded: &[u8], tells: u32) {
        let share = tells / u32::try_from(encoded.len()).expect("an encoding of a few bytes");
        self.bytes.extend_from_slice(encoded);
        self.tells.resize(self.bytes.len(), share);
    }
}

/// How a JSON writer escapes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum JsonStyle {
    /// Only what must be (RFC 8259 §7); everything else as UTF-8.
    Minimal,
    /// That, and `\/`, as PHP writes.
    Solidus,
    /// Everything beyond ASCII as `\u…`, as Python writes.
    Ascii,
    /// Every character as `\u…`.
    Everything,
}

/// One character as it stands in a JSON string.
pub(crate) fn json_character(character: char, style: JsonStyle) -> String {
    let escape = |character: char| {
        let mut units = [0; 2];
        character.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")).collect()
    };
    match character {
        _ if style == JsonStyle::Everything => escape(character),
        '"' | '\\' => format!("\\{character}"),
        '/' if style == JsonStyle::Solidus => "\\/".to_owned(),
        _ if character.is_ascii_control() => escape(character),
        _ if !character.is_ascii() && style == JsonStyle::Ascii => escape(character),
        _ => character.to_string(),
    }
}

fn digits(byte: u8, case: Case) -> [u8; 2] {
    let alphabet = match case {
        Case::Lower => b"0123456789abcdef",
        Case::Upper => b"0123456789ABCDEF",
    };
    [alphabet[usize::from(byte >> 4)], alphabet[usize::from(byte & 15)]]
}
