//! Header field names.

/// Known names; compact forms are mapped; others are `Other` (compare `Header::raw_name`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each variant is the field of that name")]
pub enum HeaderName {
    Accept,
    Allow,
    AllowEvents,
    AuthenticationInfo,
    Authorization,
    CallId,
    Contact,
    ContentLength,
    ContentType,
    CSeq,
    Date,
    Event,
    Expires,
    From,
    MaxForwards,
    MinExpires,
    Path,
    ProxyAuthenticate,
    ProxyAuthorization,
    ProxyRequire,
    Reason,
    RecordRoute,
    ReferTo,
    Replaces,
    Require,
    RetryAfter,
    Route,
    RSeq,
    RAck,
    ServiceRoute,
    SessionExpires,
    SubscriptionState,
    Supported,
    To,
    Unsupported,
    Via,
    Warning,
    WwwAuthenticate,
    FlowTimer,
    SipEtag,
    /// Any other.
    Other,
}

impl HeaderName {
    /// How many there are, for tables with one place each.
    pub(super) const COUNT: usize = Self::Other as usize + 1;

    /// The name as written, long or compact, in any case.
    pub fn parse(name: &[u8]) -> Self {
        let mut lower = [0; LONGEST];
        let Some(lower) = lower.get_mut(..name.len()) else {
            return Self::Other;
        };
        lower.copy_from_slice(name);
        lower.make_ascii_lowercase();
        Self::from_lower_case(lower)
    }

    fn from_lower_case(name: &[u8]) -> Self {
        match name {
            b"accept" => Self::Accept,
            b"allow" => Self::Allow,
            b"allow-events" | b"u" => Self::AllowEvents,
            b"authentication-info" => Self::AuthenticationInfo,
            b"authorization" => Self::Authorization,
            b"call-id" | b"i" => Self::CallId,
            b"contact" | b"m" => Self::Contact,
            b"content-length" | b"l" => Self::ContentLength,
            b"content-type" | b"c" => Self::ContentType,
            b"cseq" => Self::CSeq,
            b"date" => Self::Date,
            b"event" | b"o" => Self::Event,
            b"expires" => Self::Expires,
            b"from" | b"f" => Self::From,
            b"max-forwards" => Self::MaxForwards,
            b"min-expires" => Self::MinExpires,
            b"path" => Self::Path,
            b"proxy-authenticate" => Self::ProxyAuthenticate,
            b"proxy-authorization" => Self::ProxyAuthorization,
            b"proxy-require" => Self::ProxyRequire,
            b"reason" => Self::Reason,
            b"record-route" => Self::RecordRoute,
            b"refer-to" | b"r" => Self::ReferTo,
            b"replaces" => Self::Replaces,
            b"require" => Self::Require,
            b"retry-after" => Self::RetryAfter,
            b"route" => Self::Route,
            b"rseq" => Self::RSeq,
            b"rack" => Self::RAck,
            b"service-route" => Self::ServiceRoute,
            b"session-expires" | b"x" => Self::SessionExpires,
            b"subscription-state" => Self::SubscriptionState,
            b"supported" | b"k" => Self::Supported,
            b"to" | b"t" => Self::To,
            b"unsupported" => Self::Unsupported,
            b"via" | b"v" => Self::Via,
            b"warning" => Self::Warning,
            b"www-authenticate" => Self::WwwAuthenticate,
            b"flow-timer" => Self::FlowTimer,
            b"sip-etag" => Self::SipEtag,
            _ => Self::Other,
        }
    }

    /// The canonical long name; empty for `Other`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accept => "Accept",
            Self::Allow => "Allow",
            Self::AllowEvents => "Allow-Events",
            Self::AuthenticationInfo => "Authentication-Info",
            Self::Authorization => "Authorization",
            Self::CallId => "Call-ID",
            Self::Contact => "Contact",
            Self::ContentLength => "Content-Length",
            Self::ContentType => "Content-Type",
            Self::CSeq => "CSeq",
            Self::Date => "Date",
            Self::Event => "Event",
            Self::Expires => "Expires",
            Self::From => "From",
            Self::MaxForwards => "Max-Forwards",
            Self::MinExpires => "Min-Expires",
            Self::Path => "Path",
            Self::ProxyAuthenticate => "Proxy-Authenticate",
            Self::ProxyAuthorization => "Proxy-Authorization",
            Self::ProxyRequire => "Proxy-Require",
            Self::Reason => "Reason",
            Self::RecordRoute => "Record-Route",
            Self::ReferTo => "Refer-To",
            Self::Replaces => "Replaces",
            Self::Require => "Require",
            Self::RetryAfter => "Retry-After",
            Self::Route => "Route",
            Self::RSeq => "RSeq",
            Self::RAck => "RAck",
            Self::ServiceRoute => "Service-Route",
            Self::SessionExpires => "Session-Expires",
            Self::SubscriptionState => "Subscription-State",
            Self::Supported => "Supported",
            Self::To => "To",
            Self::Unsupported => "Unsupported",
            Self::Via => "Via",
            Self::Warning => "Warning",
            Self::WwwAuthenticate => "WWW-Authenticate",
            Self::FlowTimer => "Flow-Timer",
            Self::SipEtag => "SIP-ETag",
            Self::Other => "",
        }
    }
}

/// The longest name in `from_lower_case`.
const LONGEST: usize = "authentication-info".len();
