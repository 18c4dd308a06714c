//! The simple query protocol on a wire of ours.
#![deny(clippy::wildcard_enum_match_arm)]

use std::io;

use bytes::{Buf, Bytes};
use postgres_protocol::message::{backend, frontend};

use super::advice;
use super::report::Report;
use super::transport::Transport;
use super::wire::{Message, Wire};
use crate::fault::{Fault, Result, Side};
use crate::limits;

/// Every value as text, row by row.
pub(crate) type Rows = Vec<Vec<Option<String>>>;

/// Runs SQL or a replication command, and gives the rows of all its results or what the server refuses.
///
/// # Errors
///
/// A lost connection.
pub(crate) async fn query(
    wire: &mut Wire<Transport>,
    side: Side,
    sql: &str,
) -> Result<std::result::Result<Rows, Report>> {
    send(wire, side, sql).await?;
    let (mut rows, mut failure) = (Rows::new(), None);
    loop {
        let message = read(wire, side, "waiting for an answer").await?;
        match message.tag {
            backend::DATA_ROW_TAG => {
                rows.push(data_row(message.body).ok_or_else(|| advice::unexpected(side, message.tag))?);
            }
            backend::ERROR_RESPONSE_TAG => failure = failure.or(Some(Report::parse(&message.body))),
            backend::READY_FOR_QUERY_TAG => return Ok(failure.map_or(Ok(rows), Err)),
            backend::ROW_DESCRIPTION_TAG
            | backend::COMMAND_COMPLETE_TAG
            | backend::EMPTY_QUERY_RESPONSE_TAG => {}
            tag => return Err(advice::unexpected(side, tag)),
        }
    }
}

/// Sends SQL or a replication command.
pub(crate) async fn send(wire: &mut Wire<Transport>, side: Side, sql: &str) -> Result<()> {
    frontend::query(sql, wire.outbox()).map_err(|_| Fault::bug("a command contains a NUL byte").on(side))?;
    let lost = |e: io::Error| Fault::io(side, "sending to the server", &e);
    wire.flush().await.map_err(lost)
}

/// The next message that is part of an answer. May be cancelled.
pub(crate) async fn read(wire: &mut Wire<Transport>, side: Side, doing: &str) -> Result<Message> {
    loop {
        let message =
            wire.read(limits::MESSAGE_BYTES).await.map_err(|error| advice::lost(side, doing, &error))?;
        match message.tag {
            backend::NOTICE_RESPONSE_TAG => Report::parse(&message.body).log(side),
            backend::PARAMETER_STATUS_TAG | backend::NOTIFICATION_RESPONSE_TAG => {}
            _ => return Ok(message),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

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
