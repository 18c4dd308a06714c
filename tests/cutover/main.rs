//! The switch, end to end.

#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

mod command;
mod failures;
mod fence;
mod kill;
mod pgbouncer;
