//! `cdc` copies a PostgreSQL database, follows it through a logical replication slot, and keeps a
//! second one in sync until the switch.

pub mod apply;
pub mod catalog;
pub mod cli;
pub mod commands;
pub mod config;
pub mod connect;
pub mod daemon;
pub mod demo;
pub mod engine;
pub mod fault;
pub mod ledger;
pub mod limits;
pub mod lsn;
pub mod observe;
pub mod pgoutput;
pub mod provider;
pub mod replication;
pub mod retry;
pub mod shutdown;
