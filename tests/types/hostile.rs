//! An ordinary owner, and settings of databases and roles that would change values, hide rows, forbid
//! writing or end sessions.

use tokio_postgres::Client;

use super::support::pair::{Pair, connect, number};

/// What is set on both sides, as far as the server knows it. Each that can change what arrives, or whether it
/// arrives, has broken this test when the daemon didn't pin it.
const SETTINGS: &[(&str, &str)] = &[
    // How values are printed and read.
    ("datestyle", "SQL, DMY"),
    ("intervalstyle", "sql_standard"),
    ("timezone", "America/St_Johns"),
    ("extra_float_digits", "-15"),
    ("bytea_output", "escape"),
    ("array_nulls", "off"),
    ("xmloption", "document"),
    ("xmlbinary", "hex"),
    ("client_encoding", "LATIN1"),
    ("standard_conforming_strings", "off"),
    ("backslash_quote", "off"),
    ("escape_string_warning", "on"),
    ("quote_all_identifiers", "on"),
    ("transform_null_equals", "on"),
    // What is found.
    ("search_path", "nowhere"),
    ("row_security", "on"),
    ("default_tablespace", "elsewhere"),
    ("temp_tablespaces", "elsewhere"),
    ("default_text_search_config", "simple"),
    ("gin_fuzzy_search_limit", "1"),
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
    ("check_function_bodies", "off"),
    ("lo_compat_privileges", "on"),
    ("plpgsql.extra_errors", "all"),
    ("stats_fetch_consistency", "snapshot"),
    ("restrict_nonsystem_relation_kind", "view, foreign-table"),
];

/// The first of these, those of values, are the databases' own; the others, which would slow the comparison
/// down, are the role's there.
const OF_THE_DATABASE: usize = 14;

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
    for url in [&pair.source_url, &pair.target_url] {
        let admin = connect(url).await;
        for (i, (name, value)) in SETTINGS.iter().enumerate() {
            set(&admin, i, name, value).await;
        }
    }
    // Its own triggers are not to fire for what the daemon writes there; the test's own sessions go on.
    set(&connect(&pair.source_url).await, OF_THE_DATABASE, "session_replication_role", "replica").await;
}

async fn set(admin: &Client, i: usize, name: &str, value: &str) {
    let known = "SELECT count(*) FROM pg_settings WHERE name =";
    // PL/pgSQL makes its settings known when it is used first.
    if name.contains('.') || number(admin, &format!("{known} lower('{name}')")).await == 1 {
        let whose =
            if i < OF_THE_DATABASE { "DATABASE hostile" } else { "ROLE ordinary IN DATABASE hostile" };
        admin.batch_execute(&format!("ALTER {whose} SET {name} = '{value}'")).await.unwrap();
    }
}
