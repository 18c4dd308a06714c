//! One frame in, one message out.

use bytes::Bytes;

use super::error::{DecodeError, Problem};
use super::kind::{Kind, Place};
use super::message::{
    AbortedAt, Begin, Commit, CommitPrepared, LogicalMessage, Message, OldTuple, Prepared, RollbackPrepared,
    StreamAbort, Truncate,
};
use super::reader::{self, Reader};
use super::relation::Relation;
use super::tuple::Tuple;
use crate::limits;

/// StreamStart: the transaction's first block. Truncate: two options. Message: part of a transaction.
const FIRST_SEGMENT: u8 = 1;
const CASCADE: u8 = 1;
const RESTART_IDENTITY: u8 = 2;
const TRANSACTIONAL: u8 = 1;

/// The version of pgoutput's protocol that the session asked for (`proto_version`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProtoVersion {
    /// Committed transactions, in the order of their commits.
    V1,
    /// PostgreSQL 14: streaming of transactions that are still open.
    V2,
    /// PostgreSQL 15: two-phase commits.
    V3,
    /// PostgreSQL 16: streaming in parallel, where rollbacks say where and when.
    V4,
}

impl ProtoVersion {
    /// The number, as the `proto_version` option has it.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::V1 => 1,
            Self::V2 => 2,
            Self::V3 => 3,
            Self::V4 => 4,
        }
    }
}

/// Decodes the frames of one replication session, in their order.
#[derive(Clone, Debug)]
pub struct Decoder {
    version: ProtoVersion,
    /// Between StreamStart and StreamStop messages carry a transaction id, and only there.
    in_stream: bool,
}

impl Decoder {
    /// A decoder for a new session.
    #[must_use]
    pub fn new(version: ProtoVersion) -> Self {
        Self { version, in_stream: false }
    }

    /// Decodes a frame: the payload of one XLogData message.
    ///
    /// With version 4, whether a StreamAbort says where and when depends on the session's
    /// `streaming` option; both forms are taken.
    ///
    /// # Errors
    /// When the frame isn't exactly one message, or the message can't be in this version or at this
    /// place. The decoder is then as it was before.
    pub fn decode(&mut self, frame: Bytes) -> Result<Message, DecodeError> {
        let kind = frame.first().copied().and_then(Kind::of);
        self.message(kind, &mut Reader::new(&frame)).map_err(|malformed| DecodeError::Malformed {
            message: kind.map_or("unknown", Kind::name),
            offset: malformed.offset,
            problem: malformed.problem,
        })
    }

    fn message(&mut self, kind: Option<Kind>, reader: &mut Reader<'_>) -> reader::Result<Message> {
        if reader.remaining() > limits::MESSAGE_BYTES {
            return Err(reader.fail(Problem::FrameTooLong));
        }
        let tag = reader.u8()?;
        let kind = kind.ok_or_else(|| reader.fail_at(0, Problem::UnknownTag(tag)))?;
        if self.version < kind.since() {
            return Err(reader.fail_at(0, Problem::NotInVersion(self.version)));
        }
        let xid = match (kind.place(), self.in_stream) {
            (Place::AnywhereWithXid, true) => Some(reader.xid()?),
            (Place::AnywhereWithXid | Place::Outside, false)
            | (Place::Inside, true)
            | (Place::Anywhere, _) => None,
            (Place::Outside, true) => return Err(reader.fail_at(0, Problem::InsideStream)),
            (Place::Inside, false) => return Err(reader.fail_at(0, Problem::OutsideStream)),
        };
        let message = body(kind, self.version, reader)?;
        reader.finish()?;
        match kind.place() {
            Place::Outside => self.in_stream = kind == Kind::StreamStart,
            Place::Inside => self.in_stream = false,
            Place::Anywhere | Place::AnywhereWithXid => {}
        }
        Ok(match xid {
            Some(xid) => Message::Streamed { xid, message: Box::new(message) },
            None => message,
        })
    }
}

/// Reads what follows the first byte, and the transaction id inside a streamed block.
fn body(kind: Kind, version: ProtoVersion, reader: &mut Reader<'_>) -> reader::Result<Message> {
    Ok(match kind {
        Kind::Begin => Message::Begin(Begin {
            commit_lsn: reader.lsn()?,
            commit_time: reader.timestamp()?,
            xid: reader.xid()?,
        }),
        Kind::Commit => Message::Commit(commit(reader)?),
        Kind::Origin => Message::Origin { commit_lsn: reader.any_lsn()?, name: reader.string()? },
        Kind::Relation => Message::Relation(Relation::read(reader)?),
        Kind::Type => Message::Type { oid: reader.u32()?, schema: reader.schema()?, name: reader.string()? },
        Kind::Insert => Message::Insert { relation: reader.u32()?, new: new_tuple(reader)? },
        Kind::Update => {
            Message::Update { relation: reader.u32()?, old: old_tuple(reader)?, new: new_tuple(reader)? }
        }
        Kind::Delete => delete(reader)?,
        Kind::Truncate => Message::Truncate(truncate(reader)?),
        Kind::Logical => Message::Logical(logical(reader)?),
        Kind::StreamStart => {
            Message::StreamStart { xid: reader.xid()?, first_segment: reader.flags(FIRST_SEGMENT)? != 0 }
        }
        Kind::StreamStop => Message::StreamStop,
        Kind::StreamCommit => Message::StreamCommit { xid: reader.xid()?, commit: commit(reader)? },
        Kind::StreamAbort => Message::StreamAbort(stream_abort(version, reader)?),
        Kind::BeginPrepare => Message::BeginPrepare(prepared(reader)?),
        Kind::Prepare => Message::Prepare(flagged_prepared(reader)?),
        Kind::CommitPrepared => Message::CommitPrepared(CommitPrepared {
            commit: commit(reader)?,
            xid: reader.xid()?,
            gid: reader.string()?,
        }),
        Kind::RollbackPrepared => Message::RollbackPrepared(rollback_prepared(reader)?),
        Kind::StreamPrepare => Message::StreamPrepare(flagged_prepared(reader)?),
    })
}

