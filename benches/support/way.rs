//! The two ways to follow a source: PostgreSQL's own logical replication, and `cdc`.

use std::time::Instant;

use cdc::demo::compare::compare;
use tokio_postgres::Client;

use super::backlog::Backlog;
use super::line::line_to;
use super::process::{Daemon, copied, cpu_seconds, peak_mib};
use super::same::assert_same;
use super::{Servers, connect, drop_database, fresh_database, until, value};
use crate::copy::dump;

/// The publication of all tables, for the native way and the ceiling. `cdc` has its own.
pub const PUBLICATION: &str = "everything";

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Follower {
    Native,
    Cdc,
}

/// One that follows a database of the source into one of its own on the target. It is stopped except while it
/// is measured.
pub struct Way<'a> {
    servers: &'a Servers,
    follower: Follower,
    /// The database on the source.
    database: String,
    /// The subscription or the migration, and the database on the target.
    name: String,
    source: Client,
    pub target: Client,
    /// How the follower reaches them.
    urls: (String, String),
    daemon: Option<Daemon>,
}

/// What a backlog took.
#[derive(Clone, Copy)]
pub struct Drain {
    pub seconds: f64,
    /// Seconds of CPU: of the walsender, the backend that applies, and the daemon.
    pub cpu: [f64; 3],
    /// The daemon's memory at its most.
    pub peak_mib: f64,
}

/// The walsender of a slot, as soon as it sends from there.
pub async fn walsender(looker: &Client, slot: &str) -> i32 {
    value(looker, &format!("SELECT active_pid FROM pg_replication_slots WHERE slot_name = '{slot}'")).await
}

impl<'a> Way<'a> {
    /// Has everything copied that is there.
    pub async fn new(servers: &'a Servers, database: &str, follower: Follower, is_far: bool) -> Self {
        let kind = if follower == Follower::Native { "native" } else { "cdc" };
        let name = format!("{database}_{kind}{}", if is_far { "_far" } else { "" });
        let target = fresh_database(&servers.target, &name).await;
        let urls = if is_far {
            (line_to(&servers.source, database).await, line_to(&servers.target, &name).await)
        } else {
            (servers.source.url(database), servers.target.url(&name))
        };
        let source = connect(&servers.source.url(database)).await;
        let database = database.to_owned();
        let mut way = Self { servers, follower, database, name, source, target, urls, daemon: None };
        way.begin().await;
        way.stop().await;
        way.target.batch_execute("VACUUM ANALYZE").await.unwrap();
        way
    }

    async fn begin(&mut self) {
        match self.follower {
            Follower::Native => {
                let target_url = self.servers.target.url(&self.name);
                let url = self.servers.source.url(&self.database);
                dump(&self.servers.source, &url, &target_url, &["--schema-only", "--no-publications"]);
                let subscribe = format!(
                    "CREATE SUBSCRIPTION {} CONNECTION '{}' PUBLICATION {PUBLICATION}",
                    self.name, self.urls.0
                );
                self.target.batch_execute(&subscribe).await.unwrap();
                let ready = "(SELECT count(*) > 0 AND bool_and(srsubstate = 'r') FROM pg_subscription_rel)";
                until(&self.target, ready).await;
            }
            Follower::Cdc => {
                self.start().await;
                copied(&self.target).await;
            }
        }
    }

    fn slot(&self) -> String {
        match self.follower {
            Follower::Native => self.name.clone(),
            Follower::Cdc => format!("cdc_{}", self.name),
        }
    }

    /// Lets it follow.
    pub async fn start(&mut self) {
        match self.follower {
            Follower::Native => {
                self.target.batch_execute(&format!("ALTER SUBSCRIPTION {} ENABLE", self.name)).await.unwrap();
            }
            Follower::Cdc => self.daemon = Some(Daemon::start(&self.name, &self.urls.0, &self.urls.1)),
        }
    }

    pub async fn stop(&mut self) {
        match self.daemon.take() {
            None => {
                let sql = format!("ALTER SUBSCRIPTION {} DISABLE", self.name);
                self.target.batch_execute(&sql).await.unwrap();
            }
            Some(daemon) => daemon.stop(),
        }
        let slot = self.slot();
        until(
            &self.source,
            &format!("(SELECT NOT active FROM pg_replication_slots WHERE slot_name = '{slot}')"),
        )
        .await;
    }

    /// The backend that applies.
    async fn backend(&self) -> i32 {
        let sql = match self.follower {
            Follower::Native => {
                format!(
                    "SELECT pid FROM pg_stat_subscription WHERE relid IS NULL AND subname = '{}'",
                    self.name
                )
            }
            Follower::Cdc => {
                format!("SELECT pid FROM pg_stat_activity WHERE application_name = 'cdc_{} apply'", self.name)
            }
        };
        value(&self.target, &sql).await
    }

    /// Lets it apply a backlog, and compares. The clock runs from when the one marker is seen until the other is.
    pub async fn drain(&mut self, backlog: &Backlog) -> Drain {
        self.target.batch_execute("CHECKPOINT").await.unwrap();
        self.start().await;
        let daemon = self.daemon.as_ref().map_or(0, Daemon::pid);
        let pids = [walsender(&self.source, &self.slot()).await, self.backend().await, daemon];
        let [first, last] = backlog.markers.map(|id| format!("EXISTS (SELECT FROM marker WHERE id = {id})"));
        until(&self.target, &first).await;
        let (began, before) = (Instant::now(), pids.map(cpu_seconds));
        until(&self.target, &last).await;
        let seconds = began.elapsed().as_secs_f64();
        let mut cpu = pids.map(cpu_seconds);
        cpu.iter_mut().zip(before).for_each(|(cpu, before)| *cpu -= before);
        let drain = Drain { seconds, cpu, peak_mib: peak_mib(daemon).unwrap_or_default() };
        self.stop().await;
        assert_same(&self.source, &self.target).await;
        drain
    }

    /// Compares every row, and removes everything but the source's database.
    pub async fn end(self) {
        let target_url = self.servers.target.url(&self.name);
        let comparison = compare(&self.servers.source.url(&self.database), &target_url).await.unwrap();
        assert!(comparison.is_equal(), "{}: {comparison}", self.name);
        match self.follower {
            Follower::Native => {
                let sql = format!("DROP SUBSCRIPTION {}", self.name);
                self.target.batch_execute(&sql).await.unwrap();
            }
            Follower::Cdc => {
                let sql = format!("SELECT pg_drop_replication_slot('{}')", self.slot());
                self.source.batch_execute(&sql).await.unwrap();
            }
        }
        drop_database(&self.servers.target, &self.name).await;
    }
}

impl Drain {
    /// The one that took the median time, with the most memory of all.
    pub fn median(mut drains: Vec<Self>) -> Self {
        drains.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
        let peak_mib = drains.iter().map(|drain| drain.peak_mib).fold(0.0, f64::max);
        Self { peak_mib, ..drains[drains.len() / 2] }
    }
}
