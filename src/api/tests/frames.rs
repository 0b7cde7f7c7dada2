//! The frames of HTTP/2 (RFC 9113 §4, §6) that a client of our own making sends, and what it looks for in those it gets.
//! It answers nothing by itself: neither settings nor pings. The erasure prover uses it too.

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// The head of a frame and its payload.
type Frame<'a> = (u8, u8, u32, &'a [u8]);

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A string without Huffman coding (RFC 7541 §5.2).
fn text(text: &str) -> Vec<u8> {
    [&[u8::try_from(text.len()).expect("short")], text.as_bytes()].concat()
}

/// Indexed `method` and `https`, then fields that name themselves by the static table (RFC 7541 §6.1, §6.2.2).
fn head(method: u8, path: &str, bearer: &str) -> Vec<u8> {
    let bearer = text(&format!("Bearer {bearer}"));
    [&[method, 0x87, 0x01], &text("localhost")[..], &[0x04], &text(path), &[0x0f, 0x08], &bearer].concat()
}

/// A whole GET.
pub(super) fn get(stream: u32, path: &str, bearer: &str) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &head(0x82, path, bearer))
}

/// The head of a hand-over.
pub(super) fn hand_over(stream: u32, bearer: &str) -> Vec<u8> {
    let json = [&[0x0f, 0x10], &text("application/json")[..]].concat();
    frame(HEADERS, END_HEADERS, stream, &[head(0x83, "/v1/instances", bearer), json].concat())
}

/// The rest of a body.
pub(super) fn last_data(stream: u32, body: &str) -> Vec<u8> {
    frame(DATA, END_STREAM, stream, body.as_bytes())
}

pub(super) fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &8u32.to_be_bytes())
}

/// The error code of the GOAWAY in what a server sent.
pub(super) fn goaway(bytes: &[u8]) -> Option<u32> {
    let payload = frames(bytes).find(|(kind, ..)| *kind == GOAWAY)?.3;
    Some(u32::from_be_bytes(payload.get(4..8)?.try_into().ok()?))
}

/// Whether what a server sent has the whole answer of a stream in it.
pub(super) fn is_answered(bytes: &[u8], stream: u32) -> bool {
    frames(bytes).any(|(kind, flags, of, _)| matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 && of == stream)
}

/// What a server sent as the body of a stream's answer.
pub(super) fn body(bytes: &[u8], stream: u32) -> Vec<u8> {
    frames(bytes).filter(|(kind, _, of, _)| *kind == DATA && *of == stream).flat_map(|frame| frame.3.to_vec()).collect()
}

/// The whole frames of what a server sent.
fn frames(mut bytes: &[u8]) -> impl Iterator<Item = Frame<'_>> {
    std::iter::from_fn(move || {
        let (head, rest) = bytes.split_at_checked(9)?;
        let length = usize::from(head[1]) << 8 | usize::from(head[2]);
        let (payload, next) = rest.split_at_checked(length)?;
        bytes = next;
        Some((head[3], head[4], u32::from_be_bytes(head[5..9].try_into().ok()?), payload))
    })
}
