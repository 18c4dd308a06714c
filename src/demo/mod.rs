//! Throw-away PostgreSQL servers on this machine, for `cdc demo`, the tests and the benchmarks.
//!
//! ```text
//!   Binaries ──► template (initdb, once per version and arguments) ──► copy ──► Cluster
//!                                                                               │ stdin: orders
//!                                                                               ▼
//!                                                              supervise.sh ──► postgres
//! ```
//!
//! A [`Cluster`] is a value: while it lives there is a server, and when it is dropped, or the
//! process that owns it dies in whatever way, neither a process nor a directory is left.
//!
//! [`data`] has example databases for them, [`writer`] keeps changing these, and [`compare`]
//! proves that two databases hold the same rows. [`story`] is `cdc demo`: all of them at once.

mod account;
mod bank;
mod binaries;
mod cluster;
pub mod compare;
pub mod data;
mod deeds;
pub mod story;
mod template;
pub mod writer;

pub use binaries::Binaries;
pub use cluster::{Builder, Cluster, Stop};

use std::hash::{BuildHasher, Hasher, RandomState};

/// A random number, for names, ports and identifiers that must differ.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
