//! The source's tables, in every state that matters, and roles that may not read or publish them.

use super::support::pair::{Pair, connect, is_since};
use super::{as_role, check, text};

/// What makes the tables of the first test, on the source only.
const TABLES: &str = "
    CREATE TABLE heap (id int);
    CREATE TABLE deferred (id int PRIMARY KEY DEFERRABLE);
    CREATE TABLE nothing (id int PRIMARY KEY); ALTER TABLE nothing REPLICA IDENTITY NOTHING;
    CREATE TABLE indexed (id int NOT NULL, v int); CREATE UNIQUE INDEX \"By id\" ON indexed (id);
    CREATE TABLE \"Parts\" (id int, part int) PARTITION BY LIST (part);
    CREATE TABLE parts_1 PARTITION OF \"Parts\" FOR VALUES IN (1);
    CREATE TABLE whole (id int); ALTER TABLE whole REPLICA IDENTITY FULL;
    CREATE TABLE keyed (id int PRIMARY KEY); ALTER TABLE keyed REPLICA IDENTITY FULL;
    CREATE TABLE by_index (id int NOT NULL UNIQUE); ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_id_key;
    CREATE UNLOGGED TABLE unlogged (id int PRIMARY KEY);
    CREATE FOREIGN DATA WRAPPER nowhere; CREATE SERVER nowhere FOREIGN DATA WRAPPER nowhere;
    CREATE FOREIGN TABLE foreign_one (id int) SERVER nowhere;
    CREATE MATERIALIZED VIEW sums AS SELECT count(*) FROM keyed;
    CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (PRIMARY KEY (id)) INHERITS (parent);
    CREATE TABLE computed (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED);
    CREATE TABLE numbered (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY);
    CREATE TABLE events (id int); INSERT INTO events VALUES (1), (2);
    CREATE TABLE big (code text PRIMARY KEY, v text);
    ALTER TABLE big ALTER v SET STORAGE EXTERNAL;
    INSERT INTO big SELECT i::text, repeat('x', 100000) FROM generate_series(1, 200) i;
    SELECT lo_create(0), lo_create(0)";

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_table_is_told_with_what_mends_it() {
    let mut pair = Pair::new("check_tables").await;
    pair.write(TABLES).await;
    // A session of its own: until 14, what one has done is counted for certain only when it ends.
    let session = connect(&pair.source_url).await;
    session
        .batch_execute("UPDATE events SET id = 3 WHERE id = 1; DELETE FROM events WHERE id = 2")
        .await
        .unwrap();
    drop(session);
    while super::support::pair::number(&pair.source, "SELECT pg_stat_get_tuples_updated('events'::regclass)")
        .await
        == 0
    {
        pair.write("SELECT pg_stat_clear_snapshot()").await;
    }
    pair.config =
        "[tables]\nexclude = [\"legacy.*\"]\ninsert_only = [\"public.events\"]\n[schema]\n".to_owned();

    let checked = check(&pair);
    assert_eq!(checked.code, 1);
    for (table, what, mend) in [
        ("heap", "no primary key", "ALTER TABLE \"public\".\"heap\" REPLICA IDENTITY FULL;"),
        ("deferred", "is deferrable", "ALTER TABLE \"public\".\"deferred\" REPLICA IDENTITY FULL;"),
        ("nothing", "it has a primary key", "ALTER TABLE \"public\".\"nothing\" REPLICA IDENTITY DEFAULT;"),
        (
            "indexed",
            "no primary key",
            "ALTER TABLE \"public\".\"indexed\" REPLICA IDENTITY USING INDEX \"By id\";",
        ),
        ("parts_1", "no primary key", "ALTER TABLE \"public\".\"parts_1\" REPLICA IDENTITY FULL;"),
    ] {
        checked.has("blocks", "no-replica-identity", "source", &format!("public.{table}"), &[what, mend]);
    }
    for (severity, code, object, said) in [
        ("informs", "replica-identity-full", "public.whole", "FULL"),
        (
            "informs",
            "replica-identity-full",
            "public.keyed",
            "ALTER TABLE \"public\".\"keyed\" REPLICA IDENTITY DEFAULT;",
        ),
        ("informs", "replica-identity-index", "public.by_index", "unique index"),
        ("warns", "unlogged-table", "public.unlogged", "ALTER TABLE \"public\".\"unlogged\" SET LOGGED;"),
        ("informs", "foreign-table", "public.foreign_one", "foreign"),
        ("informs", "materialized-view", "public.sums", "not replicated"),
        ("informs", "inheritance", "public.parent", "inherits"),
        ("informs", "inheritance", "public.child", "inherits"),
        ("informs", "generated-columns", "public.computed", "generated"),
        ("informs", "identity-columns", "public.numbered", "identity"),
        ("warns", "insert-only-updated", "public.events", "2 of its rows have been updated or deleted"),
        ("informs", "single-chunk", "public.big", "no integer and no uuid"),
        ("warns", "large-objects", "-", "2 large objects"),
        ("warns", "pattern-unmatched", "legacy.*", "matches no table"),
    ] {
        checked.has(severity, code, "source", object, &[said]);
    }
    // All of these are made.
    checked.has("informs", "tables-to-make", "target", "-", &["15 of the source's tables"]);
    checked.has("informs", "disk-space", "target", "-", &["rows are to be copied"]);

    // What mends it does.
    for table in ["heap", "deferred", "nothing", "indexed", "parts_1"] {
        pair.write(&checked.mend("no-replica-identity", &format!("public.{table}"))).await;
    }
    let mended = check(&pair);
    assert_eq!((mended.code, mended.all("blocks")), (0, vec![]));
    let text = text(&pair);
    assert!(text.starts_with("check_tables: nothing stands in the way (blocks 0, warns "), "{text}");
    let warns = text.find("\nWARNS\n").unwrap();
    assert!(warns < text.find("\nINFORMS\n").unwrap() && !text.contains('\u{1b}'), "{text}");

    pair.config = "[tables]\ninclude = [\"nosuch.*\"]\n".to_owned();
    check(&pair).has("blocks", "no-tables", "source", "-", &["no table of the source is selected"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_not_is_told_with_the_grants() {
    let mut pair = Pair::new("check_roles").await;
    pair.config = "[schema]\n".to_owned();
    pair.write(
        "CREATE ROLE check_plain LOGIN; CREATE SCHEMA hidden;
         CREATE TABLE t (id serial PRIMARY KEY); CREATE TABLE hidden.h (id int PRIMARY KEY);
         CREATE TABLE p (id int PRIMARY KEY); ALTER TABLE p ENABLE ROW LEVEL SECURITY; GRANT SELECT ON p TO check_plain;
         CREATE TABLE own (id int PRIMARY KEY); ALTER TABLE own OWNER TO check_plain;
         ALTER TABLE own ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY; INSERT INTO own VALUES (1)",
    )
    .await;
    let (source, target) = (pair.source_url.clone(), pair.target_url.clone());
    pair.daemon_source_url = as_role(&source, "check_plain");
    let checked = check(&pair);
    let all = checked.all("blocks");
    for expected in [
        "no-create-right source check_plain",
        "no-replication-right source check_plain",
        "no-select-right source hidden.h",
        "no-select-right source public.t",
        "no-usage-right source hidden.h",
        "not-owner source hidden.h",
        "not-owner source public.p",
        "not-owner source public.t",
        "row-level-security source public.own",
        "row-level-security source public.p",
    ] {
        assert!(all.iter().any(|found| found == expected), "{expected} is not in {all:#?}");
    }
    assert_eq!(all.len(), 10, "{all:#?}");
    checked.has("warns", "no-sequence-right", "source", "public.t_id_seq", &["GRANT SELECT ON SEQUENCE"]);

    // Every statement that mends it, as a superuser or not, and each of several ways.
    for finding in checked.report["findings"].as_array().unwrap() {
        let code = finding["code"].as_str().unwrap();
        let is_right = code.ends_with("-right") || matches!(code, "not-owner" | "row-level-security");
        if !is_right || finding["side"] != "source" {
            continue;
        }
        let mend = finding["mend"].as_str().unwrap().trim_start_matches("as a superuser: ");
        let statement = mend.split_once(';').map_or(mend, |(statement, _)| statement);
        pair.write(statement).await;
    }
    let mended = check(&pair);
    assert_eq!((mended.code, mended.all("blocks")), (0, vec![]));

    // The same role on the target: tables of somebody else's, and no right to set what superusers set.
    pair.write("DROP TABLE hidden.h").await;
    pair.target
        .batch_execute(
            "CREATE ROLE check_plain LOGIN; CREATE SCHEMA hidden; CREATE SEQUENCE t_id_seq;
             REVOKE CREATE ON SCHEMA public FROM PUBLIC;
             CREATE TABLE t (id int PRIMARY KEY DEFAULT nextval('t_id_seq'), v int UNIQUE); CREATE TABLE hidden.h (id int);
             CREATE TABLE p (id int PRIMARY KEY); ALTER TABLE p ENABLE ROW LEVEL SECURITY; GRANT ALL ON p TO check_plain;
             CREATE TABLE own (id int PRIMARY KEY); ALTER TABLE own OWNER TO check_plain;
             ALTER TABLE own ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY; CREATE SCHEMA cdc;
             CREATE TABLE referred (id int PRIMARY KEY); ALTER TABLE own ADD FOREIGN KEY (id) REFERENCES referred",
        )
        .await
        .unwrap();
    pair.write("CREATE TABLE hidden.h (id int PRIMARY KEY); ALTER TABLE hidden.h OWNER TO check_plain").await;
    pair.daemon_target_url = as_role(&target, "check_plain");
    let checked = check(&pair);
    let all = checked.all("blocks");
    for expected in [
        "ledger target cdc",
        "no-create-right target check_plain",
        "no-create-right target public",
        "no-usage-right target hidden.h",
        "no-write-right target hidden.h",
        "no-write-right target public.t",
        "not-owner target public.t",
        "row-level-security target public.p",
    ] {
        assert!(all.iter().any(|found| found == expected), "{expected} is not in {all:#?}");
    }
    // In its own table with a unique constraint it couldn't make that again.
    checked.has("blocks", "no-create-right", "target", "public", &["GRANT CREATE ON SCHEMA \"public\" TO"]);
    checked.has("blocks", "not-put-back", "target", "public.own", &["REFERENCES"]);
    checked.has("informs", "row-level-security", "target", "public.own", &["FORCE"]);
    checked.has("warns", "not-owner", "target", "hidden.h", &["ALTER TABLE \"hidden\".\"h\" OWNER TO"]);
    let grant = if is_since(15, &pair.target).await {
        "GRANT SET ON PARAMETER session_replication_role"
    } else {
        "superuser"
    };
    checked.has("warns", "no-replica-role", "target", "check_plain", &[grant]);
    checked.has(
        "warns",
        "no-way-back",
        "target",
        "-",
        &["no REPLICATION attribute", "ALTER ROLE \"check_plain\" REPLICATION;"],
    );
}
