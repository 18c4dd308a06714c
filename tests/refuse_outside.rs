//! What happens around a stream that runs: to its role, its password, its database, its rights, its
//! ledger. It is told, nothing is skipped, and once it is mended the stream goes on by itself.

#![allow(clippy::unwrap_used, reason = "all of it is a test")]

mod support;

use cdc::demo::{Builder, Cluster};
use cdc::fault::Side::{self, Source, Target};
use futures_util::future::join_all;
use support::pair::{self, Daemon, PASSWORD, Pair, connect, number};
use tokio::sync::OnceCell;

/// Something happens to one of the databases. `{n}` is the name of the role, the database and the migration.
struct Mishap {
    name: &'static str,
    side: Side,
    /// One statement each, by the superuser in the database, or in another one if it ends with `elsewhere`.
    happens: &'static [&'static str],
    /// Whether our sessions there are ended then, so that they have to log in again.
    ends_sessions: bool,
    /// What the log says of it: what, SQLSTATE, what to do.
    says: &'static [&'static str],
    mended: &'static [&'static str],
}

/// Something that only a person can mend.
const BLOCKED: &str = "blocked: ";
/// Something that passes by itself.
const PASSES: &str = "trying again: ";

/// What can happen on either side.
const EITHER: &[Mishap] = &[
    Mishap {
        name: "password",
        side: Source,
        happens: &["ALTER ROLE {n} PASSWORD 'another'"],
        ends_sessions: true,
        says: &[
            BLOCKED,
            "can't log in to",
            "as {n}, database {n}",
            "SQLSTATE 28P01",
            "check user and password",
        ],
        mended: &["ALTER ROLE {n} PASSWORD '{password}'"],
    },
    Mishap {
        name: "nologin",
        side: Source,
        happens: &["ALTER ROLE {n} NOLOGIN"],
        ends_sessions: true,
        says: &[
            BLOCKED,
            "is not permitted to log in",
            "SQLSTATE 28000",
            "check that role {n} exists and may log in",
        ],
        mended: &["ALTER ROLE {n} LOGIN"],
    },
    Mishap {
        name: "no_role",
        side: Source,
        happens: &["ALTER ROLE {n} RENAME TO {n}_away"],
        ends_sessions: true,
        says: &[
            BLOCKED,
            "as {n}, database {n}",
            "SQLSTATE 28P01",
            "check user and password",
            "that the role exists",
        ],
        mended: &["ALTER ROLE {n}_away RENAME TO {n}"],
    },
    Mishap {
        name: "no_more",
        side: Source,
        happens: &["ALTER ROLE {n} CONNECTION LIMIT 0"],
        ends_sessions: true,
        says: &[PASSES, "too many connections for role", "SQLSTATE 53300", "end connections"],
        mended: &["ALTER ROLE {n} CONNECTION LIMIT -1"],
    },
    Mishap {
        name: "closed",
        side: Source,
        happens: &["ALTER DATABASE {n} ALLOW_CONNECTIONS false"],
        ends_sessions: true,
        says: &[
            BLOCKED,
            "is not currently accepting connections",
            "SQLSTATE 55000",
            "ALTER DATABASE ... ALLOW_CONNECTIONS true",
        ],
        mended: &["ALTER DATABASE {n} ALLOW_CONNECTIONS true"],
    },
    Mishap {
        name: "full",
        side: Source,
        happens: &["ALTER DATABASE {n} CONNECTION LIMIT 0"],
        ends_sessions: true,
        says: &[PASSES, "too many connections for database", "SQLSTATE 53300", "end connections"],
        mended: &["ALTER DATABASE {n} CONNECTION LIMIT -1"],
    },
    Mishap {
        name: "renamed",
        side: Source,
        happens: &[
            "ALTER DATABASE {n} ALLOW_CONNECTIONS false",
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = '{n}'",
            "ALTER DATABASE {n} RENAME TO {n}_away",
            "ALTER DATABASE {n}_away ALLOW_CONNECTIONS true",
        ],
        ends_sessions: false,
        says: &[BLOCKED, "database \"{n}\" does not exist", "SQLSTATE 3D000", "check the database's name"],
        mended: &["ALTER DATABASE {n}_away RENAME TO {n}"],
    },
];

