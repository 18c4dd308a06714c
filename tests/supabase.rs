//! A source that looks like a Supabase project: what refers to its parts is found, and can be stood in for.

#![allow(clippy::unwrap_used, reason = "all of it is a test")]

mod support;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cdc::config::{Arguments, Config};
use cdc::connect::{Environment, Session};
use cdc::demo::{Binaries, Cluster};
use cdc::fault::Side;
use cdc::schema::{has_stand_in, make_stand_ins, references, stays_behind};
use support::pair::{Pair, connect, number, target};
use support::supabase;
use tokio::task::JoinHandle;
use tokio_postgres::Client;

async fn session(url: &str, side: Side) -> Session {
    let url = Some(url.to_owned());
    let arguments = Arguments { file: None, name: None, source: url.clone(), target: url };
    let config = Config::load(&arguments, &Environment::empty()).unwrap();
    Session::open(&config.source, side, "test").await.unwrap()
}

/// Everything of the user's that refers to what is Supabase's, and to what.
const REFERENCES: [&str; 22] = [
    "default private.keys.value refers to extension pgcrypto",
    "default public.notes.id refers to extension \"uuid-ossp\"",
    "default public.notes.owner refers to function auth.uid()",
    "default public.notes.token refers to extension pgcrypto",
    "policy public.notes.\"own notes\" refers to function auth.uid()",
    "policy public.notes.\"service sees all\" refers to role service_role",
    "policy public.notes.admins refers to function auth.jwt()",
    "policy public.notes.admins refers to function auth.role()",
    "table public.notes is published to supabase_realtime",
    "webhook public.notes.\"tell the shop\" refers to function supabase_functions.http_request()",
    "column public.profiles.handle refers to extension citext",
    "foreign key public.profiles.profiles_id_fkey refers to table auth.users",
    "policy public.profiles.\"own profile\" refers to function auth.uid()",
    "policy public.profiles.\"own profile\" refers to role authenticated",
    "function public.my_email() names auth.uid",
    "function public.my_email() names auth.users",
    "view public.people refers to table auth.users",
    "function public.ping() names net.http_post",
    "grants on 14 objects to role anon",
    "grants on 14 objects to role authenticated",
    "grants on 14 objects to role service_role",
    "cron job cleanup (0 3 * * *) refers to extension pg_cron",
];

