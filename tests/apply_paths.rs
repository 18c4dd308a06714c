//! The two paths of the applier, side by side: the same transactions, once as one batch, which goes in sets,
//! and once each by itself, which goes row by row. Both find the same tables, or the same fault.

#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use cdc::apply::{Applier, Batch, Batcher, Change, Round};
use cdc::connect::{ConnInfo, Environment, Mode, Pipeline, Session};
use cdc::demo::{Cluster, compare::compare};
use cdc::fault::Side;
use cdc::ledger::Ledger;
use cdc::lsn::Lsn;
use cdc::pgoutput::{Decoder, Message, ProtoVersion, Relations};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::sync::mpsc;
use tokio_postgres::{Client, NoTls};

/// Tables alike on both sides but for what `ON_TARGET` does to them. `v` is what updates change.
const TABLES: &str = "
    CREATE TABLE plain (k int PRIMARY KEY, u int UNIQUE, v text);
    CREATE TABLE pair (k text, l date DEFAULT '2026-01-01', v numeric, PRIMARY KEY (k, l));
    CREATE TABLE toasted (k int PRIMARY KEY, big text, v text);
    ALTER TABLE toasted ALTER big SET STORAGE EXTERNAL;
    CREATE TABLE wider (k int PRIMARY KEY, v text);
    CREATE TABLE always (k int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text);
    CREATE TABLE number (k numeric PRIMARY KEY, v xml);
    CREATE TABLE whole (k int, v jsonb);
    ALTER TABLE whole REPLICA IDENTITY FULL";

const ON_SOURCE: &str = "CREATE TABLE parted (k int PRIMARY KEY, v text)";

const ON_TARGET: &str = "
    ALTER TABLE wider ADD extra text DEFAULT 'the target''s';
    CREATE TABLE parted (k int PRIMARY KEY, v text) PARTITION BY RANGE (k);
    CREATE TABLE parted_low PARTITION OF parted FOR VALUES FROM (MINVALUE) TO (4);
    CREATE TABLE parted_high PARTITION OF parted FOR VALUES FROM (4) TO (MAXVALUE)";

const NAMES: [&str; 8] = ["plain", "pair", "toasted", "wider", "always", "number", "whole", "parted"];

/// From how many changes on a batch of many ends.
const LARGE: usize = 80;

/// The tables that take part in a run. Of few, each has enough changes to be written in sets.
type Cast = [usize; 3];

/// A change of a row of a table, by its number in the cast; keys are few, so that they meet.
#[derive(Clone, Debug)]
enum Deed {
    Insert(usize, u8, u8),
    Update(usize, u8, u8),
    Delete(usize, u8),
    Move(usize, u8, u8),
    Truncate(usize),
}

impl Deed {
    /// Values are made so that text needs quoting, and some are out of line.
    fn sql(&self, cast: &Cast) -> String {
        let value = |table: &str, v: u8| match table {
            "pair" => format!("{v}.0"),
            "number" => format!("'<v>{v}</v>'"),
            "whole" => format!("'{{\"v\": {v}}}'"),
            _ => format!("E'{v}\\t\\\\N\\n\"{{,}}'"),
        };
        let name = |table: usize| NAMES[cast[table]];
        match *self {
            Self::Insert(t, k, v) => {
                let (more, values) = match name(t) {
                    "plain" => (", u", format!(", {}", v % 5)),
                    "toasted" => (", big", format!(", repeat('{v}', 3000)")),
                    _ => ("", String::new()),
                };
                format!(
                    "INSERT INTO {0} (k, v{more}) OVERRIDING SYSTEM VALUE VALUES ({k}, {1}{values})",
                    name(t),
                    value(name(t), v)
                )
            }
            Self::Update(t, k, v) => {
                let more = match name(t) {
                    "plain" if v % 2 == 0 => format!(", u = {}", v % 5),
                    "toasted" if v % 4 == 0 => format!(", big = repeat('{v}', 3000)"),
                    _ => String::new(),
                };
                format!("UPDATE {0} SET v = {1}{more} WHERE k::text = '{k}'", name(t), value(name(t), v))
            }
            Self::Delete(t, k) => format!("DELETE FROM {} WHERE k::text = '{k}'", name(t)),
            Self::Move(t, k, l) if name(t) == "always" => {
                format!(
                    "DELETE FROM always WHERE k = {k}; INSERT INTO always OVERRIDING SYSTEM VALUE VALUES ({l}, '')"
                )
            }
            Self::Move(t, k, l) => format!("UPDATE {} SET k = {l} WHERE k::text = '{k}'", name(t)),
            Self::Truncate(t) => format!("TRUNCATE {}", name(t)),
        }
    }
}

