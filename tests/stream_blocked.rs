//! A change that can't be applied stops the stream exactly there, says so, and goes on when the
//! cause is mended (rule C4).

#![allow(clippy::unwrap_used, reason = "all of it is a test")]

mod support;

use cdc::lsn::Lsn;
use futures_util::future::join_all;
use serde_json::Value;
use support::pair::{Pair, as_superuser};
use tokio_postgres::Client;

/// Something that is wrong on the target.
struct Case {
    name: &'static str,
    /// Made and filled on both sides; `t` is what the case is about.
    schema: &'static str,
    /// A transaction that fits, if the daemon is to have looked at the table before it differs.
    before: &'static str,
    /// What makes the target differ.
    sabotage: &'static str,
    /// The transaction of the source that can't be applied.
    bad: &'static str,
    /// What a person does on the target.
    mend: &'static str,
    /// What the incident has to say.
    table: &'static str,
    key: Option<&'static str>,
    sqlstate: Option<&'static str>,
    message: &'static str,
    remedy: &'static str,
}

const T: &str =
    "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' FROM generate_series(1, 9) i";

/// A case about the row with id 5 of `t`.
const ROW: Case = Case {
    name: "",
    schema: T,
    before: "SELECT",
    sabotage: "",
    bad: "UPDATE t SET v = 'bad' WHERE id = 5",
    mend: "",
    table: "public.t",
    key: Some("id=5"),
    sqlstate: None,
    message: "",
    remedy: "",
};