#[tokio::test(flavor = "multi_thread")]
async fn what_refers_to_supabase_is_listed_and_stood_in_for() {
    let project = supabase::project().await;
    let other = target().start().await.unwrap();
    let admin = connect(&other.url("postgres")).await;
    admin.batch_execute("CREATE ROLE app LOGIN").await.unwrap();
    admin.batch_execute("CREATE DATABASE app OWNER app").await.unwrap();
    let source = session(&project.url("postgres"), Side::Source).await;
    let owner = session(&other.url_as("app", "app"), Side::Target).await;

    let found = references(&source, &owner).await.unwrap();
    let texts: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(texts, REFERENCES);
    assert!(found.iter().all(|reference| !reference.on_target));
    let stays: Vec<String> = stays_behind(&source).await.unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(
        stays,
        [
            "the users of Supabase Auth, with their passwords and logins, stay behind: rows of auth.users: 7",
            "the files of Supabase Storage stay behind: rows of storage.objects: 3",
        ]
    );

    // An ordinary owner can't make roles, and is told who can; the functions are made all the same.
    let not_made = make_stand_ins(&owner, &found).await.unwrap();
    assert_eq!(not_made.len(), 1);
    assert!(not_made[0].to_string().contains("sql/supabase/roles.sql"), "{}", not_made[0]);
    admin.batch_execute("ALTER ROLE app CREATEROLE").await.unwrap();
    for _ in 0..2 {
        assert!(
            make_stand_ins(&owner, &references(&source, &owner).await.unwrap()).await.unwrap().is_empty()
        );
    }
    let after = references(&source, &owner).await.unwrap();
    for reference in &after {
        assert_eq!(reference.on_target, has_stand_in(reference), "{reference}");
    }
    // They read what PostgREST sets, as the real ones do.
    let claims = r#"{"sub": "6f0e5b1c-8f5a-4a6e-9a53-0a8f7f6f2d11", "role": "authenticated", "email": "a@example.com", "app_role": "admin"}"#;
    for url in [project.url("postgres"), other.url_as("app", "app")] {
        let client = connect(&url).await;
        let sql = "SELECT auth.uid()::text, auth.role(), auth.email(), auth.jwt() ->> 'app_role'";
        let row = client.query_one(sql, &[]).await.unwrap();
        assert!((0..4).all(|i| row.get::<_, Option<&str>>(i).is_none()), "{url}");
        client.execute("SELECT set_config('request.jwt.claims', $1, false)", &[&claims]).await.unwrap();
        let row = client.query_one(sql, &[]).await.unwrap();
        let values: Vec<&str> = (0..4).map(|i| row.get(i)).collect();
        assert_eq!(
            values,
            ["6f0e5b1c-8f5a-4a6e-9a53-0a8f7f6f2d11", "authenticated", "a@example.com", "admin"]
        );
    }
    let admin = connect(&other.url("app")).await;
    let sql = "SELECT string_agg(rolname, ' ' ORDER BY rolname) FROM pg_roles
                WHERE rolname IN ('anon', 'authenticated', 'service_role') AND NOT rolcanlogin AND NOT rolinherit";
    let roles: String = admin.query_one(sql, &[]).await.unwrap().get(0);
    assert_eq!(roles, "anon authenticated service_role");
}

