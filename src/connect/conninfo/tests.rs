//! Whole connection strings, with their surroundings. Expectations were compared with libpq 15's
//! `PQconninfoParse` and `psql`.

mod properties;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use secrecy::ExposeSecret;
use tempfile::TempDir;

use super::*;
use crate::fault::Reaction;

fn env() -> Environment {
    Environment::empty().user("os_user")
}

fn parse(text: &str) -> ConnInfo {
    ConnInfo::parse(text, &env()).unwrap_or_else(|fault| panic!("{text}: {fault}"))
}

/// The message of a refusal, which must be a usage fault.
fn refusal_in(text: &str, env: &Environment) -> String {
    match ConnInfo::parse(text, env) {
        Ok(info) => panic!("{text} was accepted as {info}"),
        Err(fault) => {
            assert_eq!(fault.reaction(), Reaction::Usage);
            fault.to_string()
        }
    }
}

fn refusal(text: &str) -> String {
    refusal_in(text, &env())
}

fn password(info: &ConnInfo) -> Option<&str> {
    info.hosts()[0].password.as_ref().map(|password| password.expose_secret())
}

fn write(dir: &Path, name: &str, text: &str) -> String {
    let file = dir.join(name);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, text).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn nothing_at_all_is_all_defaults() {
    let info = ConnInfo::parse("", &env().socket_directory("/run/pg")).unwrap();
    assert_eq!(info.to_string(), "os_user@/run/pg:5432/os_user");
    assert_eq!(info.hosts()[0].socket_path().unwrap(), Path::new("/run/pg/.s.PGSQL.5432"));
    assert_eq!(info.ssl().mode, SslMode::Prefer);
    assert_eq!(info.ssl().verification(), Verification::Nothing);
    assert!(info.ssl().sni && info.keepalives().enabled && !info.load_balance_hosts());
    assert_eq!((info.connect_timeout(), info.application_name(), info.options()), (None, None, None));
    assert_eq!(parse("postgres://").to_string(), "os_user@/tmp:5432/os_user");
    assert!(ConnInfo::parse("", &Environment::empty()).is_err(), "nobody to connect as");
}

#[test]
fn a_uri_with_every_part() {
    let info = parse(
        "postgresql://al%40ice:p%40%2Fss@db.example.com:6432/my%20db?application_name=a%3Db&connect_timeout=10",
    );
    assert_eq!(info.to_string(), "al@ice@db.example.com:6432/my db");
    assert_eq!(password(&info), Some("p@/ss"));
    assert_eq!(info.application_name(), Some("a=b"));
    assert_eq!(info.connect_timeout(), Some(Duration::from_secs(10)));
}

#[test]
fn uris_of_every_shape() {
    for (uri, shown) in [
        ("postgres://localhost", "os_user@localhost:5432/os_user"),
        ("postgres://localhost/", "os_user@localhost:5432/os_user"),
        ("postgres://bob@h", "bob@h:5432/bob"),
        ("postgres://bob:@h/d", "bob@h:5432/d"),
        ("postgres://:pw@h/d", "os_user@h:5432/d"),
        ("postgres:///d", "os_user@/tmp:5432/d"),
        ("postgres:///d?host=/var/lib/pg&port=5433", "os_user@/var/lib/pg:5433/d"),
        ("postgres://%2Fvar%2Flib%2Fpg:5433/d", "os_user@/var/lib/pg:5433/d"),
        ("postgres://bob@[::1]:5433/d", "bob@[::1]:5433/d"),
        ("postgres://[2001:db8::1]", "os_user@[2001:db8::1]:5432/os_user"),
        ("postgres://[fe80::1%25eth0]/d", "os_user@[fe80::1%eth0]:5432/d"),
        ("postgres://a:1,b,[::1]:3/d", "os_user@a:1,b:5432,[::1]:3/d"),
        ("postgres://a,b:2/d", "os_user@a:5432,b:2/d"),
        ("postgres://a,/d", "os_user@a:5432,/tmp:5432/d"),
        ("postgres://a?dbname=x&dbname=y&", "os_user@a:5432/y"),
        ("postgres://a/d?host=b", "os_user@b:5432/d"),
        ("postgres://u:a:b?c#d@h/d", "u@h:5432/d"),
        ("  postgres://h/d\n", "os_user@h:5432/d"),
    ] {
        assert_eq!(parse(uri).to_string(), shown, "{uri}");
    }
    assert_eq!(password(&parse("postgres://u:a:b?c#d@h/d")), Some("a:b?c#d"));
    assert_eq!(parse("postgres://h/?ssl=true").ssl().mode, SslMode::Require);
}

