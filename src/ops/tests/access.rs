//! Who may ask, over which door.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use super::super::*;
use super::{Daemon, arguments, at, loopback};
use crate::cli::{CallsArguments, OpsArguments};
use crate::config::{self, OpsListen, TlsFiles};

const TOKEN: &str = "a-token-for-scrapers";

fn with_token() -> Access {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, TOKEN.as_bytes());
    Access { token_sha256: vec![[7; 32], hash.as_ref().try_into().expect("32 bytes")], tls: None }
}

fn file(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, text).expect("a writable directory");
    path
}

fn why<T>(result: Result<T, AskError>) -> String {
    result.err().map(|error| error.to_string()).unwrap_or_default()
}

#[tokio::test]
async fn with_a_token_configured_only_probes_go_without_one() {
    let daemon = Daemon::start_with(with_token(), OpsListen::Tcp(loopback()));
    daemon.readiness.set_ready(true);
    daemon.readiness.note("the API's certificate is self-signed", true);
    assert_eq!(daemon.get("/healthz").await, (200, "ok\n".to_owned()));
    assert_eq!(daemon.get("/readyz").await, (200, "{\"ready\":true,\"notes\":[]}".to_owned()), "not why");
    for path in ["/metrics", "/calls", "/calls/x", "/log-names/x", "/", "/none"] {
        let plain = daemon.request(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n")).await;
        assert_eq!(plain.0, 401, "{path}");
        assert!(plain.1.to_ascii_lowercase().contains("www-authenticate: bearer"), "{}", plain.1);
        for wrong in ["Bearer", "Bearer wrong", &format!("Basic {TOKEN}"), &format!("Bearer {TOKEN}x"), "Bearer "] {
            let head = format!("GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: {wrong}\r\n");
            let answer = daemon.request(&head).await;
            assert_eq!((answer.0, &answer.2), (401, &plain.2), "{path} {wrong}");
        }
    }
    let told = daemon.request(&format!("GET /readyz HTTP/1.1\r\nHost: a\r\nAuthorization: bearer {TOKEN}\r\n")).await;
    assert!(told.2.contains("self-signed"), "{}", told.2);
    daemon.stop().await;
}

#[tokio::test]
async fn status_and_calls_show_the_token_of_a_file() {
    let daemon = Daemon::start_with(with_token(), OpsListen::Tcp(loopback()));
    daemon.readiness.set_ready(true);
    assert!(why(status::ask(&daemon.asked()).await).contains("--token-file"));
    let directory = tempfile::tempdir().expect("a directory");
    let token_file = Some(file(directory.path(), "token", &format!("{TOKEN}\n")));
    let arguments = OpsArguments { token_file, ..arguments(&format!("http://{}", daemon.place)) };
    let asked = client::Daemon::of(&arguments, &config::Ops::default()).expect("a URL and a token");
    assert!(status::ask(&asked).await.expect("let in").is_ready());
    assert!(calls::ask(&asked, None).await.expect("let in").is_empty());

    let none = OpsArguments { token_file: Some("/nowhere/token".into()), ..arguments };
    assert!(matches!(client::Daemon::of(&none, &config::Ops::default()), Err(AskError::File(_))));
    daemon.stop().await;
}

#[tokio::test]
async fn a_unix_socket_is_for_its_group_and_wants_nothing_shown() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("ops.sock");
    let daemon = Daemon::start_with(with_token(), OpsListen::Unix(path.clone()));
    daemon.readiness.set_ready(true);
    let metadata = std::fs::metadata(&path).expect("it is there");
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o660);
    let asked = at(&format!("unix:{}", path.display())).expect("a socket");
    assert!(status::ask(&asked).await.expect("let in").is_ready());

    let taken = bind(&[OpsListen::Unix(path.clone())]).err().expect("it is served");
    assert!(taken.to_string().contains("another process serves this socket"), "{taken}");
    daemon.stop().await;
    assert!(!path.exists(), "it goes with its daemon");
    assert!(matches!(status::ask(&asked).await, Err(AskError::Unavailable { .. })));
}

#[tokio::test]
async fn a_socket_left_behind_is_replaced_and_nothing_else_is() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("ops.sock");
    // Closing a listener of the standard library leaves its file, as a killed process does.
    drop(std::os::unix::net::UnixListener::bind(&path).expect("bound"));
    assert!(path.exists());
    let daemon = Daemon::start_with(Access::default(), OpsListen::Unix(path.clone()));
    daemon.stop().await;
    assert!(!path.exists());

    let other = file(directory.path(), "ops.sock", "precious");
    assert!(bind(&[OpsListen::Unix(other.clone())]).is_err());
    assert_eq!(std::fs::read_to_string(&other).expect("it is there"), "precious");

    // One that another daemon has put in the place of ours is left.
    let contested = directory.path().join("contested.sock");
    let ours = bind(&[OpsListen::Unix(contested.clone())]).expect("bound");
    std::fs::remove_file(&contested).expect("removed");
    let theirs = bind(&[OpsListen::Unix(contested.clone())]).expect("bound");
    drop(ours);
    assert!(contested.exists());
    drop(theirs);
    assert!(!contested.exists());
}

