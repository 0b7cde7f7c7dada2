use super::*;

fn all(value: &str) -> Vec<Challenge<'_>> {
    challenges(value.as_bytes(), false).collect()
}

fn one(value: &str) -> Challenge<'_> {
    let mut found = all(value);
    assert_eq!(found.len(), 1, "{value}");
    found.remove(0)
}

#[test]
fn a_challenge_is_read_with_all_its_parameters() {
    let full = one("Digest realm=\"atlanta.com\", domain=\"sip:ss1.carrier.com\", qop=\"auth,auth-int\", \
        nonce=\"f84f1cec41e6cbe5aea9c8e88d359\", opaque=\"\", stale=FALSE, algorithm=SHA-256");
    assert_eq!((&*full.realm, &*full.nonce), (&b"atlanta.com"[..], &b"f84f1cec41e6cbe5aea9c8e88d359"[..]));
    assert_eq!(
        (full.opaque.as_deref(), full.algorithm, full.qop),
        (Some(&b""[..]), Some(Algorithm::Sha256), Qop::Auth)
    );
    assert!(!full.stale && !full.proxy);
}

#[test]
fn several_challenges_in_one_field_are_told_apart() {
    let field = "Basic realm=\"x, Digest y\", Digest realm=\"a\",nonce=\"1\" , algorithm=SHA-512-256, Negotiate, \
        NTLM TlRMTVNTUAABAAAA=, digest realm = \"b\" , nonce = \"2\"";
    let found = all(field);
    let read: Vec<_> =
        found.iter().map(|found| (text_of(&found.realm), text_of(&found.nonce), found.algorithm)).collect();
    assert_eq!(
        read,
        [("a".into(), "1".into(), Some(Algorithm::Sha512256)), ("b".into(), "2".into(), Some(Algorithm::Md5))]
    );
}

#[test]
fn what_we_do_not_compute_is_named_as_such() {
    let unknown = one("Digest realm=\"a\",nonce=\"1\",algorithm=\"SHA-512-sess\"");
    assert_eq!((unknown.algorithm, &*unknown.algorithm_text), (None, "SHA-512-sess"));
    let unknown = one("Digest realm=\"a\",nonce=\"1\",qop=\"auth-conf , x\"");
    assert_eq!((unknown.qop, &*unknown.qop_text), (Qop::Unsupported, "auth-conf , x"));
}

#[test]
fn session_forms_are_told_from_the_plain_ones() {
    for (name, algorithm, session) in [
        ("MD5-sess", Some(Algorithm::Md5), true),
        ("md5-SESS", Some(Algorithm::Md5), true),
        ("SHA-256-sess", Some(Algorithm::Sha256), true),
        ("SHA-512-256-sess", Some(Algorithm::Sha512256), true),
        ("SHA-512-256", Some(Algorithm::Sha512256), false),
        ("-sess", None, false),
        ("MD5-sess-sess", None, false),
        ("éé-sess", None, false),
    ] {
        let field = format!("Digest realm=\"a\",nonce=\"1\",algorithm=\"{name}\"");
        let read = one(&field);
        assert_eq!((read.algorithm, read.session), (algorithm, session), "{name}");
    }
}

#[test]
fn empty_parameters_are_absent_ones() {
    for field in [
        "Digest realm=\"a\",nonce=\"1\",qop=\"\",algorithm=\"\"",
        "Digest realm=\"a\",nonce=\"1\",qop=,algorithm=,opaque=,stale=",
        "Digest realm=\"a\",nonce=\"1\",qop=\" , \",algorithm=\" \"",
        "Digest realm=\"a\",nonce=\"1\",,domain=\"\",userhash=true,charset=UTF-8, ,",
    ] {
        let read = one(field);
        assert_eq!((read.qop, read.algorithm, read.session), (Qop::None, Some(Algorithm::Md5), false), "{field}");
        assert!(!read.stale && read.opaque.is_none(), "{field}");
    }
}

#[test]
fn a_qop_list_is_read_with_quotes_and_without() {
    for (list, qop) in [
        ("qop=\"auth,auth-int\"", Qop::Auth),
        ("qop=\"auth-int, AUTH\"", Qop::Auth),
        ("qop=auth,auth-int", Qop::Auth),
        ("qop=auth-int, auth", Qop::Auth),
        ("qop=Auth-Int", Qop::AuthInt),
        ("qop=\"auth-int\"", Qop::AuthInt),
        ("qop=auth-conf,auth-int", Qop::AuthInt),
        ("qop=\"auth-conf\"", Qop::Unsupported),
    ] {
        for field in
            [format!("Digest {list},realm=\"a\",nonce=\"1\""), format!("Digest realm=\"a\",nonce=\"1\",{list}")]
        {
            assert_eq!(one(&field).qop, qop, "{field}");
        }
    }
    let next = all("Digest realm=\"a\",nonce=\"1\",qop=auth, Negotiate, Digest realm=\"b\",nonce=\"2\"");
    assert_eq!(next.len(), 2, "another scheme is no option");
    assert!(all("Digest qop=auth,auth,auth,auth,auth,auth,auth,realm=\"a\",nonce=\"1\"").is_empty());
}