#[test]
fn keyword_strings_of_every_shape() {
    for (text, shown) in [
        ("host=h port=5433 dbname=d user=u", "u@h:5433/d"),
        (" host = h\tdbname= 'a b' \n", "os_user@h:5432/a b"),
        (r"host=h dbname='it\'s' user=a\ b", r"a b@h:5432/it's"),
        (r"host='h'dbname=a\\b", r"os_user@h:5432/a\b"),
        (r"host=h dbname=a\ ", "os_user@h:5432/a "),
        ("host=a,b port=1,2", "os_user@a:1,b:2/os_user"),
        ("host=a,b port=1", "os_user@a:1,b:1/os_user"),
        ("host=a,b port=,2", "os_user@a:5432,b:2/os_user"),
        ("hostaddr=::1", "os_user@[::1]:5432/os_user"),
        ("host=h dbname=", "os_user@h:5432/os_user"),
        ("host=@pg dbname=d", "os_user@@pg:5432/d"),
    ] {
        assert_eq!(parse(text).to_string(), shown, "{text}");
    }
    assert_eq!(password(&parse(r"password='a \' b' host=h")), Some("a ' b"));
    assert_eq!(parse("host=@pg").hosts()[0].socket_path().unwrap(), Path::new("\0pg/.s.PGSQL.5432"));
    assert_eq!(parse("host=h requiressl=1").ssl().mode, SslMode::Require);
}

#[test]
fn an_address_spares_the_lookup_and_keeps_the_name() {
    let info = parse("host=a,,c hostaddr=10.0.0.1,10.0.0.2,");
    let tcp = |host: Option<&str>, addr: Option<&str>| HostName::Tcp {
        host: host.map(str::to_owned),
        hostaddr: addr.map(|addr| addr.parse().unwrap()),
    };
    let names: Vec<_> = info.hosts().iter().map(|host| host.name.clone()).collect();
    assert_eq!(names, [tcp(Some("a"), Some("10.0.0.1")), tcp(None, Some("10.0.0.2")), tcp(Some("c"), None)]);
}

#[test]
fn a_password_that_is_not_percent_encoded_is_recognised_and_not_shown() {
    for uri in [
        "postgres://u:s3c@r3t@h/d",
        "postgres://u:s3c/r3t@h/d",
        "postgres://u:1/r3t@h:5432/d",
        "postgres://u:s3c?/r3t@h/d",
        "postgres://u:s3c/r3t?x@h/d",
        "postgres://u:s@c/r3t@h/d",
    ] {
        let message = refusal(uri);
        assert!(message.contains("@ is written %40"), "{uri}: {message}");
        assert!(!message.contains("s3c") && !message.contains("r3t"), "{uri}: {message}");
        assert!(ConnInfo::has_password(uri), "{uri}");
    }
    let message = refusal("postgres://u:100%s3cr3t@h/d");
    assert!(message.contains("the password contains a % ") && message.contains("%25"), "{message}");
    assert!(!message.contains("s3cr3t"), "{message}");
}

