//! Why a registration is not as it should be.

/// Why a registration fails or waits, or what is unusual about one that holds. The API, the log and the metrics name it alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RegistrationReason {
    /// The connection to the registrar is down, and is being opened again.
    Disconnected,
    /// No address of the registrar could be reached, or none answered.
    Unreachable,
    /// The registrar refused the credentials.
    Refused,
    /// The registrar refused for another cause than the credentials.
    Rejected,
    /// What the registrar asks for is not supported, so that no credentials would sign it.
    ChallengeUnsupported,
    /// The account's HA1 values, handed over or made of its password, are for other realms or algorithms than the registrar asks
    /// for.
    NoMatchingHa1,
    /// The registrar demands a longer expiry than is ever asked for.
    MinExpiresTooLong,
    /// The registrar grants so little that the registration cannot be refreshed in time.
    ExpiryTooShort,
    /// The registrar lists our Contact under another URI.
    ContactRewritten,
    /// The registrar granted the REGISTER without listing our Contact.
    ContactMissing,
    /// The next REGISTER waits for its turn at a registrar that others wait for, too.
    Pacing,
}

impl RegistrationReason {
    /// All reasons, in the order of their gauges.
    pub const ALL: [Self; 11] = [
        Self::Disconnected,
        Self::Unreachable,
        Self::Refused,
        Self::Rejected,
        Self::ChallengeUnsupported,
        Self::NoMatchingHa1,
        Self::MinExpiresTooLong,
        Self::ExpiryTooShort,
        Self::ContactRewritten,
        Self::ContactMissing,
        Self::Pacing,
    ];

    /// The name used in the API, the log and the metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disconnected => "disconnected",
            Self::Unreachable => "unreachable",
            Self::Refused => "refused",
            Self::Rejected => "rejected",
            Self::ChallengeUnsupported => "challenge-unsupported",
            Self::NoMatchingHa1 => "no-matching-ha1",
            Self::MinExpiresTooLong => "min-expires-too-long",
            Self::ExpiryTooShort => "expiry-too-short",
            Self::ContactRewritten => "contact-rewritten",
            Self::ContactMissing => "contact-missing",
            Self::Pacing => "pacing",
        }
    }
}
