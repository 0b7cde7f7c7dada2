//! SIP messages as the peers saw them.
//!
//! SIPp, PJSIP, baresip and linphone all write each message byte for byte into a log, between lines of their own. So one
//! reader serves them all, and it sees bodies exactly as they were on the wire, inside TLS too. Direction is not read:
//! who asked and who answered follows from the part the peer plays.

use std::fs;
use std::path::{Path, PathBuf};

use crate::process::until;

/// The log of one peer, or the part of it that belongs to one call.
#[derive(Clone)]
pub(crate) struct Trace {
    peer: String,
    file: PathBuf,
    call_id: Option<String>,
}

/// One message in a log.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    start: String,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Trace {
    pub(crate) fn new(peer: &str, file: &Path) -> Self {
        Self { peer: peer.to_owned(), file: file.to_owned(), call_id: None }
    }

    /// The same log, but only messages with this Call-ID.
    pub(crate) fn of_call(&self, call_id: &str) -> Self {
        Self { call_id: Some(call_id.to_owned()), ..self.clone() }
    }

    /// All messages so far, in order; retransmissions included.
    pub(crate) fn messages(&self) -> Vec<Message> {
        let mut messages = parse(&fs::read(&self.file).unwrap_or_default());
        messages.retain(|message| self.call_id.is_none() || message.header("Call-ID") == self.call_id.as_deref());
        messages
    }

    /// Whether the log says something, in whatever line.
    pub(crate) fn mentions(&self, words: &str) -> bool {
        String::from_utf8_lossy(&fs::read(&self.file).unwrap_or_default()).contains(words)
    }

    /// Requests of one method so far.
    pub(crate) fn requests(&self, method: &str) -> Vec<Message> {
        self.messages().into_iter().filter(|message| message.is_request(method)).collect()
    }

    /// Requests of one method so far, in order, each once however often it was sent.
    pub(crate) fn distinct(&self, method: &str) -> Vec<Message> {
        let mut distinct: Vec<Message> = Vec::new();
        for request in self.requests(method) {
            let key =
                |message: &Message| ["Call-ID", "From", "CSeq"].map(|name| message.header(name).map(str::to_owned));
            if distinct.iter().all(|known| key(known) != key(&request)) {
                distinct.push(request);
            }
        }
        distinct
    }

    /// Waits for the `nth` request (from 1) of a method, retransmissions not counted.
    #[track_caller]
    pub(crate) fn nth(&self, method: &str, nth: usize) -> Message {
        let what = format!("{method} number {nth} in the trace of {}", self.peer);
        until(&what, || self.distinct(method).into_iter().nth(nth - 1))
    }

    /// Waits for the answer to a request: a final response with its CSeq.
    #[track_caller]
    pub(crate) fn answer_to(&self, request: &Message) -> Message {
        let what = format!("an answer to {} in the trace of {}", request.start, self.peer);
        until(&what, || {
            self.messages().into_iter().find(|message| {
                let same = ["Call-ID", "CSeq"].iter().all(|name| message.header(name) == request.header(name));
                same && tag(message, "From") == tag(request, "From") && message.status().is_some_and(|code| code >= 200)
            })
        })
    }

    /// Waits for a request.
    #[track_caller]
    pub(crate) fn request(&self, method: &str) -> Message {
        until(&format!("{method} in the trace of {}", self.peer), || self.requests(method).pop())
    }

    /// Waits for a response with this status to this method.
    #[track_caller]
    pub(crate) fn response(&self, status: u16, method: &str) -> Message {
        until(&format!("{status} to {method} in the trace of {}", self.peer), || {
            self.messages().into_iter().find(|message| message.is_response(status, method))
        })
    }
}

impl Message {
    pub(crate) fn is_request(&self, method: &str) -> bool {
        self.start.split(' ').next() == Some(method)
    }

    pub(crate) fn is_response(&self, status: u16, method: &str) -> bool {
        self.start.starts_with(&format!("SIP/2.0 {status} "))
            && self.header("CSeq").is_some_and(|cseq| cseq.ends_with(&format!(" {method}")))
    }

