//! What the ledger keeps of the copy.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use cdc::catalog::TableName;
use cdc::chunk::{ChunkId, KeyRange, KeyValue, Snapshot};
use cdc::connect::{ConnInfo, Environment, Session};
use cdc::demo::Cluster;
use cdc::fault::{Fault, Reaction, Result, Side};
use cdc::ledger::{
    CopiedChunk, CopiedTable, CopyProgress, Ledger, LedgerChunk, Phase, Severity, Slowdown, TableState,
    Times, record_done, record_table, send_back_sql,
};
use cdc::lsn::Lsn;
use futures_util::SinkExt;
use tokio::sync::OnceCell;

static SERVER: OnceCell<Cluster> = OnceCell::const_new();

/// A ledger in a database of its own, and a session that writes as a life of the daemon does.
struct Life {
    name: &'static str,
    epoch: i64,
    ledger: Ledger,
    writer: Session,
}

async fn session(database: &str, application_name: &str) -> Session {
    let url = SERVER.get().unwrap().url(database);
    let info = ConnInfo::parse(&url, &Environment::empty()).unwrap();
    Session::open(&info, Side::Target, application_name).await.unwrap()
}

impl Life {
    async fn first(name: &'static str) -> Self {
        SERVER.get_or_init(|| async { Cluster::start("ledger").await.unwrap() }).await;
        let create = format!("CREATE DATABASE {name}");
        session("postgres", "test").await.batch_execute(&create).await.unwrap();
        let ledger = Ledger::new(Arc::new(session(name, "test").await), name);
        ledger.create().await.unwrap();
        ledger.begin_stream(Lsn::from(1), None, &[]).await.unwrap();
        Self::after(name, ledger).await
    }

    async fn after(name: &'static str, ledger: Ledger) -> Self {
        let epoch = ledger.next_epoch().await.unwrap().unwrap();
        let writer = session(name, &format!("cdc_{name} copy")).await;
        writer.batch_execute("SET session_replication_role = replica").await.unwrap();
        Self { name, epoch, ledger, writer }
    }

    async fn next(&self) -> Self {
        Self::after(self.name, self.ledger.clone()).await
    }

    /// Does it in a transaction that is committed if it goes well.
    async fn commit(&self, work: impl Future<Output = Result<()>>) -> Result<()> {
        self.writer.batch_execute("BEGIN").await.unwrap();
        let done = work.await;
        self.writer.batch_execute(if done.is_ok() { "COMMIT" } else { "ROLLBACK" }).await.unwrap();
        done
    }

    async fn record(&self, table: &CopiedTable, ranges: &[KeyRange]) -> Result<()> {
        self.commit(record_table(&self.writer, self.name, self.epoch, table, ranges)).await
    }

    async fn done(&self, chunks: &[CopiedChunk]) -> Result<()> {
        self.commit(record_done(&self.writer, self.name, self.epoch, &snapshot(), lsn(), chunks)).await
    }

    async fn send_back(&self, id: ChunkId) -> u64 {
        let ordinal = i32::try_from(id.ordinal).unwrap();
        self.writer.execute(send_back_sql(), &[&self.name, &id.relation, &ordinal]).await.unwrap()
    }

    /// What the ledger holds: each chunk's number, whether it is done, and how often it was copied.
    async fn chunks(&self) -> Vec<(u32, u32, bool, i32)> {
        let tables = self.ledger.copied_tables().await.unwrap();
        let chunks = tables.into_iter().flat_map(|(_, chunks)| chunks);
        chunks.map(|c| (c.id.relation, c.id.ordinal, c.done.is_some(), c.copies)).collect()
    }
}

fn lsn() -> Lsn {
    Lsn::from(0x16_B374_D848)
}

fn snapshot() -> Snapshot {
    "4294967297:4294967300:4294967298".parse().unwrap()
}

fn table(relation: u32, name: &str) -> CopiedTable {
    CopiedTable {
        relation,
        name: TableName::new("public", name),
        membership: "16400,16401".to_owned(),
        key_columns: vec!["id".to_owned()],
        rows_planned: 1000,
        bytes_planned: 81_920,
    }
}

