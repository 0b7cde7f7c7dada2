//! Hex and base64 as they stand in the log and in receipts: one text for each value, so that a changed letter is a
//! changed value.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Lower-case hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

/// Bytes of lower-case hex; `None` for anything else.
pub(super) fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |letter: u8| match letter {
        b'0'..=b'9' => Some(letter - b'0'),
        b'a'..=b'f' => Some(letter - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

/// Base64 with padding (RFC 4648 §4).
pub(super) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Exactly `N` bytes of canonical base64.
pub(super) fn unbase64<const N: usize>(text: &str) -> Option<[u8; N]> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_has_one_text_for_each_value() {
        assert_eq!(hex(&[0x00, 0x9f, 0xa0]), "009fa0");
        assert_eq!(unhex("009fa0"), Some([0x00, 0x9f, 0xa0]));
        for text in ["009FA0", "009fa", "009fa00", "009fg0", ""] {
            assert_eq!(unhex::<3>(text), None, "{text}");
        }
    }

    #[test]
    fn base64_with_stray_bits_or_another_length_is_refused() {
        assert_eq!(unbase64(&base64(b"abcd")), Some(*b"abcd"));
        assert_eq!(unbase64::<4>("YWJjZB=="), None, "the last letter carries a bit that means nothing");
        assert_eq!(unbase64::<4>("YWJjZA"), None);
        assert_eq!(unbase64::<3>("YWJjZA=="), None);
    }
}
