//! The decoder against frames of real servers, its own inverse, and everything hostile.

#![allow(clippy::wildcard_enum_match_arm)]

mod arbitrary;
mod encode;
mod golden;
mod hostile;
mod round_trip;

use bytes::Bytes;

use super::{DecodeError, Decoder, Message, Problem, ProtoVersion};
use encode::encode;

const VERSIONS: [ProtoVersion; 4] = [ProtoVersion::V1, ProtoVersion::V2, ProtoVersion::V3, ProtoVersion::V4];

/// A decoder that stands inside a streamed block.
fn inside_stream(version: ProtoVersion) -> Decoder {
    let mut decoder = Decoder::new(version);
    let start = encode(&Message::StreamStart { xid: 1, first_segment: true });
    decoder.decode(start.into()).unwrap();
    decoder
}

/// A decoder that stands where this message can be.
fn decoder_for(message: &Message, version: ProtoVersion) -> Decoder {
    match message {
        Message::Streamed { .. } | Message::StreamStop => inside_stream(version),
        _ => Decoder::new(version),
    }
}

/// What is wrong with a frame, and at which byte.
fn problem(decoder: &mut Decoder, frame: &[u8]) -> (usize, Problem) {
    match decoder.decode(Bytes::copy_from_slice(frame)) {
        Err(DecodeError::Malformed { offset, problem, .. }) => (offset, problem),
        other => panic!("expected a malformed message, got {other:?}"),
    }
}
