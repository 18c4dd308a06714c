//! The two servers: a source with a busy salon's database, and a target with an empty one. On both, an ordinary role
//! owns it.

use tokio_postgres::{Client, NoTls};

use crate::config::Arguments;
use crate::demo::Cluster;
use crate::demo::data::Example;
use crate::fault::{Fault, Result, Side};
use crate::lsn::Lsn;

/// What the application's database is.
pub(super) const EXAMPLE: Example = Example::Salon;

/// Who owns the databases, and whom `cdc` connects as.
const OWNER: &str = "app";

/// Roles that policies and grants of the schema name; an administrator's business on either side.
const ROLES: &str = "CREATE ROLE anon; CREATE ROLE authenticated; CREATE ROLE service_role";

/// Tables (a partitioned one counts once), their rows, and their size in bytes with the indexes.
const STOCK: &str = "
    SELECT count(*) FILTER (WHERE NOT relispartition),
           sum(reltuples) FILTER (WHERE relkind = 'r')::bigint,
           sum(pg_total_relation_size(oid)) FILTER (WHERE relkind = 'r')::bigint
      FROM pg_class
     WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace";

/// Both servers. Dropping them ends them and removes their files.
pub(super) struct Servers {
    source: Cluster,
    target: Cluster,
}

/// What is in the source's database before anything moves.
pub(super) struct Stock {
    pub(super) tables: u64,
    pub(super) rows: u64,
    pub(super) bytes: u64,
}

/// Three rows that are not as on the source.
const CORRUPTION: &str = "
    WITH changed AS (
      UPDATE clients SET total_spent = total_spent + 0.01, visit_history = visit_history || '[\"never\"]'
       WHERE id = (SELECT max(id) FROM clients) RETURNING 'different public.clients id=' || id AS row),
    removed AS (
      DELETE FROM reminders WHERE id = (SELECT max(id) FROM reminders)
      RETURNING 'missing public.reminders id=' || id AS row),
    added AS (
      INSERT INTO companies (id, title) VALUES (1, 'nobody''s') RETURNING 'extra public.companies id=' || id AS row)
    SELECT array_agg(row) FROM (TABLE changed UNION ALL TABLE removed UNION ALL TABLE added) AS all_of_them";

impl Servers {
    /// Starts both.
    pub(super) async fn start() -> Result<Self> {
        let server = async |name| {
            Cluster::builder(name)
                .without_template()
                .setting("shared_buffers", "128MB")
                .setting("max_wal_size", "4GB")
                .start()
                .await
        };
        // Both to their end, also if one fails: what is still being made can't be removed.
        let (source, target) = tokio::join!(server("demo-source"), server("demo-target"));
        Ok(Self { source: source?, target: target? })
    }

    /// The version of PostgreSQL that they run.
    pub(super) fn major(&self) -> u32 {
        self.source.binaries().major()
    }

    pub(super) fn source_url(&self) -> String {
        self.source.url_as(OWNER, EXAMPLE.name())
    }

    pub(super) fn target_url(&self) -> String {
        self.target.url_as(OWNER, EXAMPLE.name())
    }

    /// What tells `cdc` of them. No file of the user's is read, and no password is needed.
    pub(super) fn arguments(&self) -> Arguments {
        Arguments {
            file: Some("/dev/null".into()),
            name: Some("demo".into()),
            source: Some(self.source_url()),
            target: Some(self.target_url()),
        }
    }

    /// Makes both databases, and fills the source's.
    pub(super) async fn furnish(&self, scale: u32) -> Result<Stock> {
        let database = format!("CREATE DATABASE {} OWNER {OWNER}", EXAMPLE.name());
        // On the target it replicates for the way back.
        for (side, cluster) in [(Side::Source, &self.source), (Side::Target, &self.target)] {
            let admin = connect(side, &cluster.url("postgres")).await?;
            for sql in [&format!("CREATE ROLE {OWNER} LOGIN REPLICATION; {ROLES}"), &database] {
                let made = admin.batch_execute(sql).await;
                made.map_err(|e| Fault::sql(side, "making the demo's database", &e))?;
            }
        }
        let source = connect(Side::Source, &self.source_url()).await?;
        let made = source.batch_execute(EXAMPLE.schema()).await;
        made.map_err(|e| Fault::sql(Side::Source, "making the demo's tables", &e))?;
        EXAMPLE.load(&source, scale).await?;
        let fault = |e| Fault::sql(Side::Source, "counting the demo's rows", &e);
        source.batch_execute("ANALYZE").await.map_err(fault)?;
        let row = source.query_one(STOCK, &[]).await.map_err(fault)?;
        let number = |column| row.get::<_, i64>(column).unsigned_abs();
        Ok(Stock { tables: number(0), rows: number(1), bytes: number(2) })
    }

    /// Changes a row of the target, removes one and adds one, where nothing keeps one from it. Gives them as a
    /// verification names them, in order.
    pub(super) async fn corrupt(&self) -> Result<Vec<String>> {
        let target = connect(Side::Target, &self.target.url(EXAMPLE.name())).await?;
        let fault = |e| Fault::sql(Side::Target, "changing the target", &e);
        target.batch_execute("SET session_replication_role = replica").await.map_err(fault)?;
        let row = target.query_one(CORRUPTION, &[]).await.map_err(fault)?;
        let mut made: Vec<String> = row.get(0);
        made.sort();
        Ok(made)
    }

    /// What the application does once it is there: changes some rows, and gives how many.
    pub(super) async fn use_target(&self) -> Result<u64> {
        let target = connect(Side::Target, &self.target_url()).await?;
        let sql = "UPDATE clients SET total_spent = total_spent + 1 WHERE id IN (SELECT id FROM clients ORDER BY id LIMIT 100)";
        target.execute(sql, &[]).await.map_err(|e| Fault::sql(Side::Target, "writing to the target", &e))
    }

    /// The position up to which the source has written.
    pub(super) async fn written(&self) -> Result<Lsn> {
        let source = connect(Side::Source, &self.source_url()).await?;
        let row = source.query_one("SELECT pg_current_wal_insert_lsn()", &[]).await;
        Ok(row.map_err(|e| Fault::sql(Side::Source, "asking for the position", &e))?.get(0))
    }
}

async fn connect(side: Side, url: &str) -> Result<Client> {
    let connected = tokio_postgres::connect(url, NoTls).await;
    let (client, connection) = connected.map_err(|e| Fault::sql(side, "connecting", &e))?;
    // What goes wrong with the connection also fails the query in progress.
    tokio::spawn(connection);
    Ok(client)
}
