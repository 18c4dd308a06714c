//! What is encoded is decoded to the same.

use bytes::Bytes;
use proptest::prelude::*;

use super::arbitrary::{session, version};
use super::encode;
use crate::pgoutput::{Decoder, Message, ProtoVersion, Tuple, Value};

proptest! {
    #[test]
    fn every_session_of_every_version_decodes_to_what_was_encoded(
        (version, messages) in version().prop_flat_map(|version| (Just(version), session(version)))
    ) {
        let mut decoder = Decoder::new(version);
        let decoded: Vec<Message> =
            messages.iter().map(|message| decoder.decode(encode(message).into()).unwrap()).collect();
        prop_assert_eq!(decoded, messages);
    }
}

#[test]
fn values_and_contents_are_windows_into_the_frame() {
    let frame = Bytes::from(encode(&Message::Insert { relation: 1, new: Tuple::of(&[Value::Text(b"abc")]) }));
    let Ok(Message::Insert { new, .. }) = Decoder::new(ProtoVersion::V1).decode(frame.clone()) else {
        panic!("expected an insert");
    };
    let Some(Value::Text(text)) = new.value(0) else { panic!("expected text") };
    assert_eq!(text.as_ptr(), frame[frame.len() - 3..].as_ptr());
}

#[test]
fn the_two_tuples_of_an_update_add_up_to_their_frame() {
    let tuple = Tuple::of(&[Value::Text(&[b'x'; 1000]), Value::Null]);
    let old = Some(crate::pgoutput::OldTuple::Full(tuple.clone()));
    let frame = encode(&Message::Update { relation: 1, old: old.clone(), new: tuple.clone() });
    let tag_relation_and_kinds = 1 + 4 + 1 + 1;
    let starts = 2 * 2 * 4;
    assert_eq!(2 * tuple.heap_bytes(), frame.len() - tag_relation_and_kinds + starts);
    let decoded = Decoder::new(ProtoVersion::V1).decode(frame.into());
    assert_eq!(decoded, Ok(Message::Update { relation: 1, old, new: tuple }));
}

#[test]
fn a_table_can_have_as_many_columns_as_postgres_allows() {
    let widest = Message::Insert { relation: 1, new: Tuple::of(&[Value::Null; 1600]) };
    assert_eq!(Decoder::new(ProtoVersion::V1).decode(encode(&widest).into()), Ok(widest));
}
