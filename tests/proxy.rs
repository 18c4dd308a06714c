//! The proxy of the tests breaks connections as it says it does.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use support::proxy::{Action, Cut, Direction, Proxy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// How long something that must come may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Long enough to be sure that nothing comes.
const SILENCE: Duration = Duration::from_millis(100);

/// A server that sends everything back, and remembers what it was told: each read of its own.
struct Echo {
    addr: SocketAddr,
    reads: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Echo {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let echo = Self { addr: listener.local_addr().unwrap(), reads: Arc::default() };
        let reads = echo.reads.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(answer(stream, reads.clone()));
            }
        });
        echo
    }

    fn told(&self) -> Vec<u8> {
        self.reads.lock().unwrap().concat()
    }

    /// Waits until it has been told so many bytes.
    async fn has_been_told(&self, bytes: usize) {
        let told = async {
            while self.told().len() < bytes {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, told).await.unwrap();
    }
}

async fn answer(mut stream: TcpStream, reads: Arc<Mutex<Vec<Vec<u8>>>>) {
    let mut buffer = vec![0; 1 << 20];
    while let Ok(n @ 1..) = stream.read(&mut buffer).await {
        reads.lock().unwrap().push(buffer[..n].to_vec());
        if stream.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
    let _ = stream.write_all(b"bye").await;
}

async fn echo_and_proxy() -> (Echo, Proxy) {
    let echo = Echo::start().await;
    let proxy = Proxy::start(echo.addr).await;
    (echo, proxy)
}

async fn connect(proxy: &Proxy) -> TcpStream {
    TcpStream::connect(proxy.addr).await.unwrap()
}

/// Sends bytes and waits until they have come back.
async fn round_trip(client: &mut TcpStream, bytes: &[u8]) {
    client.write_all(bytes).await.unwrap();
    let mut back = vec![0; bytes.len()];
    timeout(PATIENCE, client.read_exact(&mut back)).await.unwrap().unwrap();
    assert_eq!(back, bytes);
}

async fn is_silent(client: &mut TcpStream) -> bool {
    timeout(SILENCE, client.read_u8()).await.is_err()
}

/// Everything that still arrives before the end of the stream.
async fn rest(client: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    timeout(PATIENCE, client.read_to_end(&mut rest)).await.unwrap().unwrap();
    rest
}

#[tokio::test]
async fn bytes_and_the_end_of_the_stream_pass_in_both_directions() {
    let (_echo, proxy) = echo_and_proxy().await;
    let mut client = connect(&proxy).await;
    round_trip(&mut client, b"hello").await;
    client.shutdown().await.unwrap();
    assert_eq!(rest(&mut client).await, b"bye");
    assert_eq!(proxy.accepted(), 1);
    assert_eq!((proxy.delivered(Direction::ToServer), proxy.delivered(Direction::ToClient)), (5, 8));
    assert_eq!(proxy.fired(), 0);
}

#[tokio::test]
async fn all_connections_are_cut_and_new_ones_work() {
    let (_echo, proxy) = echo_and_proxy().await;
    for cut in [Cut::Reset, Cut::Close] {
        let mut clients = [connect(&proxy).await, connect(&proxy).await];
        for client in &mut clients {
            round_trip(client, b"hello").await;
        }
        proxy.cut_all(cut);
        for client in &mut clients {
            let error = timeout(PATIENCE, client.read_u8()).await.unwrap().unwrap_err();
            let expected =
                if cut == Cut::Reset { ErrorKind::ConnectionReset } else { ErrorKind::UnexpectedEof };
            assert_eq!(error.kind(), expected);
        }
        round_trip(&mut connect(&proxy).await, b"again").await;
    }
    assert_eq!(proxy.accepted(), 6);
}

#[tokio::test]
async fn a_refused_connection_is_refused_and_the_others_stay() {
    let (_echo, proxy) = echo_and_proxy().await;
    let mut client = connect(&proxy).await;
    round_trip(&mut client, b"hello").await;
    for _ in 0..3 {
        proxy.refuse(true).await;
        let error = TcpStream::connect(proxy.addr).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        round_trip(&mut client, b"still here").await;
        proxy.refuse(false).await;
        round_trip(&mut connect(&proxy).await, b"again").await;
    }
}

#[tokio::test]
async fn a_black_hole_swallows_and_its_victims_stay_silent() {
    let (echo, proxy) = echo_and_proxy().await;
    let (mut victim, mut idle) = (connect(&proxy).await, connect(&proxy).await);
    round_trip(&mut victim, b"hello").await;
    round_trip(&mut idle, b"hello").await;

    proxy.blackhole(true);
    victim.write_all(b"lost").await.unwrap();
    assert!(is_silent(&mut victim).await);
    let mut late = connect(&proxy).await;
    late.write_all(b"lost").await.unwrap();
    assert!(is_silent(&mut late).await);

    proxy.blackhole(false);
    round_trip(&mut idle, b"nothing lost").await;
    for client in [&mut victim, &mut late] {
        client.write_all(b"lost").await.unwrap();
        assert!(is_silent(client).await);
    }
    assert_eq!(echo.told(), b"hellohellonothing lost");

    // The server doesn't hear of the end either, until the network says so.
    drop(victim);
    tokio::time::sleep(SILENCE).await;
    assert_eq!(proxy.delivered(Direction::ToClient), 22);
    proxy.cut_all(Cut::Reset);
    assert_eq!(late.read_u8().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn bytes_trickle_one_by_one() {
    let (echo, proxy) = echo_and_proxy().await;
    let mut client = connect(&proxy).await;
    proxy.trickle(true);
    round_trip(&mut client, &[7; 500]).await;
    let reads = echo.reads.lock().unwrap().len();
    assert!(reads > 50, "{reads} reads");

    proxy.trickle(false);
    round_trip(&mut client, &[8; 500]).await;
    assert!(echo.reads.lock().unwrap().len() - reads < 10);
}

#[tokio::test]
async fn a_connection_is_closed_after_so_many_bytes_to_the_server() {
    let (echo, proxy) = echo_and_proxy().await;
    let mut client = connect(&proxy).await;
    round_trip(&mut client, b"before").await;
    proxy.cut_after(Direction::ToServer, 5);
    client.write_all(b"abc").await.unwrap();
    echo.has_been_told(9).await;
    assert_eq!(proxy.fired(), 0);
    client.write_all(b"defg").await.unwrap();
    rest(&mut client).await;
    echo.has_been_told(11).await;
    assert_eq!(echo.told(), b"beforeabcde");
    assert_eq!(proxy.fired(), 1);
    round_trip(&mut connect(&proxy).await, b"only once").await;
}

#[tokio::test]
async fn a_connection_is_closed_after_so_many_bytes_to_the_client() {
    let (_echo, proxy) = echo_and_proxy().await;
    let mut client = connect(&proxy).await;
    proxy.cut_after(Direction::ToClient, 5);
    client.write_all(b"abcdefg").await.unwrap();
    assert_eq!(rest(&mut client).await, b"abcde");
    assert_eq!(proxy.fired(), 1);

    proxy.cut_after(Direction::ToClient, 5);
    proxy.cut_after(Direction::ToClient, None);
    round_trip(&mut connect(&proxy).await, b"disarmed").await;
}

#[tokio::test]
async fn a_delay_costs_time_and_no_bandwidth() {
    let (_echo, proxy) = echo_and_proxy().await;
    let mut client = connect(&proxy).await;
    proxy.delay(Direction::ToServer, Duration::from_millis(30));
    proxy.delay(Direction::ToClient, Duration::from_millis(20));
    let start = Instant::now();
    round_trip(&mut client, b"ping").await;
    assert!(start.elapsed() >= Duration::from_millis(50));

    // 16 MiB are at least 256 pieces: one after the other they would take 8 seconds.
    let (mut from, mut to) = client.split();
    let start = Instant::now();
    let sent = async { to.write_all(&vec![1; 16 << 20]).await.unwrap() };
    let received = async { from.read_exact(&mut vec![0; 16 << 20]).await.unwrap() };
    tokio::join!(sent, received);
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());

    proxy.delay(Direction::ToServer, Duration::ZERO);
    proxy.delay(Direction::ToClient, Duration::ZERO);
    let start = Instant::now();
    round_trip(&mut client, b"ping").await;
    assert!(start.elapsed() < Duration::from_millis(50));
}

#[tokio::test]
async fn a_request_is_lost_before_it_reaches_the_server() {
    let (echo, proxy) = echo_and_proxy().await;
    let mut client = connect(&proxy).await;
    proxy.on_bytes(Direction::ToServer, b"COMMIT\0", Action::CutBefore);
    round_trip(&mut client, b"COMMI").await;
    client.write_all(b"T\0more").await.unwrap();
    assert_eq!(rest(&mut client).await, b"");
    assert_eq!(echo.told(), b"COMMI");
    assert_eq!(proxy.fired(), 1);

    round_trip(&mut connect(&proxy).await, b"COMMIT\0 passes, as nothing is armed").await;
    proxy.on_bytes(Direction::ToServer, b"COMMIT\0", Action::CutBefore);
    proxy.ignore_bytes();
    round_trip(&mut connect(&proxy).await, b"COMMIT\0 passes, as it was disarmed").await;
    assert_eq!(proxy.fired(), 1);
}

#[tokio::test]
async fn a_request_reaches_the_server_and_its_answer_is_lost() {
    let (echo, proxy) = echo_and_proxy().await;
    for (round, (direction, action)) in
        [(Direction::ToServer, Action::CutAfter), (Direction::ToClient, Action::CutBefore)]
            .into_iter()
            .enumerate()
    {
        let mut client = connect(&proxy).await;
        round_trip(&mut client, b"BEGIN\0").await;
        let told = echo.told().len();
        proxy.on_bytes(direction, b"COMMIT\0", action);
        client.write_all(b"COMMIT\0").await.unwrap();
        assert_eq!(rest(&mut client).await, b"");
        echo.has_been_told(told + 7).await;
        assert!(echo.told().ends_with(b"COMMIT\0"));
        assert_eq!(proxy.fired(), round as u64 + 1);
    }
}

#[tokio::test]
async fn a_pattern_that_came_by_before_it_was_armed_is_not_found() {
    let (_echo, proxy) = echo_and_proxy().await;
    let mut client = connect(&proxy).await;
    round_trip(&mut client, b"COMMIT\0").await;
    proxy.on_bytes(Direction::ToServer, b"COMMIT\0", Action::CutBefore);
    round_trip(&mut client, b"BEGIN\0").await;
    assert_eq!(proxy.fired(), 0);
}

#[tokio::test]
async fn a_server_that_is_down_resets_its_clients() {
    let echo = Echo::start().await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert_ne!(echo.addr, nobody);
    let proxy = Proxy::start(nobody).await;
    let error = connect(&proxy).await.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}
