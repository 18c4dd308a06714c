//! Foreign keys and sequences of the target, whatever their kind.

#![allow(clippy::unwrap_used, reason = "all of it is a test")]

mod support;

use std::sync::Arc;

use cdc::connect::{ConnInfo, Environment, Session};
use cdc::fault::Side;
use cdc::integrity::{ForeignKeys, SequenceState, Sequences, foreign_keys, sequences};
use cdc::ledger::Ledger;
use support::pair::{Pair, is_since};

async fn session(url: &str, side: Side) -> Session {
    let info = ConnInfo::parse(url, &Environment::empty()).unwrap();
    Session::open(&info, side, "test").await.unwrap()
}

async fn keys(pair: &Pair) -> ForeignKeys {
    let source = session(&pair.source_url, Side::Source).await;
    let ledger = Ledger::new(Arc::new(session(&pair.target_url, Side::Target).await), &pair.name);
    foreign_keys(&source, &ledger, &pair.name).await.unwrap()
}

async fn all_sequences(pair: &Pair) -> Sequences {
    let source = session(&pair.source_url, Side::Source).await;
    let ledger = Ledger::new(Arc::new(session(&pair.target_url, Side::Target).await), &pair.name);
    sequences(&source, &ledger).await.unwrap()
}

/// The keys that have orphans or were not checked, a line each.
fn told(keys: &ForeignKeys) -> Vec<String> {
    keys.keys
        .iter()
        .filter(|key| key.orphans != Some(0))
        .map(|key| format!("{} {:?} {:?} {:?}", key.name, key.orphans, key.examples, key.not_checked))
        .collect()
}

