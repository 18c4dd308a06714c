//! What holds for every connection string.

use proptest::collection::vec;
use proptest::prelude::*;
use secrecy::ExposeSecret;

use super::super::*;
use super::{env, parse, password};

/// Everything about a connection that can be compared, the passwords included.
fn everything(info: &ConnInfo) -> String {
    let passwords: Vec<_> =
        info.hosts().iter().map(|h| h.password.as_ref().map(ExposeSecret::expose_secret)).collect();
    format!(
        "{info} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {passwords:?}",
        info.hosts(),
        info.user(),
        info.dbname(),
        info.application_name(),
        info.options(),
        info.ssl(),
        info.connect_timeout(),
        info.keepalives(),
        info.target_session_attrs(),
        (info.load_balance_hosts(), info.channel_binding()),
    )
}

/// Writes each byte of a value in percent-encoding.
fn percent(value: &str) -> String {
    value.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// Parameters with values that are right for them; texts can be any but empty ones.
fn parameters() -> impl Strategy<Value = Vec<(&'static str, String)>> {
    let text = || "[^\0]{1,12}";
    let host = prop_oneof![
        "[a-z][a-z0-9.-]{0,8}",
        "/[^\0,]{0,8}",
        Just("fe80::1%eth0".to_owned()),
        Just(String::new())
    ];
    let hosts = vec((host, any::<Option<u16>>()), 1..4);
    let optional = (
        prop::option::of(text()),
        prop::option::of(text()),
        prop::option::of(text()),
        prop::option::of(prop::sample::select(vec!["disable", "allow", "prefer", "require"])),
        prop::option::of(any::<i32>()),
    );
    (hosts, text(), text(), optional).prop_map(
        |(hosts, user, dbname, (password, app, options, mode, timeout))| {
            let names: Vec<_> = hosts.iter().map(|(host, _)| host.as_str()).collect();
            let port = |port: Option<u16>| port.map_or(String::new(), |port| port.max(1).to_string());
            let ports: Vec<_> = hosts.iter().map(|(_, p)| port(*p)).collect();
            let mut all = vec![
                ("host", names.join(",")),
                ("port", ports.join(",")),
                ("user", user),
                ("dbname", dbname),
            ];
            all.extend(password.map(|value| ("password", value)));
            all.extend(app.map(|value| ("application_name", value)));
            all.extend(options.map(|value| ("options", value)));
            all.extend(mode.map(|value| ("sslmode", value.to_owned())));
            all.extend(timeout.map(|value| ("connect_timeout", value.to_string())));
            all
        },
    )
}

/// The parameters as a URI: what has a place there in its place, the rest in the query.
fn as_uri(parameters: &[(&str, String)]) -> String {
    let get = |name| parameters.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str());
    let part = |name| percent(get(name).unwrap_or_default());
    let hosts = get("host").unwrap_or_default().split(',').zip(get("port").unwrap_or_default().split(','));
    let hosts: Vec<_> = hosts
        .map(|(host, port)| {
            if host.contains("::") {
                format!("[{}]:{port}", percent(host))
            } else {
                format!("{}:{port}", percent(host))
            }
        })
        .collect();
    let query: Vec<_> = parameters[4..]
        .iter()
        .filter(|(name, _)| *name != "password")
        .map(|(n, v)| format!("{}={}", percent(n), percent(v)))
        .collect();
    format!(
        "postgres://{}:{}@{}/{}?{}",
        part("user"),
        part("password"),
        hosts.join(","),
        part("dbname"),
        query.join("&")
    )
}

proptest! {
    #[test]
    fn a_connection_means_the_same_as_a_uri_and_as_a_keyword_string(parameters in parameters()) {
        let keywords: Vec<_> = parameters.iter().map(|(name, value)| format!("{name}={}", quoted(value))).collect();
        let keywords = parse(&keywords.join(" "));
        let uri = parse(&as_uri(&parameters));
        prop_assert_eq!(everything(&keywords), everything(&uri));
        let get = |name| parameters.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str());
        prop_assert_eq!(Some(uri.user()), get("user"));
        prop_assert_eq!(Some(uri.dbname()), get("dbname"));
        prop_assert_eq!(password(&uri), get("password"));
        prop_assert_eq!(uri.application_name(), get("application_name"));
        prop_assert_eq!(uri.options(), get("options"));
        prop_assert_eq!(ConnInfo::has_password(&as_uri(&parameters)), get("password").is_some());
    }

    #[test]
    fn no_text_makes_it_panic(text in ".*", uri in r"postgres://[a-z:@/\[\]?&=%,0-9é]*", words in r"((host|port|user|password|x)[ =]{1,2}[ '\\a-zé]*)*") {
        for text in [&text, &uri, &words] {
            let _ = ConnInfo::parse(text, &env());
            let _ = ConnInfo::has_password(text);
        }
    }

    #[test]
    fn a_password_is_in_no_message(secret in "[@/?#%&=:'a-z ]{0,6}zz9[@/?#%&=:' ]{0,6}") {
        for text in [
            format!("postgres://u:{secret}@h/d"),
            format!("postgres://u:{secret}@h/d?sslmode=x"),
            format!("host=h password={secret} user=u"),
            format!("host=h password='{secret}' sslmode=x"),
        ] {
            let shown = ConnInfo::parse(&text, &env()).map_or_else(|fault| fault.to_string(), |info| info.to_string());
            prop_assert!(!shown.contains("zz9"), "{}", shown);
        }
    }
}
