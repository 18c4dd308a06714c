//! Rows are found, whatever identifies them, and keep what wasn't sent.

use super::situation::Situation;

/// Primary keys of one and of many columns, of many types.
pub fn keys() -> Situation {
    Situation::new(
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
         CREATE TYPE ab AS (a int, b text);
         CREATE TABLE composite_key (id ab PRIMARY KEY, v text);
         CREATE TABLE range_key (id int4range PRIMARY KEY, v text);
         CREATE TABLE time_key (id timestamptz PRIMARY KEY, v text);
         CREATE TABLE float_key (id float8 PRIMARY KEY, v text);
         CREATE TABLE name_key (id name PRIMARY KEY, c \"char\", v text);
         CREATE TABLE jsonb_key (id jsonb PRIMARY KEY, v text)",
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
        &[
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
             UPDATE composite_key SET id = '(2,a)' WHERE id = '(1,a)'::ab;
             UPDATE array_key SET id = '{3}' WHERE id = '{NULL}';
             UPDATE float_key SET id = 0.0 WHERE id = 0;
             UPDATE jsonb_key SET id = '{\"a\": 1.00}' WHERE id <> 'null'",
            "DELETE FROM one WHERE id % 7 = 0; DELETE FROM many WHERE b = 'xz'; DELETE FROM text_key WHERE id = '.';
             DELETE FROM uuid_key WHERE v = 'w'; DELETE FROM char_key WHERE id = 'ab';
             DELETE FROM numeric_key WHERE id = 'NaN'; DELETE FROM enum_key WHERE id = 'red';
             DELETE FROM domain_key WHERE id = 'a'; DELETE FROM array_key WHERE id = '{}';
             DELETE FROM composite_key WHERE id = '(1,)'::ab; DELETE FROM range_key WHERE id = 'empty';
             DELETE FROM time_key WHERE id = 'infinity'; DELETE FROM float_key WHERE id = 'NaN';
             DELETE FROM name_key WHERE id = 'm'; DELETE FROM jsonb_key WHERE id = 'null'",
        ],
    )
}

/// Keys whose types, and equality, are an extension's.
pub fn keys_of_extensions() -> Situation {
    Situation::new(
        "CREATE TABLE citext_key (id citext PRIMARY KEY, v text);
         CREATE TABLE ltree_key (id ltree PRIMARY KEY, v text)",
        "INSERT INTO citext_key VALUES ('Anna', 'v'), ('bert', 'v'), ('', 'v');
         INSERT INTO ltree_key VALUES ('a', 'v'), ('a.b', 'v'), ('', 'v')",
        &[
            "UPDATE citext_key SET v = 'w' WHERE id = 'ANNA'; UPDATE citext_key SET id = 'ANNA' WHERE id = 'anna'",
            "DELETE FROM citext_key WHERE id = ''; UPDATE citext_key SET id = 'carl', v = 'x' WHERE id = 'BERT'",
            "UPDATE ltree_key SET v = 'w' WHERE id = 'a'; UPDATE ltree_key SET id = 'a.c' WHERE id = 'a.b';
             DELETE FROM ltree_key WHERE id = ''",
        ],
    )
}

/// An index other than the primary key is the replica identity.
pub fn index_identities() -> Situation {
    Situation::new(
        "CREATE TABLE by_index (id bigint PRIMARY KEY, a int NOT NULL, b text NOT NULL, v text, CHECK (id > 0));
         CREATE UNIQUE INDEX by_index_ab ON by_index (b, a) INCLUDE (v);
         ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_ab;
         CREATE TABLE keyless (a int NOT NULL, v text);
         CREATE UNIQUE INDEX keyless_a ON keyless (a);
         CREATE UNIQUE INDEX keyless_e ON keyless ((a + 1)) WHERE v IS NOT NULL;
         ALTER TABLE keyless REPLICA IDENTITY USING INDEX keyless_a",
        "INSERT INTO by_index SELECT i, i % 7, 'b' || i, 'v' FROM generate_series(1, 50) i;
             INSERT INTO keyless SELECT i, CASE WHEN i % 2 = 0 THEN 'v' END FROM generate_series(1, 20) i",
        &[
            // The primary key is an ordinary column then.
            "UPDATE by_index SET id = id + 1000 WHERE id % 3 = 0; UPDATE by_index SET v = NULL WHERE id % 4 = 0",
            "UPDATE by_index SET a = a + 100 WHERE id % 5 = 0; UPDATE by_index SET b = b || '!', id = id + 5000 WHERE id % 7 = 0",
            "UPDATE keyless SET v = 'w' WHERE a < 5; UPDATE keyless SET a = -a WHERE a > 15",
            "DELETE FROM by_index WHERE a = 2; DELETE FROM keyless WHERE a % 3 = 0",
        ],
    )
}

/// Keys with a collation that calls different texts equal; the two sides need not agree on that.
pub fn collations() -> Situation {
    let mut situation = Situation::new(
        "CREATE COLLATION de (provider = icu, locale = 'de');
         CREATE TABLE ci_key (k text COLLATE ci PRIMARY KEY, v text COLLATE ci, w varchar(9) COLLATE de);
         CREATE TABLE ci_whole (k text COLLATE ci, n int); ALTER TABLE ci_whole REPLICA IDENTITY FULL;
         CREATE TABLE de_key (k text COLLATE de PRIMARY KEY, n int)",
        "INSERT INTO ci_key VALUES ('Anna', 'v'), ('bert', 'v'), ('Ärger', 'v');
         INSERT INTO ci_there VALUES ('Anna', 'v'), ('bert', 'v'), ('Ärger', 'v');
         INSERT INTO ci_whole VALUES ('x', 1), ('X', 1), ('x', 1);
         INSERT INTO de_key VALUES ('ä', 1), ('a', 1), ('A', 1), ('ae', 1)",
        &[
            "DELETE FROM ci_whole WHERE ctid = (SELECT max(ctid) FROM ci_whole WHERE k COLLATE \"C\" = 'X')",
            "UPDATE de_key SET n = 2 WHERE k = 'ä'",
            "DELETE FROM de_key WHERE k = 'A'; UPDATE de_key SET k = 'Ä' WHERE k = 'ä'",
        ],
    );
    situation.source_schema = "CREATE TABLE ci_there (k text COLLATE ci PRIMARY KEY, v text)".to_owned();
    situation.target_schema = "CREATE TABLE ci_there (k text PRIMARY KEY, v text COLLATE ci)".to_owned();
    for table in ["ci_key", "ci_there"] {
        situation.changes.extend([
            format!("UPDATE {table} SET v = 'V' WHERE k = 'ANNA'; UPDATE {table} SET k = 'ANNA' WHERE k = 'anna'"),
            format!("UPDATE {table} SET k = 'BERT', v = 'W' WHERE k = 'bert'; DELETE FROM {table} WHERE k = 'äRGER'"),
        ]);
    }
    situation
}

/// Exactly one of several equal rows is meant.
pub fn duplicates() -> Situation {
    let mut situation = Situation::new(
        "CREATE TABLE with_key (id int PRIMARY KEY, v text); ALTER TABLE with_key REPLICA IDENTITY FULL;
         CREATE TABLE twins (a int, b text); ALTER TABLE twins REPLICA IDENTITY FULL;
         CREATE TABLE blank (a int, b json, c text[]); ALTER TABLE blank REPLICA IDENTITY FULL;",
        "INSERT INTO with_key SELECT i, 'v' FROM generate_series(1, 20) i;
         INSERT INTO twins SELECT i % 3, NULLIF(i % 2, 0)::text FROM generate_series(1, 30) i;
         INSERT INTO blank SELECT FROM generate_series(1, 10)",
        &[
            "UPDATE with_key SET v = id::text; UPDATE with_key SET id = -id WHERE id % 2 = 0",
            "UPDATE twins SET b = 'one' WHERE ctid = (SELECT min(ctid) FROM twins WHERE a = 0)",
            "DELETE FROM twins WHERE ctid = (SELECT max(ctid) FROM twins WHERE a = 1 AND b = '1')",
            "DELETE FROM twins WHERE ctid = (SELECT max(ctid) FROM twins WHERE b IS NULL)",
            "UPDATE blank SET a = 1 WHERE ctid = (SELECT min(ctid) FROM blank)",
            "UPDATE blank SET a = NULL WHERE a = 1; DELETE FROM blank WHERE ctid = (SELECT min(ctid) FROM blank)",
            "UPDATE twins SET a = a + 1; DELETE FROM with_key WHERE id < 0",
        ],
    );
    situation.checks.push("SELECT count(*) = 9 FROM blank".to_owned());
    situation
}

/// Keys change in chains and swaps.
pub fn chains() -> Situation {
    Situation::new(
        "CREATE TABLE chain (id int PRIMARY KEY, v text);
         CREATE TABLE lazy (id int PRIMARY KEY, rank int UNIQUE DEFERRABLE INITIALLY DEFERRED);
         CREATE TABLE only_keys (a int, b int, PRIMARY KEY (a, b))",
        "INSERT INTO chain SELECT i, 'v' || i FROM generate_series(1, 6) i;
             INSERT INTO lazy SELECT i, i FROM generate_series(1, 10) i;
             INSERT INTO only_keys SELECT i, i % 3 FROM generate_series(1, 10) i",
        &[
            "BEGIN; UPDATE chain SET id = 13 WHERE id = 1; UPDATE chain SET id = 1 WHERE id = 2;
             UPDATE chain SET id = 2 WHERE id = 13; COMMIT",
            "BEGIN; UPDATE chain SET id = 100 WHERE id = 3; UPDATE chain SET id = 101 WHERE id = 100;
             UPDATE chain SET id = 3, v = 'back' WHERE id = 101; DELETE FROM chain WHERE id = 3;
             INSERT INTO chain VALUES (3, 'new'); UPDATE chain SET id = 4000 WHERE id = 4; INSERT INTO chain VALUES (4, 'other');
             DELETE FROM chain WHERE id = 4000; COMMIT",
            // A swap that is only possible because the constraint is looked at in the end.
            "UPDATE lazy SET rank = 11 - rank",
            // Nothing changes, and there is nothing but the key.
            "UPDATE chain SET v = v, id = id; UPDATE only_keys SET a = a; UPDATE only_keys SET b = b + 10 WHERE a > 5;
             DELETE FROM only_keys WHERE a = 2",
        ],
    )
}

/// Values that the source stores outside the row, and doesn't send again while they are unchanged.
const LARGE: &str = "(SELECT string_agg(md5((n * 1000 + i)::text), '') FROM generate_series(1, 200) i)";

/// Unchanged TOAST is kept with every identity.
pub fn toast() -> Situation {
    let tables = [
        ("large_by_key", "PRIMARY KEY (id)", "DEFAULT"),
        ("large_by_index", "UNIQUE (id)", "USING INDEX large_by_index_id_key"),
        ("large_by_row", "PRIMARY KEY (id)", "FULL"),
        ("large_by_row_only", "CHECK (id <> 0)", "FULL"),
    ];
    let mut situation = Situation::default();
    for (table, constraint, identity) in tables {
        situation.schema.push_str(&format!(
            "CREATE TABLE {table} (id int NOT NULL, n int, a text, b text, c bytea, {constraint});
             ALTER TABLE {table} ALTER a SET STORAGE EXTERNAL, ALTER b SET STORAGE EXTERNAL;
             ALTER TABLE {table} REPLICA IDENTITY {identity};"
        ));
        situation.rows.push_str(&format!(
            "INSERT INTO {table} SELECT n, n, {LARGE}, {LARGE}, {LARGE}::bytea FROM generate_series(1, 8) n;"
        ));
        situation.changes.extend([
            format!("UPDATE {table} SET n = n + 1; UPDATE {table} SET a = 'short' WHERE id = 1"),
            format!("UPDATE {table} SET id = id + 100 WHERE id IN (2, 3)"),
            format!("UPDATE {table} SET id = id + 100, b = a || 'x' WHERE id = 4"),
            format!("UPDATE {table} SET a = NULL, b = b WHERE id = 5; UPDATE {table} SET a = b WHERE id = 5"),
            format!("UPDATE {table} SET id = id WHERE id = 6; DELETE FROM {table} WHERE id IN (7, 102)"),
        ]);
    }
    situation
}

/// A key can be a value outside the row.
pub fn toasted_keys() -> Situation {
    Situation::new(
        // An index takes 2704 bytes, so the value has to be compressible or in a row that is full.
        "CREATE TABLE full_page (k text PRIMARY KEY, n int, filler text);
         ALTER TABLE full_page ALTER k SET STORAGE EXTERNAL, ALTER filler SET STORAGE PLAIN;
         CREATE TABLE long (k text PRIMARY KEY, n int)",
        "INSERT INTO full_page SELECT n || repeat('k', 2500), n, repeat('f', 5000) FROM generate_series(1, 5) n;
             INSERT INTO long SELECT n || repeat('k', 100000), n FROM generate_series(1, 5) n",
        &[
            "UPDATE full_page SET n = n + 10; UPDATE long SET n = n + 10",
            "UPDATE full_page SET k = 'x' || k WHERE n < 13; UPDATE long SET k = 'x' || k WHERE n < 13",
            "UPDATE full_page SET filler = 'x'; UPDATE long SET n = 0 WHERE n = 11",
            "DELETE FROM full_page WHERE n = 12; DELETE FROM long WHERE n = 12",
        ],
    )
}