/// Two ranges that meet at this key.
fn split(at: i64) -> [KeyRange; 2] {
    let key = Some(vec![KeyValue::Integer(at)]);
    [KeyRange { lower: None, upper: key.clone() }, KeyRange { lower: key, upper: None }]
}

fn id(relation: u32, ordinal: u32) -> ChunkId {
    ChunkId { relation, ordinal }
}

fn copied(id: ChunkId, rows: i64) -> CopiedChunk {
    CopiedChunk { id, rows, bytes: rows * 10 }
}

#[tokio::test]
async fn tables_and_chunks_read_back_as_they_were_recorded() {
    let life = Life::first("reads_back").await;
    assert_eq!(life.ledger.copied_tables().await.unwrap(), []);
    let odd = CopiedTable {
        name: TableName::new("Odd \"schema\"", "ta.ble"),
        key_columns: vec!["Co,l{".to_owned(), "b".to_owned()],
        ..table(7, "")
    };
    let whole = CopiedTable { key_columns: Vec::new(), ..table(4_000_000_000, "whole") };
    life.record(&whole, &[KeyRange::ALL]).await.unwrap();
    life.record(&odd, &split(i64::MIN)).await.unwrap();
    life.done(&[copied(id(7, 1), 5)]).await.unwrap();
    let chunk = |relation, ordinal, range: &KeyRange| LedgerChunk {
        id: id(relation, ordinal),
        range: range.clone(),
        done: None,
        copies: 0,
    };
    let [low, high] = split(i64::MIN);
    let done = LedgerChunk { done: Some((snapshot(), lsn())), copies: 1, ..chunk(7, 1, &high) };
    assert_eq!(
        life.ledger.copied_tables().await.unwrap(),
        [(odd, vec![chunk(7, 0, &low), done]), (whole, vec![chunk(4_000_000_000, 0, &KeyRange::ALL)])]
    );
}

#[tokio::test]
async fn a_chunk_is_done_once_unless_it_is_sent_back() {
    let life = Life::first("done_once").await;
    life.record(&table(1, "a"), &split(10)).await.unwrap();
    life.record(&table(2, "b"), &[KeyRange::ALL]).await.unwrap();
    life.done(&[copied(id(1, 0), 5), copied(id(2, 0), 6)]).await.unwrap();
    let after = [(1, 0, true, 1), (1, 1, false, 0), (2, 0, true, 1)];
    assert_eq!(life.chunks().await, after);
    // All or none.
    for chunks in [[copied(id(1, 1), 5), copied(id(2, 0), 6)], [copied(id(1, 1), 5), copied(id(3, 0), 6)]] {
        let fault = life.done(&chunks).await.unwrap_err();
        assert_eq!((fault.reaction(), fault.side()), (Reaction::Retry, Some(Side::Target)), "{fault}");
        assert_eq!(life.chunks().await, after);
    }
    assert_eq!(life.send_back(id(2, 0)).await, 1);
    assert_eq!(life.send_back(id(2, 0)).await, 1, "a pending chunk can be sent back too");
    assert_eq!(life.chunks().await, [(1, 0, true, 1), (1, 1, false, 0), (2, 0, false, 1)]);
    life.done(&[copied(id(2, 0), 6)]).await.unwrap();
    assert_eq!(life.chunks().await, [(1, 0, true, 1), (1, 1, false, 0), (2, 0, true, 2)]);
}

