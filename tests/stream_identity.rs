//! `cdc run` finds the right row, whatever identifies it.

mod support;

use support::pair::Pair;

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
