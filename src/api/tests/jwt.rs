//! Tokens of a backend that are wrong in every way there is.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use serde_json::{Value, json};

use super::super::Tenants;
use super::super::jwt::{JwtFault, Unverified};
use super::super::problem::Kind;
use super::world::{DOMAIN, Signer, World, changed, claims, hand_over_body, post, tenant, unsigned};
use crate::clock::now;
use crate::engine::input::Command;

/// Status, problem and detail of a hand-over with this token; none may reach an engine but with 201.
async fn refused(world: &World, token: &str) -> (u16, String, String) {
    let reply = world.send(post("/v1/instances", token, hand_over_body().to_string())).await;
    let asked = world.engine.asked();
    if reply.status.is_success() {
        assert!(matches!(&asked[..], [(_, Command::HandOver(_))]));
        return (reply.status.as_u16(), String::new(), String::new());
    }
    assert!(asked.is_empty());
    (reply.status.as_u16(), reply.problem(), reply.detail())
}

fn part(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

#[tokio::test]
async fn whatever_is_wrong_before_the_signature_gets_one_and_the_same_answer() {
    let world = World::new();
    let stranger = Signer::es256();
    let good = world.es256.token(&claims());
    let signature = good.rsplit_once('.').expect("three parts").1;
    let head = |header: &str| format!("{}.{}.{signature}", part(header), part(&claims().to_string()));
    let deep = format!("{}{}", "[".repeat(300), "]".repeat(300));
    let mut forged: Vec<String> =
        ["none", "None", "NONE", "nOnE", "", "HS256", "HS512", "RS256", "PS256", "ES384", "ES256K", "EdDSA", "es256"]
            .map(|algorithm| head(&json!({"alg": algorithm}).to_string()))
            .to_vec();
    forged.extend([
        head("{}"),
        head("[]"),
        head("not JSON"),
        head("{\"alg\":null}"),
        head("{\"alg\":[\"ES256\"]}"),
        head("{\"alg\":\"ES256\",\"alg\":\"ES256\"}"),
        head(&format!("{{\"alg\":\"ES256\",\"x\":{deep}}}")),
        format!("{}.{}.{signature}", part("{\"alg\":\"ES256\"}"), part("not JSON")),
        format!("{}.{}.{signature}", part("{\"alg\":\"ES256\"}"), part(&deep)),
        format!("{}.{}.{signature}", part("{\"alg\":\"ES256\"}"), part("{\"iss\":\"acme\",\"iss\":\"acme\"}")),
        format!("{}.{}.{signature}", part("{\"alg\":\"ES256\"}"), part("{\"iss\":7}")),
        format!("{}.{}.{}", part("{\"alg\":\"ES256\"}"), part(&claims().to_string()), "A".repeat(86)),
        // Whose it claims to be makes no difference either.
        world.es256.token(&changed(&claims(), "/iss", Some(json!("beta")))),
        world.es256.token(&changed(&claims(), "/iss", Some(json!("keyless")))),
        world.es256.token(&changed(&claims(), "/iss", Some(json!("nobody")))),
        stranger.token(&claims()),
        // Padding, white space and the other alphabet are no base64url.
        format!("{good}="),
        good.replace('.', "=."),
        good.replacen('e', "+", 1),
    ]);
    let expected = refused(&world, &stranger.token(&claims())).await;
    assert_eq!((expected.0, expected.1.as_str()), (401, "unauthorized"));
    assert!(expected.2.contains("signature"), "{}", expected.2);
    for token in forged {
        assert_eq!(refused(&world, &token).await, expected, "{token}");
    }
    assert_eq!(refused(&world, &good).await.0, 201, "the untouched token still works");
}

#[tokio::test]
async fn keys_and_places_of_keys_in_the_header_are_not_looked_at() {
    let world = World::new();
    let stranger = Signer::es256();
    // Whoever followed the header would come here.
    let bait = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    bait.set_nonblocking(true).expect("non-blocking");
    let url = format!("http://{}/jwks.json", bait.local_addr().expect("bound"));
    let headers = [
        json!({"kid": "unknown"}),
        json!({"kid": "../../dev/null"}),
        json!({"kid": "' OR 1=1 --"}),
        json!({"kid": ["a", {"b": 7}]}),
        json!({"jku": url}),
        json!({"x5u": url}),
        json!({"jwk": {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}, "x5c": [stranger.public_pem]}),
        json!({"typ": "at+jwt", "cty": "JWT", "zip": "DEF"}),
    ];
    for more in headers {
        let mut header = json!({"alg": "ES256"});
        let members = header.as_object_mut().expect("an object");
        members.extend(more.as_object().expect("an object").clone());
        assert_eq!(refused(&world, &world.es256.token_with(&header, &claims())).await.0, 201, "{header}");
        assert_eq!(refused(&world, &stranger.token_with(&header, &claims())).await.0, 401, "{header}");
    }
    let came = bait.accept();
    assert!(came.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock), "nobody was asked for a key");
}

#[tokio::test]
async fn the_public_key_is_no_secret_of_a_symmetric_algorithm_in_any_form() {
    use aws_lc_rs::hmac;
    use rustls::pki_types::SubjectPublicKeyInfoDer;
    use rustls::pki_types::pem::PemObject;

    let world = World::new();
    let pem = world.es256.public_pem.clone();
    let der = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes()).expect("a key");
    let forms = [pem.as_bytes(), pem.trim_end().as_bytes(), der.as_ref(), &der.as_ref()[26..], b""];
    for secret in forms {
        for header in [json!({"alg": "HS256"}), json!({"alg": "HS256", "kid": "acme"}), json!({"alg": "ES256"})] {
            let signed = unsigned(&header, &claims());
            let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed.as_bytes());
            let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag.as_ref()));
            assert_eq!(refused(&world, &token).await.0, 401, "{header}");
        }
    }
}

