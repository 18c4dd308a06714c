//! How fast `cdc` is, beside what else does the same, on the same servers and in the same run.
//!
//! `make bench`, or `make bench ONLY="w1 copy"` for parts of it:
//!
//! ```text
//!   w1 w2 w3 w4u w4d   a backlog is applied: native replication, cdc, and a reader that throws all away;
//!                      w1 and w4u also over a line of 30 ms
//!   latency            from a commit on the source until it is seen on the target
//!   growth             what a change costs in longer backlogs, larger transactions and more tables
//!   copy               rows that are there before: native, cdc, pgcopydb, pg_dump to psql
//!   verify             cdc verify beside sums by hand
//!   switch             for how long writes rest in a cutover or a rollback
//! ```
//!
//! `CDC_BENCH_PERCENT` of the rows (100), `CDC_BENCH_TURNS` turns of each kind (3). The table and the chart go
//! to `target/bench/`. Whatever was applied or copied is compared; a difference ends the run.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, unreachable_pub)]

mod apply;
mod copy;
mod growth;
mod latency;
#[path = "../tests/support/pooler.rs"]
mod pooler;
mod support;
mod switch;
mod verify;

use support::report::Report;
use support::{Servers, assert_parts, is_wanted};

const PARTS: [&str; 10] = ["w1", "w2", "w3", "w4u", "w4d", "latency", "growth", "copy", "verify", "switch"];

#[tokio::main]
async fn main() {
    assert_parts(&PARTS);
    let servers = Servers::start().await;
    let mut report = Report::begin(&servers).await;
    apply::run(&servers, &mut report).await;
    if is_wanted("latency") {
        latency::run(&servers, &mut report).await;
    }
    if is_wanted("growth") {
        growth::run(&servers, &mut report).await;
    }
    if is_wanted("copy") {
        copy::run(&servers, &mut report).await;
    }
    if is_wanted("verify") {
        verify::run(&servers, &mut report).await;
    }
    if is_wanted("switch") {
        switch::run(&servers, &mut report).await;
    }
    report.print();
}
