//! The same bytes read by us and by `sipx-sip`: where it reads a message, we read the same.
//!
//! The two differ on purpose in few places, each named here. Malformed to us only: another SIP version, a folded start line,
//! a scheme that begins with no letter, a host that ends in a number, a bare URI with a comma (RFC 3261 §20), a Via whose
//! protocol is no token, `*` among other Contacts; and our limits are tighter. Malformed to it only: CSeq from 2^31 on, lone
//! `%` signs, bytes beyond ASCII and repeated parameters in URIs, a parenthesis left open in a URI of a list, non-tokens in
//! unquoted display names and parameter values.

use std::net::IpAddr;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use reveille::sip::address::Address;
use reveille::sip::uri::{Host, Uri};
use reveille::sip::{Message, ParseError};
use sipx_sip::headers as theirs;

use crate::corpus::{RFC_4475, RFC_5118};

/// What both say about a message, as text. A field that is missing or malformed is `None`.
#[derive(Debug, PartialEq)]
struct Reading {
    start: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    fields: Vec<(&'static str, Option<Vec<String>>)>,
}

#[test]
fn the_corpus_reads_alike() {
    for case in RFC_4475.iter().chain(RFC_5118) {
        let (ours, oracle) = (ours(case.bytes), oracle(case.bytes));
        if case.name == "badvers" {
            assert_eq!((ours, oracle.is_ok()), (Err(()), true), "refused by the parser here, by validation there");
            continue;
        }
        assert_eq!(ours, oracle, "{} {}", case.section, case.name);
    }
}

proptest! {
    // One seed, so that a run repeats; PROPTEST_RNG_SEED and PROPTEST_CASES look further.
    #![proptest_config(ProptestConfig {
        cases: 512,
        rng_seed: RngSeed::Fixed(4475),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn generated_messages_read_alike(message in message()) {
        prop_assert_eq!(ours(message.as_bytes()), oracle(message.as_bytes()), "{}", message);
        prop_assert!(ours(message.as_bytes()).is_ok(), "{}", message);
    }

    #[test]
    fn damaged_messages_read_no_differently(
        case in 0..RFC_4475.len() + RFC_5118.len(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), damage()), 1..4),
    ) {
        let mut bytes = RFC_4475.iter().chain(RFC_5118).nth(case).expect("in range").bytes.to_vec();
        for (place, byte) in damage {
            let place = place.index(bytes.len());
            match byte {
                Some(byte) => bytes[place] = byte,
                None => drop(bytes.remove(place)),
            }
        }
        match (ours(&bytes), oracle(&bytes)) {
            (Ok(ours), Ok(oracle)) => compare(&ours, &oracle)?,
            (Err(()), Ok(_)) => prop_assert!(is_stricter(&bytes), "only the oracle reads {}", bytes.escape_ascii()),
            (Ok(_), Err(())) => prop_assert!(is_more_lenient(&bytes), "only we read {}", bytes.escape_ascii()),
            (Err(()), Err(())) => {}
        }
    }
}

/// Both read it: everything the oracle could read is the same here.
fn compare(ours: &Reading, oracle: &Reading) -> Result<(), TestCaseError> {
    prop_assert_eq!((&ours.start, &ours.headers, &ours.body), (&oracle.start, &oracle.headers, &oracle.body));
    for (ours, oracle) in ours.fields.iter().zip(&oracle.fields) {
        let stricter =
            ours.1.is_none() && oracle.1.iter().flatten().any(|text| has_numeric_host(text) || has_comma(text));
        prop_assert!(oracle.1.is_none() || ours == oracle || stricter, "{:?} is not {:?}", ours, oracle);
    }
    Ok(())
}

