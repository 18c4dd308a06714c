//! A server that looks like a Supabase project: its schemas and roles, and a `postgres` that is no superuser.

use cdc::demo::Cluster;

use super::pair::{connect, source};

const PROJECT: &str = include_str!("supabase.sql");
const APP: &str = include_str!("supabase_app.sql");

/// The superuser there.
pub const ADMIN: &str = "supabase_admin";

/// A project, and in its database `postgres` what a user has made. `postgres` is who a migration connects as.
pub async fn project() -> Cluster {
    let cluster = source().start().await.expect("a server starts");
    let postgres = connect(&cluster.url("postgres")).await;
    postgres.batch_execute("CREATE ROLE renames LOGIN SUPERUSER").await.expect("a role is made");
    let renames = connect(&cluster.url_as("renames", "postgres")).await;
    let sql = "
        ALTER ROLE postgres RENAME TO supabase_admin;
        CREATE ROLE postgres LOGIN CREATEDB CREATEROLE REPLICATION BYPASSRLS;
        ALTER DATABASE postgres OWNER TO postgres";
    renames.batch_execute(sql).await.expect("postgres is no superuser any more");
    let admin = connect(&cluster.url_as(ADMIN, "postgres")).await;
    admin.batch_execute(PROJECT).await.expect("the project is made");
    let is_since_15 = cluster.binaries().major() >= 15;
    if is_since_15 {
        let sql = "GRANT SET ON PARAMETER session_replication_role TO postgres";
        admin.batch_execute(sql).await.expect("it may be replica");
    }
    let user = connect(&cluster.url("postgres")).await;
    let app = if is_since_15 { APP.to_owned() } else { APP.replace(" with (security_invoker = true)", "") };
    user.batch_execute(&app).await.expect("the user makes something");
    cluster
}
