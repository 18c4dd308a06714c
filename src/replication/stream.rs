//! The stream itself: frames in, feedback out.
#![deny(clippy::wildcard_enum_match_arm)]

use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Buf, BufMut, Bytes};
use postgres_protocol::message::{backend, frontend};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use tokio_postgres::error::SqlState;

use crate::connect::advice;
use crate::connect::report::Report;
use crate::connect::transport::Transport;
use crate::connect::wire::{Message, Wire};
use crate::fault::{Fault, Result, Side};
use crate::limits;
use crate::lsn::Lsn;

/// CopyBothResponse, which postgres-protocol doesn't know.
pub(super) const COPY_BOTH_RESPONSE_TAG: u8 = b'W';

/// Seconds from the Unix epoch to 2000-01-01, from which PostgreSQL counts.
const POSTGRES_EPOCH: Duration = Duration::from_secs(946_684_800);

/// What to do when a publication was missing at a change.
const UNPUBLISHED: &str = "the publication was dropped, or created after the slot: changes are missing that can't be \
     had any more. Have everything copied again, from a new slot on, over the rows that are there: cdc repair --all";

/// A message of the replication stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A piece of the log: here one message of pgoutput.
    XLogData {
        /// Where it begins in the log; `Lsn::ZERO` for messages that have no place of their own.
        wal_start: Lsn,
        /// The end of the log on the server.
        wal_end: Lsn,
        /// The server's clock when it sent this, in microseconds since 2000-01-01 00:00 UTC.
        sent_at: i64,
        /// The message, a slice of the memory that it was received in.
        payload: Bytes,
    },
    /// A sign of life.
    Keepalive {
        /// The end of what the server has sent or skipped.
        wal_end: Lsn,
        /// The server's clock when it sent this, in microseconds since 2000-01-01 00:00 UTC.
        sent_at: i64,
        /// The server disconnects soon if it hears nothing.
        reply_requested: bool,
    },
}

/// A standby status update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feedback {
    /// Received up to here.
    pub written: Lsn,
    /// Durable up to here: the server forgets everything below.
    pub flushed: Lsn,
    /// Applied up to here.
    pub applied: Lsn,
    /// Asks the server for a keepalive at once.
    pub reply_requested: bool,
}

/// A running replication stream.
pub struct ReplicationStream<S = Transport> {
    wire: Wire<S>,
    side: Side,
}

impl<S: AsyncRead + AsyncWrite + Unpin> ReplicationStream<S> {
    pub(super) fn new(wire: Wire<S>, side: Side) -> Self {
        Self { wire, side }
    }

    /// The next frame. Frames that have arrived already are given without touching the socket.
    ///
    /// May be cancelled: nothing is lost.
    ///
    /// # Errors
    ///
    /// The connection is lost, the server ends the stream or reports an error, or it warns that a
    /// publication was skipped (PostgreSQL 18: its changes would be missing silently).
    pub async fn next(&mut self) -> Result<Frame> {
        loop {
            let Message { tag, body } = self
                .wire
                .read(limits::MESSAGE_BYTES)
                .await
                .map_err(|e| advice::lost(self.side, "reading the replication stream", &e))?;
            match tag {
                backend::COPY_DATA_TAG => {
                    return parse(body).ok_or_else(|| {
                        Fault::person("a message of the replication stream can't be understood").on(self.side)
                    });
                }
                backend::NOTICE_RESPONSE_TAG => self.notice(&Report::parse(&body))?,
                backend::PARAMETER_STATUS_TAG => {}
                backend::ERROR_RESPONSE_TAG => {
                    let report = Report::parse(&body);
                    let fault = advice::replication(self.side, "the server ended the stream", &report);
                    let is_unpublished = report.code == SqlState::UNDEFINED_OBJECT;
                    return Err(if is_unpublished { fault.remedy(UNPUBLISHED) } else { fault });
                }
                backend::COPY_DONE_TAG | backend::COMMAND_COMPLETE_TAG => {
                    return Err(Fault::unreachable(
                        self.side,
                        "the server ended the replication stream: it is shutting down",
                    ));
                }
                tag => return Err(advice::unexpected(self.side, tag)),
            }
        }
    }

