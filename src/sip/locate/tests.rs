//! Each rule of RFC 3263 §4 that we follow, against a zone of a few lines.

use super::*;

const ALL: [Transport; 3] = [Transport::Udp, Transport::Tcp, Transport::Tls];

#[test]
fn a_literal_address_needs_no_question() {
    for (host, address) in
        [("192.0.2.1", "192.0.2.1"), ("[2001:db8::1]", "2001:db8::1"), ("2001:db8::1", "2001:db8::1")]
    {
        let (steps, end) = run(Locator::new(host, None, None, None, &ALL, 1), &[]);
        assert_eq!(steps, Vec::<String>::new());
        assert_eq!(end, found(&[(Transport::Udp, address, 5060)]));
    }
    let given = Some(ip("192.0.2.7"));
    let (_, end) = run(Locator::new("ignored", given, None, Some(Transport::Tls), &ALL, 1), &[]);
    assert_eq!(end, found(&[(Transport::Tls, "192.0.2.7", 5061)]));
    let (_, end) = run(Locator::new("ignored", given, Some(5070), None, &[Transport::Tcp], 1), &[]);
    assert_eq!(end, found(&[(Transport::Tcp, "192.0.2.7", 5070)]));
}

#[test]
fn a_port_rules_out_srv() {
    let zone = [a("example.com", &["192.0.2.1", "2001:db8::1"]), srv("_sip._tcp.example.com", &[(0, 0, 1, "x")])];
    let (steps, end) = run(Locator::new("example.com", None, Some(5070), Some(Transport::Tcp), &ALL, 1), &zone);
    assert_eq!(steps, ["A example.com"]);
    assert_eq!(end, found(&[(Transport::Tcp, "192.0.2.1", 5070), (Transport::Tcp, "2001:db8::1", 5070)]));
}

#[test]
fn a_transport_asks_for_its_own_srv_only() {
    for (transport, name) in [
        (Transport::Udp, "_sip._udp.example.com"),
        (Transport::Tcp, "_sip._tcp.example.com"),
        (Transport::Tls, "_sips._tcp.example.com"),
    ] {
        let zone = [srv(name, &[(0, 0, 5090, "a.example.com.")]), a("a.example.com", &["192.0.2.9"])];
        let (steps, end) = run(Locator::new("example.com.", None, None, Some(transport), &ALL, 1), &zone);
        assert_eq!(steps, [format!("SRV {name}"), "A a.example.com".into()]);
        assert_eq!(end, found(&[(transport, "192.0.2.9", 5090)]));
    }
}

#[test]
fn without_srv_the_host_itself_is_asked() {
    let zone = [a("example.com", &["192.0.2.1"])];
    let (steps, end) = run(Locator::new("example.com", None, None, Some(Transport::Tls), &ALL, 1), &zone);
    assert_eq!(steps, ["SRV _sips._tcp.example.com", "A example.com"]);
    assert_eq!(end, found(&[(Transport::Tls, "192.0.2.1", 5061)]));

    let (steps, end) = run(Locator::new("example.com", None, None, None, &ALL, 1), &zone);
    assert_eq!(
        steps,
        ["SRV _sip._udp.example.com", "SRV _sip._tcp.example.com", "SRV _sips._tcp.example.com", "A example.com"]
    );
    assert_eq!(end, found(&[(Transport::Udp, "192.0.2.1", 5060)]));
}

#[test]
fn the_most_wanted_transport_that_leads_somewhere_is_the_only_one() {
    let zone = [
        srv("_sips._tcp.example.com", &[(0, 0, 5061, "gone.example.com")]),
        srv("_sip._tcp.example.com", &[(0, 0, 5060, "a.example.com")]),
        srv("_sip._udp.example.com", &[(0, 0, 5060, "a.example.com")]),
        a("a.example.com", &["192.0.2.1"]),
    ];
    let wanted = [Transport::Tls, Transport::Tcp, Transport::Udp];
    let (steps, end) = run(Locator::new("example.com", None, None, None, &wanted, 1), &zone);
    assert_eq!(
        steps,
        ["SRV _sips._tcp.example.com", "A gone.example.com", "SRV _sip._tcp.example.com", "A a.example.com"]
    );
    assert_eq!(end, found(&[(Transport::Tcp, "192.0.2.1", 5060)]));
}

