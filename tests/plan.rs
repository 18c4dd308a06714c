//! What is to be copied and in which chunks, as real servers tell it and take it.

#![allow(clippy::unwrap_used)]

mod support;

use cdc::catalog::{PublishedTable, TableName, empty, published, rows_exist};
use cdc::chunk::KeyRange;
use cdc::connect::{ConnInfo, Environment, Session};
use cdc::copy::{Format, plan, statements};
use cdc::fault::{Fault, Side};
use futures_util::{SinkExt, StreamExt};
use support::pair::{Pair, is_since, number};

/// Small, so that small tables have many chunks.
const CHUNK_BYTES: u64 = 512 * 1024;

/// A session with the settings that the copy has.
async fn session(url: &str) -> Session {
    let info = ConnInfo::parse(url, &Environment::empty().user("postgres")).unwrap();
    Session::open(&info, Side::Source, "cdc test").await.unwrap()
}

/// Makes the tables on the source, publishes all, and describes each.
async fn describe(pair: &Pair, sql: &str) -> (Session, Vec<PublishedTable>) {
    pair.write(sql).await;
    pair.write("CREATE PUBLICATION everything FOR ALL TABLES WITH (publish_via_partition_root)").await;
    let source = session(&pair.source_url).await;
    let tables = published(&source, &["everything".to_owned()]).await.unwrap();
    (source, tables)
}

/// What the stream carries, one line for each relation.
async fn carried(source: &Session, publications: &[&str]) -> Vec<String> {
    let publications: Vec<String> = publications.iter().map(|name| (*name).to_owned()).collect();
    let line = |t: &PublishedTable| {
        let root = t.root.as_ref().map(|root| format!(" of {root}")).unwrap_or_default();
        let filter = t.row_filter.as_ref().map(|filter| format!(" where {filter}")).unwrap_or_default();
        format!(
            "{}{root} ({}) {:?} by ({}) in ranges of {:?}{filter}",
            t.name,
            t.columns.join(", "),
            t.identity,
            t.key.join(", "),
            t.chunk_key
        )
    };
    published(source, &publications).await.unwrap().iter().map(line).collect()
}

/// Plans a table and says, for each chunk, what the source answers to this query about its rows.
///
/// Asserts that the ranges follow one another without a gap, and that together they have every row.
async fn by_chunk(source: &Session, table: &PublishedTable, aggregate: &str) -> Vec<i64> {
    let ranges = plan(source, table, CHUNK_BYTES, false).await.unwrap();
    assert_eq!(ranges.first().unwrap().lower, None);
    assert_eq!(ranges.last().unwrap().upper, None);
    for pair in ranges.windows(2) {
        assert!(pair[0].upper.is_some() && pair[0].upper == pair[1].lower, "{pair:?}");
    }
    assert!(ranges.iter().all(|r| r.lower.is_none() || r.upper.is_none() || r.lower < r.upper), "{ranges:?}");
    let mut answers = Vec::new();
    for range in &ranges {
        answers.push(number(source, &format!("SELECT {aggregate}{}", rows_of(table, range))).await);
    }
    let all = number(source, &format!("SELECT {aggregate}{}", rows_of(table, &KeyRange::ALL))).await;
    assert_eq!(answers.iter().sum::<i64>(), all, "{}: {answers:?}", table.name);
    answers
}

/// ` FROM ... WHERE ...` of the statement that reads a chunk.
fn rows_of(table: &PublishedTable, range: &KeyRange) -> String {
    let copy = statements::copy_out(table, range, Format::Text);
    let (_, rows) = copy.split_once(" FROM ").unwrap();
    format!(" FROM {}", rows.strip_suffix(") TO STDOUT").unwrap())
}

