//! Everything that can break is broken, again and again, under load; afterwards both sides are equal,
//! and what every transaction keeps constant was constant at every look in between.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "all of it is a test")]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use cdc::demo::{Cluster, Stop, data::Example, writer::Writer};
use support::pair::{self, Daemon, PATIENCE, Pair, connect};
use support::proxy::{Action, Cut, Direction, Proxy};
use tokio_postgres::NoTls;

/// A bulk transaction changes this many rows: several batches, so it is applied in pieces.
const BULK_ROWS: i64 = 12_000;

/// splitmix64: the same seed gives the same faults, if not at the same moments.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn side(&mut self) -> Side {
        if self.below(2) == 0 { Side::Source } else { Side::Target }
    }
}

#[derive(Clone, Copy, Debug)]
enum Side {
    Source,
    Target,
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    /// kill -9 of the daemon.
    Kill,
    /// All connections of one side are cut, some bytes later: in the middle of a message.
    CutMidMessage(Side),
    /// The connection is cut when COMMIT has reached the target, before its answer comes back.
    CutBeforeCommitIsAnswered,
    /// Bytes of one side come one at a time for a moment, then the connection is cut.
    Trickle(Side),
    /// One side accepts everything and answers nothing, without closing anything.
    HalfOpen(Side),
    /// One server is restarted, in one of pg_ctl's ways or by kill -9 of all its processes.
    Restart(Side),
}

/// Two servers, a proxy before each, and the daemon between.
struct Arena {
    source: Cluster,
    target: Cluster,
    source_proxy: Proxy,
    target_proxy: Proxy,
    pair: Pair,
    daemon: Option<Daemon>,
    random: Random,
}

fn through(proxy: &Proxy, url: &str, cluster: &Cluster) -> String {
    let proxied = url.replace(&format!(":{}/", cluster.port()), &format!(":{}/", proxy.addr.port()));
    assert_ne!(proxied, url);
    proxied
}

impl Arena {
    async fn start(name: &str, seed: u64) -> Self {
        // A short timeout: a half-open connection is noticed by the source, too.
        let source = pair::source().setting("wal_sender_timeout", "10s").start().await.unwrap();
        let target = pair::target().start().await.unwrap();
        let address = |cluster: &Cluster| SocketAddr::from(([127, 0, 0, 1], cluster.port()));
        let source_proxy = Proxy::start(address(&source)).await;
        let target_proxy = Proxy::start(address(&target)).await;
        let mut pair = Pair::on(&source, &target, name).await;
        pair.daemon_source_url = through(&source_proxy, &pair.source_url, &source);
        pair.daemon_target_url = through(&target_proxy, &pair.target_url, &target);
        for client in [&pair.source, &pair.target] {
            for example in [Example::Salon, Example::Bank] {
                client.batch_execute(example.schema()).await.unwrap();
                example.load(client, 1).await.unwrap();
            }
        }
        pair.both("CREATE TABLE bulk (id bigint PRIMARY KEY, v bigint)").await;
        pair.assert_equal().await;
        let daemon = Some(pair.streaming().await);
        Self { source, target, source_proxy, target_proxy, pair, daemon, random: Random(seed) }
    }

    fn proxy(&self, side: Side) -> &Proxy {
        match side {
            Side::Source => &self.source_proxy,
            Side::Target => &self.target_proxy,
        }
    }

    fn fault(&mut self, round: u64) -> Fault {
        // Every second round kills; the others take turns.
        match round % 12 {
            1 | 7 => Fault::CutMidMessage(self.random.side()),
            3 => Fault::CutBeforeCommitIsAnswered,
            5 => Fault::Trickle(self.random.side()),
            9 => Fault::Restart(Side::Source),
            11 => Fault::Restart(Side::Target),
            _ => Fault::Kill,
        }
    }