/// A start line that only the oracle takes: another SIP version, a fold behind it, a scheme that begins with no letter, a
/// host that ends in a number.
fn is_stricter(bytes: &[u8]) -> bool {
    let end = bytes.windows(2).position(|two| two == b"\r\n").unwrap_or(bytes.len());
    let first = text(&bytes[..end]);
    let uri = first.split(' ').nth(1).unwrap_or_default();
    !first.to_ascii_uppercase().contains("SIP/2.0")
        || matches!(bytes.get(end + 2), Some(b' ' | b'\t'))
        || !uri.starts_with(|letter: char| letter.is_ascii_alphabetic())
        || has_numeric_host(&reading_of_uri(uri).unwrap_or_default())
}

/// The oracle parses the Request-URI together with the message, with its rules for `%` and for bytes beyond ASCII.
fn is_more_lenient(bytes: &[u8]) -> bool {
    let error = sipx_sip::parse_datagram(Bytes::copy_from_slice(bytes), &limits()).err();
    matches!(
        error,
        Some(sipx_sip::error::ParseError::StartLine(sipx_sip::error::StartLineError::Uri(
            sipx_sip::UriError::PercentEscape | sipx_sip::UriError::IllegalCharacter | sipx_sip::UriError::User
        )))
    )
}

fn reading_of_uri(text: &str) -> Option<String> {
    sipx_sip::Uri::parse(Bytes::copy_from_slice(text.as_bytes())).ok().map(|uri| oracle_uri(&uri))
}

/// Whether a host in the oracle's reading is a name whose last label is a number or empty.
fn has_numeric_host(reading: &str) -> bool {
    let Some((_, host)) = reading.split_once(" host=") else { return false };
    let host = host.split(' ').next().unwrap_or_default();
    let labels = host.strip_suffix('.').unwrap_or(host);
    let last = labels.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
    let digits = last
        .strip_prefix("0x")
        .map_or(last.bytes().all(|byte| byte.is_ascii_digit()), |hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
    (digits && host.parse::<IpAddr>().is_err()) || labels.split('.').any(str::is_empty)
}

/// Whether the user part in the oracle's reading holds a comma.
fn has_comma(reading: &str) -> bool {
    reading.split(" host=").next().is_some_and(|user| user.contains(','))
}

fn ours(bytes: &[u8]) -> Result<Reading, ()> {
    let message = Message::parse_datagram(bytes.to_vec()).map_err(|_: ParseError| ())?;
    let start = match (message.method(), message.request_uri(), message.status()) {
        (Some(method), Some(uri), _) => format!("{} {}", method.as_str(), our_uri(&Uri::parse(uri).map_err(|_| ())?)),
        (_, _, Some(status)) => format!("{} {}", status.code(), text(message.reason_phrase())),
        _ => return Err(()),
    };
    let header =
        |header: reveille::sip::Header<'_>| (text(header.raw_name).to_ascii_lowercase(), collapsed(header.value));
    let one = |value: Option<String>| value.map(|value| vec![value]);
    let contacts =
        if message.contact_is_star() { Some(vec!["*".into()]) } else { all(message.contacts().map(our_address)) };
    let via = |via: reveille::sip::via::Via<'_>| {
        let transport = via.transport().map(|transport| transport.as_via().to_owned());
        format!(
            "{transport:?} host={} {:?} {:?} {}",
            our_host(via.host()),
            via.sent_by_port(),
            via.branch(),
            via.wants_rport()
        )
    };
    let fields = vec![
        (
            "from",
            one(message.header(reveille::sip::HeaderName::From).and_then(|value| our_address(Address::parse(value)))),
        ),
        ("to", one(message.header(reveille::sip::HeaderName::To).and_then(|value| our_address(Address::parse(value))))),
        ("via", all(message.vias().map(|hop| hop.ok().map(via)))),
        ("contact", contacts),
        ("route", all(message.routes().map(our_address))),
        ("record-route", all(message.record_routes().map(our_address))),
    ];
    Ok(Reading { start, headers: message.headers().map(header).collect(), body: message.body().to_vec(), fields })
}

