//! The bytes below the protocol: TCP or a unix socket, encrypted or not.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::conninfo::{HostName, Keepalives, Ssl, SslNegotiation};
use super::tls;

// A peer that has vanished is noticed within a minute, if the connection string doesn't say otherwise.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_COUNT: u32 = 3;
const USER_TIMEOUT: Duration = Duration::from_secs(60);

/// A connection to a server, as bytes.
#[derive(Debug)]
pub struct Transport {
    stream: Stream,
    end_point: Option<Vec<u8>>,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// One place to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// Over TCP.
    Tcp(SocketAddr),
    /// Through the socket of this path.
    Unix(PathBuf),
}

/// Why TLS didn't come about.
#[derive(Debug)]
pub(crate) enum TlsFailure {
    /// The server has no TLS.
    NotOffered,
    /// The server answered the request for TLS with an error: it can't serve anyone now.
    Overloaded,
    /// What answers isn't a PostgreSQL server.
    NotPostgres,
    /// A server that was spoken to directly didn't agree on PostgreSQL's protocol.
    NoAlpn,
    /// The host name can't be in a certificate.
    ImpossibleName(String),
    /// A file with certificates or a key can't be used.
    Files(io::Error),
    /// The handshake failed, or the connection was lost in it.
    Handshake(io::Error),
}

impl Transport {
    /// Connects without TLS.
    pub(crate) async fn open(address: &Address, keepalives: &Keepalives) -> io::Result<Self> {
        let stream = match address {
            Address::Unix(path) => Stream::Unix(UnixStream::connect(path).await?),
            Address::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                watch_the_peer(&stream, keepalives)?;
                Stream::Tcp(stream)
            }
        };
        Ok(Self { stream, end_point: None })
    }

    /// Asks for TLS and does the handshake. When the server has none, the connection comes back with
    /// [`TlsFailure::NotOffered`], to be used as it is.
    pub(crate) async fn encrypt(
        self,
        name: &HostName,
        ssl: &Ssl,
    ) -> Result<Self, (TlsFailure, Option<Self>)> {
        let failed = |failure| (failure, None);
        let Stream::Tcp(mut stream) = self.stream else {
            return Err((TlsFailure::NotOffered, Some(self)));
        };
        let direct = ssl.negotiation == SslNegotiation::Direct;
        let config = tls::client_config(ssl).map_err(|e| failed(TlsFailure::Files(e)))?;
        let server_name = server_name(name).map_err(failed)?;
        if !direct {
            match request_tls(&mut stream).await {
                Ok(()) => {}
                Err(TlsFailure::NotOffered) => {
                    let plain = Self { stream: Stream::Tcp(stream), end_point: None };
                    return Err((TlsFailure::NotOffered, Some(plain)));
                }
                Err(other) => return Err(failed(other)),
            }
        }
        let connector = TlsConnector::from(Arc::new(config));
        let stream = connector.connect(server_name, stream).await;
        let stream = stream.map_err(|e| failed(TlsFailure::Handshake(e)))?;
        let session = stream.get_ref().1;
        // Without it, a server of another protocol could be made to listen (ALPACA).
        if direct && session.alpn_protocol() != Some(tls::ALPN) {
            return Err(failed(TlsFailure::NoAlpn));
        }
        let end_point =
            session.peer_certificates().and_then(<[_]>::first).and_then(|c| tls::end_point_hash(c));
        Ok(Self { stream: Stream::Tls(Box::new(stream)), end_point })
    }

    /// The hash that binds a login to this TLS connection (`tls-server-end-point`, RFC 5929); `None`
    /// without TLS, and where the certificate's signature has no hash of its own.
    #[must_use]
    pub fn channel_binding(&self) -> Option<&[u8]> {
        self.end_point.as_deref()
    }

    /// True with TLS.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        matches!(self.stream, Stream::Tls(_))
    }

    /// True for a unix socket, whose bytes don't leave this machine.
    #[must_use]
    pub fn is_local(&self) -> bool {
        matches!(self.stream, Stream::Unix(_))
    }
}

/// Sends SSLRequest. The answer is one byte, and exactly one byte is read: whatever someone put
/// behind it (CVE-2021-23222) goes into the handshake, which fails.
async fn request_tls(stream: &mut TcpStream) -> Result<(), TlsFailure> {
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    stream.write_all(&request).await.map_err(TlsFailure::Handshake)?;
    match stream.read_u8().await.map_err(TlsFailure::Handshake)? {
        b'S' => Ok(()),
        b'N' => Err(TlsFailure::NotOffered),
        // Nothing that it says may be believed before the handshake.
        b'E' => Err(TlsFailure::Overloaded),
        _ => Err(TlsFailure::NotPostgres),
    }
}

fn server_name(name: &HostName) -> Result<ServerName<'static>, TlsFailure> {
    match name {
        HostName::Tcp { host: Some(host), .. } => {
            // The zone of an IPv6 address is this machine's affair.
            let bare = host.split_once('%').map_or(host.as_str(), |(address, _)| address);
            ServerName::try_from(bare.to_owned()).map_err(|_| TlsFailure::ImpossibleName(host.clone()))
        }
        HostName::Tcp { host: None, hostaddr: Some(address) } => Ok(IpAddr::into(*address)),
        HostName::Tcp { host: None, hostaddr: None } | HostName::Unix(_) => {
            Err(TlsFailure::ImpossibleName(String::new()))
        }
    }
}

fn watch_the_peer(stream: &TcpStream, keepalives: &Keepalives) -> io::Result<()> {
    let socket = SockRef::from(stream);
    if keepalives.enabled {
        let probes = TcpKeepalive::new()
            .with_time(keepalives.idle.unwrap_or(KEEPALIVE_IDLE))
            .with_interval(keepalives.interval.unwrap_or(KEEPALIVE_INTERVAL))
            .with_retries(keepalives.count.unwrap_or(KEEPALIVE_COUNT));
        socket.set_tcp_keepalive(&probes)?;
    }
    socket.set_tcp_user_timeout(Some(keepalives.tcp_user_timeout.unwrap_or(USER_TIMEOUT)))
}

impl AsyncRead for Transport {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
