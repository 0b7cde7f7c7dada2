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
