//! A TCP proxy that breaks connections in every way that networks do.
//!
//! ```text
//!   client ──► receive ──► queue, each piece with the time it is due ──► deliver ──► server
//!          ◄── deliver ◄──────────────────  the same  ◄─────────────── receive ◄──
//! ```
//!
//! All faults happen at delivery, and everything can be armed and disarmed at any time.

#![allow(clippy::unwrap_used)]

use std::collections::hash_map::RandomState;
use std::convert::Infallible;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};

/// The most bytes received at once.
const PIECE_BYTES: usize = 64 * 1024;

/// The most pieces that wait for their time: 64 MiB at most, in practice what fits into the delay.
const PIECES: usize = 1024;

/// The longest pattern that [`Proxy::on_bytes`] looks for.
const PATTERN_BYTES: usize = 64;

/// How long a closed connection may go on sending before it is reset.
const CLOSING: Duration = Duration::from_secs(1);

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    ToServer,
    ToClient,
}

/// How a connection is cut, on both of its sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// With a RST: "connection reset by peer".
    Reset,
    /// With a FIN, after everything that was delivered: an unexpected end of the stream.
    Close,
}

/// What happens when a pattern comes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The piece that completes the pattern is delivered, and nothing after it in either direction.
    CutAfter,
    /// The piece that completes the pattern isn't delivered, nor anything after it.
    CutBefore,
}

/// A running proxy; dropping it ends its connections.
pub struct Proxy {
    /// Where it listens; the same as long as it lives.
    pub addr: SocketAddr,
    shared: Arc<Shared>,
    /// Tells whether the port is open now.
    listening: watch::Receiver<bool>,
    task: JoinHandle<()>,
}

struct Shared {
    upstream: SocketAddr,
    rules: watch::Sender<Rules>,
    armed: Mutex<Armed>,
    accepted: AtomicU64,
    fired: AtomicU64,
    delivered: [AtomicU64; 2],
}

/// What holds for all connections until it is changed.
#[derive(Default)]
struct Rules {
    refuse: bool,
    blackhole: bool,
    trickle: bool,
    delay: [Duration; 2],
    /// How often all connections were cut, and how the last time.
    cuts: u64,
    cut: Option<Cut>,
}

/// What happens once.
#[derive(Default)]
struct Armed {
    cut_after_bytes: [Option<u64>; 2],
    pattern: Option<(Direction, Vec<u8>, Action)>,
}

impl Proxy {
    /// Listens on a port of its own and connects to `upstream` for every connection.
    pub async fn start(upstream: SocketAddr) -> Self {
        let listener = bind_somewhere().await;
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            upstream,
            rules: watch::Sender::default(),
            armed: Mutex::default(),
            accepted: AtomicU64::default(),
            fired: AtomicU64::default(),
            delivered: Default::default(),
        });
        let (now_listening, listening) = watch::channel(true);
        let task = tokio::spawn(listen(listener, addr, shared.clone(), now_listening));
        Self { addr, shared, listening, task }
    }

    /// Cuts all connections that exist now.
    pub fn cut_all(&self, cut: Cut) {
        self.change(|rules| {
            rules.cuts += 1;
            rules.cut = Some(cut);
        });
    }

    /// While it is on, nothing arrives on either side, not even an end: connections are accepted,
    /// and all is swallowed. A connection that has lost something stays silent for ever, as if its
    /// entry in a NAT had been forgotten; only [`Proxy::cut_all`] ends it.
    pub fn blackhole(&self, on: bool) {
        self.change(|rules| rules.blackhole = on);
    }

    /// While it is on, the port is closed: connecting fails with "connection refused". Connections
    /// that exist are not touched.
    pub async fn refuse(&self, on: bool) {
        self.change(|rules| rules.refuse = on);
        self.listening.clone().wait_for(|listening| *listening != on).await.unwrap();
    }

    /// While it is on, bytes are delivered one at a time.
    pub fn trickle(&self, on: bool) {
        self.change(|rules| rules.trickle = on);
    }

    /// Delays what is received from now on; as much as before can be under way at once.
    pub fn delay(&self, direction: Direction, delay: Duration) {
        self.change(|rules| rules.delay[direction as usize] = delay);
    }

    /// Once: delivers so many more bytes, counted over all connections, and closes the connection
    /// in the middle of whatever it was saying. `None` disarms.
    pub fn cut_after(&self, direction: Direction, bytes: impl Into<Option<u64>>) {
        self.shared.armed.lock().unwrap().cut_after_bytes[direction as usize] = bytes.into();
    }

    /// Once: closes the connection on which this pattern comes by. Arming replaces what was armed.
    ///
    /// To lose a `COMMIT`: `(ToServer, b"COMMIT\0", CutBefore)`. To lose the answer, with the commit
    /// done: `(ToClient, b"COMMIT\0", CutBefore)`, which is the tag of its CommandComplete. To race
    /// a new connection against the commit: `(ToServer, b"COMMIT\0", CutAfter)`.
    pub fn on_bytes(&self, direction: Direction, pattern: &[u8], action: Action) {
        assert!((1..=PATTERN_BYTES).contains(&pattern.len()));
        self.shared.armed.lock().unwrap().pattern = Some((direction, pattern.to_vec(), action));
    }

    /// Disarms [`Proxy::on_bytes`].
    pub fn ignore_bytes(&self) {
        self.shared.armed.lock().unwrap().pattern = None;
    }

    /// How many connections were accepted.
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Relaxed)
    }

    /// How often [`Proxy::cut_after`] and [`Proxy::on_bytes`] have cut a connection.
    pub fn fired(&self) -> u64 {
        self.shared.fired.load(Relaxed)
    }

    /// How many bytes were delivered.
    pub fn delivered(&self, direction: Direction) -> u64 {
        self.shared.delivered[direction as usize].load(Relaxed)
    }

    fn change(&self, change: impl FnOnce(&mut Rules)) {
        self.shared.rules.send_modify(change);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A free port below those of outgoing connections (from 32768 on Linux): while it is closed, none
/// of them can take it.
async fn bind_somewhere() -> TcpListener {
    for _ in 0..1000 {
        let port = 10_000 + u16::try_from(RandomState::new().build_hasher().finish() % 10_000).unwrap();
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
            return listener;
        }
    }
    panic!("no free port");
}

