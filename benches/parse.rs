//! How long a 401 of 784 bytes and an INVITE of 1,090 bytes take, and how many allocations, here and in two crates.
//!
//! "cut" is bytes to message. "read" also looks at everything a proxy (INVITE) or a registering client (401) acts on. Both
//! begin with a copy of the received bytes, since a datagram is read into a buffer that is used again.
//!
//! `cargo bench --bench parse`

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use reveille::sip::uri::Uri;
use reveille::sip::{HeaderName, Message};
use rsip::prelude::{HeadersExt, ToTypedHeader};

const CHALLENGE: &[u8] = b"SIP/2.0 401 Unauthorized\r\n\
    Via: SIP/2.0/UDP 203.0.113.5:5060;branch=z9hG4bK0a1b2c3d4e5f60718293a4b5c6d7e8f9;rport=5060;received=203.0.113.5\r\n\
    From: <sip:alice@example.com>;tag=f3a9c1d27b604e58\r\n\
    To: <sip:alice@example.com>;tag=as5f1e2d3c\r\n\
    Call-ID: 7f3d2c1b0a998877665544332211ffee@203.0.113.5\r\n\
    CSeq: 102 REGISTER\r\n\
    Server: Example PBX 18.20.0 (build 202611210500)\r\n\
    Allow: INVITE, ACK, CANCEL, OPTIONS, BYE, REFER, SUBSCRIBE, NOTIFY, INFO, PUBLISH, MESSAGE\r\n\
    Supported: replaces, timer, path\r\n\
    WWW-Authenticate: Digest realm=\"example.com\",nonce=\"1700000000/c5a1b7e3f9d04826a7c3e1f5b9d20468\",\
    opaque=\"5ccc069c403ebaf9f0171e9517f40e41\",algorithm=SHA-256,qop=\"auth\"\r\n\
    WWW-Authenticate: Digest realm=\"example.com\",nonce=\"1700000000/c5a1b7e3f9d04826\",algorithm=MD5,qop=\"auth\"\r\n\
    Content-Length: 0\r\n\r\n";

const INVITE: &[u8] = b"INVITE sip:k3v9x2m7q1w8e5r4t6y0u3i9o2@203.0.113.5:5060;transport=udp SIP/2.0\r\n\
    Via: SIP/2.0/UDP 198.51.100.7:5060;branch=z9hG4bKd3e4.7c1f9a2b8e0d4c6f;rport\r\n\
    Via: SIP/2.0/UDP 198.51.100.20:5070;received=198.51.100.20;branch=z9hG4bK-524287-1---9f8e7d6c5b4a\r\n\
    Record-Route: <sip:198.51.100.7;lr;ftag=8d7c6b5a;did=f3a.9c1>\r\n\
    Max-Forwards: 69\r\n\
    From: \"Bob Example\" <sip:bob@example.com>;tag=8d7c6b5a\r\n\
    To: <sip:alice@example.com>\r\n\
    Call-ID: 4c3b2a190807f6e5d4c3b2a1@198.51.100.20\r\n\
    CSeq: 1 INVITE\r\n\
    Contact: <sip:bob@198.51.100.20:5070;ob>\r\n\
    Allow: INVITE, ACK, CANCEL, BYE, UPDATE, INFO, REFER, NOTIFY, MESSAGE, OPTIONS\r\n\
    Supported: replaces, 100rel, timer, norefersub\r\n\
    Session-Expires: 1800\r\n\
    Min-SE: 90\r\n\
    P-Asserted-Identity: <sip:bob@example.com>\r\n\
    User-Agent: Example Softphone 5.2 (tablet)\r\n\
    Content-Type: application/sdp\r\n\
    Content-Length: 257\r\n\r\n\
    v=0\r\n\
    o=- 3909876543 3909876543 IN IP4 198.51.100.20\r\n\
    s=-\r\n\
    c=IN IP4 198.51.100.20\r\n\
    t=0 0\r\n\
    m=audio 40000 RTP/AVP 96 0 8 101\r\n\
    a=rtpmap:96 opus/48000/2\r\n\
    a=rtpmap:0 PCMU/8000\r\n\
    a=rtpmap:8 PCMA/8000\r\n\
    a=rtpmap:101 telephone-event/8000\r\n\
    a=fmtp:101 0-16\r\n\
    a=sendrecv\r\n";

/// What is parsed, by the name it has in the report.
const MESSAGES: [(&str, &[u8]); 2] = [("401", CHALLENGE), ("INVITE", INVITE)];

/// At most so many allocations for a message: its buffer and its header table.
const ALLOCATIONS_MAX: u64 = 2;

fn parse(criterion: &mut Criterion) {
    assert_eq!((CHALLENGE.len(), INVITE.len()), (784, 1090), "the sizes other parsers were measured with");
    count_allocations();
    for (name, bytes) in MESSAGES {
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        for (who, cut, read) in PARSERS {
            group.bench_function(BenchmarkId::new("cut", who), |bencher| bencher.iter(|| cut(black_box(bytes))));
            group.bench_function(BenchmarkId::new("read", who), |bencher| bencher.iter(|| read(black_box(bytes))));
        }
        group.finish();
    }
}

