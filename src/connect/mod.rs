//! Connections to PostgreSQL servers.
//!
//! [`conninfo`] turns what the user wrote, in libpq's own language, into a resolved description of
//! where to connect, as whom and how securely. It opens no socket.

pub mod conninfo;
