//! SKELETON. Writing messages.
use std::fmt::Display;
use super::message::{Header, HeaderName, Method, StatusCode};
/// Appends one message to a buffer; `finish` must be called.
pub struct Encoder<'b> { out: &'b mut Vec<u8> }
impl<'b> Encoder<'b> {
    pub fn request(out: &'b mut Vec<u8>, _method: Method<'_>, _uri: &[u8]) -> Self { let _ = &out; todo!() }
    pub fn response(out: &'b mut Vec<u8>, _code: StatusCode, _reason: &[u8]) -> Self { let _ = &out; todo!() }
    /// `Name: value`; the value is Display (format_args! works). CR, LF and NUL inside a value are replaced by spaces: no header injection.
    pub fn header(&mut self, _name: HeaderName, _value: impl Display) -> &mut Self { self }
    /// An extension header by its name.
    pub fn extension(&mut self, _name: &str, _value: impl Display) -> &mut Self { self }
    /// Raw value bytes.
    pub fn raw(&mut self, _name: HeaderName, _value: &[u8]) -> &mut Self { self }
    /// Copies a field as it stands (name and value).
    pub fn copy(&mut self, _header: Header<'_>) -> &mut Self { self }
    /// Content-Length, the empty line, the body.
    pub fn finish(self, _body: &[u8]) { let _ = self.out; }
}
