//! What a walsender can say through pgoutput.

use std::fmt;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, accepts, to_sql_checked};

use super::{Relation, Tuple};
use crate::lsn::Lsn;

/// One message of pgoutput, protocol versions 1 to 4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A committed transaction begins.
    Begin(Begin),
    /// The transaction that the last `Begin` opened ends.
    Commit(Commit),
    /// The transaction was replicated to the server from another one.
    Origin {
        /// Where it was committed on that other server; `Lsn::ZERO` in a streamed block.
        commit_lsn: Lsn,
        /// The name of the replication origin.
        name: String,
    },
    /// How the tuples that follow for this relation look; sent before the first of them, and again
    /// whenever it may have changed.
    Relation(Relation),
    /// The name of a column's type that is not built in. For a domain, `oid` is the domain's and
    /// the name is the base type's.
    Type {
        /// The type's OID on the server.
        oid: u32,
        /// The type's schema.
        schema: String,
        /// The type's name.
        name: String,
    },
    /// A row was inserted.
    Insert {
        /// The OID of the relation.
        relation: u32,
        /// The row. A value can be `Unchanged` here: a row filter turns an UPDATE that brings a row
        /// into the publication into an Insert, and can't fetch what the UPDATE didn't touch.
        new: Tuple,
    },
    /// A row was updated.
    Update {
        /// The OID of the relation.
        relation: u32,
        /// What identifies the row, when it is not the key in `new`.
        old: Option<OldTuple>,
        /// The row after it.
        new: Tuple,
    },
    /// A row was deleted.
    Delete {
        /// The OID of the relation.
        relation: u32,
        /// What identifies the row.
        old: OldTuple,
    },
    /// Relations were emptied by one statement.
    Truncate(Truncate),
    /// What somebody wrote with `pg_logical_emit_message`.
    Logical(LogicalMessage),
    /// Version 2: a block of changes of a transaction that is still open begins. Until `StreamStop`
    /// all that carries a transaction id is a [`Message::Streamed`].
    StreamStart {
        /// The top-level transaction.
        xid: u32,
        /// Whether it is the transaction's first block.
        first_segment: bool,
    },
    /// Version 2: the block ends, the transaction doesn't.
    StreamStop,
    /// Version 2: a streamed transaction committed.
    StreamCommit {
        /// The top-level transaction.
        xid: u32,
        /// Where and when.
        commit: Commit,
    },
    /// Version 2: a streamed transaction, or a subtransaction of it, was rolled back.
    StreamAbort(StreamAbort),
    /// Version 2: a message inside a streamed block. It belongs to a transaction that is not
    /// committed, so it is a variant of its own: nobody takes it for a committed change by mistake.
    Streamed {
        /// The (sub)transaction that made the change.
        xid: u32,
        /// A `Relation`, `Type`, `Insert`, `Update`, `Delete`, `Truncate` or `Logical`.
        message: Box<Message>,
    },
    /// Version 3: a transaction that was prepared for two-phase commit begins.
    BeginPrepare(Prepared),
    /// Version 3: the transaction that the last `BeginPrepare` opened was prepared.
    Prepare(Prepared),
    /// Version 3: a prepared transaction committed.
    CommitPrepared(CommitPrepared),
    /// Version 3: a prepared transaction was rolled back.
    RollbackPrepared(RollbackPrepared),
    /// Version 3: a streamed transaction was prepared.
    StreamPrepare(Prepared),
}

/// The begin of a committed transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begin {
    /// Where the transaction's commit record begins: the same as in its [`Commit`]. Never zero.
    pub commit_lsn: Lsn,
    /// When it committed, by the server's clock.
    pub commit_time: PgTimestamp,
    /// The transaction's id on the server.
    pub xid: u32,
}

/// The end of a committed transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Where the commit record begins. Never zero.
    pub commit_lsn: Lsn,
    /// Where the commit record ends: everything up to here is in this transaction or an earlier one.
    /// Never zero.
    pub end_lsn: Lsn,
    /// When it committed, by the server's clock.
    pub commit_time: PgTimestamp,
}

/// The row before an UPDATE or DELETE, as much as is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OldTuple {
    /// The replica identity's columns; all others are `Null`, whatever they were.
    Key(Tuple),
    /// All columns: the replica identity is FULL.
    Full(Tuple),
}

impl OldTuple {
    /// The tuple of either kind.
    #[must_use]
    pub fn tuple(&self) -> &Tuple {
        match self {
            Self::Key(tuple) | Self::Full(tuple) => tuple,
        }
    }
}

/// A TRUNCATE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Truncate {
    /// The published relations it emptied, those reached by CASCADE included.
    pub relations: Vec<u32>,
    /// Whether it was said with CASCADE.
    pub cascade: bool,
    /// Whether it was said with RESTART IDENTITY.
    pub restart_identity: bool,
}