/// Accepts connections, except while they are refused.
async fn listen(
    mut listener: TcpListener,
    addr: SocketAddr,
    shared: Arc<Shared>,
    now_listening: watch::Sender<bool>,
) {
    let mut rules = shared.rules.subscribe();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (client, _) = accepted.unwrap();
                shared.accepted.fetch_add(1, Relaxed);
                connections.spawn(serve(client, shared.clone()));
            }
            Some(_) = connections.join_next() => {}
            _ = async { rules.wait_for(|rules| rules.refuse).await.map(drop) } => {
                drop(listener);
                now_listening.send_replace(false);
                rules.wait_for(|rules| !rules.refuse).await.unwrap();
                listener = TcpListener::bind(addr).await.unwrap();
                now_listening.send_replace(true);
            }
        }
    }
}

/// One connection, from its acceptance to its end.
async fn serve(mut client: TcpStream, shared: Arc<Shared>) {
    let mut rules = shared.rules.subscribe();
    let cuts = rules.borrow().cuts;
    let lost = AtomicBool::new(rules.borrow().blackhole);
    let cut_all = async {
        let rules = rules.wait_for(|rules| rules.cuts != cuts).await.unwrap();
        rules.cut.unwrap()
    };
    if lost.load(Relaxed) {
        tokio::select! {
            cut = cut_all => return end(client, cut).await,
            _ = swallow(&mut client) => return,
        }
    }
    let Ok(mut server) = TcpStream::connect(shared.upstream).await else {
        return end(client, Cut::Reset).await;
    };
    let cut = {
        client.set_nodelay(true).unwrap();
        server.set_nodelay(true).unwrap();
        let (mut from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = server.split();
        let up = Pump { shared: &shared, lost: &lost, direction: Direction::ToServer };
        let down = Pump { shared: &shared, lost: &lost, direction: Direction::ToClient };
        let both = async {
            tokio::try_join!(
                up.run(&mut from_client, &mut to_server),
                down.run(&mut from_server, &mut to_client)
            )
        };
        tokio::select! {
            cut = cut_all => cut,
            ended = both => ended.err().unwrap_or(Cut::Close),
        }
    };
    tokio::join!(end(client, cut), end(server, cut));
}

/// Reads until the client has had enough, and then keeps the connection open, as a network does
/// that loses the FIN too.
async fn swallow(client: &mut TcpStream) -> Infallible {
    // A reset is lost just as well.
    let _ = tokio::io::copy(client, &mut tokio::io::sink()).await;
    std::future::pending().await
}

async fn end(mut stream: TcpStream, cut: Cut) {
    match cut {
        Cut::Reset => stream.set_zero_linger().unwrap(),
        Cut::Close => {
            // Closing with something unread would be a RST, which can overtake what was delivered.
            let drained = async {
                stream.shutdown().await?;
                tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
            };
            let _ = timeout(CLOSING, drained).await;
        }
    }
}

/// One direction of one connection.
struct Pump<'a> {
    shared: &'a Shared,
    /// True once the connection, in either direction, has lost something.
    lost: &'a AtomicBool,
    direction: Direction,
}

