//! Whoever asks for what is not theirs learns nothing: every call the daemon describes, with every wrong identity, gives the
//! same bytes for an instance that exists as for one that does not.
//!
//! The list of calls is the daemon's own description, so that none can be forgotten.

use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::daemon::{APP_KEY, HandOver, Instance, RIVAL_APP_KEY, Settings, device_of};
use crate::http::Answer;
use crate::phones::CallerManners;
use crate::push::Provider;
use crate::setting::Setting;
use crate::world::{EDGE_DOMAIN, Transport, World};

/// A tenant's backend.
struct Backend {
    tenant: &'static str,
    key: Ed25519KeyPair,
}

impl Backend {
    /// Makes its key; the public half goes into the test's directory, under the tenant's name.
    fn new(world: &World, tenant: &'static str) -> Self {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
        let file = world.directory_of("backends").join(format!("{tenant}.pem"));
        std::fs::write(file, pair.public_key_pem()).expect("the directory is writable");
        Self { tenant, key: Ed25519KeyPair::from_pkcs8(&pair.serialize_der()).expect("a key") }
    }

    fn setting(&self, world: &World) -> String {
        let file = world.directory_of("backends").join(format!("{}.pem", self.tenant));
        format!("jwt_public_key = {file:?}\n")
    }

    /// A token that was never used.
    fn token(&self, device: &str, scope: Option<&str>) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        let mut claims = json!({
            "iss": self.tenant, "aud": EDGE_DOMAIN, "sub": device_of(device), "iat": now, "exp": now + 300,
            "jti": uuid::Uuid::new_v4().to_string(),
        });
        if let Some(scope) = scope {
            claims["scope"] = scope.into();
        }
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&json!({"alg": "EdDSA", "typ": "JWT"})), part(&claims));
        let signature = URL_SAFE_NO_PAD.encode(self.key.sign(signed.as_bytes()));
        format!("{signed}.{signature}")
    }
}

/// An identity that has no right to alice's instance, made anew for each request.
type Identity<'a> = (&'static str, Box<dyn Fn() -> Option<String> + 'a>);

/// Everything of an answer but its date.
fn bytes(answer: &Answer) -> (u16, Vec<(String, String)>, String) {
    let headers = answer.headers.iter().filter(|(name, _)| name != "date").cloned().collect();
    (answer.status, headers, answer.text.clone())
}

/// The signed summary of an off-boarding without what it says of the asker's own question: whom, when, and the signature.
fn of_no_one(answer: &Answer) -> (u16, Vec<(String, String)>, Value) {
    let (status, headers, _) = bytes(answer);
    let mut said = answer.json();
    for own in ["whom", "begun", "ended", "signature"] {
        let field = said["summary"].get_mut(own).unwrap_or_else(|| panic!("a summary has its {own}: {answer:?}"));
        *field = Value::Null;
    }
    (status, headers, said)
}

/// `id` with one character changed: of the same shard, and of nobody.
fn nobody(id: &str) -> String {
    let (head, last) = id.split_at(id.len() - 3);
    let changed: String = last.chars().map(|letter| if letter == 'a' { 'b' } else { 'a' }).collect();
    format!("{head}{changed}")
}

/// The calls of the daemon's description: method, path and whether a body belongs to it.
fn calls(setting: &Setting<'_>) -> Vec<(String, String, bool)> {
    let document = setting.daemon.ask_as("GET", "/openapi.json", None, None).json();
    let paths = document["paths"].as_object().expect("the description lists its paths");
    let of = |(path, calls): (&String, &Value)| {
        let calls = calls.as_object().expect("methods").clone();
        let path = path.clone();
        calls
            .into_iter()
            .map(move |(method, call)| (method.to_uppercase(), path.clone(), call.get("requestBody").is_some()))
    };
    paths.iter().flat_map(of).collect()
}