fn deed() -> impl Strategy<Value = Deed> {
    let (table, key) = (0..3usize, 0u8..8);
    prop_oneof![
        40 => (table.clone(), key.clone(), any::<u8>()).prop_map(|(t, k, v)| Deed::Insert(t, k, v)),
        40 => (table.clone(), key.clone(), any::<u8>()).prop_map(|(t, k, v)| Deed::Update(t, k, v)),
        25 => (table.clone(), key.clone()).prop_map(|(t, k)| Deed::Delete(t, k)),
        10 => (table.clone(), key.clone(), key).prop_map(|(t, k, l)| Deed::Move(t, k, l)),
        1 => table.prop_map(Deed::Truncate),
    ]
}

/// What somebody has done to the targets beforehand.
#[derive(Clone, Debug)]
enum Damage {
    None,
    Lacks(usize, u8),
    HasMore(usize, u8),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        3 => Just(Damage::None),
        1 => (0..3usize, 0u8..8).prop_map(|(t, k)| Damage::Lacks(t, k)),
        1 => (0..3usize, 0u8..8).prop_map(|(t, k)| Damage::HasMore(t, k)),
    ]
}

impl Damage {
    fn sql(&self, cast: &Cast) -> String {
        match *self {
            Self::None => String::new(),
            Self::Lacks(table, k) => format!("DELETE FROM {} WHERE k::text = '{k}'", NAMES[cast[table]]),
            Self::HasMore(table, k) => {
                let table = NAMES[cast[table]];
                format!("INSERT INTO {table} (k) OVERRIDING SYSTEM VALUE VALUES ({k}) ON CONFLICT DO NOTHING")
            }
        }
    }
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// A source with a slot and two targets, in databases of one server.
struct World {
    cluster: Cluster,
    source: Client,
    relations: Relations,
    decoder: Decoder,
}

/// A target, and the applier's way there.
struct Target {
    client: Client,
    info: ConnInfo,
    session: Arc<Session>,
    epoch: i64,
}

impl Target {
    async fn new(cluster: &Cluster, name: &str) -> Self {
        let client = connect(&cluster.url(name)).await;
        client.batch_execute(&format!("{TABLES}; {ON_TARGET}")).await.unwrap();
        let info = ConnInfo::parse(&cluster.url(name), &Environment::empty()).unwrap();
        let open = || Session::open(&info, Side::Target, "test");
        let ledger = Ledger::new(Arc::new(open().await.unwrap()), "paths");
        ledger.create().await.unwrap();
        ledger.begin_stream(Lsn::from(1), None, &[]).await.unwrap();
        let epoch = ledger.next_epoch().await.unwrap().unwrap();
        let session = Arc::new(open().await.unwrap());
        Self { client, info, session, epoch }
    }

    /// What becomes of the batches: how many changes were applied in sets, and what has stopped it. The applier knows
    /// nothing of earlier ones; a table that failed in one doesn't rest. It has two batches at a time.
    async fn apply(&self, batches: &[Batch]) -> (usize, Option<String>) {
        let mut pipeline = Pipeline::open(&self.info, Side::Target, "test").await.unwrap();
        pipeline.write_as(Mode::Replica).await.unwrap();
        let ends = (pipeline, Arc::clone(&self.session));
        let applier = Applier::new(ends, "paths", self.epoch, Mode::Replica, HashMap::new(), HashMap::new());
        let (rounds, rounds_in) = mpsc::channel(2);
        let (answers_out, mut answers) = mpsc::channel(2);
        tokio::spawn(applier.serve(rounds_in, answers_out));
        let (mut in_sets, mut sent) = (0, 0);
        for done in 0..batches.len() {
            for batch in &batches[sent..batches.len().min(done + 2)] {
                let batch = batch.clone();
                let round = Round { batch, caught_up_to: None, roots: Vec::new(), known: Vec::new() };
                // An applier that has failed takes no more.
                let _ = rounds.send(round).await;
                sent += 1;
            }
            match answers.recv().await.unwrap() {
                Ok(applied) => in_sets += applied.in_sets,
                Err(failure) => return (in_sets, Some(failure.fault.to_string())),
            }
        }
        (in_sets, None)
    }
}

impl World {
    async fn new() -> Self {
        let cluster = Cluster::start("paths").await.unwrap();
        let admin = connect(&cluster.url("postgres")).await;
        for name in ["source", "sets", "rows"] {
            admin.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        }
        let source = connect(&cluster.url("source")).await;
        source
            .batch_execute(&format!("{TABLES}; {ON_SOURCE}; CREATE PUBLICATION p FOR ALL TABLES"))
            .await
            .unwrap();
        source.execute("SELECT pg_create_logical_replication_slot('s', 'pgoutput')", &[]).await.unwrap();
        Self { cluster, source, relations: Relations::new(), decoder: Decoder::new(ProtoVersion::V1) }
    }

