//! The example databases, their writer, and the comparison that every end-to-end test relies on.

#![allow(clippy::unwrap_used)]

use cdc::demo::compare::{Comparison, compare};
use cdc::demo::data::Example;
use cdc::demo::writer::Writer;
use cdc::demo::{Cluster, Stop};
use cdc::fault::Side;
use tokio_postgres::{Client, NoTls};

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Creates a database and gives a session in it.
async fn database(cluster: &Cluster, name: &str) -> Client {
    connect(&cluster.url("postgres")).await.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
    connect(&cluster.url(name)).await
}

async fn number(client: &Client, query: &str) -> i64 {
    client.query_one(query, &[]).await.unwrap().get(0)
}

/// Compares databases `a` and `b`, made by these statements.
async fn compare_made(cluster: &Cluster, a: &str, b: &str) -> Comparison {
    for (name, sql) in [("a", a), ("b", b)] {
        let admin = connect(&cluster.url("postgres")).await;
        admin.batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await.unwrap();
        database(cluster, name).await.batch_execute(sql).await.unwrap();
    }
    compare(&cluster.url("a"), &cluster.url("b")).await.unwrap()
}

#[tokio::test]
async fn every_example_loads_and_is_the_same_every_time() {
    let cluster = Cluster::start("examples").await.unwrap();
    for example in Example::ALL {
        for copy in ["one", "two"] {
            let client = database(&cluster, &format!("{}_{copy}", example.name())).await;
            client.batch_execute(example.schema()).await.unwrap();
            example.load(&client, 2).await.unwrap();
            // Neither is a schema that is there already in the way, nor are its rows.
            client.batch_execute(example.schema()).await.unwrap();
        }
        let url = |copy| cluster.url(&format!("{}_{copy}", example.name()));
        let comparison = compare(&url("one"), &url("two")).await.unwrap();
        assert!(comparison.is_equal(), "{comparison}");
        let fixed = if example == Example::Shop { 10 } else { 0 }; // checkpoint_migrations
        assert_eq!(comparison.source_rows() + fixed, 2 * u64::from(example.rows_per_scale()), "{example:?}");
    }
}

#[tokio::test]
async fn the_salon_has_the_sizes_of_the_plans() {
    let cluster = Cluster::start("sizes").await.unwrap();
    let client = database(&cluster, "salon").await;
    client.batch_execute(Example::Salon.schema()).await.unwrap();
    Example::Salon.load(&client, 1).await.unwrap();
    let sizes = [("clients", 1_304), ("services", 63), ("staff", 12), ("whatsapp_keys", 1_100)];
    for (table, rows) in sizes {
        assert_eq!(number(&client, &format!("SELECT count(*) FROM {table}")).await, rows, "{table}");
    }
    let migrated = "SELECT sum((xpath('/row/n/text()', query_to_xml('SELECT count(*) AS n FROM ' || t, false, true, '')))[1]::text::bigint)::bigint
        FROM unnest('{companies,clients,services,staff,staff_schedules,bookings,sync_status}'::text[]) t";
    assert_eq!(number(&client, migrated).await, 1_490);
    // New rows get new keys.
    client
        .batch_execute("INSERT INTO clients (company_id, phone) VALUES (962302, '+70000000000')")
        .await
        .unwrap();
    assert_eq!(number(&client, "SELECT max(id) FROM clients").await, 1_305);
    // The partitions and the default partition hold something each, and some values are stored out of line.
    assert_eq!(
        number(&client, "SELECT count(DISTINCT tableoid) FROM messages").await,
        8,
        "seven months and the default partition"
    );
    let wide = "SELECT count(*) FROM clients WHERE pg_column_size(notes) > 90000";
    assert_eq!(number(&client, wide).await, 4);
}

#[tokio::test]
async fn every_table_of_the_examples_has_a_usable_replica_identity() {
    let cluster = Cluster::start("identities").await.unwrap();
    for example in Example::ALL {
        let client = database(&cluster, example.name()).await;
        client.batch_execute(example.schema()).await.unwrap();
        let unusable = client
            .query(
                "SELECT c.oid::regclass::text FROM pg_class c
                  WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace
                    AND NOT (c.relreplident = 'f'
                             OR c.relreplident = 'd' AND EXISTS (
                                SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)
                             OR c.relreplident = 'i' AND EXISTS (
                                SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisreplident))",
                &[],
            )
            .await
            .unwrap();
        let unusable: Vec<String> = unusable.iter().map(|row| row.get(0)).collect();
        assert_eq!(unusable, Vec::<String>::new(), "{example:?}");
    }
}

