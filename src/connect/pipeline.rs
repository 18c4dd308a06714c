//! A SQL connection whose statements don't wait for each other's answers.
//!
//! ```text
//! Script (Parse, Bind, Execute, CopyData, ..., Sync) ──► Pipeline ──► server
//!                                          Answer ◄──────────┘
//! ```
//!
//! Each statement is answered by [`Answer::Done`] or [`Answer::Refused`], in the order in which they were sent. After
//! one that is refused the server passes over everything up to the next [`Script::sync`], and says nothing of it
//! (PostgreSQL documentation, "Extended Query"); of a COPY, too, whose rows can be sent behind it at once for that
//! reason. [`Answer::Ready`] is the answer to each sync.
#![deny(clippy::wildcard_enum_match_arm)]

use std::error::Error;
use std::future::poll_fn;
use std::pin::pin;
use std::time::{Duration, Instant};

use bytes::{BufMut, BytesMut};
use postgres_protocol::IsNull;
use postgres_protocol::message::{backend, frontend};
use tokio_postgres::types::{Format, Type};

use super::conninfo::ConnInfo;
use super::query::{self, Rows};
use super::report::Report;
use super::session::{Mode, SWITCHING_OFF, not_switched_off};
use super::transport::Transport;
use super::wire::Wire;
use super::{Purpose, advice, settings};
use crate::fault::{Fault, Result, Side};

/// A SQL connection whose statements don't wait for each other's answers.
pub struct Pipeline {
    wire: Wire<Transport>,
    side: Side,
    backend_pid: i32,
    round_trip: Duration,
}

/// How a fault begins that ends the connection.
const APPLYING: &str = "applying changes";

/// What the server says.
#[derive(Debug)]
pub(crate) enum Answer {
    /// A statement is done.
    Done {
        /// How many rows it touched or gave.
        rows: u64,
        /// It ended a transaction without committing it.
        is_rollback: bool,
    },
    /// A statement was refused, and what follows it up to the sync is passed over.
    Refused(Report),
    /// Everything up to a sync is done or passed over.
    Ready,
}

/// Statements to be sent. Pure.
#[derive(Debug, Default)]
pub(crate) struct Script(BytesMut);

impl Pipeline {
    /// Connects, logs in and pins the session settings (rule C6).
    ///
    /// # Errors
    ///
    /// Says what to do: see [`super::advice`].
    pub async fn open(info: &ConnInfo, side: Side, application_name: &str) -> Result<Self> {
        let (wire, greeting) = super::open(info, side, application_name, Purpose::Sql).await?;
        let version = greeting.server_version_num();
        let mut pipeline = Self { wire, side, backend_pid: 0, round_trip: Duration::ZERO };
        pipeline.run(&settings::pins(version), "setting up the session").await?;
        if let Some(watch) = settings::watch_the_client(version)
            && let Err(report) = query::query(&mut pipeline.wire, side, &watch).await?
        {
            tracing::debug!(%side, "the server doesn't watch its clients: {}", report.message);
        }
        // What came with the greeting may be a pooler's own number.
        let asked_at = Instant::now();
        let rows = pipeline.run("SELECT pg_catalog.pg_backend_pid()", "setting up the session").await?;
        pipeline.round_trip = asked_at.elapsed();
        let pid = rows.first().and_then(|row| row.first()?.as_ref()?.parse().ok());
        pipeline.backend_pid = pid.ok_or_else(|| Fault::bug("a backend without a number").on(side))?;
        Ok(pipeline)
    }

    /// The process that serves this connection.
    #[must_use]
    pub fn backend_pid(&self) -> i32 {
        self.backend_pid
    }

    /// How long the server took to answer a question that it needs no time for.
    #[must_use]
    pub(crate) fn round_trip(&self) -> Duration {
        self.round_trip
    }

    /// Makes the session write replicated rows from now on, as [`super::Session::write_as`].
    ///
    /// # Errors
    /// If the role may not do that (any more), with what to do.
    pub async fn write_as(&mut self, mode: Mode) -> Result<()> {
        self.run(mode.sql(), SWITCHING_OFF).await.map(|_| ()).map_err(not_switched_off)
    }

    /// Runs SQL while nothing else is under way. `doing` is for the fault.
    ///
    /// # Errors
    ///
    /// What the server refuses, or a lost connection.
    pub(crate) async fn run(&mut self, sql: &str, doing: &str) -> Result<Rows> {
        let answer = query::query(&mut self.wire, self.side, sql).await?;
        answer.map_err(|report| report.bare_fault(self.side, doing))
    }

    /// Begins to send a script.
    pub(crate) fn send(&mut self, script: Script) {
        self.wire.outbox().unsplit(script.0);
    }