    /// Does a transaction; deeds that the source's constraints forbid are left out of it.
    async fn transact(&self, deeds: &[Deed], cast: &Cast) {
        let blocks: String = deeds
            .iter()
            .map(|deed| format!("BEGIN {}; EXCEPTION WHEN unique_violation THEN NULL; END; ", deed.sql(cast)))
            .collect();
        self.source.batch_execute(&format!("DO $do$ BEGIN {blocks} END $do$")).await.unwrap();
    }

    /// What the slot has to tell: as batches of many changes, and as one for each transaction.
    async fn stream(&mut self) -> (Vec<Batch>, Vec<Batch>) {
        let sql = "SELECT data FROM pg_logical_slot_get_binary_changes('s', NULL, NULL, 'proto_version', '1',
                                                                       'publication_names', 'p')";
        let messages = self.source.query(sql, &[]).await.unwrap();
        let (mut together, mut each) = (Batcher::new(Lsn::ZERO, vec![]), Batcher::new(Lsn::ZERO, vec![]));
        let (mut large, mut batches, mut changes) = (Vec::new(), Vec::new(), 0);
        for message in messages {
            let message = self.decoder.decode(Bytes::from(message.get::<_, Vec<u8>>(0))).unwrap();
            if let Message::Commit(commit) = &message {
                together.commit(commit).unwrap();
                each.commit(commit).unwrap();
                batches.extend(each.take());
                if changes >= LARGE {
                    large.extend(together.take());
                    changes = 0;
                }
                continue;
            }
            if let Message::Begin(begin) = &message {
                together.begin(begin).unwrap();
                each.begin(begin).unwrap();
                continue;
            }
            if let Some(change) = self.change(message) {
                changes += 1;
                together.change(change.clone()).unwrap();
                each.change(change).unwrap();
            }
        }
        large.extend(together.take());
        (large, batches)
    }

    fn change(&mut self, message: Message) -> Option<Change> {
        let find = |oid: u32| Arc::clone(self.relations.get(oid).unwrap());
        Some(match message {
            Message::Relation(relation) => {
                self.relations.update(relation);
                return None;
            }
            Message::Insert { relation, new } => Change::Insert { relation: find(relation), new },
            Message::Update { relation, old, new } => Change::Update { relation: find(relation), old, new },
            Message::Delete { relation, old } => Change::Delete { relation: find(relation), old },
            Message::Truncate(truncate) => Change::Truncate {
                relations: truncate.relations.iter().map(|oid| find(*oid)).collect(),
                restart_identity: truncate.restart_identity,
            },
            _ => return None,
        })
    }

    /// The differences between two databases, for people; empty if there are none.
    async fn differences(&self, a: &str, b: &str) -> String {
        let comparison = compare(&self.cluster.url(a), &self.cluster.url(b)).await.unwrap();
        if comparison.is_equal() { String::new() } else { comparison.to_string() }
    }
}

#[test]
fn both_paths_find_the_same_tables_or_the_same_fault() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let world = runtime.block_on(World::new());
    let [sets, rows] = ["sets", "rows"].map(|name| runtime.block_on(Target::new(&world.cluster, name)));
    let cases = std::env::var("PROPTEST_CASES").map_or(16, |cases| cases.parse().unwrap());
    let transaction = || proptest::collection::vec(deed(), 1..12);
    let before = proptest::collection::vec(deed(), 20..40);
    let transactions = proptest::collection::vec(transaction(), 30..50);
    let cast = prop::sample::subsequence((0..NAMES.len()).collect::<Vec<_>>(), 3);
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 60, ..Config::default() };
    let shared = RefCell::new((world, 0, 0, 0));
    let result = TestRunner::new(config).run(
        &(cast, before, damage(), transactions),
        |(cast, before, damage, story)| {
            let cast: Cast = cast.try_into().unwrap();
            let (world, in_sets, in_all, failed) = &mut *shared.borrow_mut();
            runtime.block_on(async {
                for client in [&world.source, &sets.client, &rows.client] {
                    client.batch_execute(&format!("TRUNCATE {}", NAMES.join(", "))).await.unwrap();
                }
                world.stream().await;
                world.transact(&before, &cast).await;
                let (first, _) = world.stream().await;
                for target in [&sets, &rows] {
                    assert_eq!(target.apply(&first).await.1, None);
                    target.client.batch_execute(&damage.sql(&cast)).await.unwrap();
                }
                for deeds in &story {
                    world.transact(deeds, &cast).await;
                }
                let (together, each) = world.stream().await;
                let (row_sets, row_fault) = rows.apply(&each).await;
                let (set_changes, set_fault) = sets.apply(&together).await;
                prop_assert_eq!(row_sets, 0, "a small transaction goes row by row");
                prop_assert_eq!(&set_fault, &row_fault);
                prop_assert_eq!(world.differences("sets", "rows").await, "");
                *in_sets += set_changes;
                *in_all += together.iter().map(Batch::changes).sum::<usize>();
                *failed += usize::from(set_fault.is_some());
                Ok(())
            })
        },
    );
    result.unwrap();
    let (_world, in_sets, in_all, failed) = shared.into_inner();
    println!("{in_sets} of {in_all} changes in sets; {failed} of {cases} runs met the damage");
    assert!(in_sets * 10 > in_all, "{in_sets} of {in_all} changes were applied in sets");
}

