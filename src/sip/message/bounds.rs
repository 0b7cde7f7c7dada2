//! How large a message may be, by its sender.
//!
//! Its own room because framing, parsing and the network side have to mean the same. It refuses to know which sender is which.

/// Longest message of a sender that needs no more (bytes).
pub const MESSAGE_MAX: usize = 16 * 1024;
/// Most header fields in it.
pub const HEADERS_MAX: usize = 64;
/// Longest message there is (bytes): "Implementations MUST be able to handle messages up to the maximum datagram packet size.
/// For UDP, this size is 65,535 bytes, including IP and UDP headers" (RFC 3261 §18.1.1).
pub const LONG_MESSAGE_MAX: usize = 65_535;
/// Most header fields in it.
pub const LONG_HEADERS_MAX: usize = 256;
/// Header fields a proxy may add to a message, Via and Record-Route among them.
const ADDED_MAX: usize = 32;

/// What a message may take; above it, it is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of the whole message.
    pub bytes: usize,
    /// Header fields, each line of a list counted once.
    pub fields: usize,
}

impl Bounds {
    /// For senders that need no more.
    pub const SHORT: Self = Self { bytes: MESSAGE_MAX, fields: HEADERS_MAX };
    /// For senders that pass on what others wrote.
    pub const LONG: Self = Self { bytes: LONG_MESSAGE_MAX, fields: LONG_HEADERS_MAX };
    /// The widest there are: what came within `LONG`, with what a proxy adds to it.
    pub const WIDEST: Self = Self { fields: LONG_HEADERS_MAX + ADDED_MAX, ..Self::LONG };
}
