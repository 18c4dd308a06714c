//! The fence on real servers, by itself.

use std::time::{Duration, Instant};

use cdc::config::{Arguments, Config};
use cdc::connect::{Environment, Mode, Session};
use cdc::cutover::fence::{Fence, Patience};
use cdc::fault::Side;
use futures_util::SinkExt;
use tokio_postgres::Client;

use crate::support::pair::{Pair, connect, is_since};

const TABLES: &str = "
    CREATE TABLE plain (id int PRIMARY KEY, name text);
    CREATE TABLE message (id int, day date, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
    CREATE TABLE message_1 PARTITION OF message FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
    CREATE TABLE parent (id int);
    CREATE TABLE child (PRIMARY KEY (id)) INHERITS (parent);
    CREATE TABLE \"odd \"\"name\" (id int PRIMARY KEY REFERENCES plain ON DELETE CASCADE);
    INSERT INTO plain VALUES (1, 'one');
    INSERT INTO message VALUES (1, '2026-01-02');
    INSERT INTO child VALUES (1);";

const SHORT: Patience = Patience { wait: Duration::from_millis(400), ends_sessions: false };

fn config(pair: &Pair) -> Config {
    let text = format!(
        "name = {:?}\nsource = {:?}\ntarget = {:?}\n[tables]\nexclude = [\"public.parent\"]\n",
        pair.name, pair.daemon_source_url, pair.daemon_target_url
    );
    Config::from_text(&text, None, &Arguments::default(), &Environment::empty()).unwrap()
}

async fn session(config: &Config) -> Session {
    Session::open(&config.source, Side::Source, "cdc fence test").await.unwrap()
}

async fn refusal(client: &Client, sql: &str) -> String {
    let error = client.batch_execute(sql).await.expect_err(sql);
    client.batch_execute("ROLLBACK").await.unwrap();
    error.code().expect(sql).code().to_owned()
}

const WRITES: [&str; 9] = [
    // As PostgREST begins, and a session that has overridden everything else.
    "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; INSERT INTO plain VALUES (2, 'two')",
    "SET default_transaction_read_only = off; UPDATE plain SET name = 'uno'",
    "DELETE FROM plain",
    "TRUNCATE plain CASCADE",
    "INSERT INTO message VALUES (2, '2026-01-03')",
    "UPDATE message_1 SET id = 3",
    "DELETE FROM parent",
    "MERGE INTO plain p USING (VALUES (1)) v (id) ON p.id = v.id WHEN MATCHED THEN DELETE",
    "INSERT INTO \"odd \"\"name\" SELECT id FROM plain",
];

async fn writes_nothing(pair: &Pair, client: &Client) {
    let state = "SELECT concat((SELECT array_agg(p) FROM plain p), (SELECT array_agg(m) FROM message m),
                               (SELECT array_agg(c) FROM parent c))";
    let before: String = pair.source.query_one(state, &[]).await.unwrap().get(0);
    for write in WRITES {
        if write.starts_with("MERGE") && !is_since(15, client).await {
            continue;
        }
        assert_eq!(refusal(client, write).await, "25006", "{write}");
    }
    // The server answers a COPY only when the rows have come; the connection is of no use then.
    let copying = connect(&pair.source_url).await;
    let sink = copying.copy_in::<_, &[u8]>("COPY plain FROM STDIN").await;
    let mut sink = Box::pin(sink.unwrap());
    let copied = async {
        sink.send(b"7\tseven\n").await?;
        sink.close().await
    };
    assert!(copied.await.is_err());
    let after: String = pair.source.query_one(state, &[]).await.unwrap().get(0);
    assert_eq!(before, after);
}

