//! SKELETON. Via (RFC 3261 §20.42, RFC 3581) and transports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport { Udp, Tcp, Tls, Ws, Wss }
impl Transport {
    /// `udp`, `tcp`, `tls`, `ws`, `wss` in any case.
    pub fn from_param(_name: &str) -> Option<Self> { todo!() }
    /// For `;transport=`: lower case.
    pub fn as_param(self) -> &'static str { todo!() }
    /// For Via: upper case.
    pub fn as_via(self) -> &'static str { todo!() }
    pub fn is_reliable(self) -> bool { !matches!(self, Self::Udp) }
    /// 5060, or 5061 for TLS (RFC 3261 §19.1.2); 80/443 for WebSocket.
    pub fn default_port(self) -> u16 { todo!() }
}
#[derive(Clone, Copy, Debug)]
pub struct Via<'a> { raw: &'a [u8] }
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed Via")]
pub struct ViaError;
impl<'a> Via<'a> {
    pub fn parse(_raw: &'a [u8]) -> Result<Self, ViaError> { todo!() }
    /// `None` for a transport we do not know.
    pub fn transport(&self) -> Option<Transport> { todo!() }
    pub fn sent_by(&self) -> &'a str { todo!() }
    pub fn sent_by_port(&self) -> Option<u16> { todo!() }
    pub fn branch(&self) -> Option<&'a str> { todo!() }
    /// `;rport` present (RFC 3581).
    pub fn wants_rport(&self) -> bool { todo!() }
    pub fn param(&self, _name: &str) -> Option<Option<&'a str>> { todo!() }
    pub fn raw(&self) -> &'a [u8] { self.raw }
}