    /// Tells the server how far we are.
    ///
    /// May be cancelled: what isn't sent yet is sent with the next frame or feedback.
    ///
    /// # Errors
    ///
    /// The connection is lost.
    pub async fn send_feedback(&mut self, feedback: &Feedback) -> Result<()> {
        put_feedback(feedback, SystemTime::now(), self.wire.outbox());
        self.wire.flush().await.map_err(|e| advice::lost(self.side, "sending feedback", &e))
    }

    /// Ends the stream and the connection, so that the slot is free at once. Gives up after
    /// [`limits::CLOSE_TIMEOUT`].
    ///
    /// # Errors
    ///
    /// The connection is lost; the slot is free then too, or soon.
    pub async fn finish(&mut self) -> Result<()> {
        let side = self.side;
        match timeout(limits::CLOSE_TIMEOUT, self.say_goodbye()).await {
            Ok(result) => result.map_err(|e| advice::lost(side, "ending the replication stream", &e)),
            Err(_) => Err(Fault::unreachable(side, "the server doesn't end the replication stream")),
        }
    }

    async fn say_goodbye(&mut self) -> io::Result<()> {
        frontend::copy_done(self.wire.outbox());
        // What is on its way is thrown away: it comes again from the confirmed position.
        while self.wire.read(limits::MESSAGE_BYTES).await?.tag != backend::READY_FOR_QUERY_TAG {}
        frontend::terminate(self.wire.outbox());
        self.wire.flush().await?;
        // The server may have closed its end first.
        let _ = self.wire.stream_mut().shutdown().await;
        Ok(())
    }

    fn notice(&self, report: &Report) -> Result<()> {
        // LoadPublications() in pgoutput.c, PostgreSQL 18; older servers raise 42704 instead.
        if report.severity == "WARNING" && report.code == SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE {
            return Err(report.fault(self.side, "the server skips changes").remedy(UNPUBLISHED));
        }
        report.log(self.side);
        Ok(())
    }
}

fn parse(mut body: Bytes) -> Option<Frame> {
    let frame = match body.try_get_u8().ok()? {
        b'w' => Frame::XLogData {
            wal_start: body.try_get_u64().ok()?.into(),
            wal_end: body.try_get_u64().ok()?.into(),
            sent_at: body.try_get_i64().ok()?,
            payload: std::mem::take(&mut body),
        },
        b'k' => Frame::Keepalive {
            wal_end: body.try_get_u64().ok()?.into(),
            sent_at: body.try_get_i64().ok()?,
            reply_requested: body.try_get_u8().ok()? != 0,
        },
        _ => return None,
    };
    body.is_empty().then_some(frame)
}

/// A standby status update in a CopyData message.
fn put_feedback(feedback: &Feedback, now: SystemTime, out: &mut impl BufMut) {
    const UPDATE_BYTES: u32 = 34;
    out.put_u8(backend::COPY_DATA_TAG);
    out.put_u32(4 + UPDATE_BYTES);
    out.put_u8(b'r');
    out.put_u64(feedback.written.as_u64());
    out.put_u64(feedback.flushed.as_u64());
    out.put_u64(feedback.applied.as_u64());
    out.put_i64(postgres_micros(now));
    out.put_u8(u8::from(feedback.reply_requested));
}