#[tokio::test]
async fn equal_databases_are_equal_whatever_the_order_of_their_rows_and_columns() {
    let cluster = Cluster::start("equal").await.unwrap();
    let comparison = compare_made(
        &cluster,
        "CREATE TABLE t (id int PRIMARY KEY, a text, b text, d date, f float8);
         INSERT INTO t VALUES (1, 'x', NULL, '2026-01-31', 0.1::float8 + 0.2), (2, '', 'ü', NULL, NULL);
         CREATE TABLE p (id int, PRIMARY KEY (id)) PARTITION BY RANGE (id);
         CREATE TABLE p1 PARTITION OF p DEFAULT; INSERT INTO p VALUES (1);
         CREATE TABLE parent (id int); CREATE TABLE child () INHERITS (parent);
         INSERT INTO parent VALUES (1); INSERT INTO child VALUES (1);
         CREATE TABLE nothing (); INSERT INTO nothing DEFAULT VALUES;
         CREATE SCHEMA \"Odd \"\"one\"; CREATE TABLE \"Odd \"\"one\".\"T\" (\"a b\" float8[]);
         INSERT INTO \"Odd \"\"one\".\"T\" VALUES ('{NaN,-0,NULL}')",
        "ALTER DATABASE b SET datestyle = 'German'; ALTER DATABASE b SET extra_float_digits = 0;
         CREATE TABLE t (b text, f float8, only_here int DEFAULT 7, d date, id int PRIMARY KEY, a text);
         INSERT INTO t (id, a, b, d, f) VALUES (2, '', 'ü', NULL, NULL), (1, 'x', NULL, '2026-01-31', 0.1::float8 + 0.2);
         CREATE TABLE p (id int PRIMARY KEY); INSERT INTO p VALUES (1);
         CREATE TABLE parent (id int); CREATE TABLE child () INHERITS (parent);
         INSERT INTO parent VALUES (1); INSERT INTO child VALUES (1);
         CREATE TABLE nothing (); INSERT INTO nothing DEFAULT VALUES;
         CREATE SCHEMA \"Odd \"\"one\"; CREATE TABLE \"Odd \"\"one\".\"T\" (\"a b\" float8[]);
         INSERT INTO \"Odd \"\"one\".\"T\" VALUES ('{NaN,-0,NULL}');
         CREATE TABLE only_here (id int); CREATE SCHEMA cdc; CREATE TABLE cdc.ledger (id int)",
    )
    .await;
    assert_eq!(comparison.to_string(), "equal: 7 rows in 6 tables");
}

#[tokio::test]
async fn missing_and_extra_rows_tables_and_columns_are_named() {
    let cluster = Cluster::start("differences").await.unwrap();
    let comparison = compare_made(
        &cluster,
        "CREATE TABLE t (id int, v text, w int); INSERT INTO t VALUES (1, 'one', 1), (2, 'two', 2), (2, 'two', 2);
         CREATE TABLE gone (id int); INSERT INTO gone VALUES (1), (2); CREATE TABLE same (id int)",
        "CREATE TABLE t (id int, v text); INSERT INTO t VALUES (2, 'two'), (3, 'three'); CREATE TABLE same (id int)",
    )
    .await;
    assert!(!comparison.is_equal());
    assert_eq!(
        comparison.to_string(),
        "2 of 3 tables differ\n\
         public.gone: not on the target (2 rows on the source)\n\
         public.t: 3 rows on the source, 2 on the target, 2 missing, 1 extra; the target lacks the columns w\n  \
           missing (1,one)\n  \
           missing (2,two)\n  \
           extra   (3,three)"
    );
    let sides: Vec<Side> = comparison.tables[2].examples.iter().map(|example| example.only_on).collect();
    assert_eq!(sides, [Side::Source, Side::Source, Side::Target]);
}

