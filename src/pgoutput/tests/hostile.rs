//! Bytes that no honest server sends.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::arbitrary::{message, version};
use super::{VERSIONS, decoder_for, encode, inside_stream, problem};
use crate::lsn::Lsn;
use crate::pgoutput::{DecodeError, Decoder, Message, Problem, ProtoVersion, StreamAbort};

fn versioned_message() -> impl Strategy<Value = (ProtoVersion, Message)> {
    version().prop_flat_map(|version| (Just(version), message(version)))
}

/// Bytes that often begin like a message.
fn nearly_a_frame() -> impl Strategy<Value = Vec<u8>> {
    let tag = prop_oneof![4 => prop::sample::select(b"BCORYIUDTMSEcAbPKrp"), 1 => any::<u8>()];
    let small = prop_oneof![3 => Just(0_u8), 2 => 1_u8..4, 2 => prop::sample::select(b"NKOntubdfi"), 2 => any::<u8>()];
    (tag, vec(small, 0..60)).prop_map(|(tag, mut rest)| {
        rest.insert(0, tag);
        rest
    })
}

/// One byte replaced, removed or added.
fn mutated(mut frame: Vec<u8>, (how, at, byte): (u8, Index, u8)) -> Vec<u8> {
    let at = at.index(frame.len());
    match how {
        0 => frame[at] = byte,
        1 => drop(frame.remove(at)),
        _ => frame.insert(at, byte),
    }
    frame
}

/// With version 4 the longer form of a StreamAbort begins with the shorter one.
fn is_the_short_form(message: &Message, length: usize) -> bool {
    matches!(message, Message::StreamAbort(StreamAbort { at: Some(_), .. })) && length == 1 + 4 + 4
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn every_truncation_of_every_message_is_an_error((version, message) in versioned_message()) {
        let frame = Bytes::from(encode(&message));
        for length in 0..frame.len() {
            let outcome = decoder_for(&message, version).decode(frame.slice(..length));
            prop_assert_eq!(outcome.is_ok(), is_the_short_form(&message, length), "{} of {:?}", length, message);
        }
    }

    #[test]
    fn whatever_follows_a_message_is_an_error(
        (version, message) in versioned_message(), trailing in vec(any::<u8>(), 1..15)
    ) {
        let mut frame = encode(&message);
        frame.extend(trailing);
        prop_assert!(decoder_for(&message, version).decode(frame.into()).is_err());
    }

    #[test]
    fn a_mutated_message_is_an_error_or_the_message_that_its_bytes_say(
        (version, message) in versioned_message(), mutations in vec((0_u8..3, any::<Index>(), any::<u8>()), 1..4)
    ) {
        let frame = mutations.into_iter().fold(encode(&message), |frame, mutation| {
            if frame.is_empty() { frame } else { mutated(frame, mutation) }
        });
        if let Ok(decoded) = decoder_for(&message, version).decode(frame.clone().into()) {
            prop_assert_eq!(encode(&decoded), frame);
        }
    }

    #[test]
    fn random_frames_never_panic_and_what_is_accepted_says_the_same_bytes(
        version in version(), frames in vec(nearly_a_frame(), 0..20)
    ) {
        let mut decoder = Decoder::new(version);
        for frame in frames {
            if let Ok(decoded) = decoder.decode(frame.clone().into()) {
                prop_assert_eq!(encode(&decoded), frame);
            }
        }
    }
}