#[tokio::test]
async fn signed_claims_that_cannot_be_read_name_what_they_must_be() {
    let world = World::new();
    let seconds = now().wall.unix_seconds();
    let header = "{\"alg\":\"ES256\"}";
    let text = claims().to_string();
    let inner = text.strip_suffix('}').expect("an object");
    for wrong in [
        format!("{inner},\"sub\":\"urn:uuid:00000000-0000-4000-8000-000000000001\"}}"),
        format!("{inner},\"exp\":{}}}", seconds + 500),
        format!("{inner},\"jti\":\"another\"}}"),
        format!("{inner},\"scope\":\"read\",\"scope\":\"admin\"}}"),
        text.replace(&format!("\"exp\":{}", seconds + 300), "\"exp\":1e300"),
        text.replace(&format!("\"exp\":{}", seconds + 300), "\"exp\":-1"),
        text.replace(&format!("\"exp\":{}", seconds + 300), "\"exp\":18446744073709551616"),
        changed(&claims(), "/exp", None).to_string(),
        changed(&claims(), "/exp", Some(json!(format!("{}", seconds + 300)))).to_string(),
        changed(&claims(), "/exp", Some(json!(seconds as f64 + 300.5))).to_string(),
        changed(&claims(), "/aud", Some(json!({"a": DOMAIN}))).to_string(),
        changed(&claims(), "/jti", Some(Value::Null)).to_string(),
    ] {
        let (status, problem, detail) = refused(&world, &world.es256.token_of(header, &wrong)).await;
        assert_eq!((status, problem.as_str()), (401, "unauthorized"), "{wrong}");
        assert!(detail.contains("must carry iss, sub, aud and jti"), "{wrong}: {detail}");
    }
    // The end of all times is later than any clock, and no overflow.
    let eternal = changed(&changed(&claims(), "/iat", Some(json!(u64::MAX - 1))), "/exp", Some(json!(u64::MAX)));
    assert!(refused(&world, &world.es256.token(&eternal)).await.2.contains("future"));
}

#[tokio::test]
async fn a_token_of_any_length_is_refused_or_read_but_never_kept() {
    let world = World::new();
    let long = changed(&claims(), "/jti", Some(json!("j".repeat(129))));
    assert!(refused(&world, &world.es256.token(&long)).await.2.contains("jti"));
    let huge = changed(&claims(), "/more", Some(json!("x".repeat(5000))));
    let (status, _, detail) = refused(&world, &world.es256.token(&huge)).await;
    assert_eq!(status, 401);
    assert!(detail.contains("exactly one header"), "{detail}");
}

#[test]
fn a_tenant_whose_tokens_fill_its_table_waits_and_its_neighbours_do_not() {
    let (acme, beta) = (Signer::es256(), Signer::eddsa());
    let tenants =
        Tenants::new(vec![tenant("acme", &[], Some(&acme)), tenant("beta", &[], Some(&beta))], DOMAIN.to_owned());
    let now = now();
    tenants.fill_replays("acme", now.wall.unix_seconds());
    let authenticate = |token: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, format!("Bearer {token}").parse().expect("a field"));
        tenants.authenticate(&headers, now).map(|caller| caller.tenant.to_string()).map_err(|problem| problem.kind())
    };
    assert_eq!(authenticate(&acme.token(&claims())), Err(Kind::RateLimited));
    let other = changed(&claims(), "/iss", Some(json!("beta")));
    assert_eq!(authenticate(&beta.token(&other)), Ok("beta".to_owned()));
}

#[test]
fn a_token_is_tried_with_a_key_of_its_algorithm_whoever_it_claims_to_be_from() {
    let (acme, beta) = (Signer::es256(), Signer::eddsa());
    let list = vec![tenant("acme", &[], Some(&acme)), tenant("keyless", &[], None), tenant("beta", &[], Some(&beta))];
    let tenants = Tenants::new(list, DOMAIN.to_owned());
    let tried = |algorithm: &str, issuer: &str| {
        let claims = changed(&claims(), "/iss", Some(json!(issuer)));
        let token = Unverified::read(&acme.token_with(&json!({"alg": algorithm}), &claims)).expect("it can be read");
        let (key, own) = tenants.key_for(&token)?;
        Some((key.suits(&token), own.map(|(tenant, _)| tenant.id.to_string())))
    };
    for (algorithm, issuer) in [("ES256", "acme"), ("EdDSA", "beta")] {
        assert_eq!(tried(algorithm, issuer), Some((true, Some(issuer.to_owned()))));
    }
    for algorithm in ["ES256", "EdDSA"] {
        for issuer in ["keyless", "nobody", ""] {
            assert_eq!(tried(algorithm, issuer), Some((true, None)), "{algorithm} {issuer}");
        }
    }
    assert_eq!((tried("EdDSA", "acme"), tried("ES256", "beta")), (Some((true, None)), Some((true, None))));
    // What no key is for is tried with none, whoever's it claims to be.
    for issuer in ["acme", "beta", "nobody"] {
        assert_eq!(tried("none", issuer), None);
    }
}

#[test]
fn a_right_signature_of_another_tenant_is_a_wrong_one_whatever_else_is_wrong() {
    let acme = Signer::es256();
    let tenants = Tenants::new(vec![tenant("acme", &[], Some(&acme))], DOMAIN.to_owned());
    for claims in [claims(), changed(&claims(), "/sub", None)] {
        let token = acme.token(&changed(&claims, "/iss", Some(json!("beta"))));
        assert_eq!(tenants.verified(&token).err(), Some(JwtFault::Signature));
    }
}