#[tokio::test]
async fn a_life_that_is_over_records_nothing_and_the_next_waits_for_what_it_has_begun() {
    let earlier = Life::first("epochs").await;
    earlier.record(&table(1, "a"), &split(10)).await.unwrap();
    // A transaction that has recorded something holds the next life up until it ends.
    earlier.writer.batch_execute("BEGIN").await.unwrap();
    let chunk = [copied(id(1, 0), 5)];
    record_done(&earlier.writer, earlier.name, earlier.epoch, &snapshot(), lsn(), &chunk).await.unwrap();
    let next = tokio::spawn({
        let ledger = earlier.ledger.clone();
        async move { ledger.next_epoch().await }
    });
    let watcher = session(earlier.name, "test").await;
    let is_waiting = "SELECT FROM pg_stat_activity
                       WHERE wait_event_type = 'Lock' AND datname = current_database() AND query LIKE '%cdc.writer%'";
    while watcher.query(is_waiting, &[]).await.unwrap().is_empty() {
        assert!(!next.is_finished(), "the next life didn't wait");
    }
    earlier.writer.batch_execute("COMMIT").await.unwrap();
    next.await.unwrap().unwrap();

    let life = earlier.next().await;
    for fault in [
        earlier.record(&table(2, "b"), &split(10)).await.unwrap_err(),
        earlier.done(&[copied(id(1, 1), 5)]).await.unwrap_err(),
    ] {
        assert_eq!(fault.reaction(), Reaction::Retry, "{fault}");
        assert!(fault.to_string().contains("another daemon"), "{fault}");
    }
    assert_eq!(life.chunks().await, [(1, 0, true, 1), (1, 1, false, 0)]);
    // Nor does a session in which triggers would have fired.
    life.writer.batch_execute("RESET session_replication_role").await.unwrap();
    life.done(&[copied(id(1, 1), 5)]).await.unwrap_err();
    assert_eq!(life.chunks().await, [(1, 0, true, 1), (1, 1, false, 0)]);
}

#[tokio::test]
async fn a_thousand_tables_with_twenty_thousand_chunks_are_read_in_no_time() {
    let life = Life::first("many").await;
    let sql = "INSERT INTO cdc.copy SELECT 'many', t, 'public', 'table_' || t, '', '{id}', 1000, 81920
                 FROM generate_series(1, 1000) t;
               INSERT INTO cdc.chunk (name, relation, ordinal, range, state, snapshot, lsn)
               SELECT 'many', t, n, '{\"lower\": [1], \"upper\": [2]}', 'done', '10:10:', '0/1'
                 FROM generate_series(1, 1000) t, generate_series(0, 19) n";
    life.writer.batch_execute(sql).await.unwrap();
    let began = Instant::now();
    let tables = life.ledger.copied_tables().await.unwrap();
    let took = began.elapsed();

    assert_eq!((tables.len(), tables.iter().map(|(_, chunks)| chunks.len()).sum()), (1000, 20_000));
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test]
async fn the_copy_comes_before_the_stream_and_consistency_is_noted_once() {
    let life = Life::first("phases").await;
    assert_eq!(life.ledger.phase().await.unwrap(), Some(Phase::Copy));
    let since = async || {
        let row = life.writer.query_one("SELECT consistent_since::text FROM cdc.migration", &[]).await;
        row.unwrap().get::<_, Option<String>>(0)
    };
    assert_eq!(since().await, None);
    life.ledger.set_consistent().await.unwrap();
    let first = since().await;
    assert!(first.is_some());
    life.ledger.set_consistent().await.unwrap();
    assert_eq!(since().await, first);
    life.ledger.set_phase(Phase::Stream).await.unwrap();
    assert_eq!(life.ledger.phase().await.unwrap(), Some(Phase::Stream));
}

