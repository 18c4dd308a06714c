//! What can't be copied is told, stands alone, and goes on by itself once it is mended.

mod support;

use serde_json::Value;
use support::pair::{self, Pair, constraints, number};

/// The open incidents that fail a table or a part of it, by table.
fn failing(status: &Value) -> Vec<&Value> {
    let mut open: Vec<&Value> = status["incidents"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|i| i["severity"] == "failing" && i["resolved_at"].is_null())
        .collect();
    open.sort_by_key(|i| i["table"].to_string());
    open
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or("")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_cannot_be_copied_stands_alone_until_it_is_mended() {
    let (source, target) = (pair::source().start().await.unwrap(), pair::target().start().await.unwrap());
    let mut pair = Pair::on(&source, &target, "failing").await;
    pair.config = "[copy]\nmax_rate = \"8MB\"\n".to_owned();
    // An ordinary owner, who has taken a right from himself.
    pair.write("CREATE ROLE owner LOGIN REPLICATION; GRANT CREATE ON DATABASE failing TO owner").await;
    pair.daemon_source_url = source.url_as("owner", "failing");
    pair.write(
        "CREATE TABLE good (id int PRIMARY KEY, v text); CREATE TABLE narrow (id int PRIMARY KEY, v text);
         CREATE TABLE checked (a int, b text, n int, v text, PRIMARY KEY (a, b)); CREATE TABLE secret (id int PRIMARY KEY);
         INSERT INTO good SELECT i, repeat('g', 500) FROM generate_series(1, 10000) i;
         INSERT INTO narrow SELECT i, CASE i WHEN 6789 THEN repeat('n', 501) ELSE repeat('n', 500) END
           FROM generate_series(1, 10000) i;
         INSERT INTO checked SELECT i, 'b', i - 500, 'v' FROM generate_series(501, 1000) i;
         INSERT INTO checked VALUES (3, 'tab\t\"', -1, 'v');
         INSERT INTO secret VALUES (1);
         ALTER TABLE good OWNER TO owner; ALTER TABLE narrow OWNER TO owner; ALTER TABLE checked OWNER TO owner;
         ALTER TABLE secret OWNER TO owner; REVOKE SELECT ON secret FROM owner; ANALYZE",
    )
    .await;
    pair.target
        .batch_execute(
            "CREATE TABLE good (id int PRIMARY KEY, v text); CREATE TABLE narrow (id int PRIMARY KEY, v varchar(500));
             CREATE TABLE checked (a int, b text, n int CONSTRAINT positive CHECK (n > 0), v text, PRIMARY KEY (a, b));
             CREATE TABLE secret (id int PRIMARY KEY)",
        )
        .await
        .unwrap();
    let daemon = pair.daemon();
    let status = pair.status_is("failing three times", |status| failing(status).len() == 3).await;
    assert_eq!(status["verdict"], "blocked");
    let [checked, narrow, secret] = failing(&status)[..] else { panic!("{status:#}") };
    assert_eq!((text(checked, "table"), text(checked, "sqlstate")), ("public.checked", "23514"));
    assert_eq!(text(checked, "key"), "a=3, b=tab\\t\"");
    assert!(text(checked, "message").contains("\"positive\""), "{checked:#}");
    assert_eq!((text(narrow, "table"), text(narrow, "sqlstate")), ("public.narrow", "22001"));
    assert_eq!(text(narrow, "key"), "id=6789");
    assert!(text(narrow, "message").contains("copying the chunk (\"id\") >= ("), "{narrow:#}");
    assert_eq!((text(secret, "table"), text(secret, "sqlstate")), ("public.secret", "42501"));
    assert_eq!(text(secret, "side"), "source");
    assert_eq!(pair.status_text(&[]).0, 2);

    // The others don't care, nor does the stream.
    pair.write("UPDATE good SET v = 'w' WHERE id % 3 = 0; UPDATE narrow SET v = 'w' WHERE id % 4 = 0").await;
    pair.write("INSERT INTO secret VALUES (2); UPDATE checked SET v = 'w'; UPDATE good SET id = -id WHERE id % 5 = 0").await;
    pair.target_is("current", "SELECT (SELECT count(*) FROM good WHERE id < 0 OR v = 'w') = 4667", &[]).await;
    let sql = "SELECT count(*) FROM cdc.chunk JOIN cdc.copy USING (relation) WHERE table_name = $1 AND state <> 'done'";
    let pending = async |table: &str| pair.target.query_one(sql, &[&table]).await.unwrap().get::<_, i64>(0);
    assert_eq!((pending("good").await, pending("narrow").await, pending("secret").await), (0, 1, 1));

    let mended = "ALTER TABLE narrow ALTER v TYPE text; ALTER TABLE checked DROP CONSTRAINT positive";
    pair.target.batch_execute(mended).await.unwrap();
    pair.write("GRANT SELECT ON secret TO owner").await;
    pair.caught_up().await;
    assert!(failing(&pair.status()).is_empty(), "{:#}", pair.status());
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_constraint_that_the_rows_violate_stands_alone_until_they_are_mended() {
    let mut pair = Pair::new("violated").await;
    pair.config = "[copy]\nmax_rate = \"8MB\"\n".to_owned();
    let tables =
        "CREATE TABLE t (id int PRIMARY KEY, place int, v text); CREATE TABLE u (id int PRIMARY KEY)";
    pair.both(tables).await;
    pair.target
        .batch_execute(
            "ALTER TABLE t ADD CONSTRAINT one_place UNIQUE (place), ADD CONSTRAINT of_u FOREIGN KEY (place) REFERENCES u;
             CREATE UNIQUE INDEX by_text ON t (v) INCLUDE (place) WHERE id > 0",
        )
        .await
        .unwrap();
    let before = constraints(&pair.target).await;
    pair.write(
        "INSERT INTO t SELECT i, i, repeat('x', 500) || i FROM generate_series(1, 6000) i; INSERT INTO t VALUES (0, 4321);
         INSERT INTO u SELECT i FROM generate_series(1, 6000) i WHERE i <> 17; ANALYZE",
    )
    .await;
    let daemon = pair.daemon();
    let status = pair.status_is("failing twice", |status| failing(status).len() == 2).await;
    let all = failing(&status);
    assert!(all.iter().all(|i| text(i, "table") == "public.t" && text(i, "side") == "target"), "{status:#}");
    let of = |state: &str| all.iter().find(|i| text(i, "sqlstate") == state).expect("it is there");
    let (unique, foreign) = (of("23505"), of("23503"));
    assert!(text(unique, "message").contains("\"one_place\""), "{unique:#}");
    assert_eq!((text(unique, "key"), text(foreign, "key")), ("place=4321", "place=17"));
    assert!(text(foreign, "message").contains("\"of_u\""), "{foreign:#}");
    let (code, said) = pair.status_text(&[]);
    assert_eq!(code, 2, "{said}");
    assert_eq!((&status["phase"], &status["copy"]["fraction"]), (&"copy".into(), &1.0.into()));

    pair.write("UPDATE t SET v = 'streamed' WHERE id = 5; INSERT INTO t VALUES (6001, 6000)").await;
    pair.target_is("current", "SELECT EXISTS (SELECT FROM t WHERE id = 6001)", &[]).await;
    // A start that finds everything copied but not put back.
    daemon.kill();
    let daemon = pair.daemon();
    daemon.wait_for_log("every row is copied").await;
    pair.write("DELETE FROM t WHERE id IN (0, 6001); INSERT INTO u VALUES (17)").await;
    pair.caught_up().await;
    assert_eq!(constraints(&pair.target).await, before);
    assert!(failing(&pair.status()).is_empty(), "{:#}", pair.status());
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_there_already_are_not_touched_unless_that_is_asked_for() {
    let mut pair = Pair::new("existing").await;
    pair.config = "[tables]\nexisting_rows = \"refuse\"\n".to_owned();
    pair.both("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE other (id int PRIMARY KEY)").await;
    pair.write("INSERT INTO t SELECT i, 'source' FROM generate_series(1, 100) i").await;
    pair.target.batch_execute("INSERT INTO t VALUES (1, 'own'), (1000, 'own')").await.unwrap();
    pair.refuses(2, &["there are rows already in public.t", "existing_rows = \"replace\""]).await;
    let untouched = "SELECT (SELECT count(*) FROM pg_namespace WHERE nspname = 'cdc')
                          + (SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'cdc_existing')
                          + (SELECT count(*) FROM pg_publication)";
    assert_eq!(number(&pair.source, untouched).await, 0);
    assert_eq!(number(&pair.target, untouched).await, 0);
    assert_eq!(number(&pair.target, "SELECT sum(id) FROM t WHERE v = 'own'").await, 1001);
    pair.config = "[tables]\nexisting_rows = \"replace\"\n".to_owned();
    let daemon = pair.streaming().await;
    pair.ends_equal(daemon).await;
}
