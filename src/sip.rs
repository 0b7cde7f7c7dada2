//! SIP as the RFCs have it. Knows nothing of this product; no IO, no clock, no secrets of its own.

pub mod address;
pub mod answering;
pub mod auth;
pub mod digest;
pub mod encode;
pub mod framing;
pub(crate) mod grammar;
pub mod instant;
pub mod locate;
pub mod mailbox;
pub mod message;
pub mod outbound;
pub mod proxy;
pub mod push_params;
pub mod registration;
pub mod rewrite;
pub mod timers;
pub mod transaction;
pub mod uri;
pub mod via;

pub use message::{CSeq, FieldError, Header, HeaderName, Message, Method, ParseError, Reason, StatusCode};
pub use via::Transport;
