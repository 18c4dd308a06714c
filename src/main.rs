//! The `cdc` command.
fn main() {}