/// What the users of a project do all day, until it is told to stop. Gives how many rounds it made.
fn writer(url: &str, stop: &Arc<AtomicBool>) -> JoinHandle<i32> {
    let (url, stop) = (url.to_owned(), Arc::clone(stop));
    tokio::spawn(async move {
        let client = connect(&url).await;
        let mut round = 0;
        while !stop.load(Ordering::Relaxed) {
            round += 1;
            // Who leaves is deleted at Supabase, and the profile with it.
            let sql = format!(
                "BEGIN;
                 INSERT INTO notes (owner, title) SELECT id, 'round {round}' FROM profiles WHERE handle LIKE 'user%';
                 UPDATE profiles SET settings = settings || '{{\"round\": {round}}}' WHERE handle LIKE 'user%';
                 DELETE FROM notes WHERE title = 'round {}';
                 INSERT INTO audit (what) VALUES ('round {round}');
                 INSERT INTO private.keys (name) VALUES ('k{}') ON CONFLICT (name) DO UPDATE SET value = '\\x{round:08x}';
                 INSERT INTO auth.users (id, email) VALUES (extensions.uuid_generate_v4(), 'guest{round}@example.com');
                 INSERT INTO profiles (id, handle) SELECT id, 'guest{round}' FROM auth.users WHERE email = 'guest{round}@example.com';
                 COMMIT;
                 DELETE FROM auth.users WHERE email = 'guest{}@example.com'",
                round - 3,
                round % 5,
                round - 1
            );
            client.batch_execute(&sql).await.unwrap();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        round
    })
}

/// Each line that a query gives.
async fn lines(client: &Client, sql: &str) -> Vec<String> {
    client.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

/// Foreign keys and triggers of the user's tables, with whether they hold and fire.
const GUARDS: &str = "
    SELECT format('%s %s valid=%s', conrelid::regclass, pg_get_constraintdef(oid), convalidated)
      FROM pg_constraint WHERE contype = 'f' AND connamespace::regnamespace::text IN ('public', 'private')
     UNION ALL
    SELECT format('%s %s enabled=%s', tgrelid::regclass, tgname, tgenabled)
      FROM pg_trigger JOIN pg_class AS c ON c.oid = tgrelid
     WHERE NOT tgisinternal AND relnamespace::regnamespace::text IN ('public', 'private') ORDER BY 1";

/// Everything that a migration could have left behind on the project's server, as its administrator sees it.
async fn state(project: &Cluster, dump: &Path) -> Vec<String> {
    let url = project.url_as(supabase::ADMIN, "postgres");
    let output = Command::new(dump).args(["--schema-only", &url]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let schema = text.lines().filter(|line| !line.contains("restrict ")).map(str::to_owned);
    let slots = "SELECT slot_name::text FROM pg_replication_slots";
    schema.chain(lines(&connect(&url).await, slots).await).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_moves_to_an_empty_database_of_an_ordinary_owner_while_its_users_write() {
    let (project, other) = (supabase::project().await, target().start().await.unwrap());
    let mut pair = Pair::on(&project, &other, "moved").await;
    let admin = connect(&other.url("moved")).await;
    let sql = "CREATE ROLE app LOGIN; ALTER DATABASE moved OWNER TO app;
               CREATE ROLE anon; CREATE ROLE authenticated; CREATE ROLE service_role BYPASSRLS";
    admin.batch_execute(sql).await.unwrap();
    pair.daemon_source_url = project.url("postgres");
    pair.source_url = pair.daemon_source_url.clone();
    pair.daemon_target_url = other.url_as("app", "moved");
    let dump = std::env::var_os("CDC_SOURCE_PG_BIN").map_or_else(Binaries::find, Binaries::at).unwrap();
    let dump = dump.program("pg_dump");
    pair.environment = vec![("CDC_PG_DUMP".to_owned(), dump.display().to_string())];
    pair.config = "[schema]\nstand_ins = true\n".to_owned();
    let before = state(&project, &dump).await;
    let stop = Arc::new(AtomicBool::new(false));
    let users = writer(&pair.source_url, &stop);

    let is_well = |arguments: &[&str]| {
        let output = pair.run(arguments);
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(output.status.code(), Some(0), "cdc {arguments:?}: {said}");
    };
    is_well(&["check"]);
    let daemon = pair.streaming().await;
    for command in [&["status"][..], &["verify"], &["schema", "diff"]] {
        is_well(command);
    }
    stop.store(true, Ordering::Relaxed);
    assert!(users.await.unwrap() > 20);
    pair.caught_up().await;
    assert!(daemon.terminate().await.success());
    is_well(&["drop", "--yes"]);

    let (source, target) = (connect(&pair.source_url).await, connect(&other.url("moved")).await);
    for table in ["public.profiles", "public.notes", "public.audit", "private.keys"] {
        let rows = format!("SELECT t::text COLLATE \"C\" FROM {table} AS t ORDER BY 1");
        let (there, here) = (lines(&source, &rows).await, lines(&target, &rows).await);
        assert!(!there.is_empty());
        assert_eq!(there, here, "{table}");
    }
    // Whoever came later has no notes.
    assert_eq!(number(&target, "SELECT count(*) FROM public.busy").await, 7);
    let relations = "
        SELECT format('%s.%s', nspname, relname) FROM pg_namespace AS n LEFT JOIN pg_class AS c ON relnamespace = n.oid
          AND relkind IN ('r', 'p', 'v', 'm', 'S') WHERE nspname !~ '^(pg_|information_schema$)' ORDER BY 1";
    // Of what is Supabase's: the schemas of the extensions and of the functions that are stood in for.
    assert_eq!(
        lines(&target, relations).await,
        [
            "auth.",
            "extensions.",
            "private.keys",
            "public.audit",
            "public.audit_id_seq",
            "public.busy",
            "public.note_counts",
            "public.notes",
            "public.profiles"
        ]
    );
    let (mut there, here) = (lines(&source, GUARDS).await, lines(&target, GUARDS).await);
    there.retain(|guard| !guard.contains("auth.users") && !guard.contains("tell the shop"));
    assert_eq!(there, here);
    assert_eq!(state(&project, &dump).await, before);
}