fn assert_even(what: &str, chunks: &[i64], expected: std::ops::RangeInclusive<usize>) {
    assert!(expected.contains(&chunks.len()), "{what}: {} chunks: {chunks:?}", chunks.len());
    let mean = chunks.iter().sum::<i64>() / i64::try_from(chunks.len()).unwrap();
    assert!(chunks.iter().all(|n| *n * 2 <= mean * 5), "{what}: {mean} on average: {chunks:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_table_is_described_as_the_stream_carries_it() {
    let pair = Pair::new("described").await;
    // Column lists.
    if !is_since(15, &pair.source).await {
        return;
    }
    pair.write(
        "CREATE DOMAIN number AS int;
         CREATE TABLE a_key (v text, big bigint, small smallint, id uuid, PRIMARY KEY (small, big, id, v));
         CREATE TABLE b_index (id int PRIMARY KEY, code int NOT NULL, gone int, v text, UNIQUE (code) INCLUDE (v));
         ALTER TABLE b_index DROP COLUMN gone, REPLICA IDENTITY USING INDEX b_index_code_v_key;
         CREATE TABLE c_full (v text, id int PRIMARY KEY);
         ALTER TABLE c_full REPLICA IDENTITY FULL;
         CREATE TABLE d_full_without_key (v text);
         ALTER TABLE d_full_without_key REPLICA IDENTITY FULL;
         CREATE TABLE e_domain (id number PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED);
         CREATE TABLE f_some_columns (id int PRIMARY KEY, secret text, v text);
         CREATE TABLE g_some_rows (id int PRIMARY KEY, v text);
         CREATE TABLE h_no_columns ();
         ALTER TABLE h_no_columns REPLICA IDENTITY FULL;
         CREATE TABLE i_insert_only (v text, id bigint PRIMARY KEY);
         ALTER TABLE i_insert_only REPLICA IDENTITY NOTHING;
         CREATE TABLE j_without_its_key (id int PRIMARY KEY, v text);
         CREATE TABLE k_deferrable (id int PRIMARY KEY DEFERRABLE);
         CREATE TABLE l_generated (a int, b int GENERATED ALWAYS AS (a) STORED PRIMARY KEY);
         CREATE TABLE parent (id int PRIMARY KEY) PARTITION BY RANGE (id);
         CREATE TABLE leaf PARTITION OF parent FOR VALUES FROM (0) TO (10);
         CREATE TABLE middle PARTITION OF parent FOR VALUES FROM (10) TO (20) PARTITION BY RANGE (id);
         CREATE TABLE \"Leaf of middle\" PARTITION OF middle FOR VALUES FROM (10) TO (20);
         CREATE TABLE unpublished (id int PRIMARY KEY);
         CREATE PUBLICATION most FOR TABLE a_key, b_index, c_full, d_full_without_key, e_domain,
           f_some_columns (v, id), g_some_rows WHERE (v LIKE 'a%'), h_no_columns, parent;
         CREATE PUBLICATION inserts FOR TABLE i_insert_only, j_without_its_key (v), k_deferrable, l_generated
           WITH (publish = 'insert, truncate');
         CREATE PUBLICATION other_rows FOR TABLE g_some_rows WHERE (id > 5);
         CREATE PUBLICATION every_row FOR TABLE g_some_rows;
         CREATE PUBLICATION root FOR TABLE parent WITH (publish_via_partition_root)",
    )
    .await;
    let source = session(&pair.source_url).await;
    assert_eq!(
        carried(&source, &["most", "inserts", "no such publication"]).await,
        [
            "public.Leaf of middle of public.parent (id) Key by (id) in ranges of [Integer]",
            "public.a_key (v, big, small, id) Key by (small, big, id, v) in ranges of [Integer, Integer, Uuid]",
            "public.b_index (id, code, v) Key by (code) in ranges of [Integer]",
            "public.c_full (v, id) Full by (id) in ranges of [Integer]",
            "public.d_full_without_key (v) Full by () in ranges of []",
            "public.e_domain (id) Key by (id) in ranges of []",
            "public.f_some_columns (id, v) Key by (id) in ranges of [Integer]",
            "public.g_some_rows (id, v) Key by (id) in ranges of [Integer] where (v ~~ 'a%'::text)",
            "public.h_no_columns () Full by () in ranges of []",
            "public.i_insert_only (v, id) None by (id) in ranges of [Integer]",
            "public.j_without_its_key (v) Key by () in ranges of []",
            "public.k_deferrable (id) None by (id) in ranges of [Integer]",
            "public.l_generated (a) None by () in ranges of []",
            "public.leaf of public.parent (id) Key by (id) in ranges of [Integer]",
        ]
    );
    assert_eq!(
        carried(&source, &["other_rows", "most"]).await[7],
        "public.g_some_rows (id, v) Key by (id) in ranges of [Integer] where (id > 5) OR (v ~~ 'a%'::text)"
    );
    assert_eq!(
        carried(&source, &["other_rows", "every_row"]).await,
        ["public.g_some_rows (id, v) Key by (id) in ranges of [Integer]"]
    );
    let with_root = carried(&source, &["most", "root"]).await;
    assert_eq!(with_root[8], "public.parent (id) Key by (id) in ranges of [Integer]");
    assert_eq!(with_root.len(), 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_are_those_of_the_files_and_rows_those_of_the_statistics() {
    let pair = Pair::new("sizes").await;
    let (source, tables) = describe(
        &pair,
        "CREATE TABLE a (id int PRIMARY KEY, v text) WITH (autovacuum_enabled = off);
         ALTER TABLE a ALTER v SET STORAGE EXTERNAL;
         INSERT INTO a SELECT i, repeat('x', 10000) FROM generate_series(1, 100) i;
         CREATE TABLE b (id int PRIMARY KEY) PARTITION BY RANGE (id);
         CREATE TABLE b1 PARTITION OF b FOR VALUES FROM (0) TO (1000) WITH (autovacuum_enabled = off);
         CREATE TABLE b2 PARTITION OF b FOR VALUES FROM (1000) TO (2000) WITH (autovacuum_enabled = off);
         INSERT INTO b SELECT generate_series(0, 1999); ANALYZE b;
         CREATE TABLE c (id int PRIMARY KEY) WITH (autovacuum_enabled = off);
         INSERT INTO c SELECT generate_series(1, 1000); ANALYZE c;
         INSERT INTO c SELECT generate_series(1001, 3000)",
    )
    .await;
    let [a, b, c] = &tables[..] else { panic!("{tables:?}") };
    assert_eq!((a.rows, a.pages), (None, 1));
    assert!((1_000_000..1_500_000).contains(&a.bytes), "{a:?}");
    assert_eq!((b.rows, b.pages), (Some(2000), 10));
    let size = "SELECT pg_table_size('public.b1') + pg_table_size('public.b2')";
    assert_eq!(i64::try_from(b.bytes).unwrap(), number(&source, size).await);
    // As many on each of the new pages as on the old ones.
    assert!((2600..=3300).contains(&c.rows.unwrap()), "{c:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_of_every_kind_of_key_are_about_equal() {
    let pair = Pair::new("even").await;
    let (source, tables) = describe(
        &pair,
        "CREATE TABLE a_sequential (id bigint PRIMARY KEY, v text);
         INSERT INTO a_sequential SELECT i, repeat('v', 40) FROM generate_series(1, 60000) i;
         CREATE TABLE b_gaps (id int PRIMARY KEY, v text);
         INSERT INTO b_gaps SELECT i * CASE WHEN i < 30000 THEN -1 ELSE 30000 END, repeat('v', 40)
           FROM generate_series(1, 60000) i;
         CREATE TABLE c_random (v text, id uuid PRIMARY KEY);
         INSERT INTO c_random SELECT repeat('v', 40), gen_random_uuid() FROM generate_series(1, 60000) i;
         CREATE TABLE d_one_large_tenant (tenant smallint, id uuid, v text, PRIMARY KEY (tenant, id));
         INSERT INTO d_one_large_tenant SELECT CASE WHEN i % 10 = 0 THEN i % 97 ELSE 50 END, gen_random_uuid(),
           repeat('v', 40) FROM generate_series(1, 60000) i;
         CREATE TABLE e_full (v text, id int PRIMARY KEY);
         ALTER TABLE e_full REPLICA IDENTITY FULL;
         INSERT INTO e_full SELECT repeat('v', 40), i FROM generate_series(60000, 1, -1) i;
         CREATE TABLE f_parent (id int PRIMARY KEY, v text) PARTITION BY HASH (id);
         CREATE TABLE f1 PARTITION OF f_parent FOR VALUES WITH (MODULUS 3, REMAINDER 0);
         CREATE TABLE f2 PARTITION OF f_parent FOR VALUES WITH (MODULUS 3, REMAINDER 1);
         CREATE TABLE f3 PARTITION OF f_parent FOR VALUES WITH (MODULUS 3, REMAINDER 2);
         INSERT INTO f_parent SELECT i, repeat('v', 40) FROM generate_series(1, 60000) i;
         CREATE TABLE g_inherited (id int PRIMARY KEY, v text);
         CREATE TABLE g_child () INHERITS (g_inherited);
         INSERT INTO g_inherited SELECT i, repeat('v', 40) FROM generate_series(1, 60000) i;
         INSERT INTO g_child SELECT i, repeat('v', 40) FROM generate_series(1, 60000) i",
    )
    .await;
    for table in tables.iter().filter(|table| table.name.name != "g_child") {
        assert_even(&table.name.to_string(), &by_chunk(&source, table, "count(*)").await, 8..=12);
    }
    assert_eq!(tables.len(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_are_equal_in_bytes_where_a_part_of_the_table_is_wide() {
    let pair = Pair::new("wide").await;
    let (source, tables) = describe(
        &pair,
        "CREATE TABLE t (id int PRIMARY KEY, v text);
         ALTER TABLE t ALTER v SET STORAGE EXTERNAL;
         INSERT INTO t SELECT i, repeat('v', CASE WHEN i BETWEEN 20000 AND 21000 THEN 9000 ELSE 40 END)
           FROM generate_series(1, 40000) i",
    )
    .await;
    let bytes = by_chunk(&source, &tables[0], "sum(28 + 4 + length(v))::int8").await;
    assert_even("bytes", &bytes, 20..=30);
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_rows_and_wrong_statistics_only_make_smaller_chunks() {
    let pair = Pair::new("bloated").await;
    pair.write("CREATE TABLE c_grown (id int PRIMARY KEY, v text) WITH (autovacuum_enabled = off)").await;
    pair.write("VACUUM c_grown").await;
    let (source, tables) = describe(
        &pair,
        "CREATE TABLE a_bloated (id int PRIMARY KEY, v text) WITH (autovacuum_enabled = off);
         INSERT INTO a_bloated SELECT i, repeat('v', 40) FROM generate_series(1, 60000) i;
         DELETE FROM a_bloated WHERE id > 6000;
         CREATE TABLE b_dead (id int PRIMARY KEY, v text) WITH (autovacuum_enabled = off);
         INSERT INTO b_dead SELECT i, repeat('v', 40) FROM generate_series(1, 60000) i;
         DELETE FROM b_dead;
         INSERT INTO c_grown SELECT i, repeat('v', 40) FROM generate_series(1, 60000) i",
    )
    .await;
    let bloated = by_chunk(&source, &tables[0], "count(*)").await;
    assert!(bloated.iter().sum::<i64>() == 6000 && bloated.iter().all(|n| *n < 3000), "{bloated:?}");
    assert_eq!(by_chunk(&source, &tables[1], "count(*)").await, [0]);
    assert_eq!(tables[2].rows, None);
    assert_even("grown", &by_chunk(&source, &tables[2], "count(*)").await, 8..=12);
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_are_larger_where_small_ones_would_read_the_table_over_and_over() {
    let pair = Pair::new("reads").await;
    let (source, tables) = describe(
        &pair,
        "CREATE TABLE a_sequential (id bigint PRIMARY KEY, v text);
         INSERT INTO a_sequential SELECT i, repeat('v', 40) FROM generate_series(1, 60000) i;
         UPDATE a_sequential SET v = v || 'w' WHERE id % 20 = 0;
         CREATE TABLE b_random (id uuid PRIMARY KEY, v text);
         INSERT INTO b_random SELECT gen_random_uuid(), repeat('v', 40) FROM generate_series(1, 60000) i;
         CREATE TABLE c_tenants_in_turns (tenant int, id int, v text, PRIMARY KEY (tenant, id));
         INSERT INTO c_tenants_in_turns SELECT i % 211, i, repeat('v', 40) FROM generate_series(1, 60000) i;
         CREATE TABLE d_tenants_in_their_places (tenant uuid, name text, v text, PRIMARY KEY (tenant, name));
         INSERT INTO d_tenants_in_their_places SELECT md5((i / 100)::text)::uuid, i, repeat('v', 40)
           FROM generate_series(1, 60000) i;
         CREATE TABLE e_partly_random (id bigint PRIMARY KEY, v text);
         INSERT INTO e_partly_random SELECT CASE WHEN i % 10 = 0 THEN random() * 6e12 ELSE i * 1e8 + i % 7 END,
           repeat('v', 40) FROM generate_series(1, 60000) i;
         CREATE TABLE f_wide_rows (id uuid PRIMARY KEY, v text);
         INSERT INTO f_wide_rows SELECT gen_random_uuid(), repeat('v', 1000) FROM generate_series(1, 6000) i;
         CREATE TABLE g_in_toast (id uuid PRIMARY KEY, v text);
         ALTER TABLE g_in_toast ALTER v SET STORAGE EXTERNAL;
         INSERT INTO g_in_toast SELECT gen_random_uuid(), repeat('v', 9000) FROM generate_series(1, 1000) i;
         CREATE TABLE h_parent (id uuid PRIMARY KEY, v text) PARTITION BY HASH (id);
         CREATE TABLE h1 PARTITION OF h_parent FOR VALUES WITH (MODULUS 2, REMAINDER 0);
         CREATE TABLE h2 PARTITION OF h_parent FOR VALUES WITH (MODULUS 2, REMAINDER 1);
         INSERT INTO h_parent SELECT gen_random_uuid(), repeat('v', 40) FROM generate_series(1, 60000) i;
         CREATE TABLE i_dead (id uuid PRIMARY KEY, v text) WITH (autovacuum_enabled = off);
         INSERT INTO i_dead SELECT gen_random_uuid(), repeat('v', 40) FROM generate_series(1, 60000) i;
         DELETE FROM i_dead",
    )
    .await;
    let mut chunks_and_reads = Vec::new();
    for table in &tables {
        let ranges = plan(&source, table, CHUNK_BYTES / 8, false).await.unwrap();
        let mut pages = 0;
        for range in &ranges {
            let touched = "SELECT count(DISTINCT (tableoid, (ctid::text::point)[0]))";
            pages += number(&source, &format!("{touched}{}", rows_of(table, range))).await;
        }
        let reads = pages * 8192 / i64::try_from(table.bytes).unwrap();
        chunks_and_reads.push((table.name.name.as_str(), ranges.len(), reads));
    }
    let few_chunks = ["b_random", "c_tenants_in_turns", "h_parent"];
    for (table, chunks, reads) in &chunks_and_reads {
        let expected = match *table {
            "i_dead" => 1..=1,
            table if few_chunks.contains(&table) => 8..=20,
            _ => 60..=180,
        };
        assert!(expected.contains(chunks) && *reads <= 16, "{table}: {chunks_and_reads:#?}");
    }
    assert_eq!(chunks_and_reads.len(), 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_most_of_the_table_is_a_chunk_of_its_own() {
    let pair = Pair::new("heavy").await;
    let (source, tables) = describe(
        &pair,
        "CREATE TABLE t (tenant int, name text, v text, PRIMARY KEY (tenant, name));
         INSERT INTO t SELECT CASE WHEN i % 10 < 3 THEN i % 100 ELSE 1050 END, i, repeat('v', 40)
           FROM generate_series(1, 60000) i;
         INSERT INTO t SELECT 2000 + i, i, repeat('v', 40) FROM generate_series(1, 20000) i",
    )
    .await;
    let heavy = by_chunk(&source, &tables[0], "count(*) FILTER (WHERE tenant = 1050)").await;
    let others = by_chunk(&source, &tables[0], "count(*) FILTER (WHERE tenant <> 1050)").await;
    assert_eq!(heavy.iter().filter(|n| **n > 0).collect::<Vec<_>>(), [&42000]);
    // Some of its neighbours that the sample missed are with it.
    assert!(others.iter().all(|n| *n < 10_000), "{others:?}");
    assert!((6..=10).contains(&others.len()), "{others:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_can_not_be_cut_or_is_small_is_one_chunk_without_a_question() {
    let pair = Pair::new("one_chunk").await;
    let (source, tables) = describe(
        &pair,
        "CREATE TABLE a_text (id text PRIMARY KEY, v text);
         CREATE TABLE b_no_key (id int, v text);
         CREATE TABLE c_small (id int PRIMARY KEY, v text);
         CREATE TABLE d_large (id int PRIMARY KEY, v text);
         ALTER TABLE b_no_key REPLICA IDENTITY FULL;
         INSERT INTO a_text SELECT i, repeat('v', 40) FROM generate_series(1, 60000) i;
         INSERT INTO b_no_key SELECT i, repeat('v', 40) FROM generate_series(1, 60000) i;
         INSERT INTO c_small SELECT i, repeat('v', 40) FROM generate_series(1, 4000) i;
         INSERT INTO d_large SELECT i, repeat('v', 40) FROM generate_series(1, 60000) i",
    )
    .await;
    pair.write("BEGIN; LOCK TABLE a_text, b_no_key, c_small, d_large").await;
    for table in &tables {
        let one_chunk = table.name.name == "d_large";
        assert_eq!(plan(&source, table, CHUNK_BYTES, one_chunk).await.unwrap(), [KeyRange::ALL]);
    }
    pair.write("ROLLBACK").await;
    assert!(plan(&source, &tables[3], CHUNK_BYTES, false).await.unwrap().len() > 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_filter_is_in_the_plan_and_in_the_copy() {
    let pair = Pair::new("filtered").await;
    // Row filters.
    if !is_since(15, &pair.source).await {
        return;
    }
    pair.write(
        "CREATE TABLE t (id int PRIMARY KEY, v text);
         INSERT INTO t SELECT i, repeat('v', 40) FROM generate_series(1, 60000) i;
         CREATE PUBLICATION tenth FOR TABLE t WHERE (id % 10 = 0 OR id < 0)",
    )
    .await;
    let source = session(&pair.source_url).await;
    let tables = published(&source, &["tenth".to_owned()]).await.unwrap();
    let rows = by_chunk(&source, &tables[0], "count(*)").await;
    assert_even("filtered", &rows, 8..=12);
    assert_eq!(rows.iter().sum::<i64>(), 6000);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plan_needs_the_right_to_select_and_leaves_the_session_as_it_was() {
    let pair = Pair::new("rights").await;
    let (_, tables) = describe(
        &pair,
        "CREATE TABLE t (id int PRIMARY KEY, v text);
         INSERT INTO t SELECT i, repeat('v', 40) FROM generate_series(1, 60000) i;
         CREATE ROLE reader LOGIN",
    )
    .await;
    let reader = session(&pair.source_url.replace("postgres@", "reader@")).await;
    let refused = |fault: Fault| {
        assert!(fault.advice().is_some_and(|advice| advice.contains("GRANT SELECT")), "{fault}");
        assert_eq!(fault.table_name(), Some("public.t"), "{fault}");
    };
    refused(plan(&reader, &tables[0], CHUNK_BYTES, false).await.unwrap_err());
    pair.write("GRANT SELECT ON t TO reader").await;
    assert!(plan(&reader, &tables[0], CHUNK_BYTES, false).await.unwrap().len() > 5);
    let settings = "SELECT concat_ws(' ', pg_catalog.current_setting('work_mem'),
                                     pg_catalog.current_setting('transaction_read_only'))";
    let settings: String = reader.query_one(settings, &[]).await.unwrap().get(0);
    assert_eq!(settings, "4MB off");
    // Rows that a policy hides are an error rather than missing.
    pair.write("ALTER TABLE t ENABLE ROW LEVEL SECURITY").await;
    refused(plan(&reader, &tables[0], CHUNK_BYTES, false).await.unwrap_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_is_read_by_the_index_of_its_key() {
    let pair = Pair::new("by_index").await;
    let (source, tables) = describe(
        &pair,
        "CREATE TABLE a_small (id smallint, v text, PRIMARY KEY (id, v));
         INSERT INTO a_small SELECT i, i || repeat('v', 200) FROM generate_series(-30000, 30000) i;
         CREATE TABLE b_integer (id int PRIMARY KEY, v text);
         INSERT INTO b_integer SELECT i, repeat('v', 200) FROM generate_series(1, 60000) i;
         CREATE TABLE c_random (id uuid PRIMARY KEY, v text);
         INSERT INTO c_random SELECT gen_random_uuid(), repeat('v', 200) FROM generate_series(1, 60000) i;
         CREATE TABLE d_composite (tenant int, id uuid, n int, v text, PRIMARY KEY (tenant, id, n));
         INSERT INTO d_composite SELECT i / 1000, gen_random_uuid(), i, repeat('v', 200)
           FROM generate_series(1, 60000) i;
         ANALYZE",
    )
    .await;
    for table in &tables {
        let ranges = plan(&source, table, CHUNK_BYTES / 4, false).await.unwrap();
        for range in [&ranges[0], &ranges[ranges.len() / 2], &ranges[ranges.len() - 1]] {
            let explain = format!("EXPLAIN SELECT *{}", rows_of(table, range));
            let rows = source.query(&explain, &[]).await.unwrap();
            let lines: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
            let condition =
                lines.iter().find(|line| line.contains("Index Cond")).cloned().unwrap_or_default();
            let bounds = [&range.lower, &range.upper].into_iter().flatten().count();
            assert_eq!(condition.matches(['<', '>']).count(), bounds, "{lines:#?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_chunk_is_read_by_a_scan_of_the_whole_table() {
    let pair = Pair::new("no_seqscan").await;
    pair.both("CREATE TABLE t (tenant uuid, id int, v text, PRIMARY KEY (tenant, id))").await;
    pair.write(
        "INSERT INTO t SELECT md5((i / 100)::text)::uuid, i, repeat('v', 1000) FROM generate_series(1, 60000) i;
         ANALYZE t",
    )
    .await;
    let scans = |kind| format!("SELECT {kind} FROM pg_stat_user_tables WHERE relname = 't'");
    let before = number(&pair.source, &scans("seq_scan")).await;
    let daemon = pair.streaming().await;
    // A session has told of its scans when it is gone.
    assert!(daemon.terminate().await.success());
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'cdc%'
                       AND datname = current_database()";
    while number(&pair.source, sessions).await > 0 {}
    assert!(number(&pair.source, &scans("idx_scan")).await >= 4);
    assert_eq!(number(&pair.source, &scans("seq_scan")).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_can_be_written_and_removed_chunk_by_chunk() {
    let pair = Pair::new("statements").await;
    let tables =
        "CREATE TABLE \"A \"\"b\" (v text, \"the id\" bigint PRIMARY KEY, twice bigint GENERATED ALWAYS AS
                    (\"the id\" * 2) STORED, n int GENERATED ALWAYS AS IDENTITY);
                  CREATE TABLE no_columns ();
                  CREATE TABLE only_generated (v int GENERATED ALWAYS AS (1) STORED);
                  CREATE TABLE parent (id uuid PRIMARY KEY) PARTITION BY HASH (id);
                  CREATE TABLE leaf PARTITION OF parent FOR VALUES WITH (MODULUS 1, REMAINDER 0)";
    pair.target.batch_execute(tables).await.unwrap();
    let (source, tables) = describe(
        &pair,
        &format!(
            "{tables}; INSERT INTO \"A \"\"b\" SELECT repeat('\\', 40), i FROM generate_series(1, 30000) i;
             INSERT INTO no_columns SELECT FROM generate_series(1, 3);
             INSERT INTO only_generated SELECT FROM generate_series(1, 3);
             INSERT INTO parent SELECT gen_random_uuid() FROM generate_series(1, 30000)"
        ),
    )
    .await;
    let target = session(&pair.target_url).await;
    for table in &tables {
        for range in plan(&source, table, CHUNK_BYTES, false).await.unwrap() {
            for _again in 0..2 {
                target
                    .batch_execute(&statements::delete(table, &range, &table.name, table.is_partitioned))
                    .await
                    .unwrap();
                let mut rows = Box::pin(
                    source.copy_out(&statements::copy_out(table, &range, Format::Text)).await.unwrap(),
                );
                let mut sink = Box::pin(
                    target.copy_in(&statements::copy_in(table, &table.name, Format::Text)).await.unwrap(),
                );
                while let Some(bytes) = rows.next().await {
                    sink.send(bytes.unwrap()).await.unwrap();
                }
                sink.close().await.unwrap();
            }
        }
    }
    pair.assert_equal().await;
    for (table, rows) in tables.iter().zip([30000, 3, 3, 30000]) {
        let count = format!("SELECT count(*) FROM {}", table.name.to_sql());
        assert_eq!(number(&target, &count).await, rows, "{}", table.name);
    }
    // The key's columns are the first of the line that the target refuses.
    let mut sink = Box::pin(
        target
            .copy_in::<_, bytes::Bytes>(&statements::copy_in(&tables[0], &tables[0].name, Format::Text))
            .await
            .unwrap(),
    );
    sink.send("7\tv\t1\n".into()).await.unwrap();
    let error = sink.close().await.unwrap_err();
    assert_eq!(error.as_db_error().unwrap().where_(), Some("COPY A \"b, line 1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_there_already_are_found_and_removed() {
    let pair = Pair::new("rows_exist").await;
    pair.target
        .batch_execute(
            "CREATE TABLE empty (id int);
             CREATE TABLE full_ (id int PRIMARY KEY); INSERT INTO full_ VALUES (1);
             CREATE TABLE parent (id int) PARTITION BY RANGE (id);
             CREATE TABLE leaf PARTITION OF parent FOR VALUES FROM (0) TO (10); INSERT INTO leaf VALUES (1);
             CREATE TABLE inherited (id int); CREATE TABLE child () INHERITS (inherited); INSERT INTO child VALUES (1);
             CREATE TABLE within (id int REFERENCES full_); INSERT INTO within VALUES (1);
             DO $$ BEGIN FOR i IN 1..1000 LOOP EXECUTE format('CREATE TABLE many_%s (id int)', i); END LOOP; END $$;
             INSERT INTO many_7 VALUES (1)",
        )
        .await
        .unwrap();
    let target = session(&pair.target_url).await;
    let names = |names: &[&str]| names.iter().map(|n| TableName::new("public", *n)).collect::<Vec<_>>();
    let mut all = names(&["empty", "full_", "parent", "leaf", "inherited", "within"]);
    all.extend((1..=1000).map(|i| TableName::new("public", format!("many_{i}"))));
    let full = names(&["full_", "parent", "leaf", "within", "many_7"]);
    assert_eq!(rows_exist(&target, &all).await.unwrap(), full);
    assert_eq!(rows_exist(&target, &[]).await.unwrap(), []);

    let fault = empty(&target, &names(&["full_", "many_7"])).await.unwrap_err();
    assert!(fault.to_string().contains("Table \"within\" references \"full_\""), "{fault}");
    assert!(fault.advice().is_some_and(|advice| advice.contains("foreign key")), "{fault}");
    assert_eq!(rows_exist(&target, &all).await.unwrap(), full, "all or none");
    empty(&target, &[]).await.unwrap();
    empty(&target, &all).await.unwrap();
    assert_eq!(rows_exist(&target, &all).await.unwrap(), []);
    assert_eq!(number(&target, "SELECT count(*) FROM public.child").await, 1);

    let fault = rows_exist(&target, &names(&["missing"])).await.unwrap_err();
    assert!(fault.to_string().contains("missing"), "{fault}");
    pair.target.batch_execute("CREATE ROLE stranger LOGIN").await.unwrap();
    let stranger = session(&pair.target_url.replace("postgres@", "stranger@")).await;
    for fault in [
        rows_exist(&stranger, &names(&["empty"])).await.unwrap_err(),
        empty(&stranger, &names(&["empty"])).await.unwrap_err(),
    ] {
        assert!(fault.advice().is_some_and(|advice| advice.contains("GRANT")), "{fault}");
    }
}
