//! SKELETON. name-addr / addr-spec with header parameters: From, To, Contact, Route, Record-Route.
use super::uri::Uri;
#[derive(Clone, Copy, Debug)]
pub struct Address<'a> { raw: &'a [u8] }
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed address")]
pub struct AddressError;
impl<'a> Address<'a> {
    pub fn parse(_raw: &'a [u8]) -> Result<Self, AddressError> { todo!() }
    /// Without angle brackets, a `;` starts a *header* parameter (RFC 3261 §20).
    pub fn uri(&self) -> Uri<'a> { todo!() }
    /// Display name with quotes and escapes undone; lossy where it is not UTF-8.
    pub fn display(&self) -> Option<String> { todo!() }
    /// Header parameter; quotes of a quoted value are kept off.
    pub fn param(&self, _name: &str) -> Option<Option<&'a str>> { todo!() }
    pub fn tag(&self) -> Option<&'a str> { self.param("tag").flatten() }
    pub fn raw(&self) -> &'a [u8] { self.raw }
}