    /// The status of a response.
    pub(crate) fn status(&self) -> Option<u16> {
        self.start.strip_prefix("SIP/2.0 ")?.split(' ').next()?.parse().ok()
    }

    /// Every header of this name, long form, in order.
    pub(crate) fn headers(&self, name: &str) -> Vec<&str> {
        let of_name = self.headers.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
        of_name.map(|(_, value)| value.as_str()).collect()
    }

    /// How many elements have put themselves into the message: its sender and each proxy.
    pub(crate) fn via_count(&self) -> usize {
        self.headers("Via").iter().map(|value| value.split(',').count()).sum()
    }

    /// The first header of this name, long form.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// The tag of From or To.
pub(crate) fn tag(message: &Message, name: &str) -> Option<String> {
    let (_, tag) = message.header(name)?.split_once(";tag=")?;
    Some(tag.split(';').next().unwrap_or(tag).to_owned())
}

/// Asserts that offer and answer of a call arrived byte for byte as they were sent.
#[track_caller]
pub(crate) fn assert_same_sdp(caller: &Trace, phone: &Trace) {
    let text = |message: &Message| String::from_utf8_lossy(&message.body).into_owned();
    let offer = text(&caller.request("INVITE"));
    let answer = text(&phone.response(200, "INVITE"));
    assert!(!offer.is_empty() && !answer.is_empty());
    assert_eq!(text(&phone.request("INVITE")), offer, "the offer was changed on its way");
    assert_eq!(text(&caller.response(200, "INVITE")), answer, "the answer was changed on its way");
}

fn parse(log: &[u8]) -> Vec<Message> {
    let mut messages = Vec::new();
    let mut rest = log;
    while let Some((line, after)) = line_of(rest) {
        rest = after;
        if !is_start_line(&line) {
            continue;
        }
        // A message that is only half in the log yet will be whole at the next look.
        let Some((message, after)) = message_after(line, rest) else { break };
        messages.push(message);
        rest = after;
    }
    messages
}

fn message_after(start: String, mut rest: &[u8]) -> Option<(Message, &[u8])> {
    let mut headers = Vec::new();
    loop {
        let (line, after) = line_of(rest)?;
        rest = after;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':')?;
        headers.push((name.trim().to_owned(), value.trim().to_owned()));
    }
    let mut message = Message { start, headers, body: Vec::new() };
    let length = message.header("Content-Length").and_then(|value| value.parse().ok()).unwrap_or(0);
    message.body = rest.get(..length)?.to_vec();
    Some((message, &rest[length..]))
}

/// The next complete line without its end, and what follows.
fn line_of(log: &[u8]) -> Option<(String, &[u8])> {
    let end = log.iter().position(|&byte| byte == b'\n')?;
    let line = String::from_utf8_lossy(&log[..end]);
    Some((line.trim_end_matches('\r').to_owned(), &log[end + 1..]))
}

fn is_start_line(line: &str) -> bool {
    if line.starts_with("SIP/2.0 ") {
        return true;
    }
    let mut words = line.split(' ');
    let method = words.next().is_some_and(|word| !word.is_empty() && word.bytes().all(|b| b.is_ascii_uppercase()));
    method && words.next().is_some_and(|word| word.starts_with("sip")) && words.next() == Some("SIP/2.0")
}

#[test]
fn a_message_is_found_between_log_lines_and_its_body_is_exact() {
    let log =
        b"12:00 RX 99 bytes\nINVITE sip:a@b SIP/2.0\r\nCSeq: 1 INVITE\r\nContent-Length: 5\r\n\r\nv=0\r\n--end msg--\n\
        SIP/2.0 200 OK\r\nCSeq: 1 INVITE\r\nContent-Length: 9\r\n\r\nhalf";

    let messages = parse(log);

    assert_eq!(messages.len(), 1, "the answer is not complete yet");
    assert!(messages[0].is_request("INVITE"));
    assert_eq!(messages[0].body, b"v=0\r\n");
}
