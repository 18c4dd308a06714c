//! The inverse of the decoder.

use bytes::BufMut;

use crate::lsn::Lsn;
use crate::pgoutput::{Commit, Message, OldTuple, PgTimestamp, Prepared, Relation, ReplicaIdentity, Tuple};

/// The frame of a message.
pub(super) fn encode(message: &Message) -> Vec<u8> {
    let mut out = Vec::new();
    match message {
        Message::Streamed { xid, message } => {
            let inner = encode(message);
            out.put_u8(inner[0]);
            out.put_u32(*xid);
            out.put_slice(&inner[1..]);
        }
        Message::Relation(relation) => put_relation(&mut out, relation),
        Message::Type { oid, schema, name } => {
            out.put_u8(b'Y');
            out.put_u32(*oid);
            put_schema(&mut out, schema);
            put_string(&mut out, name);
        }
        Message::Insert { .. } | Message::Update { .. } | Message::Delete { .. } => {
            put_row(&mut out, message)
        }
        Message::Truncate(truncate) => {
            out.put_u8(b'T');
            out.put_u32(u32::try_from(truncate.relations.len()).unwrap());
            out.put_u8(u8::from(truncate.cascade) | (u8::from(truncate.restart_identity) << 1));
            for oid in &truncate.relations {
                out.put_u32(*oid);
            }
        }
        Message::Logical(logical) => {
            out.put_u8(b'M');
            out.put_u8(logical.transactional.into());
            put_lsn(&mut out, logical.lsn);
            put_string(&mut out, &logical.prefix);
            out.put_u32(u32::try_from(logical.content.len()).unwrap());
            out.put_slice(&logical.content);
        }
        Message::Begin(_)
        | Message::Commit(_)
        | Message::Origin { .. }
        | Message::StreamStart { .. }
        | Message::StreamStop
        | Message::StreamCommit { .. }
        | Message::StreamAbort(_)
        | Message::BeginPrepare(_)
        | Message::Prepare(_)
        | Message::CommitPrepared(_)
        | Message::RollbackPrepared(_)
        | Message::StreamPrepare(_) => put_transaction(&mut out, message),
    }
    out
}

fn put_transaction(out: &mut Vec<u8>, message: &Message) {
    match message {
        Message::Begin(begin) => {
            out.put_u8(b'B');
            put_lsn(out, begin.commit_lsn);
            put_time(out, begin.commit_time);
            out.put_u32(begin.xid);
        }
        Message::Commit(commit) => {
            out.put_u8(b'C');
            put_commit(out, commit);
        }
        Message::Origin { commit_lsn, name } => {
            out.put_u8(b'O');
            put_lsn(out, *commit_lsn);
            put_string(out, name);
        }
        Message::StreamStart { xid, first_segment } => {
            out.put_u8(b'S');
            out.put_u32(*xid);
            out.put_u8((*first_segment).into());
        }
        Message::StreamStop => out.put_u8(b'E'),
        Message::StreamCommit { xid, commit } => {
            out.put_u8(b'c');
            out.put_u32(*xid);
            put_commit(out, commit);
        }
        Message::StreamAbort(abort) => {
            out.put_u8(b'A');
            out.put_u32(abort.xid);
            out.put_u32(abort.subxid);
            if let Some(at) = abort.at {
                put_lsn(out, at.lsn);
                put_time(out, at.time);
            }
        }
        Message::BeginPrepare(prepared) => {
            out.put_u8(b'b');
            put_prepared(out, prepared);
        }
        Message::Prepare(prepared) => {
            out.put_slice(b"P\0");
            put_prepared(out, prepared);
        }
        Message::StreamPrepare(prepared) => {
            out.put_slice(b"p\0");
            put_prepared(out, prepared);
        }
        Message::CommitPrepared(prepared) => {
            out.put_u8(b'K');
            put_commit(out, &prepared.commit);
            out.put_u32(prepared.xid);
            put_string(out, &prepared.gid);
        }
        Message::RollbackPrepared(rollback) => {
            out.put_slice(b"r\0");
            put_lsn(out, rollback.prepare_end_lsn);
            put_lsn(out, rollback.rollback_end_lsn);
            put_time(out, rollback.prepare_time);
            put_time(out, rollback.rollback_time);
            out.put_u32(rollback.xid);
            put_string(out, &rollback.gid);
        }
        other => unreachable!("{other:?} is no message about a transaction"),
    }
}

fn put_row(out: &mut Vec<u8>, message: &Message) {
    match message {
        Message::Insert { relation, new } => {
            out.put_u8(b'I');
            out.put_u32(*relation);
            put_tuple(out, b'N', new);
        }
        Message::Update { relation, old, new } => {
            out.put_u8(b'U');
            out.put_u32(*relation);
            if let Some(old) = old {
                put_old(out, old);
            }
            put_tuple(out, b'N', new);
        }
        Message::Delete { relation, old } => {
            out.put_u8(b'D');
            out.put_u32(*relation);
            put_old(out, old);
        }
        other => unreachable!("{other:?} has no row"),
    }
}

fn put_relation(out: &mut Vec<u8>, relation: &Relation) {
    out.put_u8(b'R');
    out.put_u32(relation.oid);
    put_schema(out, &relation.schema);
    put_string(out, &relation.name);
    out.put_u8(match relation.replica_identity {
        ReplicaIdentity::Default => b'd',
        ReplicaIdentity::Nothing => b'n',
        ReplicaIdentity::Full => b'f',
        ReplicaIdentity::Index => b'i',
    });
    out.put_u16(u16::try_from(relation.columns.len()).unwrap());
    for column in &relation.columns {
        out.put_u8(column.is_key.into());
        put_string(out, &column.name);
        out.put_u32(column.type_oid);
        out.put_i32(column.type_modifier);
    }
}

fn put_old(out: &mut Vec<u8>, old: &OldTuple) {
    match old {
        OldTuple::Key(tuple) => put_tuple(out, b'K', tuple),
        OldTuple::Full(tuple) => put_tuple(out, b'O', tuple),
    }
}

fn put_tuple(out: &mut Vec<u8>, kind: u8, tuple: &Tuple) {
    out.put_u8(kind);
    // By its values, not by the bytes it holds: what it says it is, is what counts.
    out.put_slice(Tuple::of(&tuple.values().collect::<Vec<_>>()).as_sent());
}

fn put_commit(out: &mut Vec<u8>, commit: &Commit) {
    out.put_u8(0);
    put_lsn(out, commit.commit_lsn);
    put_lsn(out, commit.end_lsn);
    put_time(out, commit.commit_time);
}

fn put_prepared(out: &mut Vec<u8>, prepared: &Prepared) {
    put_lsn(out, prepared.prepare_lsn);
    put_lsn(out, prepared.end_lsn);
    put_time(out, prepared.prepare_time);
    out.put_u32(prepared.xid);
    put_string(out, &prepared.gid);
}

fn put_lsn(out: &mut Vec<u8>, lsn: Lsn) {
    out.put_u64(lsn.as_u64());
}

fn put_time(out: &mut Vec<u8>, time: PgTimestamp) {
    out.put_i64(time.as_micros());
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    out.put_slice(text.as_bytes());
    out.put_u8(0);
}

fn put_schema(out: &mut Vec<u8>, schema: &str) {
    put_string(out, if schema == "pg_catalog" { "" } else { schema });
}
