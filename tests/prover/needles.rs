//! What is searched for: every window of eight bytes of every form of every secret, in one index.
//!
//! Whole secrets would be the wrong needles: an allocator that takes memory back writes its links over the first bytes and
//! leaves the rest, and a search for the whole finds nothing there.
//!
//! A window is found, then extended for as long as memory goes on as the form does. It is a hit when what was found in one
//! piece tells six bytes of the secret. For the secret itself and for base64 that is any window at all; eight
//! hexadecimal digits alone are four bytes' worth, which one page in a million holds by chance.

use crate::secrets::{Kind, Secret};
use crate::text::{Case, JsonStyle, Text, WINDOW};

/// Bits of the filter before the index, as a power of two: with the million windows of a run it passes one foreign window in
/// some fifty.
const FILTER_BITS: u32 = 24;

/// All secrets of a run.
pub(crate) struct Needles {
    forms: Vec<Form>,
    /// By window.
    index: Vec<(u64, Place)>,
    /// A Bloom filter of two bits a window.
    filter: Vec<u64>,
    longest: usize,
}

struct Form {
    secret: usize,
    kind: Kind,
    name: String,
    text: Text,
}

/// Where a window stands.
#[derive(Clone, Copy)]
struct Place {
    form: u32,
    offset: u32,
}

/// A piece of a secret.
#[derive(Clone)]
pub(crate) struct Piece {
    /// Whose.
    pub(crate) secret: usize,
    pub(crate) kind: Kind,
    /// In which form.
    pub(crate) form: String,
    /// Where in the bytes that were searched.
    pub(crate) position: usize,
    pub(crate) length: usize,
}

impl Piece {
    /// How many windows lie in it.
    pub(crate) fn windows(&self) -> usize {
        self.length - (WINDOW - 1)
    }
}

impl Needles {
    pub(crate) fn new(secrets: &[Secret]) -> Self {
        let mut forms = Vec::new();
        for (number, secret) in secrets.iter().enumerate() {
            for (kind, name, text) in secret.roots() {
                let mut known: Vec<Vec<u8>> = Vec::new();
                for (form, text) in spellings(kind, &text) {
                    if !known.contains(&text.bytes) {
                        known.push(text.bytes.clone());
                        forms.push(Form { secret: number, kind, name: format!("{name} {form}"), text });
                    }
                }
            }
        }
        let mut needles = Self { forms, index: Vec::new(), filter: vec![0; 1 << (FILTER_BITS - 6)], longest: 0 };
        needles.fill();
        needles
    }

    fn fill(&mut self) {
        for (number, form) in self.forms.iter().enumerate() {
            self.longest = self.longest.max(form.text.bytes.len());
            for (offset, window) in form.text.bytes.windows(WINDOW).enumerate() {
                let window = word(window);
                self.index.push((window, Place { form: small(number), offset: small(offset) }));
                for bit in filter_bits(window) {
                    self.filter[bit / 64] |= 1 << (bit % 64);
                }
            }
        }
        self.index.sort_unstable_by_key(|(window, _)| *window);
    }

    /// How many different windows of these secrets are searched for.
    pub(crate) fn windows_of(&self, secrets: &[usize]) -> usize {
        let mut last = None;
        let theirs = self.index.iter().filter(|(_, place)| secrets.contains(&self.form(*place).secret));
        // Equal windows stand side by side and count once.
        theirs.filter(|(window, _)| last.replace(*window) != Some(*window)).count()
    }

    /// Bytes that two stretches searched one after the other must have in common, so that no piece is missed.
    pub(crate) fn overlap(&self) -> usize {
        self.longest
    }

    /// Every piece that begins in the first `begin` bytes of `bytes`.
    pub(crate) fn search(&self, bytes: &[u8], begin: usize, mut found: impl FnMut(Piece)) {
        let mut position = 0;
        let end = begin.min(bytes.len().saturating_sub(WINDOW - 1));
        while position < end {
            // Most of memory is zeros, and no form has eight of them.
            let window = word(&bytes[position..position + WINDOW]);
            if window == 0 {
                position += WINDOW;
                while position + WINDOW <= bytes.len() && word(&bytes[position..position + WINDOW]) == 0 {
                    position += WINDOW;
                }
                // A form may begin within the zeros' last word's end only after them; step back over what was skipped.
                position -= WINDOW - 1;
                continue;
            }
            match self.piece_at(bytes, position, window) {
                Some(piece) => {
                    position += piece.windows();
                    found(piece);
                }
                None => position += 1,
            }
        }
    }