/// The whole life of a fence, on one pair: each part begins where the one before has ended.
async fn a_fence_holds(pair: &Pair) {
    pair.source.batch_execute(TABLES).await.unwrap();
    let config = config(pair);
    let (ours, watcher) = (session(&config).await, session(&config).await);
    let fence = Fence::new(&ours, Side::Source, &config.name);
    let client = connect(&pair.source_url).await;
    assert_eq!(fence.state().await.unwrap(), None);
    fence.make(&config, 1, 10).await.unwrap();
    fence.make(&config, 1, 10).await.unwrap();
    client.batch_execute("INSERT INTO plain VALUES (3, 'before')").await.unwrap();

    // A table that has come meanwhile is fenced, too.
    pair.write("CREATE TABLE newcomer (id int PRIMARY KEY)").await;
    fence.close(&config, 10, SHORT, &watcher).await.unwrap();
    assert!(fence.is_closed(&config).await.unwrap());
    writes_nothing(pair, &client).await;
    assert_eq!(refusal(&client, "INSERT INTO newcomer VALUES (1)").await, "25006");
    pair.write("CREATE TABLE later (id int PRIMARY KEY)").await;
    assert!(!fence.is_closed(&config).await.unwrap());

    // Replicated rows pass, whatever the role may do.
    let applier = session(&config).await;
    applier.write_as(Mode::Owner).await.unwrap();
    applier
        .batch_execute("INSERT INTO public.plain VALUES (4, 'applied'); DELETE FROM public.message_1")
        .await
        .unwrap();
    if applier.mode().await.unwrap() == Mode::Replica {
        applier.write_as(Mode::Replica).await.unwrap();
        applier.batch_execute("INSERT INTO public.plain VALUES (5, 'replicated')").await.unwrap();
    }

    // Whoever was taken over opens and closes nothing any more.
    fence.open(11, true).await.unwrap();
    for late in [fence.open(10, false).await, fence.close(&config, 10, SHORT, &watcher).await.map(|_| ())] {
        assert!(late.unwrap_err().to_string().contains("taken over"), "a late one");
    }
    assert_eq!(fence.state().await.unwrap().unwrap().written, 0);
    applier.batch_execute("INSERT INTO public.plain VALUES (6, 'applied')").await.unwrap();
    assert_eq!(fence.state().await.unwrap().unwrap().written, 0);
    client.batch_execute("BEGIN; INSERT INTO plain VALUES (7, 'seen'); ROLLBACK").await.unwrap();
    let seen = fence.state().await.unwrap().unwrap();
    assert_eq!((seen.state.as_str(), seen.written), ("watched", 1));

    someone_is_in_the_way(pair, &config, &fence, &watcher).await;

    fence.open(12, false).await.unwrap();
    client.batch_execute("DELETE FROM plain; INSERT INTO message VALUES (9, '2026-01-09')").await.unwrap();
    fence.remove().await.unwrap();
    let left = "SELECT (SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal)
                     + (SELECT count(*) FROM pg_namespace WHERE nspname = 'cdc')";
    assert_eq!(client.query_one(left, &[]).await.unwrap().get::<_, i64>(0), 0);
}

async fn someone_is_in_the_way(pair: &Pair, config: &Config, fence: &Fence<'_>, watcher: &Session) {
    // A transaction that has written and goes on is waited for; nobody else waits for long meanwhile.
    let slow = connect(&pair.source_url).await;
    slow.batch_execute("BEGIN; INSERT INTO plain VALUES (20, 'slow')").await.unwrap();
    let fault = fence.close(config, 12, SHORT, watcher).await.unwrap_err();
    assert!(fault.to_string().contains("has written to public.plain and has not ended"), "{fault}");
    let other = connect(&pair.source_url).await;
    let began = Instant::now();
    other.batch_execute("INSERT INTO plain VALUES (21, 'other')").await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(1));
    let patient = Patience { wait: Duration::from_secs(20), ends_sessions: false };
    let (closed, committed) = tokio::join!(fence.close(config, 12, patient, watcher), async {
        // Twice in vain at least.
        tokio::time::sleep(Duration::from_millis(700)).await;
        slow.batch_execute("COMMIT").await
    });
    closed.unwrap();
    committed.unwrap();
    writes_nothing(pair, &other).await;
    fence.open(12, false).await.unwrap();

    // One that doesn't end is ended, and what it wrote is gone.
    let firm = Patience { ends_sessions: true, ..SHORT };
    let is_superuser = pair.source_url == pair.daemon_source_url;
    if !is_superuser {
        slow.batch_execute("BEGIN; DELETE FROM plain").await.unwrap();
        let fault = fence.close(config, 12, firm, watcher).await.unwrap_err();
        assert!(fault.to_string().contains("can't be ended by this role"), "{fault}");
        slow.batch_execute("ROLLBACK").await.unwrap();
    }
    let slow = connect(&pair.daemon_source_url).await;
    slow.batch_execute("BEGIN; DELETE FROM plain").await.unwrap();
    fence.close(config, 12, firm, watcher).await.unwrap();
    assert!(slow.batch_execute("COMMIT").await.is_err());
    assert!(other.query_one("SELECT count(*) FROM plain", &[]).await.unwrap().get::<_, i64>(0) > 0);
    writes_nothing(pair, &other).await;
}

