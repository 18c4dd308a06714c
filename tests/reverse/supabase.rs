//! A source that looks like a Supabase project is written to on the way back, as its ordinary `postgres`.

use cdc::config::Direction;
use cdc::demo::Binaries;
use tokio_postgres::Client;

use super::{arrived, cleared, copies, put_back_there, turn, urls};
use crate::support::pair::{Pair, connect, target};
use crate::support::supabase;

const TABLES: [&str; 4] = ["public.profiles", "public.notes", "public.audit", "private.keys"];

/// Every row of the user's tables.
async fn rows(client: &Client) -> Vec<String> {
    let mut all = Vec::new();
    for table in TABLES {
        let sql = format!("SELECT format('{table} %s', t) COLLATE \"C\" FROM {table} AS t ORDER BY 1");
        all.extend(client.query(&sql, &[]).await.unwrap().iter().map(|row| row.get::<_, String>(0)));
    }
    all
}

/// What the users do.
async fn write(client: &Client, round: i32) {
    for sql in [
        format!(
            "INSERT INTO public.notes (id, owner, title) SELECT md5(id::text || {round})::uuid, id, 'round {round}' FROM public.profiles"
        ),
        format!("UPDATE public.profiles SET settings = settings || '{{\"round\": {round}}}'"),
        format!("DELETE FROM public.notes WHERE title = 'note {round}'"),
        format!(
            "INSERT INTO public.audit OVERRIDING SYSTEM VALUE VALUES (1000 + {round}, now(), 'round {round}')"
        ),
        format!("INSERT INTO private.keys (name, value) VALUES ('k{round}', '\\x{round:08x}')"),
    ] {
        client.batch_execute(&sql).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_gets_back_what_its_users_write_elsewhere() {
    let (project, other) = (supabase::project().await, target().start().await.unwrap());
    let mut pair = Pair::on(&project, &other, "returned").await;
    let admin = connect(&other.url("returned")).await;
    let sql = "CREATE ROLE app LOGIN REPLICATION; ALTER DATABASE returned OWNER TO app;
               CREATE ROLE anon; CREATE ROLE authenticated; CREATE ROLE service_role BYPASSRLS";
    admin.batch_execute(sql).await.unwrap();
    pair.daemon_source_url = project.url("postgres");
    pair.source_url = pair.daemon_source_url.clone();
    pair.daemon_target_url = other.url_as("app", "returned");
    let dump = std::env::var_os("CDC_SOURCE_PG_BIN").map_or_else(Binaries::find, Binaries::at).unwrap();
    pair.environment = vec![("CDC_PG_DUMP".to_owned(), dump.program("pg_dump").display().to_string())];
    pair.config = "[schema]\nstand_ins = true\n".to_owned();
    let daemon = pair.streaming().await;
    for (round, direction) in [Direction::Reverse, Direction::Forward].into_iter().enumerate() {
        turn(&pair).await;
        put_back_there(&pair).await;
        let (source, target) = urls(&pair, direction);
        let (source, target) = (connect(source).await, connect(target).await);
        write(&source, i32::try_from(round).unwrap() + 1).await;
        arrived(&pair, direction).await;
        assert_eq!(rows(&source).await, rows(&target).await);
        assert_eq!((cleared(&pair).await.len(), copies(&target).await), (3, 0));
    }
    assert!(daemon.terminate().await.success());
    let output = pair.run(&["drop", "--yes"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
}
