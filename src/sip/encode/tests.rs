use super::*;
use crate::sip::Message;

#[test]
fn a_written_request_reads_back() {
    let mut out = b"before".to_vec();
    let mut request = Encoder::request(&mut out, Method::Other("PING"), b"sip:a@b");
    request
        .header(HeaderName::CSeq, format_args!("{} PING", 7))
        .extension("X-Odd", "y")
        .raw(HeaderName::To, b"\"\xfc\" <sip:a@b>");
    request.finish(b"\0\r\n\xff");
    let message = Message::parse_frame(out[b"before".len()..].to_vec()).expect("a message");
    assert_eq!(message.method(), Some(Method::Other("PING")));
    assert_eq!(message.cseq().map(|cseq| cseq.number), Ok(7));
    assert_eq!((message.extension("x-odd"), message.body()), (Some(&b"y"[..]), &b"\0\r\n\xff"[..]));
    assert_eq!(message.header(HeaderName::To), Some(&b"\"\xfc\" <sip:a@b>"[..]));
}

#[test]
fn a_written_response_is_exact() {
    let mut out = Vec::new();
    let mut response = Encoder::response(&mut out, StatusCode::NOT_FOUND, StatusCode::NOT_FOUND.reason().as_bytes());
    response.header(HeaderName::CallId, "1");
    response.finish(b"");
    assert_eq!(out, b"SIP/2.0 404 Not Found\r\nCall-ID: 1\r\nContent-Length: 0\r\n\r\n");
}

#[test]
fn nothing_injects_a_header_field_or_a_second_message() {
    let evil = "a\r\nX-Injected: 1\r\n\r\nINVITE sip:x SIP/2.0\r\n\0";
    let field = Header { name: HeaderName::Other, raw_name: b"X-Copied", value: evil.as_bytes() };
    let mut request = Vec::new();
    let mut encoder = Encoder::request(&mut request, Method::Options, evil.as_bytes());
    encoder.header(HeaderName::To, evil).extension("X-Own", evil).raw(HeaderName::From, evil.as_bytes()).copy(field);
    encoder.finish(b"");
    let mut response = Vec::new();
    Encoder::response(&mut response, StatusCode::OK, evil.as_bytes()).finish(b"");

    let request = Message::parse_frame(request).expect("one message");
    let names: Vec<_> = request.headers().map(|header| header.raw_name.to_vec()).collect();
    assert_eq!(names, [&b"To"[..], b"X-Own", b"From", b"X-Copied", b"Content-Length"]);
    assert_eq!(Message::parse_frame(response).expect("one message").headers().count(), 1);
}
