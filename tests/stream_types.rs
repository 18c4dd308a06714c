//! `cdc run` carries every value exactly, whatever the databases' settings are.

#![allow(clippy::unwrap_used, reason = "all of it is a test")]

mod support;

use support::pair::Pair;

/// Types with values that are easily spoiled; each is inserted, updated to, found by, and deleted.
const VALUES: &[(&str, &[&str])] = &[
    ("bool", &["true", "false"]),
    ("int2", &["-32768", "32767"]),
    ("int4", &["-2147483648", "0"]),
    ("int8", &["-9223372036854775808", "9223372036854775807"]),
    (
        "numeric",
        &[
            "'NaN'",
            "'Infinity'",
            "'-Infinity'",
            "1.00",
            "0.000",
            "1e131000",
            "-1e-16000",
            "12345678901234567890.12345678901234567890",
        ],
    ),
    ("numeric(10, 2)", &["1.5", "-0.01"]),
    ("float4", &["'NaN'", "'-Infinity'", "0.1", "1e-45", "'-0'", "3.4028235e38"]),
    (
        "float8",
        &["'NaN'", "'Infinity'", "0.1", "5e-324", "'-0'", "0.30000000000000004", "1.7976931348623157e308"],
    ),
    ("money", &["'-92233720368547758.08'", "1234567.89"]),
    (
        "text",
        &[
            "''",
            "'NULL'",
            r"'\N'",
            r"'a\b'",
            "E'tab\\t\\n\\r\\x01'",
            "'äöü€😀\u{301}'",
            "' both '",
            "'''quotes\"'",
            "'{}'",
        ],
    ),
    ("varchar(5)", &["'abc  '", "''"]),
    ("char(5)", &["'ab'", "''"]),
    ("name", &["'n'", "'Ünïcode name'"]),
    ("\"char\"", &["'x'", "''", r"'\351'"]),
    ("bytea", &[r"'\x'", r"'\x00ff5c27'", r"decode(repeat('5c', 3000), 'hex')"]),
    ("date", &["'infinity'", "'-infinity'", "'0044-03-15 BC'", "'5874897-12-31'", "'1900-02-28'"]),
    ("time", &["'24:00:00'", "'00:00:00'", "'12:34:56.789012'"]),
    ("timetz", &["'12:34:56.789+15:59:59'", "'24:00:00-12'"]),
    (
        "timestamp",
        &[
            "'infinity'",
            "'4713-01-01 00:00:00 BC'",
            "'294276-12-31 23:59:59.999999'",
            "'2024-02-29 01:02:03.000004'",
        ],
    ),
    (
        "timestamptz",
        &[
            "'-infinity'",
            "'4713-11-24 00:00:00+00 BC'",
            "'2024-03-31 02:30:00.5+02'",
            "'1883-11-18 12:03:57-04:56:02'",
            "'infinity'",
        ],
    ),
    (
        "interval",
        &["'-1 year 2 mons -3 days 04:05:06.000007'", "'178000000 years'", "'0'", "'24:00'", "'1 day'"],
    ),
    ("interval day to second(2)", &["'1 day 00:00:01.239'"]),
    ("uuid", &["'00000000-0000-0000-0000-000000000000'"]),
    ("json", &[r#"'{"b": 1,  "a":1.0, "a":[null]}'"#, "'null'", r#"'"\u00e9\\"'"#]),
    ("jsonb", &[r#"'{"b": 1,  "a":1.00, "c":[null, "\u00e9", "\\"]}'"#, "'null'", "'1e400'"]),
    ("jsonpath", &["'$.a[*] ? (@ > 1)'"]),
    (
        "xml",
        &[
            "'<?xml version=\"1.1\" standalone=\"yes\"?><a b=\"c\">ä</a>'",
            "'two <b/> parts'",
            "''",
            "'<?xml version=\"1.0\" encoding=\"UTF-8\"?><a/>'",
        ],
    ),
    ("inet", &["'192.168.0.1/24'", "'::1'", "'::ffff:1.2.3.4/128'"]),
    ("cidr", &["'10.0.0.0/8'", "'2001:db8::/32'"]),
    ("macaddr", &["'08:00:2b:01:02:03'"]),
    ("macaddr8", &["'08:00:2b:01:02:03:04:05'"]),
    ("bit(5)", &["B'10101'"]),
    ("bit varying", &["B''", "B'1'", "repeat('10', 500)::bit varying"]),
    ("point", &["'(1e-300,-0)'", "'(NaN,Infinity)'"]),
    ("line", &["'{1,-1,0.1}'"]),
    ("lseg", &["'[(0,0),(0.1,0.2)]'"]),
    ("box", &["'(1,1),(0,0)'"]),
    ("path", &["'[(0,0),(1,1)]'", "'((0,0),(1,1))'"]),
    ("polygon", &["'((0,0),(1,1),(0.1,0))'"]),
    ("circle", &["'<(0.1,0.2),0.3>'"]),
    ("tsvector", &[r"$$'a b':1A,2 'c''d':3B '\\':4$$", "''"]),
    ("tsquery", &[r"$$'a b' & !('c':*A | 'd' <2> 'e')$$", "''"]),
    ("pg_lsn", &["'FFFFFFFF/FFFFFFFF'", "'0/0'"]),
    ("oid", &["4294967295"]),
    ("xid8", &["'18446744073709551615'"]),
    ("xid", &["'4294967295'"]),
    ("tid", &["'(4294967295,65535)'"]),
    ("pg_snapshot", &["'10:20:10,14,15'"]),
    ("regclass", &["'pg_class'"]),
    ("regtype", &["'timestamp with time zone'"]),
    ("int4range", &["'[1,10)'", "'empty'", "'(,)'"]),
    ("numrange", &["'[1.0,1.10]'", "'(NaN,)'"]),
    ("tstzrange", &["'[2024-03-31 02:30:00+02,infinity)'", "'(,\"0044-03-15 00:00:00+00 BC\"]'"]),
    ("daterange", &["'[2024-01-01,2024-01-31]'"]),
    ("int8multirange", &["'{}'", "'{[1,2), [5,)}'"]),
    ("datemultirange", &["'{[2024-01-01,2024-02-01),[2025-01-01,)}'"]),
    ("int[]", &["'{}'", "'{NULL}'", "'{{1,2},{3,NULL}}'", "'[-1:1]={1,2,3}'"]),
    (
        "text[]",
        &[
            r#"'{NULL,"NULL","",null,"nUlL"}'"#,
            r#"'{"a,b","{x}","\"q\"","back\\slash"," sp ","ä\n"}'"#,
            r#"ARRAY[E'\n', E'\t', '''', '€']"#,
        ],
    ),
    ("float8[]", &["'{0.1,NaN,-0,Infinity,NULL}'"]),
    ("timestamptz[]", &["'{infinity,\"2024-03-31 02:30:00.5+02\",NULL}'"]),
    ("bytea[]", &[r#"'{"\\x00","\\x","\\x5c27"}'"#]),
    ("date[]", &["'{\"0044-03-15 BC\",infinity}'"]),
    ("interval[]", &["'{\"-1 mons 2 days\",\"04:05:06\"}'"]),
    ("jsonb[]", &[r#"'{"{\"a\": [1, null]}",NULL,"null"}'"#]),
    ("box[]", &["'{(1,1),(0,0);(2,2),(0,0)}'"]),
    ("mood", &["'so so'", r#"'a,"b"'"#]),
    ("mood[]", &[r#"'{"so so",NULL,"a,\"b\""}'"#]),
    ("address", &[r#"'("a, ""b""",12,"{x,NULL}")'"#, "'(,,)'", "ROW('', NULL, '{}')::address"]),
    ("address[]", &[r#"'{"(\"a b\",1,\"{\"\"c,d\"\"}\")",NULL}'"#]),
    ("nested", &[r#"ROW(ROW('x', 1, '{"y z",NULL}')::address, '[1.0,2)', '-0')::nested"#]),
    ("positive", &["1.50"]),
    ("emails", &["'{a@b,NULL}'"]),
    ("float_range", &["'[0.1,0.30000000000000004)'"]),
    ("hstore", &[r#"'"a b"=>"c\"d", n=>NULL, e=>""'"#, "''"]),
    ("citext", &["'MiXed'", "'mixed'"]),
    ("ltree", &["'Top.a_1.B'", "''"]),
    ("lquery", &["'*.a@*|b{1,2}'"]),
    ("cube", &["'(0.1,0.2),(1,-0)'"]),
    ("isbn", &["'978-0-393-04002-9'"]),
];

const TYPES: &str = r#"
    CREATE EXTENSION hstore; CREATE EXTENSION citext; CREATE EXTENSION ltree; CREATE EXTENSION cube;
    CREATE EXTENSION isn;
    CREATE TYPE mood AS ENUM ('sad', 'so so', 'a,"b"');
    CREATE TYPE address AS (street text, number int, tags text[]);
    CREATE TYPE nested AS (a address, r numrange, f float8);
    CREATE DOMAIN positive AS numeric CHECK (value > 0);
    CREATE DOMAIN emails AS text[] CHECK (cardinality(value) > 0);
    CREATE TYPE float_range AS RANGE (subtype = float8)"#;

/// One table for each type: `full_N` with REPLICA IDENTITY FULL, `by_id_N` with a key.
async fn every_type_arrives(pair: Pair) {
    let mut schema = TYPES.to_owned();
    for (i, (ty, _)) in VALUES.iter().enumerate() {
        schema.push_str(&format!(
            ";CREATE TABLE by_id_{i} (id int PRIMARY KEY, v {ty}); CREATE TABLE full_{i} (n int, v {ty});
             ALTER TABLE full_{i} REPLICA IDENTITY FULL"
        ));
    }
    pair.both(&schema).await;
    let daemon = pair.streaming().await;
    for (i, (_, values)) in VALUES.iter().enumerate() {
        let changes: Vec<String> = values
            .iter()
            .enumerate()
            .map(|(n, value)| {
                format!(
                    "INSERT INTO by_id_{i} VALUES ({n}, {value}), (100 + {n}, NULL);
                     UPDATE by_id_{i} SET v = {value} WHERE id = 100 + {n};
                     UPDATE by_id_{i} SET v = NULL WHERE id = {n} - 1;
                     INSERT INTO full_{i} VALUES ({n}, {value}), (100 + {n}, {value}), (200 + {n}, {value});
                     UPDATE full_{i} SET n = -n WHERE n < 100; DELETE FROM full_{i} WHERE n BETWEEN 100 AND 199"
                )
            })
            .collect();
        pair.write(&changes.join(";")).await;
    }
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_arrives_exactly() {
    every_type_arrives(Pair::new("types").await).await;
}

/// Settings of a database or role that would change values, hide rows or end sessions.
const HOSTILE: &[&str] = &[
    "datestyle = 'SQL, DMY'",
    "intervalstyle = 'sql_standard'",
    "timezone = 'America/St_Johns'",
    "extra_float_digits = -15",
    "bytea_output = 'escape'",
    "array_nulls = off",
    "xmloption = 'document'",
    "xmlbinary = 'hex'",
    "standard_conforming_strings = off",
    "backslash_quote = off",
    "escape_string_warning = on",
    "quote_all_identifiers = on",
    "transform_null_equals = on",
    "search_path = 'nowhere'",
    "client_encoding = 'LATIN1'",
    "statement_timeout = '1ms'",
    "lock_timeout = '1ms'",
    "idle_in_transaction_session_timeout = '300ms'",
    "idle_session_timeout = '300ms'",
    "default_transaction_isolation = 'serializable'",
    "default_transaction_deferrable = on",
    "row_security = on",
    "synchronous_commit = off",
    "default_table_access_method = 'heap'",
    "default_with_oids = off",
    "default_tablespace = ''",
    "client_min_messages = 'debug5'",
    "log_statement = 'all'",
    "enable_indexscan = off",
    "plan_cache_mode = 'force_generic_plan'",
    "work_mem = '64kB'",
    "lo_compat_privileges = on",
    "check_function_bodies = off",
    "exit_on_error = on",
];

async fn set_for_new_sessions(client: &tokio_postgres::Client, database: &str, settings: &[&str]) {
    for setting in settings {
        client.batch_execute(&format!("ALTER DATABASE {database} SET {setting}")).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_arrives_exactly_through_hostile_settings_of_both_databases() {
    let pair = Pair::new("hostile").await;
    set_for_new_sessions(&pair.source, "hostile", HOSTILE).await;
    set_for_new_sessions(&pair.target, "hostile", HOSTILE).await;
    set_for_new_sessions(&pair.target, "hostile", &["default_transaction_read_only = on"]).await;
    every_type_arrives(pair).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_in_another_encoding_arrives_as_utf_8() {
    for (name, encoding) in [("latin1", "LATIN1"), ("win1251", "WIN1251"), ("euc_jp", "EUC_JP")] {
        let options = format!("ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
        let pair = Pair::with_options(name, &options, "").await;
        let text = match encoding {
            "LATIN1" => "äöüß ÿ£",
            "WIN1251" => "Привет, №",
            _ => "日本語テキスト",
        };
        pair.both(&format!(
            "CREATE TABLE \"{text}\" (\"k{text}\" text PRIMARY KEY, v text[], j jsonb, x xml);
             CREATE TABLE whole (v text, j json); ALTER TABLE whole REPLICA IDENTITY FULL"
        ))
        .await;
        let daemon = pair.streaming().await;
        pair.write(&format!(
            "INSERT INTO \"{text}\" SELECT '{text}' || i, '{{{text},NULL}}', '{{\"{text}\": \"{text}\"}}',
                    '<a>{text}</a>' FROM generate_series(1, 20) i;
             INSERT INTO whole SELECT '{text}', '[\"{text}\"]' FROM generate_series(1, 20);
             UPDATE \"{text}\" SET \"k{text}\" = \"k{text}\" || '{text}'; UPDATE \"{text}\" SET v = NULL WHERE j IS NOT NULL;
             DELETE FROM whole WHERE ctid = (SELECT min(ctid) FROM whole)"
        ))
        .await;
        pair.ends_equal(daemon).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_with_a_collation_that_ignores_case_find_their_own_row() {
    let pair = Pair::new("collations").await;
    pair.both(
        "CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
         CREATE COLLATION de (provider = icu, locale = 'de')",
    )
    .await;
    pair.both("CREATE TABLE t (k text COLLATE ci PRIMARY KEY, v text COLLATE ci, w varchar(9) COLLATE de)")
        .await;
    // The two sides need not agree on what is equal.
    pair.write("CREATE TABLE u (k text COLLATE ci PRIMARY KEY, v text)").await;
    pair.target.batch_execute("CREATE TABLE u (k text PRIMARY KEY, v text COLLATE ci)").await.unwrap();
    pair.both(
        "CREATE TABLE whole (k text COLLATE ci, n int); ALTER TABLE whole REPLICA IDENTITY FULL;
         CREATE TABLE de_key (k text COLLATE de PRIMARY KEY, n int)",
    )
    .await;
    let daemon = pair.streaming().await;
    for table in ["t", "u"] {
        pair.write(&format!("INSERT INTO {table} VALUES ('Anna', 'v'), ('bert', 'v'), ('Ärger', 'v')")).await;
        pair.write(&format!(
            "UPDATE {table} SET v = 'V' WHERE k = 'ANNA'; UPDATE {table} SET k = 'ANNA' WHERE k = 'anna'"
        ))
        .await;
        pair.write(&format!(
            "UPDATE {table} SET k = 'BERT', v = 'W' WHERE k = 'bert'; DELETE FROM {table} WHERE k = 'äRGER'"
        ))
        .await;
    }
    pair.write("INSERT INTO whole VALUES ('x', 1), ('X', 1), ('x', 1)").await;
    pair.write("DELETE FROM whole WHERE ctid = (SELECT max(ctid) FROM whole WHERE k COLLATE \"C\" = 'X')")
        .await;
    pair.write("INSERT INTO de_key VALUES ('ä', 1), ('a', 1), ('A', 1), ('ae', 1); UPDATE de_key SET n = 2 WHERE k = 'ä'")
        .await;
    pair.write("DELETE FROM de_key WHERE k = 'A'; UPDATE de_key SET k = 'Ä' WHERE k = 'ä'").await;
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_default_collations_of_the_databases_can_differ() {
    let icu = "TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER icu ICU_LOCALE 'de-DE' LC_COLLATE 'C' LC_CTYPE 'C'";
    let pair = Pair::with_options("default_collation", icu, "").await;
    pair.both(
        "CREATE TABLE t (k text PRIMARY KEY, v text);
         CREATE TABLE parts (k text PRIMARY KEY, v text) PARTITION BY HASH (k);
         CREATE TABLE parts_0 PARTITION OF parts FOR VALUES WITH (MODULUS 2, REMAINDER 0);
         CREATE TABLE parts_1 PARTITION OF parts FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
    )
    .await;
    let daemon = pair.streaming().await;
    for table in ["t", "parts"] {
        pair.write(&format!(
            "INSERT INTO {table} SELECT k, 'v' FROM unnest('{{a,A,ä,Ä,z,Z,ß,ss,_,-}}'::text[]) k"
        ))
        .await;
        pair.write(&format!(
            "UPDATE {table} SET v = k WHERE k > 'a'; DELETE FROM {table} WHERE k IN ('A', 'ß')"
        ))
        .await;
        pair.write(&format!("UPDATE {table} SET k = k || k")).await;
    }
    pair.ends_equal(daemon).await;
}
