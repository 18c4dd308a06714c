//! Any message, and any session.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::lsn::Lsn;
use crate::pgoutput::{
    AbortedAt, Begin, Column, Commit, CommitPrepared, LogicalMessage, Message, OldTuple, PgTimestamp,
    Prepared, ProtoVersion, Relation, ReplicaIdentity, RollbackPrepared, StreamAbort, Truncate, Tuple, Value,
};

fn any_lsn() -> impl Strategy<Value = Lsn> {
    any::<u64>().prop_map(Lsn::from)
}

fn lsn() -> impl Strategy<Value = Lsn> {
    (1..=u64::MAX).prop_map(Lsn::from)
}

fn xid() -> impl Strategy<Value = u32> {
    1..=u32::MAX
}

fn time() -> impl Strategy<Value = PgTimestamp> {
    any::<i64>().prop_map(PgTimestamp::from)
}

fn name() -> impl Strategy<Value = String> {
    "[^\0]{0,12}"
}

fn schema() -> impl Strategy<Value = String> {
    prop_oneof![Just("pg_catalog".to_owned()), "[^\0]{1,12}"]
}

fn tuple() -> impl Strategy<Value = Tuple> {
    let bytes = || vec(any::<u8>(), 0..20);
    let value = prop_oneof![
        Just((b'n', Vec::new())),
        Just((b'u', Vec::new())),
        bytes().prop_map(|bytes| (b't', bytes)),
        bytes().prop_map(|bytes| (b'b', bytes)),
    ];
    vec(value, 0..8).prop_map(|values| {
        let values: Vec<Value<'_>> = values
            .iter()
            .map(|(kind, bytes)| match kind {
                b'n' => Value::Null,
                b'u' => Value::Unchanged,
                b't' => Value::Text(bytes),
                _ => Value::Binary(bytes),
            })
            .collect();
        Tuple::of(&values)
    })
}

fn old_tuple() -> impl Strategy<Value = OldTuple> {
    prop_oneof![tuple().prop_map(OldTuple::Key), tuple().prop_map(OldTuple::Full)]
}

fn relation() -> impl Strategy<Value = Relation> {
    let identity = prop_oneof![
        Just(ReplicaIdentity::Default),
        Just(ReplicaIdentity::Nothing),
        Just(ReplicaIdentity::Full),
        Just(ReplicaIdentity::Index),
    ];
    let column = (name(), any::<u32>(), any::<i32>(), any::<bool>())
        .prop_map(|(name, type_oid, type_modifier, is_key)| Column { name, type_oid, type_modifier, is_key });
    (any::<u32>(), schema(), name(), identity, vec(column, 0..6)).prop_map(
        |(oid, schema, name, replica_identity, columns)| Relation {
            oid,
            schema,
            name,
            replica_identity,
            columns,
        },
    )
}

fn commit() -> impl Strategy<Value = Commit> {
    (lsn(), lsn(), time()).prop_map(|(commit_lsn, end_lsn, commit_time)| Commit {
        commit_lsn,
        end_lsn,
        commit_time,
    })
}

fn prepared() -> impl Strategy<Value = Prepared> {
    (lsn(), lsn(), time(), xid(), name()).prop_map(|(prepare_lsn, end_lsn, prepare_time, xid, gid)| {
        Prepared { prepare_lsn, end_lsn, prepare_time, xid, gid }
    })
}

/// A message that carries a transaction id inside a streamed block.
fn change() -> impl Strategy<Value = Message> {
    let truncate = (vec(any::<u32>(), 0..5), any::<bool>(), any::<bool>())
        .prop_map(|(relations, cascade, restart_identity)| Truncate { relations, cascade, restart_identity });
    let logical = (any::<bool>(), lsn(), name(), vec(any::<u8>(), 0..20)).prop_map(
        |(transactional, lsn, prefix, content)| LogicalMessage {
            transactional,
            lsn,
            prefix,
            content: Bytes::from(content),
        },
    );
    prop_oneof![
        relation().prop_map(Message::Relation),
        (any::<u32>(), schema(), name()).prop_map(|(oid, schema, name)| Message::Type { oid, schema, name }),
        (any::<u32>(), tuple()).prop_map(|(relation, new)| Message::Insert { relation, new }),
        (any::<u32>(), option::of(old_tuple()), tuple()).prop_map(|(relation, old, new)| Message::Update {
            relation,
            old,
            new
        }),
        (any::<u32>(), old_tuple()).prop_map(|(relation, old)| Message::Delete { relation, old }),
        truncate.prop_map(Message::Truncate),
        logical.prop_map(Message::Logical),
    ]
}