/// What somebody wrote with `pg_logical_emit_message`.
#[derive(Clone, PartialEq, Eq)]
pub struct LogicalMessage {
    /// Whether it is part of the transaction, or stands on its own outside of any.
    pub transactional: bool,
    /// Where it is in the log.
    pub lsn: Lsn,
    /// What its author called it.
    pub prefix: String,
    /// Any bytes; a window into the frame.
    pub content: Bytes,
}

impl fmt::Debug for LogicalMessage {
    /// Leaves the content out: it is somebody's data, and logs are read by others.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogicalMessage")
            .field("transactional", &self.transactional)
            .field("lsn", &self.lsn)
            .field("prefix", &self.prefix)
            .field("content_bytes", &self.content.len())
            .finish()
    }
}

/// The rollback of a streamed transaction or of a subtransaction of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamAbort {
    /// The top-level transaction.
    pub xid: u32,
    /// What was rolled back: a subtransaction, or `xid` itself.
    pub subxid: u32,
    /// Where and when. Only with protocol version 4 and `streaming = parallel`.
    pub at: Option<AbortedAt>,
}

/// Where and when a streamed transaction was rolled back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedAt {
    /// Where; `Lsn::ZERO` when the server crashed and no record of the rollback exists.
    pub lsn: Lsn,
    /// When, by the server's clock.
    pub time: PgTimestamp,
}

/// A transaction prepared for two-phase commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// Where the record of the PREPARE begins. Never zero.
    pub prepare_lsn: Lsn,
    /// Where the record of the PREPARE ends. Never zero.
    pub end_lsn: Lsn,
    /// When it was prepared, by the server's clock.
    pub prepare_time: PgTimestamp,
    /// The transaction's id on the server.
    pub xid: u32,
    /// The name that the user gave it.
    pub gid: String,
}

/// The COMMIT PREPARED of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitPrepared {
    /// Where and when.
    pub commit: Commit,
    /// The transaction's id on the server.
    pub xid: u32,
    /// The name that the user gave it.
    pub gid: String,
}

/// The ROLLBACK PREPARED of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RollbackPrepared {
    /// Where the record of the PREPARE ends. Never zero.
    pub prepare_end_lsn: Lsn,
    /// Where the record of the rollback ends. Never zero.
    pub rollback_end_lsn: Lsn,
    /// When it was prepared, by the server's clock.
    pub prepare_time: PgTimestamp,
    /// When it was rolled back, by the server's clock.
    pub rollback_time: PgTimestamp,
    /// The transaction's id on the server.
    pub xid: u32,
    /// The name that the user gave it.
    pub gid: String,
}

/// A moment as PostgreSQL counts it: microseconds since 2000-01-01 00:00 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PgTimestamp(i64);

impl PgTimestamp {
    /// 2000-01-01 00:00 UTC, in seconds since 1970-01-01 00:00 UTC.
    const EPOCH_SECONDS: u64 = 946_684_800;

    /// Microseconds since 2000-01-01 00:00 UTC.
    #[must_use]
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// The same moment for the standard library; `None` where that can't represent it.
    #[must_use]
    pub fn system_time(self) -> Option<SystemTime> {
        let epoch = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(Self::EPOCH_SECONDS))?;
        let distance = Duration::from_micros(self.0.unsigned_abs());
        if self.0 < 0 { epoch.checked_sub(distance) } else { epoch.checked_add(distance) }
    }
}

impl From<i64> for PgTimestamp {
    fn from(micros: i64) -> Self {
        Self(micros)
    }
}

impl<'a> FromSql<'a> for PgTimestamp {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(i64::from_be_bytes(raw.try_into()?)))
    }

    accepts!(TIMESTAMPTZ);
}

impl ToSql for PgTimestamp {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(&self.0.to_be_bytes());
        Ok(IsNull::No)
    }

    accepts!(TIMESTAMPTZ);
    to_sql_checked!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_counts_from_the_year_2000() {
        let unix = |timestamp: i64| {
            PgTimestamp::from(timestamp).system_time().map(|t| {
                match t.duration_since(SystemTime::UNIX_EPOCH) {
                    Ok(after) => i128::try_from(after.as_micros()).unwrap(),
                    Err(before) => -i128::try_from(before.duration().as_micros()).unwrap(),
                }
            })
        };
        assert_eq!(unix(0), Some(946_684_800_000_000));
        assert_eq!(unix(1_500_000), Some(946_684_801_500_000));
        assert_eq!(unix(-946_684_800_000_001), Some(-1));
        assert_eq!(unix(i64::MAX), Some(946_684_800_000_000 + i128::from(i64::MAX)));
        assert_eq!(unix(i64::MIN), Some(946_684_800_000_000 + i128::from(i64::MIN)));
    }

    #[test]
    fn a_logical_message_keeps_its_content_out_of_logs() {
        let message = LogicalMessage {
            transactional: true,
            lsn: Lsn::from(1),
            prefix: "p".into(),
            content: Bytes::from_static(b"s3cret"),
        };
        assert!(!format!("{message:?}").contains("s3cret"));
    }
}