fn oracle(bytes: &[u8]) -> Result<Reading, ()> {
    let parsed = sipx_sip::parse_datagram(Bytes::copy_from_slice(bytes), &limits()).map_err(|_| ())?;
    let start = match &parsed {
        sipx_sip::Message::Request(request) => {
            format!("{} {}", text(request.method.as_bytes()), oracle_uri(&request.uri))
        }
        sipx_sip::Message::Response(response) => format!("{} {}", response.status.code(), text(&response.reason)),
    };
    let headers = parsed.headers();
    let header = |header: &sipx_sip::Header| {
        // The name as written is not kept apart from the value.
        let mut line = Vec::new();
        header.write_to(&mut line);
        let name = line.split(|&byte| byte == b':' || byte == b' ' || byte == b'\t').next().unwrap_or_default();
        (text(name).to_ascii_lowercase(), collapsed(&header.value()))
    };
    let contact = |contact: theirs::ContactValue| match contact {
        theirs::ContactValue::Wildcard => "*".into(),
        theirs::ContactValue::Address(address) => oracle_address(&address),
    };
    let via = |via: theirs::Via| {
        let known = ["UDP", "TCP", "TLS", "WS", "WSS"];
        let transport = known
            .iter()
            .find(|name| name.as_bytes().eq_ignore_ascii_case(&via.transport))
            .map(|name| (*name).to_owned());
        let branch = via.branch().map(text);
        format!("{transport:?} host={} {:?} {branch:?} {}", oracle_host(&via.host), via.port, via.rport().is_some())
    };
    // `*` among others is malformed; the oracle judges each field on its own.
    let contacts = all(headers.typed_all::<theirs::ContactValue>().map(|value| value.ok().map(contact)));
    let contacts = contacts.filter(|contacts| contacts.len() <= 1 || !contacts.contains(&"*".to_owned()));
    let one = |value: Option<String>| value.map(|value| vec![value]);
    let fields = vec![
        ("from", one(headers.typed::<theirs::From>().and_then(Result::ok).map(|from| oracle_address(&from)))),
        ("to", one(headers.typed::<theirs::To>().and_then(Result::ok).map(|to| oracle_address(&to)))),
        ("via", all(headers.typed_all::<theirs::Via>().map(|hop| hop.ok().filter(is_of_tokens).map(via)))),
        ("contact", contacts),
        (
            "route",
            all(headers.typed_all::<theirs::Route>().map(|route| route.ok().map(|route| oracle_address(&route)))),
        ),
        (
            "record-route",
            all(headers.typed_all::<theirs::RecordRoute>().map(|route| route.ok().map(|route| oracle_address(&route)))),
        ),
    ];
    Ok(Reading { start, headers: headers.iter().map(header).collect(), body: parsed.body().to_vec(), fields })
}

/// The oracle takes anything between the slashes of a Via.
fn is_of_tokens(via: &theirs::Via) -> bool {
    let is_token_byte = |byte: &u8| byte.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(byte);
    [&via.protocol, &via.version, &via.transport].iter().all(|part| part.iter().all(is_token_byte))
}

/// Ours are in bytes and fields only.
fn limits() -> sipx_sip::Limits {
    sipx_sip::Limits { max_folding_lines: usize::MAX, max_header_bytes: usize::MAX, ..sipx_sip::Limits::datagram() }
}

/// `None` if one of them is malformed.
fn all(values: impl Iterator<Item = Option<String>>) -> Option<Vec<String>> {
    values.collect()
}

fn our_address<E>(address: Result<Address<'_>, E>) -> Option<String> {
    let address = address.ok()?;
    let parameter = |name| address.param(name).map(|value| value.map(|value| value.replace('\\', "")));
    let extra = ["tag", "expires", "q", "+sip.instance"].map(parameter);
    Some(format!("{:?} {} {extra:?}", address.display(), our_uri(&address.uri())))
}

fn oracle_address(address: &sipx_sip::Address) -> String {
    let parameter = |name: &str| {
        let found = address.params.iter().find(|parameter| parameter.is(name))?;
        Some(found.value.as_deref().map(|value| text(value).replace('\\', "")))
    };
    let extra = ["tag", "expires", "q", "+sip.instance"].map(parameter);
    format!("{:?} {} {extra:?}", address.display_name.as_deref().map(text), oracle_uri(&address.uri))
}

