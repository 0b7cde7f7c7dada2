//! Vectors of the RFCs, and what must never be signed.

use std::borrow::Cow;

use proptest::prelude::*;

use super::*;

/// RFC 2617 §3.5.
#[test]
fn md5_with_qop_as_in_rfc_2617() {
    let mut session = Session {
        opaque: Some("5ccc069c403ebaf9f0171e9517f40e41".into()),
        ..session(Algorithm::Md5, "testrealm@host.com", "dcd98b7102dd2f0e8b11d0f600bfb0c093")
    };
    let value = authorize(
        &mut session,
        "Mufasa",
        Secret::Password(b"Circle Of Life"),
        Signed::bare("GET", "/dir/index.html"),
        "0a4f113b",
    );
    assert_eq!(
        value,
        "Digest username=\"Mufasa\", realm=\"testrealm@host.com\", nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\", \
         uri=\"/dir/index.html\", response=\"6629fae49393a05397450978507c4ef1\", algorithm=MD5, cnonce=\"0a4f113b\", \
         qop=auth, nc=00000001, opaque=\"5ccc069c403ebaf9f0171e9517f40e41\""
    );
}

/// RFC 2069 §2.4 with the response its errata 749 corrects.
#[test]
fn md5_without_qop_as_in_rfc_2069() {
    let mut session = session(Algorithm::Md5, "testrealm@host.com", "dcd98b7102dd2f0e8b11d0f600bfb0c093");
    session.qop = Qop::None;
    let value = authorize(
        &mut session,
        "Mufasa",
        Secret::Password(b"CircleOfLife"),
        Signed::bare("GET", "/dir/index.html"),
        "unused",
    );
    assert!(value.contains("response=\"1949323746fe6a43ef61f9606e7febea\""), "{value}");
    for absent in ["qop", "nc=", "cnonce", "unused", "opaque"] {
        assert!(!value.contains(absent), "{absent} in {value}");
    }
}