#[test]
fn what_is_wrong_is_named_and_never_shown() {
    for (text, says) in [
        ("postgres://[::1/d", "closing ]"),
        ("postgres://[]/d", "empty"),
        ("postgres://[::1]x/d", "follow the ]"),
        ("postgres://h:zz9/d", "port must be a number from 1 to 65535"),
        ("postgres://h:0/d", "port must be"),
        ("postgres://h:65536/d", "port must be"),
        ("postgres://zz9%2", "the host contains a %"),
        ("postgres://h/zz9%00", "%00"),
        ("postgres://h/%ff", "UTF-8"),
        ("postgres://h/d?zz9=1", "number 1"),
        ("postgres://h/d?sslmode=require&zz9", "number 2"),
        ("postgres://h/d?dbname=zz9=zz9", "number 1"),
        ("postgres://h/d?ssl=zz9", "unknown"),
        ("postgress://u:zz9@h/d?a=b", "must start with postgres://"),
        ("host=h passwrd=zz9", "at character 8\n  what to do: write password"),
        ("host=h user=a zz9", "lacks a = after the word at character 15"),
        ("host=h password=a zz9=", "at character 19"),
        ("password='zz9", "closing quote"),
        ("host=h sslmode=zz9", "sslmode must be one of disable, allow,"),
        ("host=h sslmode=", "sslmode must be one of"),
        ("host=h connect_timeout=zz9", "connect_timeout must be a whole number"),
        ("host=h keepalives_idle=99999999999", "keepalives_idle must be a whole number"),
        ("host=h user=''", "user is empty"),
        ("host=h user='zz9\0'", "user contains a zero byte"),
        ("host=a,b port=1,2,3", "port has 3 entries for a list of 2 hosts"),
        ("host=a port=1,2", "port has 2 entries"),
        ("host=a,b hostaddr=::1", "hostaddr has 1 entries, but host has 2"),
        ("hostaddr=zz9", "hostaddr must be"),
        ("hostaddr=fe80::1%eth0", "hostaddr must be"),
        ("host=h target_session_attrs=zz9", "target_session_attrs must be one of any,"),
        ("host=h load_balance_hosts=zz9", "load_balance_hosts must be one of"),
        ("host=h channel_binding=zz9", "channel_binding must be one of"),
    ] {
        let message = refusal(text);
        assert!(message.contains(says), "{text}: {message}");
        assert!(!message.contains("zz9"), "{text}: {message}");
    }
}

#[test]
fn what_would_be_less_secure_than_asked_for_is_refused() {
    for text in [
        "host=h gssencmode=require",
        "host=h gssencmode=zz9",
        "host=h require_auth=scram-sha-256",
        "requirepeer=postgres",
        "host=h sslmode=verify-full",
        "host=h sslmode=verify-ca sslrootcert=/nonexistent/root.crt",
        "host=h sslmode=verify-ca sslrootcert=system",
        "host=h sslmode=prefer sslnegotiation=direct",
        "host=h sslnegotiation=direct",
        "host=h ssl_max_protocol_version=TLSv1.1",
        "host=h ssl_min_protocol_version=TLSv1.3 ssl_max_protocol_version=TLSv1.2",
        "host=h ssl_min_protocol_version=SSLv3",
        "host=h sslcertmode=require",
        "host=h replication=database",
        "host=h min_protocol_version=3.2",
        "host=h scram_client_key=zz9",
        "host=h oauth_issuer=x",
    ] {
        refusal(text);
    }
    for harmless in [
        "host=h gssencmode=prefer krbsrvname=x gsslib=gssapi gssdelegation=1 sslcompression=1",
        "host=h requirepeer=postgres client_encoding=latin1 replication=off max_protocol_version=latest",
        "host=/tmp sslmode=verify-full",
        "host=h require_auth='' ssl_min_protocol_version=TLSv1",
    ] {
        parse(harmless);
    }
}

