//! `cdc run` alone makes the schema, copies and follows.

use std::path::Path;

use cdc::demo::data::Example;
use cdc::demo::{Binaries, Cluster};

use super::support::pair::Pair;
use super::{apply, assert_same, connect, dump, make_owned, newest_dump, owned, similar};

#[tokio::test(flavor = "multi_thread")]
async fn every_example_arrives_through_the_daemon_alone() {
    for example in Example::ALL {
        let mut pair = owned(&format!("example_{}", example.name())).await;
        // One who may nothing but own a database.
        let own = format!(
            "DO $$ BEGIN CREATE ROLE plain LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
             ALTER DATABASE {} OWNER TO plain",
            pair.name
        );
        pair.target.batch_execute(&own).await.unwrap();
        pair.daemon_target_url = pair.daemon_target_url.replace("//owner@", "//plain@");
        pair.write(example.schema()).await;
        example.load(&pair.source, 1).await.unwrap();
        let daemon = pair.streaming().await;
        assert_same(&pair);
        pair.ends_equal(daemon).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nasty_schema_with_rows_arrives_and_its_materialized_views_are_filled() {
    let pair = owned("nasty_rows").await;
    pair.write(include_str!("nasty.sql")).await;
    pair.write(
        "ALTER TABLE people NO FORCE ROW LEVEL SECURITY;
         INSERT INTO people (mail, mood, p) SELECT i || '@x', 'naïve', ROW(i, 'b', 'so so')::types.pair::types.sane_pair FROM generate_series(1, 500) i;
         INSERT INTO \"Tab.le with \"\"all\"\"\" (\"new\nline\", person) SELECT i, 1000 FROM generate_series(1, 20) i;
         UPDATE people SET favourite = 3 WHERE id > 1500;
         INSERT INTO logs SELECT '2019-12-31'::timestamptz + i * interval '1 day', CASE WHEN i % 2 = 0 THEN 'x' ELSE 'rest' END, i FROM generate_series(1, 500) i;
         INSERT INTO children (id, own) SELECT i, i FROM generate_series(1, 9) i; INSERT INTO whole VALUES (1, '{}'), (1, '{}');
         REFRESH MATERIALIZED VIEW mv; REFRESH MATERIALIZED VIEW mv2;
         CREATE FUNCTION fails() RETURNS int LANGUAGE plpgsql AS
           $$BEGIN IF to_regnamespace('cdc') IS NOT NULL THEN RAISE 'not here'; END IF; RETURN 1; END$$;
         CREATE MATERIALIZED VIEW breaks AS SELECT fails()",
    )
    .await;
    let daemon = pair.streaming().await;
    let filled = "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relkind = 'm' AND relispopulated";
    let target = connect(&pair.target_url).await;
    for (client, filled_there) in [(&pair.source, "breaks mv mv2"), (&target, "mv mv2")] {
        assert_eq!(client.query_one(filled, &[]).await.unwrap().get::<_, String>(0), filled_there);
    }
    let incident = &pair.status()["incidents"][0];
    assert_eq!(
        (&incident["severity"], &incident["table"]),
        (&"warning".into(), &"public.breaks".into()),
        "{incident:#}"
    );
    assert!(
        incident["remedy"].as_str().unwrap().contains("REFRESH MATERIALIZED VIEW \"public\".\"breaks\""),
        "{incident:#}"
    );
    let row = target.query_one("SELECT count, (SELECT count(*) FROM mv) FROM mv2", &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (1, 1));
    assert_same(&pair);
    similar(&dump(&pair.source_url), &dump(&pair.target_url));
    pair.ends_equal(daemon).await;
}

/// A server of the wheel that `make vector` unpacks.
async fn vector_server(name: &str, version: &str) -> Cluster {
    let bin = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/servers").join(version).join("bin");
    assert!(bin.exists(), "there is no server with pgvector in {}: run `make vector`", bin.display());
    Cluster::builder(name).binaries(Binaries::at(bin).unwrap()).start().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extension_that_only_a_superuser_can_make_is_asked_for_and_then_the_shop_arrives() {
    let (source, target) =
        (vector_server("source", "vector-16").await, vector_server("target", "vector-18").await);
    let mut pair = make_owned(Pair::on(&source, &target, "shop").await).await;
    pair.environment = vec![("CDC_PG_DUMP".to_owned(), newest_dump().display().to_string())];
    let superuser = connect(&pair.source_url).await;
    superuser.batch_execute("CREATE EXTENSION vector").await.unwrap();
    pair.write(Example::Shop.schema()).await;
    Example::Shop.load(&pair.source, 1).await.unwrap();
    let (_, report) = apply(&pair, &[]);
    let failed = &report["failed"][0];
    assert_eq!((&failed["kind"], &failed["sqlstate"]), (&"extension".into(), &"42501".into()), "{report:#}");
    assert!(failed["why"].as_str().unwrap().contains("CREATE EXTENSION IF NOT EXISTS vector"), "{report:#}");
    pair.refuses(2, &["the schema can't be copied: ", "table public.products"]).await;
    pair.target.batch_execute("CREATE EXTENSION vector").await.unwrap();
    let daemon = pair.streaming().await;
    assert_same(&pair);
    pair.ends_equal(daemon).await;
}
