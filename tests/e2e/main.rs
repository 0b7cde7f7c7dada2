//! The outside test: the real binary, two real PBXs, a real caller and real phones, on 127.0.0.1.
//!
//! Nothing in here knows how the daemon is made. It hands accounts over through HTTPS, lets SIPp call through the PBX,
//! starts a phone when (and only when) the push has arrived, and looks at what each peer saw. The peers come from
//! `scripts/peers`; one that is missing fails the test. What a peer writes stays in `target/e2e/TEST`.
//!
//! | file | what it is |
//! |---|---|
//! | `recipes` | each peer against Kamailio alone: when these fail, the daemon is not to blame |
//! | `calls`, `ends`, `inside`, `flows`, `registration` | what the daemon promises |
//! | `credentials`, `reinstalled` | registrars that want to know something else, apps that are installed anew |
//! | `asterisk` | the same with Asterisk as the PBX: the peer, what stands around it, and its tests |
//! | `fences` | what registrars do with a REGISTER that is older than the last one |
//! | `neighbours` | that what is sent to one account harms no other |
//! | `strangers`, `operators` | what those learn who may not ask, and those who may |
//! | `confined` | what the running daemon may do, and that it says what it may |
//! | `shared`, `texts`, `through`, `manners`, `stories` | the same of several devices, messages, RFC 8599, habits, stories |
//! | `audit` | keys that cannot be used, a full disk, rotation, how long an erasure takes |
//! | `sealed` | proof of push tokens, and callers that the device alone can read |
//! | `guide` | that the examples of docs/client-guide.md are what happens, and that its client works; so does one that is generated from docs/openapi.json |
//! | `canary`, `canaries` | that nothing told to the daemon is told by it: searched after every test, and tried on purpose |
//! | `setting`, `world`, `process`, `trace` | what most tests start with; directory, ports and certificates; children; SIP messages in their logs |
//! | `middlebox` | what lies between phone and daemon, and loses connections |
//! | `pbx` | what all know of a PBX |
//! | `kamailio`, `sipp`, `line`, `phones`, `push`, `daemon` | one peer each |

#![allow(
    clippy::disallowed_methods,
    clippy::panic,
    clippy::print_stderr,
    reason = "an outside test waits on the real clock for real processes, fails by panicking and says where to look"
)]

mod asterisk;
mod audit;
mod calls;
mod canaries;
mod canary;
mod confined;
mod credentials;
mod daemon;
mod ends;
mod fences;
mod flows;
mod guide;
mod http;
mod inside;
mod kamailio;
mod line;
mod manners;
mod middlebox;
mod neighbours;
mod operators;
mod pbx;
mod phones;
mod process;
mod push;
mod recipes;
mod registration;
mod reinstalled;
mod sealed;
mod setting;
mod shared;
mod sipp;
mod stories;
mod strangers;
mod texts;
mod through;
mod trace;
mod world;