#[test]
fn a_target_of_a_dot_means_no_such_service() {
    let zone = [srv("_sips._tcp.example.com", &[(0, 0, 0, ".")]), a("example.com", &["192.0.2.1"])];
    let (steps, end) = run(Locator::new("example.com", None, None, Some(Transport::Tls), &ALL, 1), &zone);
    assert_eq!(steps, ["SRV _sips._tcp.example.com"]);
    assert_eq!(end, Step::Failed { unanswered: false });
}

#[test]
fn priorities_come_first_and_a_shared_target_is_asked_once() {
    let zone = [
        srv(
            "_sip._udp.example.com",
            &[(20, 9, 5062, "b.example.com"), (10, 1, 5061, "a.example.com"), (30, 1, 5063, "a.example.com")],
        ),
        a("a.example.com", &["192.0.2.1", "192.0.2.2"]),
        a("b.example.com", &["192.0.2.3"]),
    ];
    let (steps, end) = run(Locator::new("example.com", None, None, None, &ALL, 1), &zone);
    assert_eq!(steps, ["SRV _sip._udp.example.com", "A a.example.com", "A b.example.com"]);
    assert_eq!(
        end,
        found(&[
            (Transport::Udp, "192.0.2.1", 5061),
            (Transport::Udp, "192.0.2.2", 5061),
            (Transport::Udp, "192.0.2.3", 5062),
            (Transport::Udp, "192.0.2.1", 5063),
            (Transport::Udp, "192.0.2.2", 5063),
        ])
    );
}

#[test]
fn weights_share_the_first_place_in_proportion() {
    let records = |turn: bool| {
        let mut records = vec![record(1, 30, 1, "a"), record(1, 10, 2, "b"), record(1, 0, 3, "c")];
        if turn {
            records.rotate_left(1);
        }
        records
    };
    let mut first = [0u32; 4];
    for seed in 0..4_000 {
        let order = ordered(records(false), &mut { seed });
        assert_eq!(order, ordered(records(true), &mut { seed }), "the resolver's rotation plays no part");
        assert_eq!(order.len(), 3);
        first[usize::from(order[0].port)] += 1;
    }
    // Expected by RFC 2782 with weights 30, 10 and 0: 30, 10 and 1 of 41.
    assert!((2_800..=3_050).contains(&first[1]), "{first:?}");
    assert!((880..=1_080).contains(&first[2]), "{first:?}");
    assert!((50..=160).contains(&first[3]), "{first:?}");
}

#[test]
fn silence_of_the_resolvers_is_told_apart_from_no_such_name() {
    let mut locator = Locator::new("example.com", None, Some(5060), None, &ALL, 1);
    let Step::Ask(question) = locator.step() else { unreachable!("a name needs a question") };
    locator.handle_answer(&question, Answer::Unanswered);
    assert_eq!(locator.step(), Step::Failed { unanswered: true });

    let (_, end) = run(Locator::new("example.com", None, Some(5060), None, &ALL, 1), &[]);
    assert_eq!(end, Step::Failed { unanswered: false });
}

#[test]
fn a_silent_srv_falls_back_to_the_host() {
    let mut locator = Locator::new("example.com", None, None, Some(Transport::Tcp), &ALL, 1);
    let Step::Ask(question) = locator.step() else { unreachable!("a name needs a question") };
    locator.handle_answer(&question, Answer::Unanswered);
    let (_, end) = run(locator, &[a("example.com", &["192.0.2.1"])]);
    assert_eq!(end, found(&[(Transport::Tcp, "192.0.2.1", 5060)]));
}

