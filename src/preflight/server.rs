//! What a server is and has left: read in one query, the same on both sides.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::finding::Finding;
use crate::catalog::quote_identifier;
use crate::connect::Session;
use crate::fault::{Fault, Result, Side};

/// A server, and what our role may do there; `sql/catalog/check_server.sql` says more.
pub(super) struct Server {
    pub(super) side: Side,
    pub(super) version_num: i32,
    pub(super) version: String,
    pub(super) is_standby: bool,
    pub(super) is_encrypted: bool,
    pub(super) database: String,
    pub(super) role: String,
    pub(super) is_superuser: bool,
    pub(super) can_replicate: bool,
    pub(super) can_create: bool,
    pub(super) wal_level: String,
    pub(super) fsync: bool,
    pub(super) is_read_only: bool,
    pub(super) is_read_only_by_default: bool,
    pub(super) wal_sender_timeout_ms: i64,
    pub(super) slot_keep_mb: i64,
    pub(super) idle_slot_timeout: String,
    pub(super) slots: i64,
    pub(super) slots_free: i64,
    pub(super) walsenders: i64,
    pub(super) walsenders_free: i64,
    pub(super) connections: i64,
    pub(super) connections_free: i64,
    pub(super) encoding: String,
    pub(super) collate: String,
    pub(super) ctype: String,
    pub(super) locale_provider: String,
    pub(super) locale: Option<String>,
    /// How many seconds its clock is ahead of this host's.
    pub(super) clock_ahead: f64,
}

impl Server {
    /// Asks it.
    pub(super) async fn read(session: &Session, side: Side) -> Result<Self> {
        let began = (SystemTime::now(), Instant::now());
        let row = session
            .query_one(include_str!("../../sql/catalog/check_server.sql"), &[])
            .await
            .map_err(|e| Fault::sql(side, "looking at the server", &e))?;
        // It has looked at its clock about half-way.
        let here = began.0 + began.1.elapsed() / 2;
        let here = here.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        Ok(Self {
            side,
            version_num: row.get("version_num"),
            version: row.get("version"),
            is_standby: row.get("is_standby"),
            is_encrypted: row.get("is_encrypted"),
            database: row.get("database"),
            role: row.get("role"),
            is_superuser: row.get("is_superuser"),
            can_replicate: row.get("can_replicate"),
            can_create: row.get("can_create"),
            wal_level: row.get("wal_level"),
            fsync: row.get("fsync"),
            is_read_only: row.get("is_read_only"),
            is_read_only_by_default: row.get("is_read_only_by_default"),
            wal_sender_timeout_ms: row.get("wal_sender_timeout_ms"),
            slot_keep_mb: row.get("slot_keep_mb"),
            idle_slot_timeout: row.get("idle_slot_timeout"),
            slots: row.get("slots"),
            slots_free: row.get("slots_free"),
            walsenders: row.get("walsenders"),
            walsenders_free: row.get("walsenders_free"),
            connections: row.get("connections"),
            connections_free: row.get("connections_free"),
            encoding: row.get("encoding"),
            collate: row.get("collate"),
            ctype: row.get("ctype"),
            locale_provider: row.get("locale_provider"),
            locale: row.get("locale"),
            clock_ahead: row.get::<_, f64>("clock") - here,
        })
    }

    /// The major version.
    pub(super) fn major(&self) -> i32 {
        self.version_num / 10_000
    }
}

/// A role that may make nothing in the database.
pub(super) fn no_create(server: &Server, why: &str) -> Finding {
    let (role, database) = (&server.role, &server.database);
    Finding::blocks(
        "no-create-right",
        server.side,
        format!("the role {role} has no CREATE on the database {database}"),
    )
    .object(role)
    .why(why)
    .mend(format!(
        "GRANT CREATE ON DATABASE {} TO {};",
        quote_identifier(database),
        quote_identifier(role)
    ))
}