const CASES: &[Case] = &[
    Case {
        name: "update_missing",
        sabotage: "DELETE FROM t WHERE id = 5",
        mend: "INSERT INTO t VALUES (5, 'v')",
        message: "the row that the source's UPDATE changed is not there",
        remedy: "Put the row there as it was on the source before",
        ..ROW
    },
    Case {
        name: "delete_missing",
        sabotage: "DELETE FROM t WHERE id = 5",
        bad: "DELETE FROM t WHERE id = 5",
        mend: "INSERT INTO t VALUES (5, 'v')",
        message: "the row that the source's DELETE changed is not there",
        remedy: "Put the row there",
        ..ROW
    },
    Case {
        name: "update_without_a_change_missing",
        schema: "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (5)",
        sabotage: "DELETE FROM t",
        bad: "UPDATE t SET id = id",
        mend: "INSERT INTO t VALUES (5)",
        message: "the row that the source's UPDATE changed is not there",
        remedy: "Put the row there",
        ..ROW
    },
    Case {
        name: "full_missing",
        schema: "CREATE TABLE t (id int, v text); ALTER TABLE t REPLICA IDENTITY FULL; INSERT INTO t VALUES (5, 'v')",
        sabotage: "UPDATE t SET v = 'other'",
        mend: "UPDATE t SET v = 'v'",
        key: Some("id=5, v=v"),
        message: "the row that the source's UPDATE changed is not there",
        remedy: "Put the row there",
        ..ROW
    },
    Case {
        name: "insert_existing",
        sabotage: "INSERT INTO t VALUES (10, 'mine')",
        bad: "INSERT INTO t VALUES (10, 'theirs')",
        mend: "DELETE FROM t WHERE id = 10",
        key: Some("id=10"),
        sqlstate: Some("23505"),
        message: "applying the source's INSERT: duplicate key value violates unique constraint",
        remedy: "delete that row on the target",
        ..ROW
    },
    Case {
        name: "update_of_duplicates",
        sabotage: "ALTER TABLE t DROP CONSTRAINT t_pkey; INSERT INTO t VALUES (5, 'twin')",
        mend: "DELETE FROM t WHERE v = 'twin'",
        message: "the source's UPDATE changed one row, here it would be 2",
        remedy: "delete the superfluous rows",
        ..ROW
    },
    Case {
        name: "check_violated",
        sabotage: "ALTER TABLE t ADD CONSTRAINT mine CHECK (v <> 'bad')",
        mend: "ALTER TABLE t DROP CONSTRAINT mine",
        sqlstate: Some("23514"),
        message: "violates check constraint \"mine\"",
        remedy: "drop it or make it as on the source",
        ..ROW
    },
    Case {
        name: "not_null_violated",
        sabotage: "ALTER TABLE t ALTER v SET NOT NULL",
        bad: "UPDATE t SET v = NULL WHERE id = 5",
        mend: "ALTER TABLE t ALTER v DROP NOT NULL",
        sqlstate: Some("23502"),
        message: "null value in column \"v\"",
        remedy: "drop it or make it as on the source",
        ..ROW
    },
    Case {
        name: "too_long",
        sabotage: "ALTER TABLE t ALTER v TYPE varchar(2)",
        mend: "ALTER TABLE t ALTER v TYPE text",
        sqlstate: Some("22001"),
        message: "value too long for type character varying(2)",
        remedy: "give it the source's type",
        ..ROW
    },
    Case {
        name: "another_type",
        sabotage: "ALTER TABLE t ALTER v TYPE int USING NULL",
        mend: "ALTER TABLE t ALTER v TYPE text; UPDATE t SET v = 'v'",
        sqlstate: Some("22P02"),
        message: "invalid input syntax for type integer: \"bad\"",
        remedy: "give it the source's type",
        ..ROW
    },
    Case {
        name: "missing_column",
        sabotage: "",
        bad: "ALTER TABLE t ADD n int; UPDATE t SET n = 1 WHERE id = 5",
        mend: "ALTER TABLE t ADD n int",
        message: "the column n of the source's table is missing",
        remedy: "on the target: ALTER TABLE \"public\".\"t\" ADD COLUMN \"n\" integer;",
        ..ROW
    },
    Case {
        name: "missing_table",
        sabotage: "ALTER TABLE t RENAME TO away",
        mend: "ALTER TABLE away RENAME TO t",
        message: "the table is missing",
        remedy: "create it there as it is on the source",
        ..ROW
    },
    Case {
        name: "view_instead_of_a_table",
        sabotage: "ALTER TABLE t RENAME TO away; CREATE VIEW t AS SELECT * FROM away",
        mend: "DROP VIEW t; ALTER TABLE away RENAME TO t",
        message: "there is a view or foreign table",
        remedy: "create the table as it is on the source",
        ..ROW
    },
    Case {
        name: "generated_there",
        sabotage: "ALTER TABLE t DROP v; ALTER TABLE t ADD v text GENERATED ALWAYS AS (substr('v', 1)) STORED",
        mend: "ALTER TABLE t ALTER COLUMN v DROP EXPRESSION",
        message: "the column v is generated there but an ordinary one on the source",
        remedy: "DROP EXPRESSION",
        ..ROW
    },
    Case {
        name: "truncated_partition",
        schema: "CREATE TABLE t (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
                 CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (5);
                 CREATE TABLE t_2 PARTITION OF t FOR VALUES FROM (5) TO (10);
                 INSERT INTO t SELECT i, 'v' FROM generate_series(1, 9) i",
        sabotage: "CREATE TABLE away (LIKE t INCLUDING ALL); INSERT INTO away SELECT * FROM t; DROP TABLE t;
                   ALTER TABLE away RENAME TO t",
        bad: "TRUNCATE t_2",
        mend: "CREATE TABLE t_2 (LIKE t INCLUDING ALL); INSERT INTO t_2 SELECT * FROM t WHERE id >= 5;
               DELETE FROM t WHERE id >= 5",
        key: None,
        message: "the source truncated the partition public.t_2, which the target doesn't have",
        remedy: "create the same partition on the target and move its rows there",
        ..ROW
    },
    Case {
        name: "truncated_reference",
        sabotage: "CREATE TABLE mine (id int REFERENCES t); INSERT INTO mine VALUES (5)",
        bad: "TRUNCATE t",
        mend: "DROP TABLE mine",
        key: None,
        sqlstate: Some("0A000"),
        message: "cannot truncate a table referenced in a foreign key constraint",
        remedy: "drop the foreign key",
        ..ROW
    },
    Case {
        name: "another_unique",
        sabotage: "UPDATE t SET v = id; ALTER TABLE t ADD CONSTRAINT mine UNIQUE (v)",
        bad: "UPDATE t SET v = 7 WHERE id = 5",
        mend: "ALTER TABLE t DROP CONSTRAINT mine; UPDATE t SET v = 'v'",
        sqlstate: Some("23505"),
        message: "duplicate key value violates unique constraint \"mine\" (Key (v)=(7) already exists.)",
        remedy: "drop the constraint if only the target has it",
        ..ROW
    },
    Case {
        name: "excluded",
        schema: "CREATE TABLE t (id int PRIMARY KEY, v int4range); INSERT INTO t VALUES (5, '[1,2)'), (6, '[7,9)')",
        sabotage: "ALTER TABLE t ADD CONSTRAINT mine EXCLUDE USING gist (v WITH &&)",
        bad: "UPDATE t SET v = '[1,8)' WHERE id = 5",
        mend: "ALTER TABLE t DROP CONSTRAINT mine",
        sqlstate: Some("23P01"),
        message: "conflicting key value violates exclusion constraint \"mine\"",
        remedy: "drop the constraint if only the target has it",
        ..ROW
    },
    Case {
        name: "domain_violated",
        sabotage: "CREATE DOMAIN good AS text CONSTRAINT mine CHECK (VALUE <> 'bad'); ALTER TABLE t ALTER v TYPE good",
        mend: "ALTER DOMAIN good DROP CONSTRAINT mine",
        sqlstate: Some("23514"),
        message: "value for domain public.good violates check constraint \"mine\"",
        remedy: "drop it or make it as on the source",
        ..ROW
    },
    Case {
        name: "out_of_range",
        schema: "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (5, 0)",
        before: "UPDATE t SET v = 1",
        bad: "ALTER TABLE t ALTER v TYPE bigint; UPDATE t SET v = 3000000000",
        mend: "ALTER TABLE t ALTER v TYPE bigint",
        sqlstate: Some("22003"),
        message: "value \"3000000000\" is out of range for type integer",
        remedy: "on the target: ALTER TABLE \"public\".\"t\" ALTER COLUMN \"v\" TYPE bigint;",
        ..ROW
    },
    Case {
        name: "label_missing",
        schema: "CREATE TYPE mood AS ENUM ('good'); CREATE TABLE t (id int PRIMARY KEY, v mood); INSERT INTO t VALUES (5)",
        before: "UPDATE t SET v = 'good'; ALTER TYPE mood ADD VALUE 'bad'",
        mend: "ALTER TYPE mood ADD VALUE 'bad'",
        sqlstate: Some("22P02"),
        message: "invalid input value for enum public.mood: \"bad\"",
        remedy: "ADD VALUE",
        ..ROW
    },
    Case {
        name: "extension_missing",
        before: "UPDATE t SET v = 'w' WHERE id = 1",
        bad: "CREATE EXTENSION citext; ALTER TABLE t ADD c citext; UPDATE t SET c = 'bad' WHERE id = 5",
        mend: "CREATE EXTENSION citext; ALTER TABLE t ADD c citext",
        message: "the column c of the source's table is missing",
        remedy: "CREATE EXTENSION citext WITH SCHEMA public; ALTER TABLE \"public\".\"t\" ADD COLUMN \"c\" public.citext;",
        ..ROW
    },
    Case {
        name: "column_dropped_there",
        before: "UPDATE t SET v = 'w' WHERE id = 1",
        sabotage: "ALTER TABLE t DROP v",
        mend: "ALTER TABLE t ADD v text; UPDATE t SET v = CASE id WHEN 1 THEN 'w' ELSE 'v' END",
        sqlstate: Some("42703"),
        message: "column \"v\"",
        remedy: "make the target's table as it is on the source",
        ..ROW
    },
    Case {
        name: "column_renamed_here",
        before: "UPDATE t SET v = 'w' WHERE id = 1",
        bad: "ALTER TABLE t RENAME v TO w; UPDATE t SET w = 'bad' WHERE id = 5",
        mend: "ALTER TABLE t RENAME v TO w",
        message: "the column w of the source's table is missing",
        remedy: "on the target: ALTER TABLE \"public\".\"t\" RENAME COLUMN \"v\" TO \"w\";",
        ..ROW
    },
    Case {
        name: "table_renamed_here",
        before: "UPDATE t SET v = 'w' WHERE id = 1",
        bad: "ALTER TABLE t RENAME TO u; UPDATE u SET v = 'bad' WHERE id = 5",
        mend: "ALTER TABLE t RENAME TO u",
        table: "public.u",
        message: "the source's table has another name now",
        remedy: "on the target: ALTER TABLE \"public\".\"t\" RENAME TO \"u\";",
        ..ROW
    },
    Case {
        name: "renamed_there_when_known",
        before: "UPDATE t SET v = 'w' WHERE id = 1",
        sabotage: "ALTER TABLE t RENAME TO away",
        mend: "ALTER TABLE away RENAME TO t",
        sqlstate: Some("42P01"),
        message: "relation \"public.t\" does not exist",
        remedy: "make the target's table as it is on the source",
        ..ROW
    },
    Case {
        name: "no_partition_for_it",
        sabotage: "ALTER TABLE t RENAME TO away; CREATE TABLE t (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
                   CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (10); INSERT INTO t SELECT * FROM away;
                   DROP TABLE away",
        bad: "UPDATE t SET id = 50 WHERE id = 5",
        mend: "CREATE TABLE t_2 PARTITION OF t DEFAULT",
        sqlstate: Some("23514"),
        message: "no partition of relation \"t\" found for row",
        remedy: "create the partition",
        ..ROW
    },
    // The daemon knows it as a table without partitions, until it looks again.
    Case {
        name: "became_partitioned",
        before: "UPDATE t SET v = 'w' WHERE id = 1",
        sabotage: "ALTER TABLE t RENAME TO away; CREATE TABLE t (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
                   CREATE TABLE t_1 PARTITION OF t DEFAULT; INSERT INTO t SELECT * FROM away; DROP TABLE away",
        mend: "SELECT",
        message: "the row that the source's UPDATE changed is not there",
        remedy: "Put the row there",
        ..ROW
    },
    Case {
        name: "trigger_that_raises",
        before: "UPDATE t SET v = 'w' WHERE id = 1",
        sabotage: "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'not here'; END$$;
                   CREATE TRIGGER g BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION f();
                   ALTER TABLE t ENABLE ALWAYS TRIGGER g",
        mend: "ALTER TABLE public.t DISABLE TRIGGER g",
        sqlstate: Some("P0001"),
        message: "applying the source's UPDATE: not here",
        remedy: "disable it on the target until the cutover",
        ..ROW
    },
    Case {
        name: "foreign_key_that_fires",
        schema: "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (5, 1);
                 CREATE TABLE u (id int PRIMARY KEY); INSERT INTO u VALUES (1)",
        before: "UPDATE t SET v = NULL; UPDATE t SET v = 1",
        sabotage: "ALTER TABLE t ADD CONSTRAINT mine FOREIGN KEY (v) REFERENCES u;
                   DO $$ BEGIN EXECUTE (SELECT string_agg(format('ALTER TABLE t ENABLE ALWAYS TRIGGER %I', tgname), ';')
                                          FROM pg_trigger WHERE tgrelid = 't'::regclass); END $$",
        bad: "UPDATE t SET v = 7",
        mend: "ALTER TABLE t DROP CONSTRAINT mine",
        sqlstate: Some("23503"),
        message: "violates foreign key constraint \"mine\" (Key (v)=(7) is not present in table \"u\".)",
        remedy: "drop it or make it as on the source",
        ..ROW
    },
    Case {
        name: "index_that_fails",
        sabotage: "CREATE INDEX mine ON t ((1 / (length(v) - 3)))",
        mend: "DROP INDEX mine",
        sqlstate: Some("22012"),
        message: "division by zero",
        remedy: "an index or a generated column of the target's table",
        ..ROW
    },
    Case {
        name: "too_long_for_an_index",
        sabotage: "CREATE INDEX mine ON t (v)",
        bad: "UPDATE t SET v = (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 500) i) WHERE id = 5",
        mend: "DROP INDEX mine",
        sqlstate: Some("54000"),
        message: "applying the source's UPDATE: index row",
        remedy: "drop the index on the target",
        ..ROW
    },
    Case {
        name: "delete_of_duplicates",
        sabotage: "ALTER TABLE t DROP CONSTRAINT t_pkey; INSERT INTO t VALUES (5, 'twin')",
        bad: "DELETE FROM t WHERE id = 5",
        mend: "DELETE FROM t WHERE v = 'twin'",
        message: "the source's DELETE changed one row, here it would be 2",
        remedy: "delete the superfluous rows",
        ..ROW
    },
    Case {
        name: "end_of_a_huge_transaction",
        sabotage: "ALTER TABLE t ADD CONSTRAINT mine CHECK (id <> 30000)",
        bad: "INSERT INTO t SELECT i, repeat('v', 500) FROM generate_series(10, 30000) i",
        mend: "ALTER TABLE t DROP CONSTRAINT mine",
        key: Some("id=30000"),
        sqlstate: Some("23514"),
        message: "violates check constraint \"mine\"",
        remedy: "drop it or make it as on the source",
        ..ROW
    },
];

