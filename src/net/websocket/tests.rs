//! Bytes of all kinds, without sockets.

use proptest::prelude::*;

use super::handshake::answer;
use super::*;

/// All that is found in `bytes`, given in pieces of `step`.
fn decode(bytes: &[u8], step: usize) -> (Vec<Found>, Option<u16>) {
    let (mut decoder, mut all) = (Decoder::default(), Vec::new());
    for piece in bytes.chunks(step.max(1)) {
        decoder.push(piece);
        loop {
            match decoder.next() {
                Ok(Some(found)) => all.push(found),
                Ok(None) => break,
                Err(code) => return (all, Some(code)),
            }
        }
    }
    (all, None)
}

/// A client's frame.
fn client_frame(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).expect("a short one");
    let masked = payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key);
    [first, 0x80 | length].into_iter().chain(mask).chain(masked).collect()
}

#[test]
fn an_idle_decoder_keeps_no_memory() {
    let mut decoder = Decoder::default();
    let large = [&[0x82, 0xfe][..], &u16::to_be_bytes(16_000), &[0; 4], &[b'x'; 16_000]].concat();
    decoder.push(&large[..9_000]);
    assert_eq!((decoder.next(), decoder.is_mid_message()), (Ok(None), true));
    decoder.push(&large[9_000..]);
    assert!(matches!(decoder.next(), Ok(Some(Found::Message(message))) if message.len() == 16_000));
    assert_eq!((decoder.next(), decoder.is_mid_message()), (Ok(None), false));
    assert!(decoder.context.is_none() && decoder.buffer.capacity() <= IDLE_CAPACITY_MAX);
}

#[test]
fn a_ping_does_not_end_a_message_that_is_under_way() {
    let mut decoder = Decoder::default();
    decoder.push(&client_frame(0x01, b"OPT", [1, 2, 3, 4]));
    assert_eq!((decoder.next(), decoder.is_mid_message()), (Ok(None), true));
    decoder.push(&client_frame(0x89, b"p", [5, 6, 7, 8]));
    assert_eq!(decoder.next(), Ok(Some(Found::Echo(b"\x8a\x01p".to_vec()))));
    assert!(decoder.is_mid_message());
    decoder.push(&client_frame(0x80, b"IONS", [9, 9, 9, 9]));
    assert_eq!(decoder.next(), Ok(Some(Found::Message(b"OPTIONS".to_vec()))));
    assert!(!decoder.is_mid_message());
}

#[test]
fn after_an_error_there_is_nothing_but_the_error() {
    let mut decoder = Decoder::default();
    decoder.push(&[0x81, 0x00]);
    assert_eq!(decoder.next(), Err(1002), "a client must mask");
    decoder.push(&client_frame(0x81, b"hi", [0; 4]));
    assert_eq!(decoder.next(), Err(1002));
}

#[test]
fn lengths_are_told_as_they_are_sent() {
    for length in [0, 125, 126, 65_535, 65_536] {
        let message = vec![b'x'; length];
        let mut out = Vec::new();
        frame(&message, &mut out);
        assert_eq!(out.len(), framed_length(&message));
    }
}

proptest! {
    #[test]
    fn where_the_stream_is_cut_makes_no_difference(
        frames in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..40), any::<[u8; 4]>()), 0..6),
        noise in prop::collection::vec(any::<u8>(), 0..20),
        step in 1usize..50,
    ) {
        let mut bytes: Vec<u8> =
            frames.iter().flat_map(|(first, payload, mask)| client_frame(*first, payload, *mask)).collect();
        bytes.extend(noise);
        prop_assert_eq!(decode(&bytes, step), decode(&bytes, bytes.len()));
    }

    #[test]
    fn what_we_frame_is_what_a_client_reads(message in prop::collection::vec(any::<u8>(), 0..70_000)) {
        let mut out = Vec::new();
        frame(&message, &mut out);
        let mut client = WebSocketContext::new(Role::Client, None);
        let read = client.read(&mut Pipe { input: &out, output: Vec::new() }).expect("a frame");
        prop_assert_eq!(read.into_data().to_vec(), message);
    }

    #[test]
    fn a_head_of_any_bytes_gets_an_answer(
        cut in 0usize..200, at in 0usize..200, noise in prop::collection::vec(any::<u8>(), 0..30),
    ) {
        let mut head = b"GET / HTTP/1.1\r\nHost: e\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: sip\r\n\r\n".to_vec();
        prop_assert!(answer(&head).is_ok());
        let at = at.min(head.len());
        let end = (at + cut).min(head.len());
        head.splice(at..end, noise);
        let _ = answer(&head);
        let _ = decode(&head, 7);
    }
}
