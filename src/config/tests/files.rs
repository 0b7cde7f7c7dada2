//! Keys that name files: what is in the files is looked at.

use std::fs;
use std::path::PathBuf;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use tempfile::TempDir;

use super::super::*;
use super::{LEAST, read_in};
use crate::engine::policy::Provider;

#[test]
fn certificates_and_keys_are_read_and_must_fit() {
    let files = Files::new();
    let (one, other) = (files.certificate("one"), files.certificate("other"));
    files.write("junk.pem", "junk");
    let tls = |certificate: &str, key: &str| {
        files.mistakes(&format!("[api]\ntls_certificate = \"{certificate}\"\ntls_key = \"{key}\"\n{LEAST}"))
    };
    assert!(tls(&one.0, &one.1).is_empty());
    assert_eq!(tls(&one.0, &other.1), ["r.toml:3: api.tls_key: other.key: is not the key of one.crt"]);
    assert_eq!(
        tls("junk.pem", &one.1),
        ["r.toml:2: api.tls_certificate: junk.pem: has no certificate in PEM (-----BEGIN CERTIFICATE-----)"]
    );
    assert_eq!(
        tls(&one.0, "junk.pem"),
        ["r.toml:3: api.tls_key: junk.pem: has no private key in PEM (-----BEGIN PRIVATE KEY-----)"]
    );
    assert_eq!(
        tls("absent.pem", &one.1),
        ["r.toml:2: api.tls_certificate: absent.pem: cannot be read: No such file or directory (os error 2)"]
    );
    assert_eq!(
        files.mistakes(&format!("[api]\ntls_certificate = \"one.crt\"\n{LEAST}")),
        ["r.toml:2: api.tls_certificate: needs its tls_key; set both or neither"]
    );
    assert_eq!(
        files.mistakes(&LEAST.replace("[sip]", "[sip]\ntls_key = \"one.key\"")),
        ["r.toml:2: sip.tls_key: needs its tls_certificate; set both or neither"]
    );
}

#[test]
fn a_self_signed_certificate_is_worth_a_warning() {
    let files = Files::new();
    let text = LEAST.replace("\"udp\"", "\"tls\"");
    let warnings: Vec<String> = files.settings(&text).warnings.into_iter().map(|warning| warning.key).collect();
    assert!(warnings.contains(&"api.tls_certificate".to_owned()));
    assert!(warnings.contains(&"sip.tls_certificate".to_owned()));
}

#[test]
fn push_keys_are_read_and_checked() {
    let files = Files::new();
    let head = &LEAST[..LEAST.find("[[tenant.app]]").expect("it has one")];
    let apns = |file: &str| {
        format!(
            "{head}[[tenant.app]]\nid = \"a\"\nprovider = \"apns\"\nteam_id = \"ABCDE12345\"\n\
             key_id = \"ABC123DEFG\"\nkey_file = \"{file}\"\n"
        )
    };
    let fcm = |file: &str| {
        format!("{head}[[tenant.app]]\nid = \"a\"\nprovider = \"fcm\"\nservice_account_file = \"{file}\"\n")
    };
    files.write("p256.p8", &rcgen::KeyPair::generate().expect("a key").serialize_pem());
    files.write("rsa.p8", &rsa_key());
    let settings = files.settings(&apns("p256.p8"));
    let PushAccess::Apns(access) = &settings.tenants[0].apps[0].push else { panic!("not apns") };
    assert_eq!((access.team_id.as_str(), access.environment), ("ABCDE12345", ApnsEnvironment::Production));
    assert!(access.key_pem.starts_with("-----BEGIN PRIVATE KEY-----"));
    assert!(!format!("{settings:?}").contains("PRIVATE"), "Debug shows no key");
    assert_eq!(
        files.mistakes(&apns("rsa.p8")),
        ["r.toml:14: tenant[0].app[0].key_file: rsa.p8: is not a P-256 private key in PEM (PKCS #8), as Apple hands \
          out in a .p8 file"]
    );

    files.write("account.json", &account("service_account", &rsa_key()));
    let settings = files.settings(&fcm("account.json"));
    assert_eq!(settings.tenants[0].apps[0].push.provider(), Provider::Fcm);
    for (content, problem) in [
        (
            "{}",
            "is not a service account's key file: JSON with type, project_id, client_email, token_uri and private_key",
        ),
        (&account("authorized_user", &rsa_key()), "must have \"type\": \"service_account\""),
        (&account("service_account", "x"), "has a private_key that is no RSA key in PEM (PKCS #8)"),
    ] {
        files.write("account.json", content);
        let expected = format!("r.toml:12: tenant[0].app[0].service_account_file: account.json: {problem}");
        assert_eq!(files.mistakes(&fcm("account.json")), [expected]);
    }
}

