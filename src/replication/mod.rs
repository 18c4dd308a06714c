//! The walsender connection: from `replication=database` to a stream of frames, and feedback.
//!
//! ```text
//! Walsender ── identify_system, query ──► start_replication ──► ReplicationStream ── next ──► Frame
//!                                                                       ▲
//!                                                                       └── send_feedback
//! ```
//!
//! The protocol is PostgreSQL's "Streaming Replication Protocol" (documentation, chapter 55).

mod stream;
mod walsender;

pub use stream::{Feedback, Frame, ReplicationStream};
pub use walsender::{SystemIdentity, Walsender};
