//! Connections to PostgreSQL servers: one way in for SQL sessions and for the walsender.
//!
//! ```text
//! ConnInfo ──► hosts, addresses ──► transport (TCP or unix, TLS) ──► login ──► Session
//!                                                                        ├──► Pipeline
//!                                                                        └──► replication::Walsender
//! ```
//!
//! [`conninfo`] turns what the user wrote, in libpq's own language, into a resolved description of
//! where to connect, as whom and how securely. It opens no socket. Every failure on the way says
//! what to do: [`advice`].

pub(crate) mod advice;
pub mod conninfo;
pub(crate) mod handover;
mod login;
mod open;
pub mod pipeline;
pub(crate) mod query;
pub(crate) mod report;
pub mod session;
pub mod settings;
mod tls;
pub mod transport;
pub(crate) mod wire;

pub use conninfo::{ConnInfo, Environment};
pub(crate) use open::{Purpose, open};
pub use pipeline::Pipeline;
pub use session::{IS_WRITING, Mode, PASSES_FENCE, Session};
