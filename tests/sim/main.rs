//! The deterministic world: engines on several shards, a wire that loses, doubles and reorders, a PBX, phones, a push
//! service, a resolver and a clock that jumps to the next event. One seed decides everything.
//!
//! Both ends are real: what crosses the wire are SIP messages, and whatever an engine writes must parse. Peers complain
//! by panicking: a breach of the protocol fails the test that saw it.
#![allow(unreachable_pub, reason = "one binary: nothing is reached from outside")]
#![allow(
    clippy::panic,
    clippy::print_stderr,
    reason = "peers complain by panicking, and a failed world tells its story"
)]

mod attach_manners;
mod between_flows;
mod call;
mod call_attached;
mod call_ends;
mod call_fork;
mod call_hunted;
mod call_late;
mod call_offers;
mod call_races;
mod call_refused;
mod call_unwoken;
mod call_woken_again;
mod challenges;
mod changes;
mod contact_style;
mod dead_tokens;
mod disturbed;
mod erase;
mod expiry;
mod floods;
mod ha1;
mod hand_over;
mod hand_over_again;
mod in_dialog;
mod kept_registered;
mod lease_ends;
mod lost_answers;
mod mailbox;
mod manners;
mod matching;
mod missed_calls;
mod misuse;
mod modes;
mod moves;
mod moves_beside;
mod off_boarding;
mod pacing;
mod pacing_shared;
mod pass;
mod pass_walk;
mod pbx;
mod phone;
mod policy;
mod proof;
mod random_walk;
mod records;
mod refusals;
mod reinstall;
mod reminded;
mod restriction;
mod rewritten;
mod seeds;
mod share;
mod share_walk;
mod sip_text;
mod stories;
mod text_bounds;
mod texts;
mod told_caller;
mod too_many_devices;
mod traces;
mod transactions;
mod trunks;
mod wakes;
mod websocket;
mod wire;
mod world;