/// Microseconds since 2000-01-01 00:00 UTC; 0 for a clock that is wrong by decades.
fn postgres_micros(now: SystemTime) -> i64 {
    let elapsed = now.duration_since(UNIX_EPOCH + POSTGRES_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_micros()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, DuplexStream, duplex};

    use super::*;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut message = vec![tag];
        message.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
        message.extend(body);
        message
    }

    fn xlog_data(payload: &[u8]) -> Vec<u8> {
        [&b"w"[..], &1u64.to_be_bytes(), &2u64.to_be_bytes(), &3i64.to_be_bytes(), payload].concat()
    }

    async fn stream_of(messages: &[Vec<u8>]) -> (ReplicationStream<DuplexStream>, DuplexStream) {
        let (near, mut far) = duplex(1 << 20);
        far.write_all(&messages.concat()).await.unwrap();
        (ReplicationStream::new(Wire::new(near), Side::Source), far)
    }

    #[tokio::test]
    async fn frames_are_told_apart_and_payloads_are_not_touched() {
        let keepalive = [&b"k"[..], &7u64.to_be_bytes(), &8i64.to_be_bytes(), &[1]].concat();
        let messages =
            [message(b'd', &xlog_data(b"payload")), message(b'S', b"a\0b\0"), message(b'd', &keepalive)];
        let (mut stream, _far) = stream_of(&messages).await;
        let expected = Frame::XLogData {
            wal_start: Lsn::from(1),
            wal_end: Lsn::from(2),
            sent_at: 3,
            payload: Bytes::from_static(b"payload"),
        };
        assert_eq!(stream.next().await.unwrap(), expected);
        let expected = Frame::Keepalive { wal_end: Lsn::from(7), sent_at: 8, reply_requested: true };
        assert_eq!(stream.next().await.unwrap(), expected);
    }

    #[tokio::test]
    async fn what_is_no_frame_is_refused() {
        let short = xlog_data(b"");
        let long = [&b"k"[..], &[0; 18]].concat();
        let bodies = [&b""[..], b"x", b"k", &short[..short.len() - 1], &long];
        for body in bodies {
            let (mut stream, _far) = stream_of(&[message(b'd', body)]).await;
            assert!(stream.next().await.is_err(), "{body:?}");
        }
        for tag in *b"WvRTDGH1~" {
            let (mut stream, _far) = stream_of(&[message(tag, b"")]).await;
            assert_eq!(stream.next().await.unwrap_err().code(), Some(&SqlState::PROTOCOL_VIOLATION), "{tag}");
        }
    }

    #[tokio::test]
    async fn a_publication_that_is_skipped_needs_a_person() {
        let ordinary = message(b'N', b"VWARNING\0C01000\0Mhello\0\0");
        let skipped = message(b'N', b"VWARNING\0C55000\0Mskipped loading publication \"p\"\0\0");
        let (mut stream, _far) = stream_of(&[ordinary, skipped]).await;
        let fault = stream.next().await.unwrap_err();
        assert_eq!(fault.reaction(), crate::fault::Reaction::Person);
        assert!(fault.what().contains("skipped loading publication"), "{fault}");
    }

    #[tokio::test]
    async fn a_stream_that_ends_is_tried_again() {
        let ends = [
            message(b'c', b""),
            message(b'C', b"COPY 0\0"),
            message(b'E', b"VFATAL\0C57P01\0Mbye\0\0"),
            vec![],
        ];
        for end in ends {
            let (mut stream, far) = stream_of(&[end]).await;
            drop(far);
            let fault = stream.next().await.unwrap_err();
            assert!(fault.is_unreachable(), "{fault}");
        }
        let (mut stream, far) = stream_of(&[]).await;
        drop(far);
        assert!(stream.next().await.unwrap_err().to_string().contains("wal_sender_timeout"));
    }

    #[tokio::test]
    async fn feedback_is_a_standby_status_update() {
        let (mut stream, mut far) = stream_of(&[]).await;
        let feedback = Feedback {
            written: Lsn::from(3),
            flushed: Lsn::from(2),
            applied: Lsn::from(1),
            reply_requested: true,
        };
        stream.send_feedback(&feedback).await.unwrap();
        let mut sent = [0; 39];
        far.read_exact(&mut sent).await.unwrap();
        let head =
            [&b"d\0\0\0\x26r"[..], &3u64.to_be_bytes(), &2u64.to_be_bytes(), &1u64.to_be_bytes()].concat();
        assert_eq!((&sent[..30], sent[38]), (&head[..], 1));
    }

    #[test]
    fn time_is_counted_from_the_year_2000() {
        let half_a_second_later = UNIX_EPOCH + POSTGRES_EPOCH + Duration::from_millis(500);
        assert_eq!(postgres_micros(half_a_second_later), 500_000);
        assert_eq!(postgres_micros(UNIX_EPOCH), 0);
    }
}
