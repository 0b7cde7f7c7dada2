//! The vault as a whole: what it keeps, shows, compares and forgets.

use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};

use aws_lc_rs::digest;
use md5::{Digest as _, Md5};

use super::scrub::{DEPTH, depth_of, seen};
use super::slot::ROOM;
use super::*;

/// Does not compile if `$secret` implements `$forbidden`: the call would be ambiguous.
macro_rules! assert_not {
    ($forbidden:path: $($secret:ty),+) => {{
        trait Unambiguous<Marker> {
            fn holds() {}
        }
        impl<T> Unambiguous<()> for T {}
        impl<T: $forbidden> Unambiguous<u8> for T {}
        $(<$secret as Unambiguous<_>>::holds();)+
    }};
}

#[test]
fn secrets_cannot_be_printed_copied_or_stored() {
    assert_not!(Debug: Password, Ha1, Material, Lent<'static>, Sealed, Vault, ProcessKey, Slot);
    assert_not!(std::fmt::Display: Password, Ha1, Material, Lent<'static>, Sealed, Vault, ProcessKey, Slot);
    assert_not!(Clone: Password, Ha1, Material, CredentialId, WipeReceipt, Sealed, Vault, ProcessKey, Slot);
    assert_not!(serde::Serialize: Password, Ha1, Material, Sealed, Vault, ProcessKey, Slot);
}

#[test]
fn a_wiped_place_is_used_again_and_the_others_keep_their_content() {
    let mut vault = Vault::plain();
    let first = vault.admit(password("one"), Keep::UntilAccepted);
    let second = vault.admit(password("two"), Keep::UntilAccepted);
    let _proof = vault.wipe(first);
    assert_eq!(vault.len(), 1);

    let third = vault.admit(password("three"), Keep::UntilAccepted);

    assert_eq!(vault.len(), 2);
    assert_eq!(shown(&vault, &second, "r", Ha1Algorithm::Md5), "password two");
    assert_eq!(shown(&vault, &third, "r", Ha1Algorithm::Md5), "password three");
    assert_eq!(vault.places.len(), 2);
}

#[test]
fn a_duplicate_holds_the_same_and_outlives_its_original() {
    let mut vault = Vault::plain();
    let typed = vault.admit(password("secret"), Keep::UntilAccepted);
    let copy = vault.duplicate(&typed);
    distill(&mut vault, &typed, "r", &[Ha1Algorithm::Md5]);
    let hashed = vault.duplicate(&typed);
    assert_eq!((held(&vault, &copy).as_str(), held(&vault, &hashed).as_str()), ("password", "r Md5"));
    let known = shown(&vault, &typed, "r", Ha1Algorithm::Md5);

    let _proof = vault.wipe(typed);

    assert_eq!(shown(&vault, &hashed, "r", Ha1Algorithm::Md5), known);
    assert_eq!(shown(&vault, &copy, "r", Ha1Algorithm::Md5), "password secret");
}

#[test]
fn hashes_are_completed_by_those_of_the_same_password_and_a_password_by_nothing() {
    let mut vault = Vault::plain();
    let more = vault.admit(password("secret"), Keep::UntilAccepted);
    distill(&mut vault, &more, "r", &[Ha1Algorithm::Md5, Ha1Algorithm::Sha256]);
    let less = vault.admit(password("secret"), Keep::UntilAccepted);
    distill(&mut vault, &less, "r", &[Ha1Algorithm::Sha256]);
    let typed = vault.admit(password("secret"), Keep::UntilAccepted);

    vault.complete(&less, &more);
    vault.complete(&typed, &more);

    assert_eq!(held(&vault, &less), "r Sha256, r Md5");
    assert_eq!(shown(&vault, &less, "r", Ha1Algorithm::Md5), shown(&vault, &more, "r", Ha1Algorithm::Md5));
    assert_eq!(held(&vault, &typed), "password");
    assert!(vault.is_undistilled(&typed) && !vault.is_undistilled(&less));
}

#[test]
fn distilling_puts_ha1_in_the_place_of_the_password() {
    let mut vault = Vault::plain();
    let id = vault.admit(password("secret"), Keep::UntilAccepted);

    distill(&mut vault, &id, "r", &[]);
    assert_eq!(held(&vault, &id), "password", "nothing to put in its place");
    distill(&mut vault, &id, "r", &[Ha1Algorithm::Sha256, Ha1Algorithm::Sha512256]);

    assert_eq!(held(&vault, &id), "r Sha256, r Sha512256");
    assert_eq!(shown(&vault, &id, "r", Ha1Algorithm::Sha256), toy_ha1(b"secret", b"r", Ha1Algorithm::Sha256).as_str());
    assert!(!vault.answers(&id, b"r", Ha1Algorithm::Md5));
    assert!(!vault.answers(&id, b"s", Ha1Algorithm::Sha256));
    assert!(vault.lend(&id, b"r", Ha1Algorithm::Md5, |_| ()).is_none());
    assert!(vault.lend(&id, b"s", Ha1Algorithm::Sha256, |_| ()).is_none());
    distill(&mut vault, &id, "s", &[Ha1Algorithm::Md5]);
    assert_eq!(held(&vault, &id), "r Sha256, r Sha512256", "there is no password any more");
}

#[test]
fn all_realms_are_distilled_before_the_password_goes_and_the_last_stay() {
    let mut vault = Vault::plain();
    let id = vault.admit(password("secret"), Keep::UntilAccepted);
    vault.distill(&id, &[(b"p", Ha1Algorithm::Md5), (b"r\xfc", Ha1Algorithm::Sha256)], toy_ha1);
    assert_eq!(held(&vault, &id), "p Md5, r\u{fffd} Sha256");
    assert!(vault.answers(&id, b"r\xfc", Ha1Algorithm::Sha256));

    let many = vault.admit(password("secret"), Keep::UntilAccepted);
    let realms: Vec<[u8; 1]> = (b'a'..=b'k').map(|realm| [realm]).collect();
    let wanted: Vec<_> = realms.iter().map(|realm| (&realm[..], Ha1Algorithm::Md5)).collect();
    vault.distill(&many, &wanted, toy_ha1);
    assert_eq!(held(&vault, &many).matches("Md5").count(), HA1S_MAX);
    assert!(vault.answers(&many, b"k", Ha1Algorithm::Md5) && !vault.answers(&many, b"a", Ha1Algorithm::Md5));
}

#[test]
fn a_password_that_is_kept_answers_what_its_ha1s_do_not() {
    let mut vault = Vault::plain();
    let id = vault.admit(password("secret"), Keep::Always);
    distill(&mut vault, &id, "r", &[Ha1Algorithm::Sha256]);

    assert_eq!(held(&vault, &id), "password, r Sha256");
    assert_eq!(
        shown(&vault, &id, "r", Ha1Algorithm::Sha256),
        toy_ha1(b"secret", b"r", Ha1Algorithm::Sha256).as_str(),
        "the hash where there is one"
    );
    assert_eq!(shown(&vault, &id, "r", Ha1Algorithm::Md5), "password secret");
    distill(&mut vault, &id, "s", &[Ha1Algorithm::Md5]);
    vault.distill(&id, &[(b"s", Ha1Algorithm::Md5)], |_, _, _| unreachable!("made before"));
    assert_eq!(held(&vault, &id), "password, r Sha256, s Md5");
}

#[test]
fn where_a_further_ha1_finds_no_room_the_oldest_goes() {
    let mut vault = Vault::plain();
    let id = vault.admit(password("secret"), Keep::Always);
    for realm in 0..=HA1S_MAX {
        distill(&mut vault, &id, &realm.to_string(), &[Ha1Algorithm::Md5]);
    }
    let (_, hashes) = vault.holds(&id);
    let realms: Vec<String> = hashes.map(|(realm, _)| String::from_utf8_lossy(realm).into_owned()).collect();
    assert_eq!(realms, (1..=HA1S_MAX).map(|realm| realm.to_string()).collect::<Vec<_>>());
    for realm in realms {
        assert_eq!(
            shown(&vault, &id, &realm, Ha1Algorithm::Md5),
            toy_ha1(b"secret", realm.as_bytes(), Ha1Algorithm::Md5).as_str()
        );
    }
}

#[test]
fn every_slot_is_of_one_size_and_shows_nothing_of_its_content() {
    let mut vault = Vault::plain();
    let longest = "x".repeat(PASSWORD_BYTES_MAX);
    for text in ["", "a", longest.as_str()] {
        let id = vault.admit(password(text), Keep::UntilAccepted);
        let slot = vault.credential(&id).password.as_ref().expect("a password");
        assert_eq!(slot.sealed().len(), ROOM + SEAL_OVERHEAD);
        assert!(!slot.sealed().windows(8).any(|window| window == b"xxxxxxxx" || window == [0; 8]));
        assert_eq!(shown(&vault, &id, "r", Ha1Algorithm::Md5), format!("password {text}"));
    }
    assert!(Password::new(Zeroizing::new(vec![b'x'; PASSWORD_BYTES_MAX + 1])).is_none());
}

#[test]
fn equal_passwords_are_sealed_differently() {
    let mut vault = Vault::plain();
    let (a, b) =
        (vault.admit(password("same"), Keep::UntilAccepted), vault.admit(password("same"), Keep::UntilAccepted));
    let sealed = |id| vault.credential(id).password.as_ref().expect("a password").sealed();
    assert_ne!(sealed(&a), sealed(&b));
}

#[test]
fn vaults_that_share_a_key_never_share_a_nonce() {
    let key = ProcessKey::plain();
    let (mut one, mut other) = (Vault::new(Arc::clone(&key)), Vault::new(key));
    let (a, b) = (one.admit(password("same"), Keep::UntilAccepted), other.admit(password("same"), Keep::UntilAccepted));
    let sealed = |vault: &Vault, id| vault.credential(id).password.as_ref().expect("a password").sealed().to_vec();
    assert_ne!(sealed(&one, &a), sealed(&other, &b), "same key, same place, same password");
}

#[test]
fn what_was_lent_is_gone_when_the_lending_ends_even_by_a_panic() {
    let mut vault = Vault::plain();
    let text = "a password of more than thirty-two bytes";
    let id = vault.admit(password(text), Keep::UntilAccepted);
    let mut place = 0;
    let mut view = vec![0; text.len()];
    let lend = |place: &mut usize, end: fn()| {
        vault.lend(&id, b"r", Ha1Algorithm::Md5, |lent| {
            let Lent::Password(bytes) = lent else { unreachable!("a password") };
            *place = bytes.as_ptr() as usize;
            end();
        })
    };
    lend(&mut place, || {}).expect("a password");
    seen(place, &mut view);
    assert!(!any_window(&view, text));

    let panicked = catch_unwind(AssertUnwindSafe(|| lend(&mut place, || std::panic::resume_unwind(Box::new(())))));
    assert!(panicked.is_err());
    seen(place, &mut view);
    assert!(!any_window(&view, text));
}

#[test]
fn a_lend_leaves_nothing_deeper_than_what_is_overwritten() {
    let mut vault = Vault::plain();
    let id = vault.admit(password("secret"), Keep::Always);
    distill(&mut vault, &id, "r", &[Ha1Algorithm::Sha512256]);
    for realm in ["r", "another"] {
        let key = &*vault.key;
        let credential = vault.credential(&id);
        let slot = if realm == "r" { &credential.hashes } else { &credential.password };
        let slot = slot.as_ref().expect("sealed");
        let used = depth_of(|| {
            slot.open(key, id.0 as u64, |plain| {
                let mut context = digest::Context::new(&digest::SHA512_256);
                context.update(plain);
                std::hint::black_box(context.finish());
                let mut hasher = Md5::new();
                hasher.update(plain);
                std::hint::black_box(hasher.finalize_reset());
            });
        });
        assert!((1..DEPTH / 2).contains(&used), "{used} bytes of {DEPTH}");
    }
}

#[test]
fn what_is_weaker_than_the_accepted_algorithm_is_forgotten_in_its_realm_only() {
    let mut vault = Vault::plain();
    let values = vec![
        ha1("r", Ha1Algorithm::Md5, 1),
        ha1("r", Ha1Algorithm::Sha256, 2),
        ha1("r", Ha1Algorithm::Sha512256, 3),
        ha1("s", Ha1Algorithm::Md5, 4),
    ];
    let id = vault.admit(Material::Ha1(values), Keep::UntilAccepted);

    vault.forget_weaker(&id, b"r", Ha1Algorithm::Sha256);

    assert_eq!(held(&vault, &id), "r Sha256, r Sha512256, s Md5");
    assert_eq!(shown(&vault, &id, "s", Ha1Algorithm::Md5), "04".repeat(16));
    assert_eq!(shown(&vault, &id, "r", Ha1Algorithm::Sha512256), "03".repeat(32));
}

#[test]
fn passwords_match_when_they_are_equal() {
    let mut vault = Vault::plain();
    let [a, b, c, d] = ["same", "same", "other", "same\0"].map(|text| vault.admit(password(text), Keep::UntilAccepted));

    assert!(vault.matches(&a, &b, toy_ha1));
    assert!(!vault.matches(&a, &c, toy_ha1));
    assert!(!vault.matches(&a, &d, toy_ha1));
}

#[test]
fn a_password_matches_ha1s_that_are_all_its_own() {
    let mut vault = Vault::plain();
    let typed = vault.admit(password("pw"), Keep::UntilAccepted);
    let own = vault.admit(password("pw"), Keep::UntilAccepted);
    distill(&mut vault, &own, "r", &[Ha1Algorithm::Md5, Ha1Algorithm::Sha256]);
    let own_for_r = Ha1::new(*b"r", Ha1Algorithm::Md5, toy_ha1(b"pw", b"r", Ha1Algorithm::Md5)).expect("a hash");
    let half = vault.admit(Material::Ha1(vec![own_for_r, ha1("s", Ha1Algorithm::Md5, 0)]), Keep::UntilAccepted);

    assert!(vault.matches(&typed, &own, toy_ha1));
    assert!(vault.matches(&own, &typed, toy_ha1));
    assert!(!vault.matches(&typed, &half, toy_ha1));
}

#[test]
fn ha1s_match_on_a_common_realm_and_never_on_none() {
    let mut vault = Vault::plain();
    let mut admit = |values| vault.admit(Material::Ha1(values), Keep::UntilAccepted);
    let kept = admit(vec![ha1("r", Ha1Algorithm::Md5, 0x0a), ha1("s", Ha1Algorithm::Md5, 0x0b)]);
    let capitals = Ha1::new(*b"r", Ha1Algorithm::Md5, Zeroizing::new("0A".repeat(16))).expect("a hash");
    let same_in_capitals = admit(vec![capitals]);
    let others = [
        admit(vec![ha1("r", Ha1Algorithm::Md5, 0x0c)]),
        admit(vec![ha1("t", Ha1Algorithm::Md5, 0x0a)]),
        admit(vec![ha1("r", Ha1Algorithm::Sha256, 0x0a)]),
        admit(Vec::new()),
    ];

    assert!(vault.matches(&kept, &same_in_capitals, toy_ha1));
    assert_eq!(shown(&vault, &same_in_capitals, "r", Ha1Algorithm::Md5), "0a".repeat(16), "shown as RFC 7616 wants it");
    for other in &others {
        assert!(!vault.matches(&kept, other, toy_ha1));
    }
}

#[test]
fn a_hash_that_is_none_is_not_taken() {
    for (algorithm, value) in [
        (Ha1Algorithm::Md5, "0".repeat(64)),
        (Ha1Algorithm::Sha256, "0".repeat(32)),
        (Ha1Algorithm::Sha256, "g".repeat(64)),
        (Ha1Algorithm::Md5, String::new()),
    ] {
        assert!(Ha1::new(*b"r", algorithm, Zeroizing::new(value)).is_none());
    }
}

#[test]
fn copies_are_kept_by_the_debug_switch_alone_and_bounded() {
    let mut vault = Vault::plain();
    let _ = vault.admit(password("before"), Keep::UntilAccepted);
    assert!(vault.copies.is_none());
    vault.dangerously_keep_copies();
    for number in 0..=COPIES_MAX {
        let id = vault.admit(password(&number.to_string()), Keep::UntilAccepted);
        let _ = vault.wipe(id);
    }
    let copies = vault.copies.as_ref().expect("switched on");
    assert_eq!(copies.len(), COPIES_MAX);
    assert_eq!((copies[0].as_slice(), copies[COPIES_MAX - 1].as_slice()), (&b"1"[..], &b"1024"[..]));
}

fn password(text: &str) -> Material {
    Material::Password(Password::new(Zeroizing::new(text.as_bytes().to_vec())).expect("it fits"))
}

fn ha1(realm: &str, algorithm: Ha1Algorithm, byte: u8) -> Ha1 {
    let value = Zeroizing::new(format!("{byte:02x}").repeat(algorithm.hash_len()));
    Ha1::new(realm.as_bytes(), algorithm, value).expect("a hash")
}

fn distill(vault: &mut Vault, id: &CredentialId, realm: &str, algorithms: &[Ha1Algorithm]) {
    let wanted: Vec<_> = algorithms.iter().map(|algorithm| (realm.as_bytes(), *algorithm)).collect();
    vault.distill(id, &wanted, toy_ha1);
}

/// Distinguishes password, realm and algorithm; that is all a comparison needs.
fn toy_ha1(password: &[u8], realm: &[u8], algorithm: Ha1Algorithm) -> Zeroizing<String> {
    let realm = String::from_utf8_lossy(realm);
    let mut text = format!("{password:02x?}{realm}").bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    text.extend(std::iter::repeat_n('f', 64));
    text.truncate(2 * algorithm.hash_len());
    Zeroizing::new(text)
}

/// What can be told without opening anything.
fn held(vault: &Vault, id: &CredentialId) -> String {
    let (password, hashes) = vault.holds(id);
    let hashes = hashes.map(|(realm, algorithm)| format!("{} {algorithm:?}", String::from_utf8_lossy(realm)));
    password.then(|| "password".to_owned()).into_iter().chain(hashes).collect::<Vec<_>>().join(", ")
}

fn shown(vault: &Vault, id: &CredentialId, realm: &str, algorithm: Ha1Algorithm) -> String {
    let lent = vault.lend(id, realm.as_bytes(), algorithm, |lent| match lent {
        Lent::Password(bytes) => format!("password {}", String::from_utf8_lossy(bytes)),
        Lent::Ha1(hash) => hash.to_owned(),
    });
    lent.expect("something that answers")
}

/// Whether anything of the text stands there: any four bytes of it.
fn any_window(view: &[u8], text: &str) -> bool {
    text.as_bytes().windows(4).any(|window| view.windows(4).any(|other| other == window))
}
