use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::tunnel::pki;

fn parse(api: &str) -> Result<Config, String> {
    let text = format!(
        "[node]\nname = 'n'\n[dicom]\nlisten = '0.0.0.0:104'\nae_titles = ['A']\n\
         allow = [{{ address = '10.0.0.1' }}]\n[orders]\n{api}"
    );
    let read = Config::parse(&text, Path::new("/etc/hikyaku/h.toml"));
    read.map(|(config, _)| config)
        .map_err(|all| all.iter().map(|p| format!("{p}\n")).collect::<String>())
}

const CLIENT: &str = "[[api.client]]\nname = 'ris'\ntoken = 'ris.token'\nmay = ['read-orders']\n";

#[test]
fn plain_http_is_for_loopback_alone() {
    for (listen, good) in
        [("127.0.0.1:1", true), ("[::1]:1", true), ("0.0.0.0:1", false), ("10.0.0.1:1", false)]
    {
        let read = parse(&format!("[api]\nlisten = '{listen}'\n{CLIENT}"));
        assert_eq!(read.is_ok(), good, "{listen}: {read:?}");
        let tls = "tls = { certificate = 'c', key = 'k' }";
        let read = parse(&format!("[api]\nlisten = '{listen}'\n{tls}\n{CLIENT}"));
        assert!(read.is_ok(), "{read:?}");
    }
}

#[test]
fn a_client_is_named_once_proves_itself_one_way_and_may_do_something() {
    let api = |client: &str| format!("[api]\nlisten = '127.0.0.1:1'\n{client}");
    let tls = "tls = { certificate = 'c', key = 'k', trust = 't' }\n";
    for (wrong, said) in [
        ("", "no client"),
        ("[[api.client]]\nname = 'a'\nmay = ['read-orders']", "neither token nor certificate"),
        ("[[api.client]]\nname = 'a'\ntoken = 't'\nmay = ['read-order']", "cannot be read"),
        ("[[api.client]]\nname = 'a'\ntoken = 't'\nmay = []", "list of 0"),
        ("[[api.client]]\nname = 'a'\ntoken = 't'", "may: is missing"),
        ("[[api.client]]\nname = 'a b'\ntoken = 't'\nmay = 'read-orders'", "cannot be taken"),
        ("[[api.client]]\nname = 'a'\ncertificate = 'c'\nmay = 'read-orders'", "api.tls.trust"),
        (&format!("{CLIENT}{CLIENT}"), "earlier client"),
        (&format!("limits = {{ connections = 2 }}\n{CLIENT}"), "above api.limits.connections"),
        (
            &format!("tls = {{ certificate = 'c', key = 'k', crl = 'r' }}\n{CLIENT}"),
            "revokes nothing",
        ),
        (
            &format!(
                "{tls}[[api.client]]\nname = 'a'\ncertificate = 'c'\ntoken = 't'\nmay = 'read-orders'"
            ),
            "beside a token",
        ),
    ] {
        let read = parse(&api(wrong)).expect_err(wrong).replace('\n', " ");
        assert!(read.contains(said), "{wrong}: {read}");
    }
    let good = format!("{tls}[[api.client]]\nname = 'a'\ncertificate = 'c'\nmay = 'read-orders'");
    assert!(parse(&api(&good)).is_ok());
}

#[test]
fn the_port_is_its_own() {
    let read = parse(&format!("[api]\nlisten = '127.0.0.1:9480'\n{CLIENT}")).unwrap_err();
    assert!(read.contains("same port"), "{read}");
}

