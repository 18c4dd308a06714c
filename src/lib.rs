//! `cdc` copies a PostgreSQL database, follows it through a logical replication slot, and keeps a
//! second one in sync until the switch.

pub mod connect;
pub mod demo;
pub mod fault;
pub mod limits;
pub mod lsn;
pub mod pgoutput;
pub mod replication;