/// A certificate, its key, and what it was made of.
struct Made {
    pem: String,
    key_pem: String,
}

fn authority() -> (Made, Issuer<'static, KeyPair>) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = params.self_signed(&key).expect("signed").pem();
    (Made { pem, key_pem: key.serialize_pem() }, Issuer::new(params, key))
}

fn signed(issuer: &Issuer<'static, KeyPair>, name: &str) -> Made {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new([name.to_owned()]).expect("a name");
    Made { pem: params.signed_by(&key, issuer).expect("signed").pem(), key_pem: key.serialize_pem() }
}

#[tokio::test]
async fn a_certificate_of_the_client_ca_may_ask_and_strangers_only_probe() {
    let (ca, issuer) = authority();
    let (_, strange_issuer) = authority();
    let own = signed(&issuer, "ops.example");
    let tls = Tls::new(own.pem.as_bytes(), own.key_pem.as_bytes(), Some(&ca.pem)).expect("it serves");
    let reloaded = tls.clone();
    let daemon = Daemon::start_with(Access { token_sha256: Vec::new(), tls: Some(tls) }, OpsListen::Tcp(loopback()));
    daemon.readiness.set_ready(true);

    let directory = tempfile::tempdir().expect("a directory");
    let certificate = file(directory.path(), "own.pem", &own.pem);
    let key = file(directory.path(), "own.key", &own.key_pem);
    // As with --config: the certificate that the daemon itself is configured with.
    let place = OpsListen::Tcp(daemon.place.to_string().parse().expect("an address"));
    let ops = config::Ops {
        listen: vec![place],
        tls: Some(TlsFiles { certificate, key }),
        client_ca_pem: Some(ca.pem.clone()),
        ..config::Ops::default()
    };
    let shown = |made: &Made, name: &str| OpsArguments {
        certificate: Some(file(directory.path(), &format!("{name}.pem"), &made.pem)),
        key: Some(file(directory.path(), &format!("{name}.key"), &made.key_pem)),
        ..OpsArguments::default()
    };
    let ask = async |arguments: &OpsArguments| {
        let daemon = client::Daemon::of(arguments, &ops).expect("usable");
        status::ask(&daemon).await
    };
    assert!(ask(&shown(&signed(&issuer, "scraper"), "scraper")).await.expect("let in").is_ready());
    assert!(why(ask(&OpsArguments::default()).await).contains("--certificate"), "nothing shown");
    assert!(ask(&shown(&signed(&strange_issuer, "stranger"), "stranger")).await.is_err(), "another CA's");
    let probe = client::Daemon::of(&OpsArguments::default(), &ops).expect("usable");
    assert_eq!(probe.get("/healthz").await.expect("probes go without").0, 200);

    // The certificate is exchanged; whoever believes the former one alone turns away.
    let next = signed(&issuer, "ops.example");
    reloaded.reload(next.pem.as_bytes(), next.key_pem.as_bytes()).expect("reloaded");
    assert!(reloaded.reload(next.pem.as_bytes(), own.key_pem.as_bytes()).is_err());
    assert!(probe.get("/healthz").await.is_err());
    daemon.stop().await;
}

#[tokio::test]
async fn plain_http_is_not_answered_where_tls_is_configured() {
    let (_, issuer) = authority();
    let own = signed(&issuer, "ops.example");
    let tls = Tls::new(own.pem.as_bytes(), own.key_pem.as_bytes(), None).expect("it serves");
    let daemon = Daemon::start_with(Access { tls: Some(tls), ..with_token() }, OpsListen::Tcp(loopback()));
    assert!(daemon.asked().get("/healthz").await.is_err());
    daemon.stop().await;
}

#[test]
fn a_client_ca_that_is_none_is_refused() {
    let (_, issuer) = authority();
    let own = signed(&issuer, "ops.example");
    for wrong in ["", "no PEM"] {
        let tls = Tls::new(own.pem.as_bytes(), own.key_pem.as_bytes(), Some(wrong));
        assert!(matches!(tls, Err(TlsError::Clients(_))), "{wrong}");
    }
}

#[test]
fn a_file_that_cannot_be_used_is_named() {
    let arguments = OpsArguments { ca_file: Some("/nowhere/ca.pem".into()), ..arguments("https://127.0.0.1:1") };
    let named = client::Daemon::of(&arguments, &config::Ops::default()).err().expect("no such file");
    assert!(named.to_string().contains("/nowhere/ca.pem"), "{named}");
    let arguments = CallsArguments { daemon: arguments, ..CallsArguments::default() };
    assert_eq!(calls(&arguments), crate::cli::Exit::Unavailable);
}
