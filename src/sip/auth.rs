//! SKELETON. Challenges and credentials as header values (RFC 3261 §22, RFC 8760, RFC 7616).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm { Md5, Sha256, Sha512256 }   // ordered weakest first
impl Algorithm { pub fn as_str(self) -> &'static str { todo!() } pub fn parse(_t: &str) -> Option<Self> { todo!() } }
/// A Digest challenge; other schemes are skipped by the parser. `algorithm` None: one we refuse (-sess, unknown).
#[derive(Clone, Debug)]
pub struct Challenge<'a> { pub proxy: bool, pub realm: std::borrow::Cow<'a, str>, pub nonce: std::borrow::Cow<'a, str>, pub opaque: Option<std::borrow::Cow<'a, str>>,
    pub algorithm: Option<Algorithm>, pub qop: Qop, pub stale: bool }
/// What the qop list allows us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qop { /// no qop parameter (RFC 2069 form)
    None, /// the list has `auth`
    Auth, /// the list has only things we refuse (auth-int)
    Unsupported }
/// A Digest Authorization.
#[derive(Clone, Debug)]
pub struct Credentials<'a> { pub username: std::borrow::Cow<'a, str>, pub realm: std::borrow::Cow<'a, str>, pub nonce: std::borrow::Cow<'a, str>, pub uri: std::borrow::Cow<'a, str>,
    pub response: &'a str, pub algorithm: Option<Algorithm>, pub qop_auth: bool, pub cnonce: Option<std::borrow::Cow<'a, str>>, pub nc: Option<u32> }