/// Commit, StreamCommit and CommitPrepared have a byte of flags, none of which is defined, and then
/// the same fields.
fn commit(reader: &mut Reader<'_>) -> reader::Result<Commit> {
    reader.flags(0)?;
    Ok(Commit { commit_lsn: reader.lsn()?, end_lsn: reader.lsn()?, commit_time: reader.timestamp()? })
}

fn new_tuple(reader: &mut Reader<'_>) -> reader::Result<Tuple> {
    let at = reader.offset();
    match reader.u8()? {
        b'N' => Tuple::read(reader),
        found => Err(reader.fail_at(at, Problem::Unexpected { expected: "a new tuple: N", found })),
    }
}

/// Reads an old tuple, if there is one.
fn old_tuple(reader: &mut Reader<'_>) -> reader::Result<Option<OldTuple>> {
    let full = match reader.rest().first() {
        Some(b'K') => false,
        Some(b'O') => true,
        _ => return Ok(None),
    };
    reader.u8()?;
    let tuple = Tuple::read(reader)?;
    Ok(Some(if full { OldTuple::Full(tuple) } else { OldTuple::Key(tuple) }))
}

fn delete(reader: &mut Reader<'_>) -> reader::Result<Message> {
    let relation = reader.u32()?;
    if let Some(old) = old_tuple(reader)? {
        return Ok(Message::Delete { relation, old });
    }
    let at = reader.offset();
    let found = reader.u8()?;
    Err(reader.fail_at(at, Problem::Unexpected { expected: "an old tuple: K or O", found }))
}

fn truncate(reader: &mut Reader<'_>) -> reader::Result<Truncate> {
    let at = reader.offset();
    let count = reader.u32()?;
    let flags = reader.flags(CASCADE | RESTART_IDENTITY)?;
    let oids = reader.take(reader.remaining())?;
    let (oids, odd) = oids.as_chunks();
    if !odd.is_empty() || u32::try_from(oids.len()) != Ok(count) {
        return Err(reader.fail_at(at, Problem::RelationCount(count)));
    }
    Ok(Truncate {
        relations: oids.iter().map(|&oid| u32::from_be_bytes(oid)).collect(),
        cascade: flags & CASCADE != 0,
        restart_identity: flags & RESTART_IDENTITY != 0,
    })
}

fn logical(reader: &mut Reader<'_>) -> reader::Result<LogicalMessage> {
    let transactional = reader.flags(TRANSACTIONAL)? != 0;
    let lsn = reader.lsn()?;
    let prefix = reader.string()?;
    let length = reader.u32()? as usize;
    let begin = reader.offset();
    reader.take(length)?;
    Ok(LogicalMessage { transactional, lsn, prefix, content: reader.window(begin..reader.offset()) })
}

fn stream_abort(version: ProtoVersion, reader: &mut Reader<'_>) -> reader::Result<StreamAbort> {
    let (xid, subxid) = (reader.xid()?, reader.xid()?);
    let at = if version >= ProtoVersion::V4 && reader.remaining() > 0 {
        Some(AbortedAt { lsn: reader.any_lsn()?, time: reader.timestamp()? })
    } else {
        None
    };
    Ok(StreamAbort { xid, subxid, at })
}

fn prepared(reader: &mut Reader<'_>) -> reader::Result<Prepared> {
    Ok(Prepared {
        prepare_lsn: reader.lsn()?,
        end_lsn: reader.lsn()?,
        prepare_time: reader.timestamp()?,
        xid: reader.xid()?,
        gid: reader.string()?,
    })
}

/// Prepare and StreamPrepare have a byte of flags before what BeginPrepare has.
fn flagged_prepared(reader: &mut Reader<'_>) -> reader::Result<Prepared> {
    reader.flags(0)?;
    prepared(reader)
}

fn rollback_prepared(reader: &mut Reader<'_>) -> reader::Result<RollbackPrepared> {
    reader.flags(0)?;
    Ok(RollbackPrepared {
        prepare_end_lsn: reader.lsn()?,
        rollback_end_lsn: reader.lsn()?,
        prepare_time: reader.timestamp()?,
        rollback_time: reader.timestamp()?,
        xid: reader.xid()?,
        gid: reader.string()?,
    })
}