const TABLES: &str = "CREATE EXTENSION citext;
    CREATE SCHEMA \"Odd\";
    CREATE TABLE \"Odd\".\"Own er\" (\"I d\" citext, n bigint, PRIMARY KEY (\"I d\", n));
    CREATE TABLE simple (id int PRIMARY KEY, \"o w\" citext, n int,
      CONSTRAINT simple_key FOREIGN KEY (\"o w\", n) REFERENCES \"Odd\".\"Own er\");
    CREATE TABLE \"full\" (id int PRIMARY KEY, o citext, n int,
      CONSTRAINT full_key FOREIGN KEY (n, o) REFERENCES \"Odd\".\"Own er\" (n, \"I d\") MATCH FULL);
    CREATE TABLE tree (id int PRIMARY KEY, parent int CONSTRAINT tree_key REFERENCES tree);
    CREATE TABLE parts (id int, k int, up int, PRIMARY KEY (id, k)) PARTITION BY LIST (k);
    CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1);
    CREATE TABLE parts_2 PARTITION OF parts FOR VALUES IN (2);
    ALTER TABLE parts ADD CONSTRAINT parts_key FOREIGN KEY (up, k) REFERENCES parts;
    ALTER TABLE parts_2 ADD CONSTRAINT leaf_key FOREIGN KEY (up) REFERENCES tree;
    CREATE TABLE old (id int PRIMARY KEY);
    CREATE TABLE young (more int) INHERITS (old);
    ALTER TABLE young ADD PRIMARY KEY (id);
    CREATE TABLE refers (id int PRIMARY KEY, o int CONSTRAINT heir_key REFERENCES old);
    CREATE TABLE unsure (id int PRIMARY KEY, t int);
    ALTER TABLE unsure ADD CONSTRAINT unsure_key FOREIGN KEY (t) REFERENCES tree NOT VALID";

#[tokio::test(flavor = "multi_thread")]
async fn every_row_that_refers_to_nothing_is_counted_and_named() {
    let pair = Pair::new("orphans").await;
    pair.both(TABLES).await;
    pair.write(
        "INSERT INTO \"Odd\".\"Own er\" VALUES ('a', 1), ('b', 2);
         INSERT INTO simple VALUES (1, 'A', 1), (2, NULL, 9), (3, 'x', NULL);
         INSERT INTO \"full\" VALUES (1, 'B', 2), (2, NULL, NULL);
         INSERT INTO tree VALUES (1, NULL), (2, 1), (3, 3);
         INSERT INTO parts VALUES (1, 1, NULL), (2, 1, 1), (1, 2, 1);
         INSERT INTO old VALUES (1); INSERT INTO young VALUES (2, 2); INSERT INTO refers VALUES (1, 1)",
    )
    .await;
    let daemon = pair.streaming().await;
    let kept = keys(&pair).await;
    assert!(kept.is_same() && kept.is_checked(), "{kept}");
    let names: Vec<&str> = kept.keys.iter().map(|key| key.name.as_str()).collect();
    assert_eq!(names, ["full_key", "parts_key", "leaf_key", "heir_key", "simple_key", "tree_key"]);
    assert!(kept.keys.iter().all(|key| format!("{:?}", key.on_target) == "Valid"), "{kept:?}");
    assert_eq!(kept.to_string(), "foreign keys that every row keeps: 6 of 6\n");
    assert!(daemon.terminate().await.success());

    // As on a replica, nothing refuses them.
    pair.target
        .batch_execute(
            "SET session_replication_role = replica;
             INSERT INTO simple VALUES (4, 'c', 1), (5, 'a', 2), (6, 'it''s', NULL);
             INSERT INTO \"full\" VALUES (3, 'a', NULL), (4, 'a', 2);
             INSERT INTO tree SELECT i, i + 1000 FROM generate_series(101, 115) i;
             INSERT INTO parts VALUES (3, 1, 77), (4, 2, 2);
             INSERT INTO refers VALUES (2, 2);
             DELETE FROM tree WHERE id = 1",
        )
        .await
        .unwrap();
    let broken = keys(&pair).await;
    assert!(!broken.is_same() && broken.is_checked());
    let mut tree: Vec<String> = (1101..=1109).map(|i| format!("parent={i}")).collect();
    tree.insert(0, "parent=1".to_owned());
    assert_eq!(
        told(&broken),
        [
            r#"full_key Some(2) ["n=2, o=a", "n=NULL, o=a"] None"#.to_owned(),
            r#"parts_key Some(2) ["up=2, k=2", "up=77, k=1"] None"#.to_owned(),
            r#"leaf_key Some(1) ["up=1"] None"#.to_owned(),
            r#"heir_key Some(1) ["o=2"] None"#.to_owned(),
            r#"simple_key Some(2) ["o w=a, n=2", "o w=c, n=1"] None"#.to_owned(),
            format!("tree_key Some(16) {tree:?} None"),
        ]
    );
    let text = broken.to_string();
    assert!(text.starts_with("foreign keys that every row keeps: 0 of 6\n"), "{text}");
    assert!(
        text.contains(
            "  leaf_key of public.parts_2: rows that refer to nothing in public.tree: 1\n    up=1\n"
        )
    );

    // Also where the target's own keys are off.
    pair.target
        .batch_execute(
            "ALTER TABLE tree DROP CONSTRAINT tree_key; ALTER TABLE refers DROP CONSTRAINT heir_key;
             ALTER TABLE \"full\" DROP CONSTRAINT full_key;
             ALTER TABLE \"full\" ADD CONSTRAINT full_key FOREIGN KEY (n, o) REFERENCES \"Odd\".\"Own er\" (n, \"I d\") MATCH FULL NOT VALID;
             INSERT INTO cdc.held_back (name, schema_name, table_name, kind, object_name, tablespace, put_back)
             VALUES ('orphans', 'public', 'tree', 'foreign key', 'tree_key', '', '{}');
             ALTER TABLE simple RENAME TO away",
        )
        .await
        .unwrap();
    let off = keys(&pair).await;
    let states: Vec<String> =
        off.keys.iter().map(|key| format!("{} {:?} {:?}", key.name, key.on_target, key.orphans)).collect();
    assert_eq!(
        states,
        [
            "full_key NotValid Some(2)",
            "parts_key Valid Some(2)",
            "leaf_key Valid Some(1)",
            "heir_key Missing Some(1)",
            "simple_key Missing None",
            "tree_key HeldBack Some(16)",
        ]
    );
    assert!(!off.is_checked());
    assert!(
        off.to_string()
            .contains("simple_key of public.simple: not checked: the target has no table public.simple")
    );

    // Rows that are missing because they are still to come are no orphans' fault.
    pair.target.batch_execute("UPDATE cdc.migration SET consistent_since = NULL").await.unwrap();
    let copying = keys(&pair).await;
    assert!(copying.is_same() && !copying.is_checked());
    assert_eq!(copying.keys[0].not_checked.as_deref(), Some("still being copied"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_with_a_period_is_kept_by_rows_that_cover_it_together() {
    let pair = Pair::new("periods").await;
    if !is_since(18, &pair.source).await || !is_since(18, &pair.target).await {
        return;
    }
    pair.both(
        "CREATE EXTENSION btree_gist;
         CREATE TABLE rooms (id int, at daterange, PRIMARY KEY (id, at WITHOUT OVERLAPS));
         CREATE TABLE stays (id int PRIMARY KEY, room int, at daterange,
           CONSTRAINT stays_key FOREIGN KEY (room, PERIOD at) REFERENCES rooms (id, PERIOD at))",
    )
    .await;
    pair.write(
        "INSERT INTO rooms VALUES (1, '[2026-01-01,2026-02-01)'), (1, '[2026-02-01,2026-03-01)');
         INSERT INTO stays VALUES (1, 1, '[2026-01-10,2026-02-10)'), (2, NULL, '[2020-01-01,2020-02-01)')",
    )
    .await;
    let daemon = pair.streaming().await;
    assert_eq!(keys(&pair).await.keys[0].orphans, Some(0));
    assert!(daemon.terminate().await.success());
    pair.target
        .batch_execute(
            "SET session_replication_role = replica; INSERT INTO stays VALUES (3, 1, '[2026-02-20,2026-03-20)'), (4, 2, '[2026-01-01,2026-01-02)')",
        )
        .await
        .unwrap();
    assert_eq!(
        told(&keys(&pair).await),
        [
            r#"stays_key Some(2) ["room=1, at=[2026-02-20,2026-03-20)", "room=2, at=[2026-01-01,2026-01-02)"] None"#
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sequences_of_every_kind_are_compared_with_the_rows() {
    let pair = Pair::new("sequences").await;
    pair.both(
        "CREATE SCHEMA \"Odd\"; CREATE SEQUENCE \"Odd\".\"S q\"\"1\";
         CREATE SEQUENCE down INCREMENT BY -5 MINVALUE -1000 MAXVALUE 1000 START WITH 0;
         CREATE TABLE a (id serial PRIMARY KEY, shared int DEFAULT nextval('\"Odd\".\"S q\"\"1\"'),
                         down int DEFAULT nextval('down'), code text DEFAULT 'c' || nextval('\"Odd\".\"S q\"\"1\"'));
         CREATE TABLE \"Odd\".\"B b\" (\"I d\" bigint GENERATED ALWAYS AS IDENTITY (INCREMENT BY 10) PRIMARY KEY,
                                   shared numeric DEFAULT nextval('\"Odd\".\"S q\"\"1\"'));
         CREATE TABLE p (id bigserial, k int, PRIMARY KEY (id, k)) PARTITION BY LIST (k);
         CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1); CREATE TABLE p2 PARTITION OF p FOR VALUES IN (2);
         CREATE TABLE quiet (id serial PRIMARY KEY);
         CREATE TABLE gone (id serial PRIMARY KEY);
         CREATE TABLE other (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), n int DEFAULT 5)",
    )
    .await;
    pair.target
        .batch_execute("ALTER TABLE gone ALTER id DROP DEFAULT; DROP SEQUENCE gone_id_seq")
        .await
        .unwrap();
    pair.write(
        "INSERT INTO a (id) SELECT nextval('a_id_seq') FROM generate_series(1, 3);
         INSERT INTO \"Odd\".\"B b\" (shared) SELECT nextval('\"Odd\".\"S q\"\"1\"') FROM generate_series(1, 4);
         INSERT INTO p (k) SELECT 1 + i % 2 FROM generate_series(1, 7) i;
         INSERT INTO gone DEFAULT VALUES; DELETE FROM gone;
         INSERT INTO other DEFAULT VALUES",
    )
    .await;
    let daemon = pair.streaming().await;
    assert!(daemon.terminate().await.success());
    let line = |s: &cdc::integrity::ColumnSequence| {
        format!(
            "{}.{} {:?} {:?} {:?} {:?}",
            s.table, s.column, s.source_last_value, s.next_value, s.furthest_value, s.state
        )
    };
    let lines = |all: &Sequences| all.sequences.iter().map(line).collect::<Vec<_>>();
    let copied = all_sequences(&pair).await;
    assert_eq!(
        lines(&copied),
        [
            "Odd.B b.I d Some(31) Some(1) Some(31) ToBeSet",
            "Odd.B b.shared Some(10) Some(1) Some(10) ToBeSet",
            "public.a.id Some(3) Some(1) Some(3) ToBeSet",
            "public.a.shared Some(10) Some(1) Some(5) ToBeSet",
            "public.a.down Some(-10) Some(0) Some(-10) ToBeSet",
            "public.a.code Some(10) Some(1) None ToBeSet",
            "public.gone.id Some(1) None None Missing",
            "public.p.id Some(7) Some(1) Some(7) ToBeSet",
            "public.quiet.id None Some(1) None Ahead",
        ]
    );
    assert!(copied.is_same());
    assert!(copied.to_string().starts_with("sequences: 9, to be set at the cutover: 7\n"), "{copied}");

    // Applications write to the target now.
    pair.target
        .batch_execute(
            "UPDATE cdc.migration SET phase = 'done';
             SELECT setval('\"Odd\".\"B b_I d_seq\"', 31), setval('\"Odd\".\"S q\"\"1\"', 10), setval('down', -10),
                    setval('p_id_seq', 6), setval('a_id_seq', 4, false)",
        )
        .await
        .unwrap();
    let switched = all_sequences(&pair).await;
    let behind: Vec<_> = switched.sequences.iter().filter(|s| s.state == SequenceState::Behind).collect();
    assert_eq!(behind.len(), 1, "{switched}");
    assert_eq!(line(behind[0]), "public.p.id Some(7) Some(7) Some(7) Behind");
    assert!(!switched.is_same());
    assert!(switched.to_string().contains(
        "  id of public.p: public.p_id_seq gives 7 next; furthest value in the table 7, last one of the source 7\n"
    ));
    // One that counts down collides from below; and the very next value is enough.
    pair.target
        .batch_execute(
            "SELECT setval('down', -10, false); INSERT INTO a VALUES (4, 1, 0, 'the next one'), (-7, 1, 2000, 'beyond')",
        )
        .await
        .unwrap();
    let collide = all_sequences(&pair).await;
    assert_eq!(line(&collide.sequences[2]), "public.a.id Some(3) Some(4) Some(4) Behind");
    assert_eq!(line(&collide.sequences[4]), "public.a.down Some(-10) Some(-10) Some(-10) Behind");
}