/// What can happen on one side only.
const ONE_SIDE: &[Mishap] = &[
    Mishap {
        name: "no_replication",
        side: Source,
        happens: &["ALTER ROLE {n} NOREPLICATION"],
        ends_sessions: true,
        says: &[BLOCKED, "SQLSTATE 42501", "ALTER ROLE {n} REPLICATION"],
        mended: &["ALTER ROLE {n} REPLICATION"],
    },
    Mishap {
        name: "no_insert",
        side: Target,
        happens: &["REVOKE INSERT ON t FROM {n}"],
        ends_sessions: false,
        says: &[
            BLOCKED,
            "permission denied for table t",
            "table public.t",
            "LSN ",
            "SQLSTATE 42501",
            "GRANT SELECT, INSERT",
        ],
        mended: &["GRANT INSERT ON t TO {n}"],
    },
    Mishap {
        name: "other_owner",
        side: Target,
        happens: &["ALTER TABLE t OWNER TO postgres"],
        ends_sessions: false,
        says: &[
            BLOCKED,
            "permission denied for table t",
            "table public.t",
            "LSN ",
            "SQLSTATE 42501",
            "GRANT SELECT, INSERT",
        ],
        mended: &["ALTER TABLE t OWNER TO {n}"],
    },
    Mishap {
        name: "no_usage",
        side: Target,
        happens: &["ALTER SCHEMA public OWNER TO postgres", "REVOKE ALL ON SCHEMA public FROM PUBLIC"],
        ends_sessions: true,
        says: &[BLOCKED, "permission denied for schema public", "SQLSTATE 42501", "GRANT USAGE ON SCHEMA"],
        mended: &["GRANT USAGE ON SCHEMA public TO {n}", "ALTER SCHEMA public OWNER TO {n}"],
    },
    Mishap {
        name: "row_security",
        side: Target,
        happens: &["ALTER TABLE t ENABLE ROW LEVEL SECURITY", "ALTER TABLE t FORCE ROW LEVEL SECURITY"],
        ends_sessions: false,
        says: &[
            BLOCKED,
            "row-level security policy for table \"t\"",
            "table public.t",
            "SQLSTATE 42501",
            "BYPASSRLS",
        ],
        mended: &["ALTER TABLE t NO FORCE ROW LEVEL SECURITY"],
    },
    Mishap {
        name: "no_checkpoint_right",
        side: Target,
        happens: &["ALTER TABLE cdc.checkpoint OWNER TO postgres"],
        ends_sessions: false,
        says: &[
            BLOCKED,
            "permission denied for table checkpoint",
            "SQLSTATE 42501",
            "the role must own the schema cdc",
        ],
        mended: &["ALTER TABLE cdc.checkpoint OWNER TO {n}"],
    },
    Mishap {
        name: "ledger_renamed",
        side: Target,
        happens: &["ALTER SCHEMA cdc RENAME TO away"],
        ends_sessions: false,
        says: &[
            BLOCKED,
            "using the ledger (schema cdc): relation \"cdc.",
            "does not exist",
            "SQLSTATE 42P01",
            "put it back",
        ],
        mended: &["ALTER SCHEMA away RENAME TO cdc"],
    },
    Mishap {
        name: "ledger_column",
        side: Target,
        happens: &["ALTER TABLE cdc.checkpoint RENAME caught_up_to TO something"],
        ends_sessions: true,
        says: &[BLOCKED, "\"caught_up_to\"", "SQLSTATE 42703", "Run the version of cdc that made it"],
        mended: &["ALTER TABLE cdc.checkpoint RENAME something TO caught_up_to"],
    },
    Mishap {
        name: "ledger_writer_row",
        side: Target,
        happens: &["DELETE FROM cdc.writer"],
        ends_sessions: false,
        says: &["rows of this migration are missing in the ledger: cdc.writer", "put them back", BLOCKED],
        mended: &["INSERT INTO cdc.writer SELECT '{n}', 100"],
    },
    Mishap {
        name: "ledger_checkpoint_row",
        side: Target,
        happens: &["CREATE TABLE cdc.kept AS SELECT * FROM cdc.checkpoint", "DELETE FROM cdc.checkpoint"],
        ends_sessions: false,
        says: &[BLOCKED, "rows of this migration are missing in the ledger: cdc.checkpoint", "put them back"],
        mended: &["INSERT INTO cdc.checkpoint SELECT * FROM cdc.kept", "DROP TABLE cdc.kept"],
    },
    Mishap {
        name: "broken_login",
        side: Target,
        happens: &["ALTER ROLE {n} SET session_preload_libraries = 'nosuch'"],
        ends_sessions: true,
        says: &[PASSES, "nosuch", "SQLSTATE 58P01", "look at this server's log"],
        mended: &["ALTER ROLE {n} RESET session_preload_libraries"],
    },
];

struct Servers {
    source: Cluster,
    target: Cluster,
}

static SERVERS: OnceCell<Servers> = OnceCell::const_new();

/// Everybody but the superuser has to give a password.
async fn servers() -> &'static Servers {
    let cluster = |builder: Builder| async move {
        let hba = ["host all postgres 127.0.0.1/32 trust", "host all all 127.0.0.1/32 scram-sha-256"];
        let mut builder = builder.hba(hba);
        for (setting, value) in
            [("max_replication_slots", "100"), ("max_wal_senders", "100"), ("max_connections", "400")]
        {
            builder = builder.setting(setting, value);
        }
        builder.start().await.unwrap()
    };
    SERVERS
        .get_or_init(|| async {
            let (source, target) = tokio::join!(cluster(pair::source()), cluster(pair::target()));
            Servers { source, target }
        })
        .await
}