#[test]
fn a_token_file_is_secret_long_enough_and_holds_at_most_two() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let read = |text: &str, mode: u32| {
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let read = tokens(&path);
        let said = read.as_ref().err().map(|e| format!("{e}{}", e.advice(&path)));
        assert!(said.is_none_or(|said| !said.contains("aaaa")), "the token is told");
        read
    };
    let long = "a".repeat(TOKEN_LENGTH_MIN);
    let one = read(&format!("{long}\r\n"), 0o600).unwrap();
    assert_eq!(one, [Sha256::of(long.as_bytes())], "the line end is no part of it");
    assert_eq!(read(&format!("{long}\n\n{long}b\n"), 0o640).unwrap().len(), 2);
    assert!(matches!(read(&long, 0o604), Err(TokenError::Open)));
    assert!(matches!(read(&long[1..], 0o600), Err(TokenError::Length)));
    assert!(matches!(read(&"a".repeat(600), 0o600), Err(TokenError::Length)));
    assert!(matches!(read("\n \n", 0o600), Err(TokenError::Empty)));
    assert!(matches!(read(&format!("{long}\n").repeat(3), 0o600), Err(TokenError::TooMany)));
    assert!(matches!(read(&format!("{long} x"), 0o600), Err(TokenError::Characters)));
    assert!(matches!(tokens(&folder.path().join("none")), Err(TokenError::Read(_))));
}

#[test]
fn the_files_are_checked_and_one_token_is_one_clients() {
    let folder = tempfile::tempdir().unwrap();
    let now = crate::clock::wall();
    pki::write_ca(folder.path(), "test", now).unwrap();
    pki::write_node(folder.path(), &"n".parse().unwrap(), 60, now).unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    };
    write("a.token", &"a".repeat(40));
    write("b.token", &"b".repeat(40));
    let file = folder.path().join("h.toml");
    let client = |name: &str| {
        format!("[[api.client]]\nname = '{name}'\ntoken = '{name}.token'\nmay = 'read-orders'\n")
    };
    let text = format!(
        "[node]\nname = 'n'\ndata = '.'\n[tunnel]\nlisten = '127.0.0.1:1'\ncertificate = 'n.crt'\n\
         key = 'n.key'\ntrust = 'ca.crt'\npeers = [{{ name = 'm' }}]\n[orders]\n[api]\n\
         listen = '0.0.0.0:2'\ntls = {{ certificate = 'n.crt', key = 'n.key' }}\n{}{}",
        client("a"),
        client("b")
    );
    fs::write(&file, text).unwrap();
    let (config, _) = Config::load(&file).unwrap();
    let door = config.api_door().unwrap().unwrap();
    assert!(door.tls.is_some());
    write("b.token", &"a".repeat(40));
    let wrong = Config::load(&file).unwrap_err();
    assert!(wrong[0].to_string().contains("token of a"), "{}", wrong[0]);
    write("b.token", "short");
    let wrong = Config::load(&file).unwrap_err();
    assert!(wrong[0].to_string().contains("fewer than 32"), "{}", wrong[0]);
    assert!(matches!(config.api_door(), Err(ApiError::Token { .. })));
}

#[test]
fn clients_and_certificates_are_taken_over_and_the_listener_is_not() {
    let old = parse(&format!("[api]\nlisten = '127.0.0.1:1'\n{CLIENT}")).unwrap();
    let other = CLIENT.replace("read-orders", "write-orders");
    let new = parse(&format!("[api]\nlisten = '127.0.0.1:2'\n{other}")).unwrap();
    let said = format!("{:?}", super::super::changes(&old, &new));
    assert!(said.contains("Applied { key: \"api.client.ris.may\" }"), "{said}");
    assert!(said.contains("NeedsRestart { key: \"api.listen\""), "{said}");
    let without = parse("").unwrap();
    let said = format!("{:?}", super::super::changes(&old, &without));
    assert!(said.contains("NeedsRestart { key: \"api\""), "{said}");
    let tls = "tls = { certificate = 'c', key = 'k' }";
    let new = parse(&format!("[api]\nlisten = '127.0.0.1:1'\n{tls}\n{CLIENT}")).unwrap();
    let said = format!("{:?}", super::super::changes(&old, &new));
    assert!(said.contains("NeedsRestart { key: \"api.tls\""), "{said}");
}
