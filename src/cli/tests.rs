//! What can be typed, and what is refused.

use std::path::Path;

use clap::CommandFactory;

use super::*;

#[test]
fn the_commands_of_the_contract_are_understood() {
    let command = |line: &str| parse_line(line).unwrap_or_else(|exit| panic!("{line}: {exit:?}"));
    let file = || "a.toml".into();
    assert_eq!(command("serve --config a.toml"), Command::Serve { config: file() });
    assert_eq!(command("demo --once --json"), Command::Demo(DemoArguments { once: true, json: true }));
    assert_eq!(command("demo"), Command::Demo(DemoArguments::default()));
    assert_eq!(command("check-config a.toml"), Command::CheckConfig { file: file() });
    let verify = AuditCommand::Verify { file: file(), key: Some("k.pem".into()), since: None, single: false };
    assert_eq!(command("audit verify a.toml --key k.pem"), Command::Audit(verify));
    let verify = AuditCommand::Verify { file: file(), key: None, since: Some("kept".into()), single: true };
    assert_eq!(command("audit verify a.toml --since kept --single"), Command::Audit(verify));
    let wanted = Wanted { record: Some(7), ..Wanted::default() };
    let prove = AuditCommand::Prove(ProveArguments { log: file(), wanted, key: None });
    assert_eq!(command("audit prove a.toml --record 7"), Command::Audit(prove));
    let evidence = AuditCommand::Evidence { config: file() };
    assert_eq!(command("audit evidence --config a.toml"), Command::Audit(evidence));
    assert_eq!(command("status"), Command::Status(StatusArguments::default()));
    let daemon =
        OpsArguments { ops: Some("unix:/run/ops".to_owned()), token_file: Some(file()), ..OpsArguments::default() };
    let status = StatusArguments { daemon };
    assert_eq!(command("status --ops unix:/run/ops --token-file a.toml"), Command::Status(status));
    assert_eq!(parse_line("status --certificate a.pem"), Err(Exit::Usage), "a certificate needs its key");
    assert_eq!(command("calls"), Command::Calls(CallsArguments::default()));
    let calls = CallsArguments {
        daemon: OpsArguments { config: Some(file()), ..OpsArguments::default() },
        json: true,
        call: Some(uuid::uuid!("0d9c1f5e-52a5-5b8f-9a6e-3c0e2f7b9d41")),
    };
    assert_eq!(command("calls --config a.toml --json 0d9c1f5e-52a5-5b8f-9a6e-3c0e2f7b9d41"), Command::Calls(calls));
    let names = LogNamesArguments { id: "abc".to_owned(), ..LogNamesArguments::default() };
    assert_eq!(command("log-names abc"), Command::LogNames(names));
    let Command::Sandbox(sandbox) = command("sandbox --listen [::1]:1") else { panic!("not the sandbox") };
    assert_eq!(sandbox.listen.to_string(), "[::1]:1");
}

#[test]
fn a_phone_needs_a_registrar_and_an_address() {
    let Ok(Command::Phone(phone)) = parse_line("phone --registrar sip:pbx.example --aor sip:a@pbx.example") else {
        panic!("not a phone")
    };
    assert_eq!((phone.reveille, phone.transport, phone.on_call), (None, AttachTransport::Tls, OnCall::Answer));
    assert_eq!(parse_line("phone --registrar sip:pbx.example"), Err(Exit::Usage));
    let with = |rest: &str| parse_line(&format!("phone --registrar sip:b --aor sip:a@b {rest}"));
    assert!(
        with("--reveille https://127.0.0.1:8443 --app-key-file key --app com.example.phone --transport udp").is_ok()
    );
    for wrong in [
        "--reveille http://127.0.0.1:8443 --app-key-file key",
        "--reveille https://127.0.0.1:8443",
        "--app-key-file key",
        "--transport ws",
        "--lease 45",
    ] {
        assert_eq!(with(wrong), Err(Exit::Usage), "{wrong}");
    }
}

#[test]
fn no_argument_takes_a_secret() {
    for line in
        ["phone --registrar sip:b --aor sip:a@b --password x", "phone --registrar sip:b --aor sip:a@b --app-key x"]
    {
        assert_eq!(parse_line(line), Err(Exit::Usage), "{line}");
    }
}

#[test]
fn wrong_usage_and_help_have_their_exit_codes() {
    for wrong in [
        "",
        "serve",
        "nonsense",
        "demo --twice",
        "audit",
        "audit prove log",
        "audit prove log --record 1 --receipt r",
        "status --config a --ops b",
        "calls --config a --ops b",
        "calls no-uuid",
        "log-names",
    ] {
        assert_eq!(parse_line(wrong), Err(Exit::Usage), "{wrong}");
    }
    for help in ["--help", "--version", "serve --help", "help phone"] {
        assert_eq!(parse_line(help), Err(Exit::Success), "{help}");
    }
}

#[test]
fn exit_codes_are_those_of_the_contract() {
    let codes = [
        (Exit::Success, 0),
        (Exit::DemoFailed, 1),
        (Exit::Usage, 64),
        (Exit::Refused, 65),
        (Exit::Unavailable, 69),
        (Exit::Bug, 70),
        (Exit::Configuration, 78),
    ];
    for (exit, code) in codes {
        assert_eq!(exit as u8, code);
    }
}

#[test]
fn a_configuration_that_cannot_be_read_is_a_matter_of_configuration() {
    assert_eq!(check_config(Path::new("/nonexistent/reveille.toml")), Exit::Configuration);
}

#[test]
fn the_definitions_hold_together() {
    Arguments::command().debug_assert();
}

fn parse_line(line: &str) -> Result<Command, Exit> {
    let words = std::iter::once("reveille").chain(line.split_whitespace());
    parse(words.map(OsString::from))
}
