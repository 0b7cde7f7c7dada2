//! Tenants and their apps.

use super::*;

#[test]
fn tenants_must_be_told_apart() {
    let hash = "00000000000000000000000000000000000000000000000000000000000000ff";
    let other = "00000000000000000000000000000000000000000000000000000000000000EE";
    let text = format!(
        "{LEAST}[[tenant.app]]\nid = \"com.example.phone\"\nprovider = \"sandbox\"\nendpoint = \"https://a.example\"\n\
         [[tenant]]\nid = \"acme\"\napp_key_sha256 = [\n\"{hash}\",\n\"{other}\",\n\"{other}\",\n\"my-secret-key\",\n]\n\
         caller_in_push = \"secret\"\nedge_registrars = [\"pbx.example.com\", \"*.example.com\"]\n[[tenant]]\nid = \"in valid\"\n"
    );
    assert_eq!(
        mistakes(&text),
        [
            "r.toml:14: tenant[0].app[1].id: is the id of an app above with the same provider",
            "r.toml:17: tenant[1].app: is missing; at least one [[tenant.app]] is needed, as devices are woken through \
             apps",
            "r.toml:18: tenant[1].id: is the id of a tenant above",
            "r.toml:23: tenant[1].app_key_sha256: must be the SHA-256 of the app key, 64 hex digits (printf %s \"$KEY\" | \
             sha256sum), never the key itself",
            "r.toml:25: tenant[1].caller_in_push: must be one of \"none\", \"clear\", \"sealed\"",
            "r.toml:26: tenant[1].edge_registrars: must be a registrar's whole name or address, without a pattern, with \
             \":port\", \";transport=udp|tcp|tls\" and \";path\" where needed, such as \"pbx.example.com\" or \
             \"pbx.example.com;path\"",
            "r.toml:27: tenant[2].app: is missing; at least one [[tenant.app]] is needed, as devices are woken through \
             apps",
            "r.toml:27: tenant[2].app_key_sha256: is missing, and so is jwt_public_key: with neither nobody could hand \
             an account over",
            "r.toml:28: tenant[2].id: must be 1 to 155 letters, digits, \".\", \"-\" or \"_\"",
        ]
    );
    let three = format!("app_key_sha256 = [\"{hash}\", \"{other}\", \"{}\"]", "a".repeat(64));
    let text = LEAST.replace(&format!("app_key_sha256 = \"{hash}\""), &three);
    assert_eq!(
        mistakes(&text),
        ["r.toml:8: tenant[0].app_key_sha256: has more than 2 keys: the present one and the one it is rotated with"]
    );
    let text =
        LEAST.replace(&format!("app_key_sha256 = \"{hash}\""), &format!("app_key_sha256 = [\"{hash}\", \"{hash}\"]"));
    assert_eq!(mistakes(&text), ["r.toml:8: tenant[0].app_key_sha256: stands twice; a key must tell its tenant"]);
}

#[test]
fn a_tenant_says_which_kinds_of_wake_it_does_without_and_what_its_users_read() {
    let with = |lines: &str, table: &str| {
        LEAST.replace("[[tenant.app]]", &format!("{lines}[tenant.texts]\n{table}[[tenant.app]]"))
    };
    let settings = settings(&with("wakes_off = [\"missed-call\", \"test\"]\n", "message = \"Sie haben Post\"\n"));
    let off = [WakeKind::MissedCall, WakeKind::Test];
    assert_eq!(settings.tenants[0].wakes_off, off);
    assert_eq!(settings.tenants[0].texts, [(WakeKind::Message, "Sie haben Post".to_owned())]);
    assert_eq!(settings.policy(Vec::new()).tenants[0].wakes_off, off);

    let long = "x".repeat(181);
    let lines = "wakes_off = [\n\"call\",\n\"voicemial\",\n\"sms\"]\n";
    let table = format!("mesage = \"a\"\ncall = \"a\"\nmessage = \"{long}\"\ntest = \"a\\nb\"\nvoicemail = \" \"\n");
    let kinds = "\"call-ended\", \"missed-call\", \"message\", \"voicemail\", \"expiring\", \"reprovision\", \"test\"";
    let plain = "must be plain text of 1 to 180 characters on one line";
    assert_eq!(
        mistakes(&with(lines, &table)),
        [
            "r.toml:10: tenant[0].wakes_off: cannot have \"call\" in it: without it no phone would ring".to_owned(),
            format!("r.toml:11: tenant[0].wakes_off: must be kinds of wake: {kinds}; did you mean \"voicemail\"?"),
            format!("r.toml:12: tenant[0].wakes_off: must be kinds of wake: {kinds}"),
            "r.toml:14: tenant[0].texts.mesage: is not a known key; did you mean \"message\"?".to_owned(),
            "r.toml:15: tenant[0].texts.call: is not a known key; allowed here: missed-call, message, voicemail, \
             expiring, reprovision, test"
                .to_owned(),
            format!("r.toml:16: tenant[0].texts.message: {plain}"),
            format!("r.toml:17: tenant[0].texts.test: {plain}"),
            format!("r.toml:18: tenant[0].texts.voicemail: {plain}"),
        ]
    );
    let flat = LEAST.replace("[[tenant.app]]", "texts = \"Hello\"\n[[tenant.app]]");
    assert_eq!(mistakes(&flat), ["r.toml:9: tenant[0].texts: must be a table, written as [tenant.texts]"]);
}