    /// Strikes, and sees to it that things can go on.
    async fn strike(&mut self, fault: Fault) {
        match fault {
            Fault::Kill => {
                self.daemon.take().unwrap().kill();
                self.daemon = Some(self.pair.daemon());
            }
            Fault::CutMidMessage(side) => {
                let (bytes, before) = (self.random.below(20_000), self.proxy(side).fired());
                self.proxy(side).cut_after(busy_direction(side), bytes);
                self.fired_since(side, before).await;
            }
            Fault::CutBeforeCommitIsAnswered => {
                let before = self.target_proxy.fired();
                self.target_proxy.on_bytes(Direction::ToServer, b"COMMIT\0", Action::CutAfter);
                self.fired_since(Side::Target, before).await;
            }
            Fault::Trickle(side) => {
                self.proxy(side).trickle(true);
                tokio::time::sleep(Duration::from_millis(300)).await;
                self.proxy(side).cut_all(Cut::Reset);
                self.proxy(side).trickle(false);
            }
            Fault::HalfOpen(side) => {
                let accepted = self.proxy(side).accepted();
                self.proxy(side).blackhole(true);
                // The daemon must notice by itself and try again.
                self.until("the daemon has noticed the half-open connection", |arena| {
                    arena.proxy(side).accepted() > accepted
                })
                .await;
                self.proxy(side).blackhole(false);
            }
            Fault::Restart(side) => {
                let how = self.random.below(3);
                let cluster = match side {
                    Side::Source => &mut self.source,
                    Side::Target => &mut self.target,
                };
                match how {
                    0 => cluster.restart(Stop::Fast).await.unwrap(),
                    1 => cluster.restart(Stop::Immediate).await.unwrap(),
                    _ => {
                        cluster.crash().await.unwrap();
                        cluster.start_again().await.unwrap();
                    }
                }
            }
        }
    }

    async fn fired_since(&self, side: Side, before: u64) {
        self.until("the proxy has cut", |arena| arena.proxy(side).fired() > before).await;
    }

