use rustls::crypto::hpke::{EncapsulatedSecret, HpkePrivateKey};
use serde_json::Value;
use uuid::Uuid;

use super::*;
use crate::engine::ids::ShardId;

/// What RFC 9180 encrypts in its appendix A, with the first sequence number.
const RFC_INFO: &[u8] = b"Ode on a Grecian Urn";
const RFC_AAD: &[u8] = b"Count-0";
const RFC_PLAIN: &[u8] = b"Beauty is truth, truth beauty";

/// The example of the client guide.
const GUIDE: &str = include_str!("../../../docs/client-guide.md");

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect()
}

fn open(key: &str, of: CallerSuite, info: &[u8], aad: &[u8], message: &[u8]) -> Option<Vec<u8>> {
    let (encapsulated, sealed) = message.split_at(32);
    let key = HpkePrivateKey::from(bytes(key));
    suite(of).open(&EncapsulatedSecret(encapsulated.to_vec()), info, aad, sealed, &key).ok()
}

/// A key pair of RFC 9180 A.2.1, the receiver's.
const PRIVATE: &str = "8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb";
const PUBLIC: &str = "4310ee97d88cc1f088a5576c77ab0cf5c3ac797f3d95139c6c84b5429c59662a";

fn key(of: CallerSuite) -> CallerKey {
    CallerKey::new(of, bytes(PUBLIC).try_into().expect("32 bytes")).expect("a key")
}

fn caller(name: &str, number: &str) -> Caller {
    Caller { name: (!name.is_empty()).then(|| name.to_owned()), number: number.to_owned() }
}

fn instance() -> InstanceId {
    InstanceId::mint(ShardId(0), [7; 16])
}

fn bound(tenant: &TenantId) -> Bound<'_> {
    Bound { tenant, instance: instance(), call: CallUuid(Uuid::from_u128(7)) }
}

fn sealed(of: CallerSuite, who: &Caller) -> Vec<u8> {
    let text = seal(&key(of), who, bound(&"acme".into())).expect("it can be sealed");
    URL_SAFE_NO_PAD.decode(text).expect("base64url")
}

fn opened(message: &[u8]) -> Value {
    let tenant = "acme".into();
    let info = bound(&tenant).info();
    let plain = open(PRIVATE, CallerSuite::ChaCha20Poly1305, info.as_bytes(), &[], message).expect("it opens");
    assert_eq!(plain.len(), PLAIN_BYTES);
    serde_json::from_slice(&plain).expect("JSON with spaces after it")
}

#[test]
fn both_suites_are_those_of_the_rfc() {
    for (of, private, message) in [
        (
            CallerSuite::Aes128Gcm,
            "4612c550263fc8ad58375df3f557aac531d26850903e55a9f23f21d8534e8ac8",
            "37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431\
             f938558b5d72f1a23810b4be2ab4f84331acc02fc97babc53a52ae8218a355a96d8770ac83d07bea87e13c512a",
        ),
        (
            CallerSuite::ChaCha20Poly1305,
            PRIVATE,
            "1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a\
             1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28",
        ),
    ] {
        assert_eq!(open(private, of, RFC_INFO, RFC_AAD, &bytes(message)).as_deref(), Some(RFC_PLAIN), "{of:?}");
    }
}

#[test]
fn the_device_opens_what_was_sealed_for_its_call_and_nothing_else() {
    let message = sealed(CallerSuite::ChaCha20Poly1305, &caller("Ada", "+441234"));
    assert_eq!(opened(&message), json!({ "name": "Ada", "number": "+441234" }));

    let (acme, beta) = ("acme".into(), "beta".into());
    let right = bound(&acme);
    let others = [
        Bound { tenant: &beta, ..right },
        Bound { instance: InstanceId::mint(ShardId(0), [8; 16]), ..right },
        Bound { call: CallUuid(Uuid::from_u128(8)), ..right },
    ];
    let open = |bound: Bound<'_>, message: &[u8]| {
        open(PRIVATE, CallerSuite::ChaCha20Poly1305, bound.info().as_bytes(), &[], message)
    };
    assert!(open(right, &message).is_some());
    assert!(others.into_iter().all(|other| open(other, &message).is_none()));
    for at in 0..message.len() {
        let mut bent = message.clone();
        bent[at] ^= 1;
        assert!(open(right, &bent).is_none(), "byte {at}");
    }
}

#[test]
fn each_push_is_sealed_anew_and_with_the_suite_of_the_key() {
    let who = caller("Ada", "1");
    for of in CallerSuite::ALL {
        let (one, other) = (sealed(of, &who), sealed(of, &who));
        assert_ne!(one[..32], other[..32], "a fresh ephemeral key");
        let tenant = "acme".into();
        let info = bound(&tenant).info();
        assert!(open(PRIVATE, of, info.as_bytes(), &[], &one).is_some());
        let not = CallerSuite::ALL.into_iter().find(|suite| *suite != of).expect("the other one");
        assert!(open(PRIVATE, not, info.as_bytes(), &[], &one).is_none());
    }
}

#[test]
fn every_caller_has_one_length_and_a_long_name_ends_at_a_character() {
    let long = "ü\"\\\u{1}".repeat(200);
    let usual = sealed(CallerSuite::ChaCha20Poly1305, &Caller::default()).len();
    assert_eq!(usual, 32 + PLAIN_BYTES + 16);
    for (name, number) in [("", "1"), ("Ada", "+441234"), (long.as_str(), "1"), (long.as_str(), long.as_str())] {
        let message = sealed(CallerSuite::ChaCha20Poly1305, &caller(name, number));
        assert_eq!(message.len(), usual);
        let told = opened(&message);
        let [name_told, number_told] = ["name", "number"].map(|member| told[member].as_str().unwrap_or_default());
        assert!(name.starts_with(name_told) && number.starts_with(number_told));
        let plain = told.to_string().len();
        assert!(name_told == name || plain > PLAIN_BYTES - 6, "cut no sooner than it must be: {plain}");
    }
}

/// The values of a fenced block of `name = value` lines below a comment of the guide.
fn example(member: &str) -> &'static str {
    let block = GUIDE.split_once("<!-- sealed-caller -->").expect("the example").1;
    let line = block.lines().find_map(|line| line.strip_prefix(member)?.trim_start().strip_prefix("= "));
    line.unwrap_or_else(|| panic!("no {member}"))
}

#[test]
fn the_example_of_the_client_guide_opens() {
    let base64 = |member| URL_SAFE_NO_PAD.decode(example(member)).expect("base64url");
    let private = HpkePrivateKey::from(base64("private"));
    let message = base64("caller");
    let (encapsulated, sealed) = message.split_at(32);
    let info = example("info").replace("\\n", "\n");
    let tenant = example("tenant").into();
    let bound = Bound {
        tenant: &tenant,
        instance: InstanceId::parse(example("instance").as_bytes()).expect("an id"),
        call: CallUuid(example("call").parse().expect("a UUID")),
    };
    assert_eq!(info, bound.info());
    let of = CallerSuite::named(example("suite")).expect("a suite");
    let encapsulated = EncapsulatedSecret(encapsulated.to_vec());
    let plain = suite(of).open(&encapsulated, info.as_bytes(), &[], sealed, &private).expect("it opens");
    assert_eq!(plain.len(), PLAIN_BYTES);
    assert_eq!(std::str::from_utf8(&plain).expect("UTF-8").trim_end(), example("plaintext"));
    let public: [u8; 32] = base64("public").try_into().expect("32 bytes");
    assert!(CallerKey::new(of, public).is_some());
}
