//! `audit evidence`, and `audit verify` of what it writes.

use super::segments::{in_segments, said_by};
use super::*;
use crate::audit_log::evidence;
use crate::audit_log::verify::Against;
use crate::config;

#[test]
fn evidence_counts_what_the_log_holds_and_names_who_else_processes_anything() {
    let (place, _) = in_segments(2, 5);
    let log = place.open_in_segments_of(2);
    log.submit(life(1), |_, _| ());
    log.close();

    let document = made(&place);

    let evidence = &document["evidence"];
    assert_eq!(evidence["counts"]["events"], serde_json::json!({ "erased": 5, "handed-over": 1 }));
    assert_eq!(evidence["counts"]["causes"], serde_json::json!({ "deleted": 5 }));
    assert_eq!(evidence["counts"]["unregister"], serde_json::json!({ "confirmed": 5 }));
    assert_eq!(evidence["counts"]["policies"], serde_json::json!({ "0123456789abcdef": 6 }));
    assert_eq!(evidence["log"]["records"], 6);
    assert_eq!(evidence["log"]["segments"].as_array().map(Vec::len), Some(4), "the live one is empty as yet");
    assert_eq!(evidence["configuration"]["lease_maximum_seconds"], 518_400);
    assert_eq!(evidence["configuration"]["policy"].as_str().map(str::len), Some(16));
    assert_eq!(
        evidence["tenants"]["acme"]["sub_processors"],
        serde_json::json!([{ "provider": "sandbox", "app": "com.example.phone", "endpoint": "http://127.0.0.1:8444" }])
    );
    assert_eq!(evidence["log"]["checkpoint"].as_str(), place.checkpoints().last().map(String::as_str));
    let vkey = evidence["log"]["vkey"].as_str().expect("text");
    assert!(vkey.starts_with("edge.example.net/reveille-audit+") && place.verify().expect("good").contains(vkey));
    let said = verified(&place, &document).expect("good");
    assert!(said.contains("evidence: good") && said.contains("sub-processor of acme: sandbox"), "{said}");
}

#[test]
fn changed_evidence_is_refused() {
    let (place, _) = in_segments(9, 3);
    let good = made(&place);
    assert!(verified(&place, &good).is_ok());
    let change = |pointer: &str, value: serde_json::Value| {
        let mut changed = good.clone();
        *changed.pointer_mut(pointer).expect("there") = value;
        verified(&place, &changed).expect_err(pointer)
    };
    for (pointer, value) in [
        ("/evidence/counts/events/erased", 4.into()),
        ("/evidence/v", 2.into()),
        ("/evidence/tenants/acme/sub_processors/0/provider", "apns".into()),
        ("/signature", "AAAA".into()),
    ] {
        assert!(change(pointer, value).is_refusal(), "{pointer}");
    }
    let mut more = good.clone();
    more["evidence"]["note"] = "x".into();
    assert!(verified(&place, &more).expect_err("nobody signed it").is_refusal());
    let other = Place::with_records(0);
    assert!(verified(&other, &good).expect_err("another key").is_refusal());
}

#[test]
fn there_is_no_evidence_of_a_damaged_log() {
    let (place, _) = in_segments(9, 3);
    let text = fs::read_to_string(&place.log).expect("there");
    fs::write(&place.log, text.replacen("\"acme\"", "\"evil\"", 1)).expect("written");
    assert!(try_made(&place).expect_err("damaged").is_refusal());
}

fn made(place: &Place) -> serde_json::Value {
    serde_json::from_slice(&try_made(place).expect("a good log")).expect("JSON")
}

fn try_made(place: &Place) -> Result<Vec<u8>, VerifyError> {
    let file = place.keep(
        "reveille.toml",
        r#"
[sip]
domain = "edge.example.net"
[[sip.listen]]
transport = "udp"
address = "127.0.0.1:5060"
[audit]
path = "audit.log"
[[tenant]]
id = "acme"
app_key_sha256 = "00000000000000000000000000000000000000000000000000000000000000ff"
[[tenant.app]]
id = "com.example.phone"
provider = "sandbox"
endpoint = "http://127.0.0.1:8444"
"#,
    );
    let settings = config::load_with(&file, []).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let mut out = Vec::new();
    evidence::evidence(&settings, &mut out).map(|()| out)
}

fn verified(place: &Place, document: &serde_json::Value) -> Result<String, VerifyError> {
    let file = place.keep("evidence.json", &serde_json::to_string_pretty(document).expect("JSON"));
    said_by(&file, Against { key: Some(&place.key("pub")), ..Against::default() })
}