#[test]
fn an_app_says_what_its_provider_asks_for_and_nothing_else() {
    let app = LEAST.find("[[tenant.app]]").expect("it has one");
    let text = format!(
        "{}[[tenant.app]]\nid = \"com.example.phone.voip\"\nprovider = \"apns\"\nteam_id = \"x\"\n\
         environment = \"staging\"\nservice_account_file = \"a.json\"\n[[tenant.app]]\nid = \"b\"\nprovider = \"fcm\"\n\
         key_id = \"ABCDE12345\"\nendpoint = \"http://push.example.net\"\n[[tenant.app]]\nid = \"c\"\nkey_id = \"x\"\n",
        &LEAST[..app]
    );
    assert_eq!(
        mistakes(&text),
        [
            "r.toml:9: tenant[0].app[0].key_file: is missing; it is the token signing key, AuthKey_….p8",
            "r.toml:9: tenant[0].app[0].key_id: is missing; it is the id of the token signing key",
            "r.toml:10: tenant[0].app[0].id: must be the bundle id itself; \".voip\" is added for calls",
            "r.toml:12: tenant[0].app[0].team_id: must be the ten capital letters and digits that Apple shows, such as \
             \"ABCDE12345\"",
            "r.toml:13: tenant[0].app[0].environment: must be one of \"production\", \"sandbox\"",
            "r.toml:14: tenant[0].app[0].service_account_file: is only for provider fcm",
            "r.toml:15: tenant[0].app[1].service_account_file: is missing; it is the service account's key file from the \
             Firebase console",
            "r.toml:18: tenant[0].app[1].key_id: is only for provider apns",
            "r.toml:19: tenant[0].app[1].endpoint: must be https; plain http carries push tokens in clear and is only \
             for this host itself",
            "r.toml:20: tenant[0].app[2].provider: is missing; it must be one of \"apns\", \"fcm\", \"sandbox\"",
        ]
    );
}