#[tokio::test]
async fn what_fails_stays_open_until_that_part_of_the_table_is_well() {
    let life = Life::first("failing").await;
    let ledger = &life.ledger;
    let (a, b) = (TableName::new("public", "a"), TableName::new("public", "b"));
    let fault = |what: &str| Fault::person(what).on(Side::Target).remedy("mend it");
    let open = async || {
        let incidents = ledger.incidents(100).await.unwrap();
        let open = incidents.into_iter().filter(|incident| incident.resolved_at.is_none());
        let mut open: Vec<_> =
            open.map(|i| (i.severity, i.table.unwrap_or_default(), i.message, i.count)).collect();
        open.sort();
        open
    };
    let is = |table: &str, message: &str, count| {
        ("failing".to_owned(), format!("public.{table}"), message.to_owned(), count)
    };
    ledger.record_failing(&a, "copy", &fault("no space")).await.unwrap();
    ledger.record_failing(&a, "copy", &fault("no space")).await.unwrap();
    ledger.record_failing(&a, "a_key", &fault("duplicates")).await.unwrap();
    ledger.record_failing(&b, "copy", &fault("no space")).await.unwrap();
    assert_eq!(open().await, [is("a", "duplicates", 1), is("a", "no space", 2), is("b", "no space", 1)]);
    // The same part fails in another way.
    ledger.record_failing(&a, "copy", &fault("no column")).await.unwrap();
    assert_eq!(open().await, [is("a", "duplicates", 1), is("a", "no column", 1), is("b", "no space", 1)]);
    // The stream that goes on proves nothing about it.
    ledger.resolve_incidents().await.unwrap();
    ledger.resolve_failing(&b, "a_key").await.unwrap();
    assert_eq!(open().await.len(), 3);
    ledger.resolve_failing(&a, "copy").await.unwrap();
    assert_eq!(open().await, [is("a", "duplicates", 1), is("b", "no space", 1)]);
    ledger.resolve_failing(&a, "a_key").await.unwrap();
    ledger.resolve_failing(&b, "copy").await.unwrap();
    assert_eq!(open().await, []);
    assert_eq!(ledger.incidents(100).await.unwrap().len(), 4);
}

#[tokio::test]
async fn an_incident_that_comes_and_goes_is_one_with_all_its_times_and_old_ones_are_forgotten() {
    let life = Life::first("incidents").await;
    let ledger = &life.ledger;
    let lost = Fault::unreachable(Side::Target, "the connection was lost");
    let hour = |hours: u64| Duration::from_secs(3600 * hours);
    let retrying = Severity::Retrying;
    ledger.record_incident(retrying, &lost).await.unwrap();
    ledger.resolve_incidents().await.unwrap();
    ledger.record_incident(retrying, &lost).await.unwrap();
    // Times while the ledger could not be told of it.
    let seen = Times { count: 7, first: hour(3), last: hour(1) };
    ledger.record_seen(retrying, &lost, seen).await.unwrap();
    let other = Fault::unreachable(Side::Target, "no answer");
    ledger.record_seen(Severity::Blocked, &other, Times { count: 2, ..seen }).await.unwrap();
    let sql = "SELECT message, count, round(extract(epoch FROM now() - first_at) / 3600)::int,
                      round(extract(epoch FROM now() - last_at) / 3600)::int, resolved_at IS NULL
                 FROM cdc.incident ORDER BY id";
    let all = async || {
        let rows = life.writer.query(sql, &[]).await.unwrap();
        let row = |r: &tokio_postgres::Row| (r.get(0), r.get(1), r.get(2), r.get(3), r.get(4));
        rows.iter().map(row).collect::<Vec<(String, i64, i32, i32, bool)>>()
    };
    let text = |text: &str| text.to_owned();
    assert_eq!(
        all().await,
        [(text("the connection was lost"), 9, 3, 0, true), (text("no answer"), 2, 3, 1, true)]
    );
    assert_eq!(ledger.open_incidents().await.unwrap(), 2);
    // After a longer rest it is another one.
    let rest = "UPDATE cdc.incident SET resolved_at = now() - interval '11 minutes'";
    life.writer.batch_execute(rest).await.unwrap();
    ledger.record_incident(retrying, &lost).await.unwrap();
    assert_eq!(all().await.last(), Some(&(text("the connection was lost"), 1, 0, 0, true)));

    // What slows everything is one warning at a time, and no part of the stream's own.
    let slot = |used: u8| Fault::person(format!("more than {used} percent is used")).on(Side::Source);
    for used in [50, 50, 80] {
        ledger.record_slowdown(Slowdown::Slot, &slot(used)).await.unwrap();
    }
    ledger.record_slowdown(Slowdown::Lag, &slot(1)).await.unwrap();
    ledger.resolve_incidents().await.unwrap();
    ledger.resolve_slowdown(Slowdown::Lag).await.unwrap();
    let slots = all().await.split_off(3);
    assert_eq!(
        slots,
        [
            (text("more than 50 percent is used"), 2, 0, 0, false),
            (text("more than 80 percent is used"), 1, 0, 0, true),
            (text("more than 1 percent is used"), 1, 0, 0, false),
        ]
    );
    let many = "INSERT INTO cdc.incident (name, severity, message, resolved_at)
                SELECT 'incidents', 'retrying', i::text, now() - interval '1 day' FROM generate_series(1, 1500) i";
    life.writer.batch_execute(many).await.unwrap();
    ledger.record_incident(Severity::Warning, &other).await.unwrap();
    let (kept, open) = (all().await.len(), ledger.open_incidents().await.unwrap());
    assert_eq!((kept, open), (1002, 2), "the open ones and a thousand others");
}

