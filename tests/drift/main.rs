//! The source's schema changes while it streams.

#[path = "../support/mod.rs"]
mod support;

mod additive;
mod person;
mod scene;
mod tables;