#[test]
fn only_the_answer_to_the_question_asked_counts() {
    let mut locator = Locator::new("example.com", None, Some(5060), None, &ALL, 1);
    let asked = locator.step();
    locator.handle_answer(&Question::Addresses("evil.example".into()), Answer::Addresses(vec![ip("192.0.2.66")]));
    assert_eq!(locator.step(), asked, "asked again until answered");
    let Step::Ask(question) = asked else { unreachable!("a name needs a question") };
    locator.handle_answer(&question, Answer::Srv(vec![record(0, 0, 1, "evil.example")]));
    assert_eq!(locator.step(), Step::Failed { unanswered: true });
}

#[test]
fn a_transport_we_lack_or_a_name_too_long_fails_without_a_question() {
    let never = Step::Failed { unanswered: false };
    assert_eq!(Locator::new("example.com", None, None, Some(Transport::Tls), &[Transport::Udp], 1).step(), never);
    assert_eq!(Locator::new("example.com", None, None, None, &[], 1).step(), never);
    assert_eq!(Locator::new("192.0.2.1", Some(ip("192.0.2.1")), None, None, &[], 1).step(), never);
    assert_eq!(Locator::new("", None, None, None, &ALL, 1).step(), never);
    assert_eq!(Locator::new(&"a".repeat(NAME_MAX + 1), None, None, None, &ALL, 1).step(), never);
}

#[test]
fn a_hostile_zone_costs_a_bounded_number_of_questions_and_addresses() {
    let names: Vec<String> = (0..200).map(|n| format!("t{n}.example.com")).collect();
    let records: Vec<_> = names.iter().map(|name| (0, 1, 5060, name.as_str())).collect();
    let nowhere =
        ALL.map(|transport| srv(&format!("{}.example.com", srv_prefix(transport).expect("has SRV")), &records));
    let (steps, end) = run(Locator::new("example.com", None, None, None, &ALL, 1), &nowhere);
    assert_eq!(steps.len(), QUESTIONS_MAX);
    assert_eq!(end, Step::Failed { unanswered: false });

    let many: Vec<String> = (0..200).map(|n| format!("192.0.2.{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let (_, end) = run(Locator::new("example.com", None, Some(5060), None, &ALL, 1), &[a("example.com", &many)]);
    let Step::Done(places) = end else { unreachable!("addresses were found") };
    assert_eq!(places.len(), ADDRESSES_MAX);
}

/// One name of a zone.
type Entry = (String, Answer);

/// Answers each question from the zone; the questions asked, and the end.
fn run(mut locator: Locator, zone: &[Entry]) -> (Vec<String>, Step) {
    let mut asked = Vec::new();
    loop {
        let Step::Ask(question) = locator.step() else { return (asked, locator.step()) };
        let (text, none) = match &question {
            Question::Srv(name) => (format!("SRV {name}"), Answer::Srv(Vec::new())),
            Question::Addresses(name) => (format!("A {name}"), Answer::Addresses(Vec::new())),
        };
        let answer = zone.iter().find(|(name, _)| *name == text).map_or(none, |(_, answer)| answer.clone());
        asked.push(text);
        assert!(asked.len() < 100, "asks for ever");
        locator.handle_answer(&question, answer);
    }
}

fn srv(name: &str, records: &[(u16, u16, u16, &str)]) -> Entry {
    let records = records.iter().map(|(priority, weight, port, target)| record(*priority, *weight, *port, target));
    (format!("SRV {name}"), Answer::Srv(records.collect()))
}

fn record(priority: u16, weight: u16, port: u16, target: &str) -> SrvRecord {
    SrvRecord { priority, weight, port, target: target.into() }
}

fn a(name: &str, addresses: &[&str]) -> Entry {
    (format!("A {name}"), Answer::Addresses(addresses.iter().map(|text| ip(text)).collect()))
}

fn found(places: &[(Transport, &str, u16)]) -> Step {
    Step::Done(places.iter().map(|(transport, address, port)| (*transport, (ip(address), *port).into())).collect())
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}