#[test]
fn settings_of_the_connection() {
    let info = parse(
        "host=h connect_timeout=' 5 ' keepalives=0 keepalives_idle=60 keepalives_interval=10 \
         keepalives_count=3 tcp_user_timeout=1500 target_session_attrs=read-write \
         load_balance_hosts=random channel_binding=require options='-c a=b' \
         fallback_application_name=fallback",
    );
    let keepalives = Keepalives {
        enabled: false,
        idle: Some(Duration::from_secs(60)),
        interval: Some(Duration::from_secs(10)),
        count: Some(3),
        tcp_user_timeout: Some(Duration::from_millis(1500)),
    };
    assert_eq!(info.keepalives(), &keepalives);
    assert_eq!(info.connect_timeout(), Some(Duration::from_secs(5)));
    assert_eq!(info.target_session_attrs(), TargetSessionAttrs::ReadWrite);
    assert_eq!(info.channel_binding(), ChannelBinding::Require);
    assert_eq!((info.options(), info.application_name()), (Some("-c a=b"), Some("fallback")));
    assert!(info.load_balance_hosts());
    assert_eq!(parse("host=h connect_timeout=-1").connect_timeout(), None);
}

#[test]
fn the_files_of_the_home_directory_are_used_if_they_exist() {
    let home = TempDir::new().unwrap();
    let env = env().home(home.path());
    let bare = ConnInfo::parse("host=h sslmode=require", &env).unwrap();
    assert_eq!((bare.ssl().root_cert.clone(), bare.ssl().verification()), (None, Verification::Nothing));

    for file in ["root.crt", "root.crl", "postgresql.crt", "postgresql.key"] {
        write(home.path(), &format!(".postgresql/{file}"), "");
    }
    let dir = home.path().join(".postgresql");
    let info = ConnInfo::parse("host=h sslmode=require", &env).unwrap();
    let expected = Ssl {
        mode: SslMode::Require,
        root_cert: Some(RootCert::File(dir.join("root.crt"))),
        cert: Some(dir.join("postgresql.crt")),
        key: Some(dir.join("postgresql.key")),
        sni: true,
        negotiation: SslNegotiation::Postgres,
        min_protocol: TlsVersion::Tls12,
        max_protocol: TlsVersion::Tls13,
        crl: Some(dir.join("root.crl")),
        crl_dir: None,
    };
    assert_eq!(info.ssl(), &expected);
    // With a root certificate, libpq's "require" verifies like "verify-ca".
    assert_eq!(info.ssl().verification(), Verification::Authority);

    let without = ConnInfo::parse("host=h sslcertmode=disable", &env).unwrap();
    assert_eq!((&without.ssl().cert, &without.ssl().key), (&None, &None));
    assert!(refusal_in("host=h sslpassword=zz9", &env).contains("encrypted private keys"));
    assert!(refusal_in("host=h sslkey=pkcs11:zz9", &env).contains("engine"));
    fs::remove_file(dir.join("postgresql.key")).unwrap();
    assert!(refusal_in("host=h", &env).contains("sslkey gives no file"));
}

#[test]
fn the_systems_authorities_need_the_strongest_mode() {
    let info = parse("host=h sslrootcert=system");
    assert_eq!(
        (info.ssl().mode, info.ssl().root_cert.clone()),
        (SslMode::VerifyFull, Some(RootCert::System))
    );
    assert_eq!(info.ssl().verification(), Verification::AuthorityAndName);
    refusal_in("host=h sslrootcert=system", &env().set("PGSSLMODE", "require"));
}