async fn lsn(client: &Client) -> Lsn {
    client.query_one("SELECT pg_current_wal_insert_lsn()", &[]).await.unwrap().get(0)
}

/// The rows of `log` on the target: which transactions have been applied.
async fn applied(pair: &Pair) -> String {
    let row =
        pair.target.query_one("SELECT coalesce(string_agg(id::text, ',' ORDER BY id), '') FROM log", &[]);
    row.await.unwrap().get(0)
}

async fn stops_says_so_and_goes_on(case: &'static Case) {
    let mut pair = Pair::new(case.name).await;
    pair.config = "ddl = \"none\"\n".to_owned();
    pair.both("CREATE TABLE log (id int PRIMARY KEY)").await;
    pair.both(case.schema).await;
    let daemon = pair.streaming().await;
    pair.write(case.before).await;
    pair.caught_up().await;
    pair.target.batch_execute(case.sabotage).await.unwrap();

    // While it stands still, everything gathers, so that the bad one is in the middle of a batch.
    daemon.signal("STOP");
    pair.write("INSERT INTO log VALUES (1)").await;
    pair.write("INSERT INTO log VALUES (2)").await;
    let before = lsn(&pair.source).await;
    pair.write(&format!(
        "BEGIN; INSERT INTO log VALUES (3); {}; INSERT INTO log VALUES (4); COMMIT",
        case.bad
    ))
    .await;
    let after = lsn(&pair.source).await;
    pair.write("INSERT INTO log VALUES (5)").await;
    daemon.signal("CONT");

    let status = pair.status_is("blocked", |status| status["verdict"] == "blocked").await;
    assert_eq!(pair.run(&["status"]).status.code(), Some(2), "{}", case.name);
    assert_eq!(applied(&pair).await, "1,2", "{}", case.name);
    let incident = &status["incidents"][0];
    let text = |field: &str| incident[field].as_str().unwrap_or_default().to_owned();
    assert_eq!(text("severity"), "blocked", "{incident:#}");
    assert_eq!(text("side"), "target", "{incident:#}");
    assert_eq!(text("table"), case.table, "{incident:#}");
    assert_eq!(incident["key"].as_str(), case.key, "{incident:#}");
    assert_eq!(incident["sqlstate"].as_str(), case.sqlstate, "{incident:#}");
    assert!(text("message").contains(case.message), "{incident:#}");
    assert!(text("remedy").contains(case.remedy), "{incident:#}");
    let at: Lsn = text("lsn").parse().unwrap();
    assert!(before <= at && at < after, "{before} {at} {after}");

    pair.target.batch_execute(case.mend).await.unwrap();
    pair.caught_up().await;
    assert_eq!(applied(&pair).await, "1,2,3,4,5", "{}", case.name);
    let is_open = |incident: &Value| incident["resolved_at"].is_null() && incident["severity"] == "blocked";
    pair.status_is("without an open incident", |status| {
        !status["incidents"].as_array().expect("a list").iter().any(is_open)
    })
    .await;
    pair.ends_equal(daemon).await;
}

/// Side by side, as each of them waits for the daemon's next attempt.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_does_not_fit_stops_the_stream_until_a_person_has_mended_it() {
    // Only a superuser can have a foreign key fire for replicated rows, and an owner is rid of all of them.
    let is_possible = |case: &&'static Case| {
        !matches!(case.name, "foreign_key_that_fires" | "truncated_reference") || as_superuser()
    };
    let cases: Vec<_> = CASES.iter().filter(is_possible).collect();
    let names = cases.iter().map(|case| case.name);
    let cases = cases.iter().map(|case| tokio::spawn(stops_says_so_and_goes_on(case)));
    let failed: Vec<_> =
        join_all(cases).await.into_iter().zip(names).filter(|(end, _)| end.is_err()).collect();
    assert!(failed.is_empty(), "{failed:?}");
}
