//! What the end-to-end tests share.
#![allow(dead_code, unreachable_pub, clippy::print_stderr, reason = "each test file uses its own part of it")]

pub mod churn;
pub mod disk;
pub mod pair;
pub mod pooler;
pub mod proxy;
pub mod supabase;