    async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition(self) {
            assert!(Instant::now() < deadline, "{what}: never\n{}", self.daemon.as_ref().unwrap().log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Changes applied so far.
    async fn changes(&self) -> i64 {
        let row = connect(&self.pair.target_url).await;
        let row =
            row.query_one("SELECT changes FROM cdc.checkpoint WHERE name = $1", &[&self.pair.name]).await;
        row.unwrap().get(0)
    }

    /// Waits until the stream goes on, and then for a random moment.
    async fn progress(&mut self) {
        let before = self.changes().await;
        let deadline = Instant::now() + PATIENCE;
        while self.changes().await < before + 100 {
            assert!(
                Instant::now() < deadline,
                "nothing is applied any more\n{:#}\n{}",
                self.pair.status(),
                self.daemon.as_ref().unwrap().log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(Duration::from_millis(self.random.below(400))).await;
    }
}

/// The direction in which that side's connection carries the changes.
fn busy_direction(side: Side) -> Direction {
    match side {
        Side::Source => Direction::ToClient,
        Side::Target => Direction::ToServer,
    }
}

/// Looks at the target all the time: a state that the source never had must never be seen.
async fn look(url: String, stop: Arc<AtomicBool>, looks: Arc<AtomicU64>) {
    while !stop.load(Relaxed) {
        let Ok((client, connection)) = tokio_postgres::connect(&url, NoTls).await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let connection = tokio::spawn(connection);
        let query = "SELECT (SELECT sum(balance)::bigint FROM accounts), (SELECT count(*) FROM bulk),
                            (SELECT count(DISTINCT v) FROM bulk)";
        while let Ok(row) = client.query_one(query, &[]).await {
            assert_eq!(row.get::<_, i64>(0), 1_000_000, "money was made or lost");
            let (rows, versions): (i64, i64) = (row.get(1), row.get(2));
            assert!(
                (rows, versions) == (0, 0) || (rows, versions) == (BULK_ROWS, 1),
                "half a transaction: {rows}, {versions}"
            );
            looks.fetch_add(1, Relaxed);
            if stop.load(Relaxed) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        connection.abort();
    }
}

/// Writes transactions that are larger than a batch.
async fn write_bulk(url: String, stop: Arc<AtomicBool>) {
    let statements = [
        format!("INSERT INTO bulk SELECT i, 0 FROM generate_series(1, {BULK_ROWS}) i"),
        "UPDATE bulk SET v = v + 1".to_owned(),
        "DELETE FROM bulk".to_owned(),
    ];
    let mut next = 0;
    while !stop.load(Relaxed) {
        let Ok((client, connection)) = tokio_postgres::connect(&url, NoTls).await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let connection = tokio::spawn(connection);
        // A connection that was lost during a statement leaves open whether it was committed.
        let Ok(row) = client.query_one("SELECT count(*) = 0 FROM bulk", &[]).await else { continue };
        if row.get(0) {
            next = 0;
        } else if next == 0 {
            next = 1;
        }
        while !stop.load(Relaxed) && client.batch_execute(&statements[next]).await.is_ok() {
            next = (next + 1) % statements.len();
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
        connection.abort();
    }
}

async fn torture(name: &str, kills: u64, seed: u64, half_open_every: u64) {
    let began = Instant::now();
    let mut arena = Arena::start(name, seed).await;
    let writers =
        [Example::Salon, Example::Bank].map(|e| Writer::start(&arena.pair.source_url, e, 1000, seed));
    let (stop, looks) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let looking = tokio::spawn(look(arena.pair.target_url.clone(), Arc::clone(&stop), Arc::clone(&looks)));
    let bulk = tokio::spawn(write_bulk(arena.pair.source_url.clone(), Arc::clone(&stop)));
    let mut done = std::collections::BTreeMap::<String, u64>::new();
    for round in 0..kills * 2 {
        arena.progress().await;
        let fault = if round % half_open_every == half_open_every - 1 {
            Fault::HalfOpen(if (round / half_open_every).is_multiple_of(2) {
                Side::Source
            } else {
                Side::Target
            })
        } else {
            arena.fault(round)
        };
        println!("{:6.1} s, round {round}: {fault:?}", began.elapsed().as_secs_f64());
        arena.strike(fault).await;
        *done.entry(format!("{fault:?}")).or_default() += 1;
    }
    arena.progress().await;
    let mut written = Vec::new();
    for writer in writers {
        written.push(writer.stop().await);
    }
    stop.store(true, Relaxed);
    bulk.await.unwrap();
    looking.await.unwrap();
    arena.pair.caught_up().await;
    arena.pair.assert_equal().await;
    arena
        .pair
        .status_is("at rest without lag", |s| s["lag"]["bytes"] == 0 && s["verdict"] == "streaming")
        .await;
    assert!(arena.daemon.take().unwrap().terminate().await.success());
    let rows: u64 = written.iter().map(cdc::demo::writer::Written::rows).sum();
    println!(
        "seed {seed}: {done:?}; {rows} rows written besides the bulk, {} looks, equal; {:.0} s",
        looks.load(Relaxed),
        began.elapsed().as_secs_f64()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_kills_cuts_and_restarts_lose_nothing_and_double_nothing() {
    torture("torture_short", 20, 1, 20).await;
}

/// `make torture`; `CDC_TORTURE_ROUNDS` kills, as many other faults, `CDC_TORTURE_SEED` to begin with.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes long: make torture"]
async fn hundreds_of_kills_cuts_and_restarts_lose_nothing_and_double_nothing() {
    let number =
        |name: &str, default: u64| std::env::var(name).map_or(default, |v| v.parse().expect("a number"));
    torture("torture_long", number("CDC_TORTURE_ROUNDS", 300), number("CDC_TORTURE_SEED", 2), 50).await;
}
