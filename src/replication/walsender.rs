//! An authenticated `replication=database` connection, before it streams.
#![deny(clippy::wildcard_enum_match_arm)]

use bytes::{Buf, Bytes};
use postgres_protocol::message::{backend, frontend};
use tokio_postgres::error::SqlState;

use super::stream::{COPY_BOTH_RESPONSE_TAG, ReplicationStream};
use crate::connect::advice;
use crate::connect::conninfo::ConnInfo;
use crate::connect::report::Report;
use crate::connect::transport::Transport;
use crate::connect::wire::{Message, Wire};
use crate::connect::{self, Purpose, settings};
use crate::fault::{Fault, Result, Side};
use crate::limits;
use crate::lsn::Lsn;

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
    pub async fn query(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>> {
        self.send_query(sql).await?;
        let (mut rows, mut failure) = (Vec::new(), None);
        loop {
            let message = self.read("waiting for an answer").await?;
            match message.tag {
                backend::DATA_ROW_TAG => {
                    rows.push(data_row(message.body).ok_or_else(|| self.unexpected(message.tag))?);
                }
                backend::ERROR_RESPONSE_TAG => failure = failure.or(Some(self.refused(&message.body))),
                backend::READY_FOR_QUERY_TAG => return failure.map_or(Ok(rows), Err),
                backend::ROW_DESCRIPTION_TAG
                | backend::COMMAND_COMPLETE_TAG
                | backend::EMPTY_QUERY_RESPONSE_TAG => {}
                tag => return Err(self.unexpected(tag)),
            }
        }
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
        self.send_query(&start_command(slot, start, publications)).await?;
        let message = self.read("starting the replication").await?;
        match message.tag {
            COPY_BOTH_RESPONSE_TAG => Ok(ReplicationStream::new(self.wire, self.side)),
            backend::ERROR_RESPONSE_TAG => Err(self.refused(&message.body)),
            tag => Err(self.unexpected(tag)),
        }
    }

    async fn send_query(&mut self, sql: &str) -> Result<()> {
        frontend::query(sql, self.wire.outbox())
            .map_err(|_| Fault::bug("a replication command contains a NUL byte").on(self.side))?;
        self.wire.flush().await.map_err(|e| Fault::io(self.side, "sending to the walsender", &e))
    }

    /// The next message that is part of an answer.
    async fn read(&mut self, doing: &str) -> Result<Message> {
        loop {
            let message = self
                .wire
                .read(limits::MESSAGE_BYTES)
                .await
                .map_err(|e| advice::lost(self.side, doing, &e))?;
            match message.tag {
                backend::NOTICE_RESPONSE_TAG => Report::parse(&message.body).log(self.side),
                backend::PARAMETER_STATUS_TAG | backend::NOTIFICATION_RESPONSE_TAG => {}
                _ => return Ok(message),
            }
        }
    }

    fn refused(&self, body: &Bytes) -> Fault {
        advice::replication(self.side, "the server refuses", &Report::parse(body))
    }

    fn unexpected(&self, tag: u8) -> Fault {
        advice::unexpected(self.side, tag)
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

/// The values of a DataRow; `None` when it isn't one.
fn data_row(mut body: Bytes) -> Option<Vec<Option<String>>> {
    let columns = usize::from(body.try_get_u16().ok()?);
    let mut row = Vec::with_capacity(columns.min(limits::COLUMNS));
    for _ in 0..columns {
        row.push(match body.try_get_i32().ok()? {
            -1 => None,
            length => {
                let length = usize::try_from(length).ok().filter(|length| *length <= body.len())?;
                Some(String::from_utf8(body.split_to(length).to_vec()).ok()?)
            }
        });
    }
    body.is_empty().then_some(row)
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

    #[test]
    fn a_data_row_is_read_whole_or_not_at_all() {
        let row = Bytes::from_static(b"\0\x02\0\0\0\x01a\xff\xff\xff\xff");
        assert_eq!(data_row(row.clone()), Some(vec![Some("a".to_owned()), None]));
        for length in 0..row.len() {
            assert_eq!(data_row(row.slice(..length)), None, "{length} bytes of it");
        }
        assert_eq!(data_row(Bytes::from_static(b"\0\x01\x7f\xff\xff\xffa")), None);
        assert_eq!(data_row(Bytes::from_static(b"\0\0x")), None);
    }
}
