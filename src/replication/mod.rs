//! The walsender connection: from `replication=database` to a stream of frames, and feedback.
//!
//! ```text
//! Walsender ── identify_system, query ──► start_replication ──► ReplicationStream ── next ──► Frame
//!                                                                       ▲
//!                                                                       └── send_feedback
//! ```
//!
//! [`Slot`] and [`Publication`] are what the stream comes from; they are made and looked at through
//! ordinary sessions.
//!
//! The protocol is PostgreSQL's "Streaming Replication Protocol" (documentation, chapter 55).

mod publication;
mod slot;
mod stream;
mod walsender;

pub use publication::Publication;
pub use slot::Slot;
pub use stream::{Feedback, Frame, ReplicationStream};
pub use walsender::{SystemIdentity, Walsender};
