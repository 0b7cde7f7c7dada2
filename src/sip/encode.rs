//! Writing messages.
//!
//! Appends to a buffer the caller owns, so the steady path allocates nothing. Whatever comes in, what goes out is one
//! message: line ends inside a value are replaced, so that nobody injects a header field through a display name. It does
//! not check that the message makes sense.

use std::fmt::{self, Display, Write as _};

use super::grammar;
use super::message::{Header, HeaderName, Method, StatusCode};

/// Appends one message to a buffer; `finish` must be called.
#[must_use = "a message without its empty line is no message"]
pub struct Encoder<'b> {
    out: &'b mut Vec<u8>,
}

impl<'b> Encoder<'b> {
    /// Begins a request. Bytes of `uri` that would end the start line are escaped.
    pub fn request(out: &'b mut Vec<u8>, method: Method<'_>, uri: &[u8]) -> Self {
        out.extend_from_slice(method.as_str().as_bytes());
        out.push(b' ');
        for &byte in uri {
            match byte {
                0..=b' ' | 0x7f => {
                    out.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]])
                }
                _ => out.push(byte),
            }
        }
        out.extend_from_slice(b" SIP/2.0\r\n");
        Self { out }
    }

    /// Begins a response.
    pub fn response(out: &'b mut Vec<u8>, code: StatusCode, reason: &[u8]) -> Self {
        out.extend_from_slice(b"SIP/2.0 ");
        push_display(out, code.code());
        out.push(b' ');
        push_line(out, reason);
        out.extend_from_slice(b"\r\n");
        Self { out }
    }

    /// `Name: value`; the value is Display (format_args! works). CR, LF and NUL inside a value are replaced by spaces: no
    /// header injection. `HeaderName::Other` has no name of its own, see `extension`.
    pub fn header(&mut self, name: HeaderName, value: impl Display) -> &mut Self {
        debug_assert!(name != HeaderName::Other, "an unnamed header field");
        self.extension(name.as_str(), value)
    }

    /// An extension header by its name; a name that is no token is left out with its value.
    pub fn extension(&mut self, name: &str, value: impl Display) -> &mut Self {
        debug_assert!(grammar::is_token(name.as_bytes()), "a header field name is a token");
        if grammar::is_token(name.as_bytes()) {
            self.name(name.as_bytes());
            push_display(self.out, value);
            self.out.extend_from_slice(b"\r\n");
        }
        self
    }

    /// Raw value bytes in any charset; CR and LF are replaced by spaces.
    pub fn raw(&mut self, name: HeaderName, value: &[u8]) -> &mut Self {
        debug_assert!(name != HeaderName::Other, "an unnamed header field");
        self.name(name.as_str().as_bytes());
        push_line(self.out, value);
        self.out.extend_from_slice(b"\r\n");
        self
    }

    /// Copies a field as it stands (name and value).
    pub fn copy(&mut self, header: Header<'_>) -> &mut Self {
        self.name(header.raw_name);
        push_line(self.out, header.value);
        self.out.extend_from_slice(b"\r\n");
        self
    }

    /// Content-Length, the empty line, the body.
    pub fn finish(self, body: &[u8]) {
        self.out.extend_from_slice(b"Content-Length: ");
        push_display(self.out, body.len());
        self.out.extend_from_slice(b"\r\n\r\n");
        self.out.extend_from_slice(body);
    }

    fn name(&mut self, name: &[u8]) {
        self.out.extend_from_slice(name);
        self.out.extend_from_slice(b": ");
    }
}

const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// Appends bytes that must not end the line.
fn push_line(out: &mut Vec<u8>, bytes: &[u8]) {
    let start = out.len();
    out.extend_from_slice(bytes);
    for byte in &mut out[start..] {
        if matches!(byte, b'\r' | b'\n') {
            *byte = b' ';
        }
    }
}

fn push_display(out: &mut Vec<u8>, value: impl Display) {
    // A Vec never refuses; a Display that fails has written what it could, and the line stays a line.
    let _ = write!(Line(out), "{value}");
}

struct Line<'v>(&'v mut Vec<u8>);

impl fmt::Write for Line<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let start = self.0.len();
        self.0.extend_from_slice(text.as_bytes());
        for byte in &mut self.0[start..] {
            if matches!(byte, b'\r' | b'\n' | 0) {
                *byte = b' ';
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