#[test]
fn the_string_wins_over_the_service_and_the_service_over_the_environment() {
    let home = TempDir::new().unwrap();
    let text = "# comment\n[other]\nhost=wrong\n\n[shop]\n  host=from-service\ndbname=from service\nuser=u=v\nuser=second\n[shop]\nport=1\n";
    write(home.path(), ".pg_service.conf", text);
    let env = env()
        .home(home.path())
        .set("PGHOST", "from-env")
        .set("PGPORT", "7777")
        .set("PGDATABASE", "from_env")
        .set("PGUSER", "env");
    let shown = |text| ConnInfo::parse(text, &env).unwrap().to_string();
    assert_eq!(shown(""), "env@from-env:7777/from_env");
    assert_eq!(shown("service=shop"), "u=v@from-service:7777/from service");
    assert_eq!(shown("service=shop host=h"), "u=v@h:7777/from service");
    assert_eq!(shown("postgres:///d?service=shop"), "u=v@from-service:7777/d");
    let by_variable = ConnInfo::parse("", &env.clone().set("PGSERVICE", "shop")).unwrap();
    assert_eq!(by_variable.to_string(), "u=v@from-service:7777/from service");
    // An empty value is a value: it hides the environment's and stands for the default.
    assert_eq!(shown("host=h dbname='' port=''"), "env@h:5432/env");
}

#[test]
fn a_service_is_looked_for_in_the_users_file_and_then_in_the_systems() {
    let dir = TempDir::new().unwrap();
    let system = TempDir::new().unwrap();
    write(system.path(), "pg_service.conf", "[both]\nhost=system\n[system]\nhost=system\n");
    let mine = write(
        dir.path(),
        "mine",
        "[both]\nhost=mine\n[bad]\nzz9\n[ldap]\nldap://x/y\n[nest]\nservice=both\n[typo]\nhots=zz9\n",
    );
    let env = env().set("PGSYSCONFDIR", system.path()).set("PGSERVICEFILE", &mine);
    let host = |service: &str| ConnInfo::parse(&format!("service={service}"), &env).unwrap().to_string();
    assert_eq!(host("both"), "os_user@mine:5432/os_user");
    assert_eq!(host("system"), "os_user@system:5432/os_user");
    let by_parameter = format!("service=both servicefile={mine}");
    assert_eq!(parse(&by_parameter).to_string(), "os_user@mine:5432/os_user");
    for (service, says) in [
        ("absent", "\"absent\", which is not defined"),
        ("bad", "missing in line 4"),
        ("ldap", "LDAP"),
        ("nest", "cannot refer to another service"),
        ("typo", "in line 10"),
    ] {
        let message = refusal_in(&format!("service={service}"), &env);
        assert!(message.contains(says) && !message.contains("zz9"), "{message}");
    }
    assert!(refusal("service=absent").contains("there is no service file"));
    assert!(refusal_in("service=x", &env.set("PGSERVICEFILE", "/nonexistent/file")).contains("cannot read"));
}

#[test]
fn every_variable_of_libpq_counts() {
    let env = env()
        .set("PGHOSTADDR", "10.0.0.1")
        .set("PGPASSWORD", "pw")
        .set("PGOPTIONS", "-c x=y")
        .set("PGAPPNAME", "app")
        .set("PGSSLMODE", "require")
        .set("PGREQUIRESSL", "0")
        .set("PGSSLSNI", "0")
        .set("PGSSLNEGOTIATION", "direct")
        .set("PGSSLMINPROTOCOLVERSION", "TLSv1.3")
        .set("PGSSLCRLDIR", "/crls")
        .set("PGCHANNELBINDING", "disable")
        .set("PGCONNECT_TIMEOUT", "9")
        .set("PGTARGETSESSIONATTRS", "primary")
        .set("PGLOADBALANCEHOSTS", "random");
    let info = ConnInfo::parse("user=u", &env).unwrap();
    assert_eq!(info.to_string(), "u@10.0.0.1:5432/u");
    assert_eq!((password(&info), info.options()), (Some("pw"), Some("-c x=y")));
    assert_eq!(
        (info.application_name(), info.connect_timeout()),
        (Some("app"), Some(Duration::from_secs(9)))
    );
    assert_eq!(info.channel_binding(), ChannelBinding::Disable);
    assert_eq!(info.target_session_attrs(), TargetSessionAttrs::Primary);
    assert!(info.load_balance_hosts());
    let ssl = info.ssl();
    assert_eq!((ssl.mode, ssl.negotiation), (SslMode::Require, SslNegotiation::Direct));
    assert_eq!((ssl.sni, ssl.min_protocol), (false, TlsVersion::Tls13));
    assert_eq!(ssl.crl_dir.as_deref(), Some(Path::new("/crls")));

    let old = ConnInfo::parse("host=h", &Environment::empty().user("u").set("PGREQUIRESSL", "1")).unwrap();
    assert_eq!(old.ssl().mode, SslMode::Require);
    let message = refusal_in("host=h", &env.set("PGSSLMODE", "zz9"));
    assert!(message.contains("(from the environment variable PGSSLMODE)"), "{message}");
}

