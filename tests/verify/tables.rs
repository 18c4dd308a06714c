//! Tables of every kind, and what the command line asks for.

use serde_json::Value;

use super::support::pair::{Pair, as_admin};
use super::{assert_same, differences, table, verify};

const TABLES: &str = "
    CREATE TABLE keyless (a int, b text); ALTER TABLE keyless REPLICA IDENTITY FULL;
    CREATE TABLE whole (id int PRIMARY KEY, v text); ALTER TABLE whole REPLICA IDENTITY FULL;
    CREATE TABLE nothing (); ALTER TABLE nothing REPLICA IDENTITY FULL;
    CREATE TABLE empty (id int PRIMARY KEY, v text);
    CREATE TABLE texts (k text PRIMARY KEY, v int);
    CREATE TABLE kinds (k numeric, d date, b bpchar(4), v int, PRIMARY KEY (k, d, b));
    CREATE TABLE \"h n\" (\"n\" int, \"cdc n\" text, h bigint, t text, version text, PRIMARY KEY (\"n\", h));
    CREATE TABLE bare (n int, h bigint, r text, i text, v text, x text); ALTER TABLE bare REPLICA IDENTITY FULL;
    CREATE TABLE parts (id int, v text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
    CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (100);
    CREATE TABLE other (id int, v text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
    CREATE TABLE other_1 PARTITION OF other FOR VALUES FROM (0) TO (100);
    CREATE TABLE gone (id int PRIMARY KEY, v text);
    CREATE TABLE narrow (id int PRIMARY KEY, v text);";

/// The columns of a wide table.
const WIDE: usize = 300;

async fn make(pair: &Pair) {
    pair.both(TABLES).await;
    let wide: String = (1..WIDE).map(|i| format!(", c{i} text")).collect();
    pair.both(&format!("CREATE TABLE wide (id int PRIMARY KEY{wide})")).await;
    // What the target has otherwise: order of columns, types, partitions.
    pair.write(
        "CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (100) TO (200);
         CREATE TABLE other_2 PARTITION OF other (v) FOR VALUES FROM (100) TO (200);
         CREATE TABLE shuffled (id int PRIMARY KEY, a varchar(20), b smallint, gen int GENERATED ALWAYS AS (id * 2) STORED)",
    )
    .await;
    pair.target
        .batch_execute(
            "CREATE TABLE parts_rest PARTITION OF parts DEFAULT;
             CREATE TABLE other_2 PARTITION OF other FOR VALUES FROM (100) TO (200);
             CREATE TABLE shuffled (only_here int DEFAULT 7, b bigint, a text, id bigint PRIMARY KEY, gen int)",
        )
        .await
        .unwrap();
    pair.write(
        "INSERT INTO keyless SELECT i % 7, nullif('x' || i % 3, 'x1') FROM generate_series(1, 2000) i;
         INSERT INTO whole SELECT i, 'v' FROM generate_series(1, 100) i;
         INSERT INTO nothing SELECT FROM generate_series(1, 5);
         INSERT INTO texts SELECT k || i, i FROM generate_series(1, 50) i, unnest(ARRAY['a', 'A', '(\"', ',', 'é\\', '''']) k;
         INSERT INTO kinds SELECT round(i / 8.0, 3), '2026-01-01'::date + i, 'k' || i % 10, i FROM generate_series(1, 100) i;
         INSERT INTO \"h n\" SELECT i, 'x', -i, 't', 'v' FROM generate_series(1, 100) i;
         INSERT INTO bare SELECT i, -i, 'x', 't', 'v' FROM generate_series(1, 100) i;
         INSERT INTO parts SELECT i, 'v' FROM generate_series(0, 199) i;
         INSERT INTO other SELECT i, 'v' FROM generate_series(0, 199) i;
         INSERT INTO shuffled SELECT i, 'a' || i, i FROM generate_series(1, 100) i;
         INSERT INTO gone VALUES (1); INSERT INTO narrow VALUES (1);
         INSERT INTO wide (id) SELECT generate_series(1, 100)",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_every_kind_are_compared() {
    let pair = Pair::new("kinds").await;
    make(&pair).await;
    let daemon = pair.streaming().await;
    let report = assert_same(&pair, &[]);
    for (name, rows) in
        [("keyless", 2000), ("nothing", 5), ("empty", 0), ("texts", 300), ("parts", 200), ("other_2", 100)]
    {
        let table = table(&report, &format!("public.{name}"));
        assert_eq!(
            (&table["rows_source"], &table["rows_target"]),
            (&Value::from(rows), &Value::from(rows)),
            "{table:#}"
        );
    }
    let corrupt = "SET session_replication_role = replica;
        INSERT INTO keyless SELECT 3, 'x2' FROM generate_series(1, 4);
        DELETE FROM keyless WHERE ctid = (SELECT min(ctid) FROM keyless WHERE a = 5 AND b IS NULL);
        UPDATE whole SET v = 'w' WHERE id = 7;
        INSERT INTO nothing DEFAULT VALUES;
        INSERT INTO empty VALUES (1, 'v');
        UPDATE texts SET v = 0 WHERE k = 'é\\7'; DELETE FROM texts WHERE k = '(\"8'; UPDATE texts SET k = 'A0' WHERE k = 'A9';
        UPDATE kinds SET k = k * 1.0 WHERE v = 8; UPDATE kinds SET v = 0 WHERE v = 9;
        UPDATE \"h n\" SET \"cdc n\" = 'y', version = NULL WHERE n = 3;
        UPDATE bare SET x = 'y' WHERE n = 4;
        UPDATE parts SET v = NULL WHERE id IN (5, 150);
        DELETE FROM other WHERE id = 5; UPDATE other SET v = '' WHERE id = 150;
        UPDATE shuffled SET b = 0 WHERE id = 9;
        UPDATE wide SET c7 = '', c299 = 'x' WHERE id = 50";
    as_admin(&pair.target, corrupt).await;
    let (status, report) = verify(&pair, &[]);
    assert_eq!(status, 1, "{report:#}");
    let found = differences(&report);
    let (places, keyed): (Vec<String>, Vec<String>) =
        found.into_iter().partition(|line| line.contains("ctid="));
    let mut expected = vec![
        "different public.\"h n\" n=3, h=-3: cdc n,version".replace('"', ""),
        "different public.kinds k=1.000, d=2026-01-09, b=k8  : k".to_owned(),
        "different public.kinds k=1.125, d=2026-01-10, b=k9  : v".to_owned(),
        "different public.other_2 id=150: v".to_owned(),
        "different public.parts id=150: v".to_owned(),
        "different public.parts id=5: v".to_owned(),
        "different public.shuffled id=9: b".to_owned(),
        "different public.texts k=é\\7: v".to_owned(),
        "different public.whole id=7: v".to_owned(),
        "different public.wide id=50: c7,c299".to_owned(),
        "extra public.empty id=1: ".to_owned(),
        "extra public.texts k=A0: ".to_owned(),
        "missing public.other_1 id=5: ".to_owned(),
        "missing public.texts k=(\"8: ".to_owned(),
        "missing public.texts k=A9: ".to_owned(),
    ];
    expected.sort();
    assert_eq!(keyed, expected, "{report:#}");
    let without_place = |line: &String| line.split(" ctid").next().unwrap().to_owned();
    assert_eq!(
        places.iter().map(without_place).collect::<Vec<_>>(),
        [
            "extra public.bare",
            "extra public.keyless",
            "extra public.nothing",
            "missing public.bare",
            "missing public.keyless"
        ]
    );
    let keyless = table(&report, "public.keyless");
    assert_eq!((&keyless["extra"], &keyless["missing"]), (&Value::from(4), &Value::from(1)), "{keyless:#}");
    what_cannot_be_compared(&pair).await;
    assert!(daemon.terminate().await.success());
}

/// A table that can't be compared is told, and keeps no other one from it.
async fn what_cannot_be_compared(pair: &Pair) {
    pair.target
        .batch_execute("ALTER TABLE gone RENAME TO gone_away; ALTER TABLE narrow DROP COLUMN v")
        .await
        .unwrap();
    let (status, report) =
        verify(pair, &["--table", "public.gone", "--table", "public.narrow", "--table", "public.h n"]);
    assert_eq!(status, 1, "{report:#}");
    let reason = |name: &str| table(&report, name)["not_compared"].as_str().map(str::to_owned);
    assert!(reason("public.gone").unwrap().contains("the table is missing"), "{report:#}");
    assert!(reason("public.narrow").unwrap().contains("lacks v"), "{report:#}");
    assert_eq!((reason("public.h n"), &table(&report, "public.h n")["different"]), (None, &Value::from(1)));
    let (status, report) = verify(pair, &["--table", "public.gone"]);
    assert_eq!((status, &report["outcome"]), (3, &Value::from("not_compared")), "{report:#}");
    // A root stands for its partitions, and what isn't there is wrong usage.
    let (_, report) = verify(pair, &["--table", "public.other"]);
    assert_eq!(report["tables"].as_array().unwrap().len(), 2, "{report:#}");
    let output = pair.run(&["verify", "--table", "public.nowhere"]);
    assert_eq!(output.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&output.stderr).contains("has no table public.nowhere"), "{output:?}");
    assert_eq!(pair.run(&["verify", "--table", "nowhere"]).status.code(), Some(64));
    assert_eq!(pair.run(&["verify", "--sample", "0"]).status.code(), Some(64));
    assert_eq!(pair.run(&["verify", "--max-rate", "fast"]).status.code(), Some(64));
}

#[tokio::test(flavor = "multi_thread")]
async fn databases_of_two_encodings_are_compared_by_their_text() {
    let options = "ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0";
    let pair = Pair::with_options("latin", options, "").await;
    pair.both("CREATE TABLE t (k text PRIMARY KEY, v text); CREATE TABLE u (v text); ALTER TABLE u REPLICA IDENTITY FULL").await;
    pair.write("INSERT INTO t SELECT c || i, 'äÿ' || i FROM unnest(ARRAY['a', 'ÿ', 'Ü', 'z']) c, generate_series(1, 300) i;
                INSERT INTO u SELECT 'é' || i % 3 FROM generate_series(1, 100) i").await;
    let daemon = pair.streaming().await;
    assert_same(&pair, &[]);
    pair.target
        .batch_execute("UPDATE t SET v = 'a' || v WHERE k = 'ÿ7'; DELETE FROM t WHERE k = 'Ü9'")
        .await
        .unwrap();
    let (status, report) = verify(&pair, &["--show-values"]);
    assert_eq!(differences(&report), ["different public.t k=ÿ7: v", "missing public.t k=Ü9: "], "{report:#}");
    let values = &table(&report, "public.t")["differences"];
    assert!(values.to_string().contains("aäÿ7"), "{values:#}");
    assert_eq!(status, 1);
    assert!(daemon.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_filter_and_a_column_list_are_respected() {
    let pair = Pair::new("filtered").await;
    if !super::support::pair::is_since(15, &pair.source).await {
        return;
    }
    pair.both("CREATE TABLE t (id int PRIMARY KEY, v text, secret text, n int)").await;
    pair.write("ALTER TABLE t REPLICA IDENTITY DEFAULT; INSERT INTO t SELECT i, 'v', 's', i FROM generate_series(1, 100) i;
                CREATE PUBLICATION cdc_filtered FOR TABLE t (id, v) WHERE (id < 50 OR id > 90)").await;
    let daemon = pair.streaming().await;
    let report = assert_same(&pair, &[]);
    assert_eq!(table(&report, "public.t")["rows_source"], 59);
    pair.target.batch_execute("UPDATE t SET v = '' WHERE id = 95; UPDATE t SET n = 3").await.unwrap();
    let (_, report) = verify(&pair, &[]);
    assert_eq!(differences(&report), ["different public.t id=95: v"], "{report:#}");
    assert!(daemon.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_of_the_target_without_a_key_is_not_overlooked() {
    let mut pair = Pair::new("nulls").await;
    pair.config = "[copy]\nmax_rate = \"8MB\"\nreaders = 32\n".to_owned();
    pair.write(
        "CREATE TABLE t (id int PRIMARY KEY, v text);
         INSERT INTO t SELECT i, repeat('v', 1000) FROM generate_series(1, 1000) i; ANALYZE",
    )
    .await;
    pair.target.batch_execute("CREATE TABLE t (id int, v text)").await.unwrap();
    let daemon = pair.streaming().await;
    pair.target_is("in chunks", "SELECT count(*) > 1 FROM cdc.chunk", &[]).await;
    assert_eq!(table(&verify(&pair, &["--table", "public.t"]).1, "public.t")["outcome"], "same");
    pair.target.batch_execute("INSERT INTO t VALUES (NULL, 'v')").await.unwrap();
    let (status, report) = verify(&pair, &["--table", "public.t"]);
    assert_eq!((status, &table(&report, "public.t")["extra"]), (1, &Value::from(1)), "{report:#}");
    assert!(pair.run(&["repair", "--yes"]).status.success());
    pair.ends_equal(daemon).await;
}
