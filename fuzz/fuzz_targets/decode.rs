//! A replication session of any bytes: the first says the protocol's version, then come frames, each
//! after two bytes with its length.

#![no_main]

use bytes::Bytes;
use cdc::pgoutput::{Decoder, Message, OldTuple, ProtoVersion, Relations, Tuple};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|session: &[u8]| {
    let Some((version, mut rest)) = session.split_first() else { return };
    let version =
        [ProtoVersion::V1, ProtoVersion::V2, ProtoVersion::V3, ProtoVersion::V4][usize::from(version % 4)];
    let mut decoder = Decoder::new(version);
    let mut relations = Relations::new();
    while let Some((length, after)) = rest.split_first_chunk() {
        let (frame, next) = after.split_at(usize::from(u16::from_be_bytes(*length)).min(after.len()));
        rest = next;
        let before = format!("{decoder:?}");
        match decoder.decode(Bytes::copy_from_slice(frame)) {
            Ok(message) => look(&message, frame.len(), &mut relations),
            // It is told to people, and the decoder is as it was before.
            Err(error) => assert!(!error.to_string().is_empty() && format!("{decoder:?}") == before),
        }
    }
});

/// Does with a message what the stream does.
fn look(message: &Message, frame_bytes: usize, relations: &mut Relations) {
    assert!(!format!("{message:?}").is_empty());
    match message {
        Message::Relation(relation) => {
            relations.update(relation.clone());
        }
        Message::Streamed { message, .. } => look(message, frame_bytes, relations),
        Message::Insert { relation, new } => tuples(*relation, [Some(new), None], frame_bytes, relations),
        Message::Update { relation, old, new } => {
            tuples(*relation, [Some(new), old.as_ref().map(OldTuple::tuple)], frame_bytes, relations);
        }
        Message::Delete { relation, old } => {
            tuples(*relation, [Some(old.tuple()), None], frame_bytes, relations);
        }
        _ => {}
    }
}

/// Every value can be read, and they hold no more memory than the frame had.
fn tuples(relation: u32, tuples: [Option<&Tuple>; 2], frame_bytes: usize, relations: &Relations) {
    let mut held = 0;
    for tuple in tuples.into_iter().flatten() {
        held += tuple.heap_bytes() - 4 * tuple.len();
        assert_eq!(tuple.values().count(), tuple.len());
        assert!(tuple.value(tuple.len()).is_none());
        if let Ok(relation) = relations.get(relation) {
            assert_eq!(Relations::check(tuple, relation).is_ok(), relation.columns.len() == tuple.len());
        }
    }
    assert!(held <= frame_bytes);
}