    /// The longest piece that begins there.
    fn piece_at(&self, bytes: &[u8], position: usize, window: u64) -> Option<Piece> {
        if !filter_bits(window).into_iter().all(|bit| self.filter[bit / 64] & (1 << (bit % 64)) != 0) {
            return None;
        }
        let first = self.index.partition_point(|(other, _)| *other < window);
        let places = self.index[first..].iter().take_while(|(other, _)| *other == window).map(|(_, place)| *place);
        let pieces = places.map(|place| (place, self.length_at(bytes, position, place)));
        let (place, length) = pieces.max_by_key(|(_, length)| *length)?;
        let form = self.form(place);
        let offset = place.offset as usize;
        form.text.tells_enough(offset..offset + length).then(|| Piece {
            secret: form.secret,
            kind: form.kind,
            form: form.name.clone(),
            position,
            length,
        })
    }

    fn length_at(&self, bytes: &[u8], position: usize, place: Place) -> usize {
        let text = &self.form(place).text.bytes[place.offset as usize..];
        bytes[position..].iter().zip(text).take_while(|(a, b)| a == b).count()
    }

    fn form(&self, place: Place) -> &Form {
        &self.forms[place.form as usize]
    }

    /// Proves the search itself: each form of each secret, cut at both ends, at each of eight alignments, is found.
    ///
    /// # Errors
    ///
    /// Names the form that is not.
    pub(crate) fn prove(&self) -> anyhow::Result<usize> {
        let mut tried = 0;
        for (number, form) in self.forms.iter().enumerate() {
            let whole = form.text.bytes.len();
            // What an allocator's links leave, or as much as is still a hit.
            let cut = (0..=16.min(whole / 2)).rev().find(|cut| form.text.tells_enough(*cut..whole)).unwrap_or(0);
            let mut bytes = vec![0; number % 8];
            bytes.extend_from_slice(&form.text.bytes[cut..]);
            bytes.extend([0; 3]);
            let mut seen = false;
            self.search(&bytes, bytes.len(), |piece| seen |= piece.secret == form.secret && piece.kind == form.kind);
            anyhow::ensure!(seen, "the search does not find {}: it proves nothing", form.name);
            tried += 1;
        }
        Ok(tried)
    }
}

/// Every form of a secret: of a password or of an HA1 as it is.
fn spellings(kind: Kind, secret: &Text) -> Vec<(String, Text)> {
    let mut all = vec![("as it is".to_owned(), secret.clone())];
    all.extend(words(secret));
    match kind {
        Kind::Password => all.extend(encodings(secret)),
        Kind::Ha1 => {
            all.extend(encodings(secret));
            // HA1 is used as hexadecimal text, so this text is a secret with encodings of its own.
            for (case, name) in CASES {
                let text = secret.hex(case);
                all.extend(words(&text).into_iter().map(|(form, text)| (format!("in {name}, {form}"), text)));
                all.extend(encodings(&text).into_iter().map(|(form, text)| (format!("in {name}, {form}"), text)));
            }
        }
    }
    all.retain(|(_, text)| text.tells_enough(0..text.bytes.len()));
    all
}

fn words(secret: &Text) -> Vec<(String, Text)> {
    let named = |width, skip| (format!("in words of {width} from byte {skip}"), secret.words(width, skip));
    [4, 8].into_iter().flat_map(|width| (0..width).map(move |skip| named(width, skip))).collect()
}

const CASES: [(Case, &str); 2] = [(Case::Lower, "hex"), (Case::Upper, "upper-case hex")];

fn encodings(secret: &Text) -> Vec<(String, Text)> {
    let mut all = Vec::new();
    for (case, name) in CASES {
        all.push((format!("in {name}"), secret.hex(case)));
        all.push((format!("percent-encoded, {name}"), secret.percent(case, false)));
        all.push((format!("percent-encoded throughout, {name}"), secret.percent(case, true)));
    }
    for skip in 0..3 {
        all.push((format!("in base64, from byte {skip}"), secret.base64(skip, false)));
        all.push((format!("in URL-safe base64, from byte {skip}"), secret.base64(skip, true)));
    }
    let styles = [
        (JsonStyle::Minimal, "minimal"),
        (JsonStyle::Solidus, "with solidus"),
        (JsonStyle::Ascii, "ASCII"),
        (JsonStyle::Everything, "throughout"),
    ];
    for (style, name) in styles {
        all.extend(secret.json(style).map(|text| (format!("JSON-escaped, {name}"), text)));
    }
    all
}

fn word(window: &[u8]) -> u64 {
    u64::from_le_bytes(window.try_into().expect("a window has eight bytes"))
}

fn filter_bits(window: u64) -> [usize; 2] {
    // Fibonacci hashing: the upper bits depend on all bits of the window.
    let mixed = window.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let bits = |mixed: u64| usize::try_from(mixed >> (64 - FILTER_BITS)).expect("a few bits");
    [bits(mixed), bits(mixed << FILTER_BITS)]
}

fn small(number: usize) -> u32 {
    u32::try_from(number).expect("fewer forms than that fit into memory")
}
