//! Who is connected to a database.

use serde::Serialize;

use crate::connect::Session;
use crate::fault::{Fault, Result, Side};

/// Sessions of somebody's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct User {
    /// Its role.
    pub role: String,
    /// What it calls itself.
    pub application: String,
    /// Where it comes from; null if from the server itself.
    pub client: Option<String>,
    /// How many of them there are.
    pub sessions: i64,
    /// When the last of them did something, RFC 3339; null if this role may not see that.
    pub last_active_at: Option<String>,
}

/// Everybody on this database but ourselves.
///
/// # Errors
/// If the database can't be asked.
pub async fn users(old: &Session) -> Result<Vec<User>> {
    let rows = old
        .query(
            "SELECT coalesce(usename::text, '?'), coalesce(nullif(application_name, ''), 'no application name'),
                    host(client_addr), count(*), pg_catalog.to_json(max(state_change)) #>> '{}'
               FROM pg_catalog.pg_stat_activity
              WHERE datname = pg_catalog.current_database() AND pid <> pg_catalog.pg_backend_pid()
                -- Of another role's session an ordinary one sees neither; ours are of the same role.
                AND usename IS NOT NULL AND coalesce(backend_type = 'client backend', true)
                AND coalesce(application_name !~ '^cdc_', true)
              GROUP BY 1, 2, 3 ORDER BY 4 DESC, 1, 2, 3",
            &[],
        )
        .await
        .map_err(|e| Fault::sql(Side::Target, "looking who uses the old database", &e))?;
    let user = |row: &tokio_postgres::Row| User {
        role: row.get(0),
        application: row.get(1),
        client: row.get(2),
        sessions: row.get(3),
        last_active_at: row.get(4),
    };
    Ok(rows.iter().map(user).collect())
}