#[test]
fn every_call_with_every_wrong_identity_answers_as_if_there_were_no_such_instance() {
    let world = World::new("strangers");
    let (acme, rival) = (Backend::new(&world, "acme"), Backend::new(&world, "rival"));
    let settings = Settings { tenant: acme.setting(&world), rival: Some(rival.setting(&world)), ..Settings::default() };
    let setting = Setting::with(&world, Provider::Apns, Transport::Udp, &settings);
    let alice = &setting.alice;
    let from = |device, bearer: &str| {
        let hand_over = HandOver { user: "alice", device, trunk: Transport::Udp, more: json!({}) };
        setting.daemon.hand_over_as(&setting.kamailio, &setting.push, &hand_over, bearer)
    };
    let tablet = from("tablet", APP_KEY);
    let theirs = from("rival-phone", RIVAL_APP_KEY);
    let mut caller = setting.caller(CallerManners::default());
    caller.call("alice");
    let call = setting.push.wait_for_call(1).word("call").to_owned();
    let test = setting.daemon.ask("POST", &format!("/v1/instances/{}/test", alice.id), &alice.token, None).json();
    let test = test["test"].as_str().expect("a self-test has an id").to_owned();
    let before = state_of(&setting, alice, &call);

    let fixed = |text: &str| -> Box<dyn Fn() -> Option<String>> {
        let text = text.to_owned();
        Box::new(move || Some(text.clone()))
    };
    let identities: Vec<Identity<'_>> = vec![
        ("nobody", Box::new(|| None)),
        ("garbage", fixed("garbage")),
        ("a token that is nearly right", fixed(&nobody(&alice.token))),
        ("the instance's own name", fixed(&alice.id)),
        ("another device of the account", fixed(&tablet.token)),
        ("another tenant's instance", fixed(&theirs.token)),
        ("the tenant's app key", fixed(APP_KEY)),
        ("another tenant's app key", fixed(RIVAL_APP_KEY)),
        ("the tenant's backend for the device", Box::new(|| Some(acme.token("alice", None)))),
        ("the tenant's backend for another device", Box::new(|| Some(acme.token("tablet", None)))),
        ("the tenant's administrator", Box::new(|| Some(acme.token("alice", Some("admin"))))),
        ("another tenant's backend", Box::new(|| Some(rival.token("alice", None)))),
        ("another tenant's administrator", Box::new(|| Some(rival.token("alice", Some("admin"))))),
    ];
    let calls = calls(&setting);
    let about_instances: Vec<_> = calls.iter().filter(|(_, path, _)| path.contains("{id}")).collect();
    assert!(about_instances.len() >= 11, "{calls:?}");
    for (method, template, with_body) in about_instances {
        let of = |id: &str| {
            let path = template.replace("{id}", id).replace("{call}", &call).replace("{test}", &test);
            // Whatever else a path may name is a UUID of nothing.
            path.split('/').map(|part| if part.starts_with('{') { &test } else { part }).collect::<Vec<_>>().join("/")
        };
        let bodies = if *with_body { vec![Some(json!({})), Some(json!("no object"))] } else { vec![None] };
        let of_tenants = template.starts_with("/v1/tenants/");
        for (name, identity) in &identities {
            if of_tenants && *name == "the tenant's administrator" {
                // Whose call it is.
                continue;
            }
            for body in &bodies {
                let ask = |id: &str| setting.daemon.ask_as(method, &of(id), identity().as_deref(), body.as_ref());
                let (there, nowhere) = (ask(&alice.id), ask(&nobody(&alice.id)));
                assert_eq!(bytes(&there), bytes(&nowhere), "{method} {template} as {name}");
                let token = matches!(*name, "another device of the account" | "another tenant's instance");
                let refusal =
                    if token && !of_tenants { there.status == 404 } else { matches!(there.status, 401 | 403 | 404) };
                assert!(refusal, "{method} {template} as {name}: {there:?}");
            }
        }
    }
    assert_eq!(state_of(&setting, alice, &call), before, "nothing has changed");
    strangers_of_a_tenant(&setting, &calls, &rival, alice, &identities);
    assert_eq!(state_of(&setting, alice, &call), before, "nothing has changed");
}

/// The calls that name no instance.
fn strangers_of_a_tenant(
    setting: &Setting<'_>,
    calls: &[(String, String, bool)],
    rival: &Backend,
    alice: &Instance,
    identities: &[Identity<'_>],
) {
    let refused = |method: &str, path: &str, body: Option<&Value>, excepted: &[&str]| {
        for (name, identity) in identities.iter().filter(|(name, _)| !excepted.contains(name)) {
            let answer = setting.daemon.ask_as(method, path, identity().as_deref(), body);
            assert!(matches!(answer.status, 401 | 403), "{method} {path} as {name}: {answer:?}");
        }
    };
    let hand_over = ["the tenant's app key", "another tenant's app key"];
    let backends = [
        "the tenant's backend for the device",
        "the tenant's backend for another device",
        "the tenant's administrator",
        "another tenant's backend",
        "another tenant's administrator",
    ];
    let administrators = ["the tenant's administrator", "another tenant's administrator"];
    for (method, path, _) in calls.iter().filter(|(_, path, _)| !path.contains("{id}")) {
        match path.as_str() {
            "/openapi.json" => {}
            "/v1/instances" => refused(method, path, Some(&json!({})), &[&hand_over[..], &backends].concat()),
            "/v1/tenants/self/instances" => {
                refused(method, path, None, &administrators);
                let of = |device: &str| {
                    let path = format!("{path}?device={}", device_of(device));
                    setting.daemon.ask_as(method, &path, Some(&rival.token("rival-phone", Some("admin"))), None)
                };
                assert_eq!(of_no_one(&of("alice")), of_no_one(&of("of-nobody")), "{method} {path}");
                assert_eq!(setting.daemon.status(alice).status, 200);
            }
            other => panic!("{method} {other}: say here who may call it"),
        }
    }
}

/// What a stranger could have changed.
fn state_of(setting: &Setting<'_>, instance: &Instance, call: &str) -> Value {
    let shown = setting.daemon.status(instance).json();
    let call = setting.daemon.call(instance, call).json();
    json!([shown["instance"], shown["lease_ends"], shown["registration"]["state"], call["state"]])
}