/// Each table's state, rows and chunks that are done.
fn details(progress: &CopyProgress) -> Vec<(&str, TableState, i64, i64)> {
    progress.details.iter().map(|t| (t.table.as_str(), t.state, t.rows, t.chunks_done)).collect()
}

#[tokio::test]
async fn the_progress_counts_what_is_done_and_what_a_running_copy_has_brought() {
    let life = Life::first("progress").await;
    let progress = async || life.ledger.copy_progress().await.unwrap().unwrap();
    assert_eq!(life.ledger.copy_progress().await.unwrap(), None);
    life.writer
        .batch_execute("CREATE TABLE public.a (id int, v text); CREATE TABLE public.b (id int)")
        .await
        .unwrap();
    life.record(&table(1, "a"), &split(10)).await.unwrap();
    life.record(&table(2, "b"), &[KeyRange::ALL]).await.unwrap();
    let none = progress().await;
    assert_eq!((none.tables, none.chunks, none.rows_planned, none.bytes_planned), (2, 3, 2000, 163_840));
    assert_eq!((none.fraction, none.rows_per_second, none.eta_seconds), (0.0, 0.0, None));
    let pending = [("public.a", TableState::Pending, 0, 0), ("public.b", TableState::Pending, 0, 0)];
    assert_eq!(details(&none), pending);

    // One COPY of a that is under way, beside one of somebody else.
    let other = session(life.name, "someone's copy").await;
    let rows: String = (0..400).map(|i| format!("{i}\t{}\n", "x".repeat(500))).collect();
    let mut copies = Vec::new();
    for writer in [&life.writer, &other] {
        writer.batch_execute("BEGIN").await.unwrap();
        let mut copy = Box::pin(writer.copy_in("COPY public.a FROM STDIN").await.unwrap());
        copy.send(bytes::Bytes::from(rows.clone())).await.unwrap();
        copy.flush().await.unwrap();
        copies.push(copy);
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    let under_way = loop {
        let now = progress().await;
        // The server reads 64 KiB at a time.
        if now.rows >= 300 {
            break now;
        }
        assert!(Instant::now() < deadline, "{now:?}");
    };
    assert!(under_way.rows <= 400 && under_way.bytes > 100_000, "{under_way:?}");
    assert!(under_way.fraction > 0.14 && under_way.fraction < 0.21, "{under_way:?}");
    assert!(under_way.rows_per_second > 0.0 && under_way.eta_seconds.is_some(), "{under_way:?}");
    assert_eq!(
        details(&under_way),
        [("public.a", TableState::Copying, under_way.rows, 0), ("public.b", TableState::Pending, 0, 0)]
    );
    assert_eq!(copies.swap_remove(0).as_mut().finish().await.unwrap(), 400);
    let chunk = [copied(id(1, 0), 400)];
    record_done(&life.writer, life.name, life.epoch, &snapshot(), lsn(), &chunk).await.unwrap();
    life.writer.batch_execute("COMMIT").await.unwrap();
    let one = progress().await;
    assert_eq!((one.tables_done, one.chunks_done, one.rows, one.bytes), (0, 1, 400, 4000));
    assert_eq!(one.fraction, 0.25);

    life.ledger.record_failing(&TableName::new("public", "b"), "copy", &Fault::person("no")).await.unwrap();
    let failed = progress().await;
    assert_eq!(
        details(&failed),
        [("public.b", TableState::Failed, 0, 0), ("public.a", TableState::Copying, 400, 1)]
    );
    life.ledger.resolve_failing(&TableName::new("public", "b"), "copy").await.unwrap();
    let sql =
        "INSERT INTO cdc.held_back (name, schema_name, table_name, kind, object_name, tablespace, put_back, put_back_at)
               VALUES ('progress', 'public', 'a', 'index', 'i', '', '{}', NULL),
                      ('progress', 'public', 'a', 'index', 'j', '', '{}', now())";
    life.writer.batch_execute(sql).await.unwrap();
    life.done(&[copied(id(1, 1), 3), copied(id(2, 0), 0)]).await.unwrap();
    life.ledger.set_consistent().await.unwrap();
    let all = progress().await;
    assert_eq!(details(&all), [("public.a", TableState::Done, 403, 2), ("public.b", TableState::Done, 0, 1)]);
    assert_eq!((all.tables_done, all.fraction, all.eta_seconds, all.held_back), (2, 1.0, Some(0.0), 1));
    assert!(all.rows_per_second > 0.0 && all.consistent_since.is_some(), "{all:?}");
}

#[tokio::test]
async fn a_rate_is_that_of_the_last_half_minute() {
    let life = Life::first("rate").await;
    life.record(&table(1, "a"), &[KeyRange::ALL, KeyRange::ALL, KeyRange::ALL, KeyRange::ALL]).await.unwrap();
    // Of the second chunk's 40 seconds half were within the last 30.
    let sql = "UPDATE cdc.chunk c
                  SET state = 'done', snapshot = '1:1:', lsn = '0/1', rows = d.rows, bytes = d.rows * 10,
                      started_at = now() - d.began, finished_at = now() - d.ended
                 FROM (VALUES (0, 5000, interval '90 s', interval '50 s'),
                              (1, 1000, interval '50 s', interval '10 s'),
                              (2, 100, interval '10 s', interval '10 s')) AS d (ordinal, rows, began, ended)
                WHERE c.ordinal = d.ordinal";
    life.writer.batch_execute(sql).await.unwrap();
    let progress = life.ledger.copy_progress().await.unwrap().unwrap();
    let is_near = |value: f64, wanted: f64| (value / wanted - 1.0).abs() < 0.05;
    assert!(is_near(progress.rows_per_second, 600.0 / 30.0), "{progress:?}");
    assert!(is_near(progress.bytes_per_second, 6000.0 / 30.0), "{progress:?}");
    assert_eq!((progress.fraction, progress.rows), (0.75, 6100));
    assert!(is_near(progress.eta_seconds.unwrap(), 0.25 / (1.5 / 4.0 / 30.0)), "{progress:?}");
}

#[tokio::test]
async fn a_ledger_that_held_back_constraints_only_is_completed_and_keeps_its_rows() {
    let life = Life::first("earlier").await;
    life.writer
        .batch_execute(
            "ALTER TABLE cdc.migration DROP COLUMN direction, DROP COLUMN is_cleared, DROP COLUMN seen;
             ALTER TABLE cdc.held_back DROP COLUMN until,
               ADD CHECK (kind IN ('index', 'constraint', 'foreign key'));
             INSERT INTO cdc.held_back (name, schema_name, table_name, kind, object_name, tablespace, put_back)
             VALUES ('earlier', 'public', 't', 'index', 'i', '', '{}')",
        )
        .await
        .unwrap();
    life.ledger.next_epoch().await.unwrap().unwrap();
    let add = "INSERT INTO cdc.held_back (name, schema_name, table_name, kind, object_name, tablespace, put_back, until)
               VALUES ('earlier', 'public', 't', 'trigger', 'g', '', '{}', 'cutover')";
    life.writer.batch_execute(add).await.unwrap();
    let held = cdc::schema::held(&*life.writer, "earlier").await.unwrap();
    let held: Vec<_> = held.iter().map(|held| (held.object.as_str(), held.until.as_str())).collect();
    assert_eq!(held, [("i", "copy"), ("g", "cutover")]);
}