/// Two rows that exchange a unique value meet in one UPDATE, and behind it waits the COPY of new rows.
#[tokio::test]
async fn a_statement_that_fails_before_a_copy_leaves_the_session_in_order() {
    let mut world = World::new().await;
    let target = Target::new(&world.cluster, "sets").await;
    let fill = "INSERT INTO plain SELECT i, i, 'old' FROM generate_series(1, 40) i";
    let exchange = "UPDATE plain SET u = NULL WHERE k = 1; UPDATE plain SET u = 1 WHERE k = 2;
                    UPDATE plain SET u = 2 WHERE k = 1; UPDATE plain SET v = 'new';
                    INSERT INTO plain SELECT i, i, 'more' FROM generate_series(41, 80) i";
    for sql in [fill, exchange] {
        world.source.batch_execute(sql).await.unwrap();
        let (batches, _) = world.stream().await;
        let (in_sets, fault) = target.apply(&batches).await;
        assert_eq!((in_sets > 0, fault), (sql == fill, None));
    }
    let u = "SELECT u FROM plain WHERE k <= 2 ORDER BY k";
    let u: Vec<i32> = target.client.query(u, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(u, [2, 1]);
    let count = target.client.query_one("SELECT count(*) FROM plain", &[]).await.unwrap();
    assert_eq!(count.get::<_, i64>(0), 80);
}

/// A cast shortens what it is given; an input function refuses it.
#[tokio::test]
async fn a_value_that_the_targets_domain_does_not_take_is_refused_and_not_shortened() {
    let mut world = World::new().await;
    let target = Target::new(&world.cluster, "sets").await;
    world.source.batch_execute("CREATE TABLE short (k int PRIMARY KEY, v text)").await.unwrap();
    target
        .client
        .batch_execute("CREATE DOMAIN three AS varchar(3); CREATE TABLE short (k int PRIMARY KEY, v three)")
        .await
        .unwrap();
    let fill = "INSERT INTO short SELECT i, 'abc' FROM generate_series(1, 40) i";
    for (sql, refused) in [
        (fill, None),
        ("UPDATE short SET v = 'abcdef'", Some("value too long for type character varying(3)")),
        ("INSERT INTO short SELECT i, 'abcdef' FROM generate_series(41, 80) i", Some("value too long")),
    ] {
        world.source.batch_execute(sql).await.unwrap();
        let (batches, _) = world.stream().await;
        let fault = target.apply(&batches).await.1;
        match refused {
            None => assert_eq!(fault, None, "{sql}"),
            Some(refused) => assert!(fault.as_ref().is_some_and(|f| f.contains(refused)), "{sql}: {fault:?}"),
        }
    }
    let rows = target.client.query_one("SELECT count(*), min(v), max(v) FROM short", &[]).await.unwrap();
    let [least, greatest]: [String; 2] = [rows.get(1), rows.get(2)];
    assert_eq!((rows.get::<_, i64>(0), &*least, &*greatest), (40, "abc", "abc"));
}

#[tokio::test]
async fn what_comes_before_a_change_that_can_not_be_sent_is_committed() {
    let mut world = World::new().await;
    let target = Target::new(&world.cluster, "sets").await;
    world.source.batch_execute("CREATE TABLE nowhere (k int PRIMARY KEY)").await.unwrap();
    for sql in
        ["INSERT INTO plain VALUES (1)", "INSERT INTO plain VALUES (2); INSERT INTO nowhere VALUES (1)"]
    {
        world.source.batch_execute(sql).await.unwrap();
    }
    let (batches, _) = world.stream().await;
    let (_, fault) = target.apply(&batches).await;
    assert!(fault.as_ref().is_some_and(|fault| fault.contains("public.nowhere")), "{fault:?}");
    let rows = target.client.query_one("SELECT count(*) FROM plain", &[]).await.unwrap();
    assert_eq!(rows.get::<_, i64>(0), 1);
}
