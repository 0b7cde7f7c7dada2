use super::*;

fn elements(value: &str) -> Vec<&str> {
    Elements::of_addresses(value.as_bytes()).map(|element| std::str::from_utf8(element).expect("text")).collect()
}

#[test]
fn commas_in_quotes_and_brackets_separate_nothing() {
    assert_eq!(
        elements(r#" "a, \", b" <sip:x,y@z?h=1,2>;p="c,d" ,<sip:b> "#),
        [r#""a, \", b" <sip:x,y@z?h=1,2>;p="c,d""#, "<sip:b>"]
    );
    assert_eq!(elements("a,,b,"), ["a", "", "b", ""]);
    assert_eq!(elements(" \t "), [""; 0]);
    assert_eq!(elements("\"open, a"), ["\"open, a"]);
    assert_eq!(elements("<open, a"), ["<open, a"]);
    assert_eq!(Elements::of_parameters(b"a=<,b=>").count(), 2);
}

#[test]
fn numbers_are_digits_only() {
    assert_eq!(number(b"0018446744073709551615"), Some(u64::MAX));
    for text in ["", "18446744073709551616", "-1", "+1", " 1", "1 ", "0x1", "1.0"] {
        assert_eq!(number(text.as_bytes()), None, "{text:?}");
    }
    assert_eq!(saturating_number(b"99999999999999999999999"), Some(u32::MAX));
    assert_eq!(saturating_number(b"1a"), None);
}

#[test]
fn an_escape_at_the_end_of_a_quoted_string_does_not_end_it() {
    assert_eq!(quoted(br#""a\"b"c"#), Some((&br#"a\"b"#[..], &b"c"[..])));
    assert_eq!(quoted(br#""a\\"c"#), Some((&br"a\\"[..], &b"c"[..])));
    assert_eq!(quoted(br#""a\"#), None);
    assert_eq!(quoted(br#""a\""#), None);
    assert_eq!(unquote(br#"\\a\""#), &br#"\a""#[..]);
}
