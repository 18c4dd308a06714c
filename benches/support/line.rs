//! A line to a server far away.

use std::net::Ipv4Addr;
use std::time::Duration;

use cdc::demo::Cluster;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

/// How long bytes are under way, each way.
const DELAY: Duration = Duration::from_millis(15);

/// Bytes are gathered for so long, as a network card does, and 256 MB/s go through.
const GATHERING: Duration = Duration::from_millis(1);
const PIECE_BYTES: usize = 256 * 1024;

/// The most pieces that are under way. A line that is read more slowly than that backs up.
const PIECES: usize = 64;

/// Opens a line to a server, and gives the URL of a database at its far end.
///
/// What is under way is limited by `PIECES` only, not by the window that the receiver offers.
pub async fn line_to(cluster: &Cluster, database: &str) -> String {
    let port = cluster.port();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let near = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
            client.set_nodelay(true).unwrap();
            server.set_nodelay(true).unwrap();
            let ((from_client, to_client), (from_server, to_server)) =
                (client.into_split(), server.into_split());
            carry(from_client, to_server);
            carry(from_server, to_client);
        }
    });
    format!("postgres://postgres@127.0.0.1:{near}/{database}")
}

/// Carries one direction of a connection until it ends.
fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
    let (sent, mut under_way) = mpsc::channel::<(Instant, Vec<u8>)>(PIECES);
    tokio::spawn(async move {
        let mut buffer = vec![0; PIECE_BYTES];
        while let Ok(bytes @ 1..) = from.read(&mut buffer).await {
            if sent.send((Instant::now() + DELAY, buffer[..bytes].to_vec())).await.is_err() {
                break;
            }
            sleep(GATHERING).await;
        }
    });
    tokio::spawn(async move {
        while let Some((due, piece)) = under_way.recv().await {
            sleep_until(due).await;
            if to.write_all(&piece).await.is_err() {
                break;
            }
        }
    });
}
