//! pgoutput, the output plugin of logical replication: bytes in, [`Message`]s out.
//!
//! ```text
//! frame (Bytes) ──► Decoder::decode ──► Message ──► Relations: oid -> Arc<Relation>
//!                     │                    │
//!                     │                    └─ Tuple: a window into the frame, nothing is copied
//!                     └─ remembers one thing: are we between StreamStart and StreamStop?
//! ```
//!
//! The decoder is pure: no socket, no clock. It knows every message of the protocol versions 1 to 4
//! (PostgreSQL documentation, "Logical Replication Message Formats", and
//! `src/backend/replication/logical/proto.c`, which differs from it in a few places and wins).
//! It trusts nobody: whatever the bytes are, the outcome is a message or a [`DecodeError`], never a
//! panic, and what is allocated is bounded by a small multiple of the frame.
//!
//! Both a [`Decoder`] and its [`Relations`] belong to one replication session: the server describes
//! each relation again when a session begins.

#![deny(clippy::wildcard_enum_match_arm)]

mod decode;
mod error;
mod kind;
mod message;
mod reader;
mod relation;
#[cfg(test)]
mod tests;
mod tuple;

pub use decode::{Decoder, ProtoVersion};
pub use error::{DecodeError, Problem};
pub use message::{
    AbortedAt, Begin, Commit, CommitPrepared, LogicalMessage, Message, OldTuple, PgTimestamp, Prepared,
    RollbackPrepared, StreamAbort, Truncate,
};
pub use relation::{Column, Relation, Relations, ReplicaIdentity};
pub use tuple::{Tuple, Value};