/// A pair whose daemon is an ordinary role of the migration's name, with a password.
async fn ordinary(name: &str) -> (Pair, Daemon) {
    let Servers { source, target } = servers().await;
    let mut pair = Pair::on(source, target, name).await;
    pair.both(&format!(
        "CREATE ROLE {name} LOGIN REPLICATION PASSWORD '{PASSWORD}';
         ALTER DATABASE {name} OWNER TO {name}; SET ROLE {name};
         CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (0, 'copied'); RESET ROLE"
    ))
    .await;
    for (url, cluster) in [(&mut pair.daemon_source_url, source), (&mut pair.daemon_target_url, target)] {
        *url = cluster.url_as(name, name).replacen('@', &format!(":{PASSWORD}@"), 1);
    }
    let daemon = pair.streaming().await;
    pair.write("INSERT INTO t VALUES (1, 'streamed')").await;
    pair.caught_up().await;
    (pair, daemon)
}

/// Runs statements on their own: a database can't be renamed by whoever is connected to it.
async fn execute(mishap: &Mishap, cluster: &Cluster, name: &str, statements: &[&str]) {
    for statement in statements {
        let sql = statement.replace("{n}", name).replace("{password}", PASSWORD);
        let database =
            if sql.starts_with("ALTER DATABASE") || mishap.name == "renamed" { "postgres" } else { name };
        connect(&cluster.url(database)).await.batch_execute(&sql).await.unwrap();
    }
}

/// What is said, once it is all there.
async fn says(daemon: &Daemon, name: &str, said: &[&str]) {
    for text in said {
        daemon.wait_for_log(&text.replace("{n}", name)).await;
    }
}

async fn told_and_mended(mishap: &'static Mishap, side: Side) {
    let name = format!("{}_{side}", mishap.name);
    let (pair, daemon) = ordinary(&name).await;
    let Servers { source, target } = servers().await;
    let cluster = if side == Source { source } else { target };
    execute(mishap, cluster, &name, mishap.happens).await;
    if mishap.ends_sessions {
        let end = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'cdc_{name} %'"
        );
        connect(&cluster.url("postgres")).await.batch_execute(&end).await.unwrap();
    }
    let is_away = mishap.name == "closed" || mishap.name == "renamed";
    if !(is_away && side == Source) {
        connect(&pair.source_url).await.batch_execute("INSERT INTO t VALUES (2, 'meanwhile')").await.unwrap();
    }
    says(&daemon, &name, mishap.says).await;
    let is_blocked = mishap.says.contains(&BLOCKED);
    if side == Source && is_blocked {
        let status = pair.status_is("blocked", |status| status["verdict"] == "blocked").await;
        assert_eq!(status["incidents"][0]["side"], "source", "{status:#}");
        assert!(status["incidents"][0]["remedy"].is_string(), "{status:#}");
    } else {
        assert!(matches!(pair.status_text(&[]).0, 1..=3), "{name}");
    }
    if !(is_away && side == Target) {
        let applied = number(&connect(&target.url(&name)).await, "SELECT max(id)::bigint FROM t").await;
        assert_eq!(applied, 1, "{name}: applied all the same");
    }
    execute(mishap, cluster, &name, mishap.mended).await;
    connect(&pair.source_url).await.batch_execute("INSERT INTO t VALUES (3, 'after')").await.unwrap();
    pair.caught_up().await;
    pair.status_is("over it", |status| {
        status["verdict"] == "streaming"
            && status["incidents"].as_array().unwrap().iter().all(|i| i["resolved_at"].is_string())
    })
    .await;
    if is_blocked {
        let incidents = pair.status()["incidents"].to_string();
        assert!(incidents.contains("\"blocked\""), "{name}: it is not in the ledger: {incidents}");
    }
    pair.ends_equal(daemon).await;
}

/// Side by side, as each of them waits for the daemon's next attempt.
#[tokio::test(flavor = "multi_thread")]
async fn what_happens_around_a_stream_is_told_and_it_goes_on_by_itself_when_it_is_mended() {
    let either = EITHER.iter().flat_map(|mishap| [(mishap, Source), (mishap, Target)]);
    let all: Vec<_> = either.chain(ONE_SIDE.iter().map(|mishap| (mishap, mishap.side))).collect();
    let only = std::env::var("CDC_ONLY").unwrap_or_default();
    let tasks = all
        .iter()
        .filter(|(m, _)| m.name.starts_with(&only))
        .map(|(mishap, side)| tokio::spawn(told_and_mended(mishap, *side)));
    let ends = join_all(tasks).await;
    let failed: Vec<_> =
        ends.iter().zip(&all).filter(|(end, _)| end.is_err()).map(|(_, (m, s))| (m.name, s)).collect();
    assert!(failed.is_empty(), "{failed:?}");
}