fn our_uri(uri: &Uri<'_>) -> String {
    if !uri.is_sip() && !uri.is_sips() {
        return text(uri.raw());
    }
    let user = uri.user().map(text);
    let parameters: Vec<_> =
        ["transport", "lr", "maddr"].iter().map(|name| uri.param(name).map(|value| value.map(str::to_owned))).collect();
    format!(
        "{} {user:?} {:?} host={} {:?} {parameters:?}",
        uri.is_sips(),
        uri.password().map(text),
        our_host(uri.host()),
        uri.port()
    )
}

fn oracle_uri(uri: &sipx_sip::Uri) -> String {
    if !uri.scheme().is_sip() {
        return text(&uri.to_bytes());
    }
    let parameter = |name: &&str| {
        let found = uri.params().and_then(|params| params.get(name))?;
        Some(found.value().map(text))
    };
    let parameters: Vec<_> = ["transport", "lr", "maddr"].iter().map(parameter).collect();
    let host = uri.host().map(oracle_host).unwrap_or_default();
    let (user, password) = (uri.user().map(text), uri.password().map(text));
    format!("{} {user:?} {password:?} host={host} {:?} {parameters:?}", uri.scheme().is_secure(), uri.port())
}

fn our_host(host: Host<'_>) -> String {
    match host {
        Host::Name(name) => name.to_owned(),
        Host::Address(address) => address.to_string(),
    }
}

fn oracle_host(host: &sipx_sip::Host) -> String {
    text(&host.to_bytes())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Folds are undone differently: one space there, as many as were written here.
fn collapsed(value: &[u8]) -> String {
    value
        .split(|&byte| matches!(byte, b' ' | b'\t'))
        .filter(|word| !word.is_empty())
        .map(text)
        .collect::<Vec<_>>()
        .join(" ")
}

/// A byte that means something to SIP, any byte, or none.
fn damage() -> impl Strategy<Value = Option<u8>> {
    prop_oneof![
        4 => prop::sample::select(b"\r\n \t\"<>;,:=@?/\\[]%*()0aA\0\xff".to_vec()).prop_map(Some),
        1 => any::<u8>().prop_map(Some),
        1 => Just(None),
    ]
}

/// White space where RFC 3261 allows LWS, folds included.
fn lws() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["", "", "", " ", "  ", "\t", "\r\n ", " \r\n\t "])
}

fn host() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z][a-z0-9-]{0,8}(\\.[a-z][a-z0-9]{0,5}){0,3}",
        any::<[u8; 4]>().prop_map(|ip| IpAddr::from(ip).to_string()),
        any::<[u8; 16]>().prop_map(|ip| format!("[{}]", IpAddr::from(ip)))
    ]
}

fn uri() -> impl Strategy<Value = String> {
    let user = prop::option::of("[a-zA-Z0-9.!~*'&=+$,;?/_-]{1,12}(:[a-z0-9&=+$,]{0,6})?");
    let params = "(;transport=(tcp|UDP))?(;lr)?(;x-[a-z]{1,4}(=[a-z0-9:/\\[\\]&+$]{1,6})?)?(;maddr=192\\.0\\.2\\.1)?";
    let headers = prop::option::of("[a-z]{1,5}=[a-z0-9%20]{0}[a-z0-9]{0,5}(&[a-z]{1,3}=[a-z]{1,3})?");
    ("sips?", user, host(), prop::option::of(any::<u16>()), params, headers).prop_map(
        |(scheme, user, host, port, params, headers)| {
            let user = user.map(|user| format!("{user}@")).unwrap_or_default();
            let port = port.map(|port| format!(":{port}")).unwrap_or_default();
            let headers = headers.map(|headers| format!("?{headers}")).unwrap_or_default();
            format!("{scheme}:{user}{host}{port}{params}{headers}")
        },
    )
}

