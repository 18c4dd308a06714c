//! pgvector, between servers that have it: the shop example with real vectors, and every type, index and
//! value of the extension. Run by `make test`, which fetches the servers.

#![allow(clippy::unwrap_used, reason = "all of it is a test")]

mod support;

use std::path::Path;
use std::time::Duration;

use cdc::demo::data::Example;
use cdc::demo::writer::Writer;
use cdc::demo::{Binaries, Cluster};
use support::pair::{Pair, constraints, number};
use tokio_postgres::Client;

/// A server of the wheel that `make vector` unpacks.
async fn server(name: &str, version: &str) -> Cluster {
    let bin = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/servers").join(version).join("bin");
    assert!(bin.exists(), "there is no server with pgvector in {}: run `make vector`", bin.display());
    Cluster::builder(name).binaries(Binaries::at(bin).unwrap()).start().await.unwrap()
}

/// The types of the columns named `embedding`.
async fn embeddings(client: &Client) -> Vec<String> {
    let sql = "SELECT attrelid::regclass || ' ' || format_type(atttypid, atttypmod) FROM pg_attribute
                WHERE attname = 'embedding' AND attrelid::regclass::text IN ('products', 'mirt_memories') ORDER BY 1";
    client.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

/// A table of every type, and how its values look.
const TYPES: &str = "
    CREATE EXTENSION vector;
    CREATE TABLE v (id int PRIMARY KEY, a vector, three vector(3), h halfvec(4), s sparsevec(100000), b bit(6),
                    many vector[], CHECK (vector_dims(three) = 3));
    CREATE TABLE wide (id int PRIMARY KEY, a vector(16000), h halfvec(16000), n int);
    CREATE TABLE whole (a vector(2), h halfvec(2), s sparsevec(9)); ALTER TABLE whole REPLICA IDENTITY FULL;
    CREATE TABLE keyed (a vector(2) PRIMARY KEY, n int)";

/// The indexes that a person puts on the target: each operator class of both methods.
const INDEXES: &str = "
    CREATE INDEX v_l2 ON v USING hnsw (three vector_l2_ops) WITH (m = 8, ef_construction = 32);
    CREATE INDEX v_ip ON v USING hnsw (three vector_ip_ops); CREATE INDEX v_l1 ON v USING hnsw (three vector_l1_ops);
    CREATE INDEX v_cosine ON v USING ivfflat (three vector_cosine_ops) WITH (lists = 4);
    CREATE INDEX v_half ON v USING hnsw (h halfvec_l2_ops); CREATE INDEX v_half_ivf ON v USING ivfflat (h halfvec_ip_ops);
    CREATE INDEX v_sparse ON v USING hnsw (s sparsevec_l2_ops);
    CREATE INDEX v_hamming ON v USING hnsw (b bit_hamming_ops); CREATE INDEX v_jaccard ON v USING hnsw (b bit_jaccard_ops);
    CREATE INDEX v_bits ON v USING ivfflat (b bit_hamming_ops);
    CREATE INDEX v_quantized ON v USING hnsw ((binary_quantize(three)::bit(3)) bit_hamming_ops);
    CREATE INDEX v_part ON v USING hnsw ((a::vector(2)) vector_l2_ops) WHERE vector_dims(a) = 2";

const ROWS: &str = "
    INSERT INTO v SELECT i, ARRAY[i, -i]::vector, ARRAY[i / 3.0, 1e-38, -i]::vector, ARRAY[i % 100, 0.1, 65504, -6e-8]::halfvec,
                         format('{1:%s,%s:0.1,100000:-3}/100000', i, 5 + i)::sparsevec, (i % 64)::bit(6),
                         ARRAY[ARRAY[i]::vector, NULL, '[1,2]'::vector]
      FROM generate_series(1, 400) i;
    INSERT INTO v (id) VALUES (0);
    INSERT INTO v VALUES (-1, '[3.4028235e+38,-1e-45,0,-0]', '[0,0,0]', '[0,0,0,-0]', '{}/100000', B'000000', '{}');
    INSERT INTO wide SELECT i, array_agg(sin(i * j))::vector, array_agg(cos(i * j))::halfvec, 0
      FROM generate_series(1, 40) i, generate_series(1, 16000) j GROUP BY i;
    INSERT INTO wide (id, n) VALUES (0, 0);
    INSERT INTO whole SELECT ARRAY[i % 3, 1]::vector, ARRAY[1, i % 2]::halfvec, '{1:1}/9' FROM generate_series(1, 12) i;
    INSERT INTO whole VALUES (NULL, NULL, NULL);
    INSERT INTO keyed SELECT ARRAY[i, 1]::vector, i FROM generate_series(1, 50) i";

/// Each of the ten nearest neighbours by each operator, exactly and by an index of the target.
const NEAREST: &str = "
    SELECT concat_ws(' ',
             (SELECT array_agg(id) FROM (SELECT id FROM v ORDER BY three <-> '[5,0,-15]', id LIMIT 10) n),
             (SELECT array_agg(id) FROM (SELECT id FROM v ORDER BY h <=> '[5,0,1,0]', id LIMIT 10) n),
             (SELECT array_agg(id) FROM (SELECT id FROM v ORDER BY s <+> '{1:9}/100000', id LIMIT 10) n),
             (SELECT array_agg(id) FROM (SELECT id FROM v ORDER BY b <~> B'010101', id LIMIT 10) n),
             (SELECT array_agg(id) FROM (SELECT id FROM v ORDER BY three <#> '[1,1,1]', id LIMIT 10) n))";

#[tokio::test(flavor = "multi_thread")]
async fn vectors_are_copied_and_followed_from_16_to_18() {
    let (source, target) = (server("source", "vector-16").await, server("target", "vector-18").await);
    assert_eq!((source.binaries().major(), target.binaries().major()), (16, 18));
    the_shop_is_killed_and_ends_equal(&source, &target).await;
    every_type_arrives(&source, &target).await;
}

async fn the_shop_is_killed_and_ends_equal(source: &Cluster, target: &Cluster) {
    let pair = Pair::on(source, target, "shop").await;
    pair.both(Example::Shop.schema()).await;
    for client in [&pair.source, &pair.target] {
        assert_eq!(embeddings(client).await, ["mirt_memories vector(32)", "products vector(32)"]);
    }
    let before = constraints(&pair.target).await;
    Example::Shop.load(&pair.source, 2).await.unwrap();
    let writer = Writer::start(&pair.source_url, Example::Shop, 500, 7);
    let daemon = pair.daemon();
    // In the middle of the copy, and in the middle of the stream.
    pair.target_is("begun", "SELECT to_regclass('cdc.chunk') IS NOT NULL", &[]).await;
    pair.target_is("copying", "SELECT EXISTS (SELECT FROM products)", &[]).await;
    daemon.kill();
    let daemon = pair.streaming().await;
    daemon.kill();
    let daemon = pair.streaming().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let written = writer.stop().await;
    assert!(written.rows() > 0, "{written:?}");
    pair.caught_up().await;
    assert_eq!(constraints(&pair.target).await, before);
    let vectors = "SELECT count(*) FROM products WHERE vector_dims(embedding) = 32";
    assert!(number(&pair.target, vectors).await > 0);
    pair.ends_equal(daemon).await;
}

async fn every_type_arrives(source: &Cluster, target: &Cluster) {
    let pair = Pair::on(source, target, "types").await;
    pair.both(TYPES).await;
    pair.target.batch_execute(INDEXES).await.unwrap();
    pair.write(ROWS).await;
    let daemon = pair.streaming().await;
    pair.assert_equal().await;
    // The same once more through the stream; the wide values are stored out of line and not sent again.
    pair.write(
        &ROWS
            .replace("SELECT i,", "SELECT 10000 + i,")
            .replace("VALUES (0", "VALUES (10000")
            .replace("(-1, '[", "(-2, '[")
            .replace("ARRAY[i, 1]::vector, i", "ARRAY[i, 2]::vector, i"),
    )
    .await;
    pair.write(
        "UPDATE wide SET n = 1; UPDATE wide SET h = NULL WHERE id % 2 = 0; DELETE FROM v WHERE id % 5 = 1;
         UPDATE v SET three = '[1,2,3]', h = '[1,2,3,4]', s = NULL, b = ~b WHERE id % 5 = 2; UPDATE v SET id = -10 - id WHERE id % 5 = 3;
         UPDATE whole SET a = '[9,9]' WHERE a = '[0,1]'; DELETE FROM whole WHERE a = '[1,1]' OR a IS NULL;
         UPDATE keyed SET a = a + '[0.5,0]' WHERE n < 9; DELETE FROM keyed WHERE a = '[20,1]'; UPDATE keyed SET n = -n",
    )
    .await;
    pair.caught_up().await;
    pair.assert_equal().await;
    pair.target.batch_execute("SET enable_indexscan = off").await.unwrap();
    let nearest =
        |client| async move { Client::query_one(client, NEAREST, &[]).await.unwrap().get::<_, String>(0) };
    assert_eq!(nearest(&pair.source).await, nearest(&pair.target).await);
    pair.target
        .batch_execute("SET enable_indexscan = on; SET enable_seqscan = off; SET enable_sort = off")
        .await
        .unwrap();
    // Every index is one that can answer, and the exact match is the nearest by it.
    let by_index =
        "SELECT id::bigint FROM v ORDER BY three <-> (SELECT three FROM v WHERE id = 10010) LIMIT 1";
    assert_eq!(number(&pair.target, by_index).await, 10010);
    let invalid = "SELECT count(*) FROM pg_index WHERE NOT (indisvalid AND indisready)";
    assert_eq!(number(&pair.target, invalid).await, 0);

    // One number of a vector, wherever it is, is found and put right.
    pair.target
        .batch_execute(
            "SET session_replication_role = replica; UPDATE v SET three = three + '[0,0,0.0001]' WHERE id = 10010;
             UPDATE wide SET a = subvector(a, 1, 15999) || '[0.5]' WHERE id = 7; DELETE FROM whole WHERE a = '[9,9]';
             UPDATE keyed SET a = '[77,77]' WHERE a = '[30,2]'",
        )
        .await
        .unwrap();
    let found = pair.run(&["verify", "--json"]);
    assert_eq!(found.status.code(), Some(1), "{found:?}");
    let found: serde_json::Value = serde_json::from_slice(&found.stdout).unwrap();
    let columns = |table: &str| {
        let tables = found["tables"].as_array().unwrap();
        let table = tables.iter().find(|found| found["table"] == table).unwrap();
        table["differences"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["columns"].to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(columns("public.v"), [r#"["three"]"#]);
    assert_eq!(columns("public.wide"), [r#"["a"]"#]);
    assert!(!columns("public.whole").is_empty() && columns("public.keyed").len() >= 2, "{found:#}");
    assert_eq!(pair.run(&["repair", "--yes"]).status.code(), Some(0));
    pair.assert_equal().await;

    // What the target's column can't hold stops the stream by name, and nothing is lost.
    pair.target.batch_execute("ALTER TABLE wide ALTER a TYPE vector(2) USING NULL").await.unwrap();
    pair.write("INSERT INTO wide SELECT 99, a, h, 2 FROM wide WHERE id = 1").await;
    let blocked = pair.status_is("blocked", |status| status["verdict"] == "blocked").await;
    let incident = &blocked["incidents"][0];
    assert_eq!(
        (&incident["table"], &incident["sqlstate"]),
        (&"public.wide".into(), &"22000".into()),
        "{blocked:#}"
    );
    assert!(
        incident["message"].as_str().unwrap().contains("expected 2 dimensions, not 16000"),
        "{blocked:#}"
    );
    pair.target.batch_execute("ALTER TABLE wide ALTER a TYPE vector(16000)").await.unwrap();
    pair.caught_up().await;
    pair.write("UPDATE wide SET a = a + a").await;
    pair.ends_equal(daemon).await;
}