/// RFC 7616 §3.9.1, and §3.9.2 with the response its errata 4897 corrects.
#[test]
fn each_algorithm_as_in_rfc_7616() {
    let vectors = [
        (Algorithm::Md5, "8ca523f5e9506fed4657c9700eebdbec"),
        (Algorithm::Sha256, "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ];
    for (algorithm, response) in vectors {
        let mut session = session(algorithm, "http-auth@example.org", "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v");
        let cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";
        let value = authorize(
            &mut session,
            "Mufasa",
            Secret::Password(b"Circle of Life"),
            Signed::bare("GET", "/dir/index.html"),
            cnonce,
        );
        assert!(value.contains(&format!("response=\"{response}\", algorithm={}", algorithm.as_str())), "{value}");
    }

    let mut session = session(Algorithm::Sha512256, "api@example.org", "5TsQWLVdgBdmrQ0XsxbDODV+57QdFR34I9HAbC/RVvkK");
    let value = authorize(
        &mut session,
        "J\u{e4}s\u{f8}n Doe",
        Secret::Password(b"Secret, or not?"),
        Signed::bare("GET", "/doe.json"),
        "NTg6RKcb9boFIAS3KrFK9BGeh+iDa/sm6jUMp2wds69v",
    );
    let response = "3798d4131c277846293534c3edc11bd8a5e4cdcbff78b05db9d95eeb1cec68a5";
    assert!(value.contains(&format!("response=\"{response}\", algorithm=SHA-512-256")), "{value}");
    assert!(value.contains("username=\"J\u{e4}s\u{f8}n Doe\""), "{value}");
}

/// FIPS 180-4, the one-block message of NIST's examples: SHA-512/256 is no truncated SHA-512.
#[test]
fn sha_512_256_is_the_real_one() {
    let expected = "53048e2681941ef99b2e29b76b4c7dabe4c2d0c634fc6d46e0e2f13107e7af23";
    assert_eq!(*hash(Algorithm::Sha512256, &[b"abc"]), expected);
}

#[test]
fn ha1_stands_for_the_password() {
    for algorithm in [Algorithm::Md5, Algorithm::Sha256, Algorithm::Sha512256] {
        let (mut one, mut other) = (session(algorithm, "büro", "n"), session(algorithm, "büro", "n"));
        let key = ha1(algorithm, "zoë", "büro", "päss".as_bytes());
        assert_eq!(
            authorize(&mut one, "zoë", Secret::Ha1(&key), Signed::bare("REGISTER", "sip:example.com"), "c"),
            authorize(
                &mut other,
                "zoë",
                Secret::Password("päss".as_bytes()),
                Signed::bare("REGISTER", "sip:example.com"),
                "c"
            ),
        );
    }
}

#[test]
fn the_nonce_count_goes_on_in_eight_hexadecimal_digits() {
    let mut session = session(Algorithm::Md5, "r", "n");
    session.nc = 0x0009_fffe;
    for expected in ["nc=0009ffff", "nc=000a0000"] {
        let value = authorize(&mut session, "u", Secret::Password(b"p"), Signed::bare("REGISTER", "sip:r"), "c");
        assert!(value.ends_with(expected), "{value}");
    }
}

#[test]
fn quotes_in_a_user_name_are_escaped_and_what_the_server_sent_goes_back_as_it_came() {
    let mut session = session(Algorithm::Md5, r#"a \"b\" \c"#, "n");
    session.realm.push(0xfc);
    let key = ha1(Algorithm::Md5, r#"d"e\"#, b"a \\\"b\\\" \\c\xfc", b"p");
    let register = Signed::bare("REGISTER", "sip:r");
    let value = session.authorize(r#"d"e\"#, Secret::Password(b"p"), register, "c");
    let expected = b"Digest username=\"d\\\"e\\\\\", realm=\"a \\\"b\\\" \\c\xfc\", nonce=\"n\"";
    assert!(value.starts_with(expected), "{}", String::from_utf8_lossy(&value));
    let again = Session { nc: 0, ..session }.authorize(r#"d"e\"#, Secret::Ha1(&key), register, "c");
    assert_eq!(value, again);
}

/// The values were computed with another implementation (Python's hashlib).
#[test]
fn session_keys_and_bodies_are_signed_as_rfc_7616_has_it() {
    let register = Signed::bare("REGISTER", "sip:pbx.example");
    let sign = |algorithm, session: bool, qop, body: &'static [u8]| {
        let mut it = Session { qop, session: session.then(String::new), ..self::session(algorithm, "pbx", "n0nce") };
        authorize(&mut it, "alice", Secret::Password(b"secret"), Signed { body, ..register }, "c0")
    };
    for (value, response, rest) in [
        (
            sign(Algorithm::Md5, true, Qop::Auth, b""),
            "6db03d947be09df5114d34da5e40f222",
            "algorithm=MD5-sess, cnonce=\"c0\", qop=auth, nc=00000001",
        ),
        (
            sign(Algorithm::Md5, true, Qop::None, b""),
            "1f8b406a915e8132b038051701f504ce",
            "algorithm=MD5-sess, cnonce=\"c0\"",
        ),
        (
            sign(Algorithm::Md5, false, Qop::AuthInt, b""),
            "70194a3431186cdd6e4a18338378af75",
            "algorithm=MD5, cnonce=\"c0\", qop=auth-int, nc=00000001",
        ),
        (
            sign(Algorithm::Md5, false, Qop::AuthInt, b"v=0"),
            "30a50b14627cd59e7f287f2767cfdba2",
            "qop=auth-int, nc=00000001",
        ),
        (
            sign(Algorithm::Sha256, true, Qop::AuthInt, b""),
            "12909555666c799190bcc78b079bd02e45614e4a824bbf5c09eeafed4e5568e1",
            "algorithm=SHA-256-sess, cnonce=\"c0\", qop=auth-int",
        ),
        (
            sign(Algorithm::Sha512256, true, Qop::Auth, b""),
            "ce53b16c09b9d56bb011c404e97ecf174e4989bd4ee2ebcad94bd690e8f1e49f",
            "algorithm=SHA-512-256-sess",
        ),
    ] {
        assert!(value.contains(&format!("response=\"{response}\"")) && value.contains(rest), "{value}");
    }
}

#[test]
fn a_session_keeps_the_client_nonce_its_key_was_made_with() {
    let mut session = Session { session: Some(String::new()), ..session(Algorithm::Sha256, "r", "n") };
    let register = Signed::bare("REGISTER", "sip:r");
    let first = authorize(&mut session, "u", Secret::Password(b"p"), register, "c1");
    let second = authorize(&mut session, "u", Secret::Password(b"p"), register, "c2");
    assert!(first.contains("cnonce=\"c1\", qop=auth, nc=00000001"), "{first}");
    assert!(second.contains("cnonce=\"c1\", qop=auth, nc=00000002"), "{second}");
    session.handle_authentication_info(b"nextnonce=\"next\"");
    assert_eq!(session.nonce, b"n", "the next challenge brings another nonce");
}

#[test]
fn the_strongest_usable_challenge_is_chosen() {
    let offered = [
        challenge_of("a", Some(Algorithm::Md5), Qop::Auth),
        challenge_of("a", Some(Algorithm::Sha512256), Qop::Auth),
        challenge_of("a", Some(Algorithm::Sha256), Qop::Auth),
    ];
    let choose = |usable: &dyn Fn(&[u8], Algorithm) -> bool| Session::choose(offered.iter().cloned(), usable);
    let algorithm = |session: Option<Session>| session.map(|session| session.algorithm);
    assert_eq!(algorithm(choose(&|_, _| true)), Some(Algorithm::Sha512256));
    assert_eq!(algorithm(choose(&|_, a| a != Algorithm::Sha512256)), Some(Algorithm::Sha256));
    assert_eq!(algorithm(choose(&|realm, _| realm == b"b")), None);
}

#[test]
fn the_realm_that_is_known_is_chosen_and_a_qop_is_preferred() {
    let offered = [
        challenge_of("foreign", Some(Algorithm::Sha256), Qop::Auth),
        challenge_of("ours", Some(Algorithm::Md5), Qop::None),
        challenge_of("ours", Some(Algorithm::Md5), Qop::Auth),
    ];
    let chosen = Session::choose(offered.into_iter(), |realm, _| realm == b"ours").expect("one is usable");
    assert_eq!((&*chosen.realm, chosen.algorithm, chosen.qop), (&b"ours"[..], Algorithm::Md5, Qop::Auth));
    assert_eq!((chosen.nc, chosen.opaque), (0, None));
}

#[test]
fn what_we_cannot_sign_is_refused() {
    let refused = [
        challenge_of("r", None, Qop::Auth),
        challenge_of("r", Some(Algorithm::Md5), Qop::Unsupported),
        Challenge {
            nonce: Cow::Owned(vec![b'n'; NONCE_MAX + 1]),
            ..challenge_of("r", Some(Algorithm::Md5), Qop::Auth)
        },
        Challenge {
            opaque: Some(Cow::Owned(vec![b'o'; OPAQUE_MAX + 1])),
            ..challenge_of("r", Some(Algorithm::Md5), Qop::Auth)
        },
        Challenge { realm: Cow::Borrowed(b"r\r\nX: y"), ..challenge_of("r", Some(Algorithm::Md5), Qop::Auth) },
    ];
    for challenge in refused {
        assert_eq!(Session::choose(std::iter::once(challenge), |_, _| true), None);
    }
    let longest =
        Challenge { nonce: Cow::Owned(vec![b'n'; NONCE_MAX]), ..challenge_of("r", Some(Algorithm::Md5), Qop::Auth) };
    assert!(Session::choose(std::iter::once(longest), |_, _| true).is_some());
}

#[test]
fn nextnonce_starts_a_new_count() {
    let mut session = session(Algorithm::Md5, "r", "old");
    session.nc = 9;
    session.handle_authentication_info(br#"rspauth="0,1", qop=auth , NextNonce = "new \"one\"" , nc=00000009"#);
    assert_eq!((&*session.nonce, session.nc), (&br#"new \"one\""#[..], 0));
}

#[test]
fn a_bad_authentication_info_changes_nothing() {
    let long = format!("nextnonce=\"{}\"", "n".repeat(NONCE_MAX + 1));
    let bad: [&[u8]; 6] = [b"", b"nextnonce", b"nextnonce=\"open", b"qop=auth", b"nextnonce=a\\", long.as_bytes()];
    for value in bad {
        let before = Session { nc: 9, ..session(Algorithm::Md5, "r", "old") };
        let mut after = before.clone();
        after.handle_authentication_info(value);
        assert_eq!(after, before);
    }
}

#[test]
fn the_right_answer_is_accepted_and_any_other_refused() {
    let key = ha1(Algorithm::Md5, "Mufasa", "testrealm@host.com", b"Circle Of Life");
    let right = Credentials {
        username: Cow::Borrowed("Mufasa"),
        realm: Cow::Borrowed("testrealm@host.com"),
        nonce: Cow::Borrowed("dcd98b7102dd2f0e8b11d0f600bfb0c093"),
        uri: Cow::Borrowed("/dir/index.html"),
        response: "6629fae49393a05397450978507c4ef1",
        algorithm: Some(Algorithm::Md5),
        qop_auth: true,
        cnonce: Some(Cow::Borrowed("0a4f113b")),
        nc: Some(1),
    };
    let accepted = |credentials: &Credentials<'_>| verify(credentials, &key, Algorithm::Md5, "GET");
    assert!(accepted(&right));
    assert!(accepted(&Credentials { response: "6629FAE49393A05397450978507C4EF1", ..right.clone() }));

    assert!(!verify(&right, &key, Algorithm::Md5, "POST"));
    assert!(!verify(&right, &key, Algorithm::Sha256, "GET"));
    let wrong = [
        Credentials { response: "6629fae49393a05397450978507c4ef2", ..right.clone() },
        Credentials { response: "6629fae49393a05397450978507c4ef", ..right.clone() },
        Credentials { response: "", ..right.clone() },
        Credentials { nc: Some(2), ..right.clone() },
        Credentials { nc: None, ..right.clone() },
        Credentials { cnonce: None, ..right.clone() },
        Credentials { qop_auth: false, ..right.clone() },
        Credentials { algorithm: None, ..right.clone() },
        Credentials { uri: Cow::Borrowed("/dir/index.htm"), ..right.clone() },
        Credentials { nonce: Cow::Borrowed("d"), ..right.clone() },
    ];
    for (index, credentials) in wrong.iter().enumerate() {
        assert!(!accepted(credentials), "wrong answer {index}");
    }
}

#[test]
fn our_own_challenge_is_short_and_escaped() {
    assert_eq!(
        challenge("edge \"1\"", "abc", Algorithm::Md5, false),
        r#"Digest realm="edge \"1\"",nonce="abc",algorithm=MD5,qop="auth""#
    );
    assert!(challenge("r", "n", Algorithm::Sha256, true).ends_with(",algorithm=SHA-256,qop=\"auth\",stale=true"));
}

#[test]
fn phones_that_count_in_capitals_are_understood() {
    let key = ha1(Algorithm::Md5, "u", "r", b"p");
    let proof = Proof { nonce: b"n", count: Some(("0000000A", "c")), method: "REGISTER", uri: "sip:r", body: None };
    let response = proof.response(Algorithm::Md5, &key);
    let credentials = Credentials {
        username: Cow::Borrowed("u"),
        realm: Cow::Borrowed("r"),
        nonce: Cow::Borrowed("n"),
        uri: Cow::Borrowed("sip:r"),
        response: &response,
        algorithm: Some(Algorithm::Md5),
        qop_auth: true,
        cnonce: Some(Cow::Borrowed("c")),
        nc: Some(10),
    };
    assert!(verify(&credentials, &key, Algorithm::Md5, "REGISTER"));
    assert!(!verify(&Credentials { nc: Some(11), ..credentials }, &key, Algorithm::Md5, "REGISTER"));
}

#[test]
fn the_hasher_wipes_itself() {
    fn wipes<T: zeroize::ZeroizeOnDrop>() {}
    wipes::<Md5>();
}

proptest! {
    /// Both sides of ours, with the parser between them, agree on any user, realm and password.
    #[test]
    fn what_is_signed_is_verified(
        user in "\\PC{0,16}",
        realm in "[\\PC&&[^\"\\\\]]{0,16}",
        password in proptest::collection::vec(any::<u8>(), 0..24),
        uri in "[!-~]{1,30}",
        strength in 0..3_usize,
        with_qop in any::<bool>(),
    ) {
        let algorithm = [Algorithm::Md5, Algorithm::Sha256, Algorithm::Sha512256][strength];
        let qop = if with_qop { Qop::Auth } else { Qop::None };
        let mut session = Session { qop, ..session(algorithm, &realm, "a+b/c=") };
        let signed = Signed::bare("REGISTER", &uri);
        let value = authorize(&mut session, &user, Secret::Password(&password), signed, "cnonce");
        let credentials = Credentials::parse(value.as_bytes()).expect("what we write, we read");
        prop_assert_eq!(&credentials.username, &user);
        prop_assert_eq!(&credentials.realm, &realm);
        prop_assert_eq!(&credentials.uri, &uri);
        let right = ha1(algorithm, &user, &realm, &password);
        prop_assert!(verify(&credentials, &right, algorithm, "REGISTER"));
        let wrong = ha1(algorithm, &user, &realm, &[&password[..], b"x"].concat());
        prop_assert!(!verify(&credentials, &wrong, algorithm, "REGISTER"));
        prop_assert!(!verify(&credentials, &right, algorithm, "INVITE"));
    }

    #[test]
    fn no_authentication_info_disturbs_it(value in proptest::collection::vec(any::<u8>(), 0..80)) {
        let mut session = session(Algorithm::Md5, "r", "n");
        session.handle_authentication_info(&value);
        session.handle_authentication_info(&[b"nextnonce=".as_slice(), &value].concat());
        prop_assert!(carriable(&session.nonce, NONCE_MAX));
    }
}

fn authorize(session: &mut Session, user: &str, secret: Secret<'_>, signed: Signed<'_>, cnonce: &str) -> String {
    String::from_utf8(session.authorize(user, secret, signed, cnonce)).expect("texts alone")
}

fn session(algorithm: Algorithm, realm: &str, nonce: &str) -> Session {
    let (realm, nonce) = (realm.into(), nonce.into());
    Session { proxy: false, realm, nonce, opaque: None, algorithm, session: None, qop: Qop::Auth, nc: 0 }
}

fn challenge_of(realm: &'static str, algorithm: Option<Algorithm>, qop: Qop) -> Challenge<'static> {
    Challenge {
        proxy: false,
        realm: realm.as_bytes().into(),
        nonce: b"nonce".into(),
        opaque: None,
        algorithm,
        session: false,
        algorithm_text: "".into(),
        qop,
        qop_text: "".into(),
        stale: false,
    }
}
