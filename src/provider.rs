//! What is special about the places that databases come from and go to, in one place.

use tokio_postgres::Client;

use crate::fault::{Fault, Result, Side};

/// Schemas that belong to the provider and are never replicated.
///
/// The list is Supabase's (its documentation, "Database", and a fresh project): logins, files,
/// realtime, secrets and jobs are kept there by its services, which the target doesn't have.
pub const INTERNAL_SCHEMAS: &[&str] = &[
    "auth",
    "storage",
    "realtime",
    "_realtime",
    "_analytics",
    "supabase_functions",
    "supabase_migrations",
    EXTENSIONS_SCHEMA,
    "vault",
    "pgsodium",
    "pgsodium_masks",
    "graphql",
    "graphql_public",
    "net",
    "cron",
    "pgmq",
    "pgbouncer",
];

/// Where Supabase has extensions: those of them that the user's own needs come along.
pub const EXTENSIONS_SCHEMA: &str = "extensions";

/// Tables of the provider's whose rows a team would miss, what these are, and how they can be taken along.
pub const ROWS_OF_USERS: &[(&str, &str, &str)] = &[
    (
        "auth.users",
        "the users of Supabase Auth, with their passwords and logins,",
        "keep Supabase Auth for the logins, or bring the users to your own: pg_dump --data-only --table=auth.users",
    ),
    (
        "storage.objects",
        "the files of Supabase Storage",
        "copy the files through the API of Supabase Storage",
    ),
    (
        "vault.secrets",
        "the secrets of Supabase Vault",
        "enter the secrets where the applications look for them",
    ),
];

/// The roles of this database that are the provider's, and exist there only (Supabase's documentation,
/// "Postgres Roles"); none if it isn't Supabase.
///
/// # Errors
/// If the source can't be asked.
pub async fn roles(source: &Client) -> Result<Vec<String>> {
    let sql = "SELECT rolname::text FROM pg_catalog.pg_roles
                WHERE rolname IN ('anon', 'authenticated', 'service_role', 'authenticator', 'dashboard_user')
                   OR rolname LIKE 'supabase\\_%' OR rolname LIKE 'pgsodium\\_%'
                ORDER BY 1";
    let rows = source.query(sql, &[]).await;
    let rows = rows.map_err(|e| Fault::sql(Side::Source, "looking for the provider's roles", &e))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
