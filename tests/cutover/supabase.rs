//! A project that looks like one of Supabase moves to an ordinary owner's database, and back.

use cdc::demo::Binaries;
use tokio_postgres::Client;

use super::command::switch;
use crate::support::pair::{Pair, connect, number, target};
use crate::support::supabase;

async fn write(client: &Client, round: i32) {
    for sql in [
        format!(
            "INSERT INTO public.notes (id, owner, title) SELECT md5(id::text || {round})::uuid, id, 'round {round}' FROM public.profiles"
        ),
        format!("UPDATE public.profiles SET settings = settings || '{{\"round\": {round}}}'"),
        format!("INSERT INTO private.keys (name, value) VALUES ('k{round}', '\\x{round:08x}')"),
    ] {
        client.batch_execute(&sql).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_moves_to_an_ordinary_owners_database_and_back() {
    let (project, other) = (supabase::project().await, target().start().await.unwrap());
    let mut pair = Pair::on(&project, &other, "moved").await;
    let admin = connect(&other.url("moved")).await;
    let sql = "CREATE ROLE app LOGIN REPLICATION; ALTER DATABASE moved OWNER TO app;
               CREATE ROLE anon; CREATE ROLE authenticated; CREATE ROLE service_role BYPASSRLS";
    admin.batch_execute(sql).await.unwrap();
    pair.daemon_source_url = project.url("postgres");
    pair.source_url = pair.daemon_source_url.clone();
    pair.daemon_target_url = other.url_as("app", "moved");
    pair.target_url = pair.daemon_target_url.clone();
    let dump = std::env::var_os("CDC_SOURCE_PG_BIN").map_or_else(Binaries::find, Binaries::at).unwrap();
    pair.environment = vec![("CDC_PG_DUMP".to_owned(), dump.program("pg_dump").display().to_string())];
    pair.config = "[schema]\nstand_ins = true\n".to_owned();
    let daemon = pair.streaming().await;
    let titles = "SELECT count(*) FROM public.notes";
    for (round, way) in ["cutover", "rollback"].into_iter().enumerate() {
        let (status, report) = switch(&pair, &[way, "--yes"]);
        assert_eq!((status, &report["outcome"]), (0, &"switched".into()), "{report:#}\n{}", daemon.log());
        let (new, old) = match way {
            "cutover" => (&pair.target_url, &pair.source_url),
            _ => (&pair.source_url, &pair.target_url),
        };
        let (new, old) = (connect(new).await, connect(old).await);
        write(&new, i32::try_from(round).unwrap() + 1).await;
        let refused = old.batch_execute("BEGIN READ WRITE; DELETE FROM public.notes").await.unwrap_err();
        assert_eq!(refused.code().unwrap().code(), "25006", "{refused:?}");
        old.batch_execute("ROLLBACK").await.unwrap();
        let wanted = number(&new, titles).await;
        let deadline = std::time::Instant::now() + crate::support::pair::PATIENCE;
        while number(&old, titles).await != wanted {
            assert!(std::time::Instant::now() < deadline, "{:#}\n{}", pair.status(), daemon.log());
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert_eq!(pair.run(&["verify"]).status.code(), Some(0));
    }
    assert!(daemon.terminate().await.success());
    let output = pair.run(&["drop", "--yes"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
}