type Step = fn(&[u8]);

const PARSERS: [(&str, Step, Step); 3] = [
    ("reveille", ours::cut, ours::read),
    ("sipx-sip", sipx::cut, sipx::read),
    ("rsip", rsip_crate::cut, rsip_crate::read),
];

mod ours {
    use super::{Bytes, HeaderName, Message, Uri, black_box};

    fn parsed(bytes: &[u8]) -> Message {
        Message::parse_datagram(bytes.to_vec()).expect("a valid message")
    }

    pub(super) fn cut(bytes: &[u8]) {
        black_box(parsed(bytes));
    }

    pub(super) fn read(bytes: &[u8]) {
        let message = parsed(bytes);
        black_box(message.request_uri().map(|uri| Uri::parse(uri).expect("valid").user()));
        black_box(message.top_via().expect("valid").branch());
        black_box((message.from().expect("valid").tag(), message.to().expect("valid").tag()));
        black_box((message.call_id().expect("there"), message.cseq().expect("valid"), message.status()));
        black_box(message.max_forwards().expect("valid"));
        black_box(message.contacts().filter(Result::is_ok).count());
        black_box(message.record_routes().filter(Result::is_ok).count());
        message.challenges().for_each(|challenge| drop(black_box(challenge)));
        black_box(message.header(HeaderName::ContentType));
        black_box::<&Bytes>(message.bytes());
    }
}

mod sipx {
    use sipx_sip::auth::Challenge;
    use sipx_sip::headers::{CSeq, CallId, Contact, From, MaxForwards, RecordRoute, To, Via};
    use sipx_sip::{HeaderName, Limits, Message, parse_datagram};

    use super::{Bytes, black_box};

    fn parsed(bytes: &[u8]) -> Message {
        parse_datagram(Bytes::copy_from_slice(bytes), &Limits::datagram()).expect("a valid message")
    }

    pub(super) fn cut(bytes: &[u8]) {
        black_box(parsed(bytes));
    }

    pub(super) fn read(bytes: &[u8]) {
        let message = parsed(bytes);
        let headers = message.headers();
        black_box(message.as_request().map(|request| request.uri.user()));
        black_box(headers.typed_all::<Via>().next().map(|via| via.expect("valid").branch().is_some()));
        black_box((headers.typed::<From>().is_some(), headers.typed::<To>().is_some()));
        black_box((headers.typed::<CallId>().is_some(), headers.typed::<CSeq>().is_some()));
        black_box(headers.typed::<MaxForwards>().is_some());
        black_box(headers.typed_all::<Contact>().filter(Result::is_ok).count());
        black_box(headers.typed_all::<RecordRoute>().filter(Result::is_ok).count());
        for challenge in headers.get_all(&HeaderName::WwwAuthenticate) {
            black_box(Challenge::parse(&challenge.value(), false));
        }
        black_box(headers.value(&HeaderName::ContentType));
    }
}

mod rsip_crate {
    use super::{HeadersExt, ToTypedHeader, black_box};
    use rsip::prelude::HasHeaders;

    fn parsed(bytes: &[u8]) -> rsip::SipMessage {
        rsip::SipMessage::try_from(bytes).expect("a message it reads")
    }

    pub(super) fn cut(bytes: &[u8]) {
        black_box(parsed(bytes));
    }

    pub(super) fn read(bytes: &[u8]) {
        let message = parsed(bytes);
        black_box(message.via_header().and_then(|via| via.typed()).is_ok());
        black_box(message.from_header().and_then(|from| from.typed()).is_ok());
        black_box(message.to_header().and_then(|to| to.typed()).is_ok());
        black_box(message.call_id_header().is_ok());
        black_box(message.cseq_header().and_then(|cseq| cseq.typed()).is_ok());
        black_box(message.max_forwards_header().is_ok());
        black_box(message.contact_header().and_then(|contact| contact.typed()).is_ok());
        for header in message.headers().iter() {
            if let rsip::Header::WwwAuthenticate(challenge) = header {
                black_box(challenge.typed().is_ok());
            }
        }
    }
}

/// Prints the allocations of each step; ours must keep their promise, or the bench fails.
#[expect(clippy::print_stdout, reason = "a bench reports on stdout")]
fn count_allocations() {
    for (name, bytes) in MESSAGES {
        for (who, cut, read) in PARSERS {
            let counts = [allocations(|| cut(bytes)), allocations(|| read(bytes))];
            println!("{name}: {who} allocates {} times to cut, {} times to cut and read", counts[0], counts[1]);
            assert!(
                who != "reveille" || counts.iter().all(|count| *count <= ALLOCATIONS_MAX),
                "two allocations a message"
            );
        }
    }
}

fn allocations(step: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    step();
    ALLOCATIONS.get() - before
}

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, counting what this thread asks for.
struct Counting;

#[expect(unsafe_code, reason = "a global allocator is an unsafe trait; it hands every call on")]
// SAFETY: each method passes its arguments unchanged to the system's allocator, whose contract is the same.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

criterion_group!(benches, parse);
criterion_main!(benches);
