//! Messages of the wire protocol, in and out.
//!
//! ```text
//! socket ──► inbox (64 KiB) ──► small messages, as slices of it
//!    │            └► large     ──► one large message, in memory of its own
//!    ◄── outbox
//! ```
//!
//! Three things are promised here. A length that the other side claims is never believed: memory
//! grows with the bytes that have arrived. A large message lives in memory of its own, which is
//! given back when its last slice is dropped. And everything may be cancelled: half a message that
//! was read or written stays in the buffers and is completed by the next call.
#![deny(clippy::wildcard_enum_match_arm)]

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use postgres_protocol::message::backend::Header;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::poll_read_buf;

/// How much is read at once, in bytes; a message above this size gets memory of its own.
const READ_BYTES: usize = 64 * 1024;

/// A tag and a length word precede every message, in bytes.
const HEADER_BYTES: usize = 5;

/// One message from the server.
#[derive(Debug)]
pub(crate) struct Message {
    /// The message type (PostgreSQL documentation, chapter "Message Formats").
    pub tag: u8,
    /// What follows the length word.
    pub body: Bytes,
}

/// A message that is too large for the inbox, as far as it has arrived.
struct Large {
    tag: u8,
    body: Vec<u8>,
    expected_bytes: usize,
}

/// A connection as a sequence of messages. (Not `Debug`: a password can be in the outbox.)
pub(crate) struct Wire<S> {
    stream: S,
    inbox: BytesMut,
    large: Option<Large>,
    outbox: BytesMut,
    flushing: bool,
}

impl<S> Wire<S> {
    /// A wire over a stream that nothing was read from yet.
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, inbox: BytesMut::new(), large: None, outbox: BytesMut::new(), flushing: false }
    }

    /// The stream below, to close it.
    pub(crate) fn stream_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    /// The stream below, and what was read from it but not taken yet.
    ///
    /// Must not be called while half of a large message is buffered; between two messages of a
    /// request and its answer there is none.
    pub(crate) fn into_parts(self) -> (S, BytesMut) {
        debug_assert!(self.large.is_none(), "half a message would be lost");
        (self.stream, self.inbox)
    }

    /// Where messages to the server are put; [`Wire::flush`] sends them.
    pub(crate) fn outbox(&mut self) -> &mut BytesMut {
        self.flushing = true;
        &mut self.outbox
    }

    /// The next message, if it is here already.
    ///
    /// # Errors
    ///
    /// `InvalidData` for a length that is impossible or above `limit_bytes`.
    pub(crate) fn buffered(&mut self, limit_bytes: usize) -> io::Result<Option<Message>> {
        if let Some(large) = self.large.take_if(|large| large.body.len() == large.expected_bytes) {
            return Ok(Some(Message { tag: large.tag, body: Bytes::from(large.body) }));
        }
        if self.large.is_some() {
            return Ok(None);
        }
        let Some(header) = Header::parse(&self.inbox)? else { return Ok(None) };
        // The length word counts itself; Header::parse refuses anything below its 4 bytes.
        let body_bytes = usize::try_from(header.len()).unwrap_or(usize::MAX).saturating_sub(4);
        if body_bytes > limit_bytes {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("a message of {body_bytes} bytes was announced, at most {limit_bytes} are accepted"),
            ));
        }
        if self.inbox.len() - HEADER_BYTES >= body_bytes {
            self.inbox.advance(HEADER_BYTES);
            let body = self.inbox.split_to(body_bytes).freeze();
            return Ok(Some(Message { tag: header.tag(), body }));
        }
        if body_bytes > READ_BYTES {
            // What is in the inbox is the beginning of this message and nothing else.
            self.inbox.advance(HEADER_BYTES);
            let body = self.inbox.to_vec();
            self.inbox = BytesMut::new();
            self.large = Some(Large { tag: header.tag(), body, expected_bytes: body_bytes });
        }
        Ok(None)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// The next message. What waits in the outbox is sent meanwhile.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` when the server has closed the connection, `InvalidData` for a length that is
    /// impossible or above `limit_bytes`, and what the socket says.
    pub(crate) async fn read(&mut self, limit_bytes: usize) -> io::Result<Message> {
        loop {
            if let Some(message) = self.buffered(limit_bytes)? {
                return Ok(message);
            }
            let read_bytes = poll_fn(|cx| {
                // A failed write shows up as a failed read, after the server's last words.
                let _ = self.poll_flush(cx);
                self.poll_fill(cx)
            })
            .await?;
            if read_bytes == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Sends everything that is in the outbox.
    ///
    /// # Errors
    ///
    /// What the socket says.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let stream = Pin::new(&mut self.stream);
        if let Some(large) = &mut self.large {
            let missing_bytes = large.expected_bytes - large.body.len();
            if large.body.len() == large.body.capacity() {
                // Doubling, but never past the end of the message.
                large.body.reserve_exact(missing_bytes.min(large.body.len().max(READ_BYTES)));
            }
            // Stops at the end of the message, so that its memory holds nothing else.
            return poll_read_buf(stream, cx, &mut (&mut large.body).limit(missing_bytes));
        }
        if self.inbox.capacity() - self.inbox.len() < READ_BYTES / 4 {
            self.inbox.reserve(READ_BYTES);
        }
        poll_read_buf(stream, cx, &mut self.inbox)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outbox.is_empty() {
            let written_bytes = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.outbox))?;
            if written_bytes == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.outbox.advance(written_bytes);
        }
        if self.flushing {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.flushing = false;
        }
        Poll::Ready(Ok(()))
    }
}