#[tokio::test]
async fn nothing_but_replicated_rows_passes_a_fence() {
    a_fence_holds(&Pair::new("fence").await).await;
}

#[tokio::test]
async fn nothing_but_replicated_rows_passes_the_fence_of_an_ordinary_owner() {
    a_fence_holds(&Pair::of_owner("fence_owner").await).await;
}

/// What applications do is in no order that suits a fence, and they never rest.
#[tokio::test]
async fn a_fence_closes_among_writers_that_never_rest() {
    let pair = Pair::new("fence_busy").await;
    let tables: String = (0..6)
        .map(|i| format!("CREATE TABLE t{i} (id int PRIMARY KEY, n int); INSERT INTO t{i} SELECT i, 0 FROM generate_series(1, 50) i;"))
        .collect();
    pair.source.batch_execute(&tables).await.unwrap();
    let config = config(&pair);
    let (ours, watcher) = (session(&config).await, session(&config).await);
    let fence = Fence::new(&ours, Side::Source, &config.name);
    fence.make(&config, 1, 1).await.unwrap();
    let mut writers = Vec::new();
    for writer in 0..6_i32 {
        let url = pair.source_url.clone();
        writers.push(tokio::spawn(async move {
            let client = connect(&url).await;
            let (mut committed, mut rng) = (0, fastrand::Rng::with_seed(writer.unsigned_abs().into()));
            loop {
                // Each in an order of its own: some of these even lock in opposite orders.
                let updates: String = (0..6)
                    .map(|i| {
                        format!("UPDATE t{} SET n = n + 1 WHERE id = {};", (i * 5 + writer) % 6, writer + 1)
                    })
                    .collect();
                match client.batch_execute(&format!("BEGIN; {updates} COMMIT")).await {
                    Ok(()) => committed += 1,
                    Err(error) => {
                        client.batch_execute("ROLLBACK").await.unwrap();
                        match error.code().unwrap().code() {
                            "25006" => return (writer, committed),
                            // Two that wait for each other are PostgreSQL's to part.
                            other => assert_eq!(other, "40P01"),
                        }
                    }
                }
                tokio::time::sleep(Duration::from_micros(rng.u64(0..3_000))).await;
            }
        }));
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let began = Instant::now();
    let patience = Patience { wait: Duration::from_secs(20), ends_sessions: false };
    let since = fence.close(&config, 1, patience, &watcher).await.unwrap();
    eprintln!("closed after {:?}, {:?} of it nobody wrote", began.elapsed(), since.elapsed());
    for writer in writers {
        let (writer, committed) = writer.await.unwrap();
        let sum = "SELECT sum(n)::bigint FROM (SELECT * FROM t0 UNION ALL SELECT * FROM t1 UNION ALL SELECT * FROM t2
             UNION ALL SELECT * FROM t3 UNION ALL SELECT * FROM t4 UNION ALL SELECT * FROM t5) AS t WHERE id = $1";
        let n: i64 = pair.source.query_one(sum, &[&(writer + 1)]).await.unwrap().get(0);
        assert_eq!(n, 6 * committed, "of writer {writer}");
    }
}
