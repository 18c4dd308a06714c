//! The settings of every session of ours (rule C6): values read as the same text and are written
//! back as the same value, and no timeout but our own ends anything.
//!
//! They are set with `SET` after the login, on the walsender connection too (it takes SQL because
//! it is connected to a database): startup `options` can't depend on the server's version, and some
//! providers and poolers refuse them.

/// A setting, its value, and the first server version (`server_version_num`) that knows it.
type Pin = (&'static str, &'static str, u32);

/// What every session pins.
const PINS: &[Pin] = &[
    // Nobody else's deadlines; ours are kept on this side. These come first: all of this is one
    // message, which a very short statement_timeout would otherwise cancel.
    ("statement_timeout", "0", 0),
    ("transaction_timeout", "0", 170_000),
    ("lock_timeout", "0", 0),
    ("idle_in_transaction_session_timeout", "0", 0),
    ("idle_session_timeout", "0", 140_000),
    // How values look as text.
    // Asked for at the login already, which a pooler may have kept to itself.
    ("client_encoding", "UTF8", 0),
    ("datestyle", "ISO", 0),
    ("intervalstyle", "postgres", 0),
    ("timezone", "UTC", 0),
    ("extra_float_digits", "3", 0),
    ("bytea_output", "hex", 0),
    // How money is printed and read. Every server has this locale, and with the same one on both
    // sides the integer inside arrives as it is, whatever currency and decimals it is shown with.
    ("lc_monetary", "C", 0),
    ("quote_all_identifiers", "off", 0),
    // How text is read.
    ("array_nulls", "on", 0),
    ("xmloption", "content", 0),
    // An index that is held back is printed by one session and created by another, maybe after the setting
    // was changed.
    ("standard_conforming_strings", "on", 0),
    // Nothing is found by accident, and nothing is hidden silently.
    ("search_path", "", 0),
    // Where the ledger goes, and where an index that was held back is created again: a role need not be
    // allowed to use its own default.
    ("default_tablespace", "", 0),
    ("row_security", "off", 0),
    // What is said is logged.
    ("client_min_messages", "notice", 0),
    // Transactions. Where a statement names no level, it is not to fail because of another session's.
    ("default_transaction_read_only", "off", 0),
    ("default_transaction_isolation", "read committed", 0),
    // The source forgets what we have committed.
    ("synchronous_commit", "on", 0),
    // Compiling costs more than our statements take.
    ("jit", "off", 110_000),
    // A backend whose client has vanished is gone within a minute: 30 s of silence, 3 probes.
    ("tcp_keepalives_idle", "30", 0),
    ("tcp_keepalives_interval", "10", 0),
    ("tcp_keepalives_count", "3", 0),
    ("tcp_user_timeout", "60000", 120_000),
];

/// The statements that pin everything on a server of this version.
#[must_use]
pub fn pins(server_version_num: u32) -> String {
    PINS.iter()
        .filter(|(_, _, since)| server_version_num >= *since)
        .map(|(name, value, _)| set(name, value))
        .collect()
}

/// Ends a backend that waits for a lock or runs a statement after its client has vanished.
/// Servers on some systems refuse it, so it isn't one of the [`pins`].
#[must_use]
pub fn watch_the_client(server_version_num: u32) -> Option<String> {
    (server_version_num >= 140_000).then(|| set("client_connection_check_interval", "10s"))
}

/// `SET name = 'value';`
#[must_use]
pub fn set(name: &str, value: &str) -> String {
    format!("SET {name} = '{value}';")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_gets_only_the_settings_that_it_knows() {
        assert!(!pins(130_000).contains("idle_session_timeout"));
        assert!(pins(140_000).contains("SET idle_session_timeout = '0';"));
        assert!(!pins(160_004).contains("transaction_timeout"));
        assert!(pins(170_000).contains("SET transaction_timeout = '0';"));
        assert_eq!(watch_the_client(130_000), None);
    }

    #[test]
    fn no_setting_is_pinned_twice() {
        let mut names: Vec<_> = PINS.iter().map(|pin| pin.0).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), PINS.len());
    }
}
