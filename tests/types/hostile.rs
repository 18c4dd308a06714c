//! An ordinary owner, and settings of databases and roles that would change values, hide rows, forbid
//! writing or end sessions.

use tokio_postgres::Client;

use super::support::pair::{Pair, connect, number};

/// The databases' own settings: on one side, and on the other. Two sides that agree could understand each
/// other by accident. Each of these that the daemon pins breaks this test when it doesn't, but for two:
/// `client_encoding`, which the login has asked for already, and `standard_conforming_strings`.
const OF_VALUES: &[(&str, &str, &str)] = &[
    ("datestyle", "SQL, DMY", "Postgres, MDY"),
    ("intervalstyle", "sql_standard", "iso_8601"),
    ("timezone", "America/St_Johns", "Asia/Kathmandu"),
    ("extra_float_digits", "-15", "0"),
    ("bytea_output", "escape", "hex"),
    ("array_nulls", "off", "off"),
    ("xmloption", "document", "document"),
    ("client_encoding", "LATIN1", "WIN1252"),
    ("standard_conforming_strings", "off", "on"),
    ("backslash_quote", "off", "on"),
    ("escape_string_warning", "on", "off"),
    ("quote_all_identifiers", "on", "off"),
    ("search_path", "public, extra", "nowhere"),
];

/// How money is printed: the first two that the servers' system has.
const MONEY: &[&str] = &["de_DE.UTF-8", "ja_JP.UTF-8", "en_US.UTF-8"];

/// The role's own settings on both sides, which would slow the comparison down if they were the database's.
/// The daemon stops without its pins of the first ones, of `default_transaction_read_only` and of
/// `default_tablespace`. Nothing else here changes what arrives, or whether it does; what the other pins are
/// for is next to them.
const OF_SESSIONS: &[(&str, &str)] = &[
    // Who ends what.
    ("statement_timeout", "20ms"),
    ("lock_timeout", "1ms"),
    ("idle_in_transaction_session_timeout", "300ms"),
    ("idle_session_timeout", "300ms"),
    ("transaction_timeout", "1ms"),
    ("exit_on_error", "on"),
    ("wal_sender_timeout", "6s"),
    // Transactions.
    ("default_transaction_isolation", "serializable"),
    ("default_transaction_deferrable", "on"),
    ("default_transaction_read_only", "on"),
    ("synchronous_commit", "off"),
    // What is found.
    ("row_security", "on"),
    ("default_tablespace", "elsewhere"),
    ("temp_tablespaces", "elsewhere"),
    ("default_text_search_config", "simple"),
    ("gin_fuzzy_search_limit", "1"),
    // What is said, and to whom.
    ("client_min_messages", "debug5"),
    ("log_statement", "all"),
    ("track_activities", "off"),
    // Plans.
    ("enable_seqscan", "off"),
    ("enable_indexscan", "off"),
    ("enable_indexonlyscan", "off"),
    ("enable_bitmapscan", "off"),
    ("enable_tidscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_sort", "off"),
    ("plan_cache_mode", "force_generic_plan"),
    ("from_collapse_limit", "1"),
    ("join_collapse_limit", "1"),
    ("work_mem", "64kB"),
    ("logical_decoding_work_mem", "64kB"),
    ("synchronize_seqscans", "on"),
    // The rest.
    ("xmlbinary", "hex"),
    ("transform_null_equals", "on"),
    ("check_function_bodies", "off"),
    ("lo_compat_privileges", "on"),
    ("plpgsql.extra_errors", "all"),
    ("stats_fetch_consistency", "snapshot"),
    ("restrict_nonsystem_relation_kind", "view, foreign-table"),
];

/// What not every server knows.
const NEWER: &[&str] =
    &["transaction_timeout", "restrict_nonsystem_relation_kind", "stats_fetch_consistency"];

/// The daemon is an ordinary role from now on, to whom both databases belong, and what is created in them.
/// It may read what row level security hides, as Supabase's `postgres` may.
pub async fn owner(pair: &mut Pair) {
    for client in [&pair.source, &pair.target] {
        let version = number(client, "SELECT current_setting('server_version_num')::int8").await;
        client
            .batch_execute(
                "CREATE ROLE ordinary LOGIN REPLICATION BYPASSRLS; ALTER DATABASE hostile OWNER TO ordinary;
                 ALTER SCHEMA public OWNER TO ordinary; GRANT ALL ON SCHEMA extra TO ordinary",
            )
            .await
            .unwrap();
        if version >= 150_000 {
            client
                .batch_execute(
                    "GRANT SET ON PARAMETER session_replication_role TO ordinary;
                     SET allow_in_place_tablespaces = on",
                )
                .await
                .unwrap();
            // Nothing of it is granted to the role.
            client.batch_execute("CREATE TABLESPACE elsewhere LOCATION ''").await.unwrap();
        } else {
            client.batch_execute("ALTER ROLE ordinary SUPERUSER").await.unwrap();
        }
        client.batch_execute("SET ROLE ordinary").await.unwrap();
    }
    for url in [&mut pair.daemon_source_url, &mut pair.daemon_target_url] {
        let ordinary = url.replacen("postgres@", "ordinary@", 1);
        assert_ne!(*url, ordinary);
        *url = ordinary;
    }
}

/// Sets everything for sessions that begin from now on: by the database, or by the role there.
pub async fn settings(pair: &Pair) {
    values_on(pair, [&pair.source_url, &pair.target_url]).await;
    for url in [&pair.source_url, &pair.target_url] {
        let admin = connect(url).await;
        for (name, value) in OF_SESSIONS {
            set(&admin, "ROLE ordinary IN DATABASE hostile", name, value).await;
        }
    }
    // Its own triggers are not to fire for what the daemon writes there; the test's own sessions go on.
    let source = connect(&pair.source_url).await;
    set(&source, "ROLE ordinary IN DATABASE hostile", "session_replication_role", "replica").await;
}

/// Gives each side the other one's settings of values.
pub async fn swapped(pair: &Pair) {
    values_on(pair, [&pair.target_url, &pair.source_url]).await;
}

async fn values_on(pair: &Pair, [one, other]: [&String; 2]) {
    let (one, other) = (connect(one).await, connect(other).await);
    for (name, value, other_value) in OF_VALUES {
        set(&one, "DATABASE hostile", name, value).await;
        set(&other, "DATABASE hostile", name, other_value).await;
    }
    let mut money = Vec::new();
    for locale in MONEY {
        let side = [&one, &other][money.len() % 2];
        let sql = format!("ALTER DATABASE hostile SET lc_monetary = '{locale}'");
        if money.len() < 2 && side.batch_execute(&sql).await.is_ok() {
            money.push(*locale);
        }
    }
    println!("{}: money is printed as in {money:?}", pair.name);
}

async fn set(admin: &Client, whose: &str, name: &str, value: &str) {
    // PL/pgSQL makes its settings known when it is used first.
    let known = format!("SELECT count(*) FROM pg_settings WHERE lower(name) = '{name}'");
    if name.contains('.') || number(admin, &known).await == 1 {
        // A list is no one name.
        let value = if name == "search_path" { value.to_owned() } else { format!("'{value}'") };
        admin.batch_execute(&format!("ALTER {whose} SET {name} = {value}")).await.unwrap();
    } else {
        assert!(NEWER.contains(&name), "{name} is unknown");
    }
}
