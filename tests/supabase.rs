//! A source that looks like a Supabase project: what refers to its parts is found, and can be stood in for.

#![allow(clippy::unwrap_used, reason = "all of it is a test")]

mod support;

use cdc::config::{Arguments, Config};
use cdc::connect::{Environment, Session};
use cdc::fault::Side;
use cdc::schema::{has_stand_in, make_stand_ins, references, stays_behind};
use support::pair::{connect, target};
use support::supabase;

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
