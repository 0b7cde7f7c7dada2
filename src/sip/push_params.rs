//! SKELETON. pn-provider, pn-param, pn-prid, pn-purr (RFC 8599 §4, §14) of a Contact URI, tolerated as header parameters.
use super::address::Address;
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PushParams<'a> { pub provider: &'a str, pub param: Option<&'a str>, pub prid: Option<&'a str> }
pub fn push_params<'a>(_contact: &Address<'a>) -> Option<PushParams<'a>> { todo!() }
