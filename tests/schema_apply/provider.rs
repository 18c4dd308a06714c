//! What is left out on purpose is named, by whoever makes the schema and by whoever compares it.

use serde_json::Value;

use super::support::pair::{Pair, connect, target};
use super::support::supabase;
use super::{apply, assert_same, owned};

/// `kind name` of each that is in this list of a report.
fn names(report: &Value, list: &str) -> Vec<String> {
    let name = |o: &Value| format!("{} {}", o["kind"].as_str().unwrap(), o["name"].as_str().unwrap());
    report[list].as_array().unwrap().iter().map(name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_a_part_of_supabase_is_left_out_and_named_or_stood_in_for() {
    let (project, other) = (supabase::project().await, target().start().await.unwrap());
    let mut pair = Pair::on(&project, &other, "moved").await;
    let admin = connect(&other.url("moved")).await;
    admin
        .batch_execute("CREATE ROLE owner LOGIN CREATEROLE; ALTER DATABASE moved OWNER TO owner")
        .await
        .unwrap();
    pair.daemon_source_url = project.url("postgres");
    pair.source_url = pair.daemon_source_url.clone();
    pair.daemon_target_url = other.url_as("owner", "moved");
    pair.environment = vec![("CDC_PG_DUMP".to_owned(), super::source_dump().display().to_string())];
    pair.config = "[schema]\n".to_owned();
    let (code, report) = apply(&pair, &[]);
    assert_eq!(code, 0, "{report:#}");
    let mut left_out = names(&report, "left_out");
    left_out.sort();
    assert_eq!(
        left_out,
        [
            "default public.notes.owner",
            "event trigger pgrst_ddl_watch",
            "foreign key public.profiles profiles_id_fkey",
            "grants of anon",
            "grants of authenticated",
            "grants of service_role",
            "policy public.notes admins",
            "policy public.notes own notes",
            "policy public.notes service sees all",
            "policy public.profiles own profile",
            "trigger public.notes tell the shop",
            "view public.people",
        ],
        "{report:#}"
    );
    assert_same(&pair);
    // With stand-ins, what they stand in for is made where it is missing, and what was made is left alone.
    pair.config = "[schema]\nstand_ins = true\n".to_owned();
    let (code, report) = apply(&pair, &[]);
    assert_eq!(code, 0, "{report:#}");
    let made = names(&report, "made");
    for policy in ["policy public.notes own notes", "policy public.profiles own profile"] {
        assert!(made.contains(&policy.to_owned()), "{report:#}");
    }
    assert!(!made.iter().any(|name| name.starts_with("table ")), "{report:#}");
    assert_same(&pair);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_configuration_leaves_out_is_not_made_and_no_difference() {
    let mut pair = owned("filtered").await;
    pair.write(
        "CREATE SCHEMA crm; CREATE SCHEMA old; CREATE SCHEMA tools;
         CREATE TABLE kept (id serial PRIMARY KEY, v text); CREATE INDEX ON kept (v);
         CREATE TABLE audit_log (id serial PRIMARY KEY); CREATE INDEX ON audit_log (id);
         CREATE TABLE refers (id int PRIMARY KEY, log int REFERENCES audit_log, kept int REFERENCES kept);
         CREATE VIEW over_log AS SELECT id FROM audit_log; CREATE VIEW over_view AS SELECT id FROM over_log;
         CREATE TABLE crm.leads (id int PRIMARY KEY); CREATE TABLE old.junk (id int PRIMARY KEY);
         CREATE FUNCTION tools.helper() RETURNS int LANGUAGE sql AS 'SELECT 1';
         CREATE FUNCTION report_daily() RETURNS int LANGUAGE sql AS 'SELECT 1';
         CREATE FUNCTION kept_one() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    )
    .await;
    pair.config =
        "[tables]\nexclude = [\"*.audit_*\", \"old.*\"]\n[schema]\nexclude = [\"tools.*\", \"*.report_*\"]\n"
            .to_owned();
    // One table, and what it needs.
    let (code, report) = apply(&pair, &["--table", "public.kept"]);
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(
        names(&report, "made"),
        [
            "table public.kept",
            "sequence public.kept_id_seq",
            "sequence owned by public.kept_id_seq",
            "default public.kept id",
            "constraint public.kept kept_pkey",
            "index public.kept_v_idx"
        ]
    );
    let (code, report) = apply(&pair, &[]);
    assert_eq!(code, 0, "{report:#}");
    let mut left_out = names(&report, "left_out");
    left_out.sort();
    assert_eq!(
        left_out,
        [
            "foreign key public.refers refers_log_fkey",
            "function public.report_daily()",
            "view public.over_log",
            "view public.over_view"
        ],
        "{report:#}"
    );
    assert_same(&pair);
    let made = names(&report, "made");
    assert!(made.contains(&"table crm.leads".to_owned()) && !made.contains(&"table public.kept".to_owned()));
    let there = "SELECT string_agg(format('%s.%s', relnamespace::regnamespace, relname), ' ' ORDER BY relnamespace::regnamespace::text, relname)
                   FROM pg_class WHERE relkind IN ('r', 'v') AND oid >= 16384 AND relnamespace::regnamespace::text NOT LIKE 'pg_%'";
    let there: String = pair.target.query_one(there, &[]).await.unwrap().get(0);
    assert_eq!(there, "crm.leads public.kept public.refers");
    assert_eq!(pair.run(&["schema", "apply", "--table", "public.nothing"]).status.code(), Some(64));
}