#[test]
fn quotes_are_optional_where_peers_leave_them_off_or_put_them() {
    let bare = one("Digest realm=a,nonce=1==,qop=auth,stale=\"TRUE\",algorithm=\"md5\"");
    assert_eq!((&*bare.realm, &*bare.nonce), (&b"a"[..], &b"1=="[..]));
    assert_eq!((bare.qop, bare.stale, bare.algorithm), (Qop::Auth, true, Some(Algorithm::Md5)));
}

#[test]
fn realm_nonce_and_opaque_stay_the_bytes_they_are() {
    let field = b"Digest realm=\"a\\\"b\\c, \xfc\",nonce=\"\xe9\",opaque=\"\\o\"";
    let read = challenges(field, false).next().expect("a challenge");
    assert_eq!((&*read.realm, &*read.nonce), (&b"a\\\"b\\c, \xfc"[..], &b"\xe9"[..]));
    assert_eq!(read.opaque.as_deref(), Some(&b"\\o"[..]));
    assert_eq!((text_of(b"M\xfcller"), text_of("Müller".as_bytes())), ("Müller".into(), "Müller".into()));
}

#[test]
fn a_parameter_that_stands_twice_may_not_differ() {
    assert_eq!(all("Digest realm=\"a\",nonce=\"1\",realm=\"a\",algorithm=MD5,algorithm=MD5").len(), 1);
    assert!(all("Digest realm=\"a\",nonce=\"1\",nonce=\"2\"").is_empty());
}

#[test]
fn malformed_challenges_are_skipped_and_the_next_one_is_found() {
    let malformed = [
        "",
        "Digest",
        "Digest realm=\"a\"",
        "Digest nonce=\"1\"",
        "Digest realm=\"a,nonce=\"1\"",
        "Digest realm=\"a\"x,nonce=\"1\"",
        "Digest realm=\"a\",nonce=\"1\",realm=\"b\"",
        "Digest realm=\"a\",nonce=\"1\",=",
        "Digest realm=\"a\",nonce=",
        "Digest realm=a\\,nonce=\"1\"",
        "realm=\"a\",nonce=\"1\"",
        "Basic realm=\"a\",nonce=\"1\"",
    ];
    for field in malformed {
        assert!(all(field).is_empty(), "{field}");
    }
    assert_eq!(&*all("Digest realm=\"a\", Digest realm=\"b\",nonce=\"2\"")[0].realm, b"b");
}

#[test]
fn credentials_are_read() {
    let field =
        b"Digest username=\"bob\", realm=\"biloxi.com\", nonce=\"dcd98b7102dd2f0e\", uri=\"sip:bob@biloxi.com\", \
        qop=auth, nc=00000a01, cnonce=\"0a4f113b\", response=\"6629fae49393a05397450978507c4ef1\", opaque=\"5ccc069c\"";
    let read = Credentials::parse(field).expect("credentials");
    assert_eq!(
        (&*read.username, &*read.uri, read.response),
        ("bob", "sip:bob@biloxi.com", "6629fae49393a05397450978507c4ef1")
    );
    assert_eq!((read.qop_auth, read.nc, read.cnonce.as_deref()), (true, Some(0xa01), Some("0a4f113b")));
    assert_eq!(read.algorithm, Some(Algorithm::Md5));
}

#[test]
fn credentials_that_could_be_checked_wrongly_are_refused() {
    let complete = "Digest username=\"a\",realm=\"b\",nonce=\"c\",uri=\"d\",response=\"e\"";
    assert!(Credentials::parse(complete.as_bytes()).is_some_and(|read| !read.qop_auth));
    let spoiled = [
        ",qop=auth-int,nc=00000001,cnonce=\"x\"",
        ",qop=auth",
        ",qop=auth,nc=1,cnonce=\"x\"",
        ",qop=auth,nc=+0000001,cnonce=\"x\"",
        ",qop=auth,nc=00000001",
        ",realm=\"z\"",
        ",Basic x=\"y\"",
    ];
    for extra in spoiled {
        assert!(Credentials::parse(format!("{complete}{extra}").as_bytes()).is_none(), "{extra}");
    }
    assert!(Credentials::parse(b"Basic dXNlcjpwYXNz").is_none());
    assert!(Credentials::parse(b"").is_none());
}

#[test]
fn algorithms_are_ordered_by_strength() {
    assert!(Algorithm::Md5 < Algorithm::Sha256 && Algorithm::Sha256 < Algorithm::Sha512256);
    assert_eq!(Algorithm::parse("sha-512-256"), Some(Algorithm::Sha512256));
    assert_eq!(Algorithm::parse("SHA-256-sess"), None);
}
