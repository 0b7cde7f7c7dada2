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
    assert_eq!((&*full.realm, &*full.nonce), ("atlanta.com", "f84f1cec41e6cbe5aea9c8e88d359"));
    assert_eq!((full.opaque.as_deref(), full.algorithm, full.qop), (Some(""), Some(Algorithm::Sha256), Qop::Auth));
    assert!(!full.stale && !full.proxy);
}

#[test]
fn several_challenges_in_one_field_are_told_apart() {
    let field = "Basic realm=\"x, Digest y\", Digest realm=\"a\",nonce=\"1\" , algorithm=SHA-512-256, Negotiate, \
        NTLM TlRMTVNTUAABAAAA=, digest realm = \"b\" , nonce = \"2\"";
    let found = all(field);
    let read: Vec<_> = found.iter().map(|found| (&*found.realm, &*found.nonce, found.algorithm)).collect();
    assert_eq!(read, [("a", "1", Some(Algorithm::Sha512256)), ("b", "2", Some(Algorithm::Md5))]);
}

#[test]
fn what_we_do_not_compute_is_named_as_such() {
    assert_eq!(one("Digest realm=\"a\",nonce=\"1\",algorithm=MD5-sess").algorithm, None);
    assert_eq!(one("Digest realm=\"a\",nonce=\"1\",qop=\"auth-int\"").qop, Qop::Unsupported);
    assert_eq!(one("Digest realm=\"a\",nonce=\"1\",qop=\"\"").qop, Qop::Unsupported);
    assert_eq!(one("Digest realm=\"a\",nonce=\"1\"").qop, Qop::None);
}

#[test]
fn quotes_are_optional_where_peers_leave_them_off_or_put_them() {
    let bare = one("Digest realm=a,nonce=1,qop=auth,stale=\"true\",algorithm=\"md5\"");
    assert_eq!((&*bare.realm, bare.qop, bare.stale, bare.algorithm), ("a", Qop::Auth, true, Some(Algorithm::Md5)));
}

#[test]
fn escapes_and_utf_8_in_a_realm_are_read() {
    assert_eq!(one("Digest realm=\"a\\\"b\\\\c, ü\",nonce=\"1\"").realm, "a\"b\\c, ü");
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
        "realm=\"a\",nonce=\"1\"",
        "Basic realm=\"a\",nonce=\"1\"",
    ];
    for field in malformed {
        assert!(all(field).is_empty(), "{field}");
    }
    assert!(challenges(b"Digest realm=\"\xfc\",nonce=\"1\"", false).next().is_none());
    assert_eq!(all("Digest realm=\"a\", Digest realm=\"b\",nonce=\"2\"")[0].realm, "b");
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
