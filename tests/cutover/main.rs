//! The switch, end to end.

#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

mod fence;
