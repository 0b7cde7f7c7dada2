use super::*;

fn address(text: &str) -> Address<'_> {
    Address::parse(text.as_bytes()).expect("an address")
}

#[test]
fn without_brackets_parameters_belong_to_the_header_field() {
    let bare = address("sip:a@b;transport=tcp;tag=1");
    assert_eq!((bare.uri().raw(), bare.uri().param("transport")), (&b"sip:a@b"[..], None));
    assert_eq!((bare.param("transport"), bare.tag()), (Some(Some("tcp")), Some("1")));
    let bracketed = address("<sip:a@b;transport=tcp> ; tag = 1");
    assert_eq!((bracketed.uri().param("transport"), bracketed.param("transport")), (Some(Some("tcp")), None));
    assert_eq!(bracketed.tag(), Some("1"));
}

#[test]
fn display_names_are_read_in_each_form() {
    let name = |text: &'static str| address(text).display();
    assert_eq!(name("<sip:a@b>"), None);
    assert_eq!(name("sip:a@b"), None);
    assert_eq!(name("Bob <sip:a@b>").as_deref(), Some("Bob"));
    assert_eq!(name("J. Rosenberg (work)<sip:a@b>").as_deref(), Some("J. Rosenberg (work)"));
    assert_eq!(name(r#""A \"B\" \\ <x>, C;d" <sip:a@b>"#).as_deref(), Some(r#"A "B" \ <x>, C;d"#));
    assert_eq!(name(r#""" <sip:a@b>"#).as_deref(), Some(""));
}

#[test]
fn a_latin_1_name_does_not_make_the_address_malformed() {
    let raw = b"\"J\xfcrgen\" <sip:j@b>;tag=1";
    let latin = Address::parse(raw).expect("an address");
    assert_eq!(latin.display().as_deref(), Some("J\u{fc}rgen"));
    assert_eq!((latin.raw(), latin.tag()), (&raw[..], Some("1")));
}

#[test]
fn parameters_are_found_in_any_case_with_quotes_kept_off() {
    let contact =
        address("<sip:a@b>;+SIP.Instance=\"<urn:uuid:00000000-0000-0000-0000-000000000000>\";reg-id=1;ob;x=[::1]");
    assert_eq!(contact.param("+sip.instance"), Some(Some("<urn:uuid:00000000-0000-0000-0000-000000000000>")));
    assert_eq!((contact.param("OB"), contact.param("reg-id")), (Some(None), Some(Some("1"))));
    assert_eq!((contact.param("x"), contact.param("y")), (Some(Some("[::1]")), None));
}

#[test]
fn malformed_addresses_are_refused() {
    let malformed = [
        "",
        "*",
        "Bob",
        "<sip:a@b",
        "sip:a@b>",
        "< sip:a@b>",
        "<sip:a@b >",
        "<>",
        "\"Bob <sip:a@b>",
        "\"Bob\\\" <sip:a@b>",
        "\"Bob\" sip:a@b",
        "Bell, Alexander <sip:a@b>",
        "sip:a@b?Route=x",
        "sip:a,b@c",
        "<sip:a@b>;",
        "<sip:a@b>;;x",
        "<sip:a@b>;=1",
        "<sip:a@b>;tag=",
        "<sip:a@b>;tag=\"1",
        "<sip:a@b>x",
        "<sip:a@b>, <sip:c@d>",
    ];
    for text in malformed {
        assert!(Address::parse(text.as_bytes()).is_err(), "{text:?}");
    }
}