#[test]
fn the_password_file_gives_each_host_its_own_password() {
    let home = TempDir::new().unwrap();
    let file = write(
        home.path(),
        ".pgpass",
        "#h1:*:*:*:comment\nh1:5432:d:u:first\nh1:*:*:*:any:rest\nh2:*:*:o\\:dd:a\\:b\\\\c\r\n\
         localhost:*:*:*:local\n/other:*:*:*:other\n::1:*:*:*:six\n\\:\\:2:*:*:*:seven\nh3:*:*:*\nlast:*:*:*:end\r",
    );
    let env = env().home(home.path());
    let passwords = |text: &str| -> Vec<String> {
        let info = ConnInfo::parse(text, &env).unwrap();
        let shown = |h: &Host| h.password.as_ref().map_or("-".to_owned(), |p| p.expose_secret().to_owned());
        info.hosts().iter().map(shown).collect()
    };
    assert_eq!(passwords("host=h1,h2,h3 user=u dbname=d"), ["first", "-", "-"]);
    assert_eq!(passwords("host=h1 user=u dbname=e"), ["any"]);
    assert_eq!(passwords("host=h2 user='o:dd'"), [r"a:b\c"]);
    assert_eq!(passwords("host=/tmp,/other,"), ["local", "other", "local"]);
    assert_eq!(passwords("hostaddr=::1"), ["six"]);
    assert_eq!(passwords("hostaddr=::2"), ["seven"]);
    assert_eq!(passwords("host=last"), ["end"]);
    assert_eq!(passwords("host=h1 hostaddr=::1"), ["any"]);
    assert_eq!(passwords("host=h1,h3 password=given"), ["given", "given"]);
    assert_eq!(passwords("host=h1 passfile=/nonexistent"), ["-"]);

    let named = ConnInfo::parse("host=h1", &Environment::empty().user("u").set("PGPASSFILE", &file)).unwrap();
    assert_eq!(password(&named), Some("any"));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(passwords("host=h1"), ["-"], "others can read it");
}

#[test]
fn passwords_are_found_in_arguments() {
    for text in [
        "postgres://u:pw@h/d",
        "postgres://h/d?password=x",
        "postgres://h/d?pass%77ord=x",
        "host=h password=x",
        "host=h sslpassword=x",
        "host=h PASSWORD=x",
        "host=h passwd=x",
        "host=h password='x",
        "postgress://u:pw@h",
        "https://u:pw@h",
    ] {
        assert!(ConnInfo::has_password(text), "{text}");
    }
    for text in
        ["", "postgres://u@h/d", "postgres://u:@h/d", "host=h passfile=/f", "host=h sslmode=zz9", "nonsense"]
    {
        assert!(!ConnInfo::has_password(text), "{text}");
    }
}

#[test]
fn no_password_is_shown() {
    let info = parse("postgres://u:s3cr3t@h/d");
    assert_eq!(format!("{info} {info:?}"), "u@h:5432/d ConnInfo(u@h:5432/d)");
    assert!(!format!("{:?}", info.hosts()).contains("s3cr3t"));
}