#[tokio::test]
async fn the_smallest_differences_of_values_are_found() {
    let cluster = Cluster::start("values").await.unwrap();
    let pairs = [
        ("numeric", "1.0", "1.00"),
        ("text", "NULL", "''"),
        ("text", "'NULL'", "NULL"),
        ("text", "'a'", "'a '"),
        ("text", "'é'", "U&'e\\0301'"),
        ("text[]", "'{}'", "NULL"),
        ("text[]", "'{NULL}'", "'{\"NULL\"}'"),
        ("int[]", "'{1,2}'", "'{2,1}'"),
        ("int[]", "'{1,2}'", "'[0:1]={1,2}'"),
        (
            "jsonb",
            "jsonb_build_object('k', repeat('a', 9000))",
            "jsonb_build_object('k', repeat('a', 8999) || 'b')",
        ),
        ("jsonb", "'{\"a\": 1.0}'", "'{\"a\": 1.00}'"),
        ("json", "'{\"a\":1}'", "'{\"a\": 1}'"),
        ("timestamptz", "'2026-01-01 00:00:00.000001+00'", "'2026-01-01 00:00:00+00'"),
        ("timestamptz", "'infinity'", "NULL"),
        ("float8", "'-0'", "'0'"),
        ("float8", "0.1", "0.1::float8 + 1.4e-17"),
        ("real", "'-0'", "'0'"),
        ("bytea", "'\\x00'", "''"),
        ("interval", "'1 day'", "'24 hours'"),
        ("bpchar(3)", "'a'", "'b'"),
        ("point", "'(1,2)'", "'(1,3)'"),
        ("int4range", "'empty'", "'[1,2)'"),
    ];
    let made = |pick: fn(&(&str, &'static str, &'static str)) -> &'static str| -> String {
        let tables = pairs.iter().enumerate().map(|(i, pair)| {
            format!(
                "CREATE TABLE t{i:02} (id int, v {}); INSERT INTO t{i:02} VALUES (1, {});",
                pair.0,
                pick(pair)
            )
        });
        tables.collect()
    };
    let comparison = compare_made(&cluster, &made(|pair| pair.1), &made(|pair| pair.2)).await;
    assert_eq!(comparison.tables.len(), pairs.len());
    for (pair, table) in pairs.iter().zip(&comparison.tables) {
        assert_eq!((table.missing_rows, table.extra_rows), (1, 1), "{pair:?}");
    }
    let same = compare(&cluster.url("a"), &cluster.url("a")).await.unwrap();
    assert!(same.is_equal(), "{same}");
}

#[tokio::test]
async fn databases_of_different_encodings_are_compared_by_their_text() {
    let cluster = Cluster::start("encodings").await.unwrap();
    let admin = connect(&cluster.url("postgres")).await;
    let rows = "SET client_encoding = 'UTF8'; CREATE TABLE t (v text);
                INSERT INTO t VALUES ('é'), ('z'), ('ÿ'), ('a'), ('Ü')";
    for (name, encoding) in [("utf", "UTF8"), ("latin", "LATIN1")] {
        let create = format!("CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0");
        admin.batch_execute(&create).await.unwrap();
        connect(&cluster.url(name)).await.batch_execute(rows).await.unwrap();
    }
    let comparison = compare(&cluster.url("utf"), &cluster.url("latin")).await.unwrap();
    assert_eq!(comparison.to_string(), "equal: 5 rows in 1 tables");
}

#[tokio::test]
async fn the_writer_does_everything_that_applications_do_and_nothing_else() {
    let cluster = Cluster::start("writer").await.unwrap();
    for example in Example::ALL {
        let client = database(&cluster, example.name()).await;
        client.batch_execute(example.schema()).await.unwrap();
        example.load(&client, 1).await.unwrap();
        // Every transaction and subtransaction that writes takes a number.
        let xid = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint";
        let before = number(&client, xid).await;
        let writer = Writer::start(&cluster.url(example.name()), example, 5_000, 7);
        while number(&client, xid).await < before + 600 {
            tokio::task::yield_now().await;
        }
        let written = writer.stop().await;
        assert!(
            written.inserts > 0 && written.updates > 0 && written.deletes > 0,
            "{example:?}: {written:?}"
        );
        assert!(written.rollbacks > 0 && written.transactions > 0, "{example:?}: {written:?}");
        assert_eq!(written.lost_connections, 0, "{example:?}: {written:?}");
        // Two transactions may meet (23, 40); anything else would be a mistake in a statement.
        let strange: Vec<_> = written
            .refused
            .keys()
            .filter(|state| !state.starts_with("23") && !state.starts_with("40"))
            .collect();
        assert!(strange.is_empty(), "{example:?}: {written:?}");
    }
}

