//! The switch, end to end.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "all of it is a test")]

#[path = "../support/mod.rs"]
mod support;

mod command;
mod failures;
mod fence;
mod kill;
mod lost;
mod meanwhile;
mod pgbouncer;
mod supabase;
mod writers;
