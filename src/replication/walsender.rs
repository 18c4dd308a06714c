//! An authenticated `replication=database` connection, before it streams.
#![deny(clippy::wildcard_enum_match_arm)]

use postgres_protocol::message::backend;
use tokio_postgres::error::SqlState;

use super::stream::{COPY_BOTH_RESPONSE_TAG, ReplicationStream};
use crate::connect::advice;
use crate::connect::conninfo::ConnInfo;
use crate::connect::query::{self, Rows};
use crate::connect::report::Report;
use crate::connect::transport::Transport;
use crate::connect::wire::Wire;
use crate::connect::{self, Purpose, settings};
use crate::fault::{Fault, Result, Side};
use crate::lsn::Lsn;

/// How a fault begins that the walsender reports.
const REFUSES: &str = "the server refuses";

/// An authenticated `replication=database` connection.
///
/// It takes replication commands and SQL, both by the simple query protocol.
pub struct Walsender {
    wire: Wire<Transport>,
    side: Side,
    server_version_num: u32,
}

/// Which server this is, and where its log ends (`IDENTIFY_SYSTEM`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemIdentity {
    /// The cluster's identifier, the same on its standbys and in its physical copies.
    pub system_id: u64,
    /// The timeline, which a promotion increments.
    pub timeline: u32,
    /// Up to where the log is flushed.
    pub flush_lsn: Lsn,
    /// The database that the connection is to.
    pub database: String,
}

impl Walsender {
    /// Connects, logs in and pins the session settings (rule C6).
    ///
    /// # Errors
    ///
    /// Says what to do: see [`crate::connect::advice`].
    pub async fn connect(info: &ConnInfo, side: Side, application_name: &str) -> Result<Self> {
        let (wire, greeting) = connect::open(info, side, application_name, Purpose::Replication).await?;
        let server_version_num = greeting.server_version_num();
        let mut walsender = Self { wire, side, server_version_num };
        walsender.query(&settings::pins(server_version_num)).await?;
        Ok(walsender)
    }

    /// The server's version: 150013 for 15.13.
    #[must_use]
    pub fn server_version_num(&self) -> u32 {
        self.server_version_num
    }

    /// Asks which server this is.
    ///
    /// # Errors
    ///
    /// The connection is lost, or it isn't a walsender that answers.
    pub async fn identify_system(&mut self) -> Result<SystemIdentity> {
        let rows = self.query("IDENTIFY_SYSTEM").await.map_err(|fault| match fault.code() {
            Some(code) if *code == SqlState::SYNTAX_ERROR => advice::pooler(fault),
            _ => fault,
        })?;
        let answer = match &rows[..] {
            [row] => identity(row),
            _ => None,
        };
        answer.ok_or_else(|| {
            Fault::person("IDENTIFY_SYSTEM was answered with something else than a system").on(self.side)
        })
    }

    /// Runs SQL or a replication command by the simple query protocol. Gives the rows of all its
    /// results, every value as text.
    ///
    /// # Errors
    ///
    /// What the server reports, or a lost connection.
    pub async fn query(&mut self, sql: &str) -> Result<Rows> {
        let answer = query::query(&mut self.wire, self.side, sql).await?;
        answer.map_err(|report| advice::replication(self.side, REFUSES, &report))
    }

    /// Starts streaming from a logical slot with the plugin `pgoutput`, protocol version 1, with the
    /// messages of `pg_logical_emit_message`.
    ///
    /// A `start` below the slot's `confirmed_flush_lsn` is silently moved up to it by the server, and
    /// one in the future is silently accepted: compare before.
    ///
    /// # Errors
    ///
    /// What the server reports (42704 no such slot, 55006 in use, 55000 lost or of another database),
    /// or a lost connection.
    pub async fn start_replication(
        mut self,
        slot: &str,
        start: Lsn,
        publications: &[String],
    ) -> Result<ReplicationStream> {
        query::send(&mut self.wire, self.side, &start_command(slot, start, publications)).await?;
        let message = query::read(&mut self.wire, self.side, "starting the replication").await?;
        match message.tag {
            COPY_BOTH_RESPONSE_TAG => Ok(ReplicationStream::new(self.wire, self.side)),
            backend::ERROR_RESPONSE_TAG => {
                Err(advice::replication(self.side, REFUSES, &Report::parse(&message.body)))
            }
            tag => Err(advice::unexpected(self.side, tag)),
        }
    }
}

/// `START_REPLICATION`. Its grammar has no escapes but the doubled quote, and the publications are
/// one literal made of quoted identifiers.
fn start_command(slot: &str, start: Lsn, publications: &[String]) -> String {
    let names: Vec<String> = publications.iter().map(|name| quoted(name, '"')).collect();
    format!(
        "START_REPLICATION SLOT {} LOGICAL {start} (proto_version '1', publication_names {}, messages 'true')",
        quoted(slot, '"'),
        quoted(&names.join(","), '\''),
    )
}

fn quoted(text: &str, quote: char) -> String {
    let doubled = text.replace(quote, &format!("{quote}{quote}"));
    format!("{quote}{doubled}{quote}")
}

fn identity(row: &[Option<String>]) -> Option<SystemIdentity> {
    let column = |number: usize| row.get(number)?.as_deref();
    Some(SystemIdentity {
        system_id: column(0)?.parse().ok()?,
        timeline: column(1)?.parse().ok()?,
        flush_lsn: column(2)?.parse().ok()?,
        database: column(3)?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publication_names_are_a_literal_of_quoted_identifiers() {
        let publications = ["cdc_a".to_owned(), "it's \"b\"".to_owned()];
        assert_eq!(
            start_command("cdc_a", Lsn::from(0x1_0000_00FF), &publications),
            "START_REPLICATION SLOT \"cdc_a\" LOGICAL 1/FF (proto_version '1', \
             publication_names '\"cdc_a\",\"it''s \"\"b\"\"\"', messages 'true')"
        );
    }
}
