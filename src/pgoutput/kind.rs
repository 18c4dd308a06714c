//! The kinds of messages: the byte each begins with, since which version it is, and its place.

use super::decode::ProtoVersion;

/// A kind of message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Begin,
    Commit,
    Origin,
    Relation,
    Type,
    Insert,
    Update,
    Delete,
    Truncate,
    Logical,
    StreamStart,
    StreamStop,
    StreamCommit,
    StreamAbort,
    BeginPrepare,
    Prepare,
    CommitPrepared,
    RollbackPrepared,
    StreamPrepare,
}

/// Where a message can be, seen from a streamed block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Outside only.
    Outside,
    /// Inside only.
    Inside,
    /// Anywhere, and the same everywhere.
    Anywhere,
    /// Anywhere; inside, the id of a transaction follows the first byte.
    AnywhereWithXid,
}

impl Kind {
    /// The kind that begins with this byte.
    pub(super) fn of(tag: u8) -> Option<Self> {
        Some(match tag {
            b'B' => Self::Begin,
            b'C' => Self::Commit,
            b'O' => Self::Origin,
            b'R' => Self::Relation,
            b'Y' => Self::Type,
            b'I' => Self::Insert,
            b'U' => Self::Update,
            b'D' => Self::Delete,
            b'T' => Self::Truncate,
            b'M' => Self::Logical,
            b'S' => Self::StreamStart,
            b'E' => Self::StreamStop,
            b'c' => Self::StreamCommit,
            b'A' => Self::StreamAbort,
            b'b' => Self::BeginPrepare,
            b'P' => Self::Prepare,
            b'K' => Self::CommitPrepared,
            b'r' => Self::RollbackPrepared,
            b'p' => Self::StreamPrepare,
            _ => return None,
        })
    }

    /// PostgreSQL's name for it (`logicalrep_message_type`).
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Begin => "BEGIN",
            Self::Commit => "COMMIT",
            Self::Origin => "ORIGIN",
            Self::Relation => "RELATION",
            Self::Type => "TYPE",
            Self::Insert => "INSERT",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Truncate => "TRUNCATE",
            Self::Logical => "MESSAGE",
            Self::StreamStart => "STREAM START",
            Self::StreamStop => "STREAM STOP",
            Self::StreamCommit => "STREAM COMMIT",
            Self::StreamAbort => "STREAM ABORT",
            Self::BeginPrepare => "BEGIN PREPARE",
            Self::Prepare => "PREPARE",
            Self::CommitPrepared => "COMMIT PREPARED",
            Self::RollbackPrepared => "ROLLBACK PREPARED",
            Self::StreamPrepare => "STREAM PREPARE",
        }
    }

    /// The first version of the protocol that has it.
    pub(super) fn since(self) -> ProtoVersion {
        match self {
            Self::Begin
            | Self::Commit
            | Self::Origin
            | Self::Relation
            | Self::Type
            | Self::Insert
            | Self::Update
            | Self::Delete
            | Self::Truncate
            | Self::Logical => ProtoVersion::V1,
            Self::StreamStart | Self::StreamStop | Self::StreamCommit | Self::StreamAbort => ProtoVersion::V2,
            Self::BeginPrepare
            | Self::Prepare
            | Self::CommitPrepared
            | Self::RollbackPrepared
            | Self::StreamPrepare => ProtoVersion::V3,
        }
    }

    /// Where it can be.
    pub(super) fn place(self) -> Place {
        match self {
            Self::Relation
            | Self::Type
            | Self::Insert
            | Self::Update
            | Self::Delete
            | Self::Truncate
            | Self::Logical => Place::AnywhereWithXid,
            // The first block of a transaction that came from elsewhere has it, without an id.
            Self::Origin => Place::Anywhere,
            Self::StreamStop => Place::Inside,
            Self::Begin
            | Self::Commit
            | Self::StreamStart
            | Self::StreamCommit
            | Self::StreamAbort
            | Self::BeginPrepare
            | Self::Prepare
            | Self::CommitPrepared
            | Self::RollbackPrepared
            | Self::StreamPrepare => Place::Outside,
        }
    }
}
