//! What is on the target already: tables, rows, extensions, and what else writes there.

use super::support::pair::{Pair, is_since};
use super::{as_role, check};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_the_way_on_the_target_is_told() {
    let mut pair = Pair::new("check_target").await;
    pair.write(
        "CREATE TABLE full_one (id int PRIMARY KEY); CREATE TABLE viewed (id int PRIMARY KEY);
         CREATE TABLE less (id int PRIMARY KEY, \"Missing\" int);
         CREATE TABLE computed (id int PRIMARY KEY, v int);
         CREATE TABLE volatile (id int PRIMARY KEY); CREATE TABLE firing (id int PRIMARY KEY);
         CREATE TABLE subscribed (id int PRIMARY KEY); CREATE TABLE absent (id int PRIMARY KEY);
         CREATE TABLE shared (id int PRIMARY KEY);
         CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY LIST (id);
         CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1); CREATE TABLE parts_2 PARTITION OF parts FOR VALUES IN (2)",
    )
    .await;
    pair.target
        .batch_execute(
            "CREATE TABLE full_one (id int PRIMARY KEY); INSERT INTO full_one VALUES (1);
             CREATE TABLE refers (id int REFERENCES full_one);
             CREATE VIEW viewed AS SELECT 1 AS id; CREATE TABLE less (id int PRIMARY KEY);
             CREATE TABLE computed (id int PRIMARY KEY, v int GENERATED ALWAYS AS (id) STORED);
             CREATE UNLOGGED TABLE volatile (id int PRIMARY KEY);
             CREATE TABLE firing (id int PRIMARY KEY); CREATE TABLE subscribed (id int PRIMARY KEY);
             CREATE TABLE shared (id int PRIMARY KEY);
             CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY LIST (id);
             CREATE TABLE parts_2 PARTITION OF parts DEFAULT;
             CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
             CREATE TRIGGER \"Always\" BEFORE INSERT ON firing FOR EACH ROW EXECUTE FUNCTION f();
             ALTER TABLE firing ENABLE ALWAYS TRIGGER \"Always\";
             CREATE FUNCTION e() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
             CREATE EVENT TRIGGER watching ON ddl_command_end EXECUTE FUNCTION e();
             CREATE SUBSCRIPTION other CONNECTION 'dbname=nowhere' PUBLICATION p WITH (connect = false);
             INSERT INTO pg_subscription_rel SELECT oid, 'subscribed'::regclass, 'r' FROM pg_subscription WHERE subname = 'other'",
        )
        .await
        .unwrap();
    // The ledger of another migration.
    pair.target.batch_execute(include_str!("../../sql/ledger.sql")).await.unwrap();
    pair.target
        .batch_execute(
            "INSERT INTO cdc.migration (name) VALUES ('another');
             INSERT INTO cdc.copy (name, relation, schema_name, table_name, membership, key_columns, rows_planned, bytes_planned)
             VALUES ('another', 1, 'public', 'shared', '', '{}', 0, 0)",
        )
        .await
        .unwrap();
    pair.config = "[tables]\nexisting_rows = \"refuse\"\n[schema]\ncopy = false\n".to_owned();
    let checked = check(&pair);
    assert_eq!(checked.code, 1);
    for (severity, code, object, said) in [
        ("blocks", "existing-rows", "public.full_one", "TRUNCATE \"public\".\"full_one\";"),
        ("blocks", "not-a-table", "public.viewed", "there is a view"),
        ("blocks", "column-missing", "Missing of public.less", "cdc schema diff"),
        ("blocks", "column-generated", "v of public.computed", "ALTER COLUMN \"v\" DROP EXPRESSION;"),
        ("informs", "firing-trigger", "public.firing", "trigger \"Always\""),
        ("blocks", "table-missing", "public.absent", "[schema] copy = true"),
        (
            "blocks",
            "shared-table",
            "public.shared",
            "the migration \"another\" replicates into this table already",
        ),
        ("warns", "unlogged-table", "public.volatile", "SET LOGGED;"),
        ("warns", "subscription", "public.subscribed", "the subscription other"),
        ("warns", "event-trigger", "watching", "ALTER EVENT TRIGGER watching DISABLE;"),
        ("warns", "schema-differs", "-", "missing there: "),
        ("blocks", "partitions-meet", "public.parts_1", "its public.parts_2 takes rows"),
        ("informs", "partition-missing", "public.parts_1", "lacks this partition"),
    ] {
        checked.has(severity, code, "target", object, &[said]);
    }
    checked.lacks("tables-to-make");

    pair.config = "[tables]\nexisting_rows = \"replace\"\n[schema]\n".to_owned();
    let checked = check(&pair);
    checked.has("informs", "existing-rows", "target", "public.full_one", &["will be replaced"]);
    checked.has(
        "blocks",
        "referenced-table",
        "target",
        "public.full_one",
        &["a foreign key of public.refers"],
    );
    checked.has("informs", "tables-to-make", "target", "-", &["lacks 1 of the source's tables"]);
    checked.has("informs", "columns-to-make", "target", "Missing of public.less", &["lacks the column"]);
    checked.lacks("table-missing");
    checked.lacks("partitions-meet");
    pair.target
        .batch_execute("ALTER SUBSCRIPTION other DISABLE; ALTER SUBSCRIPTION other SET (slot_name = NONE); DROP SUBSCRIPTION other; DROP EVENT TRIGGER watching")
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn extensions_are_told_by_whether_the_target_has_them_or_could() {
    let mut pair = Pair::new("check_extensions").await;
    pair.config = "[schema]\n".to_owned();
    pair.write(
        "CREATE SCHEMA extensions; CREATE EXTENSION hstore; CREATE EXTENSION citext SCHEMA extensions; CREATE EXTENSION bloom;
         CREATE EXTENSION pg_trgm; CREATE EXTENSION pageinspect; CREATE EXTENSION \"uuid-ossp\" SCHEMA extensions;
         CREATE EXTENSION cube;
         CREATE TABLE h (id int PRIMARY KEY, v hstore[]);
         CREATE TABLE c (id extensions.citext PRIMARY KEY);
         CREATE TABLE b (id int PRIMARY KEY, v int); CREATE INDEX ON b USING bloom (v);
         CREATE TABLE u (id uuid PRIMARY KEY DEFAULT extensions.uuid_generate_v4());
         -- As if its server had what the target's has not, and newer ones.
         UPDATE pg_extension SET extname = 'nowhere' WHERE extname = 'hstore';
         UPDATE pg_extension SET extversion = '99.0' WHERE extname = 'citext'",
    )
    .await;
    pair.target
        .batch_execute(
            "CREATE ROLE check_creator LOGIN; GRANT CREATE ON DATABASE check_extensions TO check_creator;
             CREATE EXTENSION citext; CREATE EXTENSION pg_trgm",
        )
        .await
        .unwrap();
    pair.daemon_target_url = as_role(&pair.target_url, "check_creator");
    let checked = check(&pair);
    let why = |code: &str, object: &str, severity: &str, said: &[&str]| {
        checked.has(severity, code, "target", object, said)["why"].as_str().unwrap().to_owned()
    };
    assert!(why("extension-unavailable", "nowhere", "blocks", &["no such extension"]).contains("public.h"));
    let bloom = ["as a superuser", "CREATE EXTENSION \"bloom\" WITH SCHEMA \"public\";"];
    assert!(why("extension-missing", "bloom", "blocks", &bloom).contains("public.b"));
    why("extension-missing", "pageinspect", "warns", &["CREATE EXTENSION \"pageinspect\""]);
    let uuid = ["can be had"];
    why("extension-to-make", "uuid-ossp", "informs", &uuid);
    why("extension-to-make", "cube", "informs", &uuid);
    why("extension-older", "citext", "warns", &["99.0", "ALTER EXTENSION \"citext\" UPDATE"]);
    why("extension-schema", "citext", "informs", &["the schema public there, and in extensions"]);
    assert!(!checked.findings().iter().any(|finding| finding["object"] == "pg_trgm"), "{:#}", checked.report);

    pair.config = "[schema]\ncopy = false\n".to_owned();
    check(&pair).has(
        "warns",
        "extension-missing",
        "target",
        "uuid-ossp",
        &["CREATE SCHEMA IF NOT EXISTS \"extensions\"; CREATE EXTENSION \"uuid-ossp\" WITH SCHEMA \"extensions\";"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn text_that_the_target_would_store_or_sort_otherwise_is_told() {
    let latin = "ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0";
    let icu = "LOCALE_PROVIDER icu ICU_LOCALE 'de' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0";
    let ascii = "ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0";
    let table = "CREATE TABLE t (id int PRIMARY KEY, v text COLLATE \"de-x-icu\")";

    let pair = Pair::with_options("check_ascii", ascii, "").await;
    check(&pair).has("warns", "encoding", "source", "-", &["SQL_ASCII"]);

    let pair = Pair::with_options("check_latin", "", latin).await;
    pair.write("CREATE TABLE t (id int PRIMARY KEY)").await;
    check(&pair).has(
        "blocks",
        "encoding",
        "target",
        "-",
        &["LATIN1", "UTF8", "ENCODING 'UTF8' TEMPLATE template0"],
    );

    let pair = Pair::new("check_collations").await;
    pair.both(table).await;
    pair.write("UPDATE pg_collation SET collversion = '0' WHERE collname = 'de-x-icu'").await;
    pair.target
        .batch_execute("DROP TABLE t; DELETE FROM pg_collation WHERE collname = 'de-x-icu'")
        .await
        .unwrap();
    let checked = check(&pair);
    let name = "pg_catalog.\"de-x-icu\"";
    checked.has("warns", "collation-version", "source", name, &["version 0 ", "REFRESH VERSION;"]);
    checked.has("blocks", "collation-missing", "target", "de-x-icu", &["pg_import_system_collations"]);

    if is_since(15, &pair.target).await {
        let pair = Pair::with_options("check_locales", "", icu).await;
        pair.both(table).await;
        pair.target
            .batch_execute("UPDATE pg_database SET datcollversion = '0' WHERE datname = 'check_locales'")
            .await
            .unwrap();
        let checked = check(&pair);
        checked.has("informs", "locale-differs", "target", "-", &["de (icu"]);
        checked.has("warns", "collation-version", "target", "check_locales", &["REFRESH COLLATION VERSION;"]);
    }
}
