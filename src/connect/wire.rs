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

    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::task::yield_now;

    use super::*;

    const LIMIT: usize = 64 * 1024 * 1024;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut message = vec![tag];
        message.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
        message.extend(body);
        message
    }

    fn pair(buffer_bytes: usize) -> (Wire<DuplexStream>, DuplexStream) {
        let (near, far) = duplex(buffer_bytes);
        (Wire::new(near), far)
    }

    /// Reads all that is there, and is cancelled each time.
    async fn read_all(wire: &mut Wire<DuplexStream>) {
        for _ in 0..100 {
            assert!(wire.read(LIMIT).now_or_never().is_none());
            yield_now().await;
        }
    }

    #[tokio::test]
    async fn messages_arrive_whole_when_the_bytes_come_one_at_a_time() {
        let (mut wire, mut far) = pair(1);
        let large = vec![7; 3 * READ_BYTES];
        let sent = [(b'a', &b""[..]), (b'b', b"x"), (b'c', &large), (b'd', b"yz")];
        let bytes: Vec<u8> = sent.iter().flat_map(|(tag, body)| message(*tag, body)).collect();
        let writer = tokio::spawn(async move { far.write_all(&bytes).await });
        for (tag, body) in sent {
            let received = wire.read(LIMIT).await.unwrap();
            assert_eq!((received.tag, &received.body[..]), (tag, body));
        }
        writer.await.unwrap().unwrap();
        assert_eq!(wire.read(LIMIT).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn what_has_arrived_is_given_without_touching_the_socket() {
        let (mut wire, mut far) = pair(1024);
        far.write_all(&[message(b'a', b"1"), message(b'b', b"2")].concat()).await.unwrap();
        assert_eq!(wire.read(LIMIT).await.unwrap().tag, b'a');
        drop(far);
        assert_eq!(wire.buffered(LIMIT).unwrap().unwrap().tag, b'b');
        assert!(wire.buffered(LIMIT).unwrap().is_none());
    }

    #[tokio::test]
    async fn impossible_lengths_are_refused() {
        for length in [0, 3, 0x8000_0000, 0xffff_ffff, u32::try_from(LIMIT).unwrap() + 5] {
            let (mut wire, mut far) = pair(1024);
            far.write_u8(b'd').await.unwrap();
            far.write_u32(length).await.unwrap();
            assert_eq!(wire.read(LIMIT).await.unwrap_err().kind(), io::ErrorKind::InvalidData, "{length:#x}");
        }
    }

    #[tokio::test]
    async fn memory_grows_with_what_has_arrived_and_not_with_what_is_announced() {
        let (mut wire, mut far) = pair(1 << 20);
        far.write_u8(b'd').await.unwrap();
        far.write_u32(u32::try_from(LIMIT).unwrap()).await.unwrap();
        far.write_all(&[0; 1000]).await.unwrap();
        read_all(&mut wire).await;
        assert!(wire.large.as_ref().unwrap().body.capacity() <= 2 * READ_BYTES);
        far.write_all(&[0; 500_000]).await.unwrap();
        read_all(&mut wire).await;
        let large = wire.large.as_ref().unwrap();
        assert_eq!(large.body.len(), 501_000);
        assert!(large.body.capacity() <= 2 * 501_000 + READ_BYTES);
    }

    #[tokio::test]
    async fn a_large_message_has_memory_of_its_own() {
        let (mut wire, mut far) = pair(1 << 20);
        let bytes = [message(b'd', &vec![1; 900_000]), message(b'k', b"after")].concat();
        let writer = tokio::spawn(async move { far.write_all(&bytes).await.map(|()| far) });
        let large = wire.read(LIMIT).await.unwrap();
        assert_eq!(large.body.len(), 900_000);
        assert_eq!(wire.read(LIMIT).await.unwrap().body, "after");
        // Nobody else holds it: dropping it gives the memory back.
        assert!(large.body.is_unique());
        assert!(wire.inbox.capacity() <= 2 * READ_BYTES);
        drop(writer.await.unwrap());
    }

    #[tokio::test]
    async fn many_messages_that_are_kept_do_not_change() {
        let (mut wire, mut far) = pair(10_000);
        let body = |n: u32| vec![n.to_be_bytes()[3]; usize::try_from(n * 37 % 9000).unwrap()];
        let writer = tokio::spawn(async move {
            for n in 0..500 {
                far.write_all(&message(b'd', &body(n))).await.unwrap();
            }
        });
        let mut kept = Vec::new();
        for _ in 0..500 {
            kept.push(wire.read(LIMIT).await.unwrap().body);
        }
        writer.await.unwrap();
        for (n, received) in kept.iter().enumerate() {
            assert_eq!(received[..], body(u32::try_from(n).unwrap()));
        }
    }

    #[tokio::test]
    async fn a_cancelled_write_is_completed_by_the_next_read() {
        let (mut wire, mut far) = pair(8);
        wire.outbox().put_slice(b"more than eight bytes");
        assert!(wire.flush().now_or_never().is_none());
        let reader = tokio::spawn(async move {
            let mut received = [0; 21];
            far.read_exact(&mut received).await.unwrap();
            far.write_all(&message(b'k', b"")).await.unwrap();
            received
        });
        assert_eq!(wire.read(LIMIT).await.unwrap().tag, b'k');
        assert_eq!(&reader.await.unwrap(), b"more than eight bytes");
    }
}
