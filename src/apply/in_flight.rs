//! Statements that are sent and not yet answered.
//!
//! The SQL client sends a statement when its future is polled first and queues without a bound, so
//! both are done here: a statement is polled once as it is pushed, which fixes the order, and the
//! oldest is awaited while too much is under way. What is pushed must be sent as a whole by that first poll
//! (prepared before, that is): a COPY behind it waits for its answer, and keeps the rest of it from being sent.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use tokio_postgres::Error;

use crate::limits;

type Answer<'a> = Pin<Box<dyn Future<Output = Result<u64, Error>> + Send + 'a>>;

/// A statement's place in the batch: the transaction and the change in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) transaction: usize,
    pub(super) change: usize,
}

/// A statement that did not do what it had to.
#[derive(Debug)]
pub(super) enum Wrong {
    /// The server refused it, or the connection was lost.
    Refused(Error),
    /// It touched this many rows instead of those that it had to.
    Rows(u64),
}

/// Statements under way, oldest first.
#[derive(Default)]
pub(super) struct InFlight<'a> {
    queue: VecDeque<Sent<'a>>,
    bytes: usize,
}

struct Sent<'a> {
    answer: Answer<'a>,
    bytes: usize,
    place: Option<Place>,
    /// It must touch exactly this many rows.
    rows: Option<u64>,
}

/// Where and how a statement went wrong; no place for those that frame the batch.
pub(super) type Trouble = (Option<Place>, Wrong);

impl<'a> InFlight<'a> {
    /// Sends a statement that must touch exactly so many `rows`, if that is known, after making room for
    /// its `bytes`.
    pub(super) async fn push(
        &mut self,
        answer: impl Future<Output = Result<u64, Error>> + Send + 'a,
        bytes: usize,
        place: Option<Place>,
        rows: Option<u64>,
    ) -> Result<(), Trouble> {
        while !self.queue.is_empty()
            && (self.bytes + bytes > limits::IN_FLIGHT_BYTES
                || self.queue.len() >= limits::IN_FLIGHT_STATEMENTS)
        {
            self.await_oldest().await?;
        }
        let mut sent = Sent { answer: Box::pin(answer), bytes, place, rows };
        // This first poll is what sends it.
        match poll_once(sent.answer.as_mut()).await {
            Poll::Pending => {}
            Poll::Ready(answer) => {
                // Only a statement that couldn't be sent is ready at once; an earlier one says why.
                self.drain().await?;
                return check(&sent, answer);
            }
        }
        self.bytes += bytes;
        self.queue.push_back(sent);
        Ok(())
    }

    /// Awaits everything that is under way.
    pub(super) async fn drain(&mut self) -> Result<(), Trouble> {
        while !self.queue.is_empty() {
            self.await_oldest().await?;
        }
        Ok(())
    }

    async fn await_oldest(&mut self) -> Result<(), Trouble> {
        let Some(mut sent) = self.queue.pop_front() else { return Ok(()) };
        self.bytes -= sent.bytes;
        let answer = (&mut sent.answer).await;
        check(&sent, answer)
    }
}

/// Polls a future once, whatever comes of it.
pub(super) async fn poll_once<F: Future + ?Sized>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await
}

fn check(sent: &Sent<'_>, answer: Result<u64, Error>) -> Result<(), Trouble> {
    match answer {
        Ok(touched) if sent.rows.is_some_and(|rows| rows != touched) => {
            Err((sent.place, Wrong::Rows(touched)))
        }
        Ok(_) => Ok(()),
        Err(error) => Err((sent.place, Wrong::Refused(error))),
    }
}
