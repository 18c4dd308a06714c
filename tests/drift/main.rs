//! The source's schema changes while it streams.

#![allow(clippy::unwrap_used, reason = "all of it is a test")]

#[path = "../support/mod.rs"]
mod support;

mod additive;
mod crash;
mod person;
mod scene;
mod tables;