/// The frame from parts.
fn frame(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

const OID: &[u8] = &[0, 0, 0, 1];
const LSN: &[u8] = &[0, 0, 0, 0, 0, 0, 0, 1];
const ZERO: &[u8] = &[0; 8];

#[test]
fn a_claimed_count_beyond_the_frame_is_refused_before_anything_is_allocated_for_it() {
    let mut decoder = Decoder::new(ProtoVersion::V1);
    let tuple = frame(&[b"I", OID, b"N", &[0xFF, 0xFF], b"nn"]);
    assert_eq!(problem(&mut decoder, &tuple), (6, Problem::ColumnCount(65535)));
    let tuple = frame(&[b"I", OID, b"N", &[0, 3], b"nn"]);
    assert_eq!(problem(&mut decoder, &tuple), (6, Problem::ColumnCount(3)));
    // Long enough, but wider than any table.
    let tuple = frame(&[b"I", OID, b"N", &1665_u16.to_be_bytes(), &[b'n'; 1665]]);
    assert_eq!(problem(&mut decoder, &tuple), (6, Problem::ColumnCount(1665)));
    let relation = frame(&[b"R", OID, b"s\0t\0d", &[0, 2], &[0; 19]]);
    assert_eq!(problem(&mut decoder, &relation), (10, Problem::ColumnCount(2)));
    let relation = frame(&[b"R", OID, b"s\0t\0d", &1665_u16.to_be_bytes(), &[0; 16650]]);
    assert_eq!(problem(&mut decoder, &relation), (10, Problem::ColumnCount(1665)));
    let truncate = frame(&[b"T", &[0xFF; 4], &[0], OID]);
    assert_eq!(problem(&mut decoder, &truncate), (1, Problem::RelationCount(u32::MAX)));
    let value = frame(&[b"I", OID, b"N", &[0, 1], b"t", &[0xFF; 4], b"abc"]);
    assert_eq!(problem(&mut decoder, &value), (8, Problem::Ends));
    let content = frame(&[b"M", &[0], LSN, b"p\0", &[0xFF; 4], b"abc"]);
    assert_eq!(problem(&mut decoder, &content), (16, Problem::Ends));
}

#[test]
fn tuples_where_they_cannot_be_are_refused() {
    let mut decoder = Decoder::new(ProtoVersion::V1);
    let empty = &[0, 0];
    let unexpected = |expected, found| Problem::Unexpected { expected, found };
    let new = "a new tuple: N";
    for (tag, tuples, offset, expected) in [
        (b"I", frame(&[b"K", empty]), 5, unexpected(new, b'K')),
        (b"I", frame(&[b"O", empty]), 5, unexpected(new, b'O')),
        (b"I", frame(&[b"N", empty, b"N", empty]), 8, Problem::Trailing(3)),
        (b"U", frame(&[b"K", empty]), 8, Problem::Ends),
        (b"U", frame(&[b"K", empty, b"O", empty]), 8, unexpected(new, b'O')),
        (b"U", frame(&[b"N", empty, b"K", empty]), 8, Problem::Trailing(3)),
        (b"U", frame(&[b"x", empty]), 5, unexpected(new, b'x')),
        (b"D", frame(&[b"N", empty]), 5, unexpected("an old tuple: K or O", b'N')),
        (b"D", frame(&[b"K", empty, b"N", empty]), 8, Problem::Trailing(3)),
        (b"I", frame(&[b"N", &[0, 1], b"x"]), 8, unexpected("a column's kind: n, u, t or b", b'x')),
    ] {
        assert_eq!(problem(&mut decoder, &frame(&[tag, OID, &tuples])), (offset, expected));
    }
}

#[test]
fn flags_that_nobody_defined_are_refused() {
    let mut decoder = Decoder::new(ProtoVersion::V4);
    for (bytes, offset, flags) in [
        (frame(&[b"C", &[1], LSN, LSN, ZERO]), 1, 1),
        (frame(&[b"c", OID, &[1], LSN, LSN, ZERO]), 5, 1),
        (frame(&[b"K", &[2], LSN, LSN, ZERO, OID, b"g\0"]), 1, 2),
        (frame(&[b"P", &[1], LSN, LSN, ZERO, OID, b"g\0"]), 1, 1),
        (frame(&[b"p", &[1], LSN, LSN, ZERO, OID, b"g\0"]), 1, 1),
        (frame(&[b"r", &[1], LSN, LSN, ZERO, ZERO, OID, b"g\0"]), 1, 1),
        (frame(&[b"T", OID, &[4], OID]), 5, 4),
        (frame(&[b"M", &[2], LSN, b"p\0", &[0; 4]]), 1, 2),
        (frame(&[b"S", OID, &[2]]), 5, 2),
        (frame(&[b"R", OID, b"s\0t\0d", &[0, 1], &[2], b"c\0", OID, OID]), 12, 2),
    ] {
        assert_eq!(problem(&mut decoder, &bytes), (offset, Problem::UnknownFlags(flags)), "{bytes:?}");
    }
    let identity = frame(&[b"R", OID, b"s\0t\0x", &[0, 0]]);
    let expected = Problem::Unexpected { expected: "a replica identity: d, n, f or i", found: b'x' };
    assert_eq!(problem(&mut decoder, &identity), (9, expected));
}

#[test]
fn positions_and_transaction_ids_must_be_there() {
    let mut decoder = Decoder::new(ProtoVersion::V4);
    for (bytes, offset, expected) in [
        (frame(&[b"B", ZERO, ZERO, OID]), 1, Problem::NoLsn),
        (frame(&[b"B", LSN, ZERO, &[0; 4]]), 17, Problem::NoXid),
        (frame(&[b"C", &[0], ZERO, LSN, ZERO]), 2, Problem::NoLsn),
        (frame(&[b"C", &[0], LSN, ZERO, ZERO]), 10, Problem::NoLsn),
        (frame(&[b"S", &[0; 4], &[1]]), 1, Problem::NoXid),
        (frame(&[b"b", LSN, ZERO, ZERO, OID, b"g\0"]), 9, Problem::NoLsn),
    ] {
        assert_eq!(problem(&mut decoder, &bytes), (offset, expected), "{bytes:?}");
    }
    assert_eq!(problem(&mut inside_stream(ProtoVersion::V4), &frame(&[b"I", &[0; 4]])), (1, Problem::NoXid));
}

#[test]
fn names_must_be_utf8_and_end() {
    let mut decoder = Decoder::new(ProtoVersion::V1);
    assert_eq!(problem(&mut decoder, &frame(&[b"O", LSN, b"ab\xFF\0"])), (11, Problem::NotUtf8));
    assert_eq!(problem(&mut decoder, &frame(&[b"O", LSN, b"ab"])), (9, Problem::Ends));
}

#[test]
fn values_need_not_be_utf8() {
    let bytes = frame(&[b"I", OID, b"N", &[0, 1], b"t", &[0, 0, 0, 1], &[0xFF]]);
    assert!(Decoder::new(ProtoVersion::V1).decode(bytes.into()).is_ok());
}

#[test]
fn a_message_of_a_later_version_or_of_none_is_refused() {
    for version in VERSIONS {
        for tag in 0..=u8::MAX {
            let allowed: &[u8] = match version {
                ProtoVersion::V1 => b"BCORYIUDTM",
                ProtoVersion::V2 => b"BCORYIUDTMSEcA",
                ProtoVersion::V3 | ProtoVersion::V4 => b"BCORYIUDTMSEcAbPKrp",
            };
            let (_, problem) = problem(&mut Decoder::new(version), &[tag, 0]);
            let refused = matches!(problem, Problem::UnknownTag(_) | Problem::NotInVersion(_));
            assert_eq!(refused, !allowed.contains(&tag), "{tag} in {version:?}");
        }
    }
    let (offset, what) = problem(&mut Decoder::new(ProtoVersion::V1), b"E");
    assert_eq!((offset, what), (0, Problem::NotInVersion(ProtoVersion::V1)));
    assert_eq!(problem(&mut Decoder::new(ProtoVersion::V1), b"x"), (0, Problem::UnknownTag(b'x')));
    assert_eq!(problem(&mut Decoder::new(ProtoVersion::V1), b""), (0, Problem::Ends));
}

#[test]
fn the_longer_form_of_a_rollback_needs_version_4() {
    let long = frame(&[b"A", OID, OID, LSN, ZERO]);
    assert_eq!(problem(&mut Decoder::new(ProtoVersion::V3), &long), (9, Problem::Trailing(16)));
    assert!(Decoder::new(ProtoVersion::V4).decode(long.into()).is_ok());
}

#[test]
fn messages_are_refused_on_the_wrong_side_of_a_streamed_block() {
    for tag in b"BCScAbPKrp" {
        assert_eq!(problem(&mut inside_stream(ProtoVersion::V4), &[*tag]), (0, Problem::InsideStream));
    }
    assert_eq!(problem(&mut Decoder::new(ProtoVersion::V4), b"E"), (0, Problem::OutsideStream));
}

#[test]
fn an_error_leaves_the_decoder_as_it_was() {
    let mut decoder = Decoder::new(ProtoVersion::V2);
    problem(&mut decoder, &frame(&[b"S", OID, &[1], b"x"]));
    problem(&mut decoder, b"E");
    let mut decoder = inside_stream(ProtoVersion::V2);
    problem(&mut decoder, b"Ex");
    assert_eq!(decoder.decode(Bytes::from_static(b"E")), Ok(Message::StreamStop));
    let origin = frame(&[b"O", LSN, b"\0"]);
    let expected = Message::Origin { commit_lsn: Lsn::from(1), name: String::new() };
    assert_eq!(decoder.decode(origin.into()), Ok(expected));
}

#[test]
fn an_error_names_the_message_and_the_byte_for_a_person() {
    let error =
        |bytes: &[u8]| Decoder::new(ProtoVersion::V1).decode(Bytes::copy_from_slice(bytes)).unwrap_err();
    assert_eq!(
        error(b"BCD").to_string(),
        "malformed BEGIN message of pgoutput, at byte 1: it ends in the middle"
    );
    assert_eq!(
        error(b"E").to_string(),
        "malformed STREAM STOP message of pgoutput, at byte 0: protocol version 1 has no such message"
    );
    assert!(matches!(error(b""), DecodeError::Malformed { message: "unknown", .. }));
}
