use super::*;

const OPTIONS: &[u8] = b"OPTIONS sip:a SIP/2.0\r\nContent-Length: 5\r\n\r\n\r\n\r\nx";
const REGISTER: &[u8] = b"REGISTER sip:b SIP/2.0\r\nTo: x\r\n l: 9\r\nL:\r\n 0\r\n\r\n";

/// Feeds the pieces and drains after each.
fn frames<'p>(pieces: impl IntoIterator<Item = &'p [u8]>) -> Result<Vec<Frame>, ParseError> {
    let mut framer = Framer::default();
    let mut frames = Vec::new();
    for piece in pieces {
        framer.push(piece);
        while let Some(frame) = framer.next_frame()? {
            frames.push(frame);
        }
    }
    Ok(frames)
}

fn message(bytes: &[u8]) -> Frame {
    Frame::Message(bytes.to_vec())
}

/// A torn ping is reported as a pong too, since nobody can know; everything else must not depend on the tearing.
fn without_pongs(frames: Vec<Frame>) -> Vec<Frame> {
    frames.into_iter().filter(|frame| *frame != Frame::Pong).collect()
}

#[test]
fn every_split_gives_the_same_messages_and_pings() {
    let stream =
        [&b"\0\r\n\r\njaK"[..], OPTIONS, b"jaKjaK\0\0", REGISTER, OPTIONS, b"\r\n\r\n\r\n\r\n", REGISTER].concat();
    let whole = frames([&stream[..]]).expect("sound");
    let expected = [
        Frame::Ping,
        message(OPTIONS),
        message(REGISTER),
        message(OPTIONS),
        Frame::Ping,
        Frame::Ping,
        message(REGISTER),
    ];
    assert_eq!(whole, expected);
    for first in 0..=stream.len() {
        for second in first..=stream.len() {
            let pieces = [&stream[..first], &stream[first..second], &stream[second..]];
            assert_eq!(without_pongs(frames(pieces).expect("sound")), expected, "split at {first} and {second}");
        }
    }
    assert_eq!(without_pongs(frames(stream.chunks(1)).expect("sound")), expected);
}

#[test]
fn pongs_are_lone_crlfs_and_reported_at_once() {
    assert_eq!(frames([&b"\r\n"[..]]), Ok(vec![Frame::Pong]));
    assert_eq!(frames([&b"\r\n"[..], OPTIONS]), Ok(vec![Frame::Pong, message(OPTIONS)]));
    assert_eq!(frames([&b"\r\n\r\n\r\n"[..]]), Ok(vec![Frame::Ping, Frame::Pong]));
    assert_eq!(frames([&b"\r\n\r\n"[..]]), Ok(vec![Frame::Ping]));
    assert_eq!(frames([&b"\r\n"[..], b"jaK", b"\r\n"]), Ok(vec![Frame::Pong, Frame::Pong]));
    // Torn: the second half makes it a ping all the same.
    assert_eq!(frames([&b"\r\n"[..], b"\r\n"]), Ok(vec![Frame::Pong, Frame::Ping]));
    assert_eq!(frames([&b"\r\n\r"[..], b"\n"]), Ok(vec![Frame::Pong, Frame::Ping]));
    assert_eq!(frames([&b"\r"[..], b"\n\r", b"\n"]), Ok(vec![Frame::Pong, Frame::Ping]));
}

#[test]
fn lies_about_content_length_break_the_stream() {
    let start = "OPTIONS sip:a SIP/2.0\r\n";
    let lies = [
        "",
        "Content-Length: 1\r\nContent-Length: 1\r\n",
        "Content-Length: 1\r\nl: 2\r\n",
        "Content-Length: 1, 1\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: +1\r\n",
        "Content-Length: 1 1\r\n",
        "Content-Length: 0x1\r\n",
        "Content-Length:\r\n",
        "Content-Length: 1\r\n 1\r\n",
        "Content-Length: 18446744073709551616\r\n",
    ];
    for lie in lies {
        assert_eq!(frames([format!("{start}{lie}\r\n").as_bytes()]), Err(ParseError::ContentLength), "{lie:?}");
    }
    for huge in ["16385", "18446744073709551615"] {
        let message = format!("{start}Content-Length: {huge}\r\n\r\n");
        assert_eq!(frames([message.as_bytes()]), Err(ParseError::TooLarge), "{huge}");
    }
}