#[tokio::test]
async fn the_writer_outlives_restarts_and_the_sum_of_the_bank_is_constant_at_every_look() {
    let mut cluster = Cluster::start("bank").await.unwrap();
    let url = cluster.url("bank");
    let client = database(&cluster, "bank").await;
    client.batch_execute(Example::Bank.schema()).await.unwrap();
    Example::Bank.load(&client, 1).await.unwrap();
    drop(client);
    let writer = Writer::start(&url, Example::Bank, 3_000, 11);
    let mut looks = 0;
    for how in [Stop::Fast, Stop::Immediate] {
        let client = connect(&url).await;
        let transfers = || async { number(&client, "SELECT last_value FROM transfers_id_seq").await };
        let before = transfers().await;
        while transfers().await < before + 300 {
            assert_eq!(number(&client, "SELECT sum(balance)::bigint FROM accounts").await, 1_000_000);
            looks += 1;
        }
        drop(client);
        cluster.restart(how).await.unwrap();
    }
    assert!(looks > 10, "{looks}");
    let client = connect(&url).await;
    let transfers = || async { number(&client, "SELECT last_value FROM transfers_id_seq").await };
    let before = transfers().await;
    while transfers().await < before + 100 {
        assert_eq!(number(&client, "SELECT sum(balance)::bigint FROM accounts").await, 1_000_000);
    }
    let written = writer.stop().await;
    assert!(written.lost_connections >= 8, "each of four connections, twice: {written:?}");
    assert_eq!(number(&client, "SELECT sum(balance)::bigint FROM accounts").await, 1_000_000);
}

#[tokio::test]
async fn the_writer_keeps_to_its_pace() {
    let cluster = Cluster::start("pace").await.unwrap();
    let client = database(&cluster, "bank").await;
    client.batch_execute(Example::Bank.schema()).await.unwrap();
    Example::Bank.load(&client, 1).await.unwrap();
    let started = std::time::Instant::now();
    let writer = Writer::start(&cluster.url("bank"), Example::Bank, 300, 13);
    while number(&client, "SELECT last_value FROM transfers_id_seq").await < 200 {
        tokio::task::yield_now().await;
    }
    let written = writer.stop().await;
    let seconds = started.elapsed().as_secs_f64();
    let allowed = 300.0 * seconds + 4.0 * 40.0; // and a last transaction of each connection
    let rows = u32::try_from(written.rows()).unwrap();
    assert!(f64::from(rows) <= allowed, "{rows} rows in {seconds} s");
}

#[tokio::test]
async fn a_writer_that_may_not_write_says_so_and_goes_on_when_it_may() {
    let cluster = Cluster::start("readonly").await.unwrap();
    let client = database(&cluster, "bank").await;
    client.batch_execute(Example::Bank.schema()).await.unwrap();
    Example::Bank.load(&client, 1).await.unwrap();
    let fence = "CREATE FUNCTION fence() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM nextval('tries'); RAISE 'fenced' USING ERRCODE = '25006'; END $$;
        CREATE SEQUENCE tries;
        CREATE TRIGGER fence BEFORE INSERT OR UPDATE OR DELETE ON accounts EXECUTE FUNCTION fence()";
    client.batch_execute(fence).await.unwrap();
    let writer = Writer::start(&cluster.url("bank"), Example::Bank, 1_000, 17);
    while number(&client, "SELECT last_value FROM tries").await < 20 {
        tokio::task::yield_now().await;
    }
    client.batch_execute("DROP TRIGGER fence ON accounts").await.unwrap();
    while number(&client, "SELECT count(*) FROM transfers").await == 0 {
        tokio::task::yield_now().await;
    }
    let written = writer.stop().await;
    assert!(written.refused["25006"] >= 20 && written.inserts > 0, "{written:?}");
}
