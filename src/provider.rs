//! What is special about the places that databases come from and go to, in one place.

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
    "extensions",
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