#[test]
fn a_message_of_the_largest_size_passes_and_one_byte_more_does_not() {
    let sized = |size: usize| {
        let head = |length: usize| format!("OPTIONS sip:a SIP/2.0\r\nl:{length:05}\r\n\r\n");
        let body = size - head(0).len();
        [head(body).into_bytes(), vec![b'x'; body]].concat()
    };
    assert_eq!(frames(sized(MESSAGE_MAX).chunks(1000)), Ok(vec![message(&sized(MESSAGE_MAX))]));
    assert_eq!(frames(sized(MESSAGE_MAX + 1).chunks(1000)), Err(ParseError::TooLarge));
    let endless = [&b"OPTIONS sip:a SIP/2.0\r\nX: "[..], &vec![b'x'; MESSAGE_MAX]].concat();
    assert_eq!(frames(endless.chunks(1)), Err(ParseError::TooLarge));
}

/// What a sender may send whose messages end no stream.
const PATIENT: FrameLimits = FrameLimits { message: 200, skip: 400 };

/// Feeds the pieces to a framer with limits and drains after each.
fn frames_within<'p>(
    limits: FrameLimits,
    pieces: impl IntoIterator<Item = &'p [u8]>,
) -> (Vec<Frame>, Option<ParseError>) {
    let mut framer = Framer::default();
    framer.set_limits(limits);
    let mut frames = Vec::new();
    for piece in pieces {
        framer.push(piece);
        loop {
            match framer.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

#[test]
fn a_body_that_is_too_long_is_skipped_wherever_it_is_cut() {
    let head = |length: usize| format!("OPTIONS sip:a SIP/2.0\r\nl: {length}\r\n\r\n").into_bytes();
    let huge = |length: usize| [head(length), vec![b'\r'; length]].concat();
    for length in [200, 399, 400] {
        let stream = [&huge(length)[..], REGISTER, &huge(length), &huge(length), OPTIONS].concat();
        let skipped = || [Frame::Oversized(head(length)), Frame::Skipped];
        let expected: Vec<Frame> = skipped()
            .into_iter()
            .chain([message(REGISTER)])
            .chain(skipped())
            .chain(skipped())
            .chain([message(OPTIONS)])
            .collect();
        for size in 1..stream.len() {
            assert_eq!(frames_within(PATIENT, stream.chunks(size)), (expected.clone(), None), "{length} by {size}");
        }
    }
    let beyond = frames_within(PATIENT, [&huge(401)[..]]);
    assert_eq!(beyond, (Vec::new(), Some(ParseError::TooLarge)), "there is an end to it");
    let impatient = frames_within(FrameLimits { skip: 0, ..PATIENT }, [&huge(200)[..]]);
    assert_eq!(impatient, (Vec::new(), Some(ParseError::TooLarge)));
}

#[test]
fn a_message_may_be_refused_before_it_is_whole() {
    let mut framer = Framer::default();
    framer.push(&OPTIONS[..OPTIONS.len() - 2]);
    assert_eq!(framer.next_frame(), Ok(None));
    assert_eq!(framer.wanted(), OPTIONS.len());
    assert_eq!(framer.refuse(), Some(OPTIONS[..OPTIONS.len() - 5].to_vec()));
    assert!(framer.is_mid_message());
    framer.push(&OPTIONS[OPTIONS.len() - 2..]);
    framer.push(REGISTER);
    assert_eq!(framer.next_frame(), Ok(Some(Frame::Skipped)));
    assert_eq!(framer.next_frame(), Ok(Some(message(REGISTER))));
    framer.push(&OPTIONS[..20]);
    assert_eq!((framer.next_frame(), framer.wanted(), framer.refuse()), (Ok(None), 20, None));
}

#[test]
fn what_is_malformed_has_an_end_where_its_length_is_told_once() {
    let with = |lines: &str| format!("INVITE sip:a SIP/2.0\r\n{lines}\r\n\r\nbody").into_bytes();
    let ends = [
        "l: 4",
        "Content no colon\r\nl: 4",
        "no colon\r\nl: 4",
        "X: a\rb\r\nl: 4",
        "X: a\nY: b\r\nl: 4",
        "X: a\nl: 4\nY: b",
        "l: 4\r\n: y",
        "X: \0\r\nl : 4",
    ];
    for lines in ends {
        let stream = [with(lines), REGISTER.to_vec()].concat();
        assert_eq!(frames([&stream[..]]), Ok(vec![message(&with(lines)), message(REGISTER)]), "{lines:?}");
    }
    let lost = [
        // Each of these has another end for a sender that takes every LF for the end of a line.
        "l: 4\r\nX: a\nl: 0",
        "X: a\nl: 4\r\nl: 4",
        "X: a\nContent-Length\r\n : 9\r\nl: 4",
        "l: 4\r\nX: a\n\nY: b",
        "l: 4\r\nX: a\n\r\nY: b",
        "l: 4\r\nX: a\r\r\n\nY: b",
        "l: 4x",
        "l:",
    ];
    for lines in lost {
        assert!(frames([&with(lines)[..]]).is_err(), "{lines:?}");
    }
}

#[test]
fn where_a_sender_is_worth_it_what_begins_like_no_message_is_waited_for() {
    for start in [" INVITE sip:a SIP/2.0", "\"x\" y", "\x16\x03", "\rx"] {
        let bad = format!("{start}\r\nl: 2\r\n\r\nab").into_bytes();
        let stream = [bad.clone(), REGISTER.to_vec()].concat();
        let expected = vec![message(&bad), message(REGISTER)];
        assert_eq!(frames_within(PATIENT, stream.chunks(1)), (expected, None), "{start:?}");
        assert!(frames([&bad[..]]).is_err(), "{start:?}");
    }
}

#[test]
fn what_is_no_sip_is_refused_at_its_first_byte() {
    for bytes in [&b"\x16\x03\x01"[..], b" OPTIONS", b"\n\n", b"\rx", b"<html>"] {
        assert!(frames([bytes]).is_err(), "{bytes:?}");
    }
    assert_eq!(frames([&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..]]), Err(ParseError::ContentLength));
}

#[test]
fn a_broken_stream_stays_broken_and_shows_what_broke_it() {
    let mut framer = Framer::default();
    framer.push(&[OPTIONS, b"\r\n"].concat());
    assert_eq!((framer.next_frame(), framer.unframed()), (Ok(Some(message(OPTIONS))), &b""[..]));
    framer.push(b"OPTIONS sip:a SIP/2.0\r\n\r\nrest");
    assert_eq!(framer.next_frame(), Ok(Some(Frame::Pong)));
    assert_eq!(framer.next_frame(), Err(ParseError::ContentLength));
    framer.push(OPTIONS);
    assert_eq!(framer.next_frame(), Err(ParseError::ContentLength));
    assert_eq!(framer.unframed(), b"OPTIONS sip:a SIP/2.0\r\n\r\nrest");
}

#[test]
fn only_a_begun_message_counts_against_the_slow() {
    let mut framer = Framer::default();
    for (bytes, is_begun) in
        [(&b""[..], false), (b"\r", false), (b"\n\0jaK", false), (&OPTIONS[..40], true), (&OPTIONS[40..], false)]
    {
        framer.push(bytes);
        while let Ok(Some(_)) = framer.next_frame() {}
        assert_eq!(framer.is_mid_message(), is_begun, "{bytes:?}");
    }
}

#[test]
fn an_idle_connection_gives_its_memory_back() {
    let mut framer = Framer::default();
    for piece in REGISTER.repeat(2000).chunks(8192) {
        framer.push(piece);
        while let Some(frame) = framer.next_frame().expect("sound") {
            assert_eq!(frame, message(REGISTER));
        }
        assert!(framer.buffer.capacity() <= 4 * MESSAGE_MAX);
    }
    assert!(framer.buffer.capacity() <= IDLE_CAPACITY_MAX);
}
