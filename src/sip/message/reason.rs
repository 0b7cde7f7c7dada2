//! Reason (RFC 3326).

use crate::sip::grammar::{self, Parameters};

/// Why a request was sent or a call ended, e.g. `SIP;cause=200;text="Call completed elsewhere"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reason<'a> {
    /// `SIP`, `Q.850` or another name, as written.
    pub protocol: &'a str,
    /// The code within that protocol.
    pub cause: Option<u16>,
    /// Words for people; escapes as they stand.
    pub text: Option<&'a str>,
}

impl<'a> Reason<'a> {
    /// Parses one value; `None` if it is malformed.
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let (protocol, rest) = grammar::token(grammar::trim(value))?;
        let params = Parameters::new(rest);
        if !params.are_well_formed() {
            return None;
        }
        let cause = params.find("cause").flatten().and_then(|digits| grammar::number(digits.as_bytes()));
        let cause = cause.and_then(|cause| u16::try_from(cause).ok());
        Some(Self { protocol, cause, text: params.find("text").flatten() })
    }
}