fn origin() -> impl Strategy<Value = Message> {
    (any_lsn(), name()).prop_map(|(commit_lsn, name)| Message::Origin { commit_lsn, name })
}

fn version_1() -> impl Strategy<Value = Message> {
    prop_oneof![
        7 => change(),
        1 => origin(),
        1 => commit().prop_map(Message::Commit),
        1 => (lsn(), time(), xid()).prop_map(|(commit_lsn, commit_time, xid)| {
            Message::Begin(Begin { commit_lsn, commit_time, xid })
        }),
    ]
}

fn streamed() -> impl Strategy<Value = Message> {
    (xid(), change()).prop_map(|(xid, message)| Message::Streamed { xid, message: Box::new(message) })
}

fn stream_start() -> impl Strategy<Value = Message> {
    (xid(), any::<bool>()).prop_map(|(xid, first_segment)| Message::StreamStart { xid, first_segment })
}

/// What version 2 has outside of a streamed block, StreamStart aside.
fn version_2(version: ProtoVersion) -> impl Strategy<Value = Message> {
    let at = (any_lsn(), time()).prop_map(|(lsn, time)| AbortedAt { lsn, time });
    let at = option::of(at).prop_map(move |at| at.filter(|_| version >= ProtoVersion::V4));
    prop_oneof![
        (xid(), commit()).prop_map(|(xid, commit)| Message::StreamCommit { xid, commit }),
        (xid(), xid(), at).prop_map(|(xid, subxid, at)| Message::StreamAbort(StreamAbort {
            xid,
            subxid,
            at
        })),
    ]
}

fn version_3() -> impl Strategy<Value = Message> {
    prop_oneof![
        prepared().prop_map(Message::BeginPrepare),
        prepared().prop_map(Message::Prepare),
        prepared().prop_map(Message::StreamPrepare),
        (commit(), xid(), name()).prop_map(|(commit, xid, gid)| Message::CommitPrepared(CommitPrepared {
            commit,
            xid,
            gid
        })),
        (lsn(), lsn(), time(), time(), xid(), name()).prop_map(
            |(prepare_end_lsn, rollback_end_lsn, prepare_time, rollback_time, xid, gid)| {
                Message::RollbackPrepared(RollbackPrepared {
                    prepare_end_lsn,
                    rollback_end_lsn,
                    prepare_time,
                    rollback_time,
                    xid,
                    gid,
                })
            }
        ),
    ]
}

/// What can be outside of a streamed block, StreamStart aside.
fn outside(version: ProtoVersion) -> BoxedStrategy<Message> {
    match version {
        ProtoVersion::V1 => version_1().boxed(),
        ProtoVersion::V2 => prop_oneof![version_1(), version_2(version)].boxed(),
        ProtoVersion::V3 | ProtoVersion::V4 => {
            prop_oneof![2 => version_1(), 1 => version_2(version), 1 => version_3()].boxed()
        }
    }
}

/// Any message that the version has, wherever it belongs.
pub(super) fn message(version: ProtoVersion) -> BoxedStrategy<Message> {
    if version == ProtoVersion::V1 {
        return outside(version);
    }
    prop_oneof![4 => outside(version), 4 => streamed(), 1 => stream_start(), 1 => Just(Message::StreamStop)]
        .boxed()
}

/// A session: messages, and whole streamed blocks where the version has them.
pub(super) fn session(version: ProtoVersion) -> BoxedStrategy<Vec<Message>> {
    let plain = vec(outside(version), 0..6).boxed();
    if version == ProtoVersion::V1 {
        return plain;
    }
    let inside = prop_oneof![6 => streamed(), 1 => origin()];
    let block = (stream_start(), vec(inside, 0..6)).prop_map(|(start, inside)| {
        let mut block = vec![start];
        block.extend(inside);
        block.push(Message::StreamStop);
        block
    });
    vec(prop_oneof![plain, block], 0..6).prop_map(|parts| parts.concat()).boxed()
}

/// Any version.
pub(super) fn version() -> impl Strategy<Value = ProtoVersion> {
    prop::sample::select(&super::VERSIONS)
}