    /// Does something else while what has been given to [`Pipeline::send`] is sent. `work` has to yield now and then.
    pub(crate) async fn sending_while<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|context| {
            // A failed write shows up as a failed read, after the server's last words.
            let _ = self.wire.poll_flush(context);
            work.as_mut().poll(context)
        })
        .await
    }

    /// The next answer. What waits to be sent is sent meanwhile. May be cancelled.
    ///
    /// # Errors
    ///
    /// A lost connection, or a message that doesn't belong there.
    pub(crate) async fn answer(&mut self) -> Result<Answer> {
        loop {
            let message = query::read(&mut self.wire, self.side, APPLYING).await?;
            match message.tag {
                backend::COMMAND_COMPLETE_TAG => return Ok(done(&message.body)),
                backend::EMPTY_QUERY_RESPONSE_TAG => return Ok(Answer::Done { rows: 0, is_rollback: false }),
                backend::ERROR_RESPONSE_TAG => {
                    let report = Report::parse(&message.body);
                    // The server ends the connection with it.
                    if matches!(&*report.severity, "FATAL" | "PANIC") {
                        return Err(advice::replication(self.side, APPLYING, &report));
                    }
                    return Ok(Answer::Refused(report));
                }
                backend::READY_FOR_QUERY_TAG => return Ok(Answer::Ready),
                backend::PARSE_COMPLETE_TAG
                | backend::BIND_COMPLETE_TAG
                | backend::COPY_IN_RESPONSE_TAG
                | backend::DATA_ROW_TAG => {}
                tag => return Err(advice::unexpected(self.side, tag)),
            }
        }
    }
}

/// Reads a CommandComplete: `INSERT 0 5`, `UPDATE 5`, `COMMIT`.
fn done(tag: &[u8]) -> Answer {
    let tag = tag.strip_suffix(b"\0").unwrap_or(tag);
    let last = tag.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
    let rows = std::str::from_utf8(last).ok().and_then(|count| count.parse().ok()).unwrap_or(0);
    Answer::Done { rows, is_rollback: tag == b"ROLLBACK" }
}

impl Script {
    /// Prepares a statement under a name; parameters have these types, the others those that the server finds.
    pub(crate) fn prepare(&mut self, name: &str, sql: &str, types: &[Type]) -> Result<()> {
        frontend::parse(name, sql, types.iter().map(Type::oid), &mut self.0)
            .map_err(|e| Fault::bug(format!("a statement can't be sent: {e}")))
    }

    /// Executes a prepared statement with values in one format; `put` writes them.
    pub(crate) fn execute<T>(
        &mut self,
        name: &str,
        format: Format,
        values: impl IntoIterator<Item = T>,
        put: impl FnMut(T, &mut BytesMut) -> std::result::Result<IsNull, Box<dyn Error + Send + Sync>>,
    ) -> Result<()> {
        let format = match format {
            Format::Text => 0,
            Format::Binary => 1,
        };
        let failed = |error: &dyn Error| Fault::person(format!("a value can't be sent: {error}"));
        frontend::bind("", name, [format], values, put, [], &mut self.0).map_err(|error| match error {
            frontend::BindError::Conversion(error) => failed(&*error),
            frontend::BindError::Serialization(error) => failed(&error),
        })?;
        frontend::execute("", 0, &mut self.0).map_err(|error| failed(&error))
    }

    /// Executes a statement without parameters.
    pub(crate) fn run(&mut self, sql: &str) -> Result<()> {
        self.prepare("", sql, &[])?;
        self.execute("", Format::Text, std::iter::empty::<()>(), |(), _| Ok(IsNull::Yes))
    }

    /// Sends rows behind a COPY, in whatever pieces.
    pub(crate) fn copy_data(&mut self, rows: &[u8]) -> Result<()> {
        let bytes =
            i32::try_from(rows.len() + 4).map_err(|_| Fault::bug("a piece of a COPY is too large"))?;
        self.0.put_u8(b'd');
        self.0.put_i32(bytes);
        self.0.put_slice(rows);
        Ok(())
    }

    /// Ends the rows of a COPY.
    pub(crate) fn copy_done(&mut self) {
        frontend::copy_done(&mut self.0);
    }

    /// Asks for [`Answer::Ready`]. What follows is executed whatever has become of what came before.
    pub(crate) fn sync(&mut self) {
        frontend::sync(&mut self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rows_that_a_statement_touched_are_told_by_its_tag() {
        for (tag, expected) in [
            (&b"INSERT 0 5\0"[..], (5, false)),
            (b"UPDATE 12\0", (12, false)),
            (b"COPY 18446744073709551615\0", (u64::MAX, false)),
            (b"COMMIT\0", (0, false)),
            (b"ROLLBACK\0", (0, true)),
            (b"", (0, false)),
        ] {
            let Answer::Done { rows, is_rollback } = done(tag) else { panic!("{tag:?}") };
            assert_eq!((rows, is_rollback), expected);
        }
    }
}