#[test]
fn a_tenant_has_a_policy_of_its_own_within_that_of_all() {
    let with = |lines: &str| {
        let text = LEAST.replace("[[tenant.app]]", &format!("{lines}[[tenant.app]]"));
        format!(
            "{text}[registrars]\nallow = [\"*.example.com\", \"pbx.example.org\"]\n[lease]\nmaximum = \"2d\"\ndefault = \"1d\"\n"
        )
    };
    let lines = "registrars_allow = [\"*.EU.example.com\", \"pbx.example.org\"]\nmodes = [\"background\", \"takeover\"]\n\
                 lease_maximum = \"1d\"\ntls_trunks_only = true\ninstances_max = 7\nedge_registrars = \"a.example;transport=tls\"\n";
    let settings = settings(&with(lines));
    let policy = settings.policy(Vec::new());
    let tenant = &policy.tenants[0];
    assert_eq!(tenant.registrars_allow, ["*.eu.example.com", "pbx.example.org"]);
    assert_eq!(tenant.modes, [Mode::Background, Mode::Takeover]);
    assert_eq!(tenant.lease_maximum, Some(Duration::from_secs(86_400)));
    assert_eq!((tenant.tls_trunks_only, tenant.instances_max), (true, Some(7)));

    let wrong = "registrars_allow = [\n\"*\",\n\"*.example.org\"]\nmodes = [\"always\",\n\"sometimes\"]\n\
                 lease_maximum = \"3d\"\ntls_trunks_only = \"yes\"\ninstances_max = 0\n";
    let outside = "lies outside of registrars.allow, which no tenant can widen";
    assert_eq!(
        mistakes(&with(wrong)),
        [
            format!("r.toml:10: tenant[0].registrars_allow: {outside}"),
            format!("r.toml:11: tenant[0].registrars_allow: {outside}"),
            "r.toml:13: tenant[0].modes: must be of \"always\", \"background\" and \"takeover\"".to_owned(),
            "r.toml:14: tenant[0].lease_maximum: must be between 1s and 2days".to_owned(),
            "r.toml:15: tenant[0].tls_trunks_only: must be true or false".to_owned(),
            "r.toml:16: tenant[0].instances_max: must be a whole number between 1 and 100000000".to_owned(),
        ]
    );
    let empty = "registrars_allow = []\nmodes = []\n";
    assert_eq!(
        mistakes(&with(empty)),
        [
            "r.toml:9: tenant[0].registrars_allow: is empty, so no registrar could be reached; leave it out for all of \
             registrars.allow",
            "r.toml:10: tenant[0].modes: is empty, so no account could be handed over; leave it out for all modes",
        ]
    );
    let plain = "tls_trunks_only = true\nedge_registrars = [\"a.example;transport=tls\",\n\"b.example\"]\n";
    assert_eq!(
        mistakes(&with(plain)),
        ["r.toml:11: tenant[0].edge_registrars: must name TLS, as tls_trunks_only is set: add \";transport=tls\""]
    );
}

#[test]
fn jwts_can_be_required_only_where_there_is_a_key() {
    let with = |lines: &str| LEAST.replace("[[tenant.app]]", &format!("{lines}[[tenant.app]]"));
    assert_eq!(
        mistakes(&with("jwt_required = true\n")),
        ["r.toml:6: tenant[0].jwt_required: needs jwt_public_key, or nobody could hand an account over"]
    );
    let directory = tempfile::tempdir().expect("a directory");
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
    std::fs::write(directory.path().join("jwt.pem"), pair.public_key_pem()).expect("written");
    let text = with("jwt_required = true\njwt_public_key = \"jwt.pem\"\n");
    let file = directory.path().join("r.toml");
    let settings = read_in(&file, &text, &[]).unwrap_or_else(|error| panic!("{error}"));
    assert!(settings.tenants[0].jwt_required);
    let warned = settings.warnings.iter().find(|warning| warning.key == "tenant[0].app_key_sha256");
    assert!(
        warned.is_some_and(|it| it.problem.contains("has no effect beside jwt_required")),
        "{:?}",
        settings.warnings
    );
}

#[test]
fn a_tenant_says_how_much_pushes_tell_of_the_caller_and_whether_their_tokens_are_proven() {
    let with = |lines: &str| LEAST.replace("[[tenant.app]]", &format!("{lines}[[tenant.app]]"));
    let told = |lines: &str| {
        let settings = settings(&with(lines));
        let tenant = settings.policy(Vec::new()).tenants.remove(0);
        (tenant.caller_in_push, tenant.prove_push_token)
    };
    assert_eq!(told(""), (CallerInPush::None, false));
    assert_eq!(told("caller_in_push = \"sealed\"\nprove_push_token = true\n"), (CallerInPush::Sealed, true));
    let wrong = with("prove_push_token = \"yes\"\nwakes_off = [\"proof\"]\n");
    let wrong = mistakes(&wrong).join("\n");
    assert!(wrong.contains("tenant[0].prove_push_token: must be true or false"), "{wrong}");
    assert!(wrong.contains("tenant[0].wakes_off: cannot have \"proof\" in it"), "{wrong}");
}

#[test]
fn phones_that_can_prove_no_token_are_told_of_where_tokens_are_to_be_proven() {
    let with = |lines: &str| LEAST.replace("[[tenant.app]]", &format!("{lines}[[tenant.app]]"));
    let told = |lines: &str| {
        let warnings = settings(&with(lines)).warnings;
        warnings
            .iter()
            .filter(|it| it.key == "tenant[0].edge_registrars" && it.problem.contains("prove_push_token"))
            .count()
    };
    let through = "edge_registrars = [\"pbx.example.com\"]\n";
    assert_eq!(told(&format!("prove_push_token = true\n{through}")), 1);
    assert_eq!((told(through), told("prove_push_token = true\n")), (0, 0));
}