impl Pump<'_> {
    /// Carries bytes until they end, or the connection is to be cut.
    async fn run(
        &self,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), Cut> {
        let (queue, pieces) = mpsc::channel(PIECES);
        tokio::try_join!(self.receive(from, queue), self.deliver(pieces, to)).map(drop)
    }

    /// Queues what arrives; the last piece is empty.
    async fn receive(
        &self,
        from: &mut (impl AsyncRead + Unpin),
        queue: mpsc::Sender<(Instant, Vec<u8>)>,
    ) -> Result<(), Cut> {
        loop {
            let mut piece = Vec::with_capacity(PIECE_BYTES);
            match from.read_buf(&mut piece).await {
                Err(_) if self.swallows() => piece.clear(),
                other => drop(other.map_err(|_| Cut::Reset)?),
            }
            let due = Instant::now() + self.shared.rules.borrow().delay[self.direction as usize];
            let last = piece.is_empty();
            queue.send((due, piece)).await.map_err(|_| Cut::Reset)?;
            if last {
                return Ok(());
            }
        }
    }

    /// Delivers each piece at its time, with the faults that are armed then.
    async fn deliver(
        &self,
        mut pieces: mpsc::Receiver<(Instant, Vec<u8>)>,
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), Cut> {
        let mut tail = Vec::new();
        while let Some((due, piece)) = pieces.recv().await {
            sleep_until(due).await;
            if self.swallows() {
                self.lost.store(true, Relaxed);
                continue;
            }
            if piece.is_empty() {
                return to.shutdown().await.map_err(|_| Cut::Reset);
            }
            let (allowed, cut) = self.allowed(&piece, &mut tail);
            self.write(&piece[..allowed], to).await.map_err(|_| Cut::Reset)?;
            if cut {
                self.shared.fired.fetch_add(1, Relaxed);
                return Err(Cut::Close);
            }
        }
        Ok(())
    }

    fn swallows(&self) -> bool {
        self.lost.load(Relaxed) || self.shared.rules.borrow().blackhole
    }

    /// How much of a piece may be delivered, and whether the connection is cut then. The tail holds
    /// the last bytes of the pieces before, so that a pattern is found across them.
    fn allowed(&self, piece: &[u8], tail: &mut Vec<u8>) -> (usize, bool) {
        tail.extend_from_slice(piece);
        let mut armed = self.shared.armed.lock().unwrap();
        let seen = armed.pattern.take_if(|(direction, pattern, _)| {
            // A match that ends before this piece was not armed in time.
            let old = (tail.len() - piece.len()).saturating_sub(pattern.len() - 1);
            *direction == self.direction && tail[old..].windows(pattern.len()).any(|at| at == pattern)
        });
        tail.drain(..tail.len().saturating_sub(PATTERN_BYTES));
        let left = &mut armed.cut_after_bytes[self.direction as usize];
        match (seen, *left) {
            (Some((_, _, Action::CutBefore)), _) => (0, true),
            (Some((_, _, Action::CutAfter)), _) => (piece.len(), true),
            (None, Some(bytes)) if bytes <= piece.len() as u64 => {
                *left = None;
                (usize::try_from(bytes).unwrap(), true)
            }
            (None, Some(bytes)) => {
                *left = Some(bytes - piece.len() as u64);
                (piece.len(), false)
            }
            (None, None) => (piece.len(), false),
        }
    }

    async fn write(&self, bytes: &[u8], to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let trickle = self.shared.rules.borrow().trickle;
        for part in bytes.chunks(if trickle { 1 } else { PIECE_BYTES }) {
            to.write_all(part).await?;
            self.shared.delivered[self.direction as usize].fetch_add(part.len() as u64, Relaxed);
            if trickle {
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }
}