#[test]
fn a_jwt_key_fixes_its_algorithm() {
    let files = Files::new();
    let text = LEAST.replace("[[tenant.app]]", "jwt_public_key = \"jwt.pem\"\n[[tenant.app]]");
    for (kind, algorithm) in
        [(&rcgen::PKCS_ECDSA_P256_SHA256, JwtAlgorithm::Es256), (&rcgen::PKCS_ED25519, JwtAlgorithm::EdDsa)]
    {
        let key = rcgen::KeyPair::generate_for(kind).expect("a key");
        files.write("jwt.pem", &key.public_key_pem());
        let read = files.settings(&text).tenants.remove(0).jwt_key.expect("it is configured");
        assert_eq!((read.algorithm, read.pem), (algorithm, key.public_key_pem()));
    }
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).expect("a key");
    for wrong in [key.public_key_pem(), key.serialize_pem()] {
        files.write("jwt.pem", &wrong);
        assert_eq!(
            files.mistakes(&text),
            ["r.toml:9: tenant[0].jwt_public_key: jwt.pem: is not a public key in PEM (-----BEGIN PUBLIC KEY-----) \
              on P-256 (ES256) or Ed25519 (EdDSA)"]
        );
    }
}

#[test]
fn the_signing_key_is_ed25519_and_kept_from_others() {
    let files = Files::new();
    // As `openssl genpkey -algorithm ed25519` writes it, without the public key (RFC 8410 §10.3).
    let bare = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
                -----END PRIVATE KEY-----\n";
    let text = format!("[audit]\nsigning_key = \"key.pem\"\n{LEAST}");
    files.write("key.pem", bare);
    files.settings(&text);
    files.write("key.pem", &rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key").serialize_pem());
    let settings = files.settings(&text);
    assert_eq!(settings.audit.signing_key, Some(files.path("key.pem")));
    assert!(settings.warnings.iter().all(|warning| warning.key != "audit.signing_key"));
    files.allow_all("key.pem");
    let settings = files.settings(&text);
    assert!(settings.warnings.iter().any(|warning| warning.key == "audit.signing_key"));
    files.write("key.pem", &rcgen::KeyPair::generate().expect("a key").serialize_pem());
    assert_eq!(
        files.mistakes(&text),
        ["r.toml:2: audit.signing_key: key.pem: is not an Ed25519 private key in PEM (PKCS #8)"]
    );
}

#[test]
fn extra_roots_are_read() {
    let files = Files::new();
    let (certificate, key) = files.certificate("ca");
    let text = |file: &str| {
        format!("[registrars]\ntls_ca_file = \"{file}\"\n{LEAST}")
            .replace("provider", &format!("ca_file = \"{file}\"\nprovider"))
    };
    let settings = files.settings(&text(&certificate));
    assert_eq!(settings.registrars.ca_pem.as_deref(), Some(files.read(&certificate).as_str()));
    assert_eq!(settings.tenants[0].apps[0].ca_pem, settings.registrars.ca_pem);
    let problem = "has no certificate in PEM (-----BEGIN CERTIFICATE-----)";
    assert_eq!(
        files.mistakes(&text(&key)),
        [
            format!("r.toml:2: registrars.tls_ca_file: ca.key: {problem}"),
            format!("r.toml:13: tenant[0].app[0].ca_file: ca.key: {problem}"),
        ]
    );
}

#[test]
fn the_audit_log_cannot_be_a_directory() {
    let files = Files::new();
    assert_eq!(
        files.mistakes(&format!("[audit]\npath = \".\"\n{LEAST}")),
        ["r.toml:2: audit.path: is a directory; it must name the log's file"]
    );
}

fn rsa_key() -> String {
    let key = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).expect("a key");
    let der: Pkcs8V1Der<'_> = key.as_der().expect("its own form");
    format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", BASE64_STANDARD.encode(der.as_ref()))
}

fn account(kind: &str, key: &str) -> String {
    serde_json::json!({
        "type": kind, "project_id": "p", "client_email": "a@p.example", "private_key": key,
        "token_uri": "https://oauth2.example/token",
    })
    .to_string()
}

/// A directory with a configuration and what it names.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory for tests"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        use std::os::unix::fs::PermissionsExt;
        fs::write(self.path(name), content).expect("a file for tests");
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o600)).expect("our own file");
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect("a file of this test")
    }

    fn allow_all(&self, name: &str) {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o644)).expect("our own file");
    }

    /// Names of the files of a new certificate and its key.
    fn certificate(&self, name: &str) -> (String, String) {
        let made = rcgen::generate_simple_self_signed([format!("{name}.example")]).expect("a certificate");
        let names = (format!("{name}.crt"), format!("{name}.key"));
        self.write(&names.0, &made.cert.pem());
        self.write(&names.1, &made.signing_key.serialize_pem());
        names
    }

    fn settings(&self, text: &str) -> Settings {
        read_in(&self.path("r.toml"), text, &[]).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The mistakes, with the directory's name left out.
    fn mistakes(&self, text: &str) -> Vec<String> {
        let directory = format!("{}/", self.0.path().display());
        match read_in(&self.path("r.toml"), text, &[]) {
            Ok(_) => Vec::new(),
            Err(error) => error.to_string().lines().map(|line| line.replace(&directory, "")).collect(),
        }
    }
}