fn header_params() -> impl Strategy<Value = String> {
    let param = prop_oneof![
        "tag=[a-zA-Z0-9.!%*_+`'~-]{1,12}",
        "q=0\\.[0-9]",
        "expires=[0-9]{1,6}",
        "x[a-z]{0,5}",
        "x=\"([a-z,;<> ]|\\\\[\"\\\\a])*\"",
        Just("+sip.instance=\"<urn:uuid:x>\"".to_owned())
    ];
    (prop::collection::vec((lws(), lws(), param), 0..4))
        .prop_map(|params| params.iter().map(|(before, after, param)| format!("{before};{after}{param}")).collect())
}

fn name_addr() -> impl Strategy<Value = String> {
    let display = prop_oneof![
        Just(String::new()),
        "[a-zA-Z]{1,5}( [a-zA-Z.!*_+`'~-]{1,6}){0,2}",
        "\"([a-zA-Z,;<> @é]|\\\\[\"\\\\x])*\""
    ];
    (display, lws(), uri(), header_params())
        .prop_map(|(display, space, uri, params)| format!("{display}{space}<{uri}>{params}"))
}

fn via() -> impl Strategy<Value = String> {
    let params = prop::collection::vec(
        (lws(), "(branch=z9hG4bK[a-zA-Z0-9.-]{1,20}|rport(=[0-9]{1,5})?|received=[0-9.:]{1,9}|ttl=[0-9]{1,3}|x)"),
        0..4,
    );
    (
        lws(),
        prop::sample::select(vec!["UDP", "TCP", "tls", "SCTP", "WSS"]),
        prop::sample::select(vec![" ", "\t ", "\r\n "]),
        host(),
        prop::option::of(any::<u16>()),
        params,
    )
        .prop_map(|(space, transport, gap, host, port, params)| {
            let port = port.map(|port| format!(":{port}")).unwrap_or_default();
            let params: String = params.iter().map(|(space, param)| format!("{space};{param}")).collect();
            format!("SIP{space}/2.0/{space}{transport}{gap}{host}{port}{params}")
        })
}

fn list(value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    (prop::collection::vec(value, 1..4), lws()).prop_map(|(values, space)| values.join(&format!("{space},{space}")))
}

fn header() -> impl Strategy<Value = String> {
    let named = |names: &'static [&'static str], value: BoxedStrategy<String>| {
        (prop::sample::select(names), lws(), value)
            .prop_map(|(name, space, value)| format!("{name}:{space}{value}\r\n"))
    };
    prop_oneof![
        named(&["Via", "v", "VIA"], list(via()).boxed()),
        named(&["From", "f"], name_addr().boxed()),
        named(&["To", "t", "tO"], name_addr().boxed()),
        named(&["Contact", "m"], list(name_addr()).boxed()),
        named(&["Contact", "m"], Just("*".to_owned()).boxed()),
        named(&["Route"], list(name_addr()).boxed()),
        named(&["Record-Route", "record-route"], list(name_addr()).boxed()),
        named(&["Subject", "s", "X-Ext", "P-Odd!"], "[a-zA-Z;,<>\"é ]{0,20}".boxed()),
    ]
}

fn message() -> impl Strategy<Value = String> {
    let request = ("[A-Z]{3,8}", uri()).prop_map(|(method, uri)| format!("{method} {uri} SIP/2.0"));
    let response = (100..700_u16, "[a-zA-Z é']{0,20}").prop_map(|(code, reason)| format!("SIP/2.0 {code} {reason}"));
    (
        prop_oneof![request, response],
        prop::collection::vec(header(), 0..12),
        "[a-z\r\n]{0,30}",
        any::<bool>(),
        0..3_usize,
    )
        .prop_map(|(start, headers, body, has_length, surplus)| {
            let length = if has_length {
                format!("Content-Length: {}\r\n", body.len().saturating_sub(surplus))
            } else {
                String::new()
            };
            format!("{start}\r\n{}{length}\r\n{body}", headers.concat())
        })
}
