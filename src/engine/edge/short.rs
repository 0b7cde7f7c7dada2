//! Answers in as few bytes as need be: a source that has proven nothing gets no more than it sent, and small phones send little.

use bytes::Bytes;

use crate::sip::Message;
use crate::sip::proxy::{self, Reply};

/// How an answer is written, the longest form first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// As all others.
    Long,
    /// Header names in their compact forms (RFC 3261 §7.3.3), no space before a value.
    Compact,
    /// Besides without what a datagram can do without: the reason phrase (§25.1 allows an empty one) and Content-Length
    /// (§18.3: the body reaches to the end of the packet).
    Bare,
}

impl Form {
    pub(super) const ALL: [Self; 3] = [Self::Long, Self::Compact, Self::Bare];
}

/// Writes an answer of at most `most` bytes. `None`: it is longer, or there is no one to answer. What is not proven came by
/// datagram, so `Bare` never stands in a stream.
pub(super) fn write(request: &Message, reply: &Reply<'_>, form: Form, most: usize) -> Option<Bytes> {
    let mut out = Vec::with_capacity(512);
    proxy::write_reply(request, reply, &mut out).ok()?;
    if form != Form::Long {
        out = compacted(&out, form == Form::Bare);
    }
    (out.len() <= most).then(|| Bytes::from(out))
}

fn compacted(response: &[u8], bare: bool) -> Vec<u8> {
    const FORMS: [(&[u8], &[u8]); 9] = [
        (b"Via: ", b"v:"),
        (b"From: ", b"f:"),
        (b"To: ", b"t:"),
        (b"Call-ID: ", b"i:"),
        (b"CSeq: ", b"CSeq:"),
        (b"Content-Length: ", b"l:"),
        (b"Contact: ", b"m:"),
        (b"WWW-Authenticate: ", b"WWW-Authenticate:"),
        (b"Unsupported: ", b"Unsupported:"),
    ];
    let mut out = Vec::with_capacity(response.len());
    for (number, line) in response.split_inclusive(|&byte| byte == b'\n').enumerate() {
        if number == 0 && bare {
            // The version and the code, each with its space.
            out.extend_from_slice(line.get(..STATUS_BYTES).unwrap_or(line));
            out.extend_from_slice(b"\r\n");
            continue;
        }
        match FORMS.iter().find(|(long, _)| line.starts_with(long)) {
            Some((_, b"l:")) if bare => {}
            Some((long, short)) => {
                out.extend_from_slice(short);
                out.extend_from_slice(&line[long.len()..]);
            }
            None => out.extend_from_slice(line),
        }
    }
    out
}

/// `SIP/2.0 401 `.
const STATUS_BYTES: usize = 12;
