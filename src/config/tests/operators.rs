//! Where operators ask, and what they have to show.

use super::*;

const HASH: &str = "00000000000000000000000000000000000000000000000000000000000000ff";

#[test]
fn a_unix_socket_and_loopback_addresses_want_nothing_shown() {
    let settings =
        settings(&format!("{LEAST}[ops]\nlisten = [\"unix:/run/reveille/ops.sock\", \"127.0.0.1:1\", \"[::1]:1\"]\n"));
    assert_eq!(settings.ops.listen.len(), 3);
    assert_eq!(settings.ops.listen[0], OpsListen::Unix("/run/reveille/ops.sock".into()));
    assert!(settings.ops.token_sha256.is_empty());
    let long = "x".repeat(107);
    for wrong in ["unix:", "unix:ops.sock", "unix:/run/", &format!("unix:/{long}"), "localhost:1", "9464"] {
        let told = mistakes(&format!("{LEAST}[ops]\nlisten = \"{wrong}\"\n"));
        assert!(
            told.len() == 1 && told[0].starts_with("r.toml:14: ops.listen: must be an address with its port"),
            "{told:?}"
        );
    }
}

#[test]
fn an_address_that_others_reach_needs_a_token_or_a_client_ca() {
    let refused = |listen: &str, place: &str| {
        let told = mistakes(&format!("{LEAST}[ops]\nlisten = {listen}\n"));
        let wanted =
            format!("r.toml:{place}: ops.listen: is not a loopback address, and whoever reached it could read");
        assert!(told.len() == 1 && told[0].starts_with(&wanted), "{told:?}");
    };
    refused("\"0.0.0.0:9464\"", "14");
    refused("[\"127.0.0.1:9464\",\n\"[::]:9464\"]", "15");
    refused("\"192.0.2.1:9464\"", "14");
    let told = read_in(Path::new("r.toml"), LEAST, &[("REVEILLE__OPS__LISTEN", "0.0.0.0:9464")]).err();
    assert!(told.expect("refused").to_string().contains("REVEILLE__OPS__LISTEN"));

    let settings = settings(&format!("{LEAST}[ops]\nlisten = \"0.0.0.0:9464\"\ntoken_sha256 = \"{HASH}\"\n"));
    assert_eq!(settings.ops.token_sha256.len(), 1);
    let overheard = |warning: &Mistake| warning.problem.contains("the token travels there in plain HTTP");
    assert!(settings.warnings.iter().any(overheard), "{:?}", settings.warnings);
}

#[test]
fn what_operators_show_is_checked() {
    let ops = |lines: &str| mistakes(&format!("{LEAST}[ops]\n{lines}"));
    assert_eq!(
        ops("token_sha256 = \"my-token\"\n"),
        [
            "r.toml:14: ops.token_sha256: must be the SHA-256 of the token, 64 hex digits (printf %s \"$TOKEN\" | sha256sum), \
          never the token itself"
        ]
    );
    let three = format!("token_sha256 = [\"{HASH}\", \"{HASH}\",\n\"{HASH}\"]\n");
    assert_eq!(
        ops(&three),
        ["r.toml:15: ops.token_sha256: has more than 2 tokens: the present one and the one it is rotated with"]
    );
    assert_eq!(
        ops("token_sha256 = []\n"),
        ["r.toml:14: ops.token_sha256: is empty; leave it out where no token is wanted"]
    );

    let directory = tempfile::tempdir().expect("a directory");
    let made = rcgen::generate_simple_self_signed(vec!["ops.example".to_owned()]).expect("a certificate");
    let write = |name: &str, text: String| std::fs::write(directory.path().join(name), text).expect("written");
    write("ops.pem", made.cert.pem());
    write("ops.key", made.signing_key.serialize_pem());
    let file = directory.path().join("r.toml");
    let read = |lines: &str| read_in(&file, &format!("{LEAST}[ops]\nlisten = \"0.0.0.0:1\"\n{lines}"), &[]);
    let alone = read("client_ca_file = \"ops.pem\"\n").expect_err("refused").to_string();
    assert!(alone.contains("ops.client_ca_file: needs tls_certificate and tls_key"), "{alone}");
    let settings = read("client_ca_file = \"ops.pem\"\ntls_certificate = \"ops.pem\"\ntls_key = \"ops.key\"\n");
    let settings = settings.unwrap_or_else(|error| panic!("{error}"));
    assert!(settings.ops.tls.is_some() && settings.ops.client_ca_pem.is_some());
    assert!(!settings.warnings.iter().any(|warning| warning.problem.contains("plain HTTP")));
}
