//! Connection URIs: `postgresql://user:password@host1:5432,[::1]:5433/dbname?sslmode=require`.

use super::settings::Settings;
use crate::fault::{Fault, Result};

const PREFIXES: [&str; 2] = ["postgresql://", "postgres://"];

/// What comes after the scheme, if the text is a connection URI.
pub(super) fn after_scheme(text: &str) -> Option<&str> {
    PREFIXES.iter().find_map(|prefix| text.strip_prefix(prefix))
}

/// Reads what comes after the scheme, as libpq does ("Connection URIs").
///
/// libpq accepts a bare `@` in the database name. Here it is refused: it nearly always means a
/// password with an unescaped `/` or `@`, pieces of which would end up in the host and the database
/// name, and from there in logs.
///
/// # Errors
/// A usage fault that names the part of the URI and shows nothing of it.
pub(super) fn parse(uri: &str, settings: &mut Settings) -> Result<()> {
    // The first of @ and / decides whether there are credentials.
    let (credentials, rest) = match uri.find(['@', '/']) {
        Some(at) if uri[at..].starts_with('@') => (&uri[..at], &uri[at + 1..]),
        _ => ("", uri),
    };
    take_credentials(credentials, settings)?;
    let (location, query) = match rest.split_once('?') {
        Some((location, query)) => (location, Some(query)),
        None => (rest, None),
    };
    if location.contains('@') {
        return Err(misplaced_at());
    }
    let path = take_hosts(location, settings)?;
    if let Some(dbname) = path.strip_prefix('/') {
        take_part("dbname", dbname, settings)?;
    }
    match query.map_or(Ok(()), |query| take_query(query, settings)) {
        // The tail of a password with an unescaped ? and / in it was read as a query.
        Err(_) if query.is_some_and(|query| query.contains('@')) => Err(misplaced_at()),
        outcome => outcome,
    }
}

fn take_credentials(credentials: &str, settings: &mut Settings) -> Result<()> {
    let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    take_part("user", user, settings)?;
    take_part("password", password, settings)
}

/// Reads `host:port,host:port` and returns what follows it: nothing, or the path with its slash.
fn take_hosts<'a>(location: &'a str, settings: &mut Settings) -> Result<&'a str> {
    let mut rest = location;
    let mut hosts = Vec::new();
    let mut ports = Vec::new();
    loop {
        let (host, after) = match rest.strip_prefix('[') {
            Some(inside) => bracketed(inside)?,
            None => split_before(rest, &[':', '/', ',']),
        };
        let (port, after) = match after.strip_prefix(':') {
            Some(port) => split_before(port, &['/', ',']),
            None => ("", after),
        };
        hosts.push(host);
        ports.push(port);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None => {
                take_part("host", &hosts.join(","), settings)?;
                take_part("port", &ports.join(","), settings)?;
                return Ok(after);
            }
        }
    }
}

/// Splits at the closing bracket of an IPv6 address.
fn bracketed(inside: &str) -> Result<(&str, &str)> {
    let wrong = |why: &str| Err(Fault::usage(format!("connection URI: {why}")));
    match inside.split_once(']') {
        None => wrong("the closing ] of an IPv6 address is missing"),
        Some(("", _)) => wrong("an IPv6 address in brackets is empty"),
        Some((_, after)) if !after.is_empty() && !after.starts_with([':', '/', ',']) => {
            wrong("only a port, another host, the database name or parameters can follow the ] of an address")
        }
        Some(parts) => Ok(parts),
    }
}

fn split_before<'a>(text: &'a str, ends: &[char]) -> (&'a str, &'a str) {
    text.split_at(text.find(ends).unwrap_or(text.len()))
}

/// Stores a part of the URI; an empty one leaves the parameter to its default.
fn take_part(name: &'static str, encoded: &str, settings: &mut Settings) -> Result<()> {
    if encoded.is_empty() {
        return Ok(());
    }
    let value = decode(encoded, &format!("the {name}"))?;
    settings.take(name, value, "in the URI")
}

fn take_query(query: &str, settings: &mut Settings) -> Result<()> {
    // Like libpq's, the list can end with a separator.
    let pairs = query.strip_suffix('&').unwrap_or(query);
    if query.is_empty() {
        return Ok(());
    }
    for (index, pair) in pairs.split('&').enumerate() {
        let place = format!("in the URI's query, number {}", index + 1);
        let Some((name, value)) = pair.split_once('=').filter(|(_, value)| !value.contains('=')) else {
            return Err(Fault::usage(format!("connection URI: the parameter {place} is not one name=value"))
                .remedy("percent-encode: = inside a value is written %3D, & is written %26"));
        };
        let name = decode(name, &format!("the parameter name {place}"))?;
        let value = decode(value, &format!("the parameter value {place}"))?;
        // The spelling of JDBC.
        if name == "ssl" && value == "true" {
            settings.take("sslmode", "require".to_owned(), &place)?;
        } else {
            settings.take(&name, value, &place)?;
        }
    }
    Ok(())
}

/// Replaces `%xx`; `place` names the part for the message.
fn decode(encoded: &str, place: &str) -> Result<String> {
    let wrong = |why: &str| {
        Fault::usage(format!("connection URI: {place} {why}")).remedy(
            "percent-encode special characters: % is written %25, @ %40, / %2F, ? %3F, : %3A, a space %20",
        )
    };
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let Some((high, low, after)) = hex_pair(rest) else {
            return Err(wrong("contains a % that two hexadecimal digits don't follow"));
        };
        match high << 4 | low {
            0 => return Err(wrong("contains %00, which nothing can contain")),
            byte => bytes.push(byte),
        }
        rest = after;
    }
    String::from_utf8(bytes).map_err(|_| wrong("is not UTF-8 once it is decoded"))
}

fn hex_pair(text: &[u8]) -> Option<(u8, u8, &[u8])> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    match text {
        [high, low, after @ ..] => Some((digit(*high)?, digit(*low)?, after)),
        _ => None,
    }
}

fn misplaced_at() -> Fault {
    Fault::usage(
        "connection URI: there is an @ where none can be, probably because the password contains \
         special characters that are not percent-encoded",
    )
    .remedy("percent-encode the password: @ is written %40, / %2F, ? %3F, # %23, : %3A, % %25, a space %20")
}
