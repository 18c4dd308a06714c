//! `cdc run` finds the right row, whatever identifies it.

mod support;

use support::pair::Pair;

/// Creates the tables on both sides, streams the changes, and compares.
async fn replicate(name: &str, schema: &str, changes: &[&str]) {
    let pair = Pair::new(name).await;
    pair.both(schema).await;
    let daemon = pair.streaming().await;
    for change in changes {
        pair.write(change).await;
    }
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_found_by_primary_keys_of_one_and_of_many_columns() {
    replicate(
        "primary_keys",
        "CREATE TABLE one (id bigint PRIMARY KEY, v text);
         CREATE TABLE many (b text, v text, a int, c date, PRIMARY KEY (a, c, b));
         CREATE TABLE text_key (id varchar(40) PRIMARY KEY, v text);
         CREATE TABLE uuid_key (id uuid PRIMARY KEY, v text);
         CREATE TABLE char_key (id char(5) PRIMARY KEY, v text);
         CREATE TABLE numeric_key (id numeric PRIMARY KEY, v text);
         CREATE TYPE colour AS ENUM ('red', 'green');
         CREATE TABLE enum_key (id colour PRIMARY KEY, v text);
         CREATE DOMAIN code AS text CHECK (value <> '');
         CREATE TABLE domain_key (id code PRIMARY KEY, v text);
         CREATE TABLE array_key (id int[] PRIMARY KEY, v text);
         CREATE TYPE pair AS (a int, b text);
         CREATE TABLE composite_key (id pair PRIMARY KEY, v text);
         CREATE TABLE range_key (id int4range PRIMARY KEY, v text);
         CREATE TABLE time_key (id timestamptz PRIMARY KEY, v text);
         CREATE TABLE float_key (id float8 PRIMARY KEY, v text);
         CREATE TABLE name_key (id name PRIMARY KEY, c \"char\", v text);
         CREATE TABLE jsonb_key (id jsonb PRIMARY KEY, v text)",
        &[
            "INSERT INTO one SELECT i, 'v' || i FROM generate_series(1, 50) i;
             INSERT INTO many SELECT b, 'v', a, date '2024-01-01' + a
               FROM generate_series(1, 5) a, unnest('{x,y,\"\"}'::text[]) b;
             INSERT INTO text_key VALUES ('a', 'v'), ('A', 'v'), (' a', 'v'), ('', 'v'), ('ä''\"\\', 'v');
             INSERT INTO uuid_key SELECT md5(i::text)::uuid, 'v' FROM generate_series(1, 9) i;
             INSERT INTO char_key VALUES ('a', 'v'), ('ab', 'v'), ('', 'v');
             INSERT INTO numeric_key VALUES (1.0, 'v'), (2.50, 'v'), ('NaN', 'v');
             INSERT INTO enum_key VALUES ('red', 'v'), ('green', 'v');
             INSERT INTO domain_key VALUES ('a', 'v'), ('b', 'v');
             INSERT INTO array_key VALUES ('{1,2}', 'v'), ('{NULL}', 'v'), ('{}', 'v');
             INSERT INTO composite_key VALUES ('(1,a)', 'v'), ('(1,)', 'v');
             INSERT INTO range_key VALUES ('[1,3)', 'v'), ('empty', 'v');
             INSERT INTO time_key VALUES ('2024-03-31 02:30:00.123456+02', 'v'), ('infinity', 'v');
             INSERT INTO float_key VALUES (0.1, 'v'), ('NaN', 'v'), (-0.0, 'v');
             INSERT INTO name_key VALUES ('n', 'x', 'v'), ('m', '', 'v');
             INSERT INTO jsonb_key VALUES ('{\"a\": 1.0}', 'v'), ('null', 'v')",
            "UPDATE one SET v = v || '!' WHERE id % 3 = 0;
             UPDATE many SET v = 'w' WHERE a > 2 AND b <> 'x';
             UPDATE text_key SET v = id; UPDATE uuid_key SET v = 'w'; UPDATE char_key SET v = 'w';
             UPDATE numeric_key SET v = 'w'; UPDATE enum_key SET v = 'w'; UPDATE domain_key SET v = 'w';
             UPDATE array_key SET v = 'w'; UPDATE composite_key SET v = 'w'; UPDATE range_key SET v = 'w';
             UPDATE time_key SET v = 'w'; UPDATE float_key SET v = 'w'; UPDATE name_key SET v = 'w';
             UPDATE jsonb_key SET v = 'w'",
            "UPDATE one SET id = -id WHERE id % 5 = 0;
             UPDATE many SET b = b || 'z', c = c + 1 WHERE a = 1;
             UPDATE text_key SET id = id || '.'; UPDATE char_key SET id = 'z' WHERE id = 'a';
             UPDATE numeric_key SET id = 1.00 WHERE id = 1.0;
             UPDATE enum_key SET v = NULL WHERE id = 'red';
             UPDATE composite_key SET id = '(2,a)' WHERE id = '(1,a)'::pair;
             UPDATE array_key SET id = '{3}' WHERE id = '{NULL}';
             UPDATE float_key SET id = 0.0 WHERE id = 0;
             UPDATE jsonb_key SET id = '{\"a\": 1.00}' WHERE id <> 'null'",
            "DELETE FROM one WHERE id % 7 = 0; DELETE FROM many WHERE b = 'xz'; DELETE FROM text_key WHERE id = '.';
             DELETE FROM uuid_key WHERE v = 'w'; DELETE FROM char_key WHERE id = 'ab';
             DELETE FROM numeric_key WHERE id = 'NaN'; DELETE FROM enum_key WHERE id = 'red';
             DELETE FROM domain_key WHERE id = 'a'; DELETE FROM array_key WHERE id = '{}';
             DELETE FROM composite_key WHERE id = '(1,)'::pair; DELETE FROM range_key WHERE id = 'empty';
             DELETE FROM time_key WHERE id = 'infinity'; DELETE FROM float_key WHERE id = 'NaN';
             DELETE FROM name_key WHERE id = 'm'; DELETE FROM jsonb_key WHERE id = 'null'",
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_found_by_the_index_that_is_their_replica_identity() {
    replicate(
        "identity_index",
        "CREATE TABLE t (id bigint PRIMARY KEY, a int NOT NULL, b text NOT NULL, v text, CHECK (id > 0));
         CREATE UNIQUE INDEX t_ab ON t (b, a) INCLUDE (v);
         ALTER TABLE t REPLICA IDENTITY USING INDEX t_ab;
         CREATE TABLE keyless (a int NOT NULL, v text);
         CREATE UNIQUE INDEX keyless_a ON keyless (a);
         CREATE UNIQUE INDEX keyless_e ON keyless ((a + 1)) WHERE v IS NOT NULL;
         ALTER TABLE keyless REPLICA IDENTITY USING INDEX keyless_a",
        &[
            "INSERT INTO t SELECT i, i % 7, 'b' || i, 'v' FROM generate_series(1, 50) i;
             INSERT INTO keyless SELECT i, CASE WHEN i % 2 = 0 THEN 'v' END FROM generate_series(1, 20) i",
            // The primary key is an ordinary column then.
            "UPDATE t SET id = id + 1000 WHERE id % 3 = 0; UPDATE t SET v = NULL WHERE id % 4 = 0",
            "UPDATE t SET a = a + 100 WHERE id % 5 = 0; UPDATE t SET b = b || '!', id = id + 5000 WHERE id % 7 = 0",
            "UPDATE keyless SET v = 'w' WHERE a < 5; UPDATE keyless SET a = -a WHERE a > 15",
            "DELETE FROM t WHERE a = 2; DELETE FROM keyless WHERE a % 3 = 0",
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_old_rows_find_exactly_one_of_several_equal_rows() {
    let pair = Pair::new("full_duplicates").await;
    pair.both(
        "CREATE TABLE with_key (id int PRIMARY KEY, v text); ALTER TABLE with_key REPLICA IDENTITY FULL;
         CREATE TABLE twins (a int, b text); ALTER TABLE twins REPLICA IDENTITY FULL;
         CREATE TABLE blank (a int, b json, c text[]); ALTER TABLE blank REPLICA IDENTITY FULL",
    )
    .await;
    let daemon = pair.streaming().await;
    pair.write(
        "INSERT INTO with_key SELECT i, 'v' FROM generate_series(1, 20) i;
         INSERT INTO twins SELECT i % 3, NULLIF(i % 2, 0)::text FROM generate_series(1, 30) i;
         INSERT INTO blank SELECT FROM generate_series(1, 10)",
    )
    .await;
    pair.write("UPDATE with_key SET v = id::text; UPDATE with_key SET id = -id WHERE id % 2 = 0").await;
    pair.write("UPDATE twins SET b = 'one' WHERE ctid = (SELECT min(ctid) FROM twins WHERE a = 0)").await;
    pair.write("DELETE FROM twins WHERE ctid = (SELECT max(ctid) FROM twins WHERE a = 1 AND b = '1')").await;
    pair.write("DELETE FROM twins WHERE ctid = (SELECT max(ctid) FROM twins WHERE b IS NULL)").await;
    pair.write("UPDATE blank SET a = 1 WHERE ctid = (SELECT min(ctid) FROM blank)").await;
    pair.write(
        "UPDATE blank SET a = NULL WHERE a = 1; DELETE FROM blank WHERE ctid = (SELECT min(ctid) FROM blank)",
    )
    .await;
    pair.write("UPDATE twins SET a = a + 1; DELETE FROM with_key WHERE id < 0").await;
    pair.caught_up().await;
    let left: i64 = pair.target.query_one("SELECT count(*) FROM blank", &[]).await.unwrap().get(0);
    assert_eq!(left, 9);
    pair.ends_equal(daemon).await;
}

/// Pairs of values that a type's own `=` can't tell apart, or types that have no `=` at all.
#[tokio::test(flavor = "multi_thread")]
async fn whole_old_rows_are_compared_exactly_where_equal_is_not_the_same() {
    let pair = Pair::new("full_exact").await;
    let values = [
        ("json", r#"'{"a":1}'"#, r#"'{"a": 1}'"#),
        ("xml", "'<a/>'", "'<a></a>'"),
        ("xml", r#"'<?xml version="1.0" standalone="yes"?><a/>'"#, r#"'<?xml version="1.1"?><a/>'"#),
        ("point", "'(1,2)'", "'(1,3)'"),
        ("point", "'(0,2)'", "'(-0,2)'"),
        ("box", "'(0,0),(1,1)'", "'(0,0),(2,0.5)'"),
        ("circle", "'<(0,0),1>'", "'<(5,0),1>'"),
        ("polygon", "'((0,0),(1,1))'", "'((0,0),(2,1))'"),
        ("path", "'((0,0),(1,1))'", "'[(0,0),(1,1)]'"),
        ("numeric", "1.0", "1.00"),
        ("float8", "0", "'-0'"),
        ("float4", "0.1", "0.10000001"),
        ("citext", "'a'", "'A'"),
        ("ci_text", "'a'", "'A'"),
        ("text COLLATE public.ci", "'b'", "'B'"),
        ("text[] COLLATE public.ci", "'{b}'", "'{B}'"),
        ("bpchar", "'a'", "'a '"),
        ("char(5)", "'a'", "'b'"),
        ("bytea", r"'\x00'", r"'\x0000'"),
        ("int[]", "'{1,NULL}'", "'[0:1]={1,NULL}'"),
        ("numeric[]", "'{1.0}'", "'{1.00}'"),
        ("jsonb", r#"'{"a": 1.0}'"#, r#"'{"a": 1.00}'"#),
        ("tsvector", "'a:1'", "'a:1A'"),
        ("interval", "'1 day'", "'24 hours'"),
        ("timetz", "'12:00+00'", "'13:00+01'"),
        ("numrange", "'[1.0,2)'", "'[1.00,2)'"),
        ("pair", "'(1.0,a)'", "'(1.00,a)'"),
        ("money", "'1.00'", "'1.01'"),
        ("\"char\"", "'a'", "''"),
        ("name", "'a'", "'b'"),
        ("ltree", "'a.b'", "'a.B'"),
        ("hstore", "'a=>1'", "'a=>NULL'"),
        ("aclitem", "'postgres=r/postgres'", "'postgres=w/postgres'"),
        ("refcursor", "'a'", "'b'"),
    ];
    pair.both(
        "CREATE EXTENSION citext; CREATE EXTENSION ltree; CREATE EXTENSION hstore;
         CREATE COLLATION public.ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
         CREATE DOMAIN ci_text AS citext; CREATE TYPE pair AS (n numeric, t text)",
    )
    .await;
    for (i, (ty, ..)) in values.iter().enumerate() {
        pair.both(&format!("CREATE TABLE t{i} (n int, v {ty}); ALTER TABLE t{i} REPLICA IDENTITY FULL"))
            .await;
    }
    let daemon = pair.streaming().await;
    for (i, (_, one, other)) in values.iter().enumerate() {
        pair.write(&format!("INSERT INTO t{i} VALUES (0, {one}), (0, {other}), (0, {one}), (0, NULL)")).await;
        let row = |place| format!("ctid = (SELECT ctid FROM t{i} ORDER BY ctid LIMIT 1 OFFSET {place})");
        // The other value must go, not the one that seems equal and comes first. Nothing may touch the
        // rows with n = 0 afterwards: an UPDATE writes every column and would hide the mistake.
        pair.write(&format!("DELETE FROM t{i} WHERE {}", row(1))).await;
        pair.write(&format!("INSERT INTO t{i} VALUES (1, {one}); UPDATE t{i} SET v = {other} WHERE n = 1"))
            .await;
        pair.write(&format!("UPDATE t{i} SET n = 2 WHERE v IS NULL")).await;
    }
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_change_in_chains_and_swaps() {
    replicate(
        "key_chains",
        "CREATE TABLE t (id int PRIMARY KEY, v text);
         CREATE TABLE lazy (id int PRIMARY KEY, rank int UNIQUE DEFERRABLE INITIALLY DEFERRED);
         CREATE TABLE only_keys (a int, b int, PRIMARY KEY (a, b))",
        &[
            "INSERT INTO t SELECT i, 'v' || i FROM generate_series(1, 6) i;
             INSERT INTO lazy SELECT i, i FROM generate_series(1, 10) i;
             INSERT INTO only_keys SELECT i, i % 3 FROM generate_series(1, 10) i",
            "BEGIN; UPDATE t SET id = 13 WHERE id = 1; UPDATE t SET id = 1 WHERE id = 2;
             UPDATE t SET id = 2 WHERE id = 13; COMMIT",
            "BEGIN; UPDATE t SET id = 100 WHERE id = 3; UPDATE t SET id = 101 WHERE id = 100;
             UPDATE t SET id = 3, v = 'back' WHERE id = 101; DELETE FROM t WHERE id = 3;
             INSERT INTO t VALUES (3, 'new'); UPDATE t SET id = 4000 WHERE id = 4; INSERT INTO t VALUES (4, 'other');
             DELETE FROM t WHERE id = 4000; COMMIT",
            // A swap that is only possible because the constraint is looked at in the end.
            "UPDATE lazy SET rank = 11 - rank",
            // Nothing changes, and there is nothing but the key.
            "UPDATE t SET v = v, id = id; UPDATE only_keys SET a = a; UPDATE only_keys SET b = b + 10 WHERE a > 5;
             DELETE FROM only_keys WHERE a = 2",
        ],
    )
    .await;
}

/// Values that the source stores outside the row, and doesn't send again while they are unchanged.
const LARGE: &str = "(SELECT string_agg(md5((n * 1000 + i)::text), '') FROM generate_series(1, 200) i)";

#[tokio::test(flavor = "multi_thread")]
async fn unchanged_toast_is_kept_with_every_identity() {
    let tables = [
        ("by_key", "PRIMARY KEY (id)", "SELECT"),
        ("by_index", "UNIQUE (id)", "ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_id_key"),
        ("by_row", "PRIMARY KEY (id)", "ALTER TABLE by_row REPLICA IDENTITY FULL"),
        ("by_row_only", "CHECK (id <> 0)", "ALTER TABLE by_row_only REPLICA IDENTITY FULL"),
    ];
    let pair = Pair::new("toast").await;
    for (table, constraint, identity) in tables {
        pair.both(&format!(
            "CREATE TABLE {table} (id int NOT NULL, n int, a text, b text, c bytea, {constraint});
             ALTER TABLE {table} ALTER a SET STORAGE EXTERNAL, ALTER b SET STORAGE EXTERNAL; {identity}"
        ))
        .await;
    }
    let daemon = pair.streaming().await;
    for (table, ..) in tables {
        pair.write(&format!(
            "INSERT INTO {table} SELECT n, n, {LARGE}, {LARGE}, {LARGE}::bytea FROM generate_series(1, 8) n"
        ))
        .await;
        pair.write(&format!("UPDATE {table} SET n = n + 1; UPDATE {table} SET a = 'short' WHERE id = 1"))
            .await;
        pair.write(&format!("UPDATE {table} SET id = id + 100 WHERE id IN (2, 3)")).await;
        pair.write(&format!("UPDATE {table} SET id = id + 100, b = a || 'x' WHERE id = 4")).await;
        pair.write(&format!(
            "UPDATE {table} SET a = NULL, b = b WHERE id = 5; UPDATE {table} SET a = b WHERE id = 5"
        ))
        .await;
        pair.write(&format!(
            "UPDATE {table} SET id = id WHERE id = 6; DELETE FROM {table} WHERE id IN (7, 102)"
        ))
        .await;
    }
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_can_be_a_value_outside_the_row() {
    replicate(
        "toasted_key",
        // An index takes 2704 bytes, so the value has to be compressible or in a row that is full.
        "CREATE TABLE t (k text PRIMARY KEY, n int, filler text);
         ALTER TABLE t ALTER k SET STORAGE EXTERNAL, ALTER filler SET STORAGE PLAIN;
         CREATE TABLE long (k text PRIMARY KEY, n int)",
        &[
            "INSERT INTO t SELECT n || repeat('k', 2500), n, repeat('f', 5000) FROM generate_series(1, 5) n;
             INSERT INTO long SELECT n || repeat('k', 100000), n FROM generate_series(1, 5) n",
            "UPDATE t SET n = n + 10; UPDATE long SET n = n + 10",
            "UPDATE t SET k = 'x' || k WHERE n < 13; UPDATE long SET k = 'x' || k WHERE n < 13",
            "UPDATE t SET filler = 'x'; UPDATE long SET n = 0 WHERE n = 11",
            "DELETE FROM t WHERE n = 12; DELETE FROM long WHERE n = 12",
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_usable_identity_is_refused_before_anything_is_touched() {
    let pair = Pair::new("unusable").await;
    pair.both(
        "CREATE TABLE fine (id int PRIMARY KEY);
         CREATE TABLE none (id int, v text);
         CREATE TABLE later (id int PRIMARY KEY DEFERRABLE, v text);
         CREATE TABLE nothing (id int PRIMARY KEY); ALTER TABLE nothing REPLICA IDENTITY NOTHING;
         CREATE TABLE computed (a int, b int GENERATED ALWAYS AS (a / 10) STORED, PRIMARY KEY (b, a));
         CREATE TABLE without_index (id int NOT NULL UNIQUE);
         ALTER TABLE without_index REPLICA IDENTITY USING INDEX without_index_id_key;
         ALTER TABLE without_index DROP CONSTRAINT without_index_id_key",
    )
    .await;
    let refused = pair.run(&["run"]);
    assert_eq!(refused.status.code(), Some(2));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        said.contains(
            "no replica identity: public.computed, public.later, public.none, public.nothing, \
             public.without_index."
        ),
        "{said}"
    );
    assert!(said.contains("ALTER TABLE \"public\".\"later\" REPLICA IDENTITY FULL"), "{said}");
    let slots =
        pair.source.query("SELECT FROM pg_replication_slots WHERE slot_name = 'cdc_unusable'", &[]).await;
    assert!(slots.unwrap().is_empty());
    pair.write("INSERT INTO none VALUES (1); UPDATE none SET v = 'w'").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_declared_insert_only_bring_inserts_and_truncates() {
    let mut pair = Pair::new("insert_only").await;
    pair.config = "[tables]\ninsert_only = [\"public.events\", \"public.parts\"]".to_owned();
    pair.both(
        "CREATE TABLE events (at timestamptz, what text);
         CREATE TABLE parts (a int, v text) PARTITION BY RANGE (a);
         CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
         CREATE TABLE keyed (id int PRIMARY KEY, v text)",
    )
    .await;
    let daemon = pair.streaming().await;
    pair.write("INSERT INTO events SELECT now(), 'old' FROM generate_series(1, 10)").await;
    pair.write("TRUNCATE events; INSERT INTO events SELECT now(), i::text FROM generate_series(1, 10) i")
        .await;
    pair.write("INSERT INTO parts SELECT i, 'v' FROM generate_series(0, 9) i").await;
    pair.write("INSERT INTO keyed VALUES (1, 'v'); UPDATE keyed SET v = 'w'").await;
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_can_have_no_columns_or_three_hundred() {
    let columns = |f: fn(usize) -> String| (1..=300).map(f).collect::<Vec<_>>().join(", ");
    let pair = Pair::new("column_counts").await;
    pair.both(&format!(
        "CREATE TABLE none (); ALTER TABLE none REPLICA IDENTITY FULL;
         CREATE TABLE wide (id int PRIMARY KEY, {0});
         CREATE TABLE wide_full ({0}); ALTER TABLE wide_full REPLICA IDENTITY FULL",
        columns(|i| format!("c{i} {}", ["int", "text", "numeric", "jsonb"][i % 4]))
    ))
    .await;
    let daemon = pair.streaming().await;
    pair.write("INSERT INTO none SELECT FROM generate_series(1, 5)").await;
    pair.write("DELETE FROM none WHERE ctid IN (SELECT ctid FROM none LIMIT 2)").await;
    let values = columns(|i| {
        if i % 5 == 0 {
            "NULL".to_owned()
        } else {
            "n".to_owned() + ["", "::text", "", "::text::jsonb"][i % 4]
        }
    });
    pair.write(&format!("INSERT INTO wide SELECT n, {values} FROM generate_series(1, 20) n")).await;
    pair.write(&format!("INSERT INTO wide_full SELECT {values} FROM generate_series(1, 20) n")).await;
    pair.write("UPDATE wide SET c300 = 0, c5 = 'x' WHERE id < 10; DELETE FROM wide WHERE id > 15").await;
    pair.write("UPDATE wide_full SET c1 = 'x', c300 = 7 WHERE c4 < 10; DELETE FROM wide_full WHERE c4 > 15")
        .await;
    pair.ends_equal(daemon).await;
}
