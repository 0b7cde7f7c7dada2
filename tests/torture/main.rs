//! The torture corpus: what RFC 4475 and RFC 5118 say about each of their messages, what another parser (`sipx-sip`) says
//! about the same bytes and about generated ones, and which valid messages the crate `rsip` still refuses.

mod corpus;
mod oracle;
mod rsip_page;
mod verdicts;
